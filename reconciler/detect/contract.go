package detect

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
)

// MetadataKey is the entry of an ONNX file's metadata that describes the model's input and outputs.
// RF-DETR writes and reads it since version 1.12, and its readers refuse a field that they do not know.
const MetadataKey = "rfdetr_inference"

// OwnKey is the entry with what AOB says besides, so that RF-DETR's readers take the file too.
const OwnKey = "aob_signature"

// entries are the two entries of a model's metadata; "" for one that it has not.
type entries struct{ description, own string }

// entriesOf reads the entries of a model's file.
func (w Worker) entriesOf(model []byte) (e entries, err error) {
	if e.description, err = w.Runtime.Metadata(model, MetadataKey); err == nil {
		e.own, err = w.Runtime.Metadata(model, OwnKey)
	}
	return e, err
}

// A Port is an input or output of a model, as declared in its file.
type Port struct {
	Name  string  `json:"name"`
	Type  string  `json:"type"`  // float32; other types are rejected
	Shape []int64 `json:"shape"` // -1 if the size is not fixed
}

// ownMetadata is what RF-DETR's description has no field for. Versions of AOB before the entry aob_signature wrote
// these fields into rfdetr_inference.
type ownMetadata struct {
	ResizeDType  *string `json:"resize_dtype"`        // float32 or uint8
	ClipBoxes    bool    `json:"clip_boxes"`          // boxes are cut to the image
	BackgroundID *int    `json:"background_class_id"` // as in RF-DETR's decoder: -1 is the last slot
}

// metadata is the part of rfdetr_inference that the contract depends on. A nil pointer means that the
// field is missing, and RF-DETR's default applies.
type metadata struct {
	ownMetadata
	SchemaVersion   int               `json:"schema_version"`
	Producer        string            `json:"producer_version"` // of RF-DETR
	Task            string            `json:"task"`
	InputShape      []int64           `json:"input_shape"` // N,3,H,W; -1 if not fixed
	InputLayout     *string           `json:"input_layout"`
	InputDType      *string           `json:"input_dtype"`
	InputName       *string           `json:"input_name"`
	Outputs         map[string]string `json:"outputs"` // pred_boxes, pred_logits
	Means           []float64         `json:"means"`
	Stds            []float64         `json:"stds"`
	PixelScale      *float64          `json:"pixel_scale"`
	ChannelOrder    *string           `json:"channel_order"`
	Interpolation   *string           `json:"resize_interpolation"`
	Antialias       bool              `json:"resize_antialias"`
	ClassNames      []string          `json:"class_names"`
	ClassIDToName   map[string]string `json:"class_id_to_name"`
	NumClasses      int               `json:"num_classes"`
	NumSelect       int               `json:"num_select"`
	SelectionPolicy *string           `json:"selection_policy"`
	BoxFormat       *string           `json:"box_format"`
}

const (
	maxMetadata = 1 << 20
	maxEdges    = 100 // of one histogram
)

// parseMetadata reads the entries of a model that has a description.
func parseMetadata(e entries) (m metadata, err error) {
	if e.description == "" {
		return m, fmt.Errorf("it has no %s metadata, so its classes and its input are unknown; export it with "+
			"RF-DETR 1.12 or later, or with one of AOB's trainers", MetadataKey)
	}
	fail := func(key string, err error) (metadata, error) {
		return metadata{}, fmt.Errorf("its %s metadata: %w", key, err)
	}
	for key, entry := range map[string]string{MetadataKey: e.description, OwnKey: e.own} {
		if len(entry) > maxMetadata {
			return m, fmt.Errorf("its %s metadata has %d bytes; want at most %d", key, len(entry), maxMetadata)
		}
	}
	if err := json.Unmarshal([]byte(e.description), &m); err != nil {
		return fail(MetadataKey, err)
	}
	if e.own != "" {
		own := struct {
			SchemaVersion int `json:"schema_version"`
			ownMetadata
		}{ownMetadata: m.ownMetadata}
		// A field that is not known here may say how boxes are computed.
		if err := delivery.ParseJSON([]byte(e.own), &own); err != nil {
			return fail(OwnKey, err)
		}
		if own.SchemaVersion != 1 {
			return fail(OwnKey, fmt.Errorf("schema_version is %d, want 1", own.SchemaVersion))
		}
		m.ownMetadata = own.ownMetadata
	}
	if err := m.check(); err != nil {
		return fail(MetadataKey, err)
	}
	return m, nil
}

