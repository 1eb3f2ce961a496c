package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/stage"
	"github.com/autonomos/aob/reconciler/trust"
)

// TestReproduce releases the better of two seeds, with thresholds, and trains it again from its evidence, with the
// commands of docs/provenance.md. Then something is not as it was.
func TestReproduce(t *testing.T) {
	n := findPrograms(t)
	dataset := filepath.Join(t.TempDir(), "shapes")
	if out, err := exec.Command(python, "../trainers/tiny/shapes.py", dataset, "--train", "48", "--valid", "24",
		"--test", "24").CombinedOutput(); err != nil {
		t.Fatalf("make the dataset: %v: %s", err, out)
	}
	model := shapesModel("shapes", 3) + "thresholds: {default: 0.05}\n"
	w := newWorkshop(t, n, "reproduce", map[string]string{"models/shapes.yaml": shapesModel("shapes", 1),
		"gates/production.yaml": gateFile("production", "shapes", "ada", "{metric: mAP, min: 0}")})
	configuration := ""
	w.start(t, func() string {
		configuration = fmt.Sprintf(workshopConfiguration, w.address, w.counters, dataset,
			filepath.Join(w.bin, "aob-detect"), w.library, w.terraform, python)
		return configuration
	})
	w.clone.push(t, "first", "shapes: first", map[string]string{
		"models/shapes.yaml": strings.Replace(model, "seeds: [1]", "seeds: [1, 2]", 1)})
	w.merge(t, w.green(t, "first"))
	until(t, func() error {
		status, err := w.api.Status(t.Context())
		if err == nil && (len(status.Models) != 1 || status.Models[0].Accepted == nil) {
			err = fmt.Errorf("main has not accepted version 1: %+v", status.Models)
		}
		return err
	})
	w.clone.git(t, "checkout", "-q", "main")
	w.clone.git(t, "pull", "-q", "origin", "main")
	if err := os.Link(w.path("state", "keys", "evidence.key.pub"), w.path("evidence.key.pub")); err != nil {
		t.Fatal(err)
	}

	run := func(line string) (stage.Reproduction, string, error) {
		cmd := exec.Command("/bin/bash", "-ec", line)
		cmd.Dir, cmd.Env = w.dir, append(w.environment(), "PATH="+w.bin+":"+os.Getenv("PATH"),
			"AOB_SOCKET="+w.path("state", "aob.sock"))
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		err := cmd.Run()
		var r stage.Reproduction
		if strings.Contains(line, "-o json") && out.Len() > 0 {
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				t.Fatal(err)
			}
		}
		return r, out.String() + said.String(), err
	}

	// The page's commands, in its order. The first one trains; both seeds were trained on the server.
	lines := regexp.MustCompile(`(?m)^    (aob reproduce [^#\n]*)`).FindAllStringSubmatch(page(t, "provenance.md"), -1)
	if len(lines) != 3 {
		t.Fatalf("docs/provenance.md has %d commands", len(lines))
	}
	for i, line := range lines {
		command := strings.Replace(line[1], "/backup/state", w.path("state"), 1)
		r, said, err := run(command + " -o json")
		if err != nil {
			t.Fatalf("%s: %v: %s", command, err, said)
		}
		on := map[string]string{}
		for _, c := range r.Figures {
			if on[c.On+" "+c.Metric] = c.From; c.Released != c.Reproduced || !c.Within {
				t.Errorf("%+v", c)
			}
		}
		if !r.Reproduced || !r.SameModel || r.Released.Model != r.Again.Model || len(r.Differences) > 0 ||
			on["production mAP"] != stage.FromSeeds || on["production recall"] != stage.FromSeeds ||
			on["validation mAP"] != stage.FromSeeds {
			t.Errorf("%s: %+v", command, r)
		}
		if want := i == 2; r.Kept != want { // the second one is fresh
			t.Errorf("%s: kept is %v", command, r.Kept)
		}
	}
	const again = "aob reproduce shapes@1 --key evidence.key.pub --config aob.yaml "
	_, said, err := run(again)
	for _, want := range []string{`(?m)^shapes@1: bundle [0-9a-f]+, accepted at commit [0-9a-f]{12}$`,
		`(?m)^model.onnx: the same bytes \(`, `(?m)^production +mAP +0\.\d+ +0\.\d+ +0\.\d+ to 0\.\d+ +seeds +within$`,
		`(?m)^reproduced: every mAP is within its bounds$`} {
		if !regexp.MustCompile(want).MatchString(said) || err != nil {
			t.Errorf("want %s, %v:\n%s", want, err, said)
		}
	}

	// What is not as it was is said, and nothing is trained.
	other := filepath.Join(t.TempDir(), "shapes")
	if err := os.CopyFS(other, os.DirFS(dataset)); err != nil {
		t.Fatal(err)
	}
	annotations := filepath.Join(other, "train", "_annotations.coco.json")
	var file map[string]any
	read(t, annotations, &file)
	file["annotations"] = file["annotations"].([]any)[1:]
	data, err := json.Marshal(file)
	if err == nil {
		err = os.WriteFile(annotations, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	trainers := filepath.Join(t.TempDir(), "trainers")
	if err := os.CopyFS(trainers, os.DirFS("../trainers")); err != nil {
		t.Fatal(err)
	}
	replace(t, filepath.Join(trainers, "tiny", "train.py"), `\z`, "# another file\n")
	if err := exec.Command("chmod", "-R", "o-w", trainers).Run(); err != nil {
		t.Fatal(err)
	}
	forged := forge(t, w)
	for name, c := range map[string]struct{ configuration, line, want string }{
		"other dataset": {strings.Replace(configuration, dataset, other, 1), again,
			`dataset dir:shapes is not what the release was trained on: its content is [0-9a-f]+, and was [0-9a-f]+`},
		"no dataset": {strings.Replace(configuration, dataset, other+"-gone", 1), again,
			`the check of dir:shapes: dataset dir:shapes: there is no such folder on the server`},
		"other name": {strings.Replace(configuration, "{shapes: ", "{circles: ", 1), again,
			`datasets.dir of the server's configuration has no "shapes"`},
		"other trainer": {configuration + "trainers: " + trainers + "\n", again,
			`trainer tiny@1 has other files than the release was trained with: [0-9a-f]+, and then [0-9a-f]+`},
		"another's key": {configuration, strings.Replace(again, "evidence.key.pub", "forged/forged.key.pub", 1),
			`a statement about the release shapes@1 is not valid: .*\nhint: name the key`},
		"no version": {configuration, strings.Replace(again, "@1", "@7", 1), `shapes`},
		"other figures": {configuration, strings.Replace(again, "evidence.key.pub", "forged/forged.key.pub", 1) +
			"--from file://" + forged + " --dir " + w.clone.dir,
			`(?s)\nproduction +mAP +0\.\d+ +0\.\d+ +0\.\d+ to [01]\.\d+ +images +outside\n` +
				`.*aob: shapes@1 is not reproduced`},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(w.path("other.yaml"), []byte(c.configuration), 0o600); err != nil {
				t.Fatal(err)
			}
			_, said, err := run(strings.Replace(c.line, "aob.yaml", "other.yaml", 1))
			if err == nil || !regexp.MustCompile(c.want).MatchString(said) {
				t.Errorf("want %s, got %v:\n%s", c.want, err, said)
			}
		})
	}
	w.close(t)
}

