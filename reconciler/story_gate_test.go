package reconciler

// Stories of gates that cannot tell, and of who may settle it.

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
)

// strict asks for more than 14 epochs reach, by less than 50 images can tell.
const strict = `apiVersion: aob/v1
kind: Gate
name: production
covers: [shapes]
owners: [lead, vision-leads]
evaluate: {dataset: {dir: shapes}, split: test}
classes: [circle, square]
checks:
  - {metric: mAP, min: 0.703}
  - {metric: AP50, min: 0.1}
`

// verdict returns the last verdict that was signed.
func (s *sim) verdict() delivery.Verdict {
	var last delivery.Verdict
	for _, st := range s.signed.statements {
		if v, ok := st.predicate.(delivery.Verdict); ok {
			last = v
		}
	}
	return last
}

// unsureOf is a world in which a pull request waits for an owner of its gate.
func unsureOf(t *testing.T) *sim {
	s, main := begun(t)
	s.repo.commit("main", main, s.now, map[string]string{"gates/production.yaml": strict})
	s.propose("first", 14)
	s.settle()
	s.want("first", delivery.CheckPending, "unsure: an owner may accept; see the comment: mAP 0.7000 < 0.703")
	s.says("Its owner lead or vision-leads may comment", "/aob accept "+plan.AcceptCode(s.verdict())+" because")
	return s
}

// says checks what the comment on the first pull request says.
func (s *sim) says(want ...string) {
	s.helper()
	for _, text := range want {
		if said := s.forge.comments[1]; !strings.Contains(said, text) {
			s.fail("the comment does not say %q:\n%s", text, said)
		}
	}
}

// What settles an unsure verdict, and what does not.
func TestAccept(t *testing.T) {
	for name, c := range map[string]struct {
		by, text string
		do       func(s *sim)
		want     string // in aob/gate/production; "" while nobody has settled it
		why      string // in the comment, why it does not count
	}{
		"an owner": {by: "lead", text: "/aob accept CODE because the set is small",
			want: "accepted by lead: the set is small; the gate says: mAP 0.7000 < 0.703"},
		"an owner, in other cases": {by: "Lead", text: "/aob accept CODE because ok",
			want: "accepted by Lead: ok"},
		"among other lines": {by: "lead", text: "  /aob accept CODE because  it   will do\nI looked.",
			want: "accepted by lead: it will do"},
		"a member of an owner team": {by: "maria", text: "/aob accept CODE because ok",
			do:   func(s *sim) { s.forge.teams = map[string][]string{"maria": {"vision-leads"}} },
			want: "accepted by maria: ok"},
		"no reason":  {by: "lead", text: "/aob accept CODE because"},
		"no because": {by: "lead", text: "/aob accept CODE please take it"},
		"another code": {by: "lead", text: "/aob accept 0123456789ab because ok",
			why: "but no verdict has that code"},
		"another code, after ten by a reader": {by: "lead", text: "/aob accept 0123456789ab because ok",
			do: func(s *sim) {
				s.forge.permission["eve"] = delivery.PermissionRead
				for i := range 10 {
					s.forge.comment(0, "eve", fmt.Sprintf("/aob accept %012d because ok", i))
				}
			}, why: "lead accepted 0123456789ab, but no verdict has that code"},
		"a go is no accept": {by: "lead", text: "/aob run CODE"},
		"no owner": {by: "dev", text: "/aob accept CODE because I want it",
			why: "dev does not own the gate"},
		"a team by its name alone": {by: "vision-leads", text: "/aob accept CODE because ok",
			do: func(s *sim) { s.forge.permission["vision-leads"] = delivery.PermissionRead }},
		"a user with a team's name": {by: "vision-leads", text: "/aob accept CODE because ok",
			do:  func(s *sim) { s.forge.teams = map[string][]string{"maria": {"vision-leads"}} },
			why: "vision-leads does not own the gate"},
		"a user whom no team has the name of": {by: "vision-leads", text: "/aob accept CODE because ok",
			want: "accepted by vision-leads: ok"},
		"the owner may not write": {by: "lead", text: "/aob accept CODE because ok",
			do:  func(s *sim) { s.forge.permission["lead"] = delivery.PermissionRead },
			why: "lead owns the gate but has no write permission"},
		"an owner of the pull request's own making": {by: "dev", text: "/aob accept CODE because ok", do: func(s *sim) {
			s.repo.commit("first", s.head("first"), s.now, map[string]string{"gates/production.yaml": strings.Replace(
				strict, "[lead, ", "[dev, ", 1)})
			s.settle()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := unsureOf(t)
			if c.do != nil {
				c.do(s)
			}
			s.forge.comment(0, c.by, strings.ReplaceAll(c.text, "CODE", plan.AcceptCode(s.verdict())))
			s.settle()
			if c.want == "" {
				s.want("first", delivery.CheckPending, "unsure")
				if said := s.forge.comments[1]; c.why != "" && !strings.Contains(said, c.why) {
					t.Errorf("the comment does not say %q:\n%s", c.why, said)
				}
				s.quiet()
				return
			}
			s.want("first", delivery.CheckSuccess, "version 1")
			if check := s.check(s.head("first"), delivery.ContextGate+
				"production"); check.State != delivery.CheckSuccess || !strings.Contains(check.Description, c.want) {
				t.Errorf("the gate's check is %s: %s", check.State, check.Description)
			}
			s.quiet()
		})
	}
}

