package detect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/autonomos/aob/reconciler/delivery"
)

// signatureSchema is schemas/signature.json.
func signatureSchema(t testing.TB) func(document []byte) error {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "..", "schemas", "signature.json"))
	if err != nil {
		t.Fatal(err)
	}
	return func(document []byte) error {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
		if err != nil {
			return err
		}
		return s.Validate(v)
	}
}

// signatures are what AOB makes of the metadata that each trainer writes, and one with all of version 2.
func signatures(t testing.TB) map[string]delivery.Signature {
	t.Helper()
	made := map[string]delivery.Signature{"by hand": testSignature()}
	in, out := testPorts()
	for name, c := range map[string]struct {
		change map[string]any
		own    string
	}{
		"RF-DETR itself": {},
		"trainers/rfdetr": {map[string]any{"input_layout": "NCHW", "num_classes": 4},
			`{"clip_boxes":true,"schema_version":1}`},
		"trainers/rfdetr before aob_signature": {map[string]any{"background_class_id": -1, "num_classes": 4}, ""},
		"trainers/tiny": {map[string]any{"task": "detection", "variant": "tiny", "patch_size": nil,
			"class_names": []string{"red", "green", "blue"}, "class_id_to_name": map[string]string{"0": "red",
				"1": "green", "2": "blue"}}, ""},
		"trainers/import": {map[string]any{"variant": "imported", "resize_antialias": true, "num_classes": 4,
			"class_names": []string{"red", "", "blue", ""}}, `{"schema_version":1,"resize_dtype":"uint8"}`},
		"pixels of bytes, and boxes cut": {map[string]any{"pixel_scale": 1, "clip_boxes": true}, ""},
	} {
		sig, err := signatureOf(entries{changed(t, c.change), c.own}, in, out)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		made[name] = sig
	}
	edges := testSignature()
	edges.SchemaVersion, edges.Edges = 2, delivery.Edges{}.WithDefaults()
	made["edges"] = edges
	return made
}

// changed is testMetadata with other values; nil removes a key.
func changed(t testing.TB, change map[string]any) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(testMetadata), &m); err != nil {
		t.Fatal(err)
	}
	for k, v := range change {
		if m[k] = v; v == nil {
			delete(m, k)
		}
	}
	entry, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(entry)
}

func TestSchemaTakesSignatures(t *testing.T) {
	valid := signatureSchema(t)
	for name, sig := range signatures(t) {
		document := delivery.Canonical(sig)
		if err := valid(document); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := parseSignature(document); err != nil || got.Digest() != sig.Digest() {
			t.Errorf("%s: read as %+v (%v), want %+v", name, got, err, sig)
		}
	}
	for _, c := range readSlotTable(t).Cases {
		sig := testSignature()
		sig.Slots, sig.Background = c.Slots, -1
		if err := checkSignature(sig); err != nil {
			continue
		}
		if err := valid(delivery.Canonical(sig)); err != nil {
			t.Errorf("slots %q: %v", c.Slots, err)
		}
	}
}

// The schema refuses what the program refuses, but for what it cannot express.
func TestSchemaRefusesSignatures(t *testing.T) {
	valid := signatureSchema(t)
	only := []string{"edges that fall", "only background", "twice", "background past"} // only the program sees these
	noJSON := []string{"NaN edge", "NaN mean", "NaN std", "slot not UTF-8"}
	for name, spoil := range spoilt {
		if slices.Contains(noJSON, name) {
			continue
		}
		sig := testSignature()
		spoil(&sig)
		document, err := json.Marshal(sig)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := parseSignature(document); err == nil {
			t.Errorf("%s: the program takes it", name)
		}
		if err := valid(document); (err == nil) != slices.Contains(only, name) {
			t.Errorf("%s: the schema says %v", name, err)
		}
	}
}

