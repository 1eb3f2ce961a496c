package reconciler

// Stories of fleets that run a variant of their model.

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
)

// inVariants is a world whose fleet demo runs FP32 of version 1 of shapes, which has INT8 too. Fleet late always runs
// FP32.
func inVariants(t *testing.T) *sim {
	s, _ := begun(t)
	s.pushMain(map[string]string{"fleets/late.yaml": fleet("late", "shapes", "")})
	s.fleet.add("late", "f")
	s.proposesVariants("first", 8, "[fp32, int8]")
	s.merge("first")
	s.settle()
	s.runsBundle(s.as(1, delivery.FP32), "its file names no variant")
	return s
}

// as returns the bundle of an accepted version of shapes as a variant.
func (s *sim) as(version int, variant string) delivery.Digest {
	s.helper()
	for _, a := range s.signed.index.Accepted["shapes"] {
		if bundle, ok := a.As(variant); ok && a.Version == version {
			return bundle
		}
	}
	s.fail("main has not accepted %s of version %d", variant, version)
	return ""
}

// asks lets fleet demo ask for a variant, by a pull request that is merged.
func (s *sim) asks(branch, variant string) {
	s.helper()
	s.proposes(branch, map[string]string{"fleets/demo.yaml": withVariant(variant)})
	s.merge(branch)
	s.settle()
}

// counts how many devices of a fleet run a bundle.
func (s *sim) run(ring string, bundle delivery.Digest) (n int) {
	for _, d := range s.fleet.devices {
		if d.Report.Ring == ring && d.Report.Bundle == bundle {
			n++
		}
	}
	return n
}

// A pull request lets a fleet ask for INT8. The fleet gets it in waves, and INT8 of each later version.
func TestFleetsGetVariants(t *testing.T) {
	s := inVariants(t)
	int8 := s.as(1, delivery.INT8)
	s.proposes("int8", map[string]string{"fleets/demo.yaml": withVariant(delivery.INT8)})
	s.want("int8", delivery.CheckSuccess, code.FleetRepointed, "demo: shapes as fp32 -> shapes as int8")
	s.merge("int8")
	s.turn()
	if d := s.fleet.published["demo"]; d.Release.Bundle != int8 || d.Release.Version != 1 || d.Share >= 1 ||
		d.Previous == nil || d.Previous.Bundle != s.as(1, delivery.FP32) {
		t.Errorf("the first wave is told %+v", d)
	}
	s.settle()
	s.runsBundle(int8, "its file asks for it")
	if n := s.run("late", s.as(1, delivery.FP32)); n != 1 {
		t.Error("fleet late does not run FP32 any more")
	}
	s.wantContext("main", delivery.ContextRollout+"demo", delivery.CheckSuccess, "variant int8: version 1")
	s.quiet()

	s.proposesVariants("second", 14, "[fp32, int8]")
	s.merge("second")
	s.settle()
	s.runsBundle(s.as(2, delivery.INT8), "version 2 has it")
	if n := s.run("late", s.as(2, delivery.FP32)); n != 1 {
		t.Error("fleet late does not run FP32 of version 2")
	}
	status, err := s.source().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range status.Fleets {
		if want := map[string]string{"demo": "int8", "late": "fp32"}[f.Name]; f.Variant != want {
			t.Errorf("aob status says that fleet %s runs %q, want %s", f.Name, f.Variant, want)
		}
	}
	trained := s.started(delivery.RunTrain)
	s.asks("back", delivery.FP32)
	s.runsBundle(s.as(2, delivery.FP32), "its file asks for it again")
	if now := s.started(delivery.RunTrain); now != trained {
		t.Error("a fleet's variant has trained something")
	}
	s.quiet()
}

