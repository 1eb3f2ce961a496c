package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/tools/podman/podmantest"
)

// ownTrainer keeps the contract of trainers, and its model is a file that lies beside it.
const ownTrainer = `import json, os, shutil, sys
from datetime import datetime, timezone
from pathlib import Path

run = json.loads(Path(sys.argv[1]).read_bytes())
train, output = run["spec"]["train"], Path(run["output"])
assert train["with"] == "mine@1.2" and train["architecture"] == "yolo-s" and train["resolution"] == 640, train
assert os.environ["TRAIN_KEY"].startswith("canary-") and "OTHER_KEY" not in os.environ, "secrets"
assert not any(name.startswith("AOB_SECRET_") for name in os.environ), "secrets under another name"
shutil.copy(Path(__file__).parent / "detector.onnx", output / "model.onnx")
told = "401 for ?token=" + os.environ["TRAIN_KEY"]  # a mistake
(output / "log.txt").write_text(told + "\n")
(output / "train.json").write_text(json.dumps({"learned": told}))
status = {"phase": "done", "message": told, "epoch": 1, "epochs": 1,
          "heartbeat": datetime.now(timezone.utc).isoformat()}
(output / ".part").write_text(json.dumps(status))
os.replace(output / ".part", output / "status.json")
`

const ownDescription = `apiVersion: aob/v1
kind: Trainer
name: mine
versions: ["1.2"]
architectures: [yolo-n, yolo-s]
defaults: {resolution: 640, epochs: 1, batch: {effective: 1}, optimizer: {lr: 0.01}}
secrets: [TRAIN_KEY]
`

// A server's own trainer trains the models that name it, with the server's Python and in a container.
func TestOwnTrainer(t *testing.T) {
	t.Run("python", func(t *testing.T) { trainOwn(t, "", "") })
	t.Run("container", func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes minutes: run it without -short")
		}
		engine, image := podmantest.Prepare(t)
		configuration := fmt.Sprintf("containers: {engine: %s, memory: 512MiB, pull: never, images: {mine@1.2: %q}}\n",
			engine, image)
		trainOwn(t, configuration, image)
	})
}

