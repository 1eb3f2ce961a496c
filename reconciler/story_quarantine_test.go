package reconciler

// Stories of bundles that may not run, and of models under other names. How classes are judged is told by the cases
// 21-*.txtar of package plan.

import (
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// classes gives a model file another class list.
func classes(file, list string, more ...string) string {
	return withLines(strings.Replace(file, "[circle, square]", list, 1), more...)
}

// shapes is what a commit holds of the model: its files, as a rollback names them.
func (s *sim) shapes(commit string) map[string]string {
	files := map[string]string{}
	for _, path := range []string{"models/shapes.yaml", "models/shapes.release.yaml"} {
		files[path] = s.repo.read(commit, path)
	}
	return files
}

// shipped is a world whose model of 8 epochs is on main and on devices, under a gate
// with a check more.
func shipped(t *testing.T, lines ...string) *sim {
	s, _ := begun(t)
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": withLines(gateFile("production",
		"shapes", 0.3), lines...)})
	s.propose("first", 8)
	s.ships("first")
	return s
}

// push proposes a model file, and waits for the answer.
func (s *sim) push(branch, file string) {
	s.helper()
	from := s.head(branch)
	if from == "" {
		from = s.main()
	}
	s.repo.commit(branch, from, s.now, map[string]string{"models/shapes.yaml": file})
	s.forge.open(branch, "dev")
	s.settle()
}

// Names and order are no other eval set: its looks go on.
func TestLooksCountImages(t *testing.T) {
	s := shipped(t, "looks: 2")
	for branch, list := range map[string]string{"a": "[circle, square]", "b": "[square, circle]"} {
		s.push(branch, classes(model("shapes", 14), list))
		s.want(branch, delivery.CheckSuccess, "version 2")
	}
	s.push("c", classes(model("shapes", 14), "[circle, square, easy]"))
	s.want("c", delivery.CheckPending, "this is model 3 that the eval set compares with this release")
}

// A model of another name that is only tried on an eval set is a look at it, too, and
// other thresholds of the release begin no new count.
func TestLooksOfOthers(t *testing.T) {
	s := shipped(t, "looks: 2")
	s.repo.commit("probe", s.main(), s.now, map[string]string{"models/probe.yaml": model("probe", 14),
		"models/probe2.yaml": model("probe2", 20),
		"gates/probe.yaml":   gateFile("probe", "probe, probe2", 0.3)})
	n := s.forge.open("probe", "dev")
	s.settle()
	s.want("probe", delivery.CheckSuccess, "probe: version 1")
	s.push("second", model("shapes", 20))
	s.want("second", delivery.CheckPending, "this is model 3 that the eval set compares with this release")
	s.forge.prs[n].closed = true

	s = shipped(t, "looks: 1")
	s.push("a", withLines(model("shapes", 8), "thresholds: {default: 0.5}"))
	s.ships("a")
	s.push("b", model("shapes", 14))
	s.want("b", delivery.CheckPending, "this is model 2 that the eval set compares with this release")
}

// forbid puts the bundle that main has released last into quarantine, and goes back
// to what was before.
func (s *sim) forbid() delivery.Digest {
	s.helper()
	main, _ := s.tree(s.main())
	bad := main.Releases.Of("shapes").Bundle
	s.quarantine("shapes", func(q *delivery.Quarantine) {
		q.Entries = append(q.Entries, delivery.Quarantined{Digest: bad, Why: "it smoked"})
	})
	s.settle()
	return bad
}

