package reconciler

// Stories of whose word counts, on a forge where every writer may edit every comment.

import (
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
)

// agree is a reaction of a person to a question of AOB's.
func (f *simForge) agree(question, by string) {
	if f.consents == nil {
		f.consents = map[string][]delivery.Consent{}
	}
	f.consents[question] = append(f.consents[question], delivery.Consent{By: by, Comment: int64(len(f.consents) + 100),
		At: f.sim.now})
}

// A comment that others may have written accepts nothing. The owner confirms it by a reaction to AOB's question;
// reactions of others do not count.
func TestOnlyTheOwnersOwnCommentAccepts(t *testing.T) {
	s := unsureOf(t)
	s.forge.unvouched = true
	s.forge.comment(1, "lead", "/aob accept "+plan.AcceptCode(s.verdict())+
		" because the set is small, @all [x](http://e.vil)")
	s.settle()
	s.want("first", delivery.CheckPending, "unsure")
	if n := len(s.forge.questions[1]); n != 1 {
		t.Fatalf("AOB asked back %d times: %q", n, s.forge.questions[1])
	}
	question := s.forge.questions[1][0]
	if !strings.Contains(question, "@lead, did you write this?") ||
		!strings.Contains(question, plan.AcceptCode(s.verdict())) || !strings.Contains(question, "the set is small") {
		t.Errorf("AOB asked:\n%s", question)
	}
	if strings.Contains(question, "@all") || strings.Contains(question, "](http") {
		t.Errorf("the reason is markup:\n%s", question)
	}
	for _, other := range []string{"dev", "maintainer", "aob"} {
		s.forge.agree(question, other)
	}
	s.settle()
	s.want("first", delivery.CheckPending, "unsure")
	if n := len(s.forge.questions[1]); n != 1 {
		t.Errorf("AOB asked back %d times: %q", n, s.forge.questions[1])
	}
	s.forge.agree(question, "Lead") // names are the same in any case
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	statement := s.signed.index.Releases[len(s.signed.index.Releases)-1]
	if a := statement.Gates[0].Accept; a == nil || a.By != "lead" || !strings.Contains(a.How, "👍 to AOB's comment 10") {
		t.Errorf("the release statement holds %+v", a)
	}
	s.quiet()
}

// The confirmed reason counts: another reason needs another confirmation.
func TestAnotherReasonNeedsAnotherConfirmation(t *testing.T) {
	s := unsureOf(t)
	s.forge.unvouched = true
	accept := "/aob accept " + plan.AcceptCode(s.verdict()) + " because "
	s.forge.comment(1, "lead", accept+"the set is small")
	s.settle()
	s.want("first", delivery.CheckPending, code.AcceptByReaction, "AOB has asked lead")
	// Before lead reacts, somebody edits the comment.
	s.forge.commands[len(s.forge.commands)-1].Body = accept + "I was paid"
	s.settle()
	if n := len(s.forge.questions[1]); n != 2 {
		t.Fatalf("AOB asked back %d times: %q", n, s.forge.questions[1])
	}
	s.forge.agree(s.forge.questions[1][0], "lead")
	s.settle()
	s.want("first", delivery.CheckPending, "unsure")
	s.forge.commands[len(s.forge.commands)-1].Body = accept + "the set is small"
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	if a := s.signed.index.Releases[len(s.signed.index.Releases)-1].Gates[0].Accept; a == nil ||
		a.Because != "the set is small" {
		t.Errorf("the release statement holds %+v", a)
	}
}

// Only owners with write permission are asked to confirm, and only for a waiting code.
func TestOnlyOwnersAreAskedToConfirm(t *testing.T) {
	s := unsureOf(t)
	s.forge.unvouched = true
	s.forge.permission["eve"], s.forge.permission["lead"] = delivery.PermissionRead, delivery.PermissionRead
	code := plan.AcceptCode(s.verdict())
	for _, by := range []string{"eve", "dev", "lead"} {
		s.forge.comment(1, by, "/aob accept "+code+" because of this")
		s.forge.comment(1, by, "/aob accept 0123456789ab because of this")
		s.forge.comment(1, by, "/aob run "+code)
	}
	s.settle()
	s.want("first", delivery.CheckPending, "unsure")
	if n := len(s.forge.questions[1]); n != 0 {
		t.Errorf("AOB asked back: %q", s.forge.questions[1])
	}
}