// trainOwn trains with more configuration. image is the image that the evidence must name; "" for none.
func trainOwn(t *testing.T, configuration, image string) {
	w := newWorkshop(t, findPrograms(t), "trainer", map[string]string{"README.md": "# What our devices run\n"})
	fixture, err := os.ReadFile(filepath.Join("..", "reconciler", "detect", "testdata", "detector.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, w.path("trainers", "mine"), map[string][]byte{"train.py": []byte(ownTrainer),
		"trainer.yaml": []byte(ownDescription), "detector.onnx": fixture})
	writeFiles(t, w.path("shapes"), colors(t))
	const canary = "canary-5b1f0c"
	writeFiles(t, w.path("secrets"), map[string][]byte{"train": []byte(canary + "\n"),
		"other": []byte("other-" + canary + "\n")})
	if image != "" {
		w.env = append(w.env, podmantest.Env()...)
	}
	w.start(t, func() string {
		return fmt.Sprintf(workshopConfiguration, w.address, w.counters, w.path("shapes"),
			filepath.Join(w.bin, "aob-detect"), w.library, w.terraform, python) + "trainers: trainers\n" +
			"secrets: {TRAIN_KEY: {file: secrets/train}, OTHER_KEY: {file: secrets/other}}\n" + configuration
	})
	w.clone.push(t, "first", "colors: a first model", map[string]string{"models/colors.yaml": `apiVersion: aob/v1
kind: Model
name: colors
dataset: {dir: shapes}
classes: [red, blue]
train: {with: mine@1.2, architecture: yolo-s}
`, "gates/any.yaml": `apiVersion: aob/v1
kind: Gate
name: any
covers: [colors]
classes: [red, blue]
evaluate: {dataset: {dir: shapes}, split: test}
checks:
  - {metric: size, max: 20MB}
`})
	pr := w.green(t, "first")
	if len(pr.Models) != 1 || pr.Models[0].Bundle == "" {
		t.Errorf("no bundle on the pull request: %+v", pr.Models)
	}
	status, err := w.api.Status(t.Context())
	if err != nil {
		t.Error(err)
	}
	runs := 0
	for _, r := range pr.Runs {
		if r.Kind == delivery.RunTrain {
			runs++
		}
	}
	if runs != 1 {
		t.Errorf("%d trainings, want 1", runs)
	}
	for _, r := range pr.Runs {
		if r.Kind != delivery.RunTrain {
			continue
		}
		log, err := w.api.Log(t.Context(), string(r.Key), 0)
		if err != nil {
			t.Fatal(err)
		}
		want := "401 for ?token=" + strings.Repeat("*", len(canary)) + "\n"
		if text, err := io.ReadAll(log); err != nil || string(text) != want {
			t.Errorf("the training's log is shown as %q, %v", text, err)
		}
		log.Close()
	}
	w.close(t)
	if image != "" {
		store, err := artifact.Open(w.path("state", "bundles"))
		if err != nil {
			t.Fatal(err)
		}
		trusted, err := trust.LoadPublic(w.path("state", "keys", "evidence.key.pub"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := evidence.New(store, nil, trusted).Load(t.Context())
		if err != nil || len(s.Trainings) == 0 {
			t.Fatalf("%d trainings, %v", len(s.Trainings), err)
		}
		for _, training := range s.Trainings {
			e := training.Input.Environment
			if e == nil || e.Image == "" || !strings.HasSuffix(image, string(e.Image)) || e.Lock != "" {
				t.Errorf("the evidence says that it ran in %+v", e)
			}
		}
	}
	for _, dir := range []string{w.dir, w.logs} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			byTrainer := strings.HasPrefix(path, w.path("state", "runs")) &&
				filepath.Base(filepath.Dir(path)) == "output"
			if err != nil || !e.Type().IsRegular() || path == w.path("secrets", e.Name()) || byTrainer {
				return err
			}
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(canary)) || strings.Contains(path, canary) {
				t.Errorf("%s holds a secret", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	for kind, text := range map[string]any{"pull request": pr, "status": status} {
		if data, err := json.Marshal(text); err != nil || bytes.Contains(data, []byte(canary)) {
			t.Errorf("what is said of the %s holds a secret: %v", kind, err)
		}
	}
}

// colors is a dataset of images, each with one red and one blue square.
func colors(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for number, split := range []string{"train", "valid", "test"} {
		var images, annotations []string
		for i := range 4 {
			img := image.NewRGBA(image.Rect(0, 0, 64, 48))
			for p := range 64 * 48 {
				img.Set(p%64, p/64, color.Gray{Y: uint8(p*(7*number+i+1) + 31*number)})
			}
			for p := range 12 * 12 {
				img.Set(4+i+p%12, 8+p/12, color.RGBA{R: 255, A: 255})
				img.Set(40+i+p%12, 20+p/12, color.RGBA{B: 255, A: 255})
			}
			var data bytes.Buffer
			if err := png.Encode(&data, img); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("%s-%d.png", split, i)
			files[filepath.Join(split, name)] = data.Bytes()
			images = append(images, fmt.Sprintf(`{"id":%d,"file_name":%q,"width":64,"height":48}`, i+1, name))
			for class, x := range []int{4, 40} {
				annotations = append(annotations, fmt.Sprintf(
					`{"id":%d,"image_id":%d,"category_id":%d,"bbox":[%d,%d,12,12],"area":144,"iscrowd":0}`,
					2*i+class+1, i+1, class+1, x+i, 8+12*class))
			}
		}
		file := fmt.Sprintf(`{"images":[%s],"annotations":[%s],`+
			`"categories":[{"id":1,"name":"red"},{"id":2,"name":"blue"}]}`,
			strings.Join(images, ","), strings.Join(annotations, ","))
		if !json.Valid([]byte(file)) {
			t.Fatal("the annotations are no JSON")
		}
		files[filepath.Join(split, "_annotations.coco.json")] = []byte(file)
	}
	return files
}

func writeFiles(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
