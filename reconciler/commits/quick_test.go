package commits

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
)

// A treeRepo has trees of files by path.
type treeRepo map[string]map[string]string

func (r treeRepo) Files(commit string) (list []git.File, _ error) {
	for _, path := range slices.Sorted(maps.Keys(r[commit])) {
		text := r[commit][path]
		list = append(list, git.File{Path: path, Hash: text, Size: int64(len(text)), Mode: 0o644})
	}
	return list, nil
}

func (r treeRepo) Blob(hash string, _ int64) ([]byte, error) { return []byte(hash), nil }

func (r treeRepo) MergeBases(a, _ string) ([]string, error) { return []string{a}, nil }

// edit changes a tree at random: files of every kind appear, change and go, with references that hold and that do not.
func edit(rnd *rand.Rand, files map[string]string) {
	name := func() string { return fmt.Sprint("m", rnd.IntN(6)) }
	header := "apiVersion: aob/v1\nkind: %s\nname: %s\n"
	switch kind := rnd.IntN(12); kind {
	case 0, 1, 2:
		n := name()
		text := fmt.Sprintf(header, "Model", n) + fmt.Sprintf("dataset: {dir: d}\nclasses: [a]\ntrain: {with: tiny@1, "+
			"epochs: %d}\n", 1+rnd.IntN(3))
		if rnd.IntN(4) == 0 {
			text += "was: " + name() + "\n"
		}
		files["models/"+n+".yaml"] = text
	case 3, 4:
		n := fmt.Sprint("f", rnd.IntN(4))
		text := fmt.Sprintf(header, "Fleet", n) + "runs: " + name() + "\nwaves: [100%]\n"
		if rnd.IntN(2) == 0 {
			text += fmt.Sprintf("after: {fleet: f%d, healthy: 1h}\n", rnd.IntN(4))
		}
		files["fleets/"+n+".yaml"] = text
	case 5, 6:
		n := fmt.Sprint("g", rnd.IntN(3))
		files["gates/"+n+".yaml"] = fmt.Sprintf(header, "Gate", n) + fmt.Sprintf("covers: [%s]\nevaluate: {dataset: "+
			"{dir: d}, split: test}\nclasses: [a]\nchecks:\n  - {metric: mAP, min: 0.%d}\n", name(), 1+rnd.IntN(9))
	case 7:
		n := name()
		digest := "sha256:" + strings.Repeat(fmt.Sprint(rnd.IntN(10)), 64)
		files["models/"+n+".release.yaml"] = fmt.Sprintf(header, "Release", n) + fmt.Sprintf(
			"version: 1\nbundle: %s\nspec: %s\nmeasured: []\n", digest, digest)
	case 8:
		files["models/README.md"] = fmt.Sprint(rnd.IntN(100))
	case 9:
		files[[]string{"models/x.txt", "gates/g0.yaml", "models/" + name() + ".yaml"}[rnd.IntN(3)]] = "kind: Nothing\n"
	default:
		if paths := slices.Sorted(maps.Keys(files)); len(paths) > 0 {
			delete(files, paths[rnd.IntN(len(paths))])
		}
	}
}

// A tree that is read as changes of another one is the tree that is read as a whole.
func TestChangedTreeIsTheWholeTree(t *testing.T) {
	list, err := intent.LoadTrainers(os.DirFS("../../trainers"))
	if err != nil {
		t.Fatal(err)
	}
	repo := treeRepo{}
	options := intent.Options{Trainers: list}
	quick, broken, said := 0, 0, map[string]int{}
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r := New(repo, intent.NewCache(options))
		files, good := map[string]string{}, map[string]string{}
		for step := range 60 {
			for range 1 + rnd.IntN(2) {
				edit(rnd, files)
			}
			commit := fmt.Sprint(seed, "-", step)
			repo[commit] = maps.Clone(files)
			got, err := r.Tree(commit)
			if err != nil {
				t.Fatal(err)
			}
			want, err := New(repo, intent.NewCache(options)).Tree(commit)
			if err != nil {
				t.Fatal(err)
			}
			a, b := got.Intent, want.Intent
			if !a.Models.Equal(b.Models) || !a.Gates.Equal(b.Gates) || !a.Fleets.Equal(b.Fleets) ||
				!a.Releases.Equal(b.Releases) || !a.Quarantines.Equal(b.Quarantines) || !a.Files.Equal(b.Files) ||
				!got.Files.Equal(want.Files) || got.size != want.size ||
				!reflect.DeepEqual(got.Complaints, want.Complaints) {
				t.Fatalf("seed %d, step %d: the files %v\ngot %+v\nwant %+v", seed, step, files, got, want)
			}
			if len(got.Complaints) > 0 {
				broken++
				if rnd.IntN(4) > 0 { // most edits start from a good tree
					files = maps.Clone(good)
				}
				said[want.Complaints[0].Text]++
			} else {
				good = maps.Clone(files)
			}
			if list, _ := repo.Files(commit); len(got.Complaints) == 0 {
				if _, ok, _ := r.quick(list, mostChanges); ok {
					quick++
				}
			}
		}
	}
	t.Logf("%d of 600 trees were read as changes, %d have %d different complaints", quick, broken, len(said))
	if quick < 200 || broken < 100 || len(said) < 8 {
		t.Errorf("%d trees were read as changes and %d have complaints; want more of both", quick, broken)
	}
}
