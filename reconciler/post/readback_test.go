package post

import (
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/forge"
)

// A forge cuts long posts. Any other difference is an edit.
func TestOnlyTextThatTheForgeCutIsEqual(t *testing.T) {
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
		if got := sameContent(tt.key, tt.there, tt.said); got != tt.same {
			t.Errorf("%s: the same words: %v, want %v", name, got, tt.same)
		}
	}
}
