package reconciler

// Stories of a fleet that is made to run another model: it carries its bar.

import (
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/words"
)

// other is a second model with a gate of its own that asks for little.
func other(epochs int) map[string]string {
	return map[string]string{"models/other.yaml": model("other", epochs), "gates/easy.yaml": gateFile("easy", "other",
		0.01)}
}

// with joins changes.
func with(list ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, files := range list {
		for path, text := range files {
			all[path] = text
		}
	}
	return all
}

func demoRuns(model, more string) map[string]string {
	return map[string]string{"fleets/demo.yaml": fleet("demo", model, more)}
}

// barred is a world whose fleet demo runs version 1 of shapes, of mAP 0.60, where gate
// production asks for 0.50.
func barred(t *testing.T) *sim {
	s, _ := begun(t)
	s.repo.commit("main", s.main(), s.now, with(map[string]string{"gates/production.yaml": gateFile("production",
		"shapes", 0.5)}, demoRuns("shapes", "")))
	s.released("first", 8)
	if got := s.serving(); got != "1 1 1" {
		t.Fatalf("devices serve %s, want version 1", got)
	}
	return s
}

// propose2 proposes files on a branch of main's head, and settles.
func (s *sim) proposes(branch string, files map[string]string) {
	s.repo.commit(branch, s.main(), s.now, files)
	s.forge.open(branch, "dev")
	s.settle()
}

// runsBundle fails unless all devices of demo run a bundle.
func (s *sim) runsBundle(want delivery.Digest, why string) {
	s.helper()
	for _, d := range s.fleet.devices {
		if d.Report.Ring == "demo" && d.Report.Bundle != want {
			s.fail("device %s runs bundle %s, want %s: %s", d.Report.Device, d.Report.Bundle.Short(), want.Short(), why)
		}
	}
}

// releasedOther brings a release of other to main, by its own gate.
func (s *sim) releasedOther(epochs int) delivery.Digest {
	s.helper()
	s.proposes("other", other(epochs))
	s.want("other", delivery.CheckSuccess)
	s.merge("other")
	s.settle()
	return s.signed.index.Accepted["other"][len(s.signed.index.Accepted["other"])-1].Bundle
}

func TestFleetsGatesJudgeAnotherModelInOnePullRequest(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"the model stays": with(other(2), demoRuns("other", "")),
		"its gate lets it go": with(other(2), demoRuns("other", ""),
			map[string]string{"gates/production.yaml": gateFile("production", "other", 0.01)}),
		"its gate is removed": with(other(2), demoRuns("other", ""), map[string]string{"gates/production.yaml": ""}),
		"with another fleet": with(other(2), demoRuns("shapes", ""), map[string]string{"fleets/demo.yaml": "",
			"fleets/demo2.yaml": fleet("demo2", "other", "")}),
		"and a pin":       with(other(2), demoRuns("other", "version: 1\n")),
		"as a paused one": with(other(2), demoRuns("other", "paused: true\n")),
		"a class less": with(other(8), demoRuns("other", ""),
			map[string]string{"models/other.yaml": classes(model("other", 8), "[circle]", ""),
				"gates/easy.yaml": strings.Replace(gateFile("easy", "other", 0.1), "[circle, square]", "[circle]", 1)}),
	} {
		t.Run(name, func(t *testing.T) {
			s := barred(t)
			s.proposes("sidestep", files)
			s.want("sidestep", delivery.CheckFailure, "production")
			if c := s.forge.comments[s.forge.open("sidestep", "dev")]; !strings.Contains(c,
				"runs shapes version 1, so gate production of shapes judges other as well") {
				t.Errorf("the comment does not say which gates the fleet brings:\n%s", c)
			}
			s.quiet()
		})
	}
}

func TestFleetsGatesJudgeAnotherModelInALaterPullRequest(t *testing.T) {
	s := barred(t)
	before := s.fleet.devices[0].Report.Bundle
	s.releasedOther(2)
	s.proposes("swap", demoRuns("other", ""))
	s.want("swap", delivery.CheckFailure, "production", "0.4000")
	s.runsBundle(before, "nothing was merged")

	// A better one goes through, and the fleet moves to it.
	s.repo.refs[git.Branch+"swap"] = ""
	delete(s.repo.refs, git.Branch+"swap")
	s.proposes("better", map[string]string{"models/other.yaml": model("other", 14)})
	s.want("better", delivery.CheckSuccess)
	s.merge("better")
	s.settle()
	good := s.signed.last()
	s.proposes("swap2", demoRuns("other", ""))
	s.want("swap2", delivery.CheckSuccess, "fleet demo goes from shapes version 1 to other version 2",
		"gate production of shapes")
	s.merge("swap2")
	s.settle()
	s.runsBundle(good, "the fleet's own gates passed it")

	// And back again, at once.
	s.proposes("back", demoRuns("shapes", ""))
	s.want("back", delivery.CheckSuccess, "goes back to version 1")
	s.merge("back")
	s.settle()
	s.runsBundle(before, "a way back waits for nothing")
	s.quiet()
}

