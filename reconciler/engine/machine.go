package engine

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/profile"
)

// A Machine tells what it is. A fact that cannot be read is empty.
type Machine struct {
	Root string // of the file system; "" is /
	// SMI runs nvidia-smi; nil runs the one that is installed.
	SMI func(ctx context.Context, args ...string) ([]byte, error)
}

// read returns the beginning of a file. The files of /proc say that they have no bytes, whatever they have.
func (m Machine) read(path string) []byte {
	const most = 1 << 20
	f, err := os.OpenFile(filepath.Join("/", m.Root, path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, most))
	return data
}

// Target returns the machine as engines are bound to it, but without TensorRT's version.
func (m Machine) Target(ctx context.Context, device int) profile.Target {
	var t profile.Target
	t.Module, t.Compute = profile.ParseModule(m.read("proc/device-tree/compatible"))
	t.L4T = profile.ParseTegra(m.read("etc/nv_tegra_release"))
	t.CUDA = profile.ParseCUDA(m.read("usr/local/cuda/version.json"))
	if t.Compute == "" {
		smi := m.SMI
		if smi == nil {
			smi = runSMI
		}
		if out, err := smi(ctx, append([]string{"--id=" + strconv.Itoa(device)}, profile.SMIArgs...)...); err == nil {
			t.GPU, t.Compute = profile.ParseSMI(out)
		}
	}
	return t
}

func runSMI(ctx context.Context, args ...string) ([]byte, error) {
	path, err := find("nvidia-smi", "/usr/bin/nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return exec.CommandContext(ctx, path, args...).Output()
}

// find returns the path of a program on PATH or at one of the usual places.
func find(name string, places ...string) (string, error) {
	path, err := exec.LookPath(name)
	for _, place := range places {
		if err == nil {
			break
		}
		path, err = exec.LookPath(place)
	}
	return path, err
}

// available returns how much memory is free for new programs, in bytes; false if the machine does not say it.
func (m Machine) available() (int64, bool) {
	return m.kilobytes("proc/meminfo", "MemAvailable:")
}

// kilobytes returns the size in a line of a file below /proc, in bytes; false if it is not there.
func (m Machine) kilobytes(path, name string) (int64, bool) {
	lines := bufio.NewScanner(bytes.NewReader(m.read(path)))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), " kB")), 10, 64)
			return n << 10, err == nil && n >= 0 && n < 1<<43
		}
	}
	return 0, false
}
