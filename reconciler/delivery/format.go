package delivery

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Format versions of stored documents. A version is raised when an older aob could not read the new documents
// correctly. A document that states no version has version 1. docs/upgrades.md lists all documents and where their
// version stands.
const (
	// RunFormat is the format of a run's folder: spec.json and journal.jsonl.
	RunFormat = 1
	// IntentFormat is the format of models, gates, fleets, releases and quarantines: N in apiVersion: aob/vN.
	IntentFormat = 1
)

// StartNewer is the hint of complaints about documents of a newer aob.
const StartNewer = "start that version of aob or a newer one; docs/upgrades.md says which versions can be downgraded"

// CheckFormat returns an error if format is above known, the highest version that this aob reads. It is called before
// other checks: an unknown field in a newer document is not a mistake.
func CheckFormat(what string, format, known int) error {
	if format <= known {
		return nil
	}
	return Blockedf(StartNewer, "%s was written by a newer aob: it has format %d, and this aob reads formats up to %d",
		what, format, known)
}

// CheckFormatOf is CheckFormat for a JSON document with a field format. The other fields of a
// newer document may not decode, so it is called before the document is decoded.
func CheckFormatOf(what string, document []byte, known int) error {
	var v struct {
		Format int `json:"format"`
	}
	if json.Unmarshal(document, &v) != nil {
		return nil
	}
	return CheckFormat(what, v.Format, known)
}

var versioned = regexp.MustCompile(
	`^(?:https://aob\.dev/([a-z][a-z-]{0,40})/v|application/vnd\.aob\.([a-z][a-z-]{0,40})\.v|aob/v)` +
		`([1-9][0-9]{0,8})(?:\+json)?$`)

// FormatOf returns the kind and the version in a name: a predicate type https://aob.dev/KIND/vN, a media type
// application/vnd.aob.KIND.vN+json, or an apiVersion aob/vN, whose kind is empty. ok is false for any other text.
func FormatOf(name string) (kind string, format int, ok bool) {
	m := versioned.FindStringSubmatch(name)
	if m == nil {
		return "", 0, false
	}
	format, err := strconv.Atoi(m[3])
	return m[1] + m[2], format, err == nil
}

// CheckNewer returns an error if name has the kind of known and a higher version.
func CheckNewer(what, name, known string) error {
	kind, format, ok := FormatOf(name)
	knownKind, most, knownOK := FormatOf(known)
	if !ok || !knownOK || kind != knownKind {
		return nil
	}
	return CheckFormat(what, format, most)
}

// NewerStatements counts signed statements of a newer format version, which this aob cannot read.
type NewerStatements struct {
	Kind   string // as release
	Format int
	Known  int // the highest format of this kind that this aob reads; 0 where it does not know the kind
	Count  int
}

func (u NewerStatements) String() string {
	if u.Known == 0 {
		return Count(u.Count, "statement") + " of the kind " + u.Kind + ", which this aob does not know"
	}
	return fmt.Sprintf("%s of format %d, where this aob reads formats up to %d", Count(u.Count, u.Kind+" statement"),
		u.Format, u.Known)
}

// NewerSigned describes statements in a sentence; empty if there are none.
func NewerSigned(list []NewerStatements) string {
	if len(list) == 0 {
		return ""
	}
	return "a newer aob has signed what this one cannot read: " +
		strings.Join(Each(list, NewerStatements.String), ", ")
}
