package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/tools/github/githubtest"
)

// Each fault of a repository on GitHub is named, and nothing else is, for a token and for an App.
func TestDoctorOnGitHub(t *testing.T) {
	server := githubtest.Start(t)
	ada, robot := server.User("ada"), server.User("robot")
	repo := server.Repo("ada", "intent")
	app := server.App(repo, "aob")
	server.Allow(repo, robot, "admin")
	dir := t.TempDir()
	clone := filepath.Join(dir, "clone")
	gitOutput(t, "init", "-q", "-b", "main", clone)
	if err := os.CopyFS(clone, aob.Intent); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gate := filepath.Join(clone, "gates", "production.yaml")
	data, err := os.ReadFile(gate)
	if err != nil {
		t.Fatal(err)
	}
	push := func(owner string) {
		t.Helper()
		write(gate, strings.ReplaceAll(string(data), "vision-leads", owner))
		gitOutput(t, "-C", clone, "add", ".")
		gitOutput(t, "-C", clone, "-c", "user.name=ada", "-c", "user.email=ada@example.com", "commit", "-qm", owner)
		gitOutput(t, "-C", clone, "push", "-q", repo.Dir, "main")
	}
	push("ada")
	token, secret, key := filepath.Join(dir, "token"), filepath.Join(dir, "secret"), filepath.Join(dir, "key.pem")
	write(token, robot.Token)
	write(secret, "s3cret")
	write(key, string(app.Key))
	const hook = "http://127.0.0.1:1/webhook"
	server.Hook(repo, hook, true)
	server.Require(repo, "aob/release")

	configured := func(name, access string) intent.Server {
		t.Helper()
		config := filepath.Join(dir, name+".yaml")
		write(config, fmt.Sprintf(`repository: %s
forge: {github: {url: %s, repo: ada/intent, %s, webhookSecretFile: %s}}
listen: {address: "127.0.0.1:0", url: "http://127.0.0.1:1"}
state: %s/state
datasets: {dir: {shapes: %[5]s}}
`, repo.Dir, server.URL, access, secret, dir))
		s, err := loadServer(config)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	asUser := configured("user", "tokenFile: "+token)
	asApp := configured("app", fmt.Sprintf("app: {id: %d, keyFile: %s}", app.ID, key))
	wrong := func(s intent.Server) (list []diagnosis) {
		for _, d := range diagnoseForge(t.Context(), s) {
			if d.State != diagnosisOK && d.State != diagnosisUnknown {
				list = append(list, d)
			}
		}
		return list
	}
	if list := wrong(asUser); len(list) > 0 {
		t.Fatalf("all is right: %+v", list)
	}
	fromApp := func() { server.RequireFrom(repo, app.ID, "aob/release") }
	fromAny := func() { server.RequireFrom(repo, 0, "aob/release") }
	if fromApp(); len(wrong(asApp)) > 0 {
		t.Fatalf("all is right for the App: %+v", wrong(asApp))
	}
	fromAny()

	for _, c := range []struct {
		name        string
		app         bool
		make, undo  func()
		change      func(*intent.Server)
		check, text string
		fixed       bool // a command sets it right
	}{
		{name: "archived", make: func() { server.Archive(repo, true) }, undo: func() { server.Archive(repo, false) },
			check: "repository", text: "is archived", fixed: true},
		{name: "renamed", make: func() { server.Rename(repo, "ada", "renamed") },
			undo: func() { server.Rename(repo, "ada", "intent") }, check: "repository",
			text: "is called ada/renamed now"},
		{name: "a role that is too small", make: func() { server.Allow(repo, robot, "read") },
			undo: func() { server.Allow(repo, robot, "admin") }, check: "role", text: "may not write", fixed: true},
		{name: "no webhook", make: func() { server.Hook(repo, "", false) },
			undo:  func() { server.Hook(repo, hook, true) },
			check: "webhook", text: "has no webhook to " + hook, fixed: true},
		{name: "a webhook that is off", make: func() { server.Hook(repo, hook, false) },
			undo: func() { server.Hook(repo, hook, true) }, check: "webhook", text: "is switched off", fixed: true},
		{name: "no webhook is accepted", change: func(s *intent.Server) {
			forge := s.Forge["github"]
			forge.WebhookSecretFile = ""
			s.Forge = intent.ServerForge{"github": forge}
		}, check: "webhook", text: "no webhook is accepted"},
		{name: "another status is required", make: func() { server.Require(repo, "ci/build") }, undo: fromAny,
			check: "required status", text: "does not require the status aob/release", fixed: true},
		{name: "the status is another App's", make: func() { server.RequireFrom(repo, 999, "aob/release") },
			undo: fromAny, check: "required status", text: "from App 999 alone, and aob uses a token"},
		{name: "a wrong token", make: func() { write(token, "wrong") }, undo: func() { write(token, robot.Token) },
			check: "forge", text: "token"},
		{name: "no such branch", change: func(s *intent.Server) { s.Main = "trunk" }, check: "repository",
			text: "has no branch trunk"},
		{name: "an owner whom nobody knows", make: func() { push("nobody-of-this-name") }, undo: func() { push("ada") },
			check: "owners of gate production", text: "nobody-of-this-name is no"},

		{name: "the App lacks permissions", app: true, make: func() { app.Grant("checks", "read"); app.Revoke() },
			undo: func() { app.Grant("checks", "write"); app.Revoke() }, check: "role", text: "may not write Checks"},
		{name: "the App is suspended", app: true, make: func() { app.Suspend(true) },
			undo: func() { app.Suspend(false) }, check: "forge", text: "suspended"},
		{name: "the App's key is another's", app: true, make: func() { write(key, "no key") },
			undo: func() { write(key, string(app.Key)) }, check: "forge", text: "key"},
		{name: "the status may be anybody's", app: true, make: fromAny, undo: fromApp, check: "required status",
			text: "from any source"},
		{name: "the status is not the App's", app: true, make: func() { server.RequireFrom(repo, 999, "aob/release") },
			undo: fromApp, check: "required status", text: "from App 999 alone, and aob is App"},
		{name: "the App is removed", app: true, make: app.Remove, undo: func() { app.Install(repo) }, check: "forge",
			text: "is not installed on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := asUser
			if fromAny(); c.app {
				all = asApp
				fromApp()
			}
			s := all
			if c.change != nil {
				c.change(&s)
			}
			if c.make != nil {
				c.make()
				defer func() {
					c.undo()
					if list := wrong(all); len(list) > 0 {
						t.Errorf("afterwards it says %+v", list)
					}
				}()
			}
			list := wrong(s)
			if len(list) != 1 || list[0].Check != c.check || !strings.Contains(list[0].Text, c.text) ||
				list[0].Do == "" || len(list[0].Fix) > 0 != c.fixed {
				t.Fatalf("it says %+v, want %s alone with %q", list, c.check, c.text)
			}
			for _, command := range list[0].Fix {
				if strings.Contains(command, "s3cret") || strings.Contains(command, ada.Token) {
					t.Errorf("a secret is in %q", command)
				}
			}
		})
	}
}
