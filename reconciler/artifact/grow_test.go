package artifact

import (
	"fmt"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Grow adds n referrers to the index without writing their blobs.
func Grow(b *testing.B, s *Store, subject delivery.Digest, artifactType string, n int) {
	b.Helper()
	entries, err := s.allEntries()
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		e := descriptor(ocispec.MediaTypeImageManifest, blob{delivery.Sum(fmt.Append(nil, i)), 675})
		e.ArtifactType = artifactType
		e.Annotations = map[string]string{annotationSubject: string(subject)}
		entries = append(entries, e)
	}
	if err := s.writeIndex(entries); err != nil {
		b.Fatal(err)
	}
}
