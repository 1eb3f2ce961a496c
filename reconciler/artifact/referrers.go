package artifact

import (
	"context"
	"fmt"
	"io/fs"
	"iter"

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
	if !there || of.ArtifactType != BundleType {
		return "", fmt.Errorf("no such bundle in %s: %w", s.dir, fs.ErrNotExist)
	}
	if _, err := s.putBytes(ctx, ocispec.DescriptorEmptyJSON.Data); err != nil {
		return "", err
	}
	stored, err := s.putBytes(ctx, envelope)
	if err != nil {
		return "", err
	}
	bundle := descriptor(ocispec.MediaTypeImageManifest, blob{subject, of.Size})
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
		for _, p := range ix.ofType(artifactType) {
			if !yield(p.subject, p.referrer) {
				return
			}
		}
	}, nil
}

// ArtifactTypes returns the artifact types of all referrers, sorted.
func (s *Store) ArtifactTypes(ctx context.Context) ([]string, error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, err
	}
	return ix.types(), nil
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