// A release whose INT8 fails a gate leaves a fleet of INT8 where it is: it does not get FP32. The pull request says so
// beforehand, and main's commit says so until somebody acts.
func TestFleetsKeepTheirVariant(t *testing.T) {
	s := inVariants(t)
	s.asks("int8", delivery.INT8)
	s.loses["int8"] = 0.4
	s.proposesVariants("second", 14, "[fp32, int8]")
	s.want("second", delivery.CheckSuccess, "version 2", code.FleetLacks, "fleet demo keeps what it runs")
	if comment := s.commentOn("second"); !strings.Contains(comment, "fleet demo keeps what it runs: variant int8: "+
		"not released: gate production") || strings.Contains(comment, "releases the model to demo") {
		t.Errorf("the comment does not say that demo keeps what it runs:\n%s", comment)
	}
	s.merge("second")
	s.settle()
	s.runsBundle(s.as(1, delivery.INT8), "version 2 has no INT8")
	if n := s.run("late", s.as(2, delivery.FP32)); n != 1 {
		t.Error("fleet late does not run version 2")
	}
	s.want("main", delivery.CheckFailure, code.FleetKeepsRelease, "fleet demo runs shapes version 1 as int8")
	s.wantContext("main", delivery.ContextRollout+"demo", delivery.CheckFailure,
		"version 2 of shapes was released without int8")
	s.quiet()

	// A device that is new gets what the others have.
	s.fleet.add("demo", "n")
	s.wake()
	s.settle()
	s.runsBundle(s.as(1, delivery.INT8), "the new device, too")

	s.loses["int8"] = 0
	s.proposesVariants("third", 20, "[fp32, int8]")
	s.merge("third")
	s.settle()
	s.runsBundle(s.as(3, delivery.INT8), "version 3 has it")
	s.want("main", delivery.CheckSuccess)
}

// A pull request that lets a fleet ask for what its model does not have fails, and may be mended in the same branch.
// Pushed to main, it changes nothing on devices.
func TestFleetsAskForMissingVariants(t *testing.T) {
	s := inVariants(t)
	s.proposes("fp16", map[string]string{"fleets/demo.yaml": withVariant(delivery.FP16)})
	s.want("fp16", delivery.CheckFailure, code.VariantUndeclared, "fp16 is not under variants: in models/shapes.yaml")
	s.repo.commit("fp16", s.head("fp16"), s.now, map[string]string{"models/shapes.yaml": varied(8, "[fp32, fp16]")})
	s.settle()
	s.want("fp16", delivery.CheckSuccess, "version 2")

	s.pushMain(map[string]string{"fleets/demo.yaml": withVariant(delivery.FP16)})
	s.settle()
	s.runsBundle(s.as(1, delivery.FP32), "the release has no FP16")
	s.want("main", delivery.CheckFailure, code.VariantUndeclared)
	s.quiet()
}

// A pull request that mends main is not asked what main has accepted, which is unknown as long as main cannot be read.
// What its fleets ask for is looked up in its own release files.
func TestFleetsAskWhileMainIsBroken(t *testing.T) {
	s := inVariants(t)
	s.pushMain(map[string]string{"fleets/late.yaml": fleet("late", "nothing", "")})
	s.settle()
	mended := fleet("late", "shapes", "")
	for variant, want := range map[string]delivery.CheckState{
		delivery.FP16: delivery.CheckFailure,
		delivery.INT8: delivery.CheckSuccess,
	} {
		s.proposes(variant, map[string]string{"fleets/late.yaml": mended, "fleets/demo.yaml": withVariant(variant)})
		s.want(variant, want)
	}
	s.want(delivery.FP16, delivery.CheckFailure, code.VariantUndeclared)
}

// INT8 fails on the first device. The fleet goes back to what it ran, and AOB's pull request forbids that bundle alone.
func TestFleetsFallBackFromVariants(t *testing.T) {
	s := inVariants(t)
	s.fleet.broken[s.as(1, delivery.INT8)] = true
	s.asks("int8", delivery.INT8)
	s.runsBundle(s.as(1, delivery.FP32), "INT8 failed")
	s.wantContext("main", delivery.ContextRollout+"demo", delivery.CheckFailure, "variant int8: version 1 is aborted")
	branch := s.opened("aob/quarantine-shapes-")
	before, _ := s.tree(s.main())
	s.want(branch, delivery.CheckSuccess, code.BundleVariantForbidden, "int8")
	s.merge(branch)
	s.settle()
	after, _ := s.tree(s.main())
	if !delivery.SameRelease(before.Releases.Of("shapes"), after.Releases.Of("shapes")) ||
		!s.held(s.as(1, delivery.INT8)) || s.held(s.as(1, delivery.FP32)) {
		t.Error("the pull request does not quarantine INT8 alone")
	}
	s.runsBundle(s.as(1, delivery.FP32), "it ran that before INT8")
	if n := s.run("late", s.as(1, delivery.FP32)); n != 1 {
		t.Error("fleet late is concerned, and runs FP32")
	}
	s.want("main", delivery.CheckFailure, code.VariantQuarantined)
	s.quiet()

	// Another model with the same weights does not bring the bundle back.
	s.proposesVariants("second", 8, "[fp32, fp16, int8]")
	s.wantContext("second", delivery.ContextVariant+"int8", delivery.CheckSuccess, code.VariantForbidden)
	s.wantContext("second", delivery.ContextVariant+"fp16", delivery.CheckSuccess, code.VariantSlow)

	clear(s.fleet.broken)
	s.quarantine("shapes", func(q *delivery.Quarantine) { q.Entries[0].Lifted = "the driver is new" })
	s.settle()
	s.runsBundle(s.as(1, delivery.INT8), "it was lifted")
}

