package detect

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// testMetadata is the metadata of RF-DETR 1.10 for testSignature.
const testMetadata = `{"schema_version":1,"producer_version":"1.10.1","format":"onnx","task":"detect","variant":"small",
"backend":null,"input_shape":[-1,3,24,32],"input_layout":"NCHW","input_dtype":"float32","input_name":"input",
"max_batch_size":null,"outputs":{"pred_boxes":"dets","pred_logits":"labels"},"means":[0.485,0.456,0.406],
"stds":[0.229,0.224,0.225],"pixel_scale":0.00392156862745098,"channel_order":"RGB","resize_interpolation":"bilinear",
"resize_antialias":false,"class_names":["red","blue"],"class_id_to_name":{"0":"red","2":"blue"},"num_classes":3,
"num_select":8,"selection_policy":"all_logits","box_format":"cxcywh_normalized","num_keypoints_per_class":[],
"trace_alpha":0.2,"upsample_masks_to_image_size":true,"patch_size":16,"num_windows":2}`

func testPorts() (inputs, outputs []Port) {
	return []Port{{"input", "float32", []int64{-1, 3, 24, 32}}},
		[]Port{{"labels", "float32", []int64{-1, 6, 4}}, {"dets", "float32", []int64{-1, 6, 4}},
			{"masks", "float32", []int64{-1, 6, 6, 8}}}
}

