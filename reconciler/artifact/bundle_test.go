package artifact_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
)

const evidenceType = "application/vnd.aob.scores.v1+json"

// attached returns the envelopes that are attached to a bundle with an artifact type, in the order in which they were
// attached, and the errors of those that cannot be read.
func attached(t testing.TB, s *artifact.Store, subject delivery.Digest, artifactType string) ([][]byte, error) {
	t.Helper()
	list, err := s.Referrers(t.Context(), artifactType)
	if err != nil {
		return nil, err
	}
	var envelopes [][]byte
	var damaged []error
	for bundle, referrer := range list {
		if bundle != subject {
			continue
		}
		attachedTo, envelope, err := s.Attachment(t.Context(), referrer)
		if err == nil && attachedTo != subject {
			err = fmt.Errorf("referrer %s is attached to %s, not to %s", referrer, attachedTo, subject)
		}
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		envelopes = append(envelopes, envelope)
	}
	return envelopes, errors.Join(damaged...)
}

func open(t testing.TB, dir string) *artifact.Store {
	t.Helper()
	s, err := artifact.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func signature() delivery.Signature {
	return delivery.Signature{
		SchemaVersion: 1, Input: "input", Boxes: "dets", Logits: "labels", Width: 256, Height: 192,
		Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"},
		Means:  []float64{0.485, 0.456, 0.406}, Stds: []float64{0.229, 0.224, 0.225},
		Slots: []string{"pallet", "forklift", ""}, Background: 2, Select: 300,
	}
}

// bundle writes a model file and returns a bundle of it.
func bundle(t testing.TB, model string) artifact.Bundle {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trained.onnx")
	if err := os.WriteFile(path, []byte(model), 0o644); err != nil {
		t.Fatal(err)
	}
	return artifact.Bundle{
		ModelPath: path, Signature: signature(), Golden: []byte("golden tensors"), Labels: []string{"pallet",
			"forklift"},
		Provenance: map[string]string{"run": string(delivery.Sum([]byte("run"))),
			"spec": string(delivery.Sum([]byte("spec")))},
	}
}

func push(t testing.TB, s *artifact.Store, model string) delivery.Digest {
	t.Helper()
	digest, err := s.Push(t.Context(), bundle(t, model))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// files returns the content of the files in a folder by name, without the manifest of an
// unpacked bundle, with which it checks the other files.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() == artifact.ManifestFile {
			if err := artifact.CheckUnpacked(t.Context(), delivery.Sum(data), dir); err != nil {
				t.Errorf("CheckUnpacked: %v", err)
			}
			continue
		}
		found[e.Name()] = string(data)
	}
	return found
}

// unpacked returns the files of a bundle of this model.
func unpacked(model string) map[string]string {
	return map[string]string{
		"model.onnx":     model,
		"signature.json": string(delivery.Canonical(signature())),
		"labels.json":    `["pallet","forklift"]`,
		"golden.bin":     "golden tensors",
	}
}

func TestPushDescribeUnpack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	digest := push(t, s, "onnx 1")

	// Evidence and release files refer to a bundle by this digest. If it changes, all bundles
	// get new digests.
	const want = "sha256:27738218222528c6e117647fb948fb7ab71eda7ce60956cdfac743f0743bfbe2"
	if digest != want {
		t.Errorf("digest %s, want %s", digest, want)
	}
	info, err := s.Describe(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(artifact.Info{
		Model: delivery.Sum([]byte("onnx 1")), Size: 6, Signature: signature(), Labels: []string{"pallet", "forklift"},
	}, info); diff != "" {
		t.Errorf("Describe (-want +got):\n%s", diff)
	}
	if info.Signature.Digest() != signature().Digest() {
		t.Error("the signature has another digest")
	}
	slot := filepath.Join(t.TempDir(), "a")
	if err := s.Unpack(t.Context(), digest, slot); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(unpacked("onnx 1"), files(t, slot)); diff != "" {
		t.Errorf("Unpack (-want +got):\n%s", diff)
	}
	if err := s.Check(t.Context(), digest); err != nil {
		t.Errorf("Check: %v", err)
	}
	// Another process reads the same.
	if again := open(t, dir); !slices.Equal(bundles(t, again), []delivery.Digest{digest}) {
		t.Errorf("opened again: %v", bundles(t, again))
	}
}

