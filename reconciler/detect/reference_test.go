package detect

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// referencePython returns the Python that has PyTorch, or skips the test where it cannot import what is needed.
func referencePython(t *testing.T, imports string) string {
	python := os.Getenv("AOB_PYTHON")
	if python == "" {
		python = "/usr/bin/python3"
	}
	if err := exec.Command(python, "-c", imports).Run(); err != nil {
		t.Skipf("%s cannot %s: run make tools, or name another Python in AOB_PYTHON: %v", python, imports, err)
	}
	return python
}

// reference runs testdata/reference.py.
func reference(t *testing.T, args ...string) {
	python := referencePython(t, "import torch, PIL.ImageCms")
	out, err := exec.Command(python, append([]string{filepath.Join("testdata", "reference.py")}, args...)...).
		CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A tensor differs from torch's by rounding alone: torch fuses products and sums where the processor can. In float32
// that is at most 5e-5, where a byte's step is 0.0175. Where values are rounded to bytes, one that is half-way between
// two bytes may go the other way: then it is a step away, for at most 1 value in 100. With antialias on bytes, Pillow's
// result, all values are equal.
func TestLikeTorch(t *testing.T) {
	dir := t.TempDir()
	writeDeep(t, dir)
	const width, height = 40, 30
	reference(t, "tensors", dir, fmt.Sprint(width), fmt.Sprint(height))
	files, err := filepath.Glob(filepath.Join(dir, "*.*g"))
	if err != nil || len(files) != 23 {
		t.Fatalf("%d pictures, %v", len(files), err)
	}
	for _, way := range []struct {
		name   string
		resize delivery.Resize
		bound  float64 // of a difference
		steps  float64 // the share of values that may be a step of a byte away
	}{
		{"float32", delivery.Resize{DType: "float32"}, 5e-5, 0},
		{"float32-antialias", delivery.Resize{DType: "float32", Antialias: true}, 5e-5, 0},
		{"uint8", delivery.Resize{DType: "uint8"}, 1e-6, 0.01},
		{"uint8-antialias", delivery.Resize{DType: "uint8", Antialias: true}, 0, 0},
	} {
		t.Run(way.name, func(t *testing.T) {
			sig := testSignature()
			sig.Width, sig.Height, sig.Resize = width, height, way.resize
			worst, values, steps := 0.0, 0, 0
			for _, file := range files {
				data, err := os.ReadFile(file)
				want, wantErr := os.ReadFile(file + "." + way.name + ".f32")
				if err := errors.Join(err, wantErr); err != nil {
					t.Fatal(err)
				}
				img, release, err := decodeImage(data, decoder)
				if err != nil {
					t.Fatal(err)
				}
				got := toTensor(img, sig)
				release()
				if 4*len(got) != len(want) {
					t.Fatalf("%s: %d numbers, want %d", filepath.Base(file), len(got), len(want)/4)
				}
				values += len(got)
				for i, v := range got {
					apart := math.Abs(float64(v - math.Float32frombits(binary.LittleEndian.Uint32(want[4*i:]))))
					if way.steps > 0 && apart > 0.017 && apart < 0.018 {
						steps++
						continue
					}
					if worst = max(worst, apart); !(apart <= way.bound) {
						t.Errorf("%s: number %d is %.3g away from torch's, want at most %g", filepath.Base(file), i,
							apart,
							way.bound)
						break
					}
				}
			}
			t.Logf("at most %.3g away; %d of %d values by a step of a byte", worst, steps, values)
			if float64(steps) > way.steps*float64(values) {
				t.Errorf("%d of %d values are a step of a byte away, want at most %g of all", steps, values, way.steps)
			}
		})
	}
}

// The detections are those of RF-DETR's post-processing, in the same order.
func TestLikeNumPy(t *testing.T) {
	dir := t.TempDir()
	reference(t, "boxes", dir)
	data, err := os.ReadFile(filepath.Join(dir, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Boxes, Logits                []float32
		Slots, Select, Width, Height int
		LeftOut                      []int
		Clip                         bool
		Want                         [][6]float64 // slot, score, corners
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 20 {
		t.Fatalf("%d cases", len(cases))
	}
	for i, c := range cases {
		sig := delivery.Signature{Slots: strings.Split(strings.Repeat("class ", c.Slots-1)+"class", " "),
			Background: -1,
			Select:     c.Select, Clip: c.Clip}
		for _, slot := range c.LeftOut {
			sig.Slots[slot] = ""
		}
		found, err := decode(sig, c.Boxes, c.Logits, c.Width, c.Height)
		if err != nil || len(found) != len(c.Want) {
			t.Errorf("case %d: %d detections, %v; want %d", i, len(found), err, len(c.Want))
			continue
		}
		for n, f := range found {
			want := c.Want[n]
			if f.slot != int(want[0]) || math.Abs(f.score-want[1]) > 1e-7 {
				t.Errorf("case %d: detection %d is slot %d with %v; want %v", i, n, f.slot, f.score, want)
				break
			}
			for k, v := range [4]float64{f.x, f.y, f.x + f.w, f.y + f.h} {
				if math.Abs(v-want[2+k]) > 1e-9 {
					t.Errorf("case %d: detection %d is %+v; want corners %v", i, n, f, want[2:])
					break
				}
			}
		}
	}
}
