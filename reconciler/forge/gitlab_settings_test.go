package forge

import (
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/gitlab/gitlabtest"
)

// Each fault of a project's settings is named, and no other.
func TestGitLabSettings(t *testing.T) {
	const hooks = "https://aob.example.com/webhook"
	for name, c := range map[string]struct {
		spoil func(*labStage)
		state delivery.SettingState
		want  string // in what is said; "" for nothing
		fix   bool
	}{
		"nothing": {func(*labStage) {}, "", "", false},
		"archived": {func(s *labStage) { s.server.Change(s.project, "archived", true) }, delivery.SettingWrong,
			"is archived", true},
		"renamed": {func(s *labStage) { s.server.Rename(s.project, "ada/other") }, delivery.SettingWrong,
			"is called ada/other now", false},
		"a Reporter": {func(s *labStage) { s.server.Allow(s.project, s.aob, gitlabtest.Reporter) },
			delivery.SettingWrong, "may not write", true},
		"pipelines may fail": {func(s *labStage) { s.server.Change(s.project, "mustSucceed", false) },
			delivery.SettingUnsafe, "does not require that pipelines succeed", true},
		"skipped pipelines": {func(s *labStage) { s.server.Change(s.project, "skippedOK", true) },
			delivery.SettingUnsafe, "skipped pipelines", true},
		"merged results": {func(s *labStage) { s.server.Change(s.project, "mergedResults", true) },
			delivery.SettingUnsafe, "merged results", true},
		"main is not protected": {func(s *labStage) { s.server.Change(s.project, "protected", false) },
			delivery.SettingUnsafe, "is not protected", true},
		"a token that ends": {func(s *labStage) { s.server.Expire(s.aob.Token, time.Now().Add(48*time.Hour)) },
			delivery.SettingRisky, "token ends on", false},
		"a token that reads": {func(s *labStage) { s.aob.Token = s.server.NewToken(s.aob, "read_api") },
			delivery.SettingWrong, "no scope api", false},
		"a token that cannot push": {func(s *labStage) { s.aob.Token = s.server.NewToken(s.aob, "api") },
			delivery.SettingRisky, "no scope write_repository", false},
		"no main": {func(s *labStage) { s.lab.branch = "trunk" }, delivery.SettingWrong, "has no branch trunk", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newGitLab(t)
			s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
			s.pulls(t) // as a server that is running
			c.spoil(s)
			setup := must(s.lab.Check(t.Context()))(t)
			var found []delivery.Setting
			for _, one := range setup.Settings {
				if one.State != delivery.SettingRight {
					found = append(found, one)
				}
			}
			switch {
			case c.want == "" && len(found) > 0:
				t.Errorf("got %+v", found)
			case c.want != "" && (len(found) != 1 || found[0].State != c.state ||
				!strings.Contains(found[0].Text, c.want)):
				t.Errorf("got %+v, want %s with %q", found, c.state, c.want)
			case c.want != "" && (found[0].Do == "" || (len(found[0].Fix) > 0) != c.fix):
				t.Errorf("what to do is %q, %q", found[0].Do, found[0].Fix)
			}
			if setup.Now.IsZero() {
				t.Error("the server's clock is not known")
			}
		})
	}

	for name, c := range map[string]struct {
		spoil func(*labStage)
		state delivery.SettingState
		want  string
	}{
		"no Maintainer": {func(s *labStage) { s.server.Allow(s.project, s.aob, gitlabtest.Developer) },
			delivery.SettingUnknown, "to Maintainers"},
		"none": {func(*labStage) {}, delivery.SettingWrong, "has no webhook"},
		"another": {func(s *labStage) { s.server.Hook(s.project, "https://ci.example.com", true, "executable") },
			delivery.SettingWrong, "has no webhook"},
		"there": {func(s *labStage) { s.server.Hook(s.project, hooks, true, "executable") }, delivery.SettingRight,
			"has one"},
		"without comments": {func(s *labStage) { s.server.Hook(s.project, hooks, false, "executable") },
			delivery.SettingWrong, "leaves"},
		"switched off": {func(s *labStage) { s.server.Hook(s.project, hooks, true, "disabled") },
			delivery.SettingWrong, "off"},
		"a wrong secret": {func(s *labStage) { s.lab.arrived.note(ErrSignature) }, delivery.SettingWrong,
			"wrong secret token"},
		"arrives": {func(s *labStage) { s.lab.arrived.note(nil) }, delivery.SettingRight, "arrive at"},
	} {
		t.Run("webhook "+name, func(t *testing.T) {
			s := newGitLab(t)
			s.work.push("main", map[string]string{"models/a.yaml": "1"}, "first")
			s.server.Allow(s.project, s.aob, gitlabtest.Maintainer)
			s.lab.hooks = hooks
			s.lab.started = time.Now().Add(time.Hour) // nothing has happened since
			c.spoil(s)
			for _, one := range must(s.lab.Check(t.Context()))(t).Settings {
				if one.Check == "webhook" && (one.State != c.state || !strings.Contains(one.Text, c.want)) {
					t.Errorf("got %+v, want %s with %q", one, c.state, c.want)
				}
				if strings.Contains(strings.Join(one.Fix, ""), s.aob.Token) {
					t.Error("a command has the token")
				}
			}
		})
	}
}

// Tokens of projects and groups have a user of their own, which sets the statuses.
func TestGitLabProjectToken(t *testing.T) {
	s := newGitLab(t)
	head, number := s.start()
	bot := s.server.ProjectToken(s.project, gitlabtest.Developer, "api", "write_repository")
	f, err := NewGitLab(Settings{URL: s.server.URL, Repo: "ada/intent", Main: "main",
		Token: func() string { return bot.Token }})
	if err != nil {
		t.Fatal(err)
	}
	f.pullsOf(t, number)
	if err := f.SetStatus(t.Context(), head, delivery.Check{Context: delivery.ContextRelease,
		State: delivery.CheckPending}); err != nil {
		t.Fatal(err)
	}
	if got := must(f.Statuses(t.Context(), head))(t); len(got) != 1 || !got[0].Mine || got[0].By != bot.Name {
		t.Errorf("got %+v", got)
	}
	if got := faults(must(f.Check(t.Context()))(t)); len(got) > 0 {
		t.Errorf("got %q", got)
	}
}

// What is wrong with the address, the project or the token is said without the token.
func TestNewGitLab(t *testing.T) {
	token := func() string { return "glpat-secret" }
	for name, s := range map[string]Settings{"no project": {Token: token}, "no group": {Repo: "intent", Token: token},
		"no token": {Repo: "a/b"}, "not a URL": {URL: "git.example.com", Repo: "a/b", Token: token},
		"a token in the address": {URL: "https://u:glpat-secret@git.example.com", Repo: "a/b", Token: token}} {
		if _, err := NewGitLab(s); err == nil || strings.Contains(err.Error(), "glpat-secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, err := NewGitLab(Settings{Repo: "vision/models/intent", Token: token})
	if err != nil || f.Address() != "https://gitlab.com/vision/models/intent" {
		t.Errorf("%v, %v", f, err)
	}
}