// An accept is signed into the release statement: it needs its comment no more,
// main takes the release, and other content needs another.
func TestAcceptIsBoundToContent(t *testing.T) {
	s := unsureOf(t)
	s.quality[15] = 0.702
	accept := "/aob accept " + plan.AcceptCode(s.verdict()) + " because the set is small"
	s.forge.comment(0, "lead", accept)
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	s.forge.commands = nil
	s.restart()
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	s.quiet()

	statement := s.signed.index.Releases[len(s.signed.index.Releases)-1]
	if a := statement.Gates[0].Accept; a == nil || a.By != "lead" || a.As != "lead" ||
		a.Because != "the set is small" || a.Verdict != statement.Gates[0].Verdict.Key {
		t.Errorf("the release statement holds %+v", a)
	}
	file := s.repo.read(s.head("first"), "models/shapes.release.yaml")
	if !regexp.MustCompile(`\n +# mAP .* that may be chance.*\n +- {check: "?mAP .*outcome: unsure`).MatchString(file) {
		t.Errorf("no comment says why the check is unsure:\n%s", file)
	}
	// Owners are no part of what was judged: whoever is none any more, or never was
	// one on main, has accepted nothing.
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": strings.Replace(strict, "[lead, ",
		"[another, ", 1)})
	s.settle()
	s.want("first", delivery.CheckPending, "unsure")
	s.says("another or vision-leads may comment")
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": strict})
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")

	s.merge("first")
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("devices serve %s", got)
	}
	s.forge.comment(0, "lead", accept)
	s.repo.commit("second", s.main(), s.now, map[string]string{"models/shapes.yaml": model("shapes", 15)})
	s.forge.open("second", "dev")
	s.settle()
	s.want("second", delivery.CheckPending, "unsure: an owner may accept; see the comment: mAP 0.7020 < 0.703")
	s.quiet()
}

