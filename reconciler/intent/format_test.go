package intent_test

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

func ExampleFormatRelease() {
	low, high := 0.41149, 0.5
	fmt.Printf("%s", intent.FormatRelease(delivery.Release{
		APIVersion: "aob/v1", Kind: "Release", Name: "shapes", Version: 2,
		Bundle: delivery.Sum([]byte("bundle")), Spec: delivery.Sum([]byte("spec")),
		Measured: []delivery.Measured{{
			Gate: "production", EvalSet: delivery.Sum([]byte("eval set")), Images: 72,
			Metrics: map[string]delivery.Figure{"mAP": {Value: 0.4523, Low: &low, High: &high},
				"AP/no entry": {Value: 0.4}},
			Baseline: &delivery.BaselineMeasured{Version: 1, Bundle: delivery.Sum([]byte("before")),
				Metrics: map[string]float64{"mAP": 0.4}},
		}},
	}, nil))
	// Output:
	// # AOB writes this file from signed evidence. An edit by hand turns aob/release red.
	// apiVersion: aob/v1
	// bundle: sha256:1e6ed65d77d6364eeaed5a745ba5c4985ae2b700dd85d7cf7f027bdf294a33fc
	// kind: Release
	// measured:
	//   - baseline:
	//       bundle: sha256:6db7d803e74f1ffa7d8f5adc0bf95b3e15bf4c8373fffadf546227cc6c6742cb
	//       metrics:
	//         mAP: 0.4000
	//       version: 1
	//     evalSet: sha256:c8d26cfa164d5cca70b5fcbec44075e9fcb77e31d24e26f0b42cdb747e6feb3f
	//     gate: production
	//     images: 72
	//     metrics:
	//       AP/no entry: {value: 0.4000}
	//       mAP: {high: 0.5000, low: 0.4115, value: 0.4523}
	// name: shapes
	// spec: sha256:d4f02eaafd1a9e9de7d10972ca8e47fa7a985825c3c9c1e249c72683cb3e4f19
	// version: 2
}

var nastyText = []string{
	"a", "no", "Yes", "null", "~", "1", "1.5", "0x1", "2024-01-01", "true", "- a", "a: b", "a #b", "#a", "&a", "*a",
	"!a", "|", ">", "%a", "@a", "`a",
	"'", `"`, `\`, "{}", "[]", ",", "?", ":", "a:", "-", "<<", "é", "日本", "\U0001F600", "a b", "a\tb", "a\nb", "\n",
	" ", " a", "a ",
	"\x00", "\x7f", "\u0085", "\u2028", "\ufeff", "\ufffd", "\u202e", "\U000e0001", "on", "y", "=", "0o7", "1_000",
	"12:30:45", ".inf", ".nan", "...", "---",
}

func randomText(r *rand.Rand, most int) string {
	var b strings.Builder
	for b.Len() == 0 || r.IntN(3) > 0 && b.Len() < most-20 {
		b.WriteString(nastyText[r.IntN(len(nastyText))])
	}
	return b.String()
}

func randomDigest(r *rand.Rand) delivery.Digest {
	return delivery.Sum(fmt.Append(nil, r.Uint64()))
}

// randomFigure returns a number as a release says it: with four decimals.
func randomFigure(r *rand.Rand) float64 {
	return math.Round(r.Float64()*1e4)/1e4*float64(1-2*r.IntN(2)) + 0
}

func maybeFigure(r *rand.Rand) *float64 {
	if r.IntN(2) == 0 {
		return nil
	}
	f := randomFigure(r)
	return &f
}

// randomMetric returns a metric's name that a release may hold.
func randomMetric(r *rand.Rand) string {
	classes := []string{"person", "no entry", "a: b", "日本", "no", "#1", "'", `"`, `\`, "{a}", "- x", "1", "ok?", "100%",
		"*"}
	return "AP/" + classes[r.IntN(len(classes))]
}

