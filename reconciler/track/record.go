package track

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Run is what the tracker shows about one training.
type Run struct {
	Key        delivery.Digest `json:"key"` // of AOB's run
	Experiment string          `json:"experiment"`
	Name       string          `json:"name"`
	Note       string          `json:"note"` // Markdown
	Status     Status          `json:"status"`
	Start      time.Time       `json:"start,omitzero"`
	End        time.Time       `json:"end,omitzero"`

	Params   map[string]string `json:"params"`
	Tags     map[string]string `json:"tags"`
	Data     []Dataset         `json:"data"`
	Measured []Measured        `json:"measured,omitempty"`
	Bundle   delivery.Digest   `json:"bundle,omitempty"` // of the trained model; empty until there is one
}

// A Status is a status of a run in MLflow.
type Status string

// The statuses.
const (
	Running  Status = "RUNNING"
	Finished Status = "FINISHED"
	Failed   Status = "FAILED"
	Killed   Status = "KILLED"
)

// A Dataset is a dataset that a run uses.
type Dataset struct {
	Name    string          `json:"name"`
	Digest  delivery.Digest `json:"digest"`
	Context string          `json:"context"` // training, validation or evaluation
	Profile map[string]int  `json:"profile,omitempty"`
}

// maxDigest is how many characters of a digest MLflow stores. The whole digest is in a tag.
const maxDigest = 36

// shortDigest returns a digest as MLflow can store it.
func shortDigest(d delivery.Digest) string { return d.Hex()[:min(maxDigest, len(d.Hex()))] }

// Measured are figures that AOB has measured and signed.
type Measured struct {
	Under  string             `json:"under"` // the metrics' names begin with it, as in gate/production
	Data   Dataset            `json:"data"`
	Values map[string]float64 `json:"values"`
}

// An Epoch is one line of a trainer's metrics.jsonl. Its figures are the trainer's own: nobody has checked them.
type Epoch struct {
	Step   int64
	Values map[string]float64
}

// Limits of what a trainer may write.
const (
	maxEpochs = 10_000
	maxKeys   = 100 // of one line
	maxNames  = 500 // of all lines: MLflow tells the last value of each name with every answer about the run
)

// notJSON are the numbers that Python writes and JSON does not have.
var notJSON = regexp.MustCompile(`(:\s*)(NaN|-?Infinity)`)

// ParseEpochs reads a metrics.jsonl: a JSON object a line, whose numbers are figures. A line's epoch is its step, or
// else the line's number. What cannot be read is left out: a trainer may be writing the last line.
func ParseEpochs(data []byte) []Epoch {
	var list []Epoch
	names := map[string]bool{}
	number := int64(0)
	for line := range bytes.Lines(data) {
		number++
		var fields map[string]json.RawMessage
		quoted := notJSON.ReplaceAll(line, []byte(`$1"$2"`))
		if json.Unmarshal(quoted, &fields) != nil || len(list) == maxEpochs {
			continue
		}
		e := Epoch{Step: number, Values: map[string]float64{}}
		if n, ok := figure(fields["epoch"]); ok && n == math.Trunc(n) && n >= 0 && n < 1e9 {
			e.Step = int64(n)
		}
		delete(fields, "epoch")
		for _, key := range sortedKeys(fields) {
			v, ok := figure(fields[key])
			if ok && len(e.Values) < maxKeys && (names[key] || len(names) < maxNames) {
				names[key], e.Values[key] = true, v
			}
		}
		list = append(list, e)
	}
	slices.SortStableFunc(list, func(a, b Epoch) int { return int(a.Step - b.Step) })
	return list
}

// figure reads a number, also one that JSON does not have.
func figure(raw json.RawMessage) (float64, bool) {
	var n float64
	var s string
	if json.Unmarshal(raw, &s) == nil {
		n, ok := map[string]float64{"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1)}[s]
		return n, ok
	}
	return n, len(raw) > 0 && string(raw) != "null" && json.Unmarshal(raw, &n) == nil
}

// A Model is what the tracker's registry shows about a model on main.
type Model struct {
	Name       string    `json:"name"`
	Note       string    `json:"note"`
	Versions   []Version `json:"versions"`             // in the order in which main accepted them
	Production *Version  `json:"production,omitempty"` // what fleets get; nil for none
}

// A Version is a release of a model.
type Version struct {
	Number int             `json:"number"` // AOB's, which may differ from MLflow's
	Bundle delivery.Digest `json:"bundle"`
	Run    delivery.Digest `json:"run,omitempty"` // the training; empty if it is not known
	// Experiment is that of the run: another model may have asked for the same training first.
	Experiment string `json:"experiment,omitempty"`

	Source string            `json:"source"` // as in oci://HOST/bundles@sha256:...
	Note   string            `json:"note"`
	Tags   map[string]string `json:"tags"`
}

// Tags by which AOB finds what it has made.
const (
	RunTag     = "aob.run"
	BundleTag  = "aob.bundle"
	VersionTag = "aob.version"
)

// Alias is the alias of the version that fleets get.
const Alias = "production"

// Limits of MLflow's text, in characters.
const (
	maxKey      = 250
	maxParam    = 6000
	maxTag      = 8000
	maxDataName = 500
)

// badName matches a character that MLflow does not accept in the name of a metric, parameter or tag.
var badName = regexp.MustCompile(`[^\pL\pN_/.\- :]`)

// Name returns a name as MLflow accepts it, for a metric, a parameter or a tag. Two names never become the same one.
func Name(name string) string {
	parts := strings.Split(badName.ReplaceAllString(strings.ToValidUTF8(name, "_"), "_"), "/")
	for i, part := range parts {
		if part == "" || part == "." || part == ".." {
			parts[i] = strings.Repeat("_", max(1, len(part)))
		}
	}
	clean := strings.Join(parts, "/")
	const mark = 9 // characters that tell changed names apart
	if runes := []rune(clean); clean != name || len(runes) > maxKey {
		clean = fmt.Sprintf("%s-%.8s", string(runes[:min(len(runes), maxKey-mark)]), delivery.Sum([]byte(name)).Hex())
	}
	return clean
}
