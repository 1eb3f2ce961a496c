package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The gate of a pull request asks for a latency. The server asks the fleet's bench device, its agent measures the
// bundle with aob-detect, and the server signs the result, by which the gate is judged.
func TestBenchDevice(t *testing.T) {
	w := newWorkshop(t, findPrograms(t), "bench", map[string]string{
		"README.md": "# What our devices run\n",
		"gates/any.yaml": `apiVersion: aob/v1
kind: Gate
name: any
covers: [colors]
classes: [red, blue]
evaluate: {dataset: {dir: shapes}, split: test}
checks:
  - {metric: size, max: 20MB}
  - {metric: latency.p50, profiles: all, max: 60s}
`,
		"fleets/robots.yaml": "apiVersion: aob/v1\nkind: Fleet\nname: robots\nruns: colors\nsoak: 1s\n" +
			"profiles: {cpu-fp32: {board: pc}}\nbench: {match: {role: bench}}\n"})
	writeFiles(t, w.path("shapes"), colors(t))
	w.start(t, func() string {
		return fmt.Sprintf(workshopConfiguration, w.address, w.counters, w.path("shapes"),
			filepath.Join(w.bin, "aob-detect"), w.library, w.terraform, python)
	})
	w.ring = "robots"
	w.startAgent(t, "robot-1", "--label", "board=pc") // is not a bench device
	start := func() {
		w.startAgent(t, "bench-1", "--label", "board=pc", "--label", "role=bench", "--bench", "cpu-fp32")
	}
	start()
	until(t, func() error {
		if out := w.aob(t, "device", "list"); !strings.Contains(out, "bench-1") {
			return errors.New("the bench device is not known yet")
		}
		return nil
	})
	if err := w.agents["bench-1"].end(); err != nil {
		t.Fatal(err)
	}
	w.clone.push(t, "first", "colors: a first model", map[string]string{"models/colors.yaml": `apiVersion: aob/v1
kind: Model
name: colors
dataset: {dir: shapes}
classes: [red, blue]
train: {with: tiny@1, resolution: 64, epochs: 2, batch: {effective: 2}, args: {channels: 4}}
`})
	until(t, func() error {
		pr, err := w.pull(t.Context(), "first")
		if err == nil && !strings.Contains(pr.Text, "device bench-1 of fleet robots is asked") {
			err = fmt.Errorf("the pull request is %s: %s", pr.State, pr.Text)
		}
		return err
	})
	start() // at its start it asks what there is to do, and then once a minute
	// On a machine with other work the repeats may be too far apart: then they are no data, and the device is asked
	// again. That is right, too.
	until(t, func() error {
		pr, err := w.pull(t.Context(), "first")
		switch {
		case err != nil:
			return err
		case pr.State == delivery.CheckFailure:
			return fatal{fmt.Errorf("the pull request fails: %s", pr.Text)}
		}
		log, err := os.ReadFile(w.serverLog())
		if err == nil && !strings.Contains(string(log), "bench of cpu-fp32") {
			err = fmt.Errorf("no bench is signed; the pull request is %s: %s", pr.State, pr.Text)
		}
		return err
	})
	w.close(t)
}
