package trainer

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Packages that are in the cache, in the version of the lock file, need no more disk.
func TestNeeds(t *testing.T) {
	e := Environments{Dir: t.TempDir()}
	const lock = "alpha-Beta==1.0 \\\n    --hash=sha256:00\ngamma[more]==2.0 ; python_version < '3'\ndelta==3.0+cpu\n"
	for _, c := range []struct {
		folder, info string
		bytes        int
		want         delivery.Bytes // with all before it
	}{
		{"a", "alpha_beta-1.0.dist-info", 100, 900},
		{"b", "alpha_beta-1.0.dist-info", 100, 900}, // once
		{"c", "gamma-2.1.dist-info", 100, 900},      // another version
		{"d", "gamma-2.0.data", 100, 900},
		{"e", "epsilon-2.0.dist-info", 100, 900},
		{"f", "gamma-2.0.dist-info", 200, 700},
		{"g", "delta-3.0+cpu.dist-info", 5000, 0},
	} {
		folder := filepath.Join(e.Dir, "uv", "archive-v0", c.folder)
		if err := os.MkdirAll(filepath.Join(folder, c.info), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "module.py"), make([]byte, c.bytes), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := e.Needs([]byte(lock), 1000); got != c.want {
			t.Errorf("after %s: %d, want %d", c.info, got, c.want)
		}
	}
}
