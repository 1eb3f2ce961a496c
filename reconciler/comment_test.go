package reconciler

import (
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// A reader of the comment alone learns what a pull request waits for, unless
// that is only time.
func TestCommentSaysWhatIsWaitedFor(t *testing.T) {
	release := func(state delivery.CheckState, text string) []delivery.Check {
		return []delivery.Check{{Context: delivery.ContextRelease, State: state, Description: text}}
	}
	asking := plan.ProposalReport{Asks: []string{"/aob run 3f9c2a10", "/aob run 77aa00ff"}}
	unsure := plan.ProposalReport{Models: []plan.ModelReport{{Model: "shapes", Settle: []string{"gate production cannot tell: mAP 0.7 < 0.71; lead may comment /aob accept 0a1b2c3d4e5f because …"}}}}
	for _, c := range []struct {
		pr     plan.ProposalReport
		checks []delivery.Check
		want   []string
		not    string
	}{
		{plan.ProposalReport{}, release(delivery.CheckPending, "epoch 3/8"), []string{"AOB: working on it"}, "epoch"},
		{plan.ProposalReport{}, release(delivery.CheckSuccess, "version 2"), []string{"AOB: ready to merge", "version 2"}, "working"},
		{plan.ProposalReport{}, release(delivery.CheckFailure, "mAP 0.1 < 0.3"), []string{"AOB: not to be merged", "mAP 0.1 &lt; 0.3"}, "working"},
		{unsure, release(delivery.CheckPending, "gate/production: unsure"), []string{"AOB: an owner of the gate decides", "lead may comment `/aob accept 0a1b2c3d4e5f because …`", "more test images"}, "working"},
		{asking, release(delivery.CheckPending, "train: waits for a go"), []string{"AOB: waits for a go", "`/aob run 3f9c2a10`, and `/aob run 77aa00ff`"}, "working"},
	} {
		got := Comment(c.pr, c.checks)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%v: the comment does not say %q:\n%s", c.checks, want, got)
			}
		}
		if strings.Contains(got, c.not) {
			t.Errorf("%v: the comment says %q:\n%s", c.checks, c.not, got)
		}
		if strings.HasPrefix(got, "/aob") {
			t.Errorf("the comment is a command itself:\n%s", got)
		}
	}
}
