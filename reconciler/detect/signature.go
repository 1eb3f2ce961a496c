package detect

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// parseSignature reads signature.json, which may come from an untrusted bundle. schemas/signature.json describes it.
func parseSignature(data []byte) (delivery.Signature, error) {
	sig := delivery.Signature{Background: -2} // a file that leaves it out must not get slot 0
	if err := delivery.ParseJSON(data, &sig); err != nil {
		return delivery.Signature{}, err
	}
	return sig, checkSignature(sig)
}

// agree returns an error if a model's metadata describes another input or output than the bundle's signature, which the
// golden does not show: it has tensors, and no pixels. A file without metadata says nothing. Edges are in the signature
// alone.
func (w Worker) agree(model []byte, sig delivery.Signature) error {
	found, err := w.entriesOf(model)
	if err != nil {
		return fmt.Errorf("does not load: %w", err)
	}
	if found.description == "" {
		return nil
	}
	own, err := signatureOf(found, []Port{{sig.Input, "float32", []int64{-1, 3, int64(sig.Height), int64(sig.Width)}}},
		[]Port{{sig.Boxes, "float32", []int64{-1, -1, 4}},
			{sig.Logits, "float32", []int64{-1, -1, int64(len(sig.Slots))}}})
	if err == nil {
		err = sameSignature(own, sig)
	}
	if err != nil {
		return fmt.Errorf("its metadata and the bundle's %s are of different models: %w", delivery.SignatureFile, err)
	}
	return nil
}

// sameSignature returns an error with the first field in which a model's own signature differs from the bundle's.
func sameSignature(own, bundle delivery.Signature) error {
	own.SchemaVersion, own.Edges = bundle.SchemaVersion, bundle.Edges
	a, b := reflect.ValueOf(own), reflect.ValueOf(bundle)
	for i := range a.NumField() {
		if x, y := a.Field(i).Interface(), b.Field(i).Interface(); !reflect.DeepEqual(x, y) {
			name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("json"), ",")
			return fmt.Errorf("%s is %.200s in the metadata, and %.200s in the bundle", name, delivery.Canonical(x),
				delivery.Canonical(y))
		}
	}
	return nil
}

// largestBatch returns how many images a model's metadata allows in one run.
func (w Worker) largestBatch(model []byte) int {
	var m struct {
		MaxBatch *int `json:"max_batch_size"`
	}
	entry, err := w.Runtime.Metadata(model, MetadataKey)
	if err != nil || entry == "" || json.Unmarshal([]byte(entry), &m) != nil || m.MaxBatch == nil {
		return MaxBatch
	}
	return max(*m.MaxBatch, 1)
}
