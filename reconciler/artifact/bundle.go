package artifact

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Bundle is the input of [Store.Push].
type Bundle struct {
	ModelPath  string             // the ONNX file; it is streamed, not loaded into memory
	Signature  delivery.Signature // stored as canonical JSON
	Golden     []byte             // test tensors that every loader replays; at most MaxGolden bytes
	Labels     []string           // the classes, in the model's order
	Provenance map[string]string  // name to value, for example run and spec; no times and no scores
	Thresholds map[string]float64 // class to score from which a detection counts; nil: no thresholds
}

// Info describes a stored bundle.
type Info struct {
	Model      delivery.Digest // of model.onnx
	Size       int64           // of model.onnx, bytes
	Signature  delivery.Signature
	Labels     []string
	Thresholds map[string]float64 // nil: no thresholds
}

// Push stores a bundle durably and returns its digest. Equal content gives the same digest and is stored once.
func (s *Store) Push(ctx context.Context, b Bundle) (delivery.Digest, error) {
	digest, err := s.push(ctx, b)
	for range 2 { // its files may be removed while it is pushed, if it was removed before
		if errors.Is(err, errRemoved) {
			digest, err = s.push(ctx, b)
		}
	}
	if err != nil {
		return "", fmt.Errorf("push bundle: %w", err)
	}
	return digest, nil
}

