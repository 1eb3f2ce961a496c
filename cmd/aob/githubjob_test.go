package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/hostile"
)

// An annotation is one workflow command, whatever the text: the runner reads back what was meant, and no other command.
func TestAnnotations(t *testing.T) {
	got := annotation{level: "error", file: "models/a,b:c.yaml", line: 3, column: 7, title: "aob validate",
		text: "100%\nof ##[add-mask]it"}.command()
	const want = "::error file=models/a%2Cb%3Ac.yaml,line=3,col=7,title=aob validate::100%25 of ## [add-mask]it"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, text := range hostile.Lots(10) {
		line := annotation{level: "notice", file: text, title: text, text: text}.command()
		if err := hostile.Screen(line); err != nil || strings.Contains(line, "\n") || strings.Contains(line, "##[") {
			t.Errorf("%.40q: %q, %v", text, line, err)
		}
		head, said, ok := strings.Cut(strings.TrimPrefix(line, "::"), "::") // as the runner does
		if back := strings.NewReplacer("%25", "%").Replace(said); !ok || !strings.HasPrefix(head, "notice ") ||
			back != strings.ReplaceAll(delivery.Terminal(text), "##[", "## [") {
			t.Errorf("%.40q is read back as %q", text, back)
		}
		for property := range strings.SplitSeq(strings.TrimPrefix(head, "notice "), ",") {
			if name, _, _ := strings.Cut(property, "="); head != "notice " && name != "file" && name != "title" {
				t.Errorf("%.40q has made the property %q", text, property)
			}
		}
	}
}

// The summary of a job changes in words alone.
func TestOutsideTextIsTextInAJob(t *testing.T) {
	write := func(text string) string {
		v := filled[validation](text)
		_, markdown := v.job()
		return markdown
	}
	for _, text := range hostile.Lots(10) {
		if err := hostile.Markdown(write(hostile.Harmless), write(text)); err != nil {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

// The steps of the action are run as a runner runs them, with inputs that are no shell.
func TestAction(t *testing.T) {
	if testing.Short() {
		t.Skip("builds aob: run it without -short")
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var action struct {
		Inputs map[string]struct{ Default string }
		Runs   struct {
			Steps []struct {
				Shell, Run string
				Env        map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(data, &action); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	// run runs all scripts, and returns what they print and the summary.
	run := func(dir string, inputs map[string]string) (out, summary string, err error) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "summary")
		var all bytes.Buffer
		for _, step := range action.Runs.Steps {
			if step.Run == "" {
				continue // what another action does
			}
			cmd := exec.CommandContext(t.Context(), step.Shell, "--noprofile", "--norc", "-eo", "pipefail", "-c",
				step.Run)
			cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &all, &all
			cmd.Env = append(os.Environ(), "RUNNER_TEMP="+temp, summaryVariable+"="+file)
			for name, value := range step.Env {
				expression := strings.TrimSuffix(strings.TrimPrefix(value, "${{ "), " }}")
				if input, is := strings.CutPrefix(expression, "inputs."); is {
					declared, known := action.Inputs[input]
					if value = declared.Default; !known {
						t.Fatalf("%s is no input", input)
					}
					if given, ok := inputs[input]; ok {
						value = given
					}
				} else if value = root; expression != "github.action_path" {
					t.Fatalf("unknown expression %q", expression)
				}
				cmd.Env = append(cmd.Env, name+"="+value)
			}
			if err := cmd.Run(); err != nil {
				text, _ := os.ReadFile(file)
				return all.String(), string(text), err
			}
		}
		text, _ := os.ReadFile(file)
		return all.String(), string(text), nil
	}

	work := t.TempDir()
	if err := os.CopyFS(work, aob.Intent); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(work, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, summary, err := run(work, nil)
	if err != nil || strings.Contains(out, "::error") ||
		!strings.Contains(summary, "1 model, 1 gate, 1 fleet: no complaint") ||
		!strings.Contains(summary, "This is no evidence") {
		t.Errorf("%v: %s\nsummary: %s", err, out, summary)
	}
	model := filepath.Join("models", "shapes.yaml")
	good, err := os.ReadFile(filepath.Join(work, model))
	if err != nil {
		t.Fatal(err)
	}
	write(model, string(good)+"clases: [a]\n")
	out, summary, err = run(work, nil)
	if err == nil || !strings.Contains(out, "::error file=models/shapes.yaml,line=") ||
		!strings.Contains(summary, "1 complaint") {
		t.Errorf("%v: %s\nsummary: %s", err, out, summary)
	}
	write(model, string(good))

	gitOutput(t, "-C", work, "init", "-q", "-b", "main")
	gitOutput(t, "-C", work, "add", "models", "gates", "fleets")
	gitOutput(t, "-C", work, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "first")
	gitOutput(t, "clone", "-q", "--bare", work, filepath.Join(work, "intent.git"))
	write("aob.yaml", "repository: intent.git\nstate: state\ndatasets: {dir: {shapes: "+work+"}}\n")
	out, summary, err = run(work, map[string]string{"command": "plan", "config": "aob.yaml"})
	if err != nil || !strings.Contains(summary, "### aob plan\n\n```\n") || !strings.Contains(summary, "aob/intent") {
		t.Errorf("%v: %s\nsummary: %s", err, out, summary)
	}

	write("truth.json", `{"images": [{"id": 1, "width": 10, "height": 10}], "categories": [{"id": 1, "name": "a"}],
		"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}]}`)
	write("found.json", `[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "score": 0.9}]`)
	out, summary, err = run(work, map[string]string{"command": "eval", "truth": "truth.json",
		"detections": "found.json"})
	if err != nil || !strings.Contains(summary, "### aob eval") || !strings.Contains(summary, "AP") {
		t.Errorf("%v: %s\nsummary: %s", err, out, summary)
	}

	const code = `"; touch evil; $(touch evil); '`
	for _, c := range []struct {
		inputs map[string]string
		want   string
	}{
		{map[string]string{"command": code}, "::error::The input command is neither"},
		{map[string]string{"dir": code}, "aob: "},
		{map[string]string{"dir": "--config=/etc/passwd"}, "aob: "},
		{map[string]string{"command": "plan"}, "the input config is missing"},
		{map[string]string{"command": "plan", "config": code}, "aob: "},
		{map[string]string{"command": "eval", "truth": "truth.json"}, "the input detections is missing"},
		{map[string]string{"command": "eval", "truth": code, "detections": code, "against": code}, "aob: "},
	} {
		if out, _, err := run(work, c.inputs); err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: %v: %s, want %q", c.inputs, err, out, c.want)
		}
		if _, err := os.Stat(filepath.Join(work, "evil")); err == nil {
			t.Fatalf("%v was run", c.inputs)
		}
	}
}
