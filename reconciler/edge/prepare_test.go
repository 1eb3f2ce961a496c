package edge_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/edge"
)

// What takes long before a bundle serves, as building an engine does, is done while the bundle before still serves.
// Where it fails, the start does it.
func TestPrepareWhileTheOldOneServes(t *testing.T) {
	l := newLab(t)
	v1, v2, v3 := l.newBundle(1), l.newBundle(2), l.newBundle(3)
	var mu sync.Mutex
	var prepared []delivery.Digest
	var serving []int // how many detectors ran meanwhile
	d := l.boot(l.dir(), func(c *edge.Config) {
		c.Prepare = func(_ context.Context, dir string) error {
			model, err := os.ReadFile(filepath.Join(dir, "model.onnx"))
			if err != nil {
				return err
			}
			l.mu.Lock()
			running := len(l.running)
			l.mu.Unlock()
			mu.Lock()
			defer mu.Unlock()
			prepared, serving = append(prepared, delivery.Digest(model)), append(serving, running)
			if delivery.Digest(model) == v3.target.Bundle {
				return errors.New("memory is too small")
			}
			return nil
		}
	})
	for i, b := range []*bundle{v1, v2, v3} {
		l.publish(int64(i+1), b.target)
		l.phase(int64(i+1), delivery.DeviceHealthy, b.target)
		d.serves(b.target)
	}
	l.publish(4, v2.target) // its slot still has it
	l.phase(4, delivery.DeviceHealthy, v2.target)
	mu.Lock()
	defer mu.Unlock()
	for i, want := range []*bundle{v1, v2, v3} {
		if len(prepared) != 3 || prepared[i] != want.target.Bundle || serving[i] != min(i, 1) {
			t.Fatalf("prepared %v while %v detectors ran", prepared, serving)
		}
	}
}
