package delivery_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// After any changes a Named has what a map has that was changed in the same way, and its former versions have what they
// had.
func TestNamedIsLikeAMap(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		name := func() string { return fmt.Sprint("n", random.IntN(300)) }
		content := map[string]int{}
		for range random.IntN(200) {
			content[name()] = random.Int()
		}
		now := delivery.NamedOf(content)
		type version struct {
			named   delivery.Named[int]
			content map[string]int
		}
		versions := []version{{now, maps.Clone(content)}}
		for range 20 {
			var changes []delivery.NamedChange[int]
			for range random.IntN(12) {
				c := delivery.NamedChange[int]{Name: name(), Value: random.Int(), Gone: random.IntN(3) == 0}
				changes = append(changes, c)
				if content[c.Name] = c.Value; c.Gone {
					delete(content, c.Name)
				}
			}
			now = now.With(changes...)
			versions = append(versions, version{now, maps.Clone(content)})
		}
		for i, v := range versions {
			if got := maps.Collect(v.named.All()); !maps.Equal(got, v.content) {
				t.Fatalf("seed %d, version %d: got %v, want %v", seed, i, got, v.content)
			}
			if names := slices.Sorted(maps.Keys(v.content)); !slices.Equal(v.named.Names(), names) ||
				v.named.Len() != len(names) {
				t.Fatalf("seed %d, version %d: got names %v and length %d, want %v", seed, i, v.named.Names(),
					v.named.Len(), names)
			}
			for n := range 300 {
				n := fmt.Sprint("n", n)
				want, in := v.content[n]
				if got, has := v.named.Get(n); has != in || has && got != want || has != v.named.Has(n) {
					t.Fatalf("seed %d, version %d, %s: got %d %t, want %d %t", seed, i, n, got, has, want, in)
				}
			}
			other := versions[random.IntN(len(versions))]
			var want []string
			for n := range 300 {
				n := fmt.Sprint("n", n)
				a, inA := v.content[n]
				if b, inB := other.content[n]; inA != inB || a != b {
					want = append(want, n)
				}
			}
			near := delivery.Near(other.named, v.content, func(name string) bool {
				return other.content[name] == v.content[name]
			})
			if got := maps.Collect(near.All()); !maps.Equal(got, v.content) || near.Len() != len(v.content) {
				t.Fatalf("seed %d, version %d near another: got %v, want %v", seed, i, got, v.content)
			}
			slices.Sort(want)
			if got := v.named.Changed(other.named, func(name string) bool {
				return v.named.Of(name) == other.named.Of(name)
			}); !slices.Equal(got, want) {
				t.Fatalf("seed %d, version %d: got changes %v, want %v", seed, i, got, want)
			}
		}
	}
}

func TestNamedOfNothing(t *testing.T) {
	var none delivery.Named[string]
	if none.Known() || none.Len() != 0 || none.Has("a") || none.Of("a") != "" || none.Names() != nil {
		t.Errorf("the zero value has something: %+v", none)
	}
	if !delivery.NamedOf(map[string]string{}).Known() {
		t.Error("an empty map is not known")
	}
	if got := none.With(delivery.NamedChange[string]{Name: "a", Value: "b"}); got.Of("a") != "b" || got.Len() != 1 {
		t.Errorf("got %+v", got)
	}
	if got := delivery.NamedOf(map[string]string{"a": "b"}).Changed(none, func(string) bool { return true }); len(
		got) != 1 {
		t.Errorf("got %v", got)
	}
}