// signatureOf returns the signature of a model from what its file declares. An error says which part
// of the contract is broken.
func signatureOf(e entries, inputs, outputs []Port) (delivery.Signature, error) {
	var none delivery.Signature
	m, err := parseMetadata(e)
	if err != nil {
		return none, err
	}

	sig := delivery.Signature{
		SchemaVersion: 1,
		Input:         "input",
		Boxes:         m.Outputs["pred_boxes"],
		Logits:        m.Outputs["pred_logits"],
		Resize: delivery.Resize{Algorithm: "bilinear", Antialias: m.Antialias, Padding: "none",
			DType: "float32"},
		Means:  m.Means,
		Stds:   m.Stds,
		Select: m.NumSelect,
		Clip:   m.ClipBoxes,
	}
	if m.ResizeDType != nil {
		sig.Resize.DType = *m.ResizeDType
	}
	if m.PixelScale != nil && math.Abs(*m.PixelScale-1.0/255) > 1e-12 {
		sig.Scale = *m.PixelScale
	}
	switch {
	case e.own != "":
		sig.SchemaVersion = 3
	case sig.Scale != 0 || sig.Clip:
		sig.SchemaVersion = 2
	}
	if m.InputName != nil {
		sig.Input = *m.InputName
	}
	slots, err := checkPorts(&sig, inputs, outputs)
	if err != nil {
		return none, err
	}
	if h, w := m.InputShape[2], m.InputShape[3]; int64(sig.Height) != h || int64(sig.Width) != w {
		return none, fmt.Errorf("input %s is %d x %d pixels (width x height), but its metadata says %d x %d", sig.Input,
			sig.Width, sig.Height, w, h)
	}
	if err := m.nameSlots(&sig, slots); err != nil {
		return none, fmt.Errorf("its %s metadata: %w", MetadataKey, err)
	}
	return sig, checkSignature(sig)
}

// signatureOfSlots returns the signature of an export of RF-DETR without metadata, whose slots have the given classes.
func signatureOfSlots(slots []string, inputs, outputs []Port) (delivery.Signature, error) {
	sig := plainSignature()
	width, err := checkPorts(&sig, inputs, outputs)
	if err != nil {
		return delivery.Signature{}, err
	}
	if len(slots) != width {
		return delivery.Signature{}, fmt.Errorf("output %s has %d slots, but %s of slots",
			sig.Logits, width, delivery.Count(len(slots), "name"))
	}
	if err := (metadata{ClassNames: slots, NumClasses: width}).nameSlots(&sig, width); err != nil {
		return delivery.Signature{}, err
	}
	return sig, checkSignature(sig)
}

// plainSignature is what all exports of RF-DETR have in common, and its predict() expects.
func plainSignature() delivery.Signature {
	return delivery.Signature{SchemaVersion: 1, Input: "input", Boxes: "dets",
		Logits: "labels", Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"},
		Means: []float64{0.485, 0.456, 0.406}, Stds: []float64{0.229, 0.224, 0.225}, Select: 300}
}

// check rejects metadata that would need another computation than the contract's.
func (m metadata) check() error {
	if m.SchemaVersion != 1 {
		return fmt.Errorf("schema_version is %d, want 1", m.SchemaVersion)
	}
	if m.Task != "detect" && m.Task != "detection" {
		return fmt.Errorf("task is %q, want detect", m.Task)
	}
	if len(m.InputShape) != 4 {
		return fmt.Errorf("input_shape has %d numbers, want 4: N,3,H,W", len(m.InputShape))
	}
	for _, f := range []struct {
		name string
		got  *string
		want string
	}{
		{"input_layout", m.InputLayout, "NCHW"},
		{"input_dtype", m.InputDType, "float32"},
		{"channel_order", m.ChannelOrder, "RGB"},
		{"resize_interpolation", m.Interpolation, "bilinear"},
		{"selection_policy", m.SelectionPolicy, "all_logits"},
		{"box_format", m.BoxFormat, "cxcywh_normalized"},
	} {
		if f.got != nil && *f.got != f.want {
			return fmt.Errorf("%s is %q, want %q", f.name, *f.got, f.want)
		}
	}
	if m.ResizeDType != nil && *m.ResizeDType != "float32" && *m.ResizeDType != "uint8" {
		return fmt.Errorf("resize_dtype is %q, want float32 or uint8", *m.ResizeDType)
	}
	if m.PixelScale != nil && !(*m.PixelScale > 0 && *m.PixelScale <= 1e6) {
		return fmt.Errorf("pixel_scale is %v, want a positive number", *m.PixelScale)
	}
	for _, name := range []string{"pred_boxes", "pred_logits"} {
		if m.Outputs[name] == "" {
			return fmt.Errorf("outputs does not name %s", name)
		}
	}
	return nil
}