// A push to main that repoints a fleet goes round the forge's rules, not round AOB.
func TestFleetRepointedByAPushStaysUntilItsGatesPass(t *testing.T) {
	for name, push := range map[string]func(s *sim){
		"the fleet alone": func(s *sim) { s.pushMain(demoRuns("other", "")) },
		"pinned":          func(s *sim) { s.pushMain(demoRuns("other", "version: 1\n")) },
		"with its gate removed": func(s *sim) {
			s.repo.commit("main", s.main(), s.now, with(demoRuns("other", ""),
				map[string]string{"gates/production.yaml": gateFile("production", "other", 0.01)}))
		},
		"its gate removed before": func(s *sim) {
			s.pushMain(map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.01)})
			s.pushMain(demoRuns("other", ""))
		},
		"there and back and there": func(s *sim) {
			s.pushMain(demoRuns("other", ""))
			s.settle()
			s.pushMain(demoRuns("shapes", ""))
			s.settle()
			s.pushMain(demoRuns("other", ""))
		},
		"after a restart": func(s *sim) { s.pushMain(demoRuns("other", "")); s.ledger = newSimLedger(s); s.restart() },
		"by way of a third": func(s *sim) {
			s.pushMain(map[string]string{"models/third.yaml": model("third", 1), "gates/third.yaml": gateFile("third",
				"third", 0.3)})
			s.pushMain(demoRuns("third", ""))
			s.settle()
			s.pushMain(demoRuns("other", ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := barred(t)
			before := s.fleet.devices[0].Report.Bundle
			s.releasedOther(2)
			push(s)
			s.settle()
			s.runsBundle(before, "no gate of its own passed another")
			if c := s.check(s.main(), delivery.ContextRelease); c.State != delivery.CheckFailure ||
				!strings.Contains(c.Description, "fleet demo stays with shapes version 1") ||
				!strings.Contains(c.Description, "production") {
				t.Errorf("main's aob/release: %s: %s", c.State, c.Description)
			}
			s.quiet()
		})
	}
}

// A fleet that keeps its model is still published: its document is signed again, and bundles that are forbidden
// meanwhile are not run.
func TestFleetThatKeepsItsModelIsStillPublished(t *testing.T) {
	s := barred(t)
	s.releasedOther(2)
	s.pushMain(demoRuns("other", ""))
	s.settle()
	expires := s.fleet.published["demo"].Expires
	s.now = s.now.Add(20 * 60 * 60 * 1e9)
	s.settle()
	if d := s.fleet.published["demo"]; !d.Expires.After(expires) || d.Model != "shapes" {
		t.Errorf("published: model %s, expires %s, before that %s", d.Model, d.Expires, expires)
	}
}

// After the fleet has changed its model, only the new model's gates judge it. The comment says so before the merge.
func TestCommentListsGatesThatNoLongerApply(t *testing.T) {
	s := barred(t)
	easy := strings.Replace(gateFile("easy", "other", 0.01), "  - {metric: mAP, maxDrop: 0.02, against: release}\n", "",
		1)
	s.proposes("one", with(other(14), map[string]string{"gates/easy.yaml": easy}, demoRuns("other", "")))
	s.want("one", delivery.CheckSuccess)
	comment := func() string { return s.forge.comments[s.forge.open("one", "dev")] }
	for _, want := range []string{"gate production does not cover other",
		"later versions of other are judged by gate easy alone", "add other to covers: in gates/production.yaml"} {
		if got := strings.ReplaceAll(comment(), "&#95;", "_"); !strings.Contains(got, want) {
			t.Errorf("the comment does not say %q:\n%s", want, got)
		}
	}
	covered := gateFile("production", "shapes, other", 0.5)
	s.repo.commit("one", s.head("one"), s.now, map[string]string{"gates/production.yaml": covered})
	s.settle()
	if got := comment(); strings.Contains(got, "does not cover other") {
		t.Errorf("gate production covers it now:\n%s", got)
	}
}

// The published document is lost, and a push had changed the fleet's file. The fleet still runs its earlier model, so
// that model's gates still apply.
func TestFleetKeepsItsGatesWithoutItsPublishedDocument(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(*sim)
	}{
		{"its document", func(*sim) {}},
		{"its document and its clock", func(s *sim) { clear(s.ledger.clocks) }},
		{"its document, and the clock names no model", func(s *sim) {
			for fleet, text := range s.ledger.clocks {
				s.ledger.clocks[fleet] = []byte(strings.Replace(string(text), `"model":`, `"was":`, 1))
			}
		}},
	} {
		for _, pushed := range []string{"before", "after"} { // fleets/demo.yaml is changed before the loss, or after it
			t.Run(c.name+", pushed "+pushed, func(t *testing.T) {
				s := barred(t)
				s.releasedOther(2)
				before := s.fleet.devices[0].Report.Bundle
				if pushed == "before" {
					s.pushMain(demoRuns("other", ""))
					s.settle()
					s.runsBundle(before, "its gate has not passed the other model")
				}
				clear(s.fleet.published)
				s.fleet.least = 1000
				c.lose(s)
				if pushed == "after" {
					s.pushMain(demoRuns("other", ""))
				}
				s.restart()
				s.settle()
				s.runsBundle(before, "its gate has not passed the other model, and its document was lost")
				text := words.Join(s.loop.observed.plan.Fleets[0].Facts)
				if !strings.Contains(text, "stays with shapes version 1") {
					t.Errorf("the fleet: %s", text)
				}
				if d := s.fleet.published["demo"]; d.Model != "shapes" || d.Release.Bundle != before || d.Share != 1 {
					t.Errorf("published anew: %+v", d)
				}
				s.quiet()
			})
		}
	}
}