// A quarantine of a release holds its variants.
func TestQuarantineOfAReleaseHoldsItsVariants(t *testing.T) {
	s := inVariants(t)
	s.asks("int8", delivery.INT8)
	s.proposesVariants("second", 14, "[fp32, int8]")
	s.merge("second")
	s.settle()
	s.runsBundle(s.as(2, delivery.INT8), "version 2 has it")
	s.forbid()
	s.runsBundle(s.as(1, delivery.INT8), "version 2 is forbidden")
	if n := s.run("late", s.as(1, delivery.FP32)); n != 1 {
		t.Error("fleet late does not go back")
	}
}

// Main goes back to a version that has no INT8. Fleets of FP32 go back, and the fleet of INT8 stays and says why.
func TestRevertToAReleaseWithoutTheVariant(t *testing.T) {
	s, _ := begun(t)
	s.pushMain(map[string]string{"fleets/late.yaml": fleet("late", "shapes", "")})
	s.fleet.add("late", "f")
	s.released("first", 8)
	s.proposesVariants("second", 14, "[fp32, int8]")
	second := s.merge("second")
	s.settle()
	s.asks("int8", delivery.INT8)
	s.runsBundle(s.as(2, delivery.INT8), "its file asks for it")
	first := s.shapes(s.repo.commits[second].parents[0])
	s.proposes("back", first)
	s.want("back", delivery.CheckSuccess, code.RollsBack, code.FleetLacks)
	s.pushMain(first)
	s.settle()
	s.runsBundle(s.as(2, delivery.INT8), "version 1 has no INT8")
	if n := s.run("late", s.as(1, delivery.FP32)); n != 1 {
		t.Error("fleet late does not go back")
	}
	s.want("main", delivery.CheckFailure, code.VariantUndeclared)
	s.asks("fp32", delivery.FP32)
	s.runsBundle(s.as(1, delivery.FP32), "its file asks for it now")
	s.want("main", delivery.CheckSuccess)
}

// A gate is raised between the release's statement and its merge. FP32 passes it and INT8 does not, so main accepts
// FP32 alone.
func TestRaisedGateHoldsVariantsBack(t *testing.T) {
	s := inVariants(t)
	s.asks("int8", delivery.INT8)
	s.loses["int8"] = 0.05
	s.proposesVariants("second", 14, "[fp32, int8]")
	s.want("second", delivery.CheckSuccess, "version 2")
	head := s.head("second")
	s.pushMain(map[string]string{"gates/production.yaml": gateFile("production", "shapes", s.quality[14]-0.02)})
	s.repo.refs["refs/heads/main"] = s.repo.write([]string{s.main(), head}, s.merged(s.main(), head), s.now, "merge")
	delete(s.repo.refs, "refs/heads/second")
	s.settle()
	for _, a := range s.signed.index.Accepted["shapes"] {
		if a.Version == 2 && len(a.Variants) > 0 {
			t.Errorf("main has accepted version 2 with %+v", a.Variants)
		}
	}
	s.as(2, delivery.FP32)
	s.runsBundle(s.as(1, delivery.INT8), "INT8 of version 2 fails the gate of main")
}

