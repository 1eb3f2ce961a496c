package artifact

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// Attach hangs a signed envelope on a bundle, durably, and returns the digest of
// the referrer. The same envelope of the same type is attached once. The error
// is fs.ErrNotExist where there is no such bundle. What the envelope says is not
// looked at.
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
	at, there := ix.at[subject]
	if !there || ix.manifests[at].ArtifactType != BundleType {
		return "", fmt.Errorf("no such bundle in %s: %w", s.dir, fs.ErrNotExist)
	}
	if _, err := s.putBytes(ctx, ocispec.DescriptorEmptyJSON.Data); err != nil {
		return "", err
	}
	stored, err := s.putBytes(ctx, envelope)
	if err != nil {
		return "", err
	}
	bundle := descriptor(ocispec.MediaTypeImageManifest, blob{subject, ix.manifests[at].Size})
	return s.putManifest(ctx, encodeReferrer(referrer{subject, artifactType, stored}, bundle))
}

// Referrers lists what hangs on bundles under one artifact type, as pairs of
// bundle and referrer, in the order in which they were attached. It reads no
// blob; Attachment does, and its word on the bundle is the one that counts.
func (s *Store) Referrers(ctx context.Context, artifactType string) (iter.Seq2[delivery.Digest, delivery.Digest],
	error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, err
	}
	return func(yield func(subject, referrer delivery.Digest) bool) {
		for _, p := range ix.byType[artifactType] {
			if !yield(p.subject, p.referrer) {
				return
			}
		}
	}, nil
}

// ArtifactTypes returns the artifact types under which something hangs on bundles, sorted.
func (s *Store) ArtifactTypes(ctx context.Context) ([]string, error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(ix.byType)), nil
}

// Attachment returns the envelope of a referrer, and the bundle that it hangs
// on, both as the referrer's digest pins them. The envelope is not verified
// further: who signed it is for the caller to check.
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

// Attached returns the envelopes that hang on a bundle under one artifact type,
// in the order in which they were attached. It returns those that it could read
// together with an error that names the others.
func (s *Store) Attached(ctx context.Context, subject delivery.Digest, artifactType string) ([][]byte, error) {
	ix, err := s.loadIndex()
	if err != nil {
		return nil, err
	}
	var envelopes [][]byte
	var damaged []error
	for _, p := range ix.bySubject[subject] {
		if ix.manifests[ix.at[p.referrer]].ArtifactType != artifactType {
			continue
		}
		on, envelope, err := s.Attachment(ctx, p.referrer)
		if err == nil && on != subject {
			err = fmt.Errorf("referrer %s hangs on %s, not on %s", p.referrer, on, subject)
		}
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		envelopes = append(envelopes, envelope)
	}
	return envelopes, errors.Join(damaged...)
}