// forge copies the bundles of a workshop, and signs the evidence about shapes@1 with another key: all figures are
// better than they are, and there was one seed. It returns the folder.
func forge(t *testing.T, w *workshop) string {
	t.Helper()
	folder := w.path("forged", "bundles")
	if err := os.CopyFS(folder, os.DirFS(w.path("state", "bundles"))); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(w.clone.dir, "models", "shapes.release.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	bundle := delivery.Digest(regexp.MustCompile(`sha256:[0-9a-f]{64}`).Find(file))
	trusted, err := trust.LoadPublic(w.path("evidence.key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	rel, err := stage.ReadRelease(t.Context(), artifact.Source{URL: "file://" + folder}, "shapes", 1, bundle, trusted)
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.Create(w.path("forged", "forged.key"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := artifact.Open(folder)
	if err == nil {
		err = os.WriteFile(w.path("forged", "forged.key.pub"), key.Public().PEM(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	rel.Training.Seeds = nil
	gate := rel.Gates["production"]
	for _, column := range gate.Scores.Table.Columns {
		for i := range column {
			column[i].Value += 0.5
			for j := range column[i].Resamples {
				column[i].Resamples[j] += 0.5
			}
		}
	}
	maps.DeleteFunc(gate.Scores.Table.Overall, func(string, float64) bool { return true })
	sign := evidence.New(store, key, nil)
	for _, s := range []struct {
		bundle    delivery.Digest
		kind      string
		predicate any
	}{{bundle, delivery.ReleaseType, rel.Statement}, {bundle, delivery.AcceptanceType, rel.Accepted},
		{bundle, delivery.ThresholdsType, rel.Resolved}, {bundle, delivery.ScoresType, gate},
		{rel.Training.Result.Bundle, delivery.TrainingType, rel.Training}} {
		if err := sign.Sign(t.Context(), s.bundle, s.kind, s.predicate); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

func page(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
