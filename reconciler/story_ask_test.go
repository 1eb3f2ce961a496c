package reconciler

// Stories of aob pr ask, on a local forge.

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
)

// An asker keeps what was asked.
type asker struct{ said []string }

func (a *asker) AddUserComment(_ context.Context, _ int, author, body string) error {
	a.said = append(a.said, author+": "+body)
	return nil
}

// A command without effect is refused at once.
func TestCommandsWithoutEffectAreRefused(t *testing.T) {
	s := unsureOf(t)
	code := plan.AcceptCode(s.verdict())
	said := &asker{}
	source := s.source()
	source.UserComments = said
	ask := func(user, text string) error {
		done := make(chan error)
		go func() { done <- source.Command(t.Context(), 1, user, text) }()
		for {
			select {
			case err := <-done:
				return err
			case do := <-s.loop.requests:
				do()
			}
		}
	}
	for text, want := range map[string]string{
		"/aob accept " + code:                  "the reason is missing",
		"/aob accept " + code + " because":     "the reason is missing",
		"/aob accept " + code + " because …":   "the reason is missing",
		"/aob accept " + code + " please":      "the reason is missing",
		"/aob accept":                          "the code of the verdict is missing",
		"/aob acept " + code + " because typo": `there is no command "/aob acept"`,
		"/aob accept " + strings.Repeat("0", 32) +
			" because no": "no verdict of pull request 1 waits for an accept of code 0000",
		"/aob accept abc because no": "its codes are " + code,
		"/aob run " + code:           "no run waits for approval",
		"/aob run":                   "needs one code",
		"/aob":                       "does not begin with a command to AOB",
		"hello":                      "does not begin with a command to AOB",
		"> /aob accept " + code + " because it is quoted": "does not begin with a command to AOB",
	} {
		err := ask("lead", text)
		if b, ok := err.(delivery.Blocked); !ok || !strings.Contains(err.Error(), want) || b.Do == "" {
			t.Errorf("%s: got %v, want %q and what to do", text, err, want)
		}
	}
	if err := ask("dev", "/aob accept "+code+" because I want it"); err == nil ||
		!strings.Contains(err.Error(), "dev does not own gate production; its owners are lead, vision-leads") {
		t.Errorf("somebody who is no owner: %v", err)
	}
	if len(said.said) != 0 {
		t.Errorf("it was kept all the same: %q", said.said)
	}
	if err := ask("lead", "/aob accept "+code+" because the set is small"); err != nil || len(said.said) != 1 {
		t.Errorf("an order that counts: %v, %q", err, said.said)
	}
}

// On a local forge there are no comments and no reactions: checks name the command.
func TestChecksOfALocalForgeNameTheCommand(t *testing.T) {
	s := unsureOf(t)
	s.server.Socket = true
	s.restart()
	s.settle()
	check := s.check(s.head("first"), delivery.ContextGate+"production").Description
	if want := "unsure: an owner may accept; see aob pr show 1: "; !strings.Contains(check, want) ||
		strings.Contains(check, "comment") || strings.Contains(check, "👍") {
		t.Errorf("got %q, want %q", check, want)
	}
}

// A pull request that is behind main says so before somebody tries to merge it.
func TestLocalPullRequestBehindMainIsShown(t *testing.T) {
	s, main := begun(t)
	s.server.Socket = true
	s.restart()
	s.repo.commit("first", main, s.now, map[string]string{"gates/strict.yaml": strings.Replace(strict, "production",
		"strict", 1)})
	s.forge.open("first", "dev")
	s.settle()
	if text := s.check(s.head("first"), delivery.ContextRelease).Description; strings.Contains(text, "rebase") {
		t.Errorf("at main's head: %s", text)
	}
	s.repo.commit("main", s.head("main"), s.now, map[string]string{"gates/lax.yaml": strings.Replace(strict,
		"production", "lax", 1)})
	s.settle()
	s.want("first", delivery.CheckSuccess, "main has new commits, so rebase onto it before you merge")
}

// A pull request that quarantines the released bundle says what the merge will do.
func TestQuarantineOfTheReleasedBundleIsShown(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	s.merge("first")
	s.settle()
	bundle := s.signed.index.Releases[0].Bundle
	held := "apiVersion: aob/v1\nkind: Quarantine\nname: shapes\nentries:\n  - {digest: " + string(bundle) +
		", why: it melts}\n"
	s.repo.commit("hold", s.head("main"), s.now, map[string]string{"models/shapes.quarantine.yaml": held})
	s.forge.open("hold", "dev")
	s.settle()
	s.want("hold", delivery.CheckSuccess,
		"may not run: it melts; main runs it as version 1, so merging takes it off fleets")
}

// An approval of a stranger's pull request covers what it held then. Whatever is pushed later that costs a run, be it
// only another reading of the dataset or a variant, starts nothing until it is asked for again.
func TestApprovalCoversOneContent(t *testing.T) {
	s, main := begun(t)
	s.forge.permission[stranger] = delivery.PermissionRead
	push := func(n int, file string) string {
		ref := fmt.Sprintf("%s%d/head", git.Pull, n)
		s.repo.refs[ref] = s.repo.write([]string{main}, s.repo.with(main, map[string]string{
			"models/shapes.yaml": file}), s.now, "theirs")
		s.settle()
		return s.forge.head(s.forge.prs[n])
	}
	n := s.fork("theirs", stranger, main, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.settle()
	first := s.check(s.forge.head(s.forge.prs[n]), delivery.ContextRelease)
	_, code, asked := strings.Cut(first.Description, "/aob run ")
	if s.forge.comment(n, "maintainer", "/aob run "+code); !asked || len(s.runs.states) > 0 {
		t.Fatalf("%d runs before an approval; %+v", len(s.runs.states), first)
	}
	s.settle()
	runs := len(s.runs.states)
	if runs == 0 {
		t.Fatal("the approval starts nothing")
	}
	codes := map[string]bool{code: true}
	for what, file := range map[string]string{
		"scenes":       withLines(model("shapes", 8), `scenes: '(?P<site>a[0-9]+)'`),
		"other scenes": withLines(model("shapes", 8), `scenes: '(?P<site>b[0-9]+)'`),
		"variants":     varied(8, "[fp32, int8]"),
	} {
		c := s.check(push(n, file), delivery.ContextRelease)
		_, again, ok := strings.Cut(c.Description, "/aob run ")
		if now := len(s.runs.states); !ok || codes[again] || now != runs {
			t.Errorf("%s: %d runs, before %d; %+v", what, now, runs, c)
		}
		codes[again] = true
	}
}
