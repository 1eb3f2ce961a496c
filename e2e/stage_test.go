package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/tools/venvtest"
)

// TestStages takes the stages of a model without a server: as the workflow of GitHub Actions does, by a real Prefect
// flow and by a real Airflow DAG, all of docs/orchestrators. Then its server judges the same model for itself.
func TestStages(t *testing.T) {
	n := findPrograms(t)
	p := newFolder(t, n)
	world, intent, work := p.path("world"), p.path("world", "intent"), p.path(".aob")
	p.env = append(p.env, "PATH="+n.bin+":"+os.Getenv("PATH"), "AOB_CONFIG="+filepath.Join(world, "aob.yaml"),
		"AOB_INTENT="+intent, "AOB_WORK="+work, "AOB_SOCKET="+filepath.Join(world, "state", "aob.sock"), "MODEL=shapes")
	run := func(t *testing.T, line string, env ...string) string {
		t.Helper()
		cmd := p.command(line, env...)
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v\n%s%s", line, err, out.Bytes(), said.Bytes())
		}
		return out.String()
	}
	run(t, "aob init world --images 40")
	const git = `git -C world/intent -c user.name=ada -c user.email=ada@example.com `
	replace(t, filepath.Join(intent, "gates", "production.yaml"), `min: [0-9.]+`, "min: 0.0001")
	replace(t, filepath.Join(intent, "gates", "production.yaml"), `unsure: \w+`, "unsure: ignore")
	run(t, git+"commit -qam 'a gate that any model passes' && "+git+"push -q origin main")
	replace(t, filepath.Join(intent, "models", "shapes.yaml"), `epochs: \d+`, "epochs: 1")

	t.Run("GitHub Actions", func(t *testing.T) {
		for _, step := range steps(t) {
			run(t, step)
		}
		var verdicts []struct{ Gate, Outcome string }
		read(t, p.path("verdicts.json"), &verdicts)
		if len(verdicts) != 1 || verdicts[0].Gate != "production" || verdicts[0].Outcome != "pass" {
			t.Errorf("got %+v", verdicts)
		}
	})
	if t.Failed() {
		return // the stages below need what these left
	}
	const train = `aob train shapes --config "$AOB_CONFIG" --dir "$AOB_INTENT" -o json `

	t.Run("again", func(t *testing.T) {
		before, err := os.ReadFile(p.path("trained.json"))
		if err != nil {
			t.Fatal(err)
		}
		if after := run(t, train); after != string(before) {
			t.Errorf("the same training gives another result: %s", after)
		}
		if runs, err := filepath.Glob(filepath.Join(work, "runs", "train-*")); err != nil || len(runs) != 1 {
			t.Errorf("%d trainings, %v", len(runs), err)
		}
	})

	t.Run("upgraded", func(t *testing.T) {
		// The trainer of another version of AOB differs in a comment.
		if err := os.CopyFS(p.path("world", "trainers"), os.DirFS(filepath.Join("..", "trainers"))); err != nil {
			t.Fatal(err)
		}
		replace(t, p.path("world", "trainers", "tiny", "train.py"), `\z`, "# another version\n")
		config := filepath.Join(world, "aob.yaml")
		replace(t, config, `\z`, "trainers: trainers\n")
		before, err := os.ReadFile(p.path("trained.json"))
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.command(train).CombinedOutput()
		if err != nil || !strings.Contains(string(out), strings.TrimSpace(string(before))) ||
			!strings.Contains(string(out), "trained before, with other files of tiny@1") {
			t.Errorf("%v: the same training gives another result: %s", err, out)
		}
		fresh := run(t, train+"--fresh")
		if fresh == string(before) || run(t, train) != fresh {
			t.Errorf("--fresh: %s", fresh)
		}
		replace(t, config, `trainers: trainers\n`, "")
	})

	t.Run("killed", func(t *testing.T) {
		// The command is killed once its training works; the next one waits for it, and trains nothing anew.
		first := p.command("exec " + train + "--seed 2")
		said, err := first.StderrPipe()
		if err == nil {
			err = first.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		seen := make([]byte, 4096)
		for text := ""; !strings.Contains(text, "train:"); {
			n, err := said.Read(seen)
			if text += string(seen[:n]); err != nil {
				t.Fatalf("it ended: %s", text)
			}
		}
		_ = first.Process.Signal(syscall.SIGKILL)
		_ = first.Wait()
		var trained struct {
			Seed   int
			Result struct{ Attempts int }
		}
		if err := json.Unmarshal([]byte(run(t, train+"--seed 2")), &trained); err != nil {
			t.Fatal(err)
		}
		if trained.Seed != 2 || trained.Result.Attempts != 1 {
			t.Errorf("got %+v", trained)
		}
	})

	t.Run("refused", func(t *testing.T) {
		replace(t, filepath.Join(intent, "gates", "production.yaml"), `min: [0-9.]+`, "min: 0.99")
		out, err := p.command(`aob gate judge --scores scores.json --dir "$AOB_INTENT"`).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "aob: shapes fails gate production") {
			t.Errorf("%v: %s", err, out)
		}
		replace(t, filepath.Join(intent, "gates", "production.yaml"), `min: [0-9.]+`, "min: 0.0001")
	})

	t.Run("variant", func(t *testing.T) {
		model := filepath.Join(intent, "models", "shapes.yaml")
		out, err := p.command(train + "--variant fp16").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "models/shapes.yaml does not list fp16 under variants") {
			t.Errorf("%v: %s", err, out)
		}
		replace(t, model, `(?m)\z`, "variants: [fp32, fp16]\n")
		defer replace(t, model, `variants: .*\n`, "")
		gate := filepath.Join(intent, "gates", "production.yaml")
		replace(t, gate, `checks:\n`, "checks:\n  - {metric: mAP, maxDrop: 0.9, against: fp32, unsure: ignore}\n")
		run(t, train+"--variant fp16 >variants.json")
		var trained struct {
			Bundle   string
			Variants []struct{ Variant, Bundle string }
		}
		read(t, p.path("variants.json"), &trained)
		if len(trained.Variants) != 1 || trained.Variants[0].Variant != "fp16" ||
			trained.Variants[0].Bundle == trained.Bundle {
			t.Fatalf("got %+v", trained)
		}
		const eval = `aob eval --trained variants.json --config "$AOB_CONFIG" --dir "$AOB_INTENT" `
		for _, variant := range []string{"fp32", "fp16"} {
			want := strings.TrimPrefix(variant, "fp32")
			run(t, eval+"--variant "+variant+" -o json >measured.json")
			var measured struct {
				Variant string
				Gates   map[string]struct{ FP32 any }
			}
			read(t, p.path("measured.json"), &measured)
			if measured.Variant != want || (measured.Gates["production"].FP32 != nil) != (want != "") {
				t.Errorf("%s: got %+v", variant, measured)
			}
			said := run(t, `aob gate judge --scores measured.json --dir "$AOB_INTENT"`)
			if !strings.Contains(said, "pass") {
				t.Errorf("%s: %s", variant, said)
			}
		}
		if out, err := p.command(eval + "--variant int8").CombinedOutput(); err == nil ||
			!strings.Contains(string(out), "shapes was trained without the variant int8") {
			t.Errorf("%v: %s", err, out)
		}
		replace(t, gate, `mAP, maxDrop: 0.9, against: fp32`, "AP50, min: 0.999")
		defer replace(t, gate, `.*min: 0.999.*\n`, "")
		out, err = p.command(`aob gate judge --scores measured.json --dir "$AOB_INTENT"`).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "aob: shapes fp16 fails gate production") {
			t.Errorf("%v: %s", err, out)
		}
	})

	t.Run("Prefect", func(t *testing.T) {
		python := venvtest.Python(t, "prefect")
		out := run(t, "exec "+python+" \"$FLOW\" shapes", "FLOW="+orchestrator(t, "prefect_flow.py"),
			"PREFECT_HOME="+p.path("prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED=false",
			"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=300")
		if !strings.Contains(out, "{'production': 'pass'}") {
			t.Errorf("got %s", out)
		}
	})

	t.Run("Airflow", func(t *testing.T) {
		airflow := venvtest.Program(t, "airflow", "airflow")
		env := []string{"AIRFLOW_HOME=" + p.path("airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES=False",
			"AIRFLOW__CORE__DAGS_FOLDER=" + filepath.Dir(orchestrator(t, "airflow_dag.py")),
			"PYTHONDONTWRITEBYTECODE=1"}
		run(t, airflow+" db migrate", env...)
		out := run(t, airflow+` dags test aob --conf '{"model": "shapes"}' 2>&1`, env...)
		var verdicts []struct{ Outcome string }
		read(t, filepath.Join(work, "shapes.verdicts.json"), &verdicts)
		if len(verdicts) != 1 || verdicts[0].Outcome != "pass" {
			t.Errorf("got %+v\n%s", verdicts, out)
		}
	})

	t.Run("release", func(t *testing.T) {
		run(t, git+"checkout -q -b larger && "+git+"commit -qam larger && "+git+"push -q origin larger")
		p.serve(t, `aob serve --config "$AOB_CONFIG" 2>serve.log`)
		out := run(t, `aob release larger --head "$(git -C world/intent rev-parse HEAD)" --wait 5m -o json`)
		if !strings.Contains(out, `"state": "success"`) {
			t.Errorf("got %s", out)
		}
	})
}

// steps returns the commands of the workflow of GitHub Actions, in order.
func steps(t *testing.T) (list []string) {
	data, err := os.ReadFile(orchestrator(t, "github-actions.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var workflow struct {
		Jobs map[string]struct {
			Steps []struct{ Run string }
		}
	}
	if err := yaml.Unmarshal(data, &workflow); err != nil {
		t.Fatal(err)
	}
	for _, step := range workflow.Jobs["train"].Steps {
		if step.Run != "" {
			list = append(list, step.Run)
		}
	}
	if len(list) != 3 {
		t.Fatalf("got %q", list)
	}
	return list
}

func orchestrator(t *testing.T, file string) string {
	path, err := filepath.Abs(filepath.Join("..", "docs", "orchestrators", file))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func replace(t *testing.T, file, pattern, with string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, regexp.MustCompile(pattern).ReplaceAll(data, []byte(with)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string, v any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}
