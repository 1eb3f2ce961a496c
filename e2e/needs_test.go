package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/detect"
)

const python = "/usr/bin/python3"

// needs are the programs and the data of a story.
type needs struct {
	bin       string // the folder of aob, aob-agent and aob-detect
	terraform string
	library   string // ONNX Runtime's
	bccd      string // the dataset of blood cells, in COCO layout
}

// find finds all that a story needs, and skips the test where something is
// missing, before anything slow has begun.
func find(t *testing.T) needs {
	t.Helper()
	shared := os.Getenv("AOB_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "shared")
	}
	bccd, err := filepath.Abs(filepath.Join(shared, "data", "bccd"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bccd, "train", "_annotations.coco.json")); err != nil {
		t.Skipf("the dataset BCCD is not in %s; AOB_SHARED names the folder of data/bccd", bccd)
	}
	n := findPrograms(t)
	n.bccd = bccd
	return n
}

// findPrograms finds the programs that a story needs, and no data.
func findPrograms(t *testing.T) needs {
	t.Helper()
	if testing.Short() {
		t.Skip("takes minutes: run it without -short")
	}
	var n needs
	var err error
	if out, err := exec.Command(python, "-c", "import torch, onnx, PIL").CombinedOutput(); err != nil {
		t.Skipf("%s has no PyTorch: %v: %s; run tools/install.sh", python, err, lastLine(out))
	}
	if n.terraform, err = exec.LookPath("terraform"); err != nil {
		t.Skip("terraform is not on PATH; run tools/install.sh")
	}
	if n.library, err = detect.FindLibrary(); err != nil {
		t.Skipf("ONNX Runtime is missing: %v", err)
	}
	if n.bin, err = programs(); err != nil {
		t.Fatal(err)
	}
	return n
}

// built is where programs puts what it builds; TestMain removes it.
var built string

// programs builds the commands as the Makefile does, once for all tests.
var programs = sync.OnceValues(func() (dir string, err error) {
	if built, err = os.MkdirTemp("", "aob-bin-"); err != nil {
		return "", err
	}
	for command, cgo := range map[string]string{"aob": "0", "aob-agent": "0", "aob-detect": "1"} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(built, command), "./cmd/"+command)
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", command, err, out)
		}
	}
	return built, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}