func TestHostileSignatures(t *testing.T) {
	valid := signatureSchema(t)
	var whole map[string]any
	if err := json.Unmarshal(delivery.Canonical(testSignature()), &whole); err != nil {
		t.Fatal(err)
	}
	documents := map[string]string{"empty": "", "a list": "[]", "text": `"x"`, "two": "{}{}", "deep": strings.Repeat(
		`{"resize":`, 2000) + "1" + strings.Repeat("}", 2000)}
	put := func(name, key string, value any, remove bool) {
		m := maps.Clone(whole)
		if m[key] = value; remove {
			delete(m, key)
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		documents[name] = string(text)
	}
	for key, value := range whole {
		put("without "+key, key, nil, true)
		put(key+" as an object", key, map[string]any{"a": 1}, false)
		put(key+" as a list of lists", key, [][]int{{1}}, false)
		put(key+" as true", key, true, false)
		if _, text := value.(string); !text {
			put(key+" as text", key, "1", false)
		}
	}
	for key, value := range map[string]any{"width": 1.5, "height": -1, "select": 1e300, "background": -3,
		"scale": 1e300, "slots": []any{"red", nil}, "means": []any{0, 0}, "stds": []any{0, 0, 0},
		"edges": map[string]any{"area": []int{-1}},
		"input": "", "boxes": "a\u0000b", "logits": strings.Repeat("x", 401),
		"resize": map[string]any{"algorithm": "x"},
		"path":   "/etc/passwd"} {
		put(key+" hostile", key, value, false)
	}
	for name, document := range documents {
		if _, err := parseSignature([]byte(document)); err == nil {
			t.Errorf("%s: the program takes %.200s", name, document)
		}
		if name == "slots hostile" { // Go reads null as an empty text, which the class of a slot may be
			continue
		}
		if err := valid([]byte(document)); err == nil {
			t.Errorf("%s: the schema takes %.200s", name, document)
		}
	}
}

// The signature is a superset of RF-DETR's metadata: each of its fields changes the signature, or has one value that
// AOB can follow and others are refused, or says nothing about numbers of a detector.
func TestSignatureSaysWhatMetadataSays(t *testing.T) {
	const changes, refused, nothing = "changes the signature", "is refused", "says nothing"
	in, out := testPorts()
	before, err := signatureOf(entries{testMetadata, ""}, in, out)
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]struct {
		value any
		does  string
	}{
		"schema_version":               {2, refused},
		"producer_version":             {"2.0", nothing},
		"format":                       {"tensorrt", nothing},
		"task":                         {"keypoints", refused},
		"variant":                      {"large", nothing},
		"backend":                      {"xnnpack", nothing},
		"input_shape":                  {[]int{-1, 3, 24, 33}, refused}, // the file's own sizes are in the signature
		"input_layout":                 {"NHWC", refused},
		"input_dtype":                  {"uint8", refused},
		"input_name":                   {"images", refused}, // as input_shape
		"max_batch_size":               {4, nothing},        // bounds the batch of a server, see TestLargestBatch
		"outputs":                      {map[string]string{"pred_boxes": "labels", "pred_logits": "dets"}, changes},
		"means":                        {[]float64{0, 0, 0}, changes},
		"stds":                         {[]float64{1, 1, 1}, changes},
		"pixel_scale":                  {1, changes},
		"channel_order":                {"BGR", refused},
		"resize_interpolation":         {"nearest", refused},
		"resize_antialias":             {true, changes},
		"class_names":                  {[]string{"x", "y"}, nothing}, // where class_id_to_name has them
		"class_id_to_name":             {map[string]string{"1": "red"}, changes},
		"num_classes":                  {2, refused}, // the file's own slots are in the signature
		"num_select":                   {7, changes},
		"selection_policy":             {"per_query", refused},
		"box_format":                   {"xyxy", refused},
		"num_keypoints_per_class":      {[]int{17}, nothing}, // of keypoints, which task refuses
		"trace_alpha":                  {0.5, nothing},       // of keypoints
		"upsample_masks_to_image_size": {false, nothing},     // of masks, which are not computed
		"patch_size":                   {14, nothing},        // of the network
		"num_windows":                  {4, nothing},         // of the network
	}
	var described map[string]any
	if err := json.Unmarshal([]byte(testMetadata), &described); err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(table)), slices.Sorted(maps.Keys(described)); !slices.Equal(got, want) {
		t.Errorf("the table has %q, and RF-DETR writes %q", got, want)
	}
	for field, c := range table {
		after, err := signatureOf(entries{changed(t, map[string]any{field: c.value}), ""}, in, out)
		got := nothing
		if err != nil {
			got = refused
		} else if after.Digest() != before.Digest() {
			got = changes
		}
		if got != c.does {
			t.Errorf("%s: %v %s (%v), want that it %s", field, c.value, got, err, c.does)
		}
	}
}

