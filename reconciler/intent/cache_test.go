package intent_test

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

// tree returns an intent of n models, each with a gate and a fleet.
func tree(n int) []intent.File {
	var files []intent.File
	add := func(path, format string, args ...any) {
		data := fmt.Appendf(nil, format, args...)
		files = append(files, intent.File{Path: path, Size: int64(len(data)), Data: data,
			Hash: string(delivery.Sum(data))})
	}
	for i := range n {
		add(fmt.Sprintf("models/m%d.yaml", i), `# Model %d.
apiVersion: aob/v1
kind: Model
name: m%[1]d
dataset: {dir: shapes/v%[1]d}
classes: [circle, square, triangle]
train:
  with: tiny@1
  resolution: 256
  epochs: 60
  batch: {effective: 16, step: 4}
  optimizer: {name: adamw, lr: 1e-4, warmup: 3, schedule: cosine}
  earlyStopping: {patience: 8}
  seeds: [%[1]d]
  args: {channels: 16, ema: 0.99}
  machine: {terraform: train-local, limit: 2h}
variants: [fp32]
`, i)
		add(fmt.Sprintf("gates/g%d.yaml", i), `apiVersion: aob/v1
kind: Gate
name: g%d
covers: [m%[1]d]
owners: [vision-leads]
evaluate: {dataset: {dir: gold}, split: test}
classes: [circle, square]
checks:
  - {metric: mAP, min: 0.48}
  - {metric: AP, classes: all, min: 0.30, support: 50, unsure: ignore}
  - {metric: AP, classes: [circle], min: 0.40}
  - {metric: mAP, maxDrop: 0.01, against: release, confidence: 95%%, unsure: review}
  - {metric: size, max: 120MB}
`, i)
		add(fmt.Sprintf("fleets/f%d.yaml", i), `apiVersion: aob/v1
kind: Fleet
name: f%d
runs: m%[1]d
target: jetson
profiles: {orin-nano: {board: orin-nano}}
match: {site: s%[1]d}
waves: [1, 5%%, 25%%, 100%%]
soak: 30m
advance: all-healthy
`, i)
	}
	return files
}

func withoutData(files []intent.File) []intent.File {
	var bare []intent.File
	for _, f := range files {
		f.Data = nil
		bare = append(bare, f)
	}
	return bare
}

func TestCache(t *testing.T) {
	c := intent.NewCache(intent.Options{})
	files := tree(20)
	want, complaints := c.Parse(files)
	if len(complaints) > 0 || want.Models.Len() != 20 || want.Gates.Len() != 20 || want.Fleets.Len() != 20 {
		t.Fatal(complaints)
	}
	for _, f := range files {
		if !c.Has(f.Path, f.Hash) {
			t.Errorf("%s was not kept", f.Path)
		}
	}
	if c.Has(files[0].Path, files[1].Hash) || c.Has("models/other.yaml", files[0].Hash) || c.Has(files[0].Path, "") {
		t.Error("the cache says that it has what it was never given")
	}
	opaque := cmp.AllowUnexported(delivery.Model{}, delivery.Gate{})
	again, complaints := c.Parse(withoutData(files))
	if len(complaints) > 0 || !cmp.Equal(want, again, opaque) {
		t.Errorf("parsed by hash alone it is another intent: %v\n%s", complaints, cmp.Diff(want, again, opaque))
	}

	// One file goes: the files that refer to it are joined again, and complain.
	_, complaints = c.Parse(withoutData(files[1:]))
	var got []string
	for _, c := range complaints {
		got = append(got, c.String())
	}
	if len(got) != 1 || !strings.HasPrefix(got[0], `fleets/f0.yaml:4:7: runs: unknown model "m0"; did you mean m`) {
		t.Errorf("without models/m0.yaml: %q", got)
	}
}

// What is wrong by its mode or its missing content is never kept under a hash
// that may come again in order.
func TestCacheKeepsContentOnly(t *testing.T) {
	c := intent.NewCache(intent.Options{})
	right := tree(1)[:1]
	link, lost := right[0], right[0]
	link.Mode, lost.Data = fs.ModeSymlink, nil
	for _, f := range []intent.File{link, lost} {
		if _, complaints := c.Parse([]intent.File{f}); len(complaints) != 1 {
			t.Errorf("want one complaint, got %v", complaints)
		}
	}
	if _, complaints := c.Parse(right); len(complaints) > 0 {
		t.Error(complaints)
	}
	if _, complaints := c.Parse([]intent.File{link}); len(complaints) != 1 {
		t.Errorf("a symbolic link to what the cache has: want one complaint, got %v", complaints)
	}
}

