package forge

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// A branch that takes only signed commits takes AOB's release commit where AOB signs it. Where it does not, or where
// Gitea cannot verify the signature, that is said, with what to do.
func TestRequiredSignatures(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	instance, mine := giteatest.SSHKey(t), giteatest.SSHKey(t)
	server := giteatest.Start(t, giteatest.SignsMerges(instance))
	ada, robot := server.User(t, "ada"), server.User(t, "aob")
	repo := server.Repo(t, ada, "intent")
	server.Allow(t, repo, robot, "admin")
	hers := giteatest.SSHKey(t)
	server.AddKey(t, ada, hers)
	server.VerifyKey(t, hers)
	key, err := trust.LoadSSH(mine)
	if err != nil {
		t.Fatal(err)
	}
	call := func(method, path string, in, out any) {
		t.Helper()
		if err := server.Call(ada, method, fmt.Sprintf("/repos/%s/%s%s", repo.Owner, repo.Name, path), in,
			out); err != nil {
			t.Fatal(err)
		}
	}

	w := newWork(t, server.PushURL(repo, ada))
	for name, value := range map[string]string{"user.email": "ada@example.com", "user.signingkey": hers,
		"gpg.format": "ssh", "commit.gpgsign": "true"} {
		w.git("config", name, value)
	}
	main := w.push("main", map[string]string{"models/a.yaml": "1"}, "first")
	call("POST", "/branch_protections", map[string]any{"rule_name": "main", "require_signed_commits": true,
		"apply_to_admins": true}, nil)
	eventually(t, "Gitea has seen the push", func() bool {
		return server.Call(ada, "GET", fmt.Sprintf("/repos/%s/%s/branches/main", repo.Owner, repo.Name), nil,
			nil) == nil
	})

	open := func(signed Signed) *Gitea {
		t.Helper()
		f, err := NewGitea(Settings{URL: server.URL, Repo: repo.Owner + "/" + repo.Name, Token: func() string {
			return robot.Token
		}, Main: "main", Signed: signed})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	// release makes a pull request of ada's with a release commit of AOB's on top.
	release := func(branch string, as git.Committer) (number int, commit string) {
		t.Helper()
		m, err := git.Open(t.TempDir(), git.Remote{URL: repo.CloneURL, Auth: func() (string, string) {
			return "", robot.Token
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		m.CommitAs(as)
		w.branch(branch, main)
		head := w.push(branch, map[string]string{"models/" + branch + ".yaml": "2"}, branch)
		if _, _, err := m.Observe(t.Context()); err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{"models/" + branch + ".release.yaml": []byte("version: 2\n")}
		commit, err = m.Commit([]string{head}, files, time.Unix(1_800_000_000, 0), "Release a version 2")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Push(t.Context(), commit, git.Branch+branch, head); err != nil {
			t.Fatal(err)
		}
		return server.PullRequest(t, ada, repo, branch, "main", branch), commit
	}
	says := func(f *Gitea, want string) {
		t.Helper()
		setup, err := f.Check(t.Context())
		switch {
		case err != nil:
			t.Error(err)
		case want == "" && (len(setup.Problems()) > 0 || setup.MergeRefused != ""):
			t.Errorf("it says %+v", setup)
		case !strings.Contains(setup.MergeRefused, want) || want != "" && (len(setup.Problems()) != 1 ||
			setup.Problems()[0] != setup.MergeRefused):
			t.Errorf("it says %+v; want %q", setup, want)
		}
	}
	mergeable := func(number int) error { return server.Merge(ada, repo, number) }

	t.Run("without a key the protection is named", func(t *testing.T) {
		number, _ := release("unsigned", git.Committer{Name: "aob", Email: delivery.CommitEmail})
		says(open(Signed{}), "takes only signed commits on main, and aob does not sign its own; whoever runs aob "+
			"sets commits.signingKey")
		if err := mergeable(number); err == nil {
			t.Error("Gitea merged a commit without a signature")
		}
		// With a key, the commit from before still has none.
		server.AddKey(t, robot, mine)
		server.VerifyKey(t, mine)
		says(open(Signed{Email: "aob@example.com", Key: key.Public()}), "")
		call("PATCH", fmt.Sprintf("/pulls/%d", number), map[string]string{"state": "closed"}, nil)

		number, commit := release("before", git.Committer{Name: "aob", Email: "aob@example.com"})
		// Anybody may have made it, so it is no word on other pull requests.
		setup, err := open(Signed{Email: "aob@example.com", Key: key.Public()}).Check(t.Context())
		if want := fmt.Sprintf("commit %.10s of pull request %d has the address of aob's commits and no signature",
			commit, number); err != nil || setup.MergeRefused != "" || len(setup.Problems()) != 1 ||
			!strings.HasPrefix(setup.Problems()[0], want) {
			t.Errorf("it says %+v, %v; want %q", setup, err, want)
		}
		call("PATCH", fmt.Sprintf("/pulls/%d", number), map[string]string{"state": "closed"}, nil)
	})

	t.Run("a push that is refused for it says so", func(t *testing.T) {
		call("POST", "/branch_protections", map[string]any{"rule_name": "guarded", "enable_push": true,
			"require_signed_commits": true}, nil)
		m, err := git.Open(t.TempDir(), git.Remote{URL: repo.CloneURL, Auth: func() (string, string) {
			return "", robot.Token
		}, Refusals: Kinds["gitea"].Refusals})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		w.branch("guarded", main)
		head := w.push("guarded", map[string]string{"models/guarded.yaml": "2"}, "guarded")
		if _, _, err := m.Observe(t.Context()); err != nil {
			t.Fatal(err)
		}
		push := func() error {
			t.Helper()
			commit, err := m.Commit([]string{head},
				map[string][]byte{"models/guarded.release.yaml": []byte("version: 2\n")}, time.Unix(1_800_000_000, 0),
				"Release")
			if err != nil {
				t.Fatal(err)
			}
			return m.Push(t.Context(), commit, git.Branch+"guarded", head)
		}
		err = push()
		if b, ok := errors.AsType[delivery.Blocked](err); !ok || !strings.HasPrefix(b.Do, "set commits.signingKey") {
			t.Errorf("the refusal is %v", err)
		}
		m.CommitAs(git.Committer{Name: "aob", Email: "aob@example.com", Sign: func(b []byte) ([]byte, error) {
			return key.Sign("git", b)
		}})
		if err := push(); err != nil {
			t.Errorf("a signed commit is refused: %v", err)
		}
	})

	t.Run("a key that Gitea does not know is named", func(t *testing.T) {
		other, err := trust.LoadSSH(giteatest.SSHKey(t))
		if err != nil {
			t.Fatal(err)
		}
		says(open(Signed{Email: "aob@example.com", Key: other.Public()}),
			"is not among the SSH keys of the user aob; add it in that user's settings, and verify it there: "+
				other.Public())
	})

	t.Run("an address of somebody else is named", func(t *testing.T) {
		for _, email := range []string{"ada@example.com", "robot@example.com", delivery.CommitEmail} {
			says(open(Signed{Email: email, Key: key.Public()}), "the address "+email+
				" of aob's commits is no confirmed e-mail address of the user aob")
		}
	})

	t.Run("a key that was not verified is named", func(t *testing.T) {
		path := giteatest.SSHKey(t)
		other, err := trust.LoadSSH(path)
		if err != nil {
			t.Fatal(err)
		}
		server.AddKey(t, robot, path)
		number, commit := release("unverified", git.Committer{Name: "aob", Email: "aob@example.com",
			Sign: func(b []byte) ([]byte, error) { return other.Sign("git", b) }})
		says(open(Signed{Email: "aob@example.com", Key: other.Public()}),
			fmt.Sprintf("does not take aob's signature on %.10s of pull request %d for verified; press Verify", commit,
				number))
		if err := mergeable(number); err == nil {
			t.Error("Gitea merged a commit whose signature it cannot verify")
		}
		server.VerifyKey(t, path)
		says(open(Signed{Email: "aob@example.com", Key: other.Public()}), "")
		call("PATCH", fmt.Sprintf("/pulls/%d", number), map[string]string{"state": "closed"}, nil)
	})

	t.Run("a signed commit is verified and merged", func(t *testing.T) {
		number, commit := release("signed", git.Committer{Name: "aob", Email: "aob@example.com",
			Sign: func(b []byte) ([]byte, error) { return key.Sign("git", b) }})
		says(open(Signed{Email: "aob@example.com", Key: key.Public()}), "")
		var shown struct {
			Commit struct {
				Verification struct {
					Verified bool
					Reason   string
				}
			}
		}
		call("GET", "/git/commits/"+commit, nil, &shown)
		if v := shown.Commit.Verification; !v.Verified || !strings.Contains(v.Reason, "aob") {
			t.Errorf("Gitea says %+v of the signature", v)
		}
		eventually(t, "the pull request is merged", func() bool { return mergeable(number) == nil })

		// git itself verifies it too, and the merge.
		allowed := filepath.Join(t.TempDir(), "allowed")
		if err := os.WriteFile(allowed, []byte("aob@example.com "+key.Public()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.git("fetch", "-q", w.remote, "main")
		out, err := exec.Command("git", "-C", w.dir, "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-commit",
			commit).CombinedOutput()
		if err != nil || !strings.Contains(string(out), `Good "git" signature for aob@example.com`) {
			t.Errorf("git verify-commit: %v: %s", err, out)
		}
	})
}

// AOB's address in a commit is not AOB's word: nobody can make AOB say that its own commits cannot be merged.
func TestAddressInACommitIsNotTakenForAOBs(t *testing.T) {
	load := func() *trust.SSHKey {
		key, err := trust.LoadSSH(giteatest.SSHKey(t))
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	ours, theirs := load(), load()
	const payload = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\nRelease\n"
	sign := func(key *trust.SSHKey, text string) string {
		b, err := key.Sign("git", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, c := range map[string]struct {
		fork                bool
		signature           string
		wantWrong, unsigned bool
	}{
		"a fork's, without a signature":   {fork: true},
		"a fork's, with ours":             {fork: true, signature: sign(ours, payload)},
		"a writer's, without a signature": {unsigned: true},
		"a writer's, with another key":    {signature: sign(theirs, payload)},
		"ours, copied to another commit":  {signature: sign(ours, payload+"x")},
		"no signature at all":             {signature: "-----BEGIN PGP SIGNATURE-----"},
		"ours":                            {signature: sign(ours, payload), wantWrong: true},
	} {
		t.Run(name, func(t *testing.T) {
			const head = "abcdef0123456789abcdef0123456789abcdef01"
			ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				var answer any
				switch {
				case strings.HasSuffix(r.URL.Path, "/version"):
					answer = map[string]any{"version": "1.24.0"}
				case strings.HasSuffix(r.URL.Path, "/pulls") && r.URL.Query().Get("page") != "2":
					repo := map[string]any{"id": 1, "owner": map[string]any{"login": "ada"}}
					from := repo
					if c.fork {
						from = map[string]any{"id": 2, "fork": true, "owner": map[string]any{"login": "eve"}}
					}
					answer = []any{map[string]any{"number": 9, "state": "open", "user": map[string]any{"login": "eve"},
						"base": map[string]any{"ref": "main", "repo_id": 1, "repo": repo},
						"head": map[string]any{"ref": "x", "sha": head, "repo_id": from["id"], "repo": from}}}
				case strings.HasSuffix(r.URL.Path, "/pulls"):
					answer = []any{}
				default:
					answer = map[string]any{"sha": head, "commit": map[string]any{
						"committer": map[string]any{"name": "aob", "email": "aob@example.com"},
						"verification": map[string]any{"verified": false, "signature": c.signature,
							"payload": payload}}}
				}
				json.NewEncoder(w).Encode(answer)
			}))
			defer ts.Close()
			f, err := NewGitea(Settings{URL: ts.URL, Repo: "ada/intent", Token: func() string { return "x" },
				Main: "main", Signed: Signed{Email: "aob@example.com", Key: ours.Public()}})
			if err != nil {
				t.Fatal(err)
			}
			prs, err := f.PullRequests(t.Context())
			if err != nil || len(prs) != 1 || prs[0].Fork != c.fork {
				t.Fatalf("pull requests: %+v, %v", prs, err)
			}
			wrong, unsigned, err := f.checkHeads(t.Context(), account{name: "aob"})
			if err != nil || (wrong.Text != "") != c.wantWrong || (unsigned.Text != "") != c.unsigned {
				t.Errorf("it says %+v and %+v, %v", wrong, unsigned, err)
			}
		})
	}
}