// A quarantine holds a model's weights, whatever thresholds and name they get.
func TestQuarantineHolds(t *testing.T) {
	const with = "thresholds: {default: 0.5}"
	for name, c := range map[string]struct {
		shipped []string // lines of the models that were shipped, the last of which is forbidden
		do      func(s *sim)
		state   delivery.CheckState
		words   string
	}{
		"thresholds on it": {[]string{""}, func(s *sim) { s.push("next", withLines(model("shapes", 8), with)) },
			delivery.CheckFailure,
			"has the weights of bundle"},
		"without its thresholds": {[]string{with}, func(s *sim) { s.push("next", model("shapes", 8)) },
			delivery.CheckFailure, "has the weights of bundle"},
		"under another name": {[]string{""}, func(s *sim) {
			s.repo.commit("next", s.main(), s.now, map[string]string{"models/other.yaml": model("other", 8),
				"gates/other.yaml": gateFile("other", "other", 0.3)})
			s.forge.open("next", "dev")
			s.settle()
		}, delivery.CheckFailure, "is quarantined: it smoked; to let it run again, set lifted: " +
			"on its entry in models/shapes.quarantine.yaml"},
		"back to what its thresholds were added to": {[]string{"", with},
			func(s *sim) { s.push("next", model("shapes", 8)) }, delivery.CheckSuccess,
			"rolls back to version 1, released before"}, // the same content gets no second release statement
		"other weights": {[]string{""}, func(s *sim) { s.push("next", model("shapes", 14)) }, delivery.CheckSuccess,
			"version 2"},
		"lifted in another file, where it was never held": {[]string{""}, func(s *sim) {
			s.push("next", withLines(model("shapes", 8), with))
			s.quarantine("other", func(q *delivery.Quarantine) {
				q.Entries = append(q.Entries, delivery.Quarantined{Digest: s.signed.last(), Why: "the fan",
					Lifted: "fine"})
			})
			s.settle()
		}, delivery.CheckFailure, "has the weights of bundle"},
		"an entry below that is lifted": {[]string{""}, func(s *sim) {
			s.quarantine("shapes", func(q *delivery.Quarantine) {
				again := q.Entries[0]
				again.Lifted = "fine"
				q.Entries = append(q.Entries, again)
			})
			s.push("next", withLines(model("shapes", 8), with))
		}, delivery.CheckFailure, "has the weights of bundle"},
		"a way back, while a gate of main cannot be read": {[]string{"", with}, func(s *sim) {
			s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": "kind: Oops\n"})
			past, pastModel := s.pastRelease("shapes", 0)
			s.repo.commit("next", s.main(), s.now, map[string]string{"models/shapes.release.yaml": past,
				"models/shapes.yaml": pastModel, "gates/production.yaml": gateFile("production", "shapes", 0.3)})
			s.forge.open("next", "dev")
			s.settle()
		}, delivery.CheckSuccess, "rolls back to version 1"},
		"thresholds, once it is lifted": {[]string{""}, func(s *sim) {
			s.quarantine("shapes", func(q *delivery.Quarantine) { q.Entries[0].Lifted = "it was the fan" })
			s.push("next", withLines(model("shapes", 8), with))
		}, delivery.CheckSuccess, "version 2"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			for i, lines := range c.shipped {
				branch := strings.Repeat("v", i+1)
				s.push(branch, withLines(model("shapes", 8), lines))
				s.ships(branch)
			}
			s.forbid()
			c.do(s)
			s.want("next", c.state, c.words)
			s.quiet()
		})
	}
}

// A model that has bundles in quarantine can be removed and renamed: the file stays,
// and what it holds stays forbidden.
func TestQuarantineOutlivesItsModel(t *testing.T) {
	s := shipped(t)
	s.forbid()
	s.repo.commit("gone", s.main(), s.now, map[string]string{"models/shapes.yaml": "", "models/shapes.release.yaml": "",
		"gates/production.yaml": "", "fleets/demo.yaml": ""})
	s.forge.open("gone", "dev")
	s.settle()
	s.want("gone", delivery.CheckSuccess, "removed; nothing to train")
	s.repo.commit("renamed", s.main(), s.now, map[string]string{"models/shapes.yaml": "",
		"models/shapes.release.yaml": "", "models/forms.yaml": strings.Replace(model("shapes", 8), "name: shapes",
			"name: forms", 1),
		"gates/production.yaml": gateFile("production", "forms", 0.3), "fleets/demo.yaml": fleet("demo", "forms", "")})
	s.forge.open("renamed", "dev")
	s.settle()
	s.want("renamed", delivery.CheckFailure,
		"is quarantined: it smoked; to let it run again, set lifted: on its entry in models/shapes.quarantine.yaml")
	s.repo.commit("renamed", s.head("renamed"), s.now, map[string]string{"models/shapes.quarantine.yaml": ""})
	s.settle()
	s.want("renamed", delivery.CheckFailure, "models/shapes.quarantine.yaml: entry 1, bundle", "was removed or changed")
}