// A fail cannot be accepted, by nobody.
func TestFailIsNotAccepted(t *testing.T) {
	s := unsureOf(t)
	s.repo.commit("first", s.repo.refs[git.Branch+"main"], s.now,
		map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.settle()
	s.want("first", delivery.CheckFailure, "mAP 0.6000 < 0.703")
	s.forge.comment(0, "lead", "/aob accept "+plan.AcceptCode(s.verdict())+" because I say so")
	s.settle()
	s.want("first", delivery.CheckFailure, "mAP 0.6000 < 0.703")
	s.quiet()
}

// An accept is about one model, although another one with the same content has the
// same verdict.
func TestAcceptIsForOneModel(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("main", main, s.now, map[string]string{"models/signs.yaml": model("signs", 1),
		"gates/production.yaml": strings.Replace(strict, "[shapes]", "[shapes, signs]", 1)})
	s.propose("first", 14)
	s.settle()
	s.forge.comment(1, "lead", "/aob accept "+plan.AcceptCode(s.verdict())+" because shapes are few")
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	s.repo.commit("signs", s.main(), s.now, map[string]string{"models/signs.yaml": model("signs", 14)})
	s.forge.open("signs", "dev")
	s.settle()
	s.want("signs", delivery.CheckPending, "signs: gate/production: unsure")
}

// A gate of the pull request's own is no check that passed, where main has one of
// which nothing applies.
func TestOwnGateProvesNothing(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("main", main, s.now, map[string]string{"gates/production.yaml": strings.NewReplacer("mAP, min: 0.703",
		"AP, classes: all, min: 0.5, support: 1000, unsure: ignore", "  - {metric: AP50, min: 0.1}\n",
		"").Replace(strict)})
	s.propose("first", 2)
	s.settle()
	s.want("first", delivery.CheckFailure, "no check of any gate applied and passed")
	s.repo.commit("first", s.head("first"), s.now, map[string]string{"gates/mine.yaml": gateFile("mine", "shapes",
		0.01)})
	s.settle()
	s.want("first", delivery.CheckFailure, "no check of any gate applied and passed")
}

// An owner's word is no check that passed: another one is needed, and what to do is said.
func TestAcceptedAloneProvesNothing(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("main", main, s.now, map[string]string{"gates/production.yaml": strings.Replace(strict,
		"  - {metric: AP50, min: 0.1}\n", "", 1)})
	s.propose("first", 14)
	s.settle()
	s.forge.comment(1, "lead", "/aob accept "+plan.AcceptCode(s.verdict())+" because shapes are few")
	s.settle()
	s.want("first", delivery.CheckFailure, "unsure checks were accepted, but no check of any gate passed")
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": strings.Replace(strict,
		"{metric: AP50, min: 0.1}", "{metric: size, max: 50MB}", 1)})
	s.settle()
	s.want("first", delivery.CheckPending, "unsure: an owner may accept")
	s.forge.comment(1, "lead", "/aob accept "+plan.AcceptCode(s.verdict())+" because shapes are few")
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
}

// A proposed version of main's gate is settled by main's owners.
func TestProposedGatesOwners(t *testing.T) {
	s := unsureOf(t)
	s.repo.commit("first", s.head("first"), s.now, map[string]string{"gates/production.yaml": strings.NewReplacer(
		"[lead, ", "[dev, ", "0.703", "0.7031").Replace(strict)})
	s.settle()
	for _, st := range s.signed.statements {
		if v, ok := st.predicate.(delivery.Verdict); ok {
			for _, by := range []string{"dev", "lead"} {
				if by == "dev" || v.Gate == "production" {
					s.forge.comment(0, by, "/aob accept "+plan.AcceptCode(v)+" because ok")
				}
			}
		}
	}
	s.settle()
	s.want("first", delivery.CheckPending, "gate/production.proposed: unsure")
	s.says("lead or vision-leads may comment")
}

// Whoever settled a doubt and owns the gate no more, another owner may follow: then the
// release says so.
func TestAcceptOfAnotherOwner(t *testing.T) {
	s := unsureOf(t)
	accept := "/aob accept " + plan.AcceptCode(s.verdict()) + " because the set is small"
	s.forge.comment(0, "lead", accept)
	s.settle()
	s.want("first", delivery.CheckSuccess)
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": strings.Replace(strict, "[lead, ",
		"[another, ", 1)})
	s.forge.comment(0, "another", accept)
	s.settle()
	s.want("first", delivery.CheckSuccess)
	s.merge("first")
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("devices serve %s", got)
	}
}
