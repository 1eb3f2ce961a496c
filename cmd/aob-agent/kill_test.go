package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/edge"
)

// An agent that is killed at any moment leaves a pointer to a complete bundle and no detector, and the next agent
// continues from there. The document changes all the time, so that the agent is always killed during work.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	const kills = 120
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, seed))
	s := newSite(t, delivery.Wave{Share: 1})
	var good, bad []delivery.Target
	for version := range 8 { // more than two slots hold, so that there is much to download
		good = append(good, s.push(t, script{Version: version + 1, Padding: padding(rng, 2<<20)}))
	}
	bad = append(bad, s.push(t, script{Version: 101, Start: "crash", Padding: padding(rng, 2<<20)}),
		s.push(t, script{Version: 102, CrashAfter: 20 * time.Millisecond, Padding: padding(rng, 2<<20)}))
	dir := shortDir(t)
	at := map[string]int{} // what it was doing when it was killed
	served := 0            // kills that left a bundle behind
	for i := range kills {
		// Mostly good releases, so that there is something to lose.
		release := good[rng.IntN(len(good))]
		if rng.IntN(4) == 0 {
			release = bad[rng.IntN(len(bad))]
		}
		doc := delivery.Desired{Ring: "north", Model: "pallets", Release: release, Share: 1, Salt: fmt.Sprint(i),
			Soak:     delivery.Duration(time.Duration(rng.IntN(60)) * time.Millisecond),
			NextPoll: delivery.Duration(time.Second)}
		if err := s.Publish(t.Context(), doc); err != nil {
			t.Fatal(err)
		}
		agent := launch(t, s.arguments(t, "d1", dir))
		// A moment from when it has begun to work, spread over all that it does.
		agent.started(t)
		time.Sleep(time.Duration(rng.IntN(400_000)) * time.Microsecond)
		at[agent.kill(t)]++
		if checkFolder(t, s.store, dir) {
			served++
		}
		if t.Failed() {
			t.Fatalf("after kill %d, seed %d", i+1, seed)
		}
	}
	t.Logf("killed %d times, %d times with a bundle to serve; last log lines: %v", kills, served, at)

	// Without more kills it converges to the document.
	s.release(good[0])
	agent := launch(t, s.arguments(t, "d1", dir))
	s.done(t, good[0])
	if got := serving(t, map[string]string{"d1": dir}); got["d1"] != 1 {
		t.Errorf("serves version %d", got["d1"])
	}
	if err := agent.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := agent.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v; %s", err, agent.log.String())
	}
	noDetector(t, dir)
}

// A process is an agent in its own process.
type process struct {
	cmd *exec.Cmd
	log *words
}

// words are a process's log.
type words struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
	return w.text.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func launch(t *testing.T, args []string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(self, args...), log: &words{more: make(chan struct{}, 1)}}
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	return p
}

// started waits for the first log line.
func (p *process) started(t *testing.T) {
	t.Helper()
	select {
	case <-p.log.more:
	case <-time.After(30 * time.Second):
		t.Fatal("the agent says nothing")
	}
}

// kill kills the agent but not its children, and returns its last log message.
func (p *process) kill(t *testing.T) (last string) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatalf("it had ended: %v; %s", err, p.log.String())
	}
	p.cmd.Wait()
	lines := strings.Split(strings.TrimSpace(p.log.String()), "\n")
	var line struct{ Msg string }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &line); err != nil {
		t.Errorf("its last log line is not JSON: %q", lines[len(lines)-1])
	}
	return line.Msg
}

// checkFolder checks the folder of a killed agent: every bundle in a slot is complete, and the pointer names one of
// them or none. It reports whether it names one.
func checkFolder(t *testing.T, store *artifact.Store, dir string) bool {
	t.Helper()
	noDetector(t, dir)
	held := map[string]delivery.Digest{}
	for _, slot := range []string{"a", "b"} {
		entries, err := os.ReadDir(filepath.Join(dir, slot))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			digest, err := delivery.ParseDigest("sha256:" + e.Name())
			if err != nil {
				continue // a cache, or on its way out
			}
			held[slot] = digest
			whole(t, store, digest, filepath.Join(dir, slot, e.Name()))
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "agent.json"))
	if os.IsNotExist(err) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	var pointer edge.State
	if err := json.Unmarshal(data, &pointer); err != nil {
		t.Fatalf("the pointer is damaged: %v\n%s", err, data)
	}
	if pointer.Slot != "" && held[pointer.Slot] != pointer.Bundle {
		t.Errorf("the pointer names %s in slot %s, which holds %q", pointer.Bundle, pointer.Slot, held[pointer.Slot])
	}
	return pointer.Slot != ""
}

// whole compares a bundle's folder with the server's store.
func whole(t *testing.T, store *artifact.Store, digest delivery.Digest, dir string) {
	t.Helper()
	want := filepath.Join(t.TempDir(), "want")
	if err := store.Unpack(context.Background(), digest, want); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{delivery.ModelFile, delivery.SignatureFile, delivery.LabelsFile,
		delivery.GoldenFile} {
		a, err := os.ReadFile(filepath.Join(want, name))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s is not complete: %v", filepath.Join(dir, name), err)
		}
	}
}

// noDetector waits until no process uses a folder and no detector accepts connections: the kernel ends an agent's
// detector right after the agent.
func noDetector(t *testing.T, dir string) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		var left []string
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range processes {
			f, err := os.Open(path)
			if err != nil {
				continue // it is gone
			}
			line, _ := io.ReadAll(f)
			f.Close()
			if bytes.Contains(line, []byte(dir+string(filepath.Separator))) {
				left = append(left, string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
			}
		}
		if status, err := edge.ReadStatus(dir); err == nil && status.Serving {
			left = append(left, "something answers at "+status.Socket)
		}
		if len(left) == 0 {
			return
		}
		select {
		case <-timeout:
			t.Fatalf("left behind: %q", left)
		default:
			runtime.Gosched()
		}
	}
}
