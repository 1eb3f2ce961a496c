package coco

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/iotest"
)

func addCases(f *testing.F, name string) {
	files, err := filepath.Glob(filepath.Join("testdata", "*", name))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(text) < 2000 { // from large ones the fuzzer gets nowhere
			f.Add(text)
		}
	}
}

// plainJSON says whether a file that was accepted must be JSON by the standard
// library's judgement: it has neither Python's NaN and Infinity nor texts with
// escapes, which are not looked at where they are passed over.
func plainJSON(data []byte) bool { return !bytes.ContainsAny(data, `NI\`) }

func FuzzParseTruth(f *testing.F) {
	addCases(f, "gt.json")
	f.Add([]byte(tinyTruth))
	f.Add(
		[]byte(
			`{"images":[{"id":1,"width":-1}],"categories":[{"id":1,"name":"\ud800"}],` +
				`"annotations":[{"bbox":[NaN,1e999,-0,1]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		truth, err := parseTruth(data)
		kept, problems, lenient := parseTruthLenient(data)
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(data),
			"half": iotest.HalfReader(bytes.NewReader(data))} {
			streamed, streamErr := readTruth(r)
			if !reflect.DeepEqual(streamed, truth) || (err == nil) != (streamErr == nil) || err != nil &&
				err.Error() != streamErr.Error() {
				t.Errorf("%s: streamed: got %v, want %v", name, streamErr, err)
			}
		}
		if lenient == nil {
			if _, err := Match(kept, nil, Params{}); err != nil {
				t.Errorf("what is kept is not sound: %v", err)
			}
			if err != nil && len(problems) == 0 {
				t.Errorf("refused with %v, but no problem was found", err)
			}
		}
		if err != nil {
			return
		}
		if plainJSON(data) && !json.Valid(data) {
			t.Error("accepted what is no JSON")
		}
		if !reflect.DeepEqual(kept.Annotations, truth.Annotations) &&
			len(kept.Annotations)+len(truth.Annotations) > 0 || lenient != nil {
			t.Errorf("lenient: got %+v, %v, want %+v", kept, lenient, truth)
		}
	})
}

func FuzzParseDetections(f *testing.F) {
	addCases(f, "dt.json")
	f.Add(
		[]byte(
			`[{"image_id":1,"category_id":1,"bbox":[0.1,2e3,-0,9007199254740993],"score":-1E-9,` +
				`"segmentation":{"counts":"\\"}}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		detections, err := parseDetections(data, nil)
		streamed, streamErr := readDetections(iotest.HalfReader(bytes.NewReader(data)), nil)
		if !reflect.DeepEqual(streamed, detections) || (err == nil) != (streamErr == nil) || err != nil &&
			err.Error() != streamErr.Error() {
			t.Errorf("streamed: got %v, want %v", streamErr, err)
		}
		halves, halvesErr := Loader{}.readDetections(bytes.NewReader(data), nil, 0)
		if !reflect.DeepEqual(halves, detections) || !reflect.DeepEqual(halvesErr, err) {
			t.Errorf("in halves: got %v, want %v", halvesErr, err)
		}
		if err != nil {
			return
		}
		if plainJSON(data) && !json.Valid(data) {
			t.Error("accepted what is no JSON")
		}
		var file bytes.Buffer
		if err := writeDetections(&file, detections); err != nil {
			t.Fatal(err)
		}
		again, err := parseDetections(file.Bytes(), nil)
		if err != nil || !reflect.DeepEqual(again, detections) {
			t.Errorf("written and read again: got %v, %v, want %v", again, err, detections)
		}
	})
}

// Whatever Match lets through is scored without a panic, and the numbers are
// numbers. data replaces numbers of a case of traps: a byte says which of a
// detection's or truth's, one which item, eight bytes are its bits.
func FuzzEvaluate(f *testing.F) {
	chunk := func(field, item byte, v float64) []byte {
		return binary.LittleEndian.AppendUint64([]byte{field, item}, math.Float64bits(v))
	}
	f.Add(uint64(0), []byte{}, false)
	f.Add(uint64(2), chunk(2, 0, 5e-324), true)
	f.Add(uint64(4), append(chunk(3, 1, 1e9), chunk(5, 1, 1.7e308)...), false)
	f.Fuzz(func(t *testing.T, seed uint64, data []byte, strict bool) {
		truth, detections := traps(seed % 4096)
		params := Params{}
		if strict {
			params.Mode = Strict
		}
		for ; len(data) >= 10 && len(detections) > 0 && len(truth.Annotations) > 0; data = data[10:] {
			d := &detections[int(data[1])%len(detections)]
			a := &truth.Annotations[int(data[1])%len(truth.Annotations)]
			numbers := []*float64{&d.Box.X, &d.Box.Y, &d.Box.W, &d.Box.H, &d.Score, &a.Area, &a.Box.X, &a.Box.Y,
				&a.Box.W, &a.Box.H}
			*numbers[int(data[0])%len(numbers)] = math.Float64frombits(binary.LittleEndian.Uint64(data[2:]))
		}
		m, err := Match(truth, detections, params)
		if err != nil {
			return
		}
		result := m.Result()
		d, err := Diagnose(truth, detections, params)
		if err != nil {
			t.Fatal(err)
		}
		if d.AP50 != result.Stats.AP50 {
			t.Errorf("diagnosis starts from %v, AP50 is %v", d.AP50, result.Stats.AP50)
		}
		points, err := m.BestF1(.5)
		if err != nil {
			t.Fatal(err)
		}
		all := []any{result, d, points, m.Curves()}
		c, err := Compare(m, m, CompareParams{Resamples: 5})
		switch {
		case err == nil:
			all = append(all, c, c.Judge(2))
		case !errors.Is(err, ErrNoTruth):
			t.Fatal(err)
		}
		for _, v := range all {
			if _, err := json.Marshal(v); err != nil { // NaN and infinities are no JSON
				t.Errorf("%T: %v", v, err)
			}
		}
		for _, v := range []float64{result.Stats.AP, result.Stats.APs, result.Stats.AR1, result.Stats.ARl} {
			if v != -1 && !(v >= 0 && v <= 1) {
				t.Errorf("got %+v", result.Stats)
			}
		}
	})
}
