package evidence_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/trust"
)

// cacheOf makes a store of forty statements about one bundle, and the cache of a first server that reads it.
func cacheOf(t *testing.T, dir string, k *trust.Key) (cache string) {
	t.Helper()
	blobs, b := bundlesIn(t, dir, 1)
	writer := evidence.New(blobs, k, nil)
	for i := range 40 {
		if err := sign(writer, t.Context(), acceptanceOf(b[0], i)); err != nil {
			t.Fatal(err)
		}
	}
	return fill(t, blobs, k, nil)
}

func fill(t *testing.T, blobs evidence.Bundles, k *trust.Key, trusted []trust.PublicKey) (cache string) {
	t.Helper()
	cache = filepath.Join(t.TempDir(), "verified")
	first := evidence.New(blobs, k, trusted)
	first.Cache = cache
	load(t, first)
	first.Flush()
	if entries, err := os.ReadDir(cache); err != nil || len(entries) != 2 {
		t.Fatalf("the cache has %v, %v; want an index and a chunk", entries, err)
	}
	return cache
}

// after loads the evidence as the next server does, and counts the statements that it reads from the bundles.
func after(t *testing.T, dir, cache string, k *trust.Key, trusted []trust.PublicKey) (*evidence.Snapshot, int,
	*evidence.Store) {
	t.Helper()
	blobs, err := artifact.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	counted := &counting{Store: blobs}
	s := evidence.New(counted, k, trusted)
	s.Cache = cache
	return load(t, s), counted.reads, s
}

func TestRestartVerifiesNothingAgain(t *testing.T) {
	dir, k := t.TempDir(), key(t)
	cache := cacheOf(t, dir, k)
	cold, reads, _ := after(t, dir, "", k, nil)
	if reads != 40 {
		t.Errorf("without the cache: %d reads", reads)
	}
	warm, reads, _ := after(t, dir, cache, k, nil)
	if diff := cmp.Diff(cold, warm); diff != "" || reads != 0 {
		t.Errorf("%d reads, (-cold +warm):\n%s", reads, diff)
	}
}

// Who can write to the cache's folder cannot make a statement count, nor change one.
func TestCacheIsNotTrusted(t *testing.T) {
	old, evil := key(t), key(t)
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir, cache string)
		key     *trust.Key
		trusted []trust.PublicKey
		reads   int
		valid   int
	}{
		"as it is": {func(*testing.T, string, string) {}, old, nil, 0, 40},
		"another chunk": {func(t *testing.T, _, cache string) {
			edit(t, cache, "chunk-", func(data string) string { return data[:len(data)-1] + "x" })
		}, old, nil, 40, 40},
		"no chunk": {func(t *testing.T, _, cache string) {
			edit(t, cache, "chunk-", func(string) string { return "" })
		}, old, nil, 40, 40},
		"an edited index": {func(t *testing.T, _, cache string) {
			edit(t, cache, "index", func(data string) string {
				edited := strings.Replace(data, `"payload":"ey`, `"payload":"ez`, 1)
				if edited == data {
					t.Fatalf("the index is %s", data)
				}
				return edited
			})
		}, old, nil, 40, 40},
		"no index": {func(t *testing.T, _, cache string) {
			edit(t, cache, "index", func(string) string { return "" })
		}, old, nil, 40, 40},
		"a cache of a server that trusts another key": {func(t *testing.T, dir, cache string) {
			blobs, err := artifact.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			theirs := fill(t, blobs, evil, public(old))
			if err := errors.Join(os.RemoveAll(cache), os.Rename(theirs, cache)); err != nil {
				t.Fatal(err)
			}
		}, old, nil, 40, 40},
		"the key of the statements is not trusted any more": {func(*testing.T, string, string) {},
			evil, nil, 40, 0},
		"the key was replaced, and is still trusted": {func(*testing.T, string, string) {},
			evil, public(old), 0, 40},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cache := cacheOf(t, dir, old)
			c.prepare(t, dir, cache)
			got, reads, _ := after(t, dir, cache, c.key, c.trusted)
			if n := len(got.AcceptancesOf["pallets"]); n != c.valid || reads != c.reads {
				t.Errorf("%d statements count, %d were read; want %d and %d", n, reads, c.valid, c.reads)
			}
			if len(got.Skipped) != 40-c.valid {
				t.Errorf("%d are skipped", len(got.Skipped))
			}
		})
	}
}

// A statement of a key that is not trusted any more does not count, although an index of a trusted key names it.
func TestCacheOfAKeyThatIsNotTrustedAnyMore(t *testing.T) {
	dir, old, now := t.TempDir(), key(t), key(t)
	cacheOf(t, dir, old)
	blobs, err := artifact.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	cache := fill(t, blobs, now, public(old))
	if got, _, _ := after(t, dir, cache, now, public(old)); len(got.AcceptancesOf["pallets"]) != 40 {
		t.Fatalf("the cache has %d", len(got.AcceptancesOf["pallets"]))
	}
	if got, _, _ := after(t, dir, cache, now, nil); len(got.AcceptancesOf) != 0 || len(got.Skipped) != 40 {
		t.Errorf("%d models are accepted, %d statements skipped", len(got.AcceptancesOf), len(got.Skipped))
	}
}

