package evidence_test

import (
	"fmt"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
)

// BenchmarkLoad measures reading the statements of 50 bundles, 40 for each.
func BenchmarkLoad(b *testing.B) {
	blobs, bundles := bundlesIn(b, b.TempDir(), 50)
	k := key(b)
	store := evidence.New(blobs, k, nil)
	for i, bundle := range bundles {
		for j := range 10 {
			run := fmt.Sprintf("%d/%d", i, j)
			t := training(bundle, run)
			t.Data.Images = map[string]int{"train": 1000, "valid": 100}
			for _, err := range []error{
				sign(store, b.Context(), t),
				store.Sign(b.Context(), bundle, delivery.VerdictType, verdictOf(run)),
				sign(store, b.Context(), releaseOf(bundle, j)),
				sign(store, b.Context(), acceptanceOf(bundle, j)),
			} {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			load(b, evidence.New(blobs, nil, public(k)))
		}
	})
	load(b, store)
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			load(b, store)
		}
	})
	last := bundles[len(bundles)-1:]
	if err := sign(store, b.Context(), bigScores(last[0])); err != nil {
		b.Fatal(err)
	}
	b.Run("scores of one bundle, cold", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := evidence.New(blobs, k, nil).Scores(b.Context(), last); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// bigScores returns scores with 1000 resamples of each of twenty classes.
func bigScores(bundle delivery.Digest) delivery.Scores {
	s := scoresOf(bundle, "big")
	s.Scores.Table = delivery.Table{Columns: map[string][]delivery.Row{}}
	for m := range 20 {
		s.Scores.Table.Classes = append(s.Scores.Table.Classes, fmt.Sprint(m))
		for _, column := range []string{"AP", "AP50", "AP75"} {
			samples := make([]float64, 1000)
			for i := range samples {
				samples[i] = float64(i*1000%997+m) / 1234
			}
			s.Scores.Table.Columns[column] = append(s.Scores.Table.Columns[column], delivery.Row{Value: 0.5,
				Resamples: samples})
		}
	}
	return s
}
