package artifact_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A test that needs other processes starts this binary again with these set.
const (
	writerDir   = "ARTIFACT_TEST_WRITER_DIR"
	writerFrom  = "ARTIFACT_TEST_WRITER_FROM"
	writerCount = "ARTIFACT_TEST_WRITER_COUNT"
	writerSlot  = "ARTIFACT_TEST_WRITER_SLOT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		do := write
		if os.Getenv(writerSlot) != "" {
			do = unpackAll
		}
		if err := do(dir, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// write pushes bundles and attaches to them, and says so when each is durable.
func write(dir string, out io.Writer) error {
	from, err := strconv.Atoi(os.Getenv(writerFrom))
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(os.Getenv(writerCount))
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "writer")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	s, err := artifact.Open(dir)
	if err != nil {
		return err
	}
	for i := from; i < from+count; i++ {
		path := filepath.Join(scratch, "trained.onnx")
		if err := os.WriteFile(path, []byte(numbered(i)), 0o644); err != nil {
			return err
		}
		digest, err := s.Push(context.Background(), artifact.Bundle{
			ModelPath: path, Signature: signature(), Golden: []byte("golden tensors"), Labels: []string{"pallet",
				"forklift"}})
		if err != nil {
			return err
		}
		for _, envelope := range []string{"first", "second"} {
			if _, err := s.Attach(context.Background(), digest, evidenceType,
				[]byte(envelope+string(digest))); err != nil {
				return err
			}
		}
		fmt.Fprintln(out, digest)
	}
	return nil
}

// unpackAll unpacks each bundle in turn into one slot, as a device does.
func unpackAll(dir string, _ io.Writer) error {
	s, err := artifact.Open(dir)
	if err != nil {
		return err
	}
	digests, err := s.Bundles(context.Background())
	if err != nil {
		return err
	}
	slot := os.Getenv(writerSlot)
	for {
		for _, digest := range digests {
			if err := os.RemoveAll(slot); err != nil {
				return err
			}
			if err := s.Unpack(context.Background(), digest, slot); err != nil {
				return err
			}
		}
	}
}

// numbered is a model of some size, so that writing it takes a while.
func numbered(i int) string { return strings.Repeat(fmt.Sprintf("onnx %d ", i), 1<<15) }

func writer(t *testing.T, dir string, from, count int) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), writerDir+"="+dir, writerFrom+"="+strconv.Itoa(from), writerCount+"="+
		strconv.Itoa(count))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

