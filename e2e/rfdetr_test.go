package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// TestRFDETR promotes a small RF-DETR, trained by the real package on real images: a pull request that shows the epochs
// of its training, whose trainer is killed once, turns green; merged, its model runs on a fleet.
func TestRFDETR(t *testing.T) {
	if os.Getenv("AOB_RFDETR") == "" {
		t.Skip("takes minutes and 7 GB of packages: AOB_RFDETR=1 runs it, as make test-rfdetr does")
	}
	shared := os.Getenv("AOB_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	images, err := filepath.Abs(filepath.Join(shared, "data", "bccd"))
	if err == nil {
		_, err = os.Stat(images)
	}
	if err != nil {
		t.Skipf("the shared data are missing (set AOB_SHARED): %v", err)
	}
	w := newWorkshop(t, findPrograms(t), "rfdetr", map[string]string{"README.md": "# What our devices run\n"})
	w.usersPackages(t)
	w.open(t, images, "ward")
	w.clone.push(t, "first", "cells: a first model", map[string]string{"models/cells.yaml": smallRFDETR(2),
		"fleets/ward.yaml": `apiVersion: aob/v1
kind: Fleet
name: ward
runs: cells
match: {site: ward}
waves: [1, 100%]
soak: 1s
advance: all-healthy
`, "gates/any.yaml": `apiVersion: aob/v1
kind: Gate
name: any
covers: [cells]
classes: [RBC, WBC, Platelets]
evaluate: {dataset: {dir: shapes}, split: test}
checks:
  - {metric: size, max: 150MB}
`})
	epoch := func(at int) {
		until(t, func() error {
			pr, err := w.pull(t.Context(), "first")
			if err == nil && pr.State == delivery.CheckFailure {
				return fatal{errors.New(pr.Text)}
			}
			for _, r := range pr.Runs {
				if r.Kind == delivery.RunTrain && r.Epoch >= at && r.Epochs == 2 && r.Batch > 0 {
					return nil
				}
			}
			return errors.Join(err, fmt.Errorf("the training is not in epoch %d: %s", at+1, pr.Text))
		})
	}
	epoch(0)
	epoch(1)
	killed := 0
	for pid, line := range w.inhabitants() {
		if strings.Contains(line, "rfdetr/train.py") && syscall.Kill(pid, syscall.SIGKILL) == nil {
			killed++
		}
	}
	if killed == 0 {
		t.Error("there was no trainer to kill")
	}
	pr := w.green(t, "first")
	if len(pr.Models) != 1 || pr.Models[0].Bundle == "" {
		t.Errorf("no bundle on the pull request: %+v", pr.Models)
	}
	w.merge(t, pr)
	w.converged(t, 1)
	w.close(t)
}

// usersPackages has the server use the trainer's packages of the user, which are not installed anew.
func (w *workshop) usersPackages(t *testing.T) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(w.dir, ".cache", "aob")
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"environments", "uv"} {
		if err := os.Symlink(filepath.Join(cache, "aob", name), filepath.Join(own, name)); err != nil {
			t.Fatal(err)
		}
	}
	if made, err := filepath.Glob(filepath.Join(own, "environments", "*", "environment.json")); err != nil ||
		len(made) == 0 {
		t.Skip("the trainer's packages are missing: bin/aob trainer install rfdetr@1.11.2")
	}
}

// smallRFDETR is a model's file: an RF-DETR that trains on a CPU in a few minutes.
func smallRFDETR(epochs int) string {
	return fmt.Sprintf(`apiVersion: aob/v1
kind: Model
name: cells
dataset: {dir: shapes}
classes: [RBC, WBC, Platelets]
train:
  with: rfdetr@1.11.2
  architecture: rf-detr-nano
  resolution: 96
  epochs: %d
  batch: {effective: 32, step: 8}
  args: {dec_layers: 1, num_queries: 20, num_select: 20, group_detr: 1, multi_scale: "off", num_workers: 0}
`, epochs)
}
