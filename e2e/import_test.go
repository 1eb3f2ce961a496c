package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	trainers "github.com/autonomos/aob/reconciler/trainer"
)

// TestImportPage does what docs/trainers.md says of a model that was trained elsewhere, up to a green pull request.
func TestImportPage(t *testing.T) {
	w := newWorkshop(t, findPrograms(t), "import", map[string]string{"README.md": "# What our devices run\n"})
	fixture, err := os.ReadFile(filepath.Join("..", "reconciler", "detect", "testdata", "no_metadata.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	// The test's pictures have the classes red and blue.
	own := strings.NewReplacer("pallet", "red", "person", "blue", "0a1b…", delivery.Sum(fixture).Hex(),
		"/srv/models/pallets.onnx", fmt.Sprintf("%q", w.path("reds.onnx")))
	writeFiles(t, w.dir, map[string][]byte{"reds.onnx": fixture, "train/_annotations.coco.json": []byte(`{
		"categories": [{"id": 0, "name": "all", "supercategory": "none"},
			{"id": 1, "name": "red", "supercategory": "all"}, {"id": 2, "name": "blue", "supercategory": "all"}],
		"annotations": [{"category_id": 1}, {"category_id": 2}]}`)})
	writeFiles(t, w.path("shapes"), colors(t))
	do := func(line string) string {
		t.Helper()
		cmd := exec.Command("/bin/bash", "-ec", line)
		cmd.Dir, cmd.Env = w.dir, append(w.environment(), "AOB_ONNXRUNTIME="+w.library)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		return string(out)
	}
	var printed struct{ Weights string }
	weights, model := "", ""
	w.clone.git(t, "checkout", "-q", "-B", "imported", "origin/main")
	for _, step := range section(t, "trainers.md", "A model that was trained elsewhere") {
		text := own.Replace(step.text)
		switch {
		case step.file == "aob.yaml":
			if weights = text; weights != printed.Weights {
				t.Errorf("aob import prints\n%s\nand the page says\n%s", printed.Weights, text)
			}
		case step.file != "":
			model = text
			written, err := os.ReadFile(w.path(own.Replace(step.file)))
			if err != nil || string(written) != text {
				t.Fatalf("aob import wrote\n%s\nand the page says\n%s%v", written, text, err)
			}
		default:
			line := own.Replace(step.command)
			if said := do(line); !strings.Contains(said, delivery.Sum(fixture).Hex()) {
				t.Errorf("%s says %s", line, said)
			}
			if err := json.Unmarshal([]byte(do(line+" -o json")), &printed); err != nil {
				t.Fatal(err)
			}
		}
	}
	if weights == "" || model == "" {
		t.Fatal("the page has no configuration or no model")
	}
	w.start(t, func() string {
		return strings.Replace(fmt.Sprintf(workshopConfiguration, w.address, w.counters, w.path("shapes"),
			filepath.Join(w.bin, "aob-detect"), w.library, w.terraform, python), "shapes:", "reds:", 1) + weights
	})
	w.clone.push(t, "imported", "reds: as trained elsewhere", map[string]string{"models/reds.yaml": model,
		"gates/any.yaml": `apiVersion: aob/v1
kind: Gate
name: any
covers: [reds]
classes: [red, blue]
evaluate: {dataset: {dir: reds}, split: test}
checks:
  - {metric: size, max: 20MB}
`})
	if pr := w.green(t, "imported"); len(pr.Models) != 1 || pr.Models[0].Bundle == "" {
		t.Errorf("no bundle of the imported model: %+v", pr.Models)
	}
	w.close(t)
}

// TestRFDETRImports imports one real export of each version of RF-DETR with a rule of its own for slots: first as the
// package writes it, without metadata, and then as trainers/import ships it, with metadata.
func TestRFDETRImports(t *testing.T) {
	if os.Getenv("AOB_RFDETR") == "" {
		t.Skip("needs environments of three versions of rfdetr: AOB_RFDETR=1 runs it, as make test-rfdetr does")
	}
	n := find(t)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "aob")
	installed, err := intent.LoadTrainers(os.DirFS(filepath.Join("..", "trainers")))
	if err != nil {
		t.Fatal(err)
	}
	environments := trainers.Environments{Dir: cache, Python: python}
	environments.Fill(t.Context(), installed)
	programs := map[string]string{}
	if newest, ok := environments.Find(*installed["rfdetr@1.11.2"].Runs); ok {
		programs["1.11.2"] = newest.Python
	}
	for _, version := range []string{"1.4.3", "1.9.1"} {
		found, err := filepath.Glob(filepath.Join(cache, "rfdetr-"+version+"-*", "bin", "python"))
		if err != nil || len(found) == 0 {
			continue
		}
		programs[version] = found[0]
	}
	if len(programs) < 3 {
		t.Skipf("there are environments of %d of three versions: make rfdetr-epochs", len(programs))
	}
	annotations := filepath.Join(n.bccd, "train", "_annotations.coco.json")
	for version, program := range programs {
		t.Run(version, func(t *testing.T) {
			e := realExport{T: t, n: n, version: version, annotations: annotations}
			e.export(program)
			e.run()
		})
	}
}

// A realExport is an export of one version of RF-DETR.
type realExport struct {
	*testing.T
	n                    needs
	version, annotations string
	file                 string
	slots                map[string]int // the slot of each class, by the version's own code
}

// export makes the file.
func (e *realExport) export(program string) {
	e.Helper()
	folder := e.TempDir()
	cmd := exec.Command(program, "-W", "ignore", "../trainers/rfdetr/test_epochs/export_as.py", e.n.bccd, folder)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		e.Fatalf("%v: %s", err, lastLine([]byte(errs.String())))
	}
	var made struct {
		File  string
		Slots map[string]int
	}
	if err := json.Unmarshal(out, &made); err != nil {
		e.Fatal(err)
	}
	e.file, e.slots = filepath.Join(folder, made.File), made.Slots
}