func bundles(t testing.TB, s *artifact.Store) []delivery.Digest {
	t.Helper()
	list, err := s.Bundles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestEqualContentIsOneBundle(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first := push(t, s, "onnx 1")
	before := tree(t, dir)
	if again := push(t, s, "onnx 1"); again != first {
		t.Errorf("pushed again: %s, want %s", again, first)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("pushing again changed the folder:\n%s", diff)
	}
	if elsewhere := push(t, open(t, t.TempDir()), "onnx 1"); elsewhere != first {
		t.Errorf("pushed elsewhere: %s, want %s", elsewhere, first)
	}
	changed := bundle(t, "onnx 1")
	changed.Provenance["run"] = "another"
	if other, err := s.Push(t.Context(), changed); err != nil || other == first {
		t.Errorf("another provenance: %s, %v", other, err)
	}
	if got := len(bundles(t, s)); got != 2 {
		t.Errorf("%d bundles, want 2", got)
	}
}

// tree returns every file under dir and its content.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		found[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPushRefuses(t *testing.T) {
	dir := t.TempDir()
	link, pipe, empty := filepath.Join(dir, "link"), filepath.Join(dir, "pipe"), filepath.Join(dir, "empty")
	if err := errors.Join(os.Symlink("/etc/hostname", link), syscall.Mkfifo(pipe, 0o600), os.WriteFile(empty, nil,
		0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*artifact.Bundle)
		want   string
	}{
		{"no model", func(b *artifact.Bundle) { b.ModelPath = filepath.Join(dir, "none") }, "no such file"},
		{"a symbolic link", func(b *artifact.Bundle) { b.ModelPath = link }, "symbolic link"},
		{"a pipe", func(b *artifact.Bundle) { b.ModelPath = pipe }, "want a file"},
		{"a folder", func(b *artifact.Bundle) { b.ModelPath = dir }, "want a file"},
		{"an empty model", func(b *artifact.Bundle) { b.ModelPath = empty }, "empty"},
		{"no golden tensors", func(b *artifact.Bundle) { b.Golden = nil }, "golden.bin"},
		{"too many golden tensors", func(b *artifact.Bundle) { b.Golden = make([]byte, artifact.MaxGolden+1) },
			"golden.bin"},
		{"no classes", func(b *artifact.Bundle) { b.Labels = nil }, "labels.json"},
		{"a class without a name", func(b *artifact.Bundle) { b.Labels = []string{"a", ""} }, "labels.json"},
		{"a duplicate class", func(b *artifact.Bundle) { b.Labels = []string{"a", "a"} }, "twice"},
		{"a newer signature", func(b *artifact.Bundle) { b.Signature.SchemaVersion = 4 },
			"schema version 1 to 3, got 4"},
		{"a mean that is NaN", func(b *artifact.Bundle) { b.Signature.Means = []float64{math.NaN()} },
			"signature.json"},
		{"a huge signature", func(b *artifact.Bundle) { b.Signature.Slots = []string{strings.Repeat("x", 1<<20)} },
			"signature.json"},
		{"a wrong name in the provenance", func(b *artifact.Bundle) { b.Provenance["../x"] = "" }, "provenance"},
		{"a long provenance", func(b *artifact.Bundle) { b.Provenance["run"] = strings.Repeat("x", 2000) },
			"provenance"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			b := bundle(t, "onnx")
			c.change(&b)
			_, err := s.Push(t.Context(), b)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if got := bundles(t, s); len(got) != 0 {
				t.Errorf("the refused bundle is listed: %v", got)
			}
		})
	}
}

