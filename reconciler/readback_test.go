package reconciler

import (
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/forge"
)

// What a forge keeps of AOB's words is the same words; any other difference is an edit.
func TestOnlyTheForgesOwnCutIsTheSameWords(t *testing.T) {
	const status, comment = "status/f/c/aob/release", "comment/f/7"
	long := "failure " + strings.Repeat("the gate asks for more, ", 12) + "and more; rebase onto main"
	kept := "failure " + forge.Describe(strings.TrimPrefix(long, "failure "))
	report := "### AOB: blocked\n\n" + strings.Repeat("a line of the report\n", 20) +
		"**Worse than version 1**\n\nThe end."
	huge := strings.Repeat("a line of the report\n", 4000)
	for name, tt := range map[string]struct {
		key, there, said string
		same             bool
	}{
		"the same":                      {comment, report, report, true},
		"other ends of lines":           {comment, strings.ReplaceAll(report, "\n", "\r\n") + "\r\n", report, true},
		"a long status":                 {status, kept, long, true},
		"a long comment":                {comment, forge.CutComment(huge), huge, true},
		"nothing":                       {comment, "", report, false},
		"a comment with a part taken":   {comment, strings.Replace(report, "**Worse than", "…", 1), report, false},
		"a comment that ends early":     {comment, report[:200] + "…", report, false},
		"a comment cut as a status":     {comment, forge.Describe(report), report, false},
		"a long comment with other end": {comment, forge.CutComment(huge)[:63_000] + "well", huge, false},
		"a long comment with more":      {comment, forge.CutComment(huge) + "well", huge, false},
		"a status with a part taken":    {status, long[:130] + "…; rebase onto main", long, false},
		"a long status cut earlier":     {status, kept[:110] + "…", long, false},
		"another state":                 {status, "success" + strings.TrimPrefix(kept, "failure"), long, false},
	} {
		if got := sameWords(tt.key, tt.there, tt.said); got != tt.same {
			t.Errorf("%s: the same words: %v, want %v", name, got, tt.same)
		}
	}
}

// AOB writes its comment again when somebody takes something out of it, whatever stands in its place.
func TestEditedCommentIsWrittenAgain(t *testing.T) {
	s := barred(t)
	s.pushMain(map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.01)})
	s.propose("worse", 2)
	s.settle()
	n := s.forge.open("worse", "dev")
	said := s.forge.comments[n]
	if len(said) < 300 {
		t.Fatalf("the comment is too short to take something out: %q", said)
	}
	for name, edited := range map[string]string{
		"a part is taken out":    said[:150] + "…" + said[len(said)-100:],
		"the end is taken":       said[:200] + "…",
		"one word is changed":    strings.Replace(said, "AOB", "A0B", 1),
		"something stands at it": said + "\nall is well",
	} {
		s.forge.comments[n] = edited
		for range 3 {
			s.now = s.now.Add(3 * time.Minute)
			s.wake()
			s.settle()
		}
		if s.forge.comments[n] != said {
			t.Errorf("%s: the edited comment stands:\n%s", name, s.forge.comments[n])
			s.forge.comments[n] = said
		}
	}
}