// A reaction approves a run too, by anybody with write permission at the time it is read.
func TestApprovalByReaction(t *testing.T) {
	s, main := begun(t)
	s.forge.unvouched = true
	s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.forge.open("first", "stranger")
	s.forge.permission["stranger"], s.forge.permission["former"] = delivery.PermissionRead, delivery.PermissionRead
	s.settle()
	_, approval, _ := strings.Cut(s.check(s.head("first"), delivery.ContextRelease).Description, "/aob run ")
	s.forge.comment(1, "stranger", "/aob run "+approval)
	s.settle()
	if n := len(s.forge.questions[1]); n != 0 {
		t.Fatalf("a stranger made AOB ask: %q", s.forge.questions[1])
	}
	s.forge.comment(1, "maintainer", "/aob run "+approval)
	s.settle()
	if len(s.forge.questions[1]) != 1 || len(s.runs.states) != 0 {
		t.Fatalf("a comment let something run, or AOB did not ask once: %q", s.forge.questions[1])
	}
	question := s.forge.questions[1][0]
	if !strings.Contains(question, "tiny&#64;1") && !strings.Contains(question, "tiny") ||
		!strings.Contains(question, "8 epochs") {
		t.Errorf("the question does not say what runs:\n%s", question)
	}
	s.want("first", delivery.CheckPending, code.ApprovalByReaction)
	s.forge.agree(question, "stranger")
	s.forge.agree(question, "former")
	s.settle()
	if len(s.runs.states) != 0 {
		t.Fatal("people without write permission let something run")
	}
	s.forge.agree(question, "another")
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")

	// Another spec is another code.
	s.repo.commit("first", s.head("first"), s.now, map[string]string{"models/shapes.yaml": model("shapes", 14)})
	s.settle()
	s.want("first", delivery.CheckPending, "/aob run ")
	if n := len(s.forge.questions[1]); n != 1 {
		t.Errorf("AOB asked without being asked: %q", s.forge.questions[1])
	}
}

// The owner of a fork may push to it, so the permission of the pull request's author does not count.
func TestForkOwnerCannotStartRuns(t *testing.T) {
	for name, c := range map[string]struct {
		author, owner string
		runs          bool
	}{
		"a writer's pull request from a stranger's fork": {"dev", "stranger", false},
		"a writer's own fork":                            {"dev", "Dev", true},
		"a fork that is gone":                            {"dev", "", false},
		"a stranger's own fork":                          {"stranger", "stranger", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, main := begun(t)
			s.forge.permission["stranger"] = delivery.PermissionRead
			commit := s.repo.commit("", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
			n := s.forge.open("first", c.author)
			s.forge.prs[n].Fork, s.forge.prs[n].ForkOwner = true, c.owner
			s.repo.refs["refs/pull/1/head"] = commit
			s.settle()
			if runs := len(s.runs.states) > 0; runs != c.runs {
				t.Errorf("something ran: %v, want %v", runs, c.runs)
			}
		})
	}
}

// An invalid owner is reported at the start, and where a verdict waits for an owner.
func TestInvalidOwnersAreReported(t *testing.T) {
	s := unsureOf(t)
	s.forge.nobodies = []string{"vision-leads"}
	s.now = s.now.Add(poll.SetupLasts)
	s.settle()
	if c := s.check(s.head("first"), delivery.ContextIntent); c.State != delivery.CheckSuccess ||
		!strings.Contains(c.Description, "vision-leads, an owner of gate production, is no team of the repository") ||
		strings.Contains(c.Description, "warning: lead,") {
		t.Errorf("aob/intent is %s: %s", c.State, c.Description)
	}
	if c := s.check(s.head("main"), delivery.ContextIntent); !strings.Contains(c.Description,
		"vision-leads, an owner of gate production, is no team of the repository") {
		t.Errorf("main's aob/intent is %s: %s", c.State, c.Description)
	}
	if said := s.forge.comments[1]; !strings.Contains(said, "the owner vision-leads is no team of the repository") {
		t.Errorf("the comment does not say it:\n%s", said)
	}
}