func TestPushStopsWithItsContext(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Push(ctx, bundle(t, "onnx")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestUnpackRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	digest := push(t, s, "onnx")
	dir := t.TempDir()
	full, file := filepath.Join(dir, "full"), filepath.Join(dir, "file")
	if err := errors.Join(os.Mkdir(full, 0o755), os.WriteFile(filepath.Join(full, "mine"), []byte("mine"), 0o644),
		os.WriteFile(file, []byte("mine"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"a folder in use": full, "a file": file} {
		if err := s.Unpack(t.Context(), digest, to); err == nil || !strings.Contains(err.Error(), to) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if got := files(t, full); got["mine"] != "mine" || len(got) != 1 {
		t.Errorf("the folder in use was changed: %v", got)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "mine" {
		t.Errorf("the file was changed: %q, %v", got, err)
	}
	for _, unknown := range []delivery.Digest{delivery.Sum([]byte("nothing")), delivery.Sum([]byte("onnx"))} {
		to := filepath.Join(dir, "new")
		if err := s.Unpack(t.Context(), unknown, to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an unknown bundle: %v, want fs.ErrNotExist", err)
		}
		if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the folder was created: %v", err)
		}
	}
	if err := s.Unpack(t.Context(), "sha256:../../etc", filepath.Join(dir, "new")); err == nil ||
		!strings.Contains(err.Error(), "want a digest") {
		t.Errorf("a path instead of a digest: %v", err)
	}
}

func TestUnpackIntoAnEmptyFolderAfterACrash(t *testing.T) {
	s := open(t, t.TempDir())
	digest := push(t, s, "onnx")
	slot := filepath.Join(t.TempDir(), "b")
	if err := errors.Join(os.Mkdir(slot, 0o755), os.Mkdir(slot+".partial", 0o755),
		os.WriteFile(filepath.Join(slot+".partial", "model.onnx"), []byte("half"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := s.Unpack(t.Context(), digest, slot+"/"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(unpacked("onnx"), files(t, slot)); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(slot + ".partial"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the partial folder still exists: %v", err)
	}
}

func TestUnpackOnAnotherFileSystem(t *testing.T) {
	there, err := os.MkdirTemp("/dev/shm", "unpack")
	if err != nil {
		t.Skip("needs /dev/shm as a second file system: ", err)
	}
	defer os.RemoveAll(there)
	dir := t.TempDir()
	s := open(t, dir)
	digest := push(t, s, "onnx")
	if os.Link(filepath.Join(dir, "oci-layout"), filepath.Join(there, "probe")) == nil {
		t.Skip("needs /dev/shm as a second file system: it is the same one as the test's")
	}
	slot := filepath.Join(there, "a")
	if err := s.Unpack(t.Context(), digest, slot); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(unpacked("onnx"), files(t, slot)); diff != "" {
		t.Error(diff)
	}
	replace(t, filepath.Join(dir, "blobs", "sha256", delivery.Sum([]byte("onnx")).Hex()), []byte("onnX"))
	if err := s.Unpack(t.Context(), digest, filepath.Join(there, "b")); err == nil ||
		!strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged blob: %v", err)
	}
}

// oras-go can read bundles, their files and their referrers.
func TestTheFolderIsAnOCILayout(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	digest := push(t, s, "onnx 1")
	attached, err := s.Attach(t.Context(), digest, evidenceType, []byte(`{"signed":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Fold(t.Context()); err != nil {
		t.Fatal(err)
	}
	layout, err := oci.NewFromFS(t.Context(), os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	desc, err := layout.Resolve(t.Context(), string(digest))
	if err != nil {
		t.Fatal(err)
	}
	data, err := content.FetchAll(t.Context(), layout, desc)
	if err != nil {
		t.Fatal(err)
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.ArtifactType != "application/vnd.cncf.model.manifest.v1+json" ||
		manifest.Config.MediaType != "application/vnd.cncf.model.config.v1+json" {
		t.Errorf("not a ModelPack artifact: %s, %s", manifest.ArtifactType, manifest.Config.MediaType)
	}
	got := map[string]string{}
	for _, layer := range manifest.Layers {
		data, err := content.FetchAll(t.Context(), layout, layer)
		if err != nil {
			t.Fatal(err)
		}
		got[layer.Annotations["org.cncf.model.filepath"]] = string(data)
	}
	if diff := cmp.Diff(unpacked("onnx 1"), got); diff != "" {
		t.Error(diff)
	}
	referrers, err := layout.Predecessors(t.Context(), desc)
	if err != nil || len(referrers) != 1 || referrers[0].Digest != godigest.Digest(attached) {
		t.Errorf("oras-go returns the referrers %v, %v", referrers, err)
	}
	config, err := content.FetchAll(t.Context(), layout, manifest.Config)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"config":{"format":"onnx"},"descriptor":{"createdAt":"1970-01-01T00:00:00Z"},"modelfs":{"diffIds":[`
	if !bytes.HasPrefix(config, []byte(want)) {
		t.Errorf("config %s", config)
	}
}

func TestAttach(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	one, two := push(t, s, "onnx 1"), push(t, s, "onnx 2")
	first, err := s.Attach(t.Context(), one, evidenceType, []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Attach(t.Context(), one, evidenceType, []byte("second")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Attach(t.Context(), one, "application/vnd.aob.abort.v1+json", []byte("first")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Attach(t.Context(), two, evidenceType, []byte("first")); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	if again, err := s.Attach(t.Context(), one, evidenceType, []byte("first")); err != nil || again != first {
		t.Errorf("attached again: %s, %v; want %s", again, err, first)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Errorf("attaching again changed the folder:\n%s", diff)
	}
	for _, s := range []*artifact.Store{s, open(t, dir)} {
		got, err := attached(t, s, one, evidenceType)
		if err != nil || len(got) != 2 || string(got[0]) != "first" || string(got[1]) != "second" {
			t.Errorf("attached to one: %q, %v", got, err)
		}
		if got, err := attached(t, s, two, evidenceType); err != nil || len(got) != 1 {
			t.Errorf("attached to two: %q, %v", got, err)
		}
		if got, err := attached(t, s, two, "application/vnd.aob.none"); err != nil || len(got) != 0 {
			t.Errorf("attached under no type: %q, %v", got, err)
		}
		if got := bundles(t, s); !slices.Equal(got, []delivery.Digest{one, two}) {
			t.Errorf("bundles %v", got)
		}
	}
}

func TestAttachRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	digest := push(t, s, "onnx")
	referrer, err := s.Attach(t.Context(), digest, evidenceType, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		subject      delivery.Digest
		artifactType string
		envelope     []byte
		want         string
	}{
		{"no such bundle", delivery.Sum([]byte("none")), evidenceType, []byte("x"), "no such bundle"},
		{"a referrer instead of a bundle", referrer, evidenceType, []byte("x"), "no such bundle"},
		{"not a type", digest, "scores", []byte("x"), "want an artifact type"},
		{"empty", digest, evidenceType, nil, "want an envelope"},
		{"large", digest, evidenceType, make([]byte, 4<<20+1), "want an envelope"},
	} {
		if _, err := s.Attach(t.Context(), c.subject, c.artifactType, c.envelope); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	if _, err := s.Attach(t.Context(), delivery.Sum([]byte("none")), evidenceType, []byte("x")); !errors.Is(err,
		fs.ErrNotExist) {
		t.Errorf("no such bundle: %v, want fs.ErrNotExist", err)
	}
}

// Adding thresholds makes another bundle with the same model. The digest of a bundle
// without thresholds is the same as before thresholds were introduced.
func TestThresholds(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store"))
	plain := push(t, s, "model")
	if want := delivery.Digest(
		"sha256:ad6dca5144c735638412676c93e54c419abeee0ac0d230adfa75a6861803b631"); plain != want {
		t.Errorf("%s, want %s", plain, want)
	}
	scores := map[string]float64{"pallet": 0.4, "forklift": 0.25}
	with, err := s.WithThresholds(t.Context(), plain, scores)
	if err != nil {
		t.Fatal(err)
	}
	b := bundle(t, "model")
	b.Thresholds = scores
	if pushed, err := s.Push(t.Context(), b); err != nil || pushed != with || with == plain {
		t.Errorf("pushed with thresholds %s, %v; added to %s: %s", pushed, err, plain, with)
	}
	a, err := s.Describe(t.Context(), plain)
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Describe(t.Context(), with)
	if err != nil || info.Model != a.Model || !cmp.Equal(info.Signature, a.Signature) ||
		!cmp.Equal(info.Thresholds, scores) || a.Thresholds != nil {
		t.Errorf("%v: %+v, and without: %+v", err, info, a)
	}
	if back, err := s.WithThresholds(t.Context(), with, nil); err != nil || back != plain {
		t.Errorf("thresholds removed: %s, %v", back, err)
	}
	// A device gets the file with Pull and with Unpack.
	device := open(t, filepath.Join(dir, "device"))
	if _, err := device.Pull(t.Context(), artifact.Source{URL: "file://" + filepath.Join(dir, "store")}, with,
		filepath.Join(dir, "pulled")); err != nil {
		t.Fatal(err)
	}
	if err := s.Unpack(t.Context(), with, filepath.Join(dir, "unpacked")); err != nil {
		t.Fatal(err)
	}
	want := `{"forklift":0.25,"pallet":0.4}`
	for _, at := range []string{"pulled", "unpacked"} {
		if got := files(t, filepath.Join(dir, at))[delivery.ThresholdsFile]; strings.TrimSpace(got) != want {
			t.Errorf("%s: %q", at, got)
		}
	}
	for _, wrong := range []map[string]float64{{"": .5}, {"pallet": 1.5}, {"pallet": math.NaN()},
		{strings.Repeat("x", 300): .5}} {
		if _, err := s.WithThresholds(t.Context(), plain, wrong); err == nil {
			t.Errorf("%v is accepted", wrong)
		}
	}
}
