package plan

import (
	"fmt"
	"testing"

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
	w := World{ProposalsKnown: true, Main: Main{Branch: "main", Commit: "c",
		Intent: delivery.Intent{Models: map[string]delivery.Model{}, Releases: map[string]delivery.Release{}}},
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
		w.Main.Intent.Models[mdl.Name], w.Main.Intent.Releases[mdl.Name] = mdl, file
		w.Evidence.Releases = append(w.Evidence.Releases, delivery.ReleaseStatement{Model: mdl.Name,
			Version: file.Version,
			Spec:    file.Spec, Bundle: file.Bundle, File: file})
		w.Evidence.Accepted[mdl.Name] = append(w.Evidence.Accepted[mdl.Name], delivery.Acceptance{Model: mdl.Name,
			Version: file.Version, Spec: file.Spec, Bundle: file.Bundle})
	}
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
