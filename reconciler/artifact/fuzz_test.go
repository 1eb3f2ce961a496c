package artifact

import (
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// someBundle returns the content and the encoding of a bundle's manifest.
func someBundle() (bundleManifest, []byte) {
	m := bundleManifest{provenance: map[string]string{"run": "r"}}
	for i, f := range files {
		m.files = append(m.files, blob{delivery.Sum([]byte(f.name)), int64(i + 1)})
	}
	config := encodeConfig(m)
	m.config = blob{delivery.Sum(config), int64(len(config))}
	return m, encodeBundle(m)
}

func FuzzParseBundle(f *testing.F) {
	_, data := someBundle()
	f.Add(data)
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseBundle(data)
		if err != nil {
			return
		}
		total := int64(0)
		for _, b := range m.blobs() {
			if _, err := delivery.ParseDigest(string(b.digest)); err != nil || b.size <= 0 {
				t.Errorf("accepted the blob %v", b)
			}
			total += b.size
		}
		if total > MaxBundle || len(m.files) != len(files) {
			t.Errorf("accepted %d bytes in %d files", total, len(m.files))
		}
		again, err := parseBundle(encodeBundle(m))
		if err != nil || again.config != m.config || again.files[0] != m.files[0] {
			t.Errorf("not equal after encoding and parsing: %v", err)
		}
	})
}

func FuzzParseReferrer(f *testing.F) {
	subject := descriptor(ocispec.MediaTypeImageManifest, blob{delivery.Sum(nil), 10})
	f.Add(encodeReferrer(referrer{artifactType: "application/vnd.aob.scores.v1+json", envelope: blob{delivery.Sum(nil),
		10}}, subject))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseReferrer(data, trust.MaxEnvelope)
		if err != nil {
			return
		}
		for _, d := range []delivery.Digest{r.subject, r.envelope.digest} {
			if _, err := delivery.ParseDigest(string(d)); err != nil {
				t.Error(err)
			}
		}
		if r.envelope.size <= 0 || r.envelope.size > trust.MaxEnvelope || checkArtifactType(r.artifactType) != nil {
			t.Errorf("accepted %+v", r)
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	m, _ := someBundle()
	good := encodeConfig(m)
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) { parseConfig(data, m) })
}

func FuzzIndex(f *testing.F) {
	dir := f.TempDir()
	s, err := Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	_, manifest := someBundle()
	if _, err := s.putManifest(f.Context(), manifest); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, ocispec.ImageIndexFile)
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(
		[]byte(
			`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
				`"digest":"sha256:../x","size":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		ix, err := s.readIndex()
		if err != nil {
			return
		}
		for digest := range ix.at {
			if _, err := delivery.ParseDigest(string(digest)); err != nil {
				t.Error(err)
			}
		}
	})
}
