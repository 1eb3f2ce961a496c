package artifact

import (
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

// A Bundle is what [Store.Push] packs.
type Bundle struct {
	ModelPath  string             // the ONNX file; read once, never held in memory
	Signature  delivery.Signature // stored as canonical JSON
	Golden     []byte             // tensors that every loader replays; at most MaxGolden bytes
	Labels     []string           // the classes, in the model's order
	Provenance map[string]string  // by name, as run and spec: the keys that it was made under; no time, no score
	Thresholds map[string]float64 // by class, the score from which a detection counts; nil for none
}

// Info is what a stored bundle says of itself.
type Info struct {
	Digest     delivery.Digest
	Model      delivery.Digest // of model.onnx
	Size       int64           // of model.onnx, bytes
	Signature  delivery.Signature
	Labels     []string
	Golden     delivery.Digest
	Provenance map[string]string
	Thresholds map[string]float64 // nil for none
}

// Push packs a bundle and stores it, durably. Equal content gives an equal
// digest, and is stored once.
func (s *Store) Push(ctx context.Context, b Bundle) (delivery.Digest, error) {
	digest, err := s.push(ctx, b)
	if err != nil {
		return "", fmt.Errorf("push bundle: %w", err)
	}
	return digest, nil
}

func (s *Store) push(ctx context.Context, b Bundle) (delivery.Digest, error) {
	if err := checkProvenance(b.Provenance); err != nil {
		return "", err
	}
	if err := checkLabels(b.Labels); err != nil {
		return "", err
	}
	if err := checkSignature(b.Signature); err != nil {
		return "", err
	}
	if err := checkThresholds(b.Thresholds); err != nil {
		return "", err
	}
	if n := len(b.Golden); n == 0 || n > MaxGolden {
		return "", fmt.Errorf("%s: want 1 to %d bytes, got %d", GoldenFile, MaxGolden, n)
	}
	model, err := openRegular(b.ModelPath)
	if err != nil {
		return "", err
	}
	defer model.Close()

	m := bundleManifest{provenance: b.Provenance, files: make([]blob, len(files))}
	for i, f := range files {
		switch f.name {
		case ModelFile:
			m.files[i], err = s.put(ctx, model, blob{size: MaxBundle})
		case SignatureFile:
			m.files[i], err = s.putBytes(ctx, delivery.Canonical(b.Signature))
		case LabelsFile:
			m.files[i], err = s.putBytes(ctx, delivery.Canonical(b.Labels))
		case GoldenFile:
			m.files[i], err = s.putBytes(ctx, b.Golden)
		case ThresholdsFile:
			if len(b.Thresholds) > 0 {
				m.files[i], err = s.putBytes(ctx, delivery.Canonical(b.Thresholds))
			}
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return s.finish(ctx, m)
}

// finish stores the config and the manifest of a bundle whose files are there.
func (s *Store) finish(ctx context.Context, m bundleManifest) (_ delivery.Digest, err error) {
	if m.config, err = s.putBytes(ctx, encodeConfig(m)); err != nil {
		return "", err
	}
	data := encodeBundle(m)
	// Read as a device will: what cannot be unpacked is not pushed.
	if _, err := parseBundle(data); err != nil {
		return "", err
	}
	return s.putManifest(ctx, data)
}

// WithThresholds stores a bundle once more with other score thresholds: the same
// model, whose bytes are not copied.
func (s *Store) WithThresholds(ctx context.Context, bundle delivery.Digest, thresholds map[string]float64) (
	delivery.Digest, error) {
	m, err := s.readBundle(bundle)
	if err == nil {
		err = checkThresholds(thresholds)
	}
	for i, f := range files {
		if err == nil && f.name == ThresholdsFile {
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

// putManifest stores a manifest and names it in the index.
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

// openRegular opens a file that a trainer wrote: a link or a pipe is refused.
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
		return fmt.Errorf("%s: want 1 to 1000 classes, got %d", LabelsFile, n)
	}
	seen := map[string]bool{}
	for _, l := range labels {
		if l == "" || len(l) > 256 {
			return fmt.Errorf("%s: want names of 1 to 256 bytes, got %q", LabelsFile, clip(l))
		}
		if seen[l] {
			return fmt.Errorf("%s: %q stands twice", LabelsFile, l)
		}
		seen[l] = true
	}
	return nil
}

func checkThresholds(thresholds map[string]float64) error {
	if n := len(thresholds); n > 1000 {
		return fmt.Errorf("%s: want at most 1000 classes, got %d", ThresholdsFile, n)
	}
	for class, score := range thresholds {
		if class == "" || len(class) > 256 {
			return fmt.Errorf("%s: want names of 1 to 256 bytes, got %q", ThresholdsFile, clip(class))
		}
		if !(score >= 0 && score <= 1) {
			return fmt.Errorf("%s: %q: want a score, 0 to 1, got %v", ThresholdsFile, clip(class), score)
		}
	}
	return nil
}

func checkSignature(sig delivery.Signature) error {
	if sig.SchemaVersion != delivery.SignatureVersion {
		return fmt.Errorf("%s: this version knows schema version %d, got %d", SignatureFile, delivery.SignatureVersion,
			sig.SchemaVersion)
	}
	data, err := json.Marshal(sig) // a mean that is no number must not reach Canonical, which panics
	if err != nil {
		return fmt.Errorf("%s: %w", SignatureFile, err)
	}
	if len(data) > maxSmall {
		return fmt.Errorf("%s: want at most %d bytes, got %d", SignatureFile, maxSmall, len(data))
	}
	return nil
}

// Has reports whether the bundle is here with all its files, by their lengths.
// Unpack checks their content. An error means that it is damaged.
func (s *Store) Has(ctx context.Context, bundle delivery.Digest) (bool, error) {
	m, err := s.readBundle(bundle)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, b := range m.blobs() {
		if there, err := s.hasBlob(b); err != nil || !there {
			return false, err
		}
	}
	return true, nil
}

// readBundle reads the manifest of a bundle that the index names. The error is
// fs.ErrNotExist where there is no such bundle.
func (s *Store) readBundle(bundle delivery.Digest) (bundleManifest, error) {
	if _, err := delivery.ParseDigest(string(bundle)); err != nil {
		return bundleManifest{}, fmt.Errorf("bundle: %w", err)
	}
	ix, err := s.loadIndex()
	if err != nil {
		return bundleManifest{}, err
	}
	if _, there := ix.at[bundle]; !there {
		return bundleManifest{}, fmt.Errorf("bundle %s is not in %s: %w", bundle, s.dir, fs.ErrNotExist)
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

// Describe reads what a bundle says of itself. The error is fs.ErrNotExist where
// there is no such bundle.
func (s *Store) Describe(ctx context.Context, bundle delivery.Digest) (Info, error) {
	m, err := s.readBundle(bundle)
	if err != nil {
		return Info{}, err
	}
	info := Info{
		Digest:     bundle,
		Model:      m.file(ModelFile).digest,
		Size:       m.file(ModelFile).size,
		Golden:     m.file(GoldenFile).digest,
		Provenance: m.provenance,
	}
	config, err := s.readBlob(m.config.digest, maxSmall)
	if err == nil {
		err = parseConfig(config, m)
	}
	if err == nil {
		err = s.readJSON(m.file(SignatureFile), &info.Signature)
	}
	if err == nil {
		err = checkSignature(info.Signature)
	}
	if err == nil {
		err = s.readJSON(m.file(LabelsFile), &info.Labels)
	}
	if err == nil {
		err = checkLabels(info.Labels)
	}
	if b := m.file(ThresholdsFile); err == nil && b.digest != "" {
		if err = s.readJSON(b, &info.Thresholds); err == nil {
			err = checkThresholds(info.Thresholds)
		}
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

// Bundles lists the bundles, in the order in which they were pushed.
func (s *Store) Bundles(ctx context.Context) ([]delivery.Digest, error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, err
	}
	return slices.Clone(ix.bundles), nil
}

// Unpack lays a bundle's files into dir, which must not be there or be empty:
// model.onnx, signature.json, labels.json, golden.bin and, where the bundle has
// some, thresholds.json, each checked against its digest, and manifest.json, by
// which [CheckUnpacked] checks them again. All of dir appears at once, durably, or nothing of it. The files
// are read-only and, where the file system can, share their bytes with the
// store: replace them, never write into them. One caller at a time for one dir.
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
	// Not os.Remove, which would take a file in the way for one of ours.
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: want no such folder yet, or an empty one: %w", dir, err)
	}
	partial := dir + ".partial" // one name, so that the next try removes what a crash left
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if err := os.Mkdir(partial, 0o700); err != nil {
		return err
	}
	err := s.layOut(ctx, m, partial)
	if err == nil {
		err = s.layOutManifest(bundle, partial)
	}
	if err == nil {
		err = durable.SyncTree(partial)
	}
	if err == nil {
		err = durable.Rename(partial, dir)
	}
	if err != nil {
		os.RemoveAll(partial)
	}
	return err
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
		// Another file system, or one without links.
		if err := s.copyBlob(ctx, b, to); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// layOutManifest writes the manifest, whose digest is the bundle's.
func (s *Store) layOutManifest(bundle delivery.Digest, dir string) error {
	data, err := s.readBlob(bundle, maxManifest)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ManifestFile), data, 0o444)
}

// copyBlob copies a blob, verified on the way.
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
