package artifact

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"

	godigest "github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Media types of ModelPack and of referrers.
const (
	BundleType   = "application/vnd.cncf.model.manifest.v1+json" // artifactType of a bundle
	EnvelopeType = "application/vnd.dsse.envelope.v1+json"       // media type of a referrer's layer

	// modelPack is the prefix of all media types of ModelPack, in all versions.
	modelPack = "application/vnd.cncf.model."

	configType       = "application/vnd.cncf.model.config.v1+json"
	weightType       = "application/vnd.cncf.model.weight.v1.raw"
	weightConfigType = "application/vnd.cncf.model.weight.config.v1.raw"
)

// ManifestFile is the bundle's manifest, with the digests of the other files. [Store.Unpack] writes it beside them.
const ManifestFile = "manifest.json"

const (
	// MaxBundle is the maximum total size of a bundle's files in bytes.
	MaxBundle = 8 << 30
	// MaxGolden is the maximum size of golden.bin in bytes.
	MaxGolden = 64 << 20

	maxSmall      = 1 << 20 // signature, labels, config
	maxManifest   = 1 << 20
	maxProvenance = 64 // entries
)

const (
	annotationFile       = "org.cncf.model.filepath"
	annotationProvenance = "dev.aob.provenance."
	annotationSubject    = "dev.aob.subject" // of index entries: the subject of a referrer
	created              = "1970-01-01T00:00:00Z"
)

// A file describes one of the possible files of a bundle.
type file struct {
	name, mediaType string
	limit           int64 // bytes
	optional        bool
}

// files lists all possible files in the order of the manifest. Names in manifests are only
// compared with these names and never used as paths.
var files = []file{
	{delivery.ModelFile, weightType, MaxBundle, false},
	{delivery.SignatureFile, weightConfigType, maxSmall, false},
	{delivery.LabelsFile, weightConfigType, maxSmall, false},
	{delivery.GoldenFile, weightConfigType, MaxGolden, false},
	{delivery.ThresholdsFile, weightConfigType, maxSmall, true},
}

// A bundleManifest is the verified content of a bundle's manifest.
type bundleManifest struct {
	config     blob
	files      []blob // same indexes as in files; the zero blob for a missing optional file
	provenance map[string]string
}

// blobs returns the config and all files.
func (m bundleManifest) blobs() []blob {
	list := []blob{m.config}
	for _, b := range m.each() {
		list = append(list, b)
	}
	return list
}

// each iterates over the files that the bundle has.
func (m bundleManifest) each() iter.Seq2[file, blob] {
	return func(yield func(file, blob) bool) {
		for i, f := range files {
			if m.files[i].digest != "" && !yield(f, m.files[i]) {
				return
			}
		}
	}
}

func (m bundleManifest) file(name string) blob {
	for i, f := range files {
		if f.name == name {
			return m.files[i]
		}
	}
	return blob{}
}

// modelConfig contains the fields of ModelPack's config that AOB uses.
type modelConfig struct {
	Descriptor struct {
		CreatedAt string `json:"createdAt"`
	} `json:"descriptor"`
	ModelFS struct {
		Type    string            `json:"type"`
		DiffIDs []delivery.Digest `json:"diffIds"`
	} `json:"modelfs"`
	Config struct {
		Format string `json:"format"`
	} `json:"config"`
}

// encodeConfig encodes the config of a bundle.
func encodeConfig(m bundleManifest) []byte {
	var c modelConfig
	c.Descriptor.CreatedAt = created
	c.ModelFS.Type = "layers"
	for _, b := range m.each() {
		c.ModelFS.DiffIDs = append(c.ModelFS.DiffIDs, b.digest)
	}
	c.Config.Format = "onnx"
	return delivery.Canonical(c)
}

// parseConfig parses a bundle's config and checks that it lists the files of m.
func parseConfig(data []byte, m bundleManifest) error {
	var c modelConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("config: not a ModelPack config: %w", err)
	}
	if c.Config.Format != "onnx" {
		return newer("config: want the format onnx, got %q", clip(c.Config.Format))
	}
	if n := len(m.blobs()) - 1; len(c.ModelFS.DiffIDs) != n {
		return fmt.Errorf("config: want %d diffIds, got %d", n, len(c.ModelFS.DiffIDs))
	}
	i := 0
	for f, b := range m.each() {
		if c.ModelFS.DiffIDs[i] != b.digest {
			return fmt.Errorf("config: diffIds[%d] is not the digest of %s", i, f.name)
		}
		i++
	}
	return nil
}