func (s *Store) push(ctx context.Context, b Bundle) (delivery.Digest, error) {
	if err := cmp.Or(checkProvenance(b.Provenance), checkLabels(b.Labels), checkSignature(b.Signature),
		checkThresholds(b.Thresholds)); err != nil {
		return "", err
	}
	if n := len(b.Golden); n == 0 || n > MaxGolden {
		return "", fmt.Errorf("%s: want 1 to %d bytes, got %d", delivery.GoldenFile, MaxGolden, n)
	}
	model, err := openRegular(b.ModelPath)
	if err != nil {
		return "", err
	}
	defer model.Close()

	small := map[string][]byte{delivery.SignatureFile: delivery.Canonical(b.Signature),
		delivery.LabelsFile: delivery.Canonical(b.Labels), delivery.GoldenFile: b.Golden}
	if len(b.Thresholds) > 0 {
		small[delivery.ThresholdsFile] = delivery.Canonical(b.Thresholds)
	}
	m := bundleManifest{provenance: b.Provenance, files: make([]blob, len(files))}
	for i, f := range files {
		if f.name == delivery.ModelFile {
			m.files[i], err = s.put(ctx, model, blob{size: MaxBundle})
		} else if data, ok := small[f.name]; ok {
			m.files[i], err = s.putBytes(ctx, data)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return s.finish(ctx, m)
}

// finish stores the config and the manifest of a bundle whose files are stored.
func (s *Store) finish(ctx context.Context, m bundleManifest) (_ delivery.Digest, err error) {
	if m.config, err = s.putBytes(ctx, encodeConfig(m)); err != nil {
		return "", err
	}
	data := encodeBundle(m)
	// A device parses the manifest in the same way, so a bundle that it would refuse is not pushed.
	if _, err := parseBundle(data); err != nil {
		return "", err
	}
	digest, err := s.putManifest(ctx, data)
	if err == nil {
		err = s.revive(ctx, digest, m)
	}
	return digest, err
}

// WithThresholds stores a copy of a bundle with other score thresholds and returns its
// digest. The blobs of the other files are shared, not copied.
func (s *Store) WithThresholds(ctx context.Context, bundle delivery.Digest, thresholds map[string]float64) (
	delivery.Digest, error) {
	m, err := s.readBundle(bundle)
	if err == nil {
		err = checkThresholds(thresholds)
	}
	for i, f := range files {
		if err == nil && f.name == delivery.ThresholdsFile {
			if m.files[i] = (blob{}); len(thresholds) > 0 {
				m.files[i], err = s.putBytes(ctx, delivery.Canonical(thresholds))
			}
		}
	}
	if err != nil {
		return "", fmt.Errorf("bundle %s with thresholds: %w", bundle.Short(), err)
	}
	return s.finish(ctx, m)
}

// putManifest stores a manifest and adds it to the index.
func (s *Store) putManifest(ctx context.Context, data []byte) (delivery.Digest, error) {
	m, err := parseManifest(data)
	if err != nil {
		return "", err
	}
	b, err := s.putBytes(ctx, data)
	if err != nil {
		return "", err
	}
	return b.digest, s.addToIndex(ctx, describe(descriptor(ocispec.MediaTypeImageManifest, b), m))
}

// openRegular opens a file that a trainer wrote. It must be a regular file and not empty: a
// symbolic link or a pipe is an error.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s: it is a symbolic link, want a file", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: want a file, found %s", path, info.Mode().Type())
	}
	if err == nil && info.Size() == 0 {
		err = fmt.Errorf("%s: the file is empty", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkLabels(labels []string) error {
	if n := len(labels); n == 0 || n > 1000 {
		return fmt.Errorf("%s: want 1 to 1000 classes, got %d", delivery.LabelsFile, n)
	}
	listed := map[string]bool{}
	for _, l := range labels {
		if l == "" || len(l) > 256 {
			return fmt.Errorf("%s: want names of 1 to 256 bytes, got %q", delivery.LabelsFile, clip(l))
		}
		if listed[l] {
			return fmt.Errorf("%s: %q is listed twice", delivery.LabelsFile, l)
		}
		listed[l] = true
	}
	return nil
}

func checkThresholds(thresholds map[string]float64) error {
	if n := len(thresholds); n > 1000 {
		return fmt.Errorf("%s: want at most 1000 classes, got %d", delivery.ThresholdsFile, n)
	}
	for class, score := range thresholds {
		if class == "" || len(class) > 256 {
			return fmt.Errorf("%s: want names of 1 to 256 bytes, got %q", delivery.ThresholdsFile, clip(class))
		}
		if !(score >= 0 && score <= 1) {
			return fmt.Errorf("%s: %q: want a score from 0 to 1, got %v", delivery.ThresholdsFile, clip(class), score)
		}
	}
	return nil
}

func checkSignature(sig delivery.Signature) error {
	if sig.SchemaVersion < 1 || sig.SchemaVersion > delivery.SignatureVersion {
		return fmt.Errorf("%s: want schema version 1 to %d, got %d", delivery.SignatureFile, delivery.SignatureVersion,
			sig.SchemaVersion)
	}
	data, err := json.Marshal(sig) // Canonical would panic on NaN; this returns an error
	if err != nil {
		return fmt.Errorf("%s: %w", delivery.SignatureFile, err)
	}
	if len(data) > maxSmall {
		return fmt.Errorf("%s: want at most %d bytes, got %d", delivery.SignatureFile, maxSmall, len(data))
	}
	return nil
}

// readBundle reads the manifest of a bundle. The error is fs.ErrNotExist if the index does not list the bundle, or if
// the bundle was removed.
func (s *Store) readBundle(bundle delivery.Digest) (bundleManifest, error) {
	if _, err := delivery.ParseDigest(string(bundle)); err != nil {
		return bundleManifest{}, fmt.Errorf("bundle: %w", err)
	}
	ix, err := s.loadIndex()
	if err != nil {
		return bundleManifest{}, err
	}
	if _, there := ix.entry(bundle); !there {
		return bundleManifest{}, fmt.Errorf("bundle %s is not in %s: %w", bundle, s.dir, fs.ErrNotExist)
	}
	if s.isRemoved(bundle) {
		return bundleManifest{}, fmt.Errorf("bundle %s was removed from %s, because nothing needed it any more: %w",
			bundle, s.dir, fs.ErrNotExist)
	}
	data, err := s.readBlob(bundle, maxManifest)
	if err != nil {
		return bundleManifest{}, fmt.Errorf("bundle %s: %w", bundle, err)
	}
	m, err := parseBundle(data)
	if err != nil {
		return bundleManifest{}, fmt.Errorf("bundle %s: %w", bundle, err)
	}
	return m, nil
}

// Describe reads a bundle's manifest and small files. The error is fs.ErrNotExist if there is no such bundle.
func (s *Store) Describe(ctx context.Context, bundle delivery.Digest) (Info, error) {
	m, err := s.readBundle(bundle)
	if err != nil {
		return Info{}, err
	}
	info := Info{Model: m.file(delivery.ModelFile).digest, Size: m.file(delivery.ModelFile).size}
	config, err := s.readBlob(m.config.digest, maxSmall)
	if err == nil {
		err = cmp.Or(parseConfig(config, m), s.readJSON(m.file(delivery.SignatureFile), &info.Signature),
			s.readJSON(m.file(delivery.LabelsFile), &info.Labels))
	}
	if b := m.file(delivery.ThresholdsFile); err == nil && b.digest != "" {
		err = s.readJSON(b, &info.Thresholds)
	}
	if err == nil {
		err = cmp.Or(checkSignature(info.Signature), checkLabels(info.Labels), checkThresholds(info.Thresholds))
	}
	if err != nil {
		return Info{}, fmt.Errorf("bundle %s: %w", bundle, err)
	}
	return info, nil
}

func (s *Store) readJSON(b blob, v any) error {
	data, err := s.readBlob(b.digest, maxSmall)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("blob %s: %w", b.digest, err)
	}
	return nil
}

// Bundles lists the bundles, in the order in which they were pushed, without those that were removed.
func (s *Store) Bundles(ctx context.Context) ([]delivery.Digest, error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, err
	}
	removed, err := s.listRemoved()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(ix.bundlesAfter(0), func(d delivery.Digest) bool { return removed[d] }), nil
}

// BundlesSince lists the bundles after the first n, as Since does for what is attached to them.
func (s *Store) BundlesSince(ctx context.Context, generation, n int) (list []delivery.Digest, now, length int,
	err error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, 0, 0, err
	}
	if ix.generation != generation {
		n = 0
	}
	list = ix.bundlesAfter(n)
	return list, ix.generation, n + len(list), nil
}