// A pull request that changes a quarantine shows what the change does.
func TestQuarantineIsShown(t *testing.T) {
	s := shipped(t)
	bad := s.forbid()
	entry := func(more string) string {
		return "apiVersion: aob/v1\nkind: Quarantine\nname: shapes\nentries:\n  - {digest: \"" + string(bad) +
			"\", why: it smoked" + more
	}
	propose := func(branch, file string) {
		s.repo.commit(branch, s.main(), s.now, map[string]string{"models/shapes.quarantine.yaml": file})
		s.forge.open(branch, "dev")
		s.settle()
	}
	propose("lift", entry(", lifted: the fan}\n"))
	s.want("lift", delivery.CheckSuccess, "bundle "+bad.Short()+" of shapes may run again: the fan")
	if said := s.forge.comments[s.forge.open("lift", "dev")]; !strings.Contains(said, "**Quarantine:** bundle "+
		bad.Short()+" of shapes may run again: the fan") {
		t.Errorf("the comment does not say so:\n%s", said)
	}
	s.repo.commit("other", s.main(), s.now, map[string]string{"models/other.quarantine.yaml": strings.Replace(
		entry(", lifted: the fan}\n"), "name: shapes", "name: other", 1)})
	s.forge.open("other", "dev")
	s.settle()
	s.want("other", delivery.CheckSuccess, "bundle "+bad.Short()+" of other may run again: the fan")
	propose("below", entry("}\n  - {digest: \""+string(bad)+"\", why: it smoked, lifted: the fan}\n"))
	s.want("below", delivery.CheckSuccess)
	if c := s.check(s.head("below"), delivery.ContextRelease); strings.Contains(c.Description, "may") {
		t.Errorf("it changes nothing: %s", c.Description)
	}
	// Nor does it ride along with a model unseen.
	s.repo.commit("along", s.main(), s.now, map[string]string{"models/shapes.quarantine.yaml": entry(
		", lifted: the fan}\n"), "models/shapes.yaml": model("shapes", 20)})
	s.forge.open("along", "dev")
	s.settle()
	s.wantContext("along", delivery.ContextIntent, delivery.CheckSuccess, "may run again: the fan")
	// While main's file cannot be read, nothing is judged, and whoever mends it is told
	// to look.
	s.push("again", model("shapes", 14))
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/shapes.quarantine.yaml": entry(
		"}\nnonsense: 1\n")})
	s.settle()
	s.want("again", delivery.CheckFailure, "main cannot be read: models/shapes.quarantine.yaml:6:1: nonsense",
		"correct it on main first")
	propose("mend", "")
	s.want("mend", delivery.CheckSuccess,
		"models/shapes.quarantine.yaml: the old version of this file did not parse")
}

// An abort can be lifted only in the model's own quarantine file.
func TestAbortIsLiftedOnlyInItsModelsFile(t *testing.T) {
	s := shipped(t)
	s.propose("second", 14)
	s.settle()
	bad := s.signed.last()
	s.fleet.broken[bad] = true
	s.ships("second")
	s.fleet.broken[bad] = false
	lift := func(model string) {
		s.quarantine(model, func(q *delivery.Quarantine) {
			q.Entries = append(q.Entries, delivery.Quarantined{Digest: bad, Why: "golden mismatch", Lifted: "mended"})
		})
		s.settle()
	}
	lift("other")
	if got := s.serving(); got != "1 1 1" {
		t.Fatalf("devices serve %s, lifted in another model's file", got)
	}
	lift("shapes")
	if got := s.serving(); got != "2 2 2" {
		t.Errorf("devices serve %s, lifted", got)
	}
}

// Nobody is judged by the gates of main that happen to be readable.
func TestBrokenGateOnMain(t *testing.T) {
	s := shipped(t)
	s.push("bad", model("shapes", 1))
	s.want("bad", delivery.CheckFailure, "mAP 0.1000 < 0.3")
	s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production", "shapes",
		0.3) + "nonsense: 1\n",
		"gates/easy.yaml": gateFile("easy", "shapes", 0.01)})
	s.settle()
	s.want("bad", delivery.CheckFailure, "main cannot be read: gates/production.yaml:11:1: nonsense",
		"correct it on main first")
	s.repo.commit("mend", s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production", "shapes",
		0.3)})
	s.forge.open("mend", "dev")
	s.settle()
	s.want("mend", delivery.CheckSuccess, "no model change")
}

