package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/retention"
)

// docs/retention.md has the defaults of the configuration, and a limit for every kind of stored things.
func TestRetentionIsAsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/retention.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(data)
	if block == nil {
		t.Fatal("docs/retention.md has no configuration")
	}
	plain, complaints := intent.ParseServer("aob.yaml", []byte("repository: x.git\n"), nil, nil)
	written, more := intent.ParseServer("aob.yaml", []byte("repository: x.git\n"+string(block[1])), nil, nil)
	if len(complaints)+len(more) > 0 {
		t.Fatal(complaints, more)
	}
	if plain.Retention != written.Retention {
		t.Errorf("docs/retention.md has %+v, the defaults are %+v", written.Retention, plain.Retention)
	}
	limits := limitsOf(plain.Retention)
	for _, kind := range retention.Kinds {
		if limits[kind] == 0 {
			t.Errorf("%s has no limit", kind)
		}
	}
}

// docs/scaling.md names metrics that there are, and has the figures of BENCHMARKS.md.
func TestScalingIsAsMeasured(t *testing.T) {
	page, err := os.ReadFile("../../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := os.ReadFile("../../reconciler/web/metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`(aob_[a-z_]+)`").FindAllStringSubmatch(string(page), -1)
	for _, name := range names {
		if !strings.Contains(string(metrics), name[1]) {
			t.Errorf("there is no metric %s", name[1])
		}
	}
	if len(names) < 5 {
		t.Errorf("docs/scaling.md names %s", delivery.Count(len(names), "metric"))
	}
	figures, err := os.ReadFile("../../BENCHMARKS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, figure := range []string{"1.1 / 5.5 ms", "1.4 ms"} {
		for name, text := range map[string][]byte{"docs/scaling.md": page, "BENCHMARKS.md": figures} {
			if !strings.Contains(string(text), figure) {
				t.Errorf("%s lacks %s", name, fmt.Sprintf("%q", figure))
			}
		}
	}
}
