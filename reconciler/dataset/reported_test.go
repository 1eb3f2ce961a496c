package dataset

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Datasets that people reported are read for what is in them: each has its finding, and nothing else.
func TestReportedDatasets(t *testing.T) {
	dir := filepath.Join(filepath.Dir(filepath.Dir(sharedBCCD(t))), "cases", "datasets")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the reported datasets are not there: %v; AOB_SHARED names the folder of cases/datasets", err)
	}
	for _, c := range []struct {
		name     string
		want     []string // level, code, place, and count if it is not 1
		train    int      // images that the trainer would get
		circles  int      // objects that it would learn from
		judgedOn int      // images of the test split
	}{
		{"01-one-file-two-image-ids", []string{"error duplicate-file train/train-0.png x3"}, 6, 6, 6},
		{"01-one-file-two-image-ids--dataset-same-bytes-two-names",
			[]string{"error duplicate-image train/train-3.png"}, 6, 5, 6},
		{"03-nothing-left-to-train-on--all-crowds",
			[]string{"error empty-class train/_annotations.coco.json", "warning no-truth dir:d test x2"}, 6, 6, 6},
		{"03-nothing-left-to-train-on--boxes-below-a-pixel",
			[]string{"error empty-class train/_annotations.coco.json x2",
				"warning degenerate-box train/train-0.png, box 1 x36", "warning no-truth dir:d test x2"}, 6, 0, 6},
		{"04-roboflow-names--leak-not-seen", []string{"error leaks train",
			"warning leak train/IMG_1436_JPG_jpg.rf.00000000000000000000000000000000.jpg x10"}, 20, 20, 30},
		{"05-exif-orientation--turned-180", []string{"warning exif-orientation train x3"}, 6, 6, 6},
		{"06-16-bit-greyscale", []string{"error 16-bit-image train/train-0.png x18"}, 6, 6, 6},
		{"07-exact-duplicate-truths", []string{"warning duplicate-truth train/train-0.png, box 3 x18"}, 6, 12, 6},
		{"08-background-only-eval-set", []string{"warning no-truth dir:d test"}, 6, 6, 6},
		{"10-invisible-spaces-in-class-names--trailing-space", nil, 6, 6, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := delivery.Classes{{Name: "circle", Labels: []string{"circle", "circle "}}, classes[1]}
			if c.want != nil {
				asked = classes
			}
			r, err := folders("d", filepath.Join(dir, c.name)).Check(t.Context(), delivery.DataRun{
				Dataset: inDir("d"), Classes: asked}, "", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range r.Findings {
				line := fmt.Sprintf("%s %s %s", f.Level, f.Code, f.Where)
				if f.Count > 1 {
					line += fmt.Sprintf(" x%d", f.Count)
				}
				got = append(got, line)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if r.Images["train"] != c.train || r.Truths["circle"] != c.circles || r.Images["test"] != c.judgedOn {
				t.Errorf("images %v, objects %v, want %d, %d circles and %d", r.Images, r.Truths, c.train, c.circles,
					c.judgedOn)
			}
		})
	}
}
