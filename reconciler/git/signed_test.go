package git

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/trust"
)

// git verifies the signatures of Commit and Merge. Another process with the same key creates the same commits.
func TestGitVerifiesSignedCommits(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("no ssh-keygen on PATH")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
		file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	committer := func() Committer {
		key := must(trust.LoadSSH(file))
		return Committer{Name: "AOB", Email: "aob@example.com", Sign: func(b []byte) ([]byte, error) {
			return key.Sign("git", b)
		}}
	}
	allowed := filepath.Join(dir, "allowed")
	must(0, os.WriteFile(allowed, []byte("aob@example.com "+must(trust.LoadSSH(file)).Public()+"\n"), 0o600))

	both(t, func(t *testing.T, r *repo, remote Remote) {
		base := r.commit("refs/heads/main", map[string]string{"models/a.yaml": "1"})
		head := r.commit("refs/heads/side", map[string]string{"models/a.yaml": "2"}, base)
		folder := t.TempDir()
		make := func() (release, merge string) {
			m := must(Open(folder, remote))
			defer m.Close()
			m.CommitAs(committer())
			observe(t, m)
			files := map[string][]byte{"models/a.release.yaml": []byte("version: 1\n")}
			release = must(m.Commit([]string{head}, files, committed, "Release a version 1\n\nEvery gate passed.\n"))
			merge = must(m.Merge(base, release, "Ada", "ada@example.com", time.Unix(1_800_000_100, 0), "Merge 1: a"))
			must(0, m.Push(t.Context(), release, "refs/heads/side", head))
			must(0, m.Push(t.Context(), merge, "refs/heads/merged", ""))
			return release, merge
		}
		release, merge := make()
		r.git("fsck", "--strict", "--no-dangling")
		for _, c := range []string{release, merge} {
			out, err := exec.Command("git", "-C", r.dir, "-c", "gpg.ssh.allowedSignersFile="+allowed, "verify-commit",
				c).CombinedOutput()
			if err != nil || !strings.Contains(string(out), `Good "git" signature for aob@example.com`) {
				t.Errorf("git verify-commit: %v: %s", err, out)
			}
		}
		if got := r.git("log", "-1", "--format=%an|%ae|%cn|%ce|%B",
			release); got != "AOB|aob@example.com|AOB|aob@example.com|Release a version 1\n\nEvery gate passed." {
			t.Errorf("the release commit is %q", got)
		}
		if got := r.git("log", "-1", "--format=%an|%ae|%cn|%ce|%B",
			merge); got != "Ada|ada@example.com|AOB|aob@example.com|Merge 1: a" {
			t.Errorf("the merge commit is %q", got)
		}

		// Another process with the same key and a new mirror.
		m := open(t, t.TempDir(), remote)
		m.CommitAs(committer())
		observe(t, m)
		files := map[string][]byte{"models/a.release.yaml": []byte("version: 1\n")}
		if again := must(m.Commit([]string{head}, files, committed,
			"Release a version 1\n\nEvery gate passed.\n")); again != release {
			t.Errorf("committing again gives %s, want %s", again, release)
		}
		// Mine knows the committer's address and the default one.
		m.CommitAs(Committer{Name: "aob", Email: "aob@users.noreply.localhost"})
		old := must(m.Commit([]string{head}, files, committed, "Release a version 1"))
		m.CommitAs(committer())
		for commit, want := range map[string]bool{release: true, old: true, head: false, merge: false} {
			if mine, err := m.Mine(commit); err != nil || mine != want {
				t.Errorf("Mine(%s): %v, %v; want %v", commit, mine, err, want)
			}
		}
	})
}
