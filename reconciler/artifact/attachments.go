package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// maxAttachments is how many attachments of one type are read from a source.
const maxAttachments = 1000

// Attachments reads the envelopes with an artifact type that are attached to a bundle in a registry or a folder, in the
// order there. Their bytes are checked against their digests. Signatures are not verified.
func Attachments(ctx context.Context, from Source, bundle delivery.Digest, artifactType string) (envelopes [][]byte,
	err error) {
	source, err := from.open()
	if err != nil {
		return nil, err
	}
	registry, ok := source.(registrySource)
	if !ok {
		return attachmentsIn(ctx, strings.TrimPrefix(from.URL, "file://"), bundle, artifactType)
	}
	var found []ocispec.Descriptor
	err = registry.Referrers(ctx, ocispec.Descriptor{Digest: godigest.Digest(bundle)}, artifactType,
		func(list []ocispec.Descriptor) error {
			if found = append(found, list...); len(found) > maxAttachments {
				return fmt.Errorf("more than %d attachments", maxAttachments)
			}
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("list what is attached to bundle %s: %w", bundle.Short(), err)
	}
	for _, d := range found {
		if d.ArtifactType != artifactType {
			continue
		}
		envelope, err := attachment(ctx, registry, delivery.Digest(d.Digest), bundle)
		if err != nil {
			return nil, fmt.Errorf("attachment %s: %w", delivery.Digest(d.Digest).Short(), err)
		}
		envelopes = append(envelopes, envelope)
	}
	return envelopes, nil
}

// attachmentsIn reads the envelopes from a layout.
func attachmentsIn(ctx context.Context, dir string, bundle delivery.Digest, artifactType string) (envelopes [][]byte,
	err error) {
	if _, err := os.Stat(filepath.Join(dir, ocispec.ImageLayoutFile)); err != nil {
		return nil, fmt.Errorf("%s is no folder of bundles: %w", dir, err)
	}
	s, err := At(dir)
	if err != nil {
		return nil, err
	}
	list, err := s.Referrers(ctx, artifactType)
	if err != nil {
		return nil, err
	}
	for of, referrer := range list {
		if of != bundle || len(envelopes) == maxAttachments {
			continue
		}
		attachedTo, envelope, err := s.Attachment(ctx, referrer)
		if err == nil && attachedTo != bundle {
			err = fmt.Errorf("it is attached to bundle %s", attachedTo.Short())
		}
		if err != nil {
			return nil, fmt.Errorf("attachment %s: %w", referrer.Short(), err)
		}
		envelopes = append(envelopes, envelope)
	}
	return envelopes, nil
}

// attachment reads one envelope.
func attachment(ctx context.Context, from registrySource, referrer, bundle delivery.Digest) ([]byte, error) {
	body, err := from.manifest(ctx, referrer)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if delivery.Sum(data) != referrer {
		return nil, ErrOtherContent
	}
	r, err := parseReferrer(data, trust.MaxEnvelope)
	if err != nil {
		return nil, err
	}
	if r.subject != bundle {
		return nil, fmt.Errorf("it is attached to bundle %s", r.subject.Short())
	}
	envelope, err := content.FetchAll(ctx, from.Blobs(), ocispec.Descriptor{MediaType: "application/octet-stream",
		Digest: godigest.Digest(r.envelope.digest), Size: r.envelope.size})
	if errors.Is(err, content.ErrMismatchedDigest) || errors.Is(err, content.ErrTrailingData) ||
		errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.Join(ErrOtherContent, err)
	}
	return envelope, err
}
