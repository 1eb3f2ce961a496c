package archive

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
)

// The server finds what its store lost when it is asked, and that it is mended.
func TestStoreCheckFindsLostBlobs(t *testing.T) {
	dir := t.TempDir()
	store, err := artifact.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(model, []byte("onnx 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	bundle, err := store.Push(t.Context(), artifact.Bundle{ModelPath: model, Golden: []byte("golden"),
		Labels: []string{"pallet"},
		Signature: delivery.Signature{SchemaVersion: 1, Input: "input", Boxes: "dets", Logits: "labels", Width: 8,
			Height: 8,
			Resize: delivery.Resize{Algorithm: "bilinear", Padding: "none", DType: "float32"},
			Means:  []float64{0, 0, 0}, Stds: []float64{1, 1, 1}, Slots: []string{"pallet"}, Background: -1,
			Select: 10}})
	if err != nil {
		t.Fatal(err)
	}
	woken := make(chan struct{}, 100)
	c := NewCheck(store, func() { woken <- struct{}{} }, slog.New(slog.NewTextHandler(t.Output(), nil)), time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { c.Run(ctx); close(ended) }()
	// The check of all bundles at the start may wake too, with what it found before a change: then the next one counts.
	finds := func(want int) bool {
		t.Helper()
		for range 3 {
			c.Ask(bundle)
			<-woken
			s, ok := c.Found()[bundle]
			if !ok || s.At.IsZero() {
				t.Fatal("not checked")
			}
			if len(s.Lost) == want {
				return true
			}
		}
		return false
	}
	if !finds(0) {
		t.Error("a whole bundle has lost something")
	}
	blob := filepath.Join(dir, "blobs", "sha256", delivery.Sum([]byte("onnx 1")).Hex())
	if err := os.Remove(blob); err != nil {
		t.Fatal(err)
	}
	if !finds(1) {
		t.Error("the loss is not found")
	}
	if err := os.WriteFile(blob, []byte("onnx 1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if !finds(0) {
		t.Error("what was brought back is still lost")
	}
	cancel()
	<-ended
}
