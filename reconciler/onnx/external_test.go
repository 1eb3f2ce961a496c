package onnx

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
)

// field encodes one field that contains a message or bytes.
func field(number uint64, body ...[]byte) []byte {
	joined := []byte{}
	for _, b := range body {
		joined = append(joined, b...)
	}
	out := binary.AppendUvarint(nil, number<<3|2)
	out = binary.AppendUvarint(out, uint64(len(joined)))
	return append(out, joined...)
}

func number(field, value uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, field<<3), value)
}

func TestSelfContained(t *testing.T) {
	inside := field(8, []byte("weights"))
	outside := append(number(tensorLocation, 1), field(tensorExternal, field(1, []byte("location")),
		field(2, []byte("etc/passwd")))...)
	deep := inside
	for range maxDepth + 1 { // a graph in an attribute of a node of a graph ...
		deep = field(1, field(5, field(6, deep)))
	}
	for _, c := range []struct {
		name  string
		model []byte
		want  string // part of the error; "" for none
	}{
		{"empty", nil, ""},
		{"weights in the file", field(7, field(5, inside)), ""},
		{"location set to the default", field(7, field(5, number(tensorLocation, 0))), ""},
		{"weights elsewhere", field(7, field(5, inside, outside)), "other files"},
		{"external data without a location", field(7, field(5, field(tensorExternal))), "other files"},
		{"a location without external data", field(7, field(5, number(tensorLocation, 1))), "other files"},
		{"in a constant", field(7, field(1, field(5, field(5, outside)))), "other files"},
		{"in a list of tensors", field(7, field(1, field(5, field(10, outside)))), "other files"},
		{"in a loop's body", field(7, field(1, field(5, field(6, field(5, outside))))), "other files"},
		{"in a list of graphs", field(7, field(1, field(5, field(11, field(5, outside))))), "other files"},
		{"in a sparse tensor's values", field(7, field(15, field(1, outside))), "other files"},
		{"in a sparse attribute's indices", field(7, field(1, field(5, field(22, field(2, outside))))), "other files"},
		{"in a function", field(25, field(7, field(5, field(5, outside)))), "other files"},
		{"in a function's default", field(25, field(11, field(5, outside))), "other files"},
		{"in training information", field(20, field(1, field(5, outside))), "other files"},
		{"the same bytes as text", field(2, outside), ""},
		{"a compiled engine", field(7, field(1, field(4, []byte("EPContext")))), "a compiled engine (EPContext)"},
		{"a compiled engine in a loop", field(7, field(1, field(5, field(6, field(1, field(4,
			[]byte("EPContext"))))))), "a compiled engine (EPContext)"},
		{"a name as that of an engine", field(7, field(1, field(3, []byte("EPContext")))), ""},
		{"nested too deep", field(7, deep), "nested"},
		{"cut off", field(7, field(5, inside))[:8], "not an ONNX file"},
		{"a length past the end", []byte{7<<3 | 2, 200}, "not an ONNX file"},
		{"a group", []byte{7<<3 | 3}, "not an ONNX file"},
		{"a tag of more than 32 bits", append([]byte{7<<3&0x7f | 2 | 0x80, 0x80, 0x80, 0x80, 0x10}, 0),
			"not an ONNX file"},
		{"ONNX Runtime's own format", []byte("\x10\x00\x00\x00ORTM\x00\x00"), "own format"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := selfContained(c.model)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestSelfContainedFiles(t *testing.T) {
	for name, ok := range map[string]bool{"detector.onnx": true, "endless.onnx": true, "external.onnx": false} {
		model, err := os.ReadFile("../detect/testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := selfContained(model); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzSelfContained(f *testing.F) {
	model, err := os.ReadFile("../detect/testdata/endless.onnx")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(model)
	f.Fuzz(func(t *testing.T, model []byte) {
		_ = selfContained(model) // it must return and not panic
		if shape, err := InputShape(model, "input"); err == nil && (len(shape) == 0 || len(shape) > 16) {
			t.Errorf("shape %v", shape)
		}
	})
}
