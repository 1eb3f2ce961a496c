package intent_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	aob "github.com/autonomos/aob"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

// embedded returns the example set that aob init writes.
func embedded(t testing.TB) []intent.File {
	t.Helper()
	var files []intent.File
	for _, folder := range intent.Folders() {
		err := fs.WalkDir(aob.Intent, folder, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			data, err := fs.ReadFile(aob.Intent, path)
			files = append(files, intent.File{Path: path, Size: int64(len(data)), Data: data})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestExampleSet(t *testing.T) {
	got, complaints := intent.Parse(embedded(t), intent.Options{
		Datasets: map[string][]string{"dir": {"shapes"}},
		Zone:     func(name string) error { _, err := time.LoadLocation(name); return err },
	})
	for _, c := range complaints {
		t.Error(c)
	}
	if t.Failed() {
		return
	}
	m, g, f := got.Models.Of("shapes"), got.Gates.Of("production"), got.Fleets.Of("demo")
	if m.Train.With != "tiny@1" || m.Train.Precision != "fp32" || len(m.Variants) != 1 {
		t.Errorf("shapes: %+v", m)
	}
	if names := got.Covering("shapes"); len(names) != 1 || len(g.Checks) != 4 || g.Checks[2].Against != "release" {
		t.Errorf("production covers shapes by %q: %+v", names, g)
	}
	if want := []delivery.Wave{{Devices: 1}, {Share: 1}}; f.Runs != "shapes" || len(f.Waves) != 2 ||
		f.Waves[0] != want[0] || f.Waves[1] != want[1] {
		t.Errorf("demo: %+v", f)
	}
}

// Every file that the documentation shows is one that is taken.
func TestDocumentedFiles(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var files []intent.File
	for _, page := range pages {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(data), "```yaml\n")[1:] {
			text, _, _ := strings.Cut(block, "```")
			_, rest, _ := strings.Cut(text, "\nname: ")
			name, _, _ := strings.Cut(rest, "\n")
			if strings.Contains(text, "kind: Trainer") {
				name, _, _ = strings.Cut(name, " ")
				_, complaints := intent.ParseTrainer(page, name, []byte(text))
				for _, c := range complaints {
					t.Error(c)
				}
				continue
			}
			folder := "models/"
			if strings.Contains(text, "kind: Gate") {
				folder = "gates/"
			} else if strings.Contains(text, "kind: Fleet") {
				folder = "fleets/"
			}
			ending := ".yaml"
			if strings.Contains(text, "kind: Quarantine") {
				ending = ".quarantine.yaml"
			}
			files = append(files, intent.File{Path: folder + name + ending, Size: int64(len(text)), Data: []byte(text)})
		}
	}
	_, complaints := intent.Parse(files, intent.Options{})
	for _, c := range complaints {
		t.Error(c)
	}
	if len(files) < 2 {
		t.Errorf("only %d files are shown", len(files))
	}
}

// The guide to the built-in trainer says which of its values a model's file refuses.
func TestTrainersGuideSaysWhatModelsRefuse(t *testing.T) {
	guide, err := os.ReadFile("../../trainers/tiny/README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(guide)), " ")
	example, ok := delivery.Find(embedded(t), func(f intent.File) bool { return f.Path == "models/shapes.yaml" })
	if !ok {
		t.Fatal("there is no models/shapes.yaml")
	}
	trainers, err := intent.LoadTrainers(os.DirFS("../../trainers"))
	if err != nil {
		t.Fatal(err)
	}
	for value, path := range map[string]string{"constant": "train.optimizer.schedule", "amp": "train.precision"} {
		edited, err := intent.Set(example.Data, []intent.Assignment{{Path: path, Value: value}})
		if err != nil {
			t.Fatal(err)
		}
		_, complaints := intent.Parse([]intent.File{{Path: example.Path, Data: edited, Size: int64(len(edited))}},
			intent.Options{Trainers: trainers})
		said := false
		for _, sentence := range strings.Split(text, ";") {
			said = said || strings.Contains(sentence, value+"`") &&
				strings.Contains(sentence, "a model's YAML has only")
		}
		if refused := len(complaints) > 0; refused != said {
			t.Errorf("%s: refused: %v, and the guide says so: %v: %v", value, refused, said, complaints)
		}
	}
}