func randomRelease(r *rand.Rand) delivery.Release {
	rel := delivery.Release{APIVersion: "aob/v1", Kind: "Release", Name: "m", Version: 1 + r.IntN(1e6),
		Bundle: randomDigest(r), Spec: randomDigest(r)}
	gates := []string{"a", "b", "b.proposed", "no", "on", "true", "1", "1e3", "2024-01-01"}
	for _, gate := range gates {
		if r.IntN(3) > 0 {
			continue
		}
		m := delivery.Measured{Gate: gate, EvalSet: randomDigest(r), Images: r.IntN(1000)}
		for range r.IntN(4) {
			if m.Metrics == nil {
				m.Metrics = make(map[string]delivery.Figure)
			}
			m.Metrics[randomMetric(r)] = delivery.Figure{Value: randomFigure(r), Low: maybeFigure(r),
				High: maybeFigure(r)}
		}
		if r.IntN(2) == 0 {
			m.Baseline = &delivery.BaselineMeasured{Version: 1 + r.IntN(10), Bundle: randomDigest(r)}
			for range r.IntN(4) {
				if m.Baseline.Metrics == nil {
					m.Baseline.Metrics = make(map[string]float64)
				}
				m.Baseline.Metrics[randomMetric(r)] = randomFigure(r)
			}
		}
		if r.IntN(2) == 0 {
			m.Verdict, m.LeftOut, m.Look = delivery.Pass, r.IntN(3), r.IntN(3)
		}
		for range r.IntN(3) {
			c := delivery.CheckMeasured{Check: "mAP drop <= 0.01", Class: "a: b, {c}", Outcome: delivery.Ignored,
				Value: maybeFigure(r), Baseline: maybeFigure(r), Diff: maybeFigure(r), Low: maybeFigure(r),
				High: maybeFigure(r)}
			if r.IntN(2) == 0 {
				c.Code, c.Class, c.Reason = "drop.found", "", "AP of \"a\" 0.1, release 0.2: -0.1 (95% sure) # {x}, "+
					"±0.1"
			}
			m.Checks = append(m.Checks, c)
		}
		for range r.IntN(3) {
			l := delivery.Loss{Metric: "AP", Class: "no", Value: randomFigure(r), Baseline: randomFigure(r),
				Diff: randomFigure(r), AtBest: randomFigure(r), Why: "-2.1 AP50, mostly missed a: b (3 more)"}
			switch r.IntN(3) {
			case 0:
				l.Metric, l.Class, l.Why = "falsePositivesPerImage", "", ""
			case 1:
				l.Why, l.Error, l.ErrorClass, l.ErrorAP50, l.Errors = "", "Miss", "a: b", randomFigure(r), r.IntN(3)
			}
			m.Lost = append(m.Lost, l)
		}
		rel.Measured = append(rel.Measured, m)
	}
	slices.SortFunc(rel.Measured, func(a, b delivery.Measured) int { return strings.Compare(a.Gate, b.Gate) })
	return rel
}

// What AOB writes it reads back, and writes again to the same bytes.
func TestReleaseRoundTrip(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		want := randomRelease(r)
		data := intent.FormatRelease(want, nil)
		in, complaints := intent.Parse([]intent.File{file("models/m.yaml", model), file("models/m.release.yaml",
			string(data))}, intent.Options{})
		if len(complaints) > 0 {
			t.Fatalf("%v in\n%s", complaints, data)
		}
		if diff := cmp.Diff(want, in.Releases.Of("m")); diff != "" {
			t.Fatalf("(-written +read):\n%s\n%s", diff, data)
		}
		if again := intent.FormatRelease(in.Releases.Of("m"), nil); !bytes.Equal(again, data) {
			t.Fatalf("written again it is\n%s\nand not\n%s", again, data)
		}
	}
}

// A note is a comment on one line, whatever it contains: the release that is read back has nothing of it.
func TestReleaseNotesAreComments(t *testing.T) {
	for _, text := range append(nastyText, "a\n- {check: b}", "a\r\nversion: 9", "a\u2028version: 9") {
		want := delivery.Release{APIVersion: "aob/v1", Kind: "Release", Name: "m", Version: 2,
			Bundle: delivery.Sum([]byte("bundle")), Spec: delivery.Sum([]byte("spec")),
			Measured: []delivery.Measured{{Gate: "g", EvalSet: delivery.Sum([]byte("set")), Images: 7,
				Metrics: map[string]delivery.Figure{"mAP": {Value: 0.5}},
				Checks:  []delivery.CheckMeasured{{Check: "mAP >= 0.6", Outcome: delivery.Unsure}},
				Lost:    []delivery.Loss{{Metric: "mAP", Value: 0.5, Baseline: 0.7, Diff: -0.2, AtBest: -0.1}}}}}
		data := string(intent.FormatRelease(want, func(delivery.Measured) (checks, lost []string) {
			return []string{"check " + text}, []string{"lost " + text}
		}))
		in, complaints := intent.Parse([]intent.File{file("models/m.yaml", model), file("models/m.release.yaml",
			data)}, intent.Options{})
		if len(complaints) > 0 {
			t.Fatalf("%q: %v in\n%s", text, complaints, data)
		}
		if diff := cmp.Diff(want, in.Releases.Of("m")); diff != "" {
			t.Errorf("%q (-written +read):\n%s\n%s", text, diff, data)
		}
		if !strings.Contains(data, "\n      # check") || !strings.Contains(data, "\n      # lost") {
			t.Errorf("%q: no note above a line:\n%s", text, data)
		}
	}
}

func TestQuarantineRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		want := delivery.Quarantine{APIVersion: "aob/v1", Kind: "Quarantine", Name: "m"}
		for range r.IntN(4) {
			e := delivery.Quarantined{Digest: randomDigest(r), Why: randomText(r, 2000)}
			if r.IntN(2) == 0 {
				e.Fleet = "north-2"
			}
			if r.IntN(2) == 0 {
				e.Lifted = randomText(r, 2000)
			}
			want.Entries = append(want.Entries, e)
		}
		data := intent.FormatQuarantine(want)
		in, complaints := intent.Parse([]intent.File{file("models/m.yaml", model), file("models/m.quarantine.yaml",
			string(data))}, intent.Options{})
		if len(complaints) > 0 {
			t.Fatalf("%v in\n%s", complaints, data)
		}
		if diff := cmp.Diff(want, in.Quarantines.Of("m")); diff != "" {
			t.Fatalf("(-written +read):\n%s\n%s", diff, data)
		}
		if again := intent.FormatQuarantine(in.Quarantines.Of("m")); !bytes.Equal(again, data) {
			t.Fatalf("written again it is\n%s\nand not\n%s", again, data)
		}
	}
}

func TestReleaseIsRounded(t *testing.T) {
	tiny := -0.00001
	data := string(intent.FormatRelease(delivery.Release{Measured: []delivery.Measured{{
		Metrics: map[string]delivery.Figure{"mAP": {Value: 0.123456, Low: &tiny}},
	}}}, nil))
	if !strings.Contains(data, "mAP: {low: 0.0000, value: 0.1235}") {
		t.Errorf("figures are not rounded to four decimals:\n%s", data)
	}
}

// rounded returns a release with its figures as a file says them.
func rounded(r delivery.Release) delivery.Release {
	round := func(f float64) float64 {
		v, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', 4, 64), 64)
		return v + 0
	}
	r.Measured = slices.Clone(r.Measured)
	for i, m := range r.Measured {
		m.Metrics = maps.Clone(m.Metrics)
		for name, f := range m.Metrics {
			f.Value = round(f.Value)
			for _, end := range []**float64{&f.Low, &f.High} {
				if *end != nil {
					v := round(**end)
					*end = &v
				}
			}
			m.Metrics[name] = f
		}
		if m.Baseline != nil {
			b := *m.Baseline
			b.Metrics = maps.Clone(b.Metrics)
			for name, v := range b.Metrics {
				b.Metrics[name] = round(v)
			}
			m.Baseline = &b
		}
		r.Measured[i] = m
	}
	return r
}

// A file of a newer format is called that and nothing else, whatever else this aob does not know of it.
func TestFilesOfANewerFormatAreReported(t *testing.T) {
	for path, kind := range map[string]string{"models/a.yaml": "Model", "models/a.release.yaml": "Release",
		"models/a.quarantine.yaml": "Quarantine",
		"gates/a.yaml":             "Gate", "fleets/a.yaml": "Fleet"} {
		for version, want := range map[string]string{
			"aob/v2": "this file is for a newer aob: it has format 2, and this aob reads formats up to 1; start " +
				"that version of aob or a newer one",
			"\"aob/v7\"": "this file is for a newer aob: it has format 7, and this aob reads formats up to 1",
			"aob/v2x":    `want aob/v1, got "aob/v2x"`,
			"other/v2":   `want aob/v1, got "other/v2"`,
		} {
			text := fmt.Sprintf("kind: %s\nname: a\nbrandNew: {deep: [1, 2]}\napiVersion: %s\n", kind, version)
			files := []intent.File{{Path: path, Size: int64(len(text)), Data: []byte(text)}}
			// What names the file's content is not blamed for it.
			for other, more := range map[string]string{
				"models/a.yaml": "apiVersion: aob/v1\nkind: Model\nname: a\ndataset: {dir: a}\nclasses: [x]\ntrain: " +
					"{with: tiny@1}\n",
				"gates/all.yaml": "apiVersion: aob/v1\nkind: Gate\nname: all\ncovers: [a]\nevaluate: {dataset: {dir: " +
					"gold}}\nclasses: [x]\nchecks: [{metric: mAP, min: 0.5}]\n",
				"fleets/f.yaml": "apiVersion: aob/v1\nkind: Fleet\nname: f\nruns: a\n",
				"fleets/a.yaml": "apiVersion: aob/v1\nkind: Fleet\nname: a\nruns: a\n",
			} {
				if other != path {
					files = append(files, intent.File{Path: other, Size: int64(len(more)), Data: []byte(more)})
				}
			}
			_, complaints := intent.Parse(files, intent.Options{})
			var about []string
			for _, c := range complaints {
				if c.Path == "apiVersion" {
					about = append(about, c.Text)
				}
			}
			if len(about) != 1 || !strings.Contains(about[0], want) {
				t.Errorf("%s, %s: %q; want %q", path, version, about, want)
			}
			if newer := strings.HasPrefix(want, "this file"); newer != (len(complaints) == 1) {
				t.Errorf("%s, %s: %d complaints: %v", path, version, len(complaints), complaints)
			}
		}
	}
}
