package reconciler

// Stories of a forge that shows check runs.

import (
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// details returns what a check run of a branch's head shows.
func (s *sim) details(branch, context string) delivery.CheckDetails {
	c := s.check(s.head(branch), context)
	if c.Details == nil {
		s.fail("%s of %s has no details: %+v", context, branch, c)
		return delivery.CheckDetails{}
	}
	return *c.Details
}

// A check run has the comment, the complaints on their lines and a button for what is waited for. Pressing it is an
// order as a comment is. A new head ends what the earlier one still shows.
func TestCheckRunsShowDetails(t *testing.T) {
	s, main := begun(t)
	s.restart(func(r *Reconciler) { r.CheckDetails = true })
	s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8) + "wrong: 1\n"})
	s.forge.open("first", "stranger")
	s.forge.permission["stranger"] = delivery.PermissionRead
	s.settle()
	if d := s.details("first", delivery.ContextIntent); len(d.Notes) != 1 || d.Notes[0].File != "models/shapes.yaml" ||
		d.Notes[0].Line == 0 {
		t.Errorf("a complaint: %+v", d)
	}
	s.repo.commit("first", s.head("first"), s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.settle()
	early := s.head("first")
	release := s.details("first", delivery.ContextRelease)
	if !strings.Contains(release.Summary, "needs approval") || len(release.Buttons) != 1 ||
		release.Buttons[0].Label != "Run" || !strings.HasPrefix(release.Buttons[0].Order, "/aob run ") {
		t.Errorf("what waits for approval: %+v", release)
	}
	s.quiet()

	s.repo.commit("first", early, s.now, map[string]string{"models/shapes.yaml": model("shapes", 9)})
	s.settle()
	for context, c := range s.forge.statuses[early] {
		if c.State == delivery.CheckPending {
			t.Errorf("%s of the earlier head still shows %+v", context, c)
		}
	}
	if c := s.check(early, delivery.ContextRelease); !strings.HasPrefix(c.Description, "superseded: ") {
		t.Errorf("the earlier head: %+v", c)
	}
	s.quality[9] = 0.6
	button := s.details("first", delivery.ContextRelease).Buttons[0]
	s.forge.comment(0, "maintainer", button.Order)
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	if d := s.details("first", delivery.ContextGate+"production"); !strings.Contains(d.Summary, "| check |") ||
		len(d.Buttons) != 0 {
		t.Errorf("the gate: %+v", d)
	}
	s.quiet()
}
