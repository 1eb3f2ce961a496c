package pulls

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/turn"
)

// Git follows a file that one side has moved into gates/, and merges into it what the other side has changed where it
// was before. No diff shows that, so the pull request is named whichever side moved the file.
func TestChangesOfMovedFilesAreSeen(t *testing.T) {
	for name, headMoves := range map[string]bool{"main moves it": false, "the head moves it": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			run := func(args ...string) string {
				c := exec.Command("git", args...)
				c.Dir = dir
				c.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x", "GIT_COMMITTER_NAME=a",
					"GIT_COMMITTER_EMAIL=a@x")
				out, err := c.CombinedOutput()
				if err != nil {
					t.Fatalf("git %v: %s", args, out)
				}
				return strings.TrimSpace(string(out))
			}
			write := func(path, text string) {
				path = filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			moves := func() {
				run("mv", "docs/strict.yaml", "gates/strict.yaml")
				run("commit", "-qm", "in force")
			}
			changes := func() {
				write("docs/strict.yaml", gateFile("strict", "shapes", 0))
				run("commit", "-qam", "docs")
			}
			run("init", "-q", "-b", "main")
			write("models/shapes.yaml", "kind: Model\n")
			write("gates/production.yaml", gateFile("production", "shapes", 0.3))
			write("docs/strict.yaml", gateFile("strict", "shapes", 0.59))
			run("add", ".")
			run("commit", "-qm", "base")
			run("checkout", "-qb", "head")
			if headMoves {
				moves()
				run("checkout", "-q", "main")
				changes()
			} else {
				changes()
				run("checkout", "-q", "main")
				moves()
			}
			base, main, head := run("merge-base", "main", "head"), run("rev-parse", "main"), run("rev-parse", "head")

			mirror, err := git.Open(t.TempDir(), git.Remote{URL: filepath.Join(dir, ".git")})
			if err != nil {
				t.Fatal(err)
			}
			defer mirror.Close()
			if _, _, err := mirror.Observe(t.Context()); err != nil {
				t.Fatal(err)
			}
			reader := commits.New(mirror, intent.NewCache(intent.Options{}))
			r := New(mirror, nil, nil, nil, turn.New(time.Now, slog.New(slog.DiscardHandler)), reader, "main")
			r.until = time.Now().Add(time.Hour)
			var trees [3]commits.Tree
			for i, commit := range []string{main, base, head} {
				if trees[i], err = reader.Tree(commit); err != nil {
					t.Fatal(err)
				}
			}
			m, err := r.mergeWith([3]string{main, base, head}, trees[0], trees[1], trees[2])
			if want := []string{"docs/strict.yaml"}; err != nil || !slices.Equal(m.moved, want) {
				t.Errorf("moved %v, error %v; want %v", m.moved, err, want)
			}
			run("checkout", "-q", "main")
			run("merge", "-q", "--no-edit", "head")
			yields := trees[0].Files.With(threeWay(trees[1].Files, trees[2].Files)...)
			if judged := yields.Of("gates/strict.yaml").Hash; judged == run("rev-parse",
				"HEAD:gates/strict.yaml") {
				t.Error("git did not follow the file, so this shows nothing")
			}
		})
	}
}

// What a merge by rebase leaves in a file is found by making each change anew on what main has.
func TestUndone(t *testing.T) {
	const gate, release = "gates/g.yaml", "models/m.release.yaml"
	change := func(path, from, to string) git.FileChange { return git.FileChange{Path: path, From: from, To: to} }
	for name, c := range map[string]struct {
		ahead        git.Ahead
		path         string
		main, judged string
		isUndone     bool
	}{
		"a change": {git.Ahead{Changes: []git.FileChange{change(gate, "1", "2")}}, gate, "1", "2", false},
		"there and back on the same main": {git.Ahead{Changes: []git.FileChange{change(gate, "1", "2"),
			change(gate, "2", "1")}}, gate, "1", "1", false},
		"back to what main has left": {git.Ahead{Changes: []git.FileChange{change(gate, "1", "2"),
			change(gate, "2", "1")}}, gate, "2", "2", true},
		"there and back beside another change of main's": {git.Ahead{Changes: []git.FileChange{change(gate, "1", "2"),
			change(gate, "2", "1")}}, gate, "3", "3", true},
		"the same of a release, which texts are never joined to": {git.Ahead{Changes: []git.FileChange{
			change(release, "1", "2"), change(release, "2", "1")}}, release, "3", "3", false},
		"a release that main has left": {git.Ahead{Changes: []git.FileChange{change(release, "1", "2"),
			change(release, "2", "1")}}, release, "2", "2", true},
		"a release on a branch that took main's": {git.Ahead{Merges: true, Changes: []git.FileChange{
			change(release, "1", "2"), change(release, "3", "4")}}, release, "3", "4", false},
		"a release that goes on to an old one": {git.Ahead{Merges: true, Changes: []git.FileChange{
			change(release, "3", "1")}}, release, "3", "3", true},
		"a gate that a merge takes back": {git.Ahead{Merges: true, Changes: []git.FileChange{change(gate, "1", "0")}},
			gate, "1", "1", true},
		"a gate of another branch that was squashed": {git.Ahead{Merges: true, Changes: []git.FileChange{
			change(gate, "1", "2")}}, gate, "2", "2", false},
		"a gate that a merge makes": {git.Ahead{Merges: true, Resolved: []string{gate}}, gate, "1", "2", true},
		"a spec": {git.Ahead{Merges: true, Resolved: []string{"models/m.yaml"}}, "models/m.yaml",
			"1", "2", false},
	} {
		t.Run(name, func(t *testing.T) {
			got := undone(c.ahead, delivery.NamedOf(byPath([]git.File{{Path: c.path, Hash: c.main}})),
				delivery.NamedOf(byPath([]git.File{{Path: c.path, Hash: c.judged}})))
			if is := len(got) > 0; is != c.isUndone {
				t.Errorf("got %v, want it named: %v", got, c.isUndone)
			}
		})
	}
}

// gateFile is a gate long enough for git to find it again where it was moved.
func gateFile(name, model string, floor float64) string {
	return fmt.Sprintf("apiVersion: aob/v1\nkind: Gate\nname: %s\ncovers: [%s]\nowners: [lead]\nevaluate: {dataset: "+
		"{dir: shapes}, split: test}\nchecks:\n  - {metric: mAP, min: %g}\n  - {metric: mAP, maxDrop: 0.02, against: "+
		"release}\n", name, model, floor)
}