func TestSignatureOf(t *testing.T) {
	for _, c := range []struct {
		name     string
		metadata map[string]any // replaces; nil value removes
		own      string         // AOB's own entry
		ports    func(in, out []Port) ([]Port, []Port)
		want     func(*delivery.Signature)
		refused  string
	}{
		{name: "RF-DETR's"},
		{name: "a batch of one", ports: func(in, out []Port) ([]Port, []Port) {
			in[0].Shape[0], out[0].Shape[0], out[1].Shape[0] = 1, 1, 1
			return in, out
		}},
		{name: "defaults left out", metadata: map[string]any{"input_layout": nil, "input_name": nil, "pixel_scale": nil,
			"channel_order": nil, "resize_interpolation": nil, "resize_antialias": nil, "selection_policy": nil,
			"box_format": nil}},
		{name: "fields of a later version", metadata: map[string]any{"new_thing": 1}},
		{name: "the no-object slot is counted", metadata: map[string]any{"num_classes": 4}},
		{name: "names in order", metadata: map[string]any{"class_id_to_name": nil, "class_names": []string{"a", "b",
			"c"}},
			want: func(s *delivery.Signature) { s.Slots = []string{"a", "b", "c", ""} }},
		{name: "every slot is a class", metadata: map[string]any{"class_id_to_name": map[string]string{"1": "a",
			"3": "d"},
			"num_classes": 4},
			want: func(s *delivery.Signature) { s.Slots, s.Background = []string{"", "a", "", "d"}, -1 }},
		{name: "background is the last slot", metadata: map[string]any{"background_class_id": -1}},
		{name: "background in the middle", metadata: map[string]any{"background_class_id": 1},
			want: func(s *delivery.Signature) { s.Background = 1 }},

		{name: "a named background", metadata: map[string]any{"background_class_id": 0},
			refused: "background_class_id is 0"},
		{name: "a background past the end", metadata: map[string]any{"background_class_id": 4},
			refused: "background_class_id is 4"},
		{name: "a later schema", metadata: map[string]any{"schema_version": 2}, refused: "schema_version is 2"},
		{name: "no schema", metadata: map[string]any{"schema_version": nil}, refused: "schema_version is 0"},
		{name: "masks", metadata: map[string]any{"task": "segment"}, refused: `task is "segment"`},
		{name: "NHWC", metadata: map[string]any{"input_layout": "NHWC"}, refused: "input_layout"},
		{name: "antialias", metadata: map[string]any{"resize_antialias": true},
			want: func(s *delivery.Signature) { s.Resize.Antialias = true }},
		{name: "resized as bytes", metadata: map[string]any{"resize_dtype": "uint8"},
			want: func(s *delivery.Signature) { s.Resize.DType = "uint8" }},
		{name: "resized as half floats", metadata: map[string]any{"resize_dtype": "float16"}, refused: "resize_dtype"},
		{name: "clipped", metadata: map[string]any{"clip_boxes": true},
			want: func(s *delivery.Signature) { s.SchemaVersion, s.Clip = 2, true }},
		{name: "an entry of AOB", own: `{"schema_version":1}`,
			want: func(s *delivery.Signature) { s.SchemaVersion = 3 }},
		{name: "an entry of AOB that says all", own: `{"schema_version":1,"clip_boxes":true,"resize_dtype":"uint8",` +
			`"background_class_id":1}`, want: func(s *delivery.Signature) {
			s.SchemaVersion, s.Clip, s.Resize.DType, s.Background = 3, true, "uint8", 1
		}},
		{name: "both entries", metadata: map[string]any{"clip_boxes": true, "resize_dtype": "uint8"},
			own: `{"schema_version":1,"clip_boxes":false}`, want: func(s *delivery.Signature) {
				s.SchemaVersion, s.Resize.DType = 3, "uint8"
			}},
		{name: "a newer entry of AOB", own: `{"schema_version":2}`,
			refused: "aob_signature metadata: schema_version is 2"},
		{name: "an entry of AOB without a version", own: `{}`, refused: "schema_version is 0"},
		{name: "an entry of AOB with an unknown field", own: `{"schema_version":1,"flip":true}`,
			refused: `aob_signature metadata: json: unknown field "flip"`},
		{name: "an entry of AOB that is none", own: `{`, refused: "aob_signature metadata: unexpected EOF"},
		{name: "two entries of AOB in one", own: `{"schema_version":1}{}`, refused: "data after it"},
		{name: "a huge entry of AOB", own: strings.Repeat(" ", maxMetadata+1), refused: "want at most"},
		{name: "half floats in the entry of AOB", own: `{"schema_version":1,"resize_dtype":"float16"}`,
			refused: "resize_dtype"},
		{name: "a background past the end in the entry of AOB", own: `{"schema_version":1,"background_class_id":9}`,
			refused: "background_class_id is 9"},
		{name: "bicubic", metadata: map[string]any{"resize_interpolation": "bicubic"}, refused: "resize_interpolation"},
		{name: "pixels of 0 to 255", metadata: map[string]any{"pixel_scale": 1},
			want: func(s *delivery.Signature) { s.SchemaVersion, s.Scale = 2, 1 }},
		{name: "pixels of nothing", metadata: map[string]any{"pixel_scale": 0}, refused: "pixel_scale"},
		{name: "outputs by number", metadata: map[string]any{"outputs": map[string]int{"pred_boxes": 0}},
			refused: "metadata: json"},
		{name: "no boxes", metadata: map[string]any{"outputs": map[string]string{"pred_logits": "labels"}},
			refused: "pred_boxes"},
		{name: "one output for both", metadata: map[string]any{"outputs": map[string]string{"pred_boxes": "dets",
			"pred_logits": "dets"}}, refused: "same output dets"},
		{name: "short shape", metadata: map[string]any{"input_shape": []int{3, 24, 32}}, refused: "input_shape"},
		{name: "another size", metadata: map[string]any{"input_shape": []int{1, 3, 32, 24}},
			refused: "its metadata says 24 x 32"},
		{name: "too few slots", metadata: map[string]any{"num_classes": 5}, refused: "num_classes is 5"},
		{name: "a slot past the end", metadata: map[string]any{"class_id_to_name": map[string]string{"4": "x"}},
			refused: `slot "4"`},
		{name: "a slot that is no number", metadata: map[string]any{"class_id_to_name": map[string]string{"01": "x"}},
			refused: `slot "01"`},
		{name: "names missing", metadata: map[string]any{"class_id_to_name": nil},
			refused: "2 class_names for 3 classes"},
		{name: "a class twice", metadata: map[string]any{"class_id_to_name": map[string]string{"0": "x", "1": "x"}},
			refused: `both "x"`},
		{name: "an unprintable class", metadata: map[string]any{"class_id_to_name": map[string]string{"0": "\x1b[2J"}},
			refused: "want the name of a class"},
		{name: "a class with a space that is no plain one", metadata: map[string]any{
			"class_id_to_name": map[string]string{"0": "big\u3000circle"}}, refused: "want the name of a class"},
		{name: "no class", metadata: map[string]any{"class_id_to_name": map[string]string{"0": ""}},
			refused: "no slot has a class"},
		{name: "one mean", metadata: map[string]any{"means": []float64{1}}, refused: "1 means"},
		{name: "no deviation", metadata: map[string]any{"stds": []float64{1, 0, 1}}, refused: "std 0"},
		{name: "num_select is 0", metadata: map[string]any{"num_select": 0}, refused: "select is 0"},

		{name: "another input", ports: func(in, out []Port) ([]Port, []Port) { in[0].Name = "images"; return in, out },
			refused: `inputs are ["images"]`},
		{name: "two inputs", ports: func(in, out []Port) ([]Port, []Port) { return append(in, in[0]), out },
			refused: "inputs are"},
		{name: "another output", ports: func(in, out []Port) ([]Port, []Port) { out[1].Name = "boxes"; return in, out },
			refused: "no output dets"},
		{name: "an input of bytes", ports: func(in, out []Port) ([]Port, []Port) {
			in[0].Type = "uint8"
			return in, out
		}, refused: "type is uint8"},
		{name: "an output of sequences", ports: func(in, out []Port) ([]Port, []Port) {
			out[0].Type = ""
			return in, out
		}, refused: "not a tensor"},
		{name: "grey input", ports: func(in, out []Port) ([]Port, []Port) { in[0].Shape[1] = 1; return in, out },
			refused: "input input has shape"},
		{name: "input size not fixed", ports: func(in, out []Port) ([]Port, []Port) {
			in[0].Shape[3] = -1
			return in, out
		},
			refused: "H and W fixed"},
		{name: "huge input", ports: func(in, out []Port) ([]Port, []Port) { in[0].Shape[3] = 1 << 40; return in, out },
			refused: "H and W fixed"},
		{name: "a batch of two", ports: func(in, out []Port) ([]Port, []Port) { in[0].Shape[0] = 2; return in, out },
			refused: "a batch size of 1"},
		{name: "flat boxes", ports: func(in, out []Port) ([]Port, []Port) {
			out[1].Shape = []int64{-1, 24}
			return in, out
		}, refused: "want 3 dimensions"},
		{name: "boxes of five", ports: func(in, out []Port) ([]Port, []Port) { out[1].Shape[2] = 5; return in, out },
			refused: "output dets has shape"},
		{name: "queries not fixed", ports: func(in, out []Port) ([]Port, []Port) {
			out[0].Shape[1], out[1].Shape[1] = -1, -1
			return in, out
		}},
		{name: "no queries", ports: func(in, out []Port) ([]Port, []Port) { out[1].Shape[1] = 0; return in, out },
			refused: "output dets has shape"},
		{name: "other queries", ports: func(in, out []Port) ([]Port, []Port) { out[0].Shape[1] = 7; return in, out },
			refused: "output labels has shape"},
		{name: "slots not fixed", ports: func(in, out []Port) ([]Port, []Port) { out[0].Shape[2] = -1; return in, out },
			refused: "slots fixed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(testMetadata), &fields); err != nil {
				t.Fatal(err)
			}
			for k, v := range c.metadata {
				if fields[k] = v; v == nil {
					delete(fields, k)
				}
			}
			entry, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			in, out := testPorts()
			if c.ports != nil {
				in, out = c.ports(in, out)
			}
			got, err := signatureOf(entries{string(entry), c.own}, in, out)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("got %v, want %q", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := testSignature()
			if c.want != nil {
				c.want(&want)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestSignatureOfNoMetadata(t *testing.T) {
	in, out := testPorts()
	for entry, want := range map[string]string{
		"":                                 "no rfdetr_inference metadata",
		"{":                                "unexpected end",
		strings.Repeat(" ", maxMetadata+1): "want at most",
		`{"task": 3}`:                      "cannot unmarshal",
	} {
		if _, err := signatureOf(entries{entry, ""}, in, out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %v, want %q", entry, err, want)
		}
	}
}

func FuzzSignatureOf(f *testing.F) {
	f.Add(testMetadata, "")
	f.Add(testMetadata, `{"schema_version":1,"clip_boxes":true}`)
	f.Fuzz(func(t *testing.T, entry, own string) {
		in, out := testPorts()
		producerOf(entries{entry, own})
		sig, err := signatureOf(entries{entry, own}, in, out)
		if err == nil {
			err = checkSignature(sig)
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// spoilt changes a signature to one that is refused.
var spoilt = map[string]func(*delivery.Signature){
	"schema":            func(s *delivery.Signature) { s.SchemaVersion = 0 },
	"no input":          func(s *delivery.Signature) { s.Input = "" },
	"long output":       func(s *delivery.Signature) { s.Boxes = strings.Repeat("x", 1000) },
	"NUL":               func(s *delivery.Signature) { s.Logits = "a\x00b" },
	"no width":          func(s *delivery.Signature) { s.Width = 0 },
	"huge height":       func(s *delivery.Signature) { s.Height = 1 << 20 },
	"a later schema":    func(s *delivery.Signature) { s.SchemaVersion = 4 },
	"clip in version 1": func(s *delivery.Signature) { s.Clip = true },
	"scale, version 1":  func(s *delivery.Signature) { s.Scale = 1 },
	"edges, version 1":  func(s *delivery.Signature) { s.Edges.Area = []float64{1} },
	"edges that fall": func(s *delivery.Signature) {
		s.SchemaVersion, s.Edges.Boxes = 2, []float64{2, 1}
	},
	"NaN edge": func(s *delivery.Signature) {
		s.SchemaVersion, s.Edges.Boxes = 2, []float64{math.NaN()}
	},
	"many edges": func(s *delivery.Signature) {
		s.SchemaVersion, s.Edges.Entropy = 2, make([]float64, 101)
	},
	"scale below 0":                         func(s *delivery.Signature) { s.SchemaVersion, s.Scale = 2, -1 },
	"nearest":                               func(s *delivery.Signature) { s.Resize.Algorithm = "nearest" },
	"letterbox":                             func(s *delivery.Signature) { s.Resize.Padding = "letterbox" },
	"float16":                               func(s *delivery.Signature) { s.Resize.DType = "float16" },
	"four means":                            func(s *delivery.Signature) { s.Means = make([]float64, 4) },
	"NaN mean":                              func(s *delivery.Signature) { s.Means[0] = math.NaN() },
	"NaN std":                               func(s *delivery.Signature) { s.Stds[0] = math.NaN() },
	"tiny std":                              func(s *delivery.Signature) { s.Stds[0] = 1e-30 },
	"no slots":                              func(s *delivery.Signature) { s.Slots = nil },
	"many slots":                            func(s *delivery.Signature) { s.Slots = make([]string, maxSlots+1) },
	"background below":                      func(s *delivery.Signature) { s.Background = -2 },
	"background past":                       func(s *delivery.Signature) { s.Background = 4 },
	"only background":                       func(s *delivery.Signature) { s.Slots, s.Background = []string{"a"}, 0 },
	"slot not UTF-8":                        func(s *delivery.Signature) { s.Slots[0] = "\xff" },
	"twice":                                 func(s *delivery.Signature) { s.Slots[1] = "red" },
	"num_select is 0":                       func(s *delivery.Signature) { s.Select = 0 },
	"selects very much":                     func(s *delivery.Signature) { s.Select = 1 << 30 },
	"a background with an unprintable name": func(s *delivery.Signature) { s.Slots[3] = "\x1b[2J" },
}

func TestCheckSignature(t *testing.T) {
	if err := checkSignature(testSignature()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range spoilt {
		s := testSignature()
		spoil(&s)
		if err := checkSignature(s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