// checkPorts checks the declared inputs and outputs against the contract, sets the input's size in
// sig, and returns the number of slots of the logits.
func checkPorts(sig *delivery.Signature, inputs, outputs []Port) (slots int, err error) {
	if len(inputs) != 1 || inputs[0].Name != sig.Input {
		return 0, fmt.Errorf("its inputs are %s, want one input named %s", portNames(inputs), sig.Input)
	}
	in := inputs[0]
	if err := in.mismatch(4); err != nil {
		return 0, fmt.Errorf("input %s: %w: want [N,3,H,W]", in.Name, err)
	}
	if in.Shape[1] != 3 || in.Shape[2] < 1 || in.Shape[2] > maxSide || in.Shape[3] < 1 || in.Shape[3] > maxSide {
		return 0, fmt.Errorf("input %s has shape %v, want [N,3,H,W] with H and W fixed, 1 to %d", in.Name, in.Shape,
			maxSide)
	}
	sig.Height, sig.Width = int(in.Shape[2]), int(in.Shape[3])

	find := func(name string, last string) (Port, error) {
		i := slices.IndexFunc(outputs, func(p Port) bool { return p.Name == name })
		if i < 0 {
			return Port{}, fmt.Errorf("it has no output %s, only %s", name, portNames(outputs))
		}
		if err := outputs[i].mismatch(3); err != nil {
			return Port{}, fmt.Errorf("output %s: %w: want [N,Q,%s]", name, err, last)
		}
		return outputs[i], nil
	}
	boxes, err := find(sig.Boxes, "4")
	if err != nil {
		return 0, err
	}
	logits, err := find(sig.Logits, "slots")
	if err != nil {
		return 0, err
	}
	if sig.Boxes == sig.Logits {
		return 0, fmt.Errorf("boxes and logits have the same output %s", sig.Boxes)
	}
	// Exports of RF-DETR before 1.5 do not say how many queries there are; a run of the model shows it.
	queries := boxes.Shape[1]
	if boxes.Shape[2] != 4 || queries != -1 && (queries < 1 || queries > maxQueries) {
		return 0, fmt.Errorf("output %s has shape %v, want [N,Q,4] with Q from 1 to %d, or not fixed", sig.Boxes,
			boxes.Shape, maxQueries)
	}
	n, same := logits.Shape[2], logits.Shape[1]
	if same != queries && same != -1 && queries != -1 || n < 1 || n > maxSlots || queries*n > maxOutputs {
		want := "Q"
		if queries != -1 {
			want = strconv.FormatInt(queries, 10)
		}
		return 0, fmt.Errorf("output %s has shape %v, want [N,%s,slots] with slots fixed, 1 to %d", sig.Logits,
			logits.Shape, want, min(maxSlots, maxOutputs/max(1, queries)))
	}
	return int(logits.Shape[2]), nil
}

// checkDeclared rejects inputs and outputs that are more than a description may have.
func checkDeclared(inputs, outputs []Port) error {
	if len(inputs) > maxPorts || len(outputs) > maxPorts {
		return fmt.Errorf("it has %s and %s, want at most %d of each", delivery.Count(len(inputs), "input"),
			delivery.Count(len(outputs), "output"), maxPorts)
	}
	for _, p := range slices.Concat(inputs, outputs) {
		if err := checkName(p.Name); err != nil {
			return fmt.Errorf("name of an input or output: %w", err)
		}
		if len(p.Shape) > maxDimensions {
			return fmt.Errorf("%s has %d dimensions, want at most %d", p.Name, len(p.Shape), maxDimensions)
		}
	}
	return nil
}

// Limits of what a model's file declares.
const (
	maxPorts      = 64
	maxDimensions = 16
)

// mismatch returns why a port is not a float32 tensor of a rank with a batch size of 1 or not fixed; nil if it is.
func (p Port) mismatch(rank int) error {
	switch {
	case p.Type == "":
		return errors.New("it is not a tensor")
	case p.Type != "float32":
		return fmt.Errorf("its type is %s, want float32", p.Type)
	case len(p.Shape) != rank:
		return fmt.Errorf("its shape is %v, want %d dimensions", p.Shape, rank)
	case p.Shape[0] != 1 && p.Shape[0] != -1:
		return fmt.Errorf("its shape is %v, want a batch size of 1 or not fixed", p.Shape)
	}
	return nil
}

func portNames(ports []Port) string {
	return fmt.Sprintf("%.400q", delivery.Each(ports, func(p Port) string { return p.Name }))
}

