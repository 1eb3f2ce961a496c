package artifact_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// layout makes a store with two bundles, and two referrers of the first one.
func layout(t *testing.T) (dir string, one, two delivery.Digest) {
	t.Helper()
	dir = t.TempDir()
	s := open(t, dir)
	one, two = push(t, s, "onnx 1"), push(t, s, "onnx 2")
	for _, text := range []string{"first", "second"} {
		if _, err := s.Attach(t.Context(), one, evidenceType, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, one, two
}

// The test flips one bit at a time in every file of a layout. Every read must then return
// the original content or an error, and nothing may be missing without an error.
func TestFlippedBitsAreDetected(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	dir, one, two := layout(t)
	random := rand.New(rand.NewPCG(1, 2))
	all := tree(t, dir)
	restore := func() { // the index and its log, which Open changes
		for _, name := range []string{"index.json", "index.log"} {
			replace(t, filepath.Join(dir, name), []byte(all[name]))
		}
	}
	for name, good := range all {
		path := filepath.Join(dir, name)
		step, unpack := 1, false
		if strings.HasPrefix(name, "blobs") {
			step, unpack = 16, true // a digest covers all bytes equally, so some are enough
		}
		for i := 0; i < len(good); i += step {
			bad := []byte(good)
			bad[i] ^= 1 << random.IntN(8)
			if !unpack {
				restore()
			}
			replace(t, path, bad)
			if problem := readAll(t, dir, one, two, unpack); problem != "" {
				t.Fatalf("%s, byte %d, %q for %q: %s", name, i, bad[i], good[i], problem)
			}
		}
		replace(t, path, []byte(good))
	}
	if err := open(t, dir).Fold(t.Context()); err != nil {
		t.Fatal(err)
	}
	path, good := filepath.Join(dir, "index.json"), tree(t, dir)["index.json"]
	for i := range good {
		bad := []byte(good)
		bad[i] ^= 1 << random.IntN(8)
		replace(t, path, bad)
		if problem := readAll(t, dir, one, two, false); problem != "" {
			t.Fatalf("index.json, byte %d, %q for %q: %s", i, bad[i], good[i], problem)
		}
	}
	replace(t, path, []byte(good))
	s := open(t, dir)
	if err := s.Unpack(t.Context(), one, filepath.Join(t.TempDir(), "a")); err != nil {
		t.Errorf("after restoring all files: %v", err)
	}
}

// replace replaces a file, which may be read-only.
func replace(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// readAll reads everything, and describes the first result without an error that differs
// from what layout wrote.
func readAll(t *testing.T, dir string, one, two delivery.Digest, unpack bool) string {
	s, err := artifact.Open(dir)
	if err != nil {
		return ""
	}
	if got, err := s.Bundles(t.Context()); err == nil && !slices.Equal(got, []delivery.Digest{one, two}) {
		return "Bundles: " + cmp.Diff([]delivery.Digest{one, two}, got)
	}
	for model, digest := range map[string]delivery.Digest{"onnx 1": one, "onnx 2": two} {
		info, err := s.Describe(t.Context(), digest)
		if err == nil && (info.Model != delivery.Sum([]byte(model)) ||
			info.Signature.Digest() != signature().Digest() || len(info.Labels) != 2) {
			return "Describe: other content"
		}
		if !unpack {
			continue
		}
		to := filepath.Join(t.TempDir(), "slot")
		if err := s.Unpack(t.Context(), digest, to); err == nil {
			if diff := cmp.Diff(unpacked(model), files(t, to)); diff != "" {
				return "Unpack: " + diff
			}
		} else if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
			return "Unpack: an error and a folder"
		}
	}
	got, err := attached(t, s, one, evidenceType)
	if err == nil && (len(got) != 2 || string(got[0]) != "first" || string(got[1]) != "second") {
		return "Attached: other content"
	}
	for _, g := range got {
		if string(g) != "first" && string(g) != "second" {
			return "Attached: other content and an error"
		}
	}
	return ""
}

func TestPushRepairsADamagedBlob(t *testing.T) {
	dir, one, _ := layout(t)
	blob := filepath.Join(dir, "blobs", "sha256", delivery.Sum([]byte("onnx 1")).Hex())
	replace(t, blob, []byte("onnx X"))
	s := open(t, dir)
	if err := s.Unpack(t.Context(), one, filepath.Join(t.TempDir(), "a")); err == nil ||
		!strings.Contains(err.Error(), "damaged") {
		t.Fatalf("unpacked a damaged model: %v", err)
	}
	push(t, s, "onnx 1")
	if err := s.Unpack(t.Context(), one, filepath.Join(t.TempDir(), "a")); err != nil {
		t.Errorf("pushed again: %v", err)
	}
}

func TestAMissingIndexIsRebuilt(t *testing.T) {
	dir, one, two := layout(t)
	if err := os.Remove(filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	// The model is JSON that resembles a manifest.
	b := bundle(t, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}`)
	s := open(t, dir)
	third, err := s.Push(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "index.json")); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	got := bundles(t, s)
	slices.Sort(got)
	want := []delivery.Digest{one, two, third}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("rebuilt with %v, want %v", got, want)
	}
	if got, err := attached(t, s, one, evidenceType); err != nil || len(got) != 2 {
		t.Errorf("rebuilt with the referrers %q, %v", got, err)
	}
}

func TestDamagedIndexHasAHint(t *testing.T) {
	dir, one, _ := layout(t)
	path := filepath.Join(dir, "index.json")
	for name, text := range map[string]string{
		"cut off":          tree(t, dir)["index.json"][:100],
		"empty":            "",
		"another document": `{"schemaVersion":1}`,
		"more than one":    tree(t, dir)["index.json"] + "{}",
	} {
		replace(t, path, []byte(text))
		if _, err := artifact.Open(dir); err == nil || !strings.Contains(err.Error(), "remove that file") ||
			!strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir).Check(t.Context(), one); err != nil {
		t.Errorf("after following the hint: %v", err)
	}
}

// Another OCI tool may add tags, and formats index.json differently.
func TestAnotherToolMayChangeTheFolder(t *testing.T) {
	dir, one, two := layout(t)
	s := open(t, dir)
	tool, err := oci.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := tool.Resolve(t.Context(), string(one))
	if err != nil {
		t.Fatal(err)
	}
	if err := tool.Tag(t.Context(), desc, "production"); err != nil {
		t.Fatal(err)
	}
	data := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	image := content.NewDescriptorFromBytes(ocispec.MediaTypeImageIndex, data)
	if err := tool.Push(t.Context(), image, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*artifact.Store{s, open(t, dir)} {
		got := bundles(t, s)
		slices.Sort(got)
		want := []delivery.Digest{one, two}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("after another tool: %v, want %v", got, want)
		}
		if got, err := attached(t, s, one, evidenceType); err != nil || len(got) != 2 {
			t.Errorf("after another tool: referrers %q, %v", got, err)
		}
	}
	third := push(t, s, "onnx 3")
	if got := bundles(t, open(t, dir)); len(got) != 3 || !slices.Contains(got, third) {
		t.Errorf("pushed after another tool: %v", got)
	}
	if tool, err = oci.New(dir); err != nil {
		t.Fatal(err)
	}
	if tagged, err := tool.Resolve(t.Context(), "production"); err != nil || tagged.Digest != desc.Digest {
		t.Errorf("the tag is lost: %v, %v", tagged.Digest, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, text := range map[string]string{"another version": `{"imageLayoutVersion":"2.0.0"}`, "not JSON": "x"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := artifact.Open(dir); err == nil || !strings.Contains(err.Error(), "oci-layout") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A store that cannot be opened is opened by a later use. Its index may be removed while the store is in use.
func TestStoreIsOpenedLater(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	bundle := push(t, s, "onnx 1")
	path := filepath.Join(dir, "index.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"damaged":  func() error { return os.WriteFile(path, good[:len(good)/2], 0o600) },
		"a folder": func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		late, err := artifact.At(dir)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := late.Bundles(t.Context()); err == nil || !strings.Contains(err.Error(), "remove that file") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		for range 2 { // the second time while the store is in use
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if list, err := late.Bundles(t.Context()); err != nil || len(list) != 1 || list[0] != bundle {
				t.Errorf("%s: after removing the index: %v, %v", name, list, err)
			}
		}
	}
	// If the blobs are gone too, nothing is created: the disk may not be mounted.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Bundles(t.Context()); err == nil {
		t.Error("no error for a removed store")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a removed store was created again")
	}
}

// If a stopped writer holds the lock, the first call waits for LockWait and later calls do not wait.
func TestLockWaitIsLimited(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	bundle := push(t, s, "onnx 1")
	lock, err := durable.TryLock(filepath.Join(dir, ".lock"))
	if err != nil {
		t.Fatal(err)
	}
	s.LockWait = 10 * time.Millisecond
	for range 100 { // 100 waits would take a second
		if _, err := s.Attach(t.Context(), bundle, evidenceType, []byte("more")); !errors.Is(err, artifact.ErrBusy) {
			t.Fatalf("got %v", err)
		}
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Attach(t.Context(), bundle, evidenceType, []byte("more")); err != nil {
		t.Error(err)
	}
}
