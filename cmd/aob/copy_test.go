package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/web"
)

// A server in a copy of a state folder only watches: it listens neither on the original's
// socket nor on its address, says what it is, and does nothing that it is asked for.
// It can be taken over once the original has ended.
func TestCopiedStateOnlyWatches(t *testing.T) {
	dir, err := os.MkdirTemp("", "aob") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	w, err := initWorld(t.Context(), initRequest{dir: at("a"), python: "python3"}, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(w.Config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("127.0.0.1:8370", "127.0.0.1:0", ", metrics: \"127.0.0.1:8371\"",
		"").Replace(string(data)) + "socket: " + at("server.sock") + "\n"
	for _, config := range []string{w.Config, at("a", "copy.yaml")} {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		text = strings.Replace(text, "state: state", "state: ../b", 1)
	}
	original := serveFor(t, w.Config, false, at("server.sock"))
	if notices := original.status(t).Notices; strings.Contains(fmt.Sprint(notices), "only watches") {
		t.Errorf("the original: %q", notices)
	}
	if out, err := exec.Command("cp", "-a", at("a", "state"), at("b")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	rehearsal := serveFor(t, at("a", "copy.yaml"), false, at("b", "aob.sock"))
	notices := fmt.Sprint(rehearsal.status(t).Notices)
	for _, want := range []string{at("b") + " is a copy of the state folder " + at("a", "state"), "only watches",
		"aob serve --config " + at("a", "copy.yaml") + " --adopt-state"} {
		if !strings.Contains(notices, want) {
			t.Errorf("the status of the copy says %s; want %q", notices, want)
		}
	}
	for what, err := range map[string]error{
		"merge":  func() error { _, err := rehearsal.Merge(t.Context(), 1, "0123456789", "ada"); return err }(),
		"ask":    rehearsal.Command(t.Context(), 1, "ada", "/aob run 1"),
		"forget": rehearsal.ForgetDevice(t.Context(), "demo", "dock-1"),
		"adopt":  func() error { _, err := rehearsal.Adopt(t.Context(), 1, "0123456789"); return err }(),
		"end":    rehearsal.EndTrial(t.Context(), "1"),
	} {
		e, ok := errors.AsType[*web.Error](err)
		if !ok || !strings.Contains(e.What, "only watches") || !strings.Contains(e.Do, "--adopt-state") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := rehearsal.Plan(t.Context()); err != nil {
		t.Errorf("a copy does not show what it would do: %v", err)
	}
	rehearsal.end(t)
	original.status(t) // it still answers

	if err := serve(t.Context(), at("a", "copy.yaml"), "", true); err == nil ||
		!strings.Contains(err.Error(), "an aob serve works in the original") {
		t.Errorf("taken over while the original works: %v", err)
	}
	original.end(t)
	for _, adopt := range []bool{true, false, true} { // once is enough, and more does no harm
		adopted := serveFor(t, at("a", "copy.yaml"), adopt, at("server.sock"))
		if notices := fmt.Sprint(adopted.status(t).Notices); strings.Contains(notices, "copy") {
			t.Errorf("after it was adopted: %s", notices)
		}
		adopted.end(t)
	}
}

// A serving is aob serve in this process.
type serving struct {
	*web.Client
	cancel context.CancelFunc
	done   chan error
}

// serveFor starts a server and waits until its first turn is over.
func serveFor(t *testing.T, config string, adopt bool, socket string) *serving {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &serving{web.NewClient(socket), cancel, make(chan error, 1)}
	t.Cleanup(cancel)
	go func() { s.done <- serve(ctx, config, "", adopt) }()
	for {
		_, err := s.Plan(ctx)
		if err == nil {
			return s
		}
		select {
		case err := <-s.done:
			t.Fatalf("serve: %v", err)
		case <-t.Context().Done():
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *serving) status(t *testing.T) web.Status {
	t.Helper()
	status, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func (s *serving) end(t *testing.T) {
	t.Helper()
	s.cancel()
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
}
