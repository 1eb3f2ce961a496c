package detect

import (
	"errors"
	"math"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestParseMessage(t *testing.T) {
	for line, ok := range map[string]bool{
		`{"hello":{"protocol":1,"numerics":"x"}}`: true,
		`{"done":3}`: true,
		`{"described":{"inputs":[],"outputs":[],"slots":4,"metadata":false}}`: true,
		`{"image":{"id":1,"width":2,"height":3,"boxes":[[0,0.5,1,2,3,4]]}}`:   true,
		``:                        false,
		`{}`:                      false,
		`null`:                    false,
		`{"done":3,"ready":true}`: false,
		`{"done":3} {"done":3}`:   false,
		`{"done":3,"what":1}`:     false,
		`Segmentation fault`:      false,
		`{"done":"3"}`:            false,
	} {
		if _, err := parseMessage([]byte(line)); (err == nil) != ok {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestImageLineDetections(t *testing.T) {
	good := func() imageLine {
		return imageLine{ID: 5, Width: 10, Height: 20, Boxes: [][6]float64{{0, 0.5, -1, 2, 3, 4}, {2, 0.5, 1, 2, 0, 0}}}
	}
	got, err := good().detections(ImageFile{ID: 5}, testSignature())
	if err != nil {
		t.Fatal(err)
	}
	if got.Boxes[0].Class != "red" || got.Boxes[1].Class != "blue" || got.Boxes[0].X != -1 {
		t.Errorf("got %+v", got)
	}
	for name, spoil := range map[string]func(*imageLine){
		"another image":   func(l *imageLine) { l.ID = 6 },
		"no width":        func(l *imageLine) { l.Width = 0 },
		"huge":            func(l *imageLine) { l.Width, l.Height = math.MaxInt, math.MaxInt },
		"too many boxes":  func(l *imageLine) { l.Boxes = make([][6]float64, 9) },
		"unnamed slot":    func(l *imageLine) { l.Boxes[0][0] = 1 },
		"background":      func(l *imageLine) { l.Boxes[0][0] = 3 },
		"slot past":       func(l *imageLine) { l.Boxes[0][0] = 4 },
		"negative slot":   func(l *imageLine) { l.Boxes[0][0] = -1 },
		"half a slot":     func(l *imageLine) { l.Boxes[0][0] = 0.5 },
		"huge slot":       func(l *imageLine) { l.Boxes[0][0] = 1e300 },
		"score above one": func(l *imageLine) { l.Boxes[0][1] = 1.5 },
		"score below 0":   func(l *imageLine) { l.Boxes[1][1] = -0.5 },
		"scores grow":     func(l *imageLine) { l.Boxes[1][1] = 0.6 },
		"negative width":  func(l *imageLine) { l.Boxes[0][4] = -1 },
		"overflowing":     func(l *imageLine) { l.Boxes[0][2], l.Boxes[0][3] = math.MaxFloat64, math.MaxFloat64 },
	} {
		l := good()
		spoil(&l)
		if _, err := l.detections(ImageFile{ID: 5}, testSignature()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte(`{"image":{"id":5,"width":2,"height":3,"boxes":[[0,0.5,1,2,3,4]]}}`))
	f.Add([]byte(`{"failure":{"about":"image","path":"x","why":"truncated"}}`))
	f.Add([]byte(`{"hello":{"protocol":1,"numerics":"x"}}`))
	sig := testSignature()
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseMessage(line)
		if err != nil {
			return
		}
		if m.Failure != nil && strings.ContainsFunc(m.Failure.err().Error(), unicode.IsControl) {
			t.Fatalf("control characters in %q", m.Failure.err())
		}
		if m.Image == nil {
			return
		}
		found, err := m.Image.detections(ImageFile{ID: 5}, sig)
		if err != nil {
			return
		}
		for _, b := range found.Boxes {
			if b.Class == "" || !(b.Score >= 0 && b.Score <= 1) || !(b.W >= 0 && b.H >= 0) {
				t.Fatalf("%+v", b)
			}
		}
	})
}

func TestFailure(t *testing.T) {
	for _, sent := range []error{
		&ModelError{"m.onnx", "does not load"}, &ImageError{"1.jpg", "truncated JPEG"}, errors.New("other"),
	} {
		if got := failureOf(sent).err(); got.Error() != sent.Error() {
			t.Errorf("%v came back as %v", sent, got)
		}
	}
	hostile := failure{About: failModel, Path: "a\x1b[2Jb", Why: "x\r\n\x00" + strings.Repeat("é", 5000) + "\xff"}
	if text := hostile.err().Error(); strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text) ||
		len(text) > 2200 {
		t.Errorf("%q of %d bytes", text[:40], len(text))
	}
}

func TestTail(t *testing.T) {
	var log tail
	for range 1000 {
		log.Write([]byte("a line that nobody wants any more\n"))
	}
	log.Write([]byte("\x1b[31mthe reason\x1b[0m\n"))
	got := strings.Split(log.String(), "\n")
	if len(got) != 20 || got[19] != "[31mthe reason[0m" {
		t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
	}
	log.Write(make([]byte, 1<<20))
	if len(log.content) > tailBytes {
		t.Errorf("keeps %d bytes", len(log.content))
	}
}

// Packed boxes are the same numbers, and what is no list of boxes is refused.
func TestPackedBoxes(t *testing.T) {
	boxes := [][6]float64{{1, 0.9, -3.5, 0, 1e-300, 7}, {0, 0.1, 1.0 / 3, math.MaxFloat64, 0, 0}}
	got, err := unpack(pack(boxes))
	if diff := cmp.Diff(boxes, got); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	if none, err := unpack(pack(nil)); err != nil || len(none) != 0 {
		t.Errorf("no boxes: %v, %v", none, err)
	}
	for name, data := range map[string][]byte{
		"cut off":  pack(boxes)[:95],
		"NaN":      pack([][6]float64{{0, math.NaN()}}),
		"infinite": pack([][6]float64{{0, 0.5, math.Inf(1)}}),
	} {
		if got, err := unpack(data); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}
