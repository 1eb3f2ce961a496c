package forge

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
)

func TestComment(t *testing.T) {
	for _, body := range []string{"", "short", strings.Repeat("line\n", 20_000), strings.Repeat("é", 60_000),
		strings.Repeat("x", MaxComment) + "\xff"} {
		got := comment("report", body)
		if len(got) > MaxComment || !utf8.ValidString(got) || !strings.HasPrefix(got, "<!-- aob:report -->\n") {
			t.Errorf("%d bytes became %d", len(body), len(got))
		}
	}
}

// Only the first line of a comment is an order.
func TestOnlyTheFirstLineIsACommand(t *testing.T) {
	for body, want := range map[string]bool{
		"/aob run 3f9c2a": true, "\r\n \n  /aob run 1  \r\nthanks\r\n": true, "/aob": true,
		"": false, "/aobrun": false, "see /aob run": false, "hi\n/aob run 1": false,
		"> /aob run 1": false, "```\n/aob run 1\n```": false, "~~~\n/aob run 1\n~~~": false,
		"    /aob run 1": false, "\t/aob run 1": false, "<!--\n/aob run 1\n-->": false, "<!-- x -->/aob run 1": false,
		"- /aob run 1": false, "`/aob run 1`": false, "<pre>\n/aob run 1": false, "\ufeff/aob run 1": false,
	} {
		if (delivery.CommandLine(body) != "") != want {
			t.Errorf("%q: got %v", body, !want)
		}
	}
}

// Of many comments the newest are read, oldest first.
func TestNewest(t *testing.T) {
	var list []delivery.Comment
	for i := range int64(MaxCommands + 10) {
		list = append(list, delivery.Comment{ID: MaxCommands + 9 - i})
	}
	if got := newest(list); len(got) != MaxCommands || got[0].ID != 10 || got[MaxCommands-1].ID != MaxCommands+9 {
		t.Errorf("got %d, from %d", len(got), got[0].ID)
	}
}

// Somebody who writes many comments hides nobody else's, however they are read.
func TestManyCommentsDoNotHideOthers(t *testing.T) {
	order := "/aob accept 0123 because I looked at every image"
	for name, tt := range map[string]struct {
		others func(i int) string // who wrote the other comments
		at     int                // the owner's place among them
	}{
		"before a reader's":             {func(int) string { return "eve" }, 0},
		"among a reader's":              {func(int) string { return "eve" }, 500},
		"before those of 50 readers":    {func(i int) string { return fmt.Sprint("eve", i%50) }, 0},
		"a reader who changes the case": {func(i int) string { return []string{"eve", "Eve", "EVE"}[i%3] }, 0},
		"after one of each of many":     {func(i int) string { return fmt.Sprint("eve", i) }, 1000},
	} {
		var all []delivery.Comment
		for i := range 1001 {
			c := delivery.Comment{ID: int64(i), Author: tt.others(i), Body: "/aob accept 0123 because I say so"}
			if i == tt.at {
				c.Author, c.Body = "ann", order
			}
			all = append(all, c)
		}
		var inParts []delivery.Comment // as they come from a forge
		for _, c := range all {
			if inParts = append(inParts, c); len(inParts) >= 2*MaxCommands {
				inParts = newest(inParts)
			}
		}
		atOnce, inParts := newest(slices.Clone(all)), newest(inParts)
		if !slices.Equal(atOnce, inParts) || len(atOnce) != MaxCommands ||
			!slices.IsSortedFunc(atOnce, func(a, b delivery.Comment) int { return cmp.Compare(a.ID, b.ID) }) {
			t.Errorf("%s: %d comments at once, %d in parts", name, len(atOnce), len(inParts))
		}
		if !slices.ContainsFunc(atOnce, func(c delivery.Comment) bool { return c.Author == "ann" }) {
			t.Errorf("%s: the owner's word is not read", name)
		}
	}
}

// A writer who changes AOB's questions, or makes it ask ever new ones, gets a bounded
// number of them, and what an owner says is still asked, later.
func TestQuestionsAreBounded(t *testing.T) {
	var q questions
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	asked := 0
	for i := range 1000 {
		if q.may(1, fmt.Sprint("because ", i), now) == nil {
			asked++
		}
	}
	if asked != maxQuestions {
		t.Errorf("%d questions at once, want %d", asked, maxQuestions)
	}
	if err := q.may(2, "because 1", now); err != nil {
		t.Errorf("another pull request: %v", err)
	}
	if err := q.may(1, "because it is good", now.Add(questionPause)); err != nil {
		t.Errorf("after the pause: %v", err)
	}
	asked = 0
	for i := range 100 {
		if q.may(3, "the same", now.Add(time.Duration(i)*time.Hour)) == nil {
			asked++
		}
	}
	if asked != maxAsks {
		t.Errorf("one question was asked %d times, want %d", asked, maxAsks)
	}
}

// A description that is too long loses its middle: what to do, behind the last semicolon, is kept.
func TestDescriptionKeepsWhatToDo(t *testing.T) {
	long := strings.Repeat("something is wrong here, ", 8)
	for s, want := range map[string]string{
		"all is well":                       "all is well",
		long + "and more; rebase onto main": "; rebase onto main",
		long + "; " + long:                  "…",
		long:                                "…",
		strings.Repeat("ä", 200) +
			"; push the branch here, or a maintainer runs: aob pr adopt 7": "; push the branch here, or a maintainer " +
			"runs: aob pr adopt 7",
	} {
		got := Describe(s)
		if !strings.HasSuffix(got, want) || utf8.RuneCountInString(got) > MaxDescription || !utf8.ValidString(got) {
			t.Errorf("%q is shown as %q", s, got)
		}
	}
}

// The guide to Gitea has the scopes of the token that AOB asks for.
func TestGuideNamesTheScopes(t *testing.T) {
	guide, err := os.ReadFile("../../docs/gitea.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range scopes {
		if !strings.Contains(string(guide), "`"+scope+"`") || !strings.Contains(makeToken, scope) {
			t.Errorf("docs/gitea.md or the hint does not name %s", scope)
		}
	}
	for _, want := range []string{"require the status `aob/release`", "need not be allowed to push to main",
		"push, create, delete, pull request, pull request comment, issue comment and status", "the role Write"} {
		if !strings.Contains(strings.Join(strings.Fields(string(guide)), " "), want) {
			t.Errorf("docs/gitea.md does not say %q", want)
		}
	}
}
