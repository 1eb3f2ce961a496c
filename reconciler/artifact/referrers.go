package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// Attach attaches a signed envelope to a bundle, durably, and returns the digest of the
// referrer. Attaching the same envelope with the same type again does nothing. The error
// is fs.ErrNotExist if there is no such bundle. The envelope is not parsed or verified.
func (s *Store) Attach(ctx context.Context, subject delivery.Digest, artifactType string, envelope []byte) (
	delivery.Digest, error) {
	digest, err := s.attach(ctx, subject, artifactType, envelope)
	if err != nil {
		return "", fmt.Errorf("attach %s to %s: %w", clip(artifactType), subject, err)
	}
	return digest, nil
}

func (s *Store) attach(ctx context.Context, subject delivery.Digest, artifactType string, envelope []byte) (
	delivery.Digest, error) {
	if err := checkArtifactType(artifactType); err != nil {
		return "", err
	}
	if n := len(envelope); n == 0 || n > trust.MaxEnvelope {
		return "", fmt.Errorf("want an envelope of 1 to %d bytes, got %d", trust.MaxEnvelope, n)
	}
	ix, err := s.loadIndex()
	if err != nil {
		return "", err
	}
	of, there := ix.entry(subject)
	if !there || of.artifactType != BundleType {
		return "", fmt.Errorf("no such bundle in %s: %w", s.dir, fs.ErrNotExist)
	}
	if _, err := s.putBytes(ctx, ocispec.DescriptorEmptyJSON.Data); err != nil {
		return "", err
	}
	stored, err := s.putBytes(ctx, envelope)
	if err != nil {
		return "", err
	}
	bundle := descriptor(ocispec.MediaTypeImageManifest, blob{subject, of.size})
	return s.putManifest(ctx, encodeReferrer(referrer{subject, artifactType, stored}, bundle))
}

// Referrers lists the referrers with an artifact type as pairs of bundle and referrer, in the order in which they were
// attached. It uses the index and reads no blob. The bundle that Attachment returns is verified, and takes precedence.
func (s *Store) Referrers(ctx context.Context, artifactType string) (iter.Seq2[delivery.Digest, delivery.Digest],
	error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, err
	}
	return func(yield func(subject, referrer delivery.Digest) bool) {
		for e := range ix.ofType(artifactType) {
			if !yield(e.subject, e.digest) {
				return
			}
		}
	}, nil
}

// Attached lists the referrers of one bundle with an artifact type, in the order in which they were attached.
func (s *Store) Attached(ctx context.Context, bundle delivery.Digest, artifactType string) ([]delivery.Attached,
	error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, err
	}
	var list []delivery.Attached
	for e := range ix.attachedTo(bundle) {
		if e.artifactType == artifactType {
			list = append(list, e.attached())
		}
	}
	return list, nil
}

// Since lists the referrers of all types that were attached after the first n, in order. It returns the list's
// generation and length. If the generation is not the given one, the list was replaced, and all referrers are listed.
func (s *Store) Since(ctx context.Context, generation, n int) (list iter.Seq[delivery.Attached], now, length int,
	err error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, 0, 0, err
	}
	if ix.generation != generation {
		n = 0
	}
	entries, length := ix.since(n)
	return func(yield func(delivery.Attached) bool) {
		for e := range entries {
			if !yield(e.attached()) {
				return
			}
		}
	}, ix.generation, length, nil
}

// Present returns a function that reports whether the file of a blob is there. It does not read the file.
func (s *Store) Present() (func(delivery.Digest) bool, error) {
	dir, err := os.Open(s.path("blobs", "sha256"))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names := map[[sha256.Size]byte]struct{}{}
	for {
		some, err := dir.Readdirnames(4096)
		for _, name := range some {
			if sum, err := hex.DecodeString(name); err == nil && len(sum) == sha256.Size {
				names[[sha256.Size]byte(sum)] = struct{}{}
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return func(d delivery.Digest) bool {
		sum, err := hex.DecodeString(d.Hex())
		if err != nil || len(sum) != sha256.Size {
			return false
		}
		_, there := names[[sha256.Size]byte(sum)]
		return there
	}, nil
}

// ArtifactTypes returns the artifact types of all referrers, sorted.
func (s *Store) ArtifactTypes(ctx context.Context) ([]string, error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, err
	}
	return ix.artifactTypes(), nil
}

// Attachment returns the envelope of a referrer and the bundle to which it is attached. Both are verified with the
// referrer's digest. The signature of the envelope is not verified.
func (s *Store) Attachment(ctx context.Context, referrer delivery.Digest) (subject delivery.Digest, envelope []byte,
	err error) {
	if _, err := delivery.ParseDigest(string(referrer)); err != nil {
		return "", nil, fmt.Errorf("referrer: %w", err)
	}
	data, err := s.readBlob(referrer, maxManifest)
	if err != nil {
		return "", nil, fmt.Errorf("referrer %s: %w", referrer, err)
	}
	r, err := parseReferrer(data, trust.MaxEnvelope)
	if err != nil {
		return "", nil, fmt.Errorf("referrer %s: %w", referrer, err)
	}
	envelope, err = s.readBlob(r.envelope.digest, trust.MaxEnvelope)
	if err != nil {
		return "", nil, fmt.Errorf("referrer %s: %w", referrer, err)
	}
	return r.subject, envelope, nil
}