// A corrected setting of the forge is read soon, and at once after a webhook.
func TestCorrectedForgeSettingsAreReadSoon(t *testing.T) {
	s, _ := begun(t)
	wrong := func() bool {
		s.settle()
		for _, one := range s.loop.turn.Troubles() {
			if one.What == poll.SetupTrouble {
				return true
			}
		}
		return false
	}
	set := func(wrong ...string) {
		s.forge.setup = delivery.Setup{}
		for _, text := range wrong {
			s.forge.setup.Wrong("webhook", "%s", text)
		}
	}
	set("ada/intent has no webhook")
	if s.now = s.now.Add(poll.SetupLasts); !wrong() {
		t.Fatal("it is not said")
	}
	set()
	s.loop.Refresh("") // as a webhook does
	if wrong() {
		t.Error("a webhook arrived, and the note stays")
	}
	set("ada/intent has no webhook")
	if s.now = s.now.Add(poll.SetupLasts); !wrong() {
		t.Fatal("it is not said again")
	}
	set()
	if s.now = s.now.Add(poll.WrongLasts); wrong() {
		t.Error("it is right for a minute, and the note stays")
	}
}

// What is wrong with the forge's settings is among the troubles that the status shows.
func TestForgeSettingsAreChecked(t *testing.T) {
	s, _ := begun(t)
	s.forge.setup.Wrong("repository", "ada/intent is archived").To("take it out of the archive")
	s.now = s.now.Add(poll.SetupLasts)
	s.settle()
	found := false
	for _, one := range s.loop.turn.Troubles() {
		found = found || strings.Contains(one.String(), "ada/intent is archived")
	}
	if !found {
		t.Errorf("the troubles are %v", s.loop.turn.Troubles())
	}
	s.forge.setup = delivery.Setup{}
	s.now = s.now.Add(poll.SetupLasts)
	s.settle()
	if all := s.loop.turn.Troubles(); len(all) > 0 {
		t.Errorf("afterwards the troubles are %v", all)
	}
}

// A forge that refuses AOB's commits is reported on the pull request until it accepts them.
func TestRefusedCommitIsShownOnThePullRequest(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.forge.setup = delivery.Setup{
		Settings:     []delivery.Setting{{Check: "signatures", State: delivery.SettingWrong, Text: "x"}},
		MergeRefused: "ada/intent takes only signed commits on main; set commits.signingKey"}
	s.now = s.now.Add(poll.SetupLasts)
	s.settle()
	const want = "**This cannot be merged:** ada/intent takes only signed commits on main; set commits.signingKey"
	if said := s.forge.comments[1]; !strings.Contains(said, want) {
		t.Errorf("the comment does not say it:\n%s", said)
	}
	s.want("first", delivery.CheckSuccess, "version 1") // the gates have passed all the same
	s.forge.setup = delivery.Setup{}
	s.now = s.now.Add(poll.SetupLasts)
	s.settle()
	if said := s.forge.comments[1]; strings.Contains(said, "cannot be merged") {
		t.Errorf("the comment still says it:\n%s", said)
	}
}

// A ref under refs/pull that somebody pushed does not replace a branch.
func TestPushedPullRefReplacesNoBranch(t *testing.T) {
	s, main := begun(t)
	s.propose("first", 8)
	s.forge.prs[1].Ref = "" // as a local folder says
	other := s.repo.commit("", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 14)})
	delete(s.repo.refs, "refs/heads/")
	s.repo.refs["refs/pull/1/head"] = other
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	if c := s.check(other, delivery.ContextRelease); c.State != "" {
		t.Errorf("the commit of the pushed ref was judged: %+v", c)
	}
}
