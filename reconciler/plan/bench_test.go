package plan

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// BenchmarkReleases plans a main of many models with many past releases. What a
// turn costs must not be models times releases: each pair may cost a comparison of
// a few words, and never an encoding of two release files.
func BenchmarkReleases(b *testing.B) {
	for _, size := range []struct{ models, releases int }{{100, 100}, {200, 1000}, {200, 5000}} {
		b.Run(fmt.Sprintf("models=%d/releases=%d", size.models, size.releases), func(b *testing.B) {
			w := released(size.models, size.releases)
			for b.Loop() {
				if p := Make(w); len(p.Main.Models) != size.models {
					b.Fatalf("%d models in the plan", len(p.Main.Models))
				}
			}
		})
	}
}

// released is a main of models that each have had their share of the releases.
func released(models, releases int) World {
	all, files := map[string]delivery.Model{}, map[string]delivery.Release{}
	w := World{ProposalsKnown: true, Main: Main{Branch: "main", Commit: "c"},
		Evidence: Evidence{Accepted: map[string][]delivery.Acceptance{}}}
	for i := range releases {
		mdl := delivery.Model{Name: fmt.Sprintf("m%d", i%models)}.Sealed()
		file := delivery.Release{APIVersion: delivery.APIVersion, Kind: "Release", Name: mdl.Name, Version: i/models +
			1,
			Bundle: delivery.Sum(fmt.Append(nil, i)), Spec: mdl.SpecDigest()}
		for range 3 {
			m := delivery.Measured{Gate: "production", Images: 100, Metrics: map[string]delivery.Figure{}}
			for _, metric := range []string{"mAP", "AP50", "AP75", "AP/cat", "AP/dog", "AP/cow"} {
				m.Metrics[metric] = delivery.Figure{Value: 0.5}
			}
			file.Measured = append(file.Measured, m)
		}
		all[mdl.Name], files[mdl.Name] = mdl, file
		w.Evidence.Releases = append(w.Evidence.Releases, delivery.ReleaseStatement{Model: mdl.Name,
			Version: file.Version,
			Spec:    file.Spec, Bundle: file.Bundle, File: file})
		w.Evidence.Accepted[mdl.Name] = append(w.Evidence.Accepted[mdl.Name], delivery.Acceptance{Model: mdl.Name,
			Version: file.Version, Spec: file.Spec, Bundle: file.Bundle})
	}
	w.Main.Intent = delivery.Intent{Models: delivery.NamedOf(all), Releases: delivery.NamedOf(files)}
	return w
}

// Past releases cost a plan next to nothing: with ten times as many of them it
// allocates about the same. Encoding each pair of files would make it ten times as much.
func TestPlanDoesNotEncodeEveryPastRelease(t *testing.T) {
	few, many := released(20, 20), released(20, 200)
	allocs := func(w World) float64 { return testing.AllocsPerRun(2, func() { Make(w) }) }
	if a, b := allocs(few), allocs(many); b > 2*a {
		t.Errorf("20 models with 20 releases: %.0f allocations; with 200 releases: %.0f, want less than twice as many",
			a, b)
	}
}

// The newest two benches that one machine made of both bundles count, on profiles of main's fleets.
func TestFasterOn(t *testing.T) {
	fp32, fp16 := delivery.Sum([]byte("fp32")), delivery.Sum([]byte("fp16"))
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	benched := func(of delivery.Digest, profile, device, mode string, minute int, ms float64) delivery.Bench {
		b := delivery.Bench{BenchRun: delivery.BenchRun{Bundle: of, Profile: profile, Settings: delivery.GateBench()},
			Machine: delivery.BenchMachine{PowerMode: mode}, Fleet: "north", Device: device,
			At: at.Add(time.Duration(minute) * time.Minute)}
		for range delivery.BenchRepeats {
			b.Result.Repeats = append(b.Result.Repeats, delivery.BenchRepeat{
				Stages: map[string]delivery.BenchTimes{delivery.StageTotal: {P50: ms / 1e3}}})
		}
		return b
	}
	for name, c := range map[string]struct {
		fp32, fp16 []delivery.Bench
		want       map[string]float64
	}{
		"nothing is measured": {},
		"one is measured":     {fp16: []delivery.Bench{benched(fp16, "nano", "a", "", 0, 5)}},
		"faster": {[]delivery.Bench{benched(fp32, "nano", "a", "", 0, 10), benched(fp32, "agx", "b", "", 0, 4)},
			[]delivery.Bench{benched(fp16, "nano", "a", "", 1, 5), benched(fp16, "agx", "b", "", 1, 2)},
			map[string]float64{"nano": 2, "agx": 2}},
		"slower": {[]delivery.Bench{benched(fp32, "nano", "a", "", 0, 5)},
			[]delivery.Bench{benched(fp16, "nano", "a", "", 1, 10)}, nil},
		"the newest counts": {[]delivery.Bench{benched(fp32, "nano", "a", "", 0, 10)},
			[]delivery.Bench{benched(fp16, "nano", "a", "", 1, 5), benched(fp16, "nano", "a", "", 2, 8)},
			map[string]float64{"nano": 1.25}},
		"the newest is slower": {[]delivery.Bench{benched(fp32, "nano", "a", "", 0, 10)},
			[]delivery.Bench{benched(fp16, "nano", "a", "", 2, 12), benched(fp16, "nano", "a", "", 1, 5)}, nil},
		"other devices": {[]delivery.Bench{benched(fp32, "nano", "a", "", 0, 10)},
			[]delivery.Bench{benched(fp16, "nano", "b", "", 1, 5)}, nil},
		"another power mode": {[]delivery.Bench{benched(fp32, "nano", "a", "", 0, 10)},
			[]delivery.Bench{benched(fp16, "nano", "a", "1", 1, 5)}, nil},
		"the mode has changed since": {
			[]delivery.Bench{benched(fp32, "nano", "a", "", 0, 10), benched(fp32, "nano", "a", "1", 3, 10)},
			[]delivery.Bench{benched(fp16, "nano", "a", "", 1, 5)}, nil},
		"a profile of no fleet": {[]delivery.Bench{benched(fp32, "Nano: {", "a", "", 0, 10)},
			[]delivery.Bench{benched(fp16, "Nano: {", "a", "", 1, 5)}, nil},
	} {
		m := &maker{w: World{Evidence: Evidence{Benches: map[delivery.Digest][]delivery.Bench{fp32: c.fp32,
			fp16: c.fp16}}}}
		if got := m.fasterOn([]string{"agx", "nano"}, fp32, fp16); !maps.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
