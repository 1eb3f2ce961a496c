package trainer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trainer"
	"github.com/autonomos/aob/tools/podman/podmantest"
)

// look is a program that tries what a container must not allow, and says what it could do.
const look = `
import json, os, socket, sys
def can(do):
    try:
        do()
        return True
    except OSError:
        return False
def write(path):
    return can(lambda: open(os.path.join(path, "written"), "w").close())
read, output, beside = sys.argv[1:]
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
json.dump({
    "network": sorted(name for _, name in socket.if_nameindex()),
    "reads": open(os.path.join(read, "file")).read(), "sees": os.path.exists(beside),
    "writes": [path for path in ("/", "/usr", "/etc", read, "/tmp", output) if write(path)],
    "capabilities": sorted({status[k] for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}),
    "privileges": status["NoNewPrivs"], "user": os.getuid(), "env": dict(os.environ),
}, open(os.path.join(output, "said.json"), "w"))
`

// What a program in a container can and cannot do, in a real one.
func TestContained(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	engine, image := podmantest.Prepare(t)
	dir := t.TempDir()
	read, output, beside := filepath.Join(dir, "read"), filepath.Join(dir, "output"), filepath.Join(dir, "beside")
	script := filepath.Join(dir, "look.py")
	for _, err := range []error{os.Mkdir(read, 0o755), os.Mkdir(output, 0o700), os.WriteFile(beside, nil, 0o600),
		os.WriteFile(filepath.Join(read, "file"), []byte("an image"), 0o644),
		os.WriteFile(script, []byte(look), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p := trainer.Place{Attempt: filepath.Join(dir, "attempt"), Runs: dir, Read: []string{script, read}, Write: output,
		Program: []string{"python3", script, read, output, beside}, Env: []string{"OMP_NUM_THREADS=1"},
		Secrets: []string{"TOKEN"}, UID: os.Getuid(), GID: os.Getgid(), Files: 1024, Threads: 1024}
	argv, err := trainer.Container{Engine: engine, Image: image, Limits: podmantest.Limits}.Argv(p)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(strings.Join(argv, " "), "hunter2") {
		t.Errorf("the secret is on the command line: %q", argv)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "TOKEN=hunter2", "HTTPS_PROXY=http://user:password@proxy:1", "OTHER=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var said struct {
		Network, Writes, Capabilities []string
		Reads, Privileges             string
		Sees                          bool
		User                          int
		Env                           map[string]string
	}
	data, err := os.ReadFile(filepath.Join(output, "said.json"))
	if err == nil {
		err = json.Unmarshal(data, &said)
	}
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(said.Network, " ") != "lo" || strings.Join(said.Writes, " ") != "/tmp "+output ||
		strings.Join(said.Capabilities, " ") != "0000000000000000" || said.Reads != "an image" || said.Sees ||
		said.Privileges != "1" || said.User != os.Getuid() {
		t.Errorf("got %s", data)
	}
	if said.Env["TOKEN"] != "hunter2" || said.Env["OMP_NUM_THREADS"] != "1" || said.Env["HOME"] != "/tmp" {
		t.Errorf("its environment lacks something: %v", said.Env)
	}
	for name := range said.Env {
		switch name {
		case "TOKEN", "OMP_NUM_THREADS", "HOME", "USER", "LANG", "PATH", "HOSTNAME", "TERM", "container", "LC_CTYPE":
		default:
			t.Errorf("it has %s of this machine", name)
		}
	}
}

// A container whose server was killed is found by its label, and removed once its attempt has ended.
func TestLeftContainers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	engine, image := podmantest.Prepare(t)
	dir := t.TempDir()
	run := trainer.Container{Engine: engine, Image: image, Limits: podmantest.Limits}
	start := func(attempt string) string {
		argv, err := run.Argv(trainer.Place{Attempt: attempt, Runs: dir, Write: dir, UID: os.Getuid(), GID: os.Getgid(),
			Files: 1024, Threads: 1024, Program: []string{"python3", "-c", "import time; print('runs', flush=True); " +
				"time.sleep(1000)"}})
		if err != nil {
			t.Fatal(err)
		}
		client := exec.Command(argv[0], argv[1:]...)
		out, err := client.StdoutPipe()
		if err == nil {
			err = client.Start()
		}
		if err == nil {
			_, err = out.Read(make([]byte, 4))
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = client.Process.Kill() // as a server's processes are killed; the container goes on
		_ = client.Wait()
		t.Cleanup(func() {
			if err := trainer.RemoveContainer(engine, os.Environ(), trainer.Name(attempt)); err != nil {
				t.Error(err)
			}
		})
		return trainer.Name(attempt)
	}
	running := func() string {
		out, err := exec.Command(engine, "ps", "--all", "--filter", "label="+trainer.LabelRuns+"="+dir, "--format",
			"{{.Names}}").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(bytes.TrimSpace(out))
	}
	lives, ended := filepath.Join(dir, "lives"), filepath.Join(dir, "ended")
	name := start(lives)
	start(ended)
	if err := trainer.RemoveLeft(engine, os.Environ(), dir+"x", func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if got := running(); len(strings.Fields(got)) != 2 {
		t.Fatalf("containers of another server are not left alone: %q", got)
	}
	err := trainer.RemoveLeft(engine, os.Environ(), dir, func(attempt string) bool { return attempt == ended })
	if got := running(); err != nil || got != name {
		t.Errorf("left are %q, %v; want %s", got, err, name)
	}
	if err := trainer.RemoveContainer(engine, os.Environ(), trainer.Name(ended)); err != nil {
		t.Errorf("a container that is gone: %v", err)
	}
}

func TestPrepareContainer(t *testing.T) {
	engine, image := podmantest.Prepare(t)
	const missing = "127.0.0.1:1/none@sha256:11af3427fcfee59e0e3ac28b527bfe1d20bcdf370d68f0b7b7bfa676626abb9b"
	c := trainer.Containers{Engine: engine, Images: map[string]string{"a@1": image, "b@1": missing},
		Limits: podmantest.Limits}
	var said []string
	prepare := func(digest delivery.Digest) (trainer.Container, error) {
		return c.Prepare(context.Background(), digest, func(m trainer.Making) { said = append(said, m.What) })
	}
	got, err := prepare(trainer.DigestOf(image))
	if want := (trainer.Container{Engine: engine, Image: image, Limits: podmantest.Limits}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for digest, want := range map[delivery.Digest]string{
		trainer.DigestOf(missing):   "the image " + missing + " is not on the server, which pulls none",
		delivery.Sum([]byte("old")): "the server no longer has the image with digest",
	} {
		_, err := prepare(digest)
		if _, blocked := errors.AsType[delivery.Blocked](err); !blocked || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	c.Pull = true
	if _, err := prepare(trainer.DigestOf(missing)); err == nil || !strings.Contains(err.Error(), "cannot be pulled") ||
		len(said) == 0 {
		t.Errorf("pulled from nowhere: %v, %q", err, said)
	}
}