// A statement whose file is gone is named at once, one whose file is damaged when it is looked at.
func TestLostFilesOfTheCacheAreNamed(t *testing.T) {
	dir, k := t.TempDir(), key(t)
	cache := cacheOf(t, dir, k)
	var files []string
	for path, data := range tree(t, dir) {
		if strings.Contains(data, "payloadType") {
			files = append(files, filepath.Join(dir, path))
		}
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	got, reads, _ := after(t, dir, cache, k, nil)
	if len(got.Unread) != 1 || len(got.AcceptancesOf["pallets"]) != 39 || reads != 1 {
		t.Errorf("gone: %d unread, %d count, %d reads", len(got.Unread), len(got.AcceptancesOf["pallets"]), reads)
	}
	replace(t, files[0], string(good[1:]))
	got, _, s := after(t, dir, cache, k, nil)
	if len(got.Unread) != 0 || len(got.AcceptancesOf["pallets"]) != 40 {
		t.Errorf("damaged: %d unread, %d count", len(got.Unread), len(got.AcceptancesOf["pallets"]))
	}
	found := make(chan struct{}, 1)
	go s.Recheck(t.Context(), func() { found <- struct{}{} })
	<-found
	got = load(t, s)
	if len(got.Unread) != 1 || len(got.AcceptancesOf["pallets"]) != 39 {
		t.Errorf("damaged, found: %d unread, %d count", len(got.Unread), len(got.AcceptancesOf["pallets"]))
	}
	replace(t, files[0], string(good))
	if got = load(t, s); len(got.Unread) != 0 || len(got.AcceptancesOf["pallets"]) != 40 {
		t.Errorf("repaired: %d unread, %d count", len(got.Unread), len(got.AcceptancesOf["pallets"]))
	}
}

func edit(t *testing.T, dir, prefix string, change func(string) string) {
	t.Helper()
	for path, data := range tree(t, dir) {
		if strings.HasPrefix(path, prefix) {
			replace(t, filepath.Join(dir, path), change(data))
		}
	}
}

// Snapshots that grow by a few statements at a time are what is read at once, and those before stay as they were.
func TestSnapshotsGrow(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	blobs, b := bundlesIn(t, t.TempDir(), 3)
	k := key(t)
	writer, reader := evidence.New(blobs, k, nil), evidence.New(blobs, nil, public(k))
	type past struct {
		is    *evidence.Snapshot
		count [3]int
	}
	count := func(s *evidence.Snapshot) [3]int {
		return [3]int{len(s.Trainings), len(s.Releases), len(s.AcceptancesOf["pallets"])}
	}
	var all []past
	for range 25 {
		before := load(t, reader)
		all = append(all, past{before, count(before)})
		for range random.IntN(4) {
			of, n := b[random.IntN(len(b))], random.IntN(20)
			var err error
			switch random.IntN(6) {
			case 0:
				err = sign(writer, t.Context(), training(of, fmt.Sprint(n)))
			case 1:
				err = sign(writer, t.Context(), acceptanceOf(of, n))
			case 2:
				err = sign(writer, t.Context(), releaseOf(of, n))
			case 3:
				err = writer.Sign(t.Context(), of, delivery.VerdictType, verdictOf(fmt.Sprint(n)))
			case 4:
				err = writer.Sign(t.Context(), of, delivery.ThresholdsType, resolvedOf(of, fmt.Sprint(n)))
			case 5:
				err = blobs.Fold(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		now := load(t, reader)
		if (now == before) != (now.Version == before.Version) {
			t.Errorf("version %d after %d", now.Version, before.Version)
		}
		added, ok := reader.Added(before, now)
		grew := 0
		for i, n := range count(now) {
			grew += n - count(before)[i]
		}
		if !ok || len(added) < grew {
			t.Errorf("%d added, %v; want at least %d", len(added), ok, grew)
		}
		fresh := load(t, evidence.New(blobs, nil, public(k)))
		if diff := cmp.Diff(fresh, now, ignored); diff != "" {
			t.Fatalf("(-at once +grown):\n%s", diff)
		}
		if diff := cmp.Diff(fresh.Releases, now.Releases); diff != "" {
			t.Fatalf("releases (-at once +grown):\n%s", diff)
		}
	}
	for _, p := range all {
		if count(p.is) != p.count {
			t.Errorf("version %d has changed: %v, was %v", p.is.Version, count(p.is), p.count)
		}
	}
}
