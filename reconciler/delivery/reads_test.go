package delivery

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

// changedTree returns a tree in which some random files are added, changed or removed.
func changedTree(rng *rand.Rand, in Intent, times int) Intent {
	for range times {
		name := fmt.Sprint("n", rng.IntN(6))
		gone := rng.IntN(3) == 0
		switch rng.IntN(3) {
		case 0:
			m := Model{Name: name, Scenes: fmt.Sprint(rng.IntN(3))}
			if rng.IntN(3) == 0 {
				m.RenamedFrom = fmt.Sprint("n", rng.IntN(6))
			}
			in.Models = in.Models.With(NamedChange[Model]{Name: name, Value: m, Gone: gone})
		case 1:
			g := Gate{Name: name, Covers: []string{fmt.Sprint("n", rng.IntN(6))}}
			in.Gates = in.Gates.With(NamedChange[Gate]{Name: name, Value: g, Gone: gone})
		default:
			in.Files = in.Files.With(NamedChange[string]{Name: name, Value: fmt.Sprint(rng.IntN(3)), Gone: gone})
		}
	}
	return in
}

// ask asks two trees some random questions, of which one may follow from the answer of another.
func ask(seed uint64, a, b Intent) (answers []any) {
	rng := rand.New(rand.NewPCG(seed, 1))
	name := func() string { return fmt.Sprint("n", rng.IntN(6)) }
	for range 1 + rng.IntN(3) {
		tree := []Intent{a, b}[rng.IntN(2)]
		switch rng.IntN(10) {
		case 0:
			answers = append(answers, tree.Models.Of(name()))
		case 1:
			answers = append(answers, tree.Gates.Has(name()))
		case 2:
			answers = append(answers, tree.Covering(name()))
		case 3:
			answers = append(answers, tree.Models.Keyed(KeyRenamed))
		case 4:
			answers = append(answers, tree.Models.Names())
		case 5:
			answers = append(answers, tree.Gates.Len(), tree.Gates.Known())
		case 6:
			for name, value := range tree.Files.All() {
				answers = append(answers, name, value)
			}
		case 7:
			answers = append(answers, a.Models.Changed(b.Models, func(name string) bool {
				return a.Models.Of(name).Scenes == b.Models.Of(name).Scenes
			}))
		case 8:
			answers = append(answers, a.Files.Changed(b.Files, func(string) bool { return true }))
		default:
			for _, gate := range tree.Covering(name()) {
				answers = append(answers, tree.Gates.Of(gate))
			}
		}
	}
	return answers
}

// If nothing that was read has changed, the same questions have the same answers.
func TestReadsTellWhetherAnswersStay(t *testing.T) {
	stayed := 0
	for seed := range uint64(30_000) {
		rng := rand.New(rand.NewPCG(seed, 2))
		main := changedTree(rng, Intent{}, rng.IntN(12))
		if rng.IntN(4) == 0 { // what all share has gates too
			gates := map[string]Gate{}
			for name, g := range main.Gates.All() {
				gates[name] = g
			}
			main.Gates = NamedOf(gates)
		}
		merged := changedTree(rng, main, rng.IntN(3))
		nextMain := changedTree(rng, main, rng.IntN(3))
		next := changedTree(rng, nextMain, rng.IntN(3))
		if rng.IntN(2) == 0 {
			next = changedTree(rng, merged, rng.IntN(2))
		}
		watchedMain, ofMain := main.Watched()
		watched, ofMerged := merged.Watched()
		before := ask(seed, watchedMain, watched)
		if plain := ask(seed, main, merged); !reflect.DeepEqual(before, plain) {
			t.Fatalf("seed %d: the notes change an answer: %v, want %v", seed, before, plain)
		}
		a, b := nextMain.Since(main), next.Since(merged)
		same := ofMain.Same(a) && ofMerged.Same(b) &&
			ofMain.SamePair(TreePair{main, merged}, TreePair{nextMain, next}, a, b)
		if now := ask(seed, nextMain, next); same && !reflect.DeepEqual(before, now) {
			t.Fatalf("seed %d: said to be the same: %v, now %v", seed, before, now)
		}
		if same && (!nextMain.Models.Equal(main.Models) || !nextMain.Files.Equal(main.Files)) {
			stayed++
		}
	}
	if stayed < 1000 {
		t.Errorf("answers stayed in %d trees of those that changed, want at least 1000", stayed)
	}
}