// A fleet that goes to another model carries its gates, and they judge the variant that it gets.
func TestFleetsGatesJudgeVariants(t *testing.T) {
	s := inVariants(t)
	s.asks("int8", delivery.INT8)
	files := other(14)
	files["models/other.yaml"] = withLines(files["models/other.yaml"], "variants: [fp32, int8]")
	s.loses["int8"] = 0.45 // of what is measured from now on
	s.proposes("other", files)
	s.merge("other")
	s.settle()
	s.proposes("swap", demoRuns("other", "variant: int8\n"))
	s.want("swap", delivery.CheckFailure, "other")
	s.pushMain(demoRuns("other", "variant: int8\n"))
	s.settle()
	s.runsBundle(s.as(1, delivery.INT8), "INT8 of other fails the gate of shapes")
	s.want("main", delivery.CheckFailure, code.FleetStaysWith)
	// FP32 of other is as good as what the fleet runs.
	s.pushMain(demoRuns("other", ""))
	s.settle()
	s.runsBundle(s.signed.index.Accepted["other"][0].Bundle, "FP32 of other passes the gate of shapes")
}

// What a device runs is explained by the release that it is a variant of.
func TestVariantsAreExplained(t *testing.T) {
	s := inVariants(t)
	s.asks("int8", delivery.INT8)
	chain, err := s.source().Explain(t.Context(), "device", "demo/a")
	if err != nil {
		t.Fatal(err)
	}
	var what []string
	var last explain.Link // the bundle whose verdicts follow
	judged := 0
	for _, l := range chain.Links {
		what = append(what, l.What)
		switch l.What {
		case "bundle":
			last, judged = l, 0
		case "verdict":
			judged++
		}
	}
	if last.ID != string(s.as(1, delivery.INT8)) || judged != 1 {
		t.Errorf("the chain ends with bundle %s and %d verdicts on it", last.ID, judged)
	}
	if !strings.Contains(chain.Title, "runs shapes version 1 as int8") || !slices.Contains(what, "acceptance") {
		t.Errorf("the chain is %s: %v", chain.Title, what)
	}
}

// INT8 of version 2 has failed a gate. A release file that lists it all the same, or that names it as the model itself,
// is refused in a pull request, and pushed to main it brings it to no device.
func TestForgedVariantsShipNothing(t *testing.T) {
	for name, forge := range map[string]func(file string, lost delivery.Digest) string{
		"listed": func(file string, lost delivery.Digest) string {
			return strings.Replace(file, "\nversion: ", fmt.Sprintf("\nvariants:\n  - bundle: %s\n    model: %s\n"+
				"    variant: int8\nversion: ", lost, lost), 1)
		},
		"as the model": func(file string, lost delivery.Digest) string {
			return bundleLine.ReplaceAllString(file, "bundle: "+string(lost))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := inVariants(t)
			s.asks("int8", delivery.INT8)
			s.loses["int8"] = 0.4
			s.proposesVariants("second", 14, "[fp32, int8]")
			s.settle()
			var lost delivery.Digest
			for _, r := range s.runs.states {
				var made delivery.VariantResult
				if r.Spec.Kind == delivery.RunVariant && r.Spec.Variant.Train.Spec.Train.Epochs == 14 {
					if err := json.Unmarshal(r.Result, &made); err != nil {
						t.Fatal(err)
					}
					lost = made.Bundle
				}
			}
			file := s.repo.read(s.head("second"), "models/shapes.release.yaml")
			forged := forge(file, lost)
			if lost == "" || forged == file {
				t.Fatalf("nothing is forged with %q in:\n%s", lost, file)
			}
			s.repo.commit("second", s.head("second"), s.now, map[string]string{"models/shapes.release.yaml": forged})
			s.settle()
			if got := s.repo.read(s.head("second"), "models/shapes.release.yaml"); got == forged {
				s.want("second", delivery.CheckFailure)
			}
			s.repo.commit("main", s.head("main"), s.now, map[string]string{"models/shapes.release.yaml": forged,
				"models/shapes.yaml": varied(14, "[fp32, int8]")})
			s.settle()
			for _, d := range s.fleet.devices {
				if d.Report.Bundle == lost {
					t.Errorf("device %s of %s runs what has lost", d.Report.Device, d.Report.Ring)
				}
			}
			s.runsBundle(s.as(1, delivery.INT8), "version 2 has no INT8")
			s.want("main", delivery.CheckFailure)
		})
	}
}

var bundleLine = regexp.MustCompile(`(?m)^bundle: .*$`)

// A pull request brings a fleet back to a model whose release is on main, with a variant that this release does not
// have. The gates of the fleet let the release go, and the variant is missing all the same.
func TestFleetGoesBackWithAMissingVariant(t *testing.T) {
	if why, _ := play([]event{{"swap a fleet's model", 530, 155}, {"ship a variant", 357, 577}}); why != "" {
		t.Error(why)
	}
}
