package delivery

import "encoding/json"

// The types of the documents about a release. They are predicates of statements about its bundle.
const (
	ProvenanceType = "https://slsa.dev/provenance/v1"
	BOMType        = "https://cyclonedx.org/bom"
	CardType       = "https://aob.dev/card/v1"
)

// PaperTypes lists the types of documents about a release.
var PaperTypes = []string{ProvenanceType, BOMType, CardType}

// A Card is a model card: Markdown after a header in YAML.
type Card struct {
	Model   string `json:"model"`
	Version int    `json:"version"`
	Text    string `json:"text"`
}

// A Paper is a signed document about a release.
type Paper struct {
	Type      string          `json:"type"`
	Model     string          `json:"model"`
	Version   int             `json:"version"`
	Predicate json.RawMessage `json:"predicate"`
}