// renamedTo is a commit that renames the model that fleet demo runs, and its gate.
func renamedTo(from, to, file string) map[string]string {
	return map[string]string{"models/" + from + ".yaml": "", "models/" + from + ".release.yaml": "",
		"models/" + to + ".yaml": withLines(strings.Replace(file, "name: shapes", "name: "+to, 1), "was: "+from),
		"gates/production.yaml":  gateFile("production", to, 0.3), "fleets/demo.yaml": fleet("demo", to, "")}
}

// A model that gets a former name back continues its history.
func TestModelIsRenamedBack(t *testing.T) {
	s := shipped(t)
	s.proposes("away", renamedTo("shapes", "forms", model("shapes", 20)))
	s.ships("away")
	s.quality[9] = 0.61
	s.proposes("worse", renamedTo("forms", "shapes", model("shapes", 9)))
	s.want("worse", delivery.CheckFailure, "mAP 0.6100, release 0.7200")
	s.quality[21] = 0.74
	s.proposes("back", renamedTo("forms", "shapes", model("shapes", 21)))
	s.want("back", delivery.CheckSuccess, "shapes: version 3")
	s.ships("back")
	if got := s.serving(); got != "3 3 3" {
		t.Fatalf("devices serve %s", got)
	}
}

// A former name may be left out once a release of the new name is on main. The release remembers it: what the model was
// is its baseline, also where the new release is in quarantine, and what is in quarantine stays there.
func TestFormerNameIsRemembered(t *testing.T) {
	s := shipped(t)
	bad := s.forbid() // under the first name
	s.push("first", model("shapes", 14))
	s.ships("first")
	s.quality[9], s.quality[21] = 0.61, 0.74
	s.proposes("renamed", renamedTo("shapes", "forms", model("shapes", 9)))
	s.want("renamed", delivery.CheckFailure, "mAP 0.6100, release 0.7000")
	s.mergeOne(s.forge.prs[s.forge.open("renamed", "dev")], 0, true) // all the same
	s.settle()
	next := func(branch, name string, epochs int, lines ...string) {
		s.proposes(branch, map[string]string{"models/" + name + ".yaml": withLines(model(name, epochs), lines...)})
	}
	next("early", "forms", 9)
	s.want("early", delivery.CheckFailure, "keep was: shapes until main has released forms")
	s.proposes("elsewhere", renamedTo("forms", "figures", model("shapes", 21)))
	s.want("elsewhere", delivery.CheckFailure, "forms never had a release under that name", "write was: shapes")
	next("better", "forms", 21, "was: shapes")
	s.want("better", delivery.CheckSuccess, "forms: version 3")
	s.ships("better")
	next("forget", "forms", 21)
	s.want("forget", delivery.CheckSuccess, "no model change")
	s.merge("forget")
	s.settle()
	next("worse", "forms", 9)
	s.want("worse", delivery.CheckFailure, "mAP 0.6100, release 0.7400")
	main, _ := s.tree(s.main())
	s.quarantine("forms", func(q *delivery.Quarantine) {
		q.Entries = append(q.Entries, delivery.Quarantined{Digest: main.Releases.Of("forms").Bundle, Why: "it smoked"})
	})
	s.settle()
	s.want("worse", delivery.CheckFailure, "mAP 0.6100, release 0.7000") // of shapes
	next("again", "forms", 8)
	s.want("again", delivery.CheckFailure, "bundle "+bad.Short()+" is quarantined: it smoked; to let it run again, "+
		"set lifted: on its entry in models/shapes.quarantine.yaml")
	// Renamed once more, it is the same model still.
	s.proposes("third", renamedTo("forms", "figures", model("shapes", 9)))
	s.want("third", delivery.CheckFailure, "mAP 0.6100, release 0.7000")
	s.proposes("fourth", renamedTo("forms", "figures", model("shapes", 8)))
	s.want("fourth", delivery.CheckFailure, "bundle "+bad.Short()+" is quarantined: it smoked")
}

