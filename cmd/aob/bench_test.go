package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// docs/bench.md has the numbers of the code, its stages, and flags that there are.
func TestBenchDocument(t *testing.T) {
	data, err := os.ReadFile("../../docs/bench.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	s := delivery.GateBench()
	for _, want := range []string{
		fmt.Sprintf("images to warm up (%d by default) come %d repeats of %d images", s.WarmUp, s.Repeats, s.Images),
		fmt.Sprintf("at least %d repeats of %d images after %d to warm up", s.Repeats, s.Images, s.WarmUp),
		fmt.Sprintf("its spread is above %g %%", 100*delivery.MaxSpread),
		delivery.BenchType,
	} {
		if !strings.Contains(strings.ReplaceAll(text, "\n", " "), want) {
			t.Errorf("docs/bench.md does not say %q", want)
		}
	}
	for _, stage := range delivery.BenchStages {
		if !strings.Contains(text, "\n| `"+stage+"` | ") {
			t.Errorf("docs/bench.md has no stage %s", stage)
		}
	}
	flags := newBenchCommand().Flags()
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "    aob bench ") {
			continue
		}
		command, _, _ := strings.Cut(line, " | ")
		for _, m := range regexp.MustCompile(` -(-?)([a-z]+)`).FindAllStringSubmatch(command, -1) {
			known := flags.Lookup(m[2]) != nil
			if m[1] == "" {
				known = flags.ShorthandLookup(m[2]) != nil
			}
			if !known {
				t.Errorf("there is no flag %s in %s", m[0], line)
			}
		}
	}
}