// encodeBundle encodes the manifest of a bundle.
func encodeBundle(m bundleManifest) []byte {
	var layers []ocispec.Descriptor
	for f, b := range m.each() {
		layer := descriptor(f.mediaType, b)
		layer.Annotations = map[string]string{annotationFile: f.name}
		layers = append(layers, layer)
	}
	annotations := map[string]string{ocispec.AnnotationCreated: created}
	for name, value := range m.provenance {
		annotations[annotationProvenance+name] = value
	}
	return delivery.Canonical(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: BundleType,
		Config:       descriptor(configType, m.config),
		Layers:       layers,
		Annotations:  annotations,
	})
}

// parseBundle parses and checks the manifest of a bundle. data is untrusted.
func parseBundle(data []byte) (bundleManifest, error) {
	var none bundleManifest
	m, err := parseManifest(data)
	if err != nil {
		return none, err
	}
	if m.ArtifactType != BundleType {
		return none, wrongType("manifest: want a bundle (%s), got %q", BundleType, m.ArtifactType)
	}
	if m.Subject != nil {
		return none, fmt.Errorf("manifest: a bundle has no subject")
	}
	config, err := checkDescriptor(m.Config, configType, maxSmall)
	if err != nil {
		return none, fmt.Errorf("manifest: config: %w", err)
	}
	if len(m.Layers) > len(files) {
		return none, newer("manifest: want at most %d files, got %d", len(files), len(m.Layers))
	}
	checked := bundleManifest{config: config, files: make([]blob, len(files)), provenance: map[string]string{}}
	total := config.size
	for i, layer := range m.Layers {
		name := layer.Annotations[annotationFile]
		at := slices.IndexFunc(files, func(f file) bool { return f.name == name })
		if at < 0 {
			err := fmt.Errorf("manifest: layers[%d]: unknown file %q", i, clip(name))
			if fileForm.MatchString(name) { // else it is a path, which no newer version would write
				err = unknown{err}
			}
			return none, err
		}
		if checked.files[at].digest != "" {
			return none, fmt.Errorf("manifest: layers[%d]: a second %s", i, name)
		}
		b, err := checkDescriptor(layer, files[at].mediaType, files[at].limit)
		if err != nil {
			return none, fmt.Errorf("manifest: %s: %w", name, err)
		}
		checked.files[at] = b
		if total += b.size; total > MaxBundle {
			return none, newer("manifest: the files have more than %d bytes", int64(MaxBundle))
		}
	}
	for i, f := range files {
		if checked.files[i].digest == "" && !f.optional {
			return none, fmt.Errorf("manifest: there is no %s", f.name)
		}
	}
	for key, value := range m.Annotations {
		if name, ok := strings.CutPrefix(key, annotationProvenance); ok {
			checked.provenance[name] = value
		}
	}
	if err := checkProvenance(checked.provenance); err != nil {
		return none, fmt.Errorf("manifest: %w", err)
	}
	return checked, nil
}

// A referrer is the verified content of a referrer's manifest.
type referrer struct {
	subject      delivery.Digest
	artifactType string
	envelope     blob
}

// encodeReferrer encodes the manifest of a referrer.
func encodeReferrer(r referrer, subject ocispec.Descriptor) []byte {
	return delivery.Canonical(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: r.artifactType,
		Config:       descriptor(ocispec.MediaTypeEmptyJSON, emptyConfig),
		Layers:       []ocispec.Descriptor{descriptor(EnvelopeType, r.envelope)},
		Subject:      &subject,
		Annotations:  map[string]string{ocispec.AnnotationCreated: created},
	})
}

// emptyConfig is the blob {}, which OCI requires as the config of an artifact without one.
var emptyConfig = blob{delivery.Digest(ocispec.DescriptorEmptyJSON.Digest), ocispec.DescriptorEmptyJSON.Size}

