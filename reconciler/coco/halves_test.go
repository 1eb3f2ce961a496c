package coco

import (
	"bytes"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// alone is a reader that can do nothing but read.
type alone struct{ io.Reader }

// Two parsers give what one gives, and the same error at the same place,
// wherever the second begins.
func TestHalves(t *testing.T) {
	item := `{"image_id":1,"category_id":1,"bbox":[1,2,3,4],"score":.5}`
	item = strings.ReplaceAll(item, ":.5", ":0.5")
	list := func(items ...string) string { return "[" + strings.Join(items, ",\n ") + "]" }
	tests := map[string]string{
		"empty":         "",
		"no detections": "[]",
		"one":           list(item),
		"two":           list(item, item),
		"many":          list(item, item, item, item, item, item, item),
		"a brace in a text": list(item,
			`{"note":"}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}",`+item[1:], item),
		"objects within": list(item,
			`{"rle":[{"a":1}, {"image_id":1,"category_id":1,"bbox":[1,2,3,4],"score":1}, `+
				`{"a":3}, {"a":4}, {"a":5}, {"a":6}],`+item[1:], item),
		"objects within, as if whole": list(`{"x":[`+item+`, `+item+`, `+item+`, `+item+`],`+item[1:], item),
		"an error in the first half":  list(item, `{"image_id":true}`, item, item, item, item),
		"an error in the second half": list(item, item, item, item, item, `{"image_id":true}`),
		"an error in both":            list(item, `{"image_id":1}`, item, item, item, `{"image_id":true}`),
		"no comma":                    list(item, item, item+item, item, item),
		"two commas":                  list(item, item, item+",", item, item),
		"no end":                      strings.TrimSuffix(list(item, item, item, item), "]"),
		"something after the end":     list(item, item, item, item) + ",",
		"the end in the first half":   list(item) + strings.Repeat(" ", 50) + ", " + item + ", " + item + "]",
		"an unknown image":            list(item, item, item, item, strings.Replace(item, `_id":1`, `_id":7`, 1)),
		"an unknown image, first half": list(item, strings.Replace(item, `_id":1`, `_id":7`, 1), item, item, item,
			item),
	}
	truth := &Truth{Images: []Image{{ID: 1}}, Categories: []Category{{ID: 1}}}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			want, wantErr := Loader{}.readDetections(alone{strings.NewReader(text)}, truth, 0)
			readers := map[string]func() io.Reader{
				"strings.Reader": func() io.Reader { return strings.NewReader(text) },
				"file": func() io.Reader {
					f, err := os.CreateTemp(t.TempDir(), "")
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { f.Close() })
					if _, err := f.WriteString("before " + text); err != nil {
						t.Fatal(err)
					}
					if _, err := f.Seek(7, io.SeekStart); err != nil {
						t.Fatal(err)
					}
					return f
				},
				"memory": func() io.Reader { return bytes.NewReader([]byte(text)) },
			}
			for kind, open := range readers {
				got, err := Loader{}.readDetections(open(), truth, 0)
				if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(err, wantErr) {
					t.Errorf("%s: got %v, %v, want %v, %v", kind, got, err, want, wantErr)
				}
			}
			limited := Loader{MaxItems: 3}
			want, wantErr = limited.readDetections(alone{strings.NewReader(text)}, truth, 0)
			got, err := limited.readDetections(strings.NewReader(text), truth, 0)
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(err, wantErr) {
				t.Errorf("at most 3: got %v, %v, want %v, %v", got, err, want, wantErr)
			}
		})
	}
}

func TestHalvesAreUsed(t *testing.T) {
	_, detections := random(1, 400, 3, false)
	var file bytes.Buffer
	if err := writeDetections(&file, detections); err != nil {
		t.Fatal(err)
	}
	p := &detectionParser{parser: newParser(Loader{}, bytes.NewReader(file.Bytes()))}
	h := p.split(bytes.NewReader(file.Bytes()), 0)
	if h == nil {
		t.Fatal("a plain file is not read in halves")
	}
	<-h.done
	if h.err != nil || len(h.list) < len(detections)/3 ||
		!reflect.DeepEqual(h.list, detections[len(detections)-len(h.list):]) {
		t.Errorf("the second half has %d of %d detections: %v", len(h.list), len(detections), h.err)
	}
	for name, r := range map[string]io.Reader{"cannot seek": alone{bytes.NewReader(file.Bytes())},
		"one byte at a time": iotest.OneByteReader(bytes.NewReader(file.Bytes()))} {
		p := &detectionParser{parser: newParser(Loader{}, r)}
		if p.split(r, 0) != nil {
			t.Errorf("%s: read in halves", name)
		}
	}
}

// A file's size is a hint for memory, no more: a reader that lies is read all
// the same.
func TestSizeIsAHint(t *testing.T) {
	_, detections := random(1, 900, 3, false)
	var file bytes.Buffer
	if err := writeDetections(&file, detections); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{-1, 0, 10, 1 << 40} {
		got, err := readDetections(&liar{bytes.NewReader(file.Bytes()), size}, nil)
		if err != nil || !reflect.DeepEqual(got, detections) {
			t.Errorf("size %d: got %d detections, %v", size, len(got), err)
		}
		if cap(got) > 4<<20 {
			t.Errorf("size %d: room for %d detections", size, cap(got))
		}
	}
}

// liar says that it ends elsewhere.
type liar struct {
	*bytes.Reader
	size int64
}

func (l *liar) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		return l.size, nil
	}
	return l.Reader.Seek(offset, whence)
}