func TestCacheIsSafeForManyGoroutines(t *testing.T) {
	c := intent.NewCache(intent.Options{})
	files := tree(30)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 0))
			for range 20 {
				n := 3 * (1 + r.IntN(30))
				if in, complaints := c.Parse(files[:n]); len(complaints) > 0 || in.Models.Len() != n/3 {
					t.Errorf("%d files: %v", n, complaints)
				}
			}
		})
	}
	wait.Wait()
}

// 500 models, 1,500 files: what a server reads when it starts.
func BenchmarkCold(b *testing.B) {
	files, o := tree(500), options(b)
	for b.Loop() {
		if _, complaints := intent.Parse(files, o); len(complaints) > 0 {
			b.Fatal(complaints)
		}
	}
}

// The same tree with one file changed: what a push costs.
func BenchmarkOneFileChanged(b *testing.B) {
	files := tree(500)
	c := intent.NewCache(intent.Options{})
	c.Parse(files)
	i := 0
	for b.Loop() {
		i++
		f := &files[0]
		f.Data = append(f.Data[:len(f.Data):len(f.Data)], fmt.Sprintf("# %d\n", i)...)
		f.Hash = fmt.Sprint(i)
		if _, complaints := c.Parse(files); len(complaints) > 0 {
			b.Fatal(complaints)
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	var docs []*intent.Doc
	for _, f := range tree(500) {
		docs = append(docs, intent.ParseFile(f, intent.Options{}))
	}
	for b.Loop() {
		if _, complaints := intent.Join(docs); len(complaints) > 0 {
			b.Fatal(complaints)
		}
	}
}

// Trees that differ in few files share the others: a thousand of them take little more memory than one.
func TestCachedTreesShare(t *testing.T) {
	cache := intent.NewCache(intent.Options{})
	files := map[string]string{}
	for i := range 300 {
		name := fmt.Sprint("g", i)
		files["gates/"+name+".yaml"] = "apiVersion: aob/v1\nkind: Gate\nname: " + name + "\ncovers: [m]\n" +
			"owners: [lead]\nevaluate: {dataset: {dir: shapes}, split: test}\nclasses: [circle]\nchecks:\n" +
			"  - {metric: mAP, min: 0.3}\n"
	}
	parse := func() delivery.Intent {
		var list []intent.File
		for _, path := range slices.Sorted(maps.Keys(files)) {
			list = append(list, intent.File{Path: path, Data: []byte(files[path]), Mode: 0o644,
				Size: int64(len(files[path])), Hash: delivery.Sum([]byte(files[path])).Hex()})
		}
		in, complaints := cache.Parse(list)
		if len(complaints) > 0 {
			t.Fatal(complaints[0])
		}
		return in
	}
	main := parse()
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var trees []delivery.Intent
	original := maps.Clone(files)
	for i := range 200 {
		files = maps.Clone(original)
		path := fmt.Sprintf("gates/g%d.yaml", i)
		files[path] = strings.Replace(files[path], "0.3", fmt.Sprintf("0.%d", 1000+i), 1)
		delete(files, "gates/g299.yaml")
		trees = append(trees, parse())
	}
	runtime.GC()
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	for i, tree := range trees {
		changed := main.Gates.Changed(tree.Gates, func(name string) bool {
			return main.Gates.Of(name).Digest() == tree.Gates.Of(name).Digest()
		})
		if want := []string{fmt.Sprint("g", i), "g299"}; !slices.Equal(changed, slices.Sorted(slices.Values(want))) {
			t.Fatalf("tree %d differs in %v, want %v", i, changed, want)
		}
		if !tree.Gates.Shares(main.Gates) || !tree.Files.Shares(main.Files) {
			t.Fatalf("tree %d shares nothing", i)
		}
	}
	t.Logf("200 trees take %d kB", (int64(after.HeapAlloc)-int64(before.HeapAlloc))/1024)
	runtime.KeepAlive(trees)
}
