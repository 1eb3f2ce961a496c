package forge

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// GitHub makes the commit: with AOB's files alone, on the expected head, and not a second time.
func TestGitHubCommits(t *testing.T) {
	for name, asApp := range map[string]bool{"with a token": false, "as an App": true} {
		t.Run(name, func(t *testing.T) {
			s, f, server, repo := newGitHub(t)
			if asApp {
				f = asGitHubApp(t, server, repo, server.App(repo, "aob"))
			}
			main := s.work.push("main", map[string]string{"models/a.yaml": "1", "README.md": "hello"}, "first")
			s.work.branch("side", main)
			head := s.work.push("side", map[string]string{"models/a.yaml": "2"}, "second")
			files := map[string][]byte{"models/a.release.yaml": []byte("version: 1\n\xff\x00é"),
				"models/a.yaml": []byte("3")}
			commit, tree, err := f.Commit(t.Context(), "side", head,
				"Release a version 1\n\nEvery gate passed.\n", files)
			if err != nil {
				t.Fatal(err)
			}
			s.work.git("fetch", "-q", s.work.remote, "side")
			if at := s.work.git("rev-parse", "FETCH_HEAD"); at != commit {
				t.Errorf("the branch is at %s, not %s", at, commit)
			}
			if at := s.work.git("rev-parse", commit+"^{tree}"); at != tree {
				t.Errorf("its tree is %s, not %s", at, tree)
			}
			if parent := s.work.git("rev-parse", commit+"^"); parent != head {
				t.Errorf("its parent is %s, not %s", parent, head)
			}
			const message = "Release a version 1\n\nEvery gate passed."
			if got := s.work.git("log", "-1", "--format=%B", commit); got != message {
				t.Errorf("its message is %q", got)
			}
			for path, want := range map[string]string{"README.md": "hello", "models/a.yaml": "3"} {
				if got := s.work.git("show", commit+":"+path); got != want {
					t.Errorf("%s has %q", path, got)
				}
			}
			if !slices.Equal(server.Signed(repo), []string{commit}) {
				t.Errorf("signed: %v", server.Signed(repo))
			}
			// Once more, as after a crash: the branch has moved, so nothing happens.
			_, _, err = f.Commit(t.Context(), "side", head, "Release", files)
			if wait, ok := errors.AsType[delivery.Wait](err); !ok || wait.For != time.Second ||
				len(server.Signed(repo)) != 1 {
				t.Errorf("on a stale head: %v", err)
			}
			if _, _, err = f.Commit(t.Context(), "gone", head, "Release", files); !errors.As(err, new(delivery.Wait)) {
				t.Errorf("on a branch that is gone: %v", err)
			}
			server.RefuseCommits(repo, "Repository rule violations found")
			_, _, err = f.Commit(t.Context(), "side", commit, "Release", files)
			if _, ok := errors.AsType[delivery.Blocked](err); !ok || !strings.Contains(err.Error(), "rule violations") {
				t.Errorf("refused by a rule: %v", err)
			}
			for text, limited := range map[string]bool{
				`{"data":null,"errors":[{"type":"RATE_LIMITED","message":"API rate limit exceeded"}]}`: true,
				`{"data":{"createCommitOnBranch":{"commit":null}}}`:                                    false,
				`{"data":[]}`: false,
			} {
				server.Answer(func(r *http.Request) string {
					if strings.HasSuffix(r.URL.Path, "/graphql") {
						return text
					}
					return ""
				})
				_, _, err = f.Commit(t.Context(), "side", commit, "Release", files)
				if _, waits := errors.AsType[delivery.Wait](err); err == nil || waits != limited {
					t.Errorf("%s: got %v", text, err)
				}
			}
		})
	}
}
