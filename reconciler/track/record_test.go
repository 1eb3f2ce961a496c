package track

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseEpochs(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []Epoch
	}{
		{"tiny", `{"epoch": 1, "loss": 0.5, "mAP": null}` + "\n" + `{"epoch": 2, "loss": NaN, "lr": -Infinity}` + "\n",
			[]Epoch{{1, map[string]float64{"loss": 0.5}},
				{2, map[string]float64{"loss": math.NaN(), "lr": math.Inf(-1)}}}},
		{"a line that is being written", "{\"epoch\": 1, \"loss\": 1}\n{\"epoch\": 2, \"lo",
			[]Epoch{{1, map[string]float64{"loss": 1}}}},
		{"no epoch", "{\"loss\": 1}\n\n{\"loss\": 2, \"epoch\": 1.5}\n",
			[]Epoch{{1, map[string]float64{"loss": 1}}, {3, map[string]float64{"loss": 2}}}},
		{"other values", `{"epoch": 3, "s": "text", "b": true, "l": [1], "m": {"a": 1}, "n": 7}`,
			[]Epoch{{3, map[string]float64{"n": 7}}}},
		{"out of order", "{\"epoch\": 2}\n{\"epoch\": 1}\n", []Epoch{{1, map[string]float64{}},
			{2, map[string]float64{}}}},
		{"nothing", "", nil},
		{"no objects", "1\nnull\n[]\nx\n", []Epoch{{2, map[string]float64{}}}},
	} {
		if diff := cmp.Diff(c.want, ParseEpochs([]byte(c.text)), cmpopts.EquateNaNs()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// A trainer that names each figure anew does not make the run so large that MLflow's answers about it are.
func TestManyNames(t *testing.T) {
	var text strings.Builder
	for line := range 2000 {
		fmt.Fprintf(&text, `{"epoch": %d, "loss": 1, "a%d": 1, "b%d": 2}`+"\n", line, line, line)
	}
	names := map[string]int{}
	for _, e := range ParseEpochs([]byte(text.String())) {
		for name := range e.Values {
			names[name]++
		}
	}
	if len(names) != maxNames || names["loss"] != 2000 {
		t.Errorf("%d names, %d losses", len(names), names["loss"])
	}
}

func TestName(t *testing.T) {
	for name, want := range map[string]string{
		"trainer/loss": "trainer/loss", "AP/Zelle 1": "AP/Zelle 1", "AP/猫": "AP/猫",
		"AP/a&b": "AP/a_b-", "a//b": "a/_/b-", "../x": "__/x-", "/x": "_/x-", "": "_-",
	} {
		if got := Name(name); got != want && (!strings.HasSuffix(want, "-") || !strings.HasPrefix(got, want)) {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
	if Name("a&b") == Name("a|b") {
		t.Error("two names become the same one")
	}
}

func FuzzParseEpochs(f *testing.F) {
	f.Add([]byte("{\"epoch\": 1, \"loss\": 0.5}\n{\"epoch\": NaN, \"lr\": -Infinity}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, e := range ParseEpochs(data) {
			if e.Step < 0 || len(e.Values) > maxKeys {
				t.Errorf("%+v", e)
			}
		}
	})
}

func FuzzName(f *testing.F) {
	for _, name := range []string{"a", "../..", "a//b", "\xff", strings.Repeat("/", 300)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		clean := Name(name)
		if badName.MatchString(clean) || clean == "" || utf8.RuneCountInString(clean) > maxKey ||
			strings.HasPrefix(clean, "/") || strings.HasSuffix(clean, "/") || strings.Contains(clean, "//") ||
			strings.Contains("/"+clean+"/", "/../") || strings.Contains("/"+clean+"/", "/./") {
			t.Errorf("%q is %q", name, clean)
		}
	})
}
