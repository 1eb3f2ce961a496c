package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A pull request asks for FP16 of a model. The tiny trainer makes it, aob-detect compares and times it, the gate judges
// it as it judges FP32, and the release file names it.
func TestVariants(t *testing.T) {
	w := newWorkshop(t, findPrograms(t), "variant", map[string]string{"README.md": "# What our devices run\n"})
	writeFiles(t, w.path("shapes"), colors(t))
	w.start(t, func() string {
		return fmt.Sprintf(workshopConfiguration, w.address, w.counters, w.path("shapes"),
			filepath.Join(w.bin, "aob-detect"), w.library, w.terraform, python)
	})
	w.clone.push(t, "first", "colors: a first model", map[string]string{"models/colors.yaml": `apiVersion: aob/v1
kind: Model
name: colors
dataset: {dir: shapes}
classes: [red, blue]
train: {with: tiny@1, resolution: 64, epochs: 2, batch: {effective: 2}, args: {channels: 4}}
thresholds: {default: bestF1}
variants: [fp32, fp16]
`, "gates/any.yaml": `apiVersion: aob/v1
kind: Gate
name: any
covers: [colors]
classes: [red, blue]
evaluate: {dataset: {dir: shapes}, split: test}
checks:
  - {metric: size, max: 20MB}
  - {metric: mAP, maxDrop: 1, against: fp32, unsure: ignore}
`})
	until(t, func() error { // kill the run that makes it
		for pid, line := range w.inhabitants() {
			if strings.Contains(line, "/variant-") && strings.Contains(line, " runner ") {
				return syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		return errors.New("no run makes a variant yet")
	})
	pr := w.green(t, "first")
	if len(pr.Models) != 1 || len(pr.Models[0].Variants) != 1 {
		t.Fatalf("the pull request has models %+v", pr.Models)
	}
	v := pr.Models[0].Variants[0]
	if v.Variant != "fp16" || v.State != delivery.CheckSuccess || len(v.Verdicts) != 1 || v.Parity == nil ||
		v.Times == nil {
		t.Fatalf("the variant is %+v", v)
	}
	if v.Parity.Cosine["labels"] < 0.99 || v.Parity.Images != 4 || v.Times.Variant.P50 <= 0 ||
		len(v.Times.Rounds) != 5 {
		t.Errorf("the variant has %+v and %+v", v.Parity, v.Times)
	}
	journals, err := filepath.Glob(w.path("state", "runs", "variant-*", "journal.jsonl"))
	if err != nil || len(journals) != 1 {
		t.Fatalf("the runs that make variants are %v, %v", journals, err)
	}
	if journal, err := os.ReadFile(journals[0]); err != nil || strings.Count(string(journal), `"start"`) < 2 {
		t.Errorf("it was killed, and its journal is %s, %v", journal, err)
	}
	w.clone.git(t, "fetch", "-q")
	file := w.clone.git(t, "show", "origin/first:models/colors.release.yaml")
	for _, text := range []string{"variants:", "variant: fp16", string(v.Bundle)} {
		if !strings.Contains(file, text) {
			t.Errorf("the release file does not say %q:\n%s", text, file)
		}
	}
	out, err := exec.Command(filepath.Join(w.bin, "aob"), "explain", "pr", fmt.Sprint(pr.Number), "--socket",
		w.path("state", "aob.sock")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "variant fp16") {
		t.Errorf("aob explain pr: %v\n%s", err, out)
	}
	w.close(t)
}
