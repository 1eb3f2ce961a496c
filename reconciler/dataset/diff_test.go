package dataset

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/coco"
)

var update = flag.Bool("update", false, "write the golden files of diffs anew")

// compareFolders compares two folders.
func compareFolders(t *testing.T, before, now string) Diff {
	t.Helper()
	d, err := Compare(t.Context(), Located{folders("d", before), inDir("d")}, Located{folders("d", now), inDir("d")},
		nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// One line says what the fault of each damaged copy is.
func TestDiffOfDamagedCopies(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	whole := newCells(t)
	whole.check()
	var got strings.Builder
	for _, d := range append(damages(t), damagedForms(t)...) {
		c := newCells(t)
		d.damage(c)
		c.check()
		diff := compareFolders(t, whole.dir, c.dir)
		fmt.Fprintf(&got, "%s: %s\n", d.name, diff.Summary)
		if back := compareFolders(t, c.dir, whole.dir); back.Same() != diff.Same() || back.Summary == "" {
			t.Errorf("%s: back: %s", d.name, back.Summary)
		}
		if strings.ContainsAny(diff.Summary, "\n\r\x1b") || diff.Same() != (d.name == "none") {
			t.Errorf("%s: %q", d.name, diff.Summary)
		}
	}
	const golden = "testdata/diff-of-damages.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got.String() != string(want) {
		t.Errorf("%v, got\n%swant\n%s", err, got.String(), want)
	}
}

// Images are found in the other version, and each change has its name.
func TestDiff(t *testing.T) {
	base := func() map[string][]made {
		return map[string][]made{"train": images(4, "t", nil), "valid": images(2, "v", nil),
			"test": images(2, "e", nil)}
	}
	file := func(dir, name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	copies := func(t *testing.T, from, to string) {
		data, err := os.ReadFile(from)
		if err := errors.Join(err, os.WriteFile(to, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		change func(splits map[string][]made)
		files  func(t *testing.T, before, now string)
		want   string
	}{
		"nothing": {want: "the same files"},
		"moved and renamed": {change: func(s map[string][]made) {
			s["train"][0].name = "other\x1b[2J.png"
			s["valid"] = append(s["valid"], s["train"][3])
			s["train"] = s["train"][:3]
		}, files: func(t *testing.T, before, now string) {
			copies(t, file(before, "train/t000.png"), file(now, "train/other\x1b[2J.png"))
			copies(t, file(before, "train/t003.png"), file(now, "valid/t003.png"))
		}, want: `1 image renamed (train/t000.png to "train/other\x1b[2J.png"); ` +
			"1 image moved from train to valid (valid/t003.png)"},
		"added and removed": {change: func(s map[string][]made) {
			s["train"] = append(s["train"][1:], made{name: "new, a.png", size: "64x48"})
		}, want: `1 image added to train ("train/new, a.png"); 1 image removed from train (train/t000.png)`},
		"another picture": {files: func(t *testing.T, before, now string) {
			copies(t, file(before, "valid/v001.png"), file(now, "test/e001.png"))
		}, want: "1 image replaced by another picture (test/e001.png)"},
		"encoded again": {files: func(t *testing.T, before, now string) {
			data, err := os.ReadFile(file(now, "test/e001.png"))
			if err := errors.Join(err, os.WriteFile(file(now, "test/e001.png"), append(data, 0), 0o644)); err != nil {
				t.Fatal(err)
			}
		}, want: "1 image encoded again (test/e001.png)"},
		"another size": {change: func(s map[string][]made) {
			s["test"][0] = made{name: "e000.png", size: "128x96", boxes: map[string][][4]float64{
				"a": {{2, 4, 20, 18.4}, {40, 4, 20, 18}}, "b": {{60, 40, 22, 16}}}}
		}, want: `1 image replaced by another picture (test/e000.png); 1 image of another size now (test/e000.png); ` +
			`1 box of "b" moved by up to 6 pixels in test`},
		"boxes": {change: func(s map[string][]made) {
			s["train"][1].boxes = map[string][][4]float64{"a": {{3, 2, 11, 9}}, "b": {{30, 20, 8, 8}, {1, 30, 5, 5}},
				"c": {{20, 2, 10, 10}}}
		}, want: `1 box relabelled from "a" to "c" in train; 1 box of "a" moved by up to 2 pixels ` +
			`in train; 1 box of "b" added in train`},
	} {
		t.Run(name, func(t *testing.T) {
			before, splits := makeDataset(t, base()), base()
			if c.change != nil {
				c.change(splits)
			}
			now := makeDataset(t, splits)
			if c.files != nil {
				c.files(t, before, now)
			}
			d := compareFolders(t, before, now)
			got, _, _ := strings.Cut(d.Summary, "; n") // without findings, as that copies are in two splits
			if got != c.want {
				t.Errorf("got %s, want %s", d.Summary, c.want)
			}
			if name == "boxes" {
				moved := d.Images[0].Boxes[slices.IndexFunc(d.Images[0].Boxes, func(b BoxChange) bool {
					return b.Change == Moved
				})]
				if moved.IoU < 0.69 || moved.IoU > 0.7 || *moved.Before != [4]float64{1, 2, 11, 9} ||
					d.Images[0].Text() != "1 box added, 1 box moved, 1 box with another label" {
					t.Errorf("%+v, %s", moved, d.Images[0].Text())
				}
				before, now := d.Images[0].Sides()
				if len(before) != 3 || len(now) != 4 || before[0].Mark != coco.Missed || now[1].Mark != coco.Found {
					t.Errorf("%+v, %+v", before, now)
				}
			}
		})
	}
}
