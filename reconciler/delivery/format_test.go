package delivery

import (
	"os"
	"strings"
	"testing"
)

func TestFormatsAreReadFromNames(t *testing.T) {
	for name, want := range map[string]struct {
		kind   string
		format int
		ok     bool
	}{
		"https://aob.dev/release/v1":                {"release", 1, true},
		"https://aob.dev/release/v12":               {"release", 12, true},
		"application/vnd.aob.training.v2+json":      {"training", 2, true},
		"application/vnd.aob.device-report.v3+json": {"device-report", 3, true},
		DesiredPayload:                              {"desired", 1, true},
		"aob/v1":                                    {"", 1, true},
		"aob/v2":                                    {"", 2, true},
		"aob/v0":                                    {},
		"aob/v01":                                   {},
		"aob/v2beta1":                               {},
		"aob/v":                                     {},
		"aob/v99999999999999999999":                 {},
		"aob/v-2":                                   {},
		"https://aob.dev/v2":                        {},
		"https://evil.example/aob.dev/release/v2":      {},
		"https://aob.dev/release/v2/more":              {},
		"application/vnd.oci.image.manifest.v2+json":   {},
		"application/vnd.aob.v2+json":                  {},
		"x application/vnd.aob.training.v2+json":       {},
		"application/vnd.aob.tra\x1bining.v2+json":     {},
		"application/vnd.aob.training.v2+json\nsecond": {},
		"": {},
	} {
		kind, format, ok := FormatOf(name)
		if kind != want.kind || format != want.format || ok != want.ok {
			t.Errorf("%q: got %q, %d, %v; want %+v", name, kind, format, ok, want)
		}
	}
}

func TestStatementsOfANewerAOBAreCounted(t *testing.T) {
	got := NewerSigned([]NewerStatements{{"release", 2, 1, 1}, {"acceptance", 3, 1, 12}, {"licence", 1, 0, 2}})
	want := "a newer aob has signed what this one cannot read: 1 release statement of format 2, where this aob reads " +
		"formats up to 1, " +
		"12 acceptance statements of format 3, where this aob reads formats up to 1, 2 statements of the kind " +
		"licence, which this aob does not know"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := NewerSigned(nil); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

func TestNewerFormatsAreRefusedWithBothNumbers(t *testing.T) {
	for format, want := range map[int]string{0: "", 1: "",
		2: "the ring was written by a newer aob: it has format 2, and this aob reads formats up to 1",
		9: "it has format 9"} {
		err := CheckFormat("the ring", format, 1)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("format %d: %v", format, err)
		}
	}
}

// The table of formats names every kind of statement, and where the other formats are.
func TestUpgradesDocumentNamesAllFormats(t *testing.T) {
	data, err := os.ReadFile("../../docs/upgrades.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	names := []string{"apiVersion: aob/vN", "folder.json", "user_version", "spec.json", "schemaVersion",
		"imageLayoutVersion", "agent.json", "desired"}
	for _, predicate := range []string{TrainingType, ScoresType, VerdictType, ReleaseType, AcceptanceType, AbortType,
		ThresholdsType, VariantType} {
		kind, _, ok := FormatOf(predicate)
		if !ok {
			t.Errorf("%s has no format", predicate)
		}
		names = append(names, kind)
	}
	for _, name := range names {
		if !strings.Contains(text, name) {
			t.Errorf("it does not name %s", name)
		}
	}
}