// A bundle whose signature is not that of its file does not serve: the golden has tensors, so it does not show another
// mean or another resize.
func TestOpenRefusesAnotherSignature(t *testing.T) {
	for field, change := range map[string]func(*delivery.Signature){
		"means":  func(s *delivery.Signature) { s.Means[1] = 0.5 },
		"stds":   func(s *delivery.Signature) { s.Stds[0] = 1 },
		"scale":  func(s *delivery.Signature) { s.SchemaVersion, s.Scale = 2, 1 },
		"clip":   func(s *delivery.Signature) { s.SchemaVersion, s.Clip = 2, true },
		"resize": func(s *delivery.Signature) { s.Resize.DType = "uint8" },
		"select": func(s *delivery.Signature) { s.Select = 7 },
		"slots":  func(s *delivery.Signature) { s.Slots[0], s.Slots[2] = s.Slots[2], s.Slots[0] },
		"inputs": func(s *delivery.Signature) { s.Input = "images" },
		"":       func(s *delivery.Signature) { s.SchemaVersion, s.Edges.Area = 2, []float64{0.5, 1} },
	} {
		dir := pureBundle(t)
		sig := testSignature()
		change(&sig)
		if err := os.WriteFile(filepath.Join(dir, delivery.SignatureFile), delivery.Canonical(sig), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Worker{Runtime: pureRuntime{}, JPEG: decoder}.Open(t.Context(), dir)
		want := fmt.Sprintf("its metadata and the bundle's signature.json are of different models: %s", field)
		switch {
		case field == "" && err != nil:
			t.Errorf("edges: %v", err)
		case field == "inputs" && (err == nil || !strings.Contains(err.Error(), "inputs are")):
			t.Errorf("input: %v", err)
		case field != "" && field != "inputs" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %q", field, err, want)
		}
	}
}

// A file without metadata has the bundle's signature.
func TestOpenTakesTheBundlesSignature(t *testing.T) {
	dir := pureBundle(t)
	sig := testSignature()
	sig.Means[1] = 0.5
	if err := os.WriteFile(filepath.Join(dir, delivery.SignatureFile), delivery.Canonical(sig), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Worker{Runtime: bareRuntime{}, JPEG: decoder}.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.sig.Means[1] != 0.5 {
		t.Errorf("means %v", s.sig.Means)
	}
}

// bareRuntime has a file without metadata, or with the given.
type bareRuntime struct {
	pureRuntime
	entry string
}

func (r bareRuntime) Metadata(_ []byte, name string) (string, error) {
	if name == OwnKey {
		return "", nil
	}
	return r.entry, nil
}

func TestLargestBatch(t *testing.T) {
	for entry, want := range map[string]int{
		"":                      8,
		"{":                     8,
		testMetadata:            8,
		`{"max_batch_size":4}`:  4,
		`{"max_batch_size":0}`:  1,
		`{"max_batch_size":-1}`: 1,
		changed(t, map[string]any{"max_batch_size": 2}): 2,
	} {
		if got := min(8, Worker{Runtime: bareRuntime{entry: entry}}.largestBatch(nil)); got != want {
			t.Errorf("%.60q: %d, want %d", entry, got, want)
		}
	}
}
