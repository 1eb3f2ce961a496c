package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// Each fault of a repository on Gitea is named, and nothing else is; the commands that are printed for it set it right.
func TestDoctorOnGitea(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	server := giteatest.Start(t)
	ada, robot := server.User(t, "ada"), server.User(t, "robot")
	repo := server.Repo(t, ada, "intent")
	dir := t.TempDir()
	clone, key := filepath.Join(dir, "clone"), filepath.Join(dir, "token")
	gitOutput(t, "init", "-q", "-b", "main", clone)
	if err := os.CopyFS(clone, aob.Intent); err != nil {
		t.Fatal(err)
	}
	gate := filepath.Join(clone, "gates", "production.yaml")
	data, err := os.ReadFile(gate)
	if err != nil {
		t.Fatal(err)
	}
	path := "/repos/ada/intent"
	call := func(method, path string, in any) {
		t.Helper()
		if err := server.Call(ada, method, path, in, nil); err != nil {
			t.Fatal(err)
		}
	}
	type fields = map[string]any
	edit := func(change fields) func() {
		return func() { t.Helper(); call("PATCH", path, change) }
	}
	rule := func(change fields) func() {
		return func() { t.Helper(); call("PATCH", path+"/branch_protections/main", change) }
	}
	protected := false
	push := func(owner string) {
		t.Helper()
		text := bytes.ReplaceAll(data, []byte("vision-leads"), []byte(owner))
		if err := os.WriteFile(gate, text, 0o644); err != nil {
			t.Fatal(err)
		}
		gitOutput(t, "-C", clone, "add", ".")
		gitOutput(t, "-C", clone, "-c", "user.name=ada", "-c", "user.email=ada@example.com", "commit", "-qm", owner)
		if protected {
			rule(fields{"enable_push": true})()
			defer rule(fields{"enable_push": false})()
		}
		gitOutput(t, "-C", clone, "push", "-q", server.PushURL(repo, ada), "main")
	}
	push("ada")
	token := func(text string) {
		t.Helper()
		if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token(robot.Token)
	server.Allow(t, repo, robot, "admin")
	server.Protect(t, repo, "main", "ci/build", "aob/release")
	rule(fields{"block_admin_merge_override": true, "enable_push": false})()
	protected = true
	const hook = "http://127.0.0.1:1/webhook"
	server.Hook(t, repo, hook, "secret")
	var hooks []struct{ ID int64 }
	if err := server.Call(ada, "GET", path+"/hooks", nil, &hooks); err != nil {
		t.Fatal(err)
	}

	config := filepath.Join(dir, "aob.yaml")
	text := fmt.Sprintf(`repository: %s/ada/intent.git
forge: {gitea: {url: %[1]s, repo: ada/intent, tokenFile: %[2]s, webhookSecretFile: %[2]s}}
listen: {address: "127.0.0.1:0", url: "http://127.0.0.1:1"}
state: %[3]s/state
datasets: {dir: {shapes: %[3]s}}
`, server.URL, key, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := loadServer(config)
	if err != nil {
		t.Fatal(err)
	}
	// wrong returns what is neither right nor unknown.
	wrong := func(s intent.Server) (list []diagnosis) {
		for _, d := range diagnoseForge(t.Context(), s) {
			if d.State != diagnosisOK && d.State != diagnosisUnknown {
				list = append(list, d)
			}
		}
		return list
	}
	clean := func() bool { return len(wrong(settings)) == 0 }
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for range 50 { // Gitea takes a repository for empty for a moment after the first push
		if clean() {
			break
		}
		<-tick.C
	}
	if list := wrong(settings); len(list) > 0 {
		t.Fatalf("all is right: %+v", list)
	}

	for _, c := range []struct {
		name        string
		make, undo  func() // undo is nil where commands are printed, which then are run
		change      func(*intent.Server)
		check, text string
	}{
		{name: "archived", make: edit(fields{"archived": true}), check: "repository", text: "is archived"},
		{name: "without pull requests", make: edit(fields{"has_pull_requests": false}), check: "repository",
			text: "pull requests are switched off"},
		{name: "nobody may merge", make: edit(fields{"has_pull_requests": true, "allow_merge_commits": false,
			"allow_squash_merge": false,
			"allow_rebase":       false, "allow_rebase_explicit": false, "allow_fast_forward_only_merge": false,
			"default_merge_style": "merge"}), check: "repository", text: "lets nobody merge with a button"},
		{name: "renamed", make: edit(fields{"name": "renamed"}), undo: func() {
			call("PATCH", "/repos/ada/renamed", fields{"name": "intent"})
		}, check: "repository", text: "is called ada/renamed now"},
		{name: "no webhook", make: func() { call("DELETE", fmt.Sprintf("%s/hooks/%d", path, hooks[0].ID), nil) },
			check: "webhook", text: "has no webhook to " + hook},
		{name: "a webhook that is off", make: func() {
			if err := server.Call(ada, "GET", path+"/hooks", nil, &hooks); err != nil {
				t.Fatal(err)
			}
			call("PATCH", fmt.Sprintf("%s/hooks/%d", path, hooks[0].ID), fields{"active": false})
		}, check: "webhook", text: "is switched off"},
		{name: "no webhook is accepted", change: func(s *intent.Server) {
			forge := s.Forge["gitea"]
			forge.WebhookSecretFile = ""
			s.Forge = intent.ServerForge{"gitea": forge}
		}, check: "webhook", text: "no webhook is accepted"},
		{name: "another status is required", make: rule(fields{"status_check_contexts": []string{"ci/build"}}),
			check: "required status", text: "does not require the status aob/release"},
		{name: "statuses are not required", make: rule(fields{"enable_status_check": false}),
			check: "required status", text: "does not require the status aob/release"},
		{name: "main is not protected", make: func() { call("DELETE", path+"/branch_protections/main", nil) },
			check: "required status", text: "does not require the status aob/release"},
		{name: "administrators pass by", make: rule(fields{"block_admin_merge_override": false}),
			check: "ways around", text: "administrators can merge into main"},
		{name: "people may push", make: rule(fields{"enable_push": true}), check: "ways around",
			text: "people can push to main without a pull request"},
		{name: "signatures", make: rule(fields{"require_signed_commits": true}),
			undo: rule(fields{"require_signed_commits": false}), check: "signatures",
			text: "takes only signed commits on main, and aob does not sign its own"},
		{name: "a token with too few scopes", make: func() {
			var made struct{ SHA1 string }
			as := giteatest.User{Name: robot.Name, Password: robot.Password}
			if err := server.Call(as, "POST", "/users/robot/tokens", fields{"name": "few",
				"scopes": []string{"write:repository", "read:user"}}, &made); err != nil {
				t.Fatal(err)
			}
			token(made.SHA1)
		}, undo: func() { token(robot.Token) }, check: "token", text: "has no scope write:issue"},
		{name: "a wrong token", make: func() { token("wrong") }, undo: func() { token(robot.Token) },
			check: "forge", text: "token"},
		{name: "no such branch", change: func(s *intent.Server) { s.Main = "trunk" }, check: "repository",
			text: "has no branch trunk"},
		{name: "an owner whom nobody knows", make: func() { push("nobody-of-this-name") }, undo: func() { push("ada") },
			check: "owners of gate production", text: "nobody-of-this-name is no team of the repository"},
		{name: "a role that is too small", make: func() { server.Allow(t, repo, robot, "read") },
			check: "role", text: "may not write"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := settings
			if c.change != nil {
				c.change(&s)
			}
			if c.make != nil {
				c.make()
			}
			if c.undo != nil {
				defer func() {
					c.undo()
					if list := wrong(settings); len(list) > 0 {
						t.Errorf("afterwards it says %+v", list)
					}
				}()
			}
			list := wrong(s)
			if len(list) != 1 || list[0].Check != c.check || !strings.Contains(list[0].Text, c.text) ||
				list[0].Do == "" {
				t.Fatalf("it says %+v, want %s alone with %q", list, c.check, c.text)
			}
			if fixed := len(list[0].Fix) > 0; fixed == (c.undo != nil || c.change != nil) {
				t.Errorf("the commands are %q", list[0].Fix)
			}
			if c.undo == nil && c.change == nil {
				var script bytes.Buffer
				out := newTerminal(&script)
				out.fixes(list)
				if err := out.flush(); err != nil {
					t.Fatal(err)
				}
				sh := exec.CommandContext(t.Context(), "sh", "-e")
				sh.Stdin = &script
				sh.Env = append(os.Environ(), "GITEA_TOKEN="+ada.Token, "WEBHOOK_SECRET=s3cret")
				if out, err := sh.CombinedOutput(); err != nil {
					t.Errorf("the commands %q: %v: %s", list[0].Fix, err, out)
				}
			}
			if list := wrong(settings); c.undo == nil && len(list) > 0 {
				t.Errorf("afterwards it says %+v", list)
			}
		})
	}
}