// found is the part of the result of aob import that is compared.
type found struct {
	Slots    []string
	Metadata bool
	SHA256   string
}

// look runs aob import.
func (e *realExport) look(args ...string) (found, string, error) {
	cmd := exec.Command(filepath.Join(e.n.bin, "aob"), append([]string{"import", "-o", "json"}, args...)...)
	cmd.Env = append(os.Environ(), "AOB_ONNXRUNTIME="+e.n.library)
	var errs strings.Builder
	cmd.Stderr = &errs
	cmd.Dir = e.TempDir()
	out, err := cmd.Output()
	var f found
	if err == nil {
		err = json.Unmarshal(out, &f)
	}
	return f, errs.String(), err
}

func (e *realExport) run() {
	first, said, err := e.look(e.file, "--classes-file", e.annotations, "--rfdetr", e.version)
	if err != nil {
		e.Fatalf("%v: %s", err, said)
	}
	for class, slot := range e.slots {
		if slices.Index(first.Slots, class) != slot {
			e.Errorf("%s is slot %d by rfdetr %s, and the slots are %q", class, slot, e.version, first.Slots)
		}
	}
	other := map[string]string{"1.4.3": "1.9.1", "1.9.1": "1.11.2", "1.11.2": "1.9.1"}[e.version]
	for _, args := range [][]string{{}, {"--classes", "RBC,WBC,Platelets"},
		{"--classes-file", e.annotations, "--rfdetr", other}} {
		_, said, err := e.look(append([]string{e.file}, args...)...)
		if err == nil || !strings.Contains(said, "slots") {
			e.Errorf("%q: %v, %s", args, err, said)
		}
	}

	output := e.TempDir()
	run, err := json.Marshal(map[string]any{"key": "sha256:0", "seed": 1, "dataset": "/none", "output": output,
		"weights": map[string]any{"file": e.file, "sha256": first.SHA256},
		"spec": map[string]any{"classes": []string{"RBC", "WBC", "Platelets"}, "train": map[string]any{
			"with": "import@1", "from": "base", "epochs": 1, "args": map[string]any{"slots": first.Slots}}}})
	if err != nil {
		e.Fatal(err)
	}
	file := filepath.Join(e.TempDir(), "run.json")
	if err := os.WriteFile(file, run, 0o600); err != nil {
		e.Fatal(err)
	}
	if out, err := exec.Command(python, "../trainers/import/train.py", file).CombinedOutput(); err != nil {
		e.Fatalf("%v: %s", err, out)
	}
	shipped := filepath.Join(output, "model.onnx")
	again, said, err := e.look(shipped)
	if err != nil || !again.Metadata || !slices.Equal(again.Slots, first.Slots) {
		e.Errorf("with metadata: %+v, %v: %s; want the slots %q", again, err, said, first.Slots)
	}
	turned := slices.Clone(first.Slots)
	slices.Reverse(turned)
	if _, said, err := e.look(shipped, "--classes", strings.Join(turned, ",")); err == nil ||
		!strings.Contains(said, "by the metadata") {
		e.Errorf("other classes than the metadata: %v, %s", err, said)
	}
}
