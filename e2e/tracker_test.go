package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/mlflow/mlflowtest"
)

// inMLflow is what MLflow's own client sees of the model shapes.
type inMLflow struct {
	Runs []struct {
		Name, Status string
		Tags         map[string]string
		Steps        map[string][]int
		Metrics      map[string]float64
	}
	Versions   []struct{ Number, Source, Run string }
	Production string // AOB's version that has the alias
}

const lookInMLflow = `
import json
from mlflow import MlflowClient
c, out = MlflowClient(), {"Runs": [], "Versions": [], "Production": ""}
e = c.get_experiment_by_name("shapes")
for r in c.search_runs([e.experiment_id], run_view_type=3, order_by=["attributes.start_time"]) if e else []:
    steps = {k: [m.step for m in c.get_metric_history(r.info.run_id, k)] for k in r.data.metrics}
    out["Runs"].append({"Name": r.info.run_name, "Status": r.info.status, "Tags": r.data.tags, "Steps": steps,
                        "Metrics": r.data.metrics})
for v in sorted(c.search_model_versions("name='shapes'"), key=lambda v: int(v.version)):
    out["Versions"].append({"Number": v.version, "Source": v.source, "Run": v.run_id})
try:
    out["Production"] = c.get_model_version_by_alias("shapes", "production").tags["aob.version"]
except Exception:
    pass
print(json.dumps(out))
`

// TestTracker takes two releases and a rollback to a real MLflow. It is down for the whole first promotion, and killed
// in the middle of the second, as AOB is.
func TestTracker(t *testing.T) {
	n := findPrograms(t)
	mlflow := mlflowtest.Prepare(t)
	dataset := filepath.Join(t.TempDir(), "shapes")
	script := filepath.Join("..", "trainers", "tiny", "shapes.py")
	out, err := exec.Command(python, script, dataset, "--train", "24", "--valid", "8", "--test", "24").CombinedOutput()
	if err != nil {
		t.Fatalf("make the dataset: %v: %s", err, out)
	}
	model := func(lr string) map[string]string {
		text := strings.ReplaceAll(shapesModel("shapes", 2), "lr: 2e-3", "lr: "+lr)
		return map[string]string{"models/shapes.yaml": text + "track: {mlflow: default}\n"}
	}
	w := newWorkshop(t, n, "tracker", map[string]string{"models/shapes.yaml": shapesModel("shapes", 1),
		"gates/production.yaml": gateFile("production", "shapes", "ada", "{metric: mAP, min: 0}")})
	w.start(t, func() string {
		return fmt.Sprintf(workshopConfiguration, w.address, w.counters, dataset, filepath.Join(w.bin, "aob-detect"),
			w.library, w.terraform, python) + fmt.Sprintf("track: {mlflow: {default: {url: %q}}}\n", mlflow.URL)
	})
	tracker := func() (line string, err error) {
		status, err := w.api.Status(t.Context())
		for _, notice := range status.Notices {
			if strings.HasPrefix(notice, "the tracker mlflow/default, which holds up nothing else, is not up to date") {
				line = notice
			}
		}
		return line, err
	}
	sees := func(want string, check func(inMLflow) bool) {
		t.Helper()
		until(t, func() error {
			var v inMLflow
			if err := json.Unmarshal([]byte(mlflow.Python(t, lookInMLflow)), &v); err != nil {
				return fatal{err}
			}
			if !check(v) {
				return fmt.Errorf("MLflow does not show %s: %+v", want, v)
			}
			return nil
		})
	}
	release := func(branch, lr string) {
		t.Helper()
		w.clone.git(t, "checkout", "-q", "main")
		w.clone.git(t, "pull", "-q", "origin", "main")
		w.clone.push(t, branch, "shapes: "+branch, model(lr))
	}
	accepted := func(version int) {
		t.Helper()
		until(t, func() error {
			status, err := w.api.Status(t.Context())
			if err == nil && (len(status.Models) != 1 || status.Models[0].Accepted == nil ||
				status.Models[0].Accepted.Version != version) {
				err = fmt.Errorf("main has not accepted version %d: %+v", version, status.Models)
			}
			return err
		})
	}

	// MLflow is down: the pull request turns green, is merged and accepted as ever.
	release("first", "3e-3")
	w.merge(t, w.green(t, "first"))
	accepted(1)
	if line, err := tracker(); err != nil || !strings.Contains(line, "no answer from "+mlflow.URL) {
		t.Errorf("aob status says of MLflow: %q, %v", line, err)
	}
	w.killServer()
	mlflow.Start(t)
	if err := w.startServer(); err != nil {
		t.Fatal(err)
	}
	w.answers(t)
	sees("version 1", func(v inMLflow) bool {
		return len(v.Runs) == 1 && v.Runs[0].Status == "FINISHED" && v.Production == "1" &&
			v.Runs[0].Tags["aob.pull_request.state"] == "merged"
	})
	until(t, func() error {
		line, err := tracker()
		if err == nil && line != "" {
			err = errors.New(line)
		}
		return err
	})

	// The release has its documents.
	until(t, func() error {
		cmd := exec.CommandContext(t.Context(), filepath.Join(w.bin, "aob"), "bundle", "verify", "shapes@1", "--key",
			w.path("state", "keys", "evidence.key.pub"))
		cmd.Env = append(w.environment(), "AOB_SOCKET="+w.path("state", "aob.sock"))
		_, err := output(cmd)
		return err
	})

	// Both are killed while the second one is trained.
	release("second", "4e-3")
	sees("the second training", func(v inMLflow) bool { return len(v.Runs) == 2 })
	mlflow.Kill()
	w.killServer()
	if err := w.startServer(); err != nil {
		t.Fatal(err)
	}
	w.answers(t)
	second := w.green(t, "second")
	mlflow.Start(t)
	merged := w.merge(t, second)
	accepted(2)
	sees("version 2", func(v inMLflow) bool { return v.Production == "2" })

	w.clone.git(t, "checkout", "-q", "main")
	w.clone.git(t, "pull", "-q", "origin", "main")
	w.clone.git(t, "revert", "--no-edit", "-m", "1", merged)
	w.clone.git(t, "push", "-q", "origin", "main")
	accepted(1)
	sees("the rollback", func(v inMLflow) bool { return v.Production == "1" })

	sees("two runs and two versions", func(v inMLflow) bool {
		if len(v.Runs) != 2 || len(v.Versions) != 2 {
			return false
		}
		for i, r := range v.Runs {
			steps := r.Steps["trainer/loss"]
			if r.Name != fmt.Sprintf("PR #%d seed 1", i+1) || r.Status != "FINISHED" ||
				len(steps) != 2 || steps[0] != 1 || steps[1] != 2 || r.Tags["aob.verdict"] != "pass" ||
				len(r.Steps["gate/production/mAP"]) != 1 || v.Versions[i].Run == "" ||
				!strings.HasPrefix(v.Versions[i].Source, "oci://"+w.address+"/bundles@sha256:") {
				return false
			}
		}
		return true
	})
	// The figures are those of the release file.
	status, err := w.api.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	figure := status.Models[0].Accepted.Measured[0].Metrics[delivery.MetricMAP].Value
	sees("the release's figures", func(v inMLflow) bool {
		return v.Runs[0].Metrics["gate/production/mAP"] == figure
	})
	w.stopServer(t)
}
