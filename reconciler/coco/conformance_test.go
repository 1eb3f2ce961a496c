package coco

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// python names the Python that has pycocotools, or skips the test.
func python(t *testing.T) string {
	t.Helper()
	name := os.Getenv("AOB_PYTHON")
	if name == "" {
		name = "/usr/bin/python3"
	}
	if out, err := exec.Command(name, "-c", "import pycocotools.cocoeval").CombinedOutput(); err != nil {
		t.Skipf("pycocotools cannot be imported: install it, or name a Python that has it in AOB_PYTHON, or its "+
			"folder in PYTHONPATH: %s: %v\n%s", name, err, bytes.TrimSpace(out))
	}
	return name
}

// TestConformance lets pycocotools itself judge cases that nobody has seen, and
// wants the same bits. AOB_COCO_SEEDS says how many of each kind.
func TestConformance(t *testing.T) {
	py := python(t)
	seeds := 6
	if text := os.Getenv("AOB_COCO_SEEDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		seeds = n
	}
	work := t.TempDir()
	var folders []string
	add := func(format string, args ...any) string {
		dir := filepath.Join(work, fmt.Sprintf(format, args...))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		folders = append(folders, dir)
		return dir
	}
	for seed := range uint64(seeds) {
		truth, detections := traps(seed)
		dir := add("traps%d", seed)
		writeCase(t, dir, truth, detections)
		if seed%3 == 2 {
			limits := [][3]int{{1, 10, 100}, {1, 100, 500}, {2, 5, 20}, {10, 50, 101}}[seed/3%4]
			writeJSON(t, filepath.Join(dir, "params.json"), map[string]any{"max_dets": limits})
		}
	}
	generator := filepath.Join(os.Getenv("AOB_SHARED"), "coco", "make_case.py")
	if os.Getenv("AOB_SHARED") == "" {
		generator = filepath.Join("..", "..", "..", "shared", "coco", "make_case.py")
	}
	if _, err := os.Stat(generator); err == nil {
		for seed := 100; seed < 100+seeds; seed++ {
			args := []string{generator, "--seed", strconv.Itoa(seed), "--images", strconv.Itoa(20 + 13*(seed%5)),
				"--classes", strconv.Itoa(1 + 17*(seed%4)),
				"--dets", strconv.Itoa(10 + 60*(seed%3)), add("seed%d", seed)}
			if out, err := exec.Command(py, args...).CombinedOutput(); err != nil {
				t.Fatalf("make_case.py: %v\n%s", err, out)
			}
		}
	}
	cmd := exec.Command(py, append([]string{filepath.Join("testdata", "judge.py")}, folders...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := json.NewDecoder(bytes.NewReader(out))
	for _, dir := range folders {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var want expected
			if err := answers.Decode(&want); err != nil {
				t.Fatal(err)
			}
			runCase(t, dir, want)
		})
	}
	t.Logf("%d cases", len(folders))
}

// traps makes a case of what evaluators get wrong: annotation id 0, crowds with
// objects in them, areas at the bounds of size classes and unlike the box's,
// equal boxes, boxes of no size, overlaps at exactly a threshold, equal scores
// within and across images, more detections than the limits, and images and
// classes with nothing.
func traps(seed uint64) (*Truth, []Detection) {
	r := rand.New(rand.NewPCG(seed, 9))
	t := &Truth{}
	classes := 1 + r.IntN(5)
	for k := range classes {
		t.Categories = append(t.Categories, Category{ID: int64(3 * (classes - k)), Name: "class " + strconv.Itoa(k)})
	}
	sides := []float64{0, 1, 16, 31.999, 32, 33, 95.5, 96, 97, 200}
	areas := []float64{0, 1, 1023.999, 1024, 1024.001, 9216, 9216.001, 1e10, 2e10}
	grid := func() float64 { return float64(r.IntN(9)) * 12.5 }
	scores := []float64{0, .1, .25, .5, .5, .5, .9, 1, -1, 7}
	var detections []Detection
	for i := range 1 + r.IntN(14) {
		image := int64(1000 - 7*i)
		t.Images = append(t.Images, Image{ID: image, Width: 400, Height: 400})
		for range r.IntN(10) {
			a := Annotation{
				ID: int64(len(t.Annotations)), Image: image, Category: t.Categories[r.IntN(classes)].ID,
				Crowd: r.IntN(6) == 0,
				Box:   Box{grid(), grid(), sides[r.IntN(len(sides))], sides[r.IntN(len(sides))]},
			}
			if a.Area = float64(a.Box.W*a.Box.H) * 0.7; r.IntN(2) == 0 {
				a.Area = areas[r.IntN(len(areas))]
			}
			t.Annotations = append(t.Annotations, a)
			if r.IntN(8) == 0 { // another of the same place
				a.ID, a.Crowd = int64(len(t.Annotations)), r.IntN(2) == 0
				t.Annotations = append(t.Annotations, a)
			}
			n := r.IntN(4)
			if r.IntN(12) == 0 {
				n = 110 + r.IntN(30)
			}
			for range n {
				d := Detection{Image: image, Category: a.Category, Box: a.Box, Score: scores[r.IntN(len(scores))]}
				switch r.IntN(6) {
				case 0:
					d.Box.W *= 2 // half of it, exactly
				case 1:
					d.Box.X += d.Box.W * []float64{.25, .05, 1. / 3, .5}[r.IntN(4)]
				case 2:
					d.Box.X += r.NormFloat64() * .1 * d.Box.W
					d.Box.H *= math.Exp(r.NormFloat64() * .1)
				case 3:
					d.Category = t.Categories[r.IntN(classes)].ID
				}
				if r.IntN(4) == 0 {
					d.Score = r.Float64()
				}
				detections = append(detections, d)
			}
		}
		for range r.IntN(6) {
			detections = append(detections, Detection{
				Image: image, Category: t.Categories[r.IntN(classes)].ID,
				Box:   Box{grid(), grid(), sides[r.IntN(len(sides))], sides[r.IntN(len(sides))]},
				Score: scores[r.IntN(len(scores))],
			})
		}
	}
	r.Shuffle(len(detections), func(i, j int) { detections[i], detections[j] = detections[j], detections[i] })
	r.Shuffle(len(t.Annotations), func(i, j int) {
		t.Annotations[i], t.Annotations[j] = t.Annotations[j], t.Annotations[i]
	})
	return t, detections
}

// writeCase writes gt.json and dt.json.
func writeCase(t *testing.T, dir string, truth *Truth, detections []Detection) {
	t.Helper()
	images, categories, annotations := []any{}, []any{}, []any{}
	for _, v := range truth.Images {
		images = append(images, map[string]any{"id": v.ID, "width": v.Width, "height": v.Height,
			"file_name": v.FileName})
	}
	for _, v := range truth.Categories {
		categories = append(categories, map[string]any{"id": v.ID, "name": v.Name})
	}
	for _, v := range truth.Annotations {
		crowd := 0
		if v.Crowd {
			crowd = 1
		}
		annotations = append(annotations, map[string]any{
			"id": v.ID, "image_id": v.Image, "category_id": v.Category, "area": v.Area, "iscrowd": crowd,
			"bbox": []float64{v.Box.X, v.Box.Y, v.Box.W, v.Box.H},
		})
	}
	writeJSON(t, filepath.Join(dir, "gt.json"), map[string]any{"images": images, "annotations": annotations,
		"categories": categories})
	var file bytes.Buffer
	if err := writeDetections(&file, detections); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dt.json"), file.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func writeJSON(t *testing.T, name string, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