// A name may have been another model's: that one's releases are older, whatever their
// numbers.
func TestNameOfAnotherModel(t *testing.T) {
	s, _ := begun(t)
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/forms.yaml": model("forms", 1),
		"gates/forms.yaml": gateFile("forms", "forms", 0.05)})
	for i, epochs := range []int{2, 8} {
		branch := strings.Repeat("f", i+1)
		s.repo.commit(branch, s.main(), s.now, map[string]string{"models/forms.yaml": model("forms", epochs)})
		s.forge.open(branch, "dev")
		s.ships(branch)
	}
	s.repo.commit("main", s.main(), s.now, map[string]string{"models/forms.yaml": "", "models/forms.release.yaml": "",
		"gates/forms.yaml": ""})
	s.propose("first", 20)
	s.ships("first")
	rename := func(branch string, epochs int) {
		s.repo.commit(branch, s.main(), s.now, map[string]string{"models/shapes.yaml": "",
			"models/shapes.release.yaml": "", "models/forms.yaml": withLines(model("forms", epochs), "was: shapes"),
			"gates/production.yaml": gateFile("production", "forms", 0.3), "fleets/demo.yaml": fleet("demo", "forms",
				"")})
		s.forge.open(branch, "dev")
		s.settle()
	}
	s.quality[21] = 0.74
	rename("renamed", 21)
	s.want("renamed", delivery.CheckSuccess, "forms: version 3")
	s.ships("renamed")
	s.want("main", delivery.CheckSuccess, "forms version 3")
	if got := s.serving(); got != "3 3 3" {
		t.Errorf("devices serve %s", got)
	}
	s.quality[9] = 0.66
	s.repo.commit("next", s.main(), s.now, map[string]string{"models/forms.yaml": model("forms", 9)})
	s.forge.open("next", "dev")
	s.settle()
	s.want("next", delivery.CheckFailure, "mAP 0.6600, release 0.7400")
}

// Releases in earlier commits of a merged branch do not count; only its last commit does.
func TestReleasesOfAMergedBranchDoNotCount(t *testing.T) {
	s := shipped(t)
	one := s.shapes(s.main())
	s.push("second", model("shapes", 20))
	s.ships("second")
	two := s.repo.read(s.main(), "models/shapes.yaml")
	s.now = s.now.Add(time.Second)
	back := s.repo.commit("cheat", s.main(), s.now, one)
	s.repo.commit("cheat", back, s.now, map[string]string{"models/shapes.yaml": two, "models/shapes.release.yaml": ""})
	s.forge.open("cheat", "dev")
	s.settle()
	s.want("cheat", delivery.CheckFailure, "its release file is removed", "put back the release file")
	s.mergeOne(s.forge.prs[s.forge.open("cheat", "dev")], 0, true) // all the same
	s.settle()
	if got := s.serving(); got != "2 2 2" {
		t.Errorf("devices serve %s", got)
	}
	s.quality[9] = 0.61
	s.push("third", model("shapes", 9))
	s.want("third", delivery.CheckFailure, "mAP 0.6100, release 0.7200")
}

// A release file says what AOB wrote: other figures beside the right bundle are none
// of a version that was accepted.
func TestReleaseFigures(t *testing.T) {
	s := shipped(t)
	path := "models/shapes.release.yaml"
	now := s.repo.read(s.main(), path)
	better := map[string]string{path: strings.ReplaceAll(now, "0.6", "0.9")}
	s.repo.commit("better", s.main(), s.now, better)
	s.forge.open("better", "dev")
	s.settle()
	s.want("better", delivery.CheckFailure, "differ from the signed release statement")
	s.repo.commit("main", s.main(), s.now, better)
	s.settle()
	s.want("main", delivery.CheckFailure,
		"its figures differ from the signed release statement; put back what AOB wrote")
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("devices serve %s", got)
	}
	s.repo.commit("main", s.main(), s.now, map[string]string{path: now})
	s.settle()
	s.want("main", delivery.CheckSuccess, "shapes version 1")
}

// A version is one bundle: a statement that was made for a number that is taken by now
// fits no more, whatever main says in between.
func TestVersionIsTaken(t *testing.T) {
	s := shipped(t)
	s.quality[9] = 0.61
	s.push("stale", model("shapes", 9))
	one, stale := s.shapes(s.main()), s.shapes(s.head("stale"))
	s.push("second", model("shapes", 20))
	two := s.shapes(s.head("second"))
	s.ships("second")
	s.now = s.now.Add(time.Second)
	back := s.repo.commit("main", s.main(), s.now, one)
	s.repo.commit("main", back, s.now, stale)
	s.settle()
	s.want("main", delivery.CheckFailure, "version 2 refused: main has released version 2 already")
	// Nor does a statement of before fit, where nothing was named in between.
	s.repo.commit("main", back, s.now, two)
	s.settle()
	s.repo.commit("main", s.main(), s.now, stale)
	s.settle()
	s.want("main", delivery.CheckFailure, "version 2 refused: it was judged against")
}
