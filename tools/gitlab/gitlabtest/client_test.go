package gitlabtest

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/tools/venvtest"
)

// TestPythonClient holds the server against python-gitlab, a client that others have written: it finds in the answers
// what it expects of GitLab.
func TestPythonClient(t *testing.T) {
	python := venvtest.Python(t, "gitlab")
	s := Start(t)
	ada, bob := s.User("ada"), s.User("bob")
	p := s.Project(ada, "intent")
	s.Allow(p, bob, Reporter)
	dir := filepath.Join(t.TempDir(), "work")
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-C", dir, "-c", "user.name=Ada", "-c", "user.email=ada@example.com"}, args...)
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args, err, out)
		}
	}
	if out, err := exec.Command("git", "init", "-q", "-b", "main", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	git("commit", "-q", "--allow-empty", "-m", "first")
	git("push", "-q", s.Remote(p, ada), "main")
	git("checkout", "-q", "-b", "longer")
	git("commit", "-q", "--allow-empty", "-m", "longer")
	git("push", "-q", s.Remote(p, ada), "longer")
	s.Propose(p, bob, p, "longer", "Draft: longer training")

	cmd := exec.Command(python, "client.py", s.URL, ada.Token, "ada/intent", "bob")
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	type list = []any
	want := map[string]any{
		"user": "ada", "project": list{"ada/intent", false, true}, "same": true,
		"merges": list{list{1.0, "Draft: longer training", "longer", "main", true, "bob"}},
		"made":   list{"ci/other", "pending", "waits"},
		"refused": list{
			list{400.0, `Cannot transition status via :enqueue from :pending (Reason(s): Status cannot transition ` +
				`via "enqueue")`},
			list{400.0, "{'description': ['is too long (maximum is 255 characters)']}"},
			list{404.0, "404 Pipeline for pipeline_id, sha and ref Not Found"}},
		"statuses":  list{list{"ci/other", "success", "ada"}},
		"pipelines": list{list{"external", "longer", "success"}},
		"notes":     list{list{"ada", "hello again"}},
		"awards":    list{list{"thumbsup", "ada"}},
		"edited":    true,
		"member":    list{"bob", 20.0},
		"branch":    list{true},
		"token":     list{"api", "write_repository"},
		"missing":   list{404.0, "404 Project Not Found"},
		"wrong":     401.0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, approved := s.State(p, 1); !approved {
		t.Error("the note's quick action was not carried out")
	}
}