// parseReferrer parses and checks the manifest of a referrer. data is untrusted.
func parseReferrer(data []byte, maxEnvelope int64) (referrer, error) {
	m, err := parseManifest(data)
	if err != nil {
		return referrer{}, err
	}
	if m.Subject == nil {
		return referrer{}, fmt.Errorf("manifest: a referrer must have a subject")
	}
	subject, err := checkDescriptor(*m.Subject, ocispec.MediaTypeImageManifest, maxManifest)
	if err != nil {
		return referrer{}, fmt.Errorf("manifest: subject: %w", err)
	}
	if err := checkArtifactType(m.ArtifactType); err != nil {
		return referrer{}, fmt.Errorf("manifest: %w", err)
	}
	if len(m.Layers) != 1 {
		return referrer{}, fmt.Errorf("manifest: want one envelope, got %d layers", len(m.Layers))
	}
	envelope, err := checkDescriptor(m.Layers[0], EnvelopeType, maxEnvelope)
	if err != nil {
		return referrer{}, fmt.Errorf("manifest: envelope: %w", err)
	}
	return referrer{subject.digest, m.ArtifactType, envelope}, nil
}

// parseManifest parses an OCI image manifest of any artifact type.
func parseManifest(data []byte) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if len(data) > maxManifest {
		return m, fmt.Errorf("manifest: longer than %d bytes", maxManifest)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("manifest: not an OCI manifest: %w", err)
	}
	if m.SchemaVersion != 2 || m.MediaType != ocispec.MediaTypeImageManifest {
		return m, fmt.Errorf("manifest: want schema version 2 and %s, got %d and %q",
			ocispec.MediaTypeImageManifest, m.SchemaVersion, clip(m.MediaType))
	}
	if m.ArtifactType == "" {
		m.ArtifactType = m.Config.MediaType // as the OCI specification defines
	}
	return m, nil
}

func descriptor(mediaType string, b blob) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: godigest.Digest(b.digest), Size: b.size}
}

// checkDescriptor checks an untrusted descriptor, whose digest becomes a path, and whose
// size limits the bytes that are read.
func checkDescriptor(d ocispec.Descriptor, mediaType string, limit int64) (blob, error) {
	if d.MediaType != mediaType {
		return blob{}, wrongType("want the media type %s, got %q", mediaType, d.MediaType)
	}
	digest, err := delivery.ParseDigest(clip(string(d.Digest)))
	if err != nil {
		return blob{}, err
	}
	if d.Size <= 0 {
		return blob{}, fmt.Errorf("want 1 to %d bytes, got %d", limit, d.Size)
	}
	if d.Size > limit {
		return blob{}, newer("want 1 to %d bytes, got %d", limit, d.Size)
	}
	return blob{digest, d.Size}, nil
}

var (
	fileForm         = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	artifactTypeForm = regexp.MustCompile(`^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$`)
	provenanceForm   = regexp.MustCompile(`^[a-z][a-zA-Z0-9-]{0,62}$`)
)

func checkArtifactType(t string) error {
	if !artifactTypeForm.MatchString(t) {
		return fmt.Errorf("want an artifact type like application/vnd.aob.scores.v1+json, got %q", clip(t))
	}
	return nil
}

func checkProvenance(p map[string]string) error {
	if len(p) > maxProvenance {
		return fmt.Errorf("provenance: want at most %d entries, got %d", maxProvenance, len(p))
	}
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if !provenanceForm.MatchString(name) {
			return fmt.Errorf("provenance: want a name of letters, digits and dashes that begins with a lower-case "+
				"letter, got %q", clip(name))
		}
		if len(p[name]) > 1024 {
			return fmt.Errorf("provenance: %s: want at most 1024 bytes, got %d", name, len(p[name]))
		}
	}
	return nil
}

// unknown is an error about something that a later version of AOB may support.
type unknown struct{ error }

func newer(format string, args ...any) error { return unknown{fmt.Errorf(format, args...)} }

// wrongType returns the error of another type than wanted. A type of ModelPack comes from a later version.
func wrongType(format, want, got string) error {
	err := fmt.Errorf(format, want, clip(got))
	if strings.HasPrefix(got, modelPack) {
		return unknown{err}
	}
	return err
}

// clip shortens untrusted text for an error message.
func clip(s string) string { return delivery.Cut(s, 128) }