// Unpack writes a bundle's files into dir, which must be absent or empty: model.onnx, signature.json, labels.json,
// golden.bin, thresholds.json if the bundle has thresholds, and manifest.json, which [CheckUnpacked] needs. All are
// checked against their digests. dir appears atomically and durably. The files are read-only and, if the file system
// allows it, hard links to the store's blobs: replace them, never write into them. Only one caller at a time may use
// the same dir.
func (s *Store) Unpack(ctx context.Context, bundle delivery.Digest, dir string) error {
	m, err := s.readBundle(bundle)
	if err != nil {
		return err
	}
	if err := s.unpack(ctx, m, bundle, filepath.Clean(dir)); err != nil {
		return fmt.Errorf("unpack bundle %s: %w", bundle, err)
	}
	return nil
}

func (s *Store) unpack(ctx context.Context, m bundleManifest, bundle delivery.Digest, dir string) error {
	// os.Remove would also remove a file.
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: it must not exist, or be an empty folder: %w", dir, err)
	}
	return durable.WriteFolder(dir, func(partial string) error {
		if err := s.layOut(ctx, m, partial); err != nil {
			return err
		}
		manifest, err := s.readBlob(bundle, maxManifest) // its digest is the digest of the bundle
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(partial, ManifestFile), manifest, 0o444)
	})
}

func (s *Store) layOut(ctx context.Context, m bundleManifest, dir string) error {
	for f, b := range m.each() {
		to := filepath.Join(dir, f.name)
		if err := s.verifyBlob(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if os.Link(s.blobPath(b.digest), to) == nil {
			continue
		}
		// It is another file system, or one without hard links.
		if err := s.copyBlob(ctx, b, to); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// copyBlob copies a blob to a new file and verifies it while copying.
func (s *Store) copyBlob(ctx context.Context, b blob, to string) error {
	from, err := os.Open(s.blobPath(b.digest))
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	got, err := copyAndSum(ctx, f, from, b.size)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got != b {
		return fmt.Errorf("blob %s: %w", b.digest, errDamaged)
	}
	return nil
}