// nameSlots sets the class names of the slots. Older exports count the no-object slot in num_classes and
// newer ones do not. So there may be one more slot than num_classes; that last slot then has no class.
func (m metadata) nameSlots(sig *delivery.Signature, slots int) error {
	if m.NumClasses != slots && m.NumClasses != slots-1 {
		return fmt.Errorf("num_classes is %d, but output %s has %d slots; want the same number or one more",
			m.NumClasses, sig.Logits, slots)
	}
	names := make([]string, slots)
	switch {
	case len(m.ClassIDToName) > 0:
		for id, name := range m.ClassIDToName {
			slot, err := strconv.Atoi(id)
			if err != nil || slot < 0 || slot >= slots || strconv.Itoa(slot) != id {
				return fmt.Errorf("class_id_to_name has slot %.40q, but output %s has slots 0 to %d", id,
					sig.Logits, slots-1)
			}
			names[slot] = name
		}
	case len(m.ClassNames) == m.NumClasses:
		copy(names, m.ClassNames)
	default:
		return fmt.Errorf("it has %d class_names for %d classes and no class_id_to_name", len(m.ClassNames),
			m.NumClasses)
	}
	sig.Slots, sig.Background = names, -1
	if names[slots-1] == "" {
		sig.Background = slots - 1
	}
	if m.BackgroundID == nil {
		return nil
	}
	id := *m.BackgroundID
	if id == -1 {
		id = slots - 1
	}
	if id < 0 || id >= slots || names[id] != "" {
		return fmt.Errorf("background_class_id is %d, want a slot without a class", *m.BackgroundID)
	}
	sig.Background = id
	return nil
}

// checkSignature rejects a signature that this program cannot follow exactly. It may come from an untrusted bundle.
func checkSignature(s delivery.Signature) error {
	fail := func(format string, args ...any) error { return fmt.Errorf("signature: "+format, args...) }
	if s.SchemaVersion < 1 || s.SchemaVersion > delivery.SignatureVersion {
		return fail("schemaVersion is %d, but this program supports 1 to %d", s.SchemaVersion,
			delivery.SignatureVersion)
	}
	edges := [][]float64{s.Edges.Confidence, s.Edges.Entropy, s.Edges.Area, s.Edges.Boxes}
	hasEdges := slices.ContainsFunc(edges, func(e []float64) bool { return len(e) > 0 })
	if s.SchemaVersion < 2 && (s.Scale != 0 || s.Clip || hasEdges) {
		return fail("scale, clip and edges need schemaVersion 2, got %d", s.SchemaVersion)
	}
	for _, e := range edges {
		if len(e) > maxEdges {
			return fail("%d edges of a histogram, want at most %d", len(e), maxEdges)
		}
		for i, v := range e {
			if !(v >= 0 && v <= 1e9) || i > 0 && v <= e[i-1] {
				return fail("edge %d of a histogram is %v, want ascending numbers of at least 0", i, v)
			}
		}
	}
	for _, name := range []string{s.Input, s.Boxes, s.Logits} {
		if err := checkName(name); err != nil {
			return fail("name of an input or output: %w", err)
		}
	}
	if s.Width < 1 || s.Width > maxSide || s.Height < 1 || s.Height > maxSide {
		return fail("input is %d x %d pixels, want 1 to %d each", s.Width, s.Height, maxSide)
	}
	if r := s.Resize; r.Algorithm != "bilinear" || r.Padding != "none" || r.DType != "float32" && r.DType != "uint8" {
		return fail("resize is %+v, but this program supports bilinear without padding, on float32 or uint8", r)
	}
	if !(s.Scale >= 0 && s.Scale <= 1e6) {
		return fail("scale is %v, want a positive number", s.Scale)
	}
	if len(s.Means) != 3 || len(s.Stds) != 3 {
		return fail("%d means and %d stds, want 3 of each", len(s.Means), len(s.Stds))
	}
	for i := range 3 {
		if !(math.Abs(s.Means[i]) <= 1e6) || !(s.Stds[i] >= 1e-6 && s.Stds[i] <= 1e6) {
			return fail("mean %v and std %v of channel %d, want finite numbers, and the std above 0", s.Means[i],
				s.Stds[i], i)
		}
	}
	if len(s.Slots) < 1 || len(s.Slots) > maxSlots {
		return fail("%d slots, want 1 to %d", len(s.Slots), maxSlots)
	}
	if s.Background < -1 || s.Background >= len(s.Slots) {
		return fail("background is slot %d, but there are %d slots", s.Background, len(s.Slots))
	}
	slot := map[string]int{}
	for i, name := range s.Slots {
		if name == "" {
			continue
		}
		if err := delivery.CheckClass(name); err != nil {
			return fail("slot %d: %w", i, err)
		}
		if i == s.Background {
			continue
		}
		if first, twice := slot[name]; twice {
			return fail("slots %d and %d are both %q", first, i, name)
		}
		slot[name] = i
	}
	if len(slot) == 0 {
		return fail("no slot has a class")
	}
	if s.Select < 1 || s.Select > maxQueries {
		return fail("select is %d boxes, want 1 to %d", s.Select, maxQueries)
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("empty name")
	case len(name) > maxClass:
		return fmt.Errorf("name of %d bytes, want at most %d", len(name), maxClass)
	case !utf8.ValidString(name):
		return fmt.Errorf("name %q is not UTF-8", name)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("name %q contains an unprintable character", name)
		}
	}
	return nil
}