func TestProcessesWriteAtOnce(t *testing.T) {
	dir := t.TempDir()
	const processes, each = 4, 8
	var said []delivery.Digest
	var cmds []*exec.Cmd
	var outs []*bufio.Scanner
	for p := range processes {
		cmd, out := writer(t, dir, p*each/2, each) // half of each writer's bundles are the next one's too
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	for i, cmd := range cmds {
		for outs[i].Scan() {
			said = append(said, delivery.Digest(outs[i].Text()))
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if len(said) != processes*each {
		t.Fatalf("%d pushes, want %d", len(said), processes*each)
	}
	slices.Sort(said)
	check(t, dir, slices.Compact(said), true)
}

// check reads all that is in the folder. Every bundle that the index names must
// be whole, and those that were said to be durable must be among them.
func check(t *testing.T, dir string, said []delivery.Digest, exactly bool) {
	t.Helper()
	s := open(t, dir)
	got := bundles(t, s)
	slot := filepath.Join(t.TempDir(), "slot")
	for _, digest := range got {
		if err := s.Unpack(t.Context(), digest, slot); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(slot); err != nil {
			t.Fatal(err)
		}
	}
	for _, digest := range said {
		if !slices.Contains(got, digest) {
			t.Fatalf("bundle %s was durable, and is gone", digest)
		}
		envelopes, err := s.Attached(t.Context(), digest, evidenceType)
		if err != nil || len(envelopes) != 2 || string(envelopes[0]) != "first"+string(digest) {
			t.Fatalf("bundle %s: attached were two, got %q, %v", digest, envelopes, err)
		}
	}
	if exactly && len(got) != len(said) {
		t.Errorf("%d bundles, want %d", len(got), len(said))
	}
	left, err := os.ReadDir(filepath.Join(dir, "ingest"))
	if err != nil || len(left) != 0 {
		t.Errorf("opening left in ingest: %v, %v", left, err)
	}
	if hidden, _ := filepath.Glob(filepath.Join(dir, ".index.json.*")); len(hidden) != 0 {
		t.Errorf("opening left %v", hidden)
	}
}

// A writer is killed at the moment at which it is seen to be at something.
func TestKilledWritersLeaveAReadableFolder(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	moments := map[string]func(out *bufio.Scanner) bool{
		"writing a blob":      func(*bufio.Scanner) bool { return exists(filepath.Join(dir, "ingest", "*")) },
		"writing the index":   func(*bufio.Scanner) bool { return exists(filepath.Join(dir, ".index.json.*")) },
		"between two bundles": func(out *bufio.Scanner) bool { return out.Scan() },
	}
	var said []delivery.Digest
	round := 0
	for range 5 {
		for name, reached := range moments {
			cmd, out := writer(t, dir, round*100, 100)
			for !reached(out) {
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			if text := out.Text(); text != "" {
				said = append(said, delivery.Digest(text))
			}
			for out.Scan() {
				said = append(said, delivery.Digest(out.Text()))
			}
			if err := cmd.Wait(); err == nil {
				t.Fatalf("%s: the writer was too fast to be killed", name)
			}
			check(t, dir, said, false)
			round++
		}
	}
	// And it goes on from there.
	cmd, out := writer(t, dir, 0, 1)
	if !out.Scan() || cmd.Wait() != nil {
		t.Fatal("the folder takes no more bundles")
	}
	check(t, dir, append(said, delivery.Digest(out.Text())), false)
}

func exists(pattern string) bool {
	found, _ := filepath.Glob(pattern)
	return len(found) > 0
}

// A slot holds a whole bundle or is not there, whenever its writer is killed.
func TestKilledUnpackersLeaveAWholeSlotOrNone(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	models := []string{numbered(1), numbered(2)}
	var digests []delivery.Digest
	for _, m := range models {
		digests = append(digests, push(t, s, m))
	}
	slot := filepath.Join(t.TempDir(), "a")
	for round := range 20 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), writerDir+"="+dir, writerSlot+"="+slot)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		seen := []string{slot + ".partial", slot + ".partial/golden.bin", slot, slot + "/model.onnx"}[round%4]
		for !exists(seen) {
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if exists(slot) {
			removing := len(files(t, slot)) < 4 // killed in RemoveAll, which is not ours
			if got := files(t, slot); !removing &&
				!slices.ContainsFunc(models, func(m string) bool { return maps.Equal(got, unpacked(m)) }) {
				t.Fatalf("round %d: the slot holds no bundle", round)
			}
		}
		if err := os.RemoveAll(slot); err != nil {
			t.Fatal(err)
		}
		if err := s.Unpack(t.Context(), digests[0], slot); err != nil {
			t.Fatalf("round %d: the next try: %v", round, err)
		}
		if err := os.RemoveAll(slot); err != nil {
			t.Fatal(err)
		}
	}
}

// A file in ingest whose writer lives is not swept, however long it takes: here
// the writer is stopped in the middle.
func TestOpenSweepsOnlyWhatIsDead(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	dead := filepath.Join(dir, "ingest", "dead")
	if err := os.WriteFile(dead, []byte("half a blob"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, out := writer(t, dir, 0, 20)
	var half []string
	for {
		signal(t, cmd, syscall.SIGSTOP)
		found, _ := filepath.Glob(filepath.Join(dir, "ingest", "*"))
		found = slices.DeleteFunc(found, func(path string) bool { return path == dead })
		// Opening waits for the folder's lock, so the writer must not be stopped with it.
		if lock, err := durable.TryLock(filepath.Join(dir, ".lock")); err == nil {
			lock.Unlock()
			if len(found) > 0 {
				half = found
				break
			}
		}
		signal(t, cmd, syscall.SIGCONT)
	}
	open(t, dir)
	if exists(dead) {
		t.Error("a dead writer's file is still there")
	}
	if !exists(half[0]) {
		t.Error("a live writer's file was swept")
	}
	signal(t, cmd, syscall.SIGCONT)
	var said []delivery.Digest
	for out.Scan() {
		said = append(said, delivery.Digest(out.Text()))
	}
	if err := cmd.Wait(); err != nil || len(said) != 20 {
		t.Fatalf("the writer was harmed: %v, %d of 20 bundles", err, len(said))
	}
	check(t, dir, said, true)
}

// signal stops or continues a process, and waits until it is stopped.
func signal(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if sig == syscall.SIGSTOP {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
			t.Fatalf("the writer ended: %v, %v", status, err)
		}
	}
}
