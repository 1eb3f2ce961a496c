package coco

import (
	"bytes"
	"encoding/json"
	"io"
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
		f.Add(text)
	}
}

// plainJSON says whether a file that was accepted must be JSON by the standard
// library's judgement: it has neither Python's NaN and Infinity nor texts with
// escapes, which are not looked at where they are passed over.
func plainJSON(data []byte) bool { return !bytes.ContainsAny(data, `NI\`) }

func FuzzParseTruth(f *testing.F) {
	addCases(f, "gt.json")
	f.Add([]byte(tinyTruth))
	f.Add([]byte(`{"images":[{"id":1,"width":-1}],"categories":[{"id":1,"name":"\ud800"}],"annotations":[{"bbox":[NaN,1e999,-0,1]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		truth, err := ParseTruth(data)
		kept, problems, lenient := ParseTruthLenient(data)
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(data), "half": iotest.HalfReader(bytes.NewReader(data))} {
			streamed, streamErr := ReadTruth(r)
			if !reflect.DeepEqual(streamed, truth) || (err == nil) != (streamErr == nil) || err != nil && err.Error() != streamErr.Error() {
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
		if !reflect.DeepEqual(kept.Annotations, truth.Annotations) && len(kept.Annotations)+len(truth.Annotations) > 0 || lenient != nil {
			t.Errorf("lenient: got %+v, %v, want %+v", kept, lenient, truth)
		}
	})
}

func FuzzParseDetections(f *testing.F) {
	addCases(f, "dt.json")
	f.Add([]byte(`[{"image_id":1,"category_id":1,"bbox":[0.1,2e3,-0,9007199254740993],"score":-1E-9,"segmentation":{"counts":"\\"}}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		detections, err := ParseDetections(data, nil)
		streamed, streamErr := ReadDetections(iotest.HalfReader(bytes.NewReader(data)), nil)
		if !reflect.DeepEqual(streamed, detections) || (err == nil) != (streamErr == nil) || err != nil && err.Error() != streamErr.Error() {
			t.Errorf("streamed: got %v, want %v", streamErr, err)
		}
		for name, r := range map[string]io.Reader{"memory": nil, "seekable": bytes.NewReader(data)} {
			whole := data
			if r != nil {
				whole = nil
			}
			halves, halvesErr := Loader{}.readDetections(r, whole, nil, 0)
			if !reflect.DeepEqual(halves, detections) || !reflect.DeepEqual(halvesErr, err) {
				t.Errorf("in halves, %s: got %v, want %v", name, halvesErr, err)
			}
		}
		if err != nil {
			return
		}
		if plainJSON(data) && !json.Valid(data) {
			t.Error("accepted what is no JSON")
		}
		var file bytes.Buffer
		if err := WriteDetections(&file, detections); err != nil {
			t.Fatal(err)
		}
		again, err := ParseDetections(file.Bytes(), nil)
		if err != nil || !reflect.DeepEqual(again, detections) {
			t.Errorf("written and read again: got %v, %v, want %v", again, err, detections)
		}
	})
}
