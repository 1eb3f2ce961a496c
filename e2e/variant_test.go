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
`, "fleets/robots.yaml": robots("fp16")})
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

	// Its fleet asks for FP16 in the same pull request, and gets it.
	w.ring = "robots"
	w.startAgent(t, "robot-1")
	w.merge(t, pr)
	w.runs(t, v.Bundle)
	if out := w.aob(t, "status"); !strings.Contains(out, "colors@1 fp16") {
		t.Errorf("aob status does not name the variant:\n%s", out)
	}
	if out := w.aob(t, "explain", "device", "robots/robot-1"); !strings.Contains(out, "colors version 1 as fp16") {
		t.Errorf("aob explain device does not name the variant:\n%s", out)
	}
	pulled := w.aob(t, "bundle", "pull", "colors", w.path("pulled"), "--variant", "fp16", "-o", "json")
	if !strings.Contains(pulled, string(v.Bundle)) {
		t.Errorf("aob bundle pull --variant fp16 says %s", pulled)
	}
	// What the model does not have is refused, and changes nothing.
	w.clone.push(t, "int8", "robots: INT8", map[string]string{"fleets/robots.yaml": robots("int8")})
	until(t, func() error {
		pr, err := w.pull(t.Context(), "int8")
		refused := pr.State == delivery.CheckFailure && strings.Contains(pr.Text, "int8 is not under variants:")
		if err == nil && !refused {
			err = fmt.Errorf("int8 is %s: %s", pr.State, pr.Text)
		}
		return err
	})
	w.clone.push(t, "fp32", "robots: FP32", map[string]string{"fleets/robots.yaml": robots("fp32")})
	w.merge(t, w.green(t, "fp32"))
	w.runs(t, pr.Models[0].Bundle)
	w.close(t)
}

// robots is the file of a fleet that runs a variant of colors.
func robots(variant string) string {
	return "apiVersion: aob/v1\nkind: Fleet\nname: robots\nruns: colors\nvariant: " + variant + "\nsoak: 1s\n"
}

// runs waits until every device serves a bundle, and the server knows them healthy.
func (w *workshop) runs(t *testing.T, bundle delivery.Digest) {
	t.Helper()
	w.converged(t, 1)
	until(t, func() error {
		for device, s := range w.devices(t) {
			if s.Bundle != bundle {
				return fmt.Errorf("%s serves bundle %s, not %s", device, s.Bundle.Short(), bundle.Short())
			}
		}
		return nil
	})
}

// aob runs a command of people.
func (w *workshop) aob(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(w.bin, "aob"), args...)
	cmd.Env = append(w.environment(), "AOB_SOCKET="+w.path("state", "aob.sock"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("aob %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	t.Logf("aob %s\n%s", strings.Join(args, " "), out)
	return string(out)
}
