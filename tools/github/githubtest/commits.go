package githubtest

// This file makes commits as GitHub's GraphQL API does.

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A commitInput is the input of createCommitOnBranch.
type commitInput struct {
	Branch struct {
		Repository string `json:"repositoryNameWithOwner"`
		Name       string `json:"branchName"`
	}
	Old     string `json:"expectedHeadOid"`
	Message struct{ Headline, Body string }
	Files   struct {
		Additions []struct {
			Path     string
			Contents []byte
		}
		Deletions []struct{ Path string }
	} `json:"fileChanges"`
}

// commitOnBranch answers createCommitOnBranch: an error has status 200.
func (s *Server) commitOnBranch(me *User, app *App, in commitInput) object {
	refuse := func(kind, text string) object {
		return object{"data": object{"createCommitOnBranch": nil}, "errors": []any{object{"type": kind,
			"path": []any{"createCommitOnBranch"}, "message": text}}}
	}
	r := s.repos[in.Branch.Repository]
	if r == nil || s.permission(r, me.Login) == "none" {
		return refuse("NOT_FOUND", "Could not resolve to a Repository with the name '"+in.Branch.Repository+"'.")
	}
	p := s.permission(r, me.Login)
	if p != "write" && p != "admin" || app != nil && app.permissions["contents"] != "write" {
		return refuse("FORBIDDEN", "Resource not accessible by integration")
	}
	if r.refuses != "" {
		return refuse("UNPROCESSABLE", r.refuses)
	}
	head := resolve(r.Dir, in.Branch.Name)
	if head == "" {
		return refuse("NOT_FOUND", "No such branch: "+in.Branch.Name)
	}
	if head != in.Old {
		return refuse("STALE_DATA", "Expected branch to point to \""+in.Old+"\" but it did not. Pull and try again.")
	}
	index := filepath.Join(s.t.TempDir(), "index")
	git := func(stdin string, args ...string) string {
		cmd := exec.Command("git", append([]string{"-C", r.Dir}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		cmd.Env = append(os.Environ(), "GIT_INDEX_FILE="+index, "GIT_AUTHOR_NAME="+me.Login,
			"GIT_AUTHOR_EMAIL="+me.Login+"@users.noreply.github.com", "GIT_COMMITTER_NAME=GitHub",
			"GIT_COMMITTER_EMAIL=noreply@github.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			s.t.Errorf("git %s: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("", "read-tree", head)
	for _, a := range in.Files.Additions {
		git("", "update-index", "--add", "--cacheinfo", "100644,"+git(string(a.Contents), "hash-object", "-w",
			"--stdin")+","+a.Path)
	}
	tree := git("", "write-tree")
	message := in.Message.Headline
	if in.Message.Body != "" {
		message += "\n\n" + in.Message.Body
	}
	commit := git(message, "commit-tree", tree, "-p", head)
	git("", "update-ref", "refs/heads/"+in.Branch.Name, commit, head)
	r.signed = append(r.signed, commit)
	return object{"data": object{"createCommitOnBranch": object{"commit": object{"oid": commit,
		"tree": object{"oid": tree}}}}}
}

// Signed returns the commits that GitHub has made and signed.
func (s *Server) Signed(r *Repo) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), r.signed...)
}

// RefuseCommits makes the repository's rules refuse commits; "" ends that.
func (s *Server) RefuseCommits(r *Repo, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.refuses = why
}
