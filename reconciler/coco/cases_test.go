package coco

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// expected is what pycocotools answers for a case.
type expected struct {
	Stats    map[string]float64 `json:"stats"`
	PerClass []struct {
		CategoryID            int64 `json:"category_id"`
		AP, AP50, AP75, AR100 float64
	} `json:"per_class"`
	PrecisionSum float64 `json:"precision_sum"`
	RecallSum    float64 `json:"recall_sum"`
	ScoresSum    float64 `json:"scores_sum"`
}

// sharedDir is the folder of data beside the repository; tests that need it
// are skipped where it is missing.
func sharedDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("AOB_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no shared data: %v (set AOB_SHARED to its folder)", err)
	}
	return dir
}

func readCase(t testing.TB, dir string) (*Truth, []Detection) {
	t.Helper()
	truth, err := readFile(filepath.Join(dir, "gt.json"), func(f *os.File) (*Truth, error) { return readTruth(f) })
	if err != nil {
		t.Fatal(err)
	}
	detections, err := readFile(filepath.Join(dir, "dt.json"), func(f *os.File) ([]Detection, error) {
		return readDetections(f, truth)
	})
	if err != nil {
		t.Fatal(err)
	}
	return truth, detections
}

func TestStrictEqualsReference(t *testing.T) {
	own, err := filepath.Glob(filepath.Join("testdata", "*", "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(own) == 0 {
		t.Fatal("no cases in testdata")
	}
	t.Run("own", func(t *testing.T) { runCases(t, own) })
	t.Run("shared", func(t *testing.T) {
		shared, err := filepath.Glob(filepath.Join(sharedDir(t), "coco", "cases", "*", "expected.json"))
		if err != nil {
			t.Fatal(err)
		}
		if len(shared) == 0 {
			t.Fatal("the shared folder has no cases")
		}
		runCases(t, shared)
	})
}

func runCases(t *testing.T, files []string) {
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want expected
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			runCase(t, filepath.Dir(file), want)
		})
	}
}

// runCase compares a folder's case with what pycocotools answers, bit for bit.
// A file params.json beside it has other limits on detections.
func runCase(t *testing.T, dir string, want expected) {
	t.Helper()
	truth, detections := readCase(t, dir)
	params := Params{Mode: Strict}
	if text, err := os.ReadFile(filepath.Join(dir, "params.json")); err == nil {
		var p struct {
			MaxDets [3]int `json:"max_dets"`
		}
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatal(err)
		}
		params.MaxDets = p.MaxDets
	}
	m, err := Match(truth, detections, params)
	if err != nil {
		t.Fatal(err)
	}
	got := m.Result()
	same(t, "stats", fields(t, got.Stats), want.Stats)
	if len(got.PerClass) != len(want.PerClass) {
		t.Fatalf("got %d classes, want %d", len(got.PerClass), len(want.PerClass))
	}
	for i, w := range want.PerClass {
		g := got.PerClass[i]
		if g.CategoryID != w.CategoryID {
			t.Fatalf("class %d: got category %d, want %d", i, g.CategoryID, w.CategoryID)
		}
		same(t, g.Name,
			map[string]float64{"AP": g.AP, "AP50": g.AP50, "AP75": g.AP75, "AR100": g.AR100},
			map[string]float64{"AP": w.AP, "AP50": w.AP50, "AP75": w.AP75, "AR100": w.AR100})
	}
	precision, recall, scores := sums(m)
	near(t, "precision_sum", precision, want.PrecisionSum)
	near(t, "recall_sum", recall, want.RecallSum)
	near(t, "scores_sum", scores, want.ScoresSum)
}

// fields gives a struct's numbers by their JSON names.
func fields(t *testing.T, v any) map[string]float64 {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]float64{}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func same(t *testing.T, what string, got, want map[string]float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: got %d numbers, want %d", what, len(got), len(want))
	}
	for name, w := range want {
		if g := got[name]; math.Float64bits(g) != math.Float64bits(w) {
			t.Errorf("%s %s: got %v, want %v", what, name, g, w)
		}
	}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.Abs(got-want) > 1e-9*max(1, math.Abs(want)) { // of sums of up to a million cells
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// sums adds up the whole precision, recall and score arrays of the reference,
// which have a cell for every size class and limit on detections.
func sums(m *Matched) (precision, recall, scores float64) {
	var w sweep
	for _, limit := range m.params.MaxDets {
		for a := range areas {
			for k := range m.classes {
				c := &m.classes[k]
				if c.truths[a] == 0 {
					precision -= thresholds * recalls
					scores -= thresholds * recalls
					recall -= thresholds
					continue
				}
				recallCounts(c.truths[a], &w.need)
				for th := range thresholds {
					w.curve.walk(c.dets, bit(a, th), limit)
					w.curve.interpolate(&w.need, &w.q)
					for _, v := range w.q {
						precision += v
					}
					recall += float64(w.curve.total()) / float64(c.truths[a])
					w.curve.scores(c.dets, &w.need, &w.q)
					for _, v := range w.q {
						scores += v
					}
				}
			}
		}
	}
	return precision, recall, scores
}

// readFile opens a file and reads it.
func readFile[T any](name string, read func(*os.File) (T, error)) (T, error) {
	f, err := os.Open(name)
	if err != nil {
		var none T
		return none, err
	}
	defer f.Close()
	return read(f)
}
