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

// Tests that need other processes start this binary again with these environment variables.
const (
	writerDir   = "ARTIFACT_TEST_WRITER_DIR"
	writerFrom  = "ARTIFACT_TEST_WRITER_FROM"
	writerCount = "ARTIFACT_TEST_WRITER_COUNT"
	writerSlot  = "ARTIFACT_TEST_WRITER_SLOT"
	writerChurn = "ARTIFACT_TEST_WRITER_CHURN"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		do := write
		if os.Getenv(writerSlot) != "" {
			do = unpackAll
		}
		if os.Getenv(writerChurn) != "" {
			do = churn
		}
		if err := do(dir, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// write pushes bundles with referrers, and prints the digest of each when it is durable.
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
		if err := s.Fold(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// unpackAll unpacks all bundles in turn into one slot, as a device does, until it is killed.
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
			// Renamed first, so that a slot which is being removed is not taken for one that is being written.
			if err := os.RemoveAll(slot + ".old"); err != nil {
				return err
			}
			if err := os.Rename(slot, slot+".old"); err != nil && !os.IsNotExist(err) {
				return err
			}
			if err := s.Unpack(context.Background(), digest, slot); err != nil {
				return err
			}
		}
	}
}

// numbered returns a model that is large enough that writing it takes some time.
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

func TestConcurrentProcesses(t *testing.T) {
	dir := t.TempDir()
	const processes, each = 4, 8
	var printed []delivery.Digest
	var cmds []*exec.Cmd
	var outs []*bufio.Scanner
	for p := range processes {
		cmd, out := writer(t, dir, p*each/2, each) // half of each writer's bundles are the next one's too
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	for i, cmd := range cmds {
		for outs[i].Scan() {
			printed = append(printed, delivery.Digest(outs[i].Text()))
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if len(printed) != processes*each {
		t.Fatalf("%d pushes, want %d", len(printed), processes*each)
	}
	slices.Sort(printed)
	check(t, dir, slices.Compact(printed), true)
}

// check reads the whole store. Every bundle in the index must be complete, and all durable
// bundles must be in it. With exactly, there must be no others.
func check(t *testing.T, dir string, durable []delivery.Digest, exactly bool) {
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
	for _, digest := range durable {
		if !slices.Contains(got, digest) {
			t.Fatalf("bundle %s was durable, and is missing", digest)
		}
		envelopes, err := attached(t, s, digest, evidenceType)
		if err != nil || len(envelopes) != 2 || string(envelopes[0]) != "first"+string(digest) {
			t.Fatalf("bundle %s: want two referrers, got %q, %v", digest, envelopes, err)
		}
	}
	if exactly && len(got) != len(durable) {
		t.Errorf("%d bundles, want %d", len(got), len(durable))
	}
	left, err := os.ReadDir(filepath.Join(dir, "ingest"))
	if err != nil || len(left) != 0 {
		t.Errorf("files in ingest after Open: %v, %v", left, err)
	}
	if hidden, _ := filepath.Glob(filepath.Join(dir, ".index.json.*")); len(hidden) != 0 {
		t.Errorf("files after Open: %v", hidden)
	}
}

// Writers are killed at defined moments. The folder must stay valid.
func TestKilledWritersLeaveAReadableFolder(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	moments := map[string]func(out *bufio.Scanner) bool{
		"writing a blob":      func(*bufio.Scanner) bool { return exists(filepath.Join(dir, "ingest", "*")) },
		"adding to the log":   func(*bufio.Scanner) bool { return exists(filepath.Join(dir, "index.log")) },
		"writing the index":   func(*bufio.Scanner) bool { return exists(filepath.Join(dir, ".index.json.*")) },
		"between two bundles": func(out *bufio.Scanner) bool { return out.Scan() },
	}
	var printed []delivery.Digest
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
				printed = append(printed, delivery.Digest(text))
			}
			for out.Scan() {
				printed = append(printed, delivery.Digest(out.Text()))
			}
			if err := cmd.Wait(); err == nil {
				t.Fatalf("%s: the writer was too fast to be killed", name)
			}
			check(t, dir, printed, false)
			round++
		}
	}
	// The store can still be written.
	cmd, out := writer(t, dir, 0, 1)
	if !out.Scan() || cmd.Wait() != nil {
		t.Fatal("no bundle can be pushed any more")
	}
	check(t, dir, append(printed, delivery.Digest(out.Text())), false)
}

func exists(pattern string) bool {
	found, _ := filepath.Glob(pattern)
	return len(found) > 0
}

// A slot is complete or absent, whenever its writer is killed.
func TestKilledUnpackersLeaveACompleteSlotOrNone(t *testing.T) {
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
		moment := []string{slot + ".partial", slot + ".partial/golden.bin", slot, slot + "/model.onnx"}[round%4]
		for !exists(moment) {
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if exists(slot) {
			got := files(t, slot)
			if !slices.ContainsFunc(models, func(m string) bool { return maps.Equal(got, unpacked(m)) }) {
				t.Fatalf("round %d: the slot is incomplete", round)
			}
		}
		if err := os.RemoveAll(slot); err != nil {
			t.Fatal(err)
		}
		if err := s.Unpack(t.Context(), digests[0], slot); err != nil {
			t.Fatalf("round %d: the next attempt: %v", round, err)
		}
		if err := os.RemoveAll(slot); err != nil {
			t.Fatal(err)
		}
	}
}

// Open does not remove a file in ingest whose writer is alive. The test stops a writer in
// the middle of a file.
func TestOpenRemovesOnlyFilesOfDeadWriters(t *testing.T) {
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
		// Open waits for the store's lock, so the stopped writer must not hold it.
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
		t.Error("a dead writer's file was not removed")
	}
	if !exists(half[0]) {
		t.Error("a live writer's file was removed")
	}
	signal(t, cmd, syscall.SIGCONT)
	var printed []delivery.Digest
	for out.Scan() {
		printed = append(printed, delivery.Digest(out.Text()))
	}
	if err := cmd.Wait(); err != nil || len(printed) != 20 {
		t.Fatalf("the writer failed: %v, %d of 20 bundles", err, len(printed))
	}
	check(t, dir, printed, true)
}

// signal sends a signal to a process. After SIGSTOP it waits until the process has stopped.
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
