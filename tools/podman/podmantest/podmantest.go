// Package podmantest gives tests real containers: podman, with an image that has Python's standard library and nothing
// else, made of this machine's own. Nothing is downloaded.
package podmantest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/trainer"
)

// Prepare returns the path of podman, and the name of the image by its digest. It skips the test if no container runs
// here.
func Prepare(t *testing.T) (engine, image string) {
	t.Helper()
	p := found()
	if p.why != "" {
		t.Skip(p.why)
	}
	if p.runtime != "" {
		file := filepath.Join(t.TempDir(), "containers.conf")
		if err := os.WriteFile(file, configuration(p.runtime), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv(configured, file)
	}
	return p.engine, p.image
}

// prepared is what the tests of one program share.
type prepared struct{ engine, image, runtime, why string }

var found = sync.OnceValue(func() (p prepared) {
	var err error
	if p.engine, err = exec.LookPath("podman"); err != nil {
		p.why = "podman is not installed: apt-get install podman, to run this test"
		return p
	}
	const name = "localhost/aob-test-python"
	if podman(p.engine, nil, "image", "exists", name) != nil {
		out, err := exec.Command("/bin/bash", "-ec", makeImage, "make", p.engine, name).CombinedOutput()
		if err != nil {
			p.why = fmt.Sprintf("podman cannot make an image here: %v: %s", err, out)
			return p
		}
	}
	out, err := exec.Command(p.engine, "image", "inspect", "--format", "{{index .RepoDigests 0}}", name).Output()
	p.image = strings.TrimSpace(string(out))
	if err == nil {
		p.runtime, err = runtimeOf(p.engine, p.image)
	}
	if err != nil {
		p.why = "podman runs no container here: " + err.Error()
	}
	return p
})

// configured names podman's configuration.
const configured = "CONTAINERS_CONF"

func configuration(runtime string) []byte {
	return fmt.Appendf(nil, "[engine]\nruntime = %q\n", runtime)
}

// runtimeOf returns the runtime that containers need here, "" for podman's own: some kernels have what only one of them
// can use.
func runtimeOf(engine, image string) (runtime string, err error) {
	dir, err := os.MkdirTemp("", "aob-podman-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	var errs []error
	for _, runtime := range []string{"", "runc", "crun"} {
		var env []string
		if runtime != "" {
			file := filepath.Join(dir, "containers.conf")
			if err := os.WriteFile(file, configuration(runtime), 0o600); err != nil {
				return "", err
			}
			env = append(os.Environ(), configured+"="+file)
		}
		err := trial(engine, image, dir, env)
		if err == nil {
			return runtime, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// Env returns the variables of this process that podman needs, after Prepare.
func Env() []string { return trainer.EngineEnv() }

// trial runs a container with the flags that trainings have.
func trial(engine, image, dir string, env []string) error {
	c := trainer.Container{Engine: engine, Image: image, Limits: Limits}
	argv, err := c.Argv(trainer.Place{Attempt: dir, Runs: dir, Write: dir, UID: os.Getuid(), GID: os.Getgid(),
		Files: 1024, Threads: 1024, Program: []string{"python3", "-c", "import json"}})
	if err != nil {
		return err
	}
	return podman(argv[0], env, argv[1:]...)
}

// Limits are enough for the tests' trainers.
var Limits = trainer.Limits{Memory: 512 << 20, Processes: 256}

func podman(engine string, env []string, args ...string) error {
	var said bytes.Buffer
	cmd := exec.Command(engine, args...)
	cmd.Env, cmd.Stderr = env, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// makeImage packs the interpreter, the standard library and the libraries that they are linked with.
const makeImage = `
engine=$1 name=$2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
python=$(python3 -I -c 'import os, sys; print(os.path.realpath(sys.executable))')
library=$("$python" -I -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
mkdir -p "$root/usr/bin" "$root/tmp" "$root/$library" "$root/$(dirname "$python")"
cp "$python" "$root/$python"
[ -e "$root/usr/bin/python3" ] || ln -s "$python" "$root/usr/bin/python3"
tar -C "$library" --exclude __pycache__ --exclude dist-packages --exclude site-packages --exclude test -c . |
	tar -C "$root/$library" -x
ldd "$python" "$library"/lib-dynload/*.so | grep -o '/[^ )]*\.so[^ )]*' | grep -v lib-dynload | sort -u |
	while read -r file; do
		[ -e "$file" ] || continue
		mkdir -p "$root/$(dirname "$file")"
		cp -L "$file" "$root/$file"
	done
tar -C "$root" -c . | "$engine" import - "$name"
`
