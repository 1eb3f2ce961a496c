package main

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/git"
)

// Other users of the machine read nothing of the state, also where an earlier
// version let them.
func TestStateIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "world")
	w, err := initWorld(t.Context(), initRequest{dir: dir, python: "python3"}, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("aob init makes the state %v, %v", info, err)
	}
	for range 2 {
		s, err := openServer(t.Context(), w.Config, false, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		some := 0
		err = filepath.WalkDir(state, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			some++
			if info.Mode().Perm()&0o077 != 0 && !strings.HasSuffix(path, ".pub") {
				t.Errorf("%s is open: %v", path, info.Mode())
			}
			return os.Chmod(path, info.Mode()|0o055) // as before
		})
		if err != nil || some < 10 {
			t.Errorf("looked at %d files: %v", some, err)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}
}

// Where the bundles cannot be read, the server starts all the same: fleets go on with what is published. aob status
// says what is wrong.
func TestServerStartsWhileBundlesCannotBeRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "world")
	w, err := initWorld(t.Context(), initRequest{dir: dir, python: "python3"}, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	bundles := filepath.Join(dir, "state", "bundles")
	if err := os.MkdirAll(filepath.Join(bundles, "index.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := openServer(t.Context(), w.Config, false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.source.DryRun(t.Context()); err != nil {
		t.Errorf("no turn can be planned: %v", err)
	}
	status, err := s.source.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(status.Notices, "\n")
	for _, want := range []string{"the evidence about bundles cannot be read", "since", "index.json",
		"remove that file"} {
		if !strings.Contains(said, want) {
			t.Errorf("aob status does not mention %q:\n%s", want, said)
		}
	}
}

// A state folder that a newer version has used is refused with the sentence that says so, and stays as it is.
func TestServerRefusesTheStateOfANewerVersion(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "world")
	w, err := initWorld(t.Context(), initRequest{dir: dir, python: "python3"}, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	text := `{"format": 2, "id": "abcdefghijklmnopqrstuvwxyz", "path": "/srv/state"}`
	if err := os.WriteFile(filepath.Join(state, durable.FolderFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := openServer(t.Context(), w.Config, false, slog.New(slog.DiscardHandler))
		want := "the state folder " + state +
			" was written by a newer aob: it has format 2, and this aob reads formats up to 1; start that version"
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	for _, name := range []string{"ledger.db", "devices.db", "mirror", "bundles"} {
		if _, err := os.Stat(filepath.Join(state, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

// The server signs its commits with the key of the configuration, in the name that stands there.
func TestServerSignsItsCommits(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("no ssh-keygen on PATH")
	}
	dir := filepath.Join(t.TempDir(), "world")
	w, err := initWorld(t.Context(), initRequest{dir: dir, python: "python3"}, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "commits.key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	config, err := os.OpenFile(w.Config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = config.WriteString("commits: {name: AOB of Acme, email: aob@acme.example, signingKey: commits.key}\n")
	if err := errors.Join(err, config.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := openServer(t.Context(), w.Config, false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	mirror := s.source.Commits.(*git.Mirror)
	refs, _, err := mirror.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	commit, err := mirror.Commit([]string{refs["refs/heads/main"]}, map[string][]byte{"README.md": []byte("x")},
		time.Unix(1_800_000_000, 0), "Release")
	if err != nil {
		t.Fatal(err)
	}
	if err := mirror.Push(t.Context(), commit, "refs/heads/side", ""); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "-C", s.settings.Repository, "cat-file", "commit", commit).Output()
	const who = "AOB of Acme <aob@acme.example> 1800000000 +0000\n"
	if err != nil || !strings.Contains(string(out), "author "+who+"committer "+who+
		"gpgsig -----BEGIN SSH SIGNATURE-----\n ") {
		t.Errorf("%v: the commit is\n%s", err, out)
	}
}
