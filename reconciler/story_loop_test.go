package reconciler

// Stories of the loop itself: what it does while others fail, and what it says afterwards.

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/history"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/pulls"
)

// alone takes a turn in which neither the forge nor a push answers: nobody drives what reads the forge and what sends.
func (s *sim) alone() {
	s.now = s.now.Add(time.Second)
	s.loop.git.Step(context.Background())
	s.again, s.failed = s.loop.Reconcile(context.Background())
}

// twoReleases is a world whose fleet runs version 2.
func twoReleases(t *testing.T) *sim {
	s, _ := begun(t)
	s.released("first", 8)
	s.released("second", 14)
	if got := s.serving(); got != "2 2 2" {
		t.Fatalf("devices serve %s, want version 2", got)
	}
	return s
}

// hung is a forge that takes every call and never answers.
type hung struct{ *simForge }

func hang[T any](ctx context.Context) (T, error) {
	<-ctx.Done()
	var none T
	return none, ctx.Err()
}

func (hung) PullRequests(ctx context.Context) ([]delivery.PullRequest, error) {
	return hang[[]delivery.PullRequest](ctx)
}
func (hung) Statuses(ctx context.Context, _ string) ([]delivery.Status, error) {
	return hang[[]delivery.Status](ctx)
}
func (hung) SetStatus(ctx context.Context, _ string, _ delivery.Check) error {
	_, err := hang[int](ctx)
	return err
}
func (hung) Comment(ctx context.Context, _ int, _, _ string) error {
	_, err := hang[int](ctx)
	return err
}
func (hung) Permission(ctx context.Context, _ string) (delivery.Permission, error) {
	return hang[delivery.Permission](ctx)
}

// The loop as it runs in the server, with a forge that hangs: a rollback is published.
func TestRollbackIsPublishedWhileTheForgeHangs(t *testing.T) {
	s := twoReleases(t)
	s.revert()
	published := make(chan delivery.Desired, 10)
	s.restart(func(r *Reconciler) { r.Forge, r.Fleet = hung{s.forge}, told{s.fleet, published} })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.loop.Run(ctx) }()
	d := <-published
	cancel()
	<-ended
	if d.Release.Version != 1 {
		t.Errorf("version %d was published, want 1", d.Release.Version)
	}
}

// told is a fleet that says what is published.
type told struct {
	*simFleet
	published chan delivery.Desired
}

func (f told) Publish(ctx context.Context, d delivery.Desired) error {
	err := f.simFleet.Publish(ctx, d)
	f.published <- d
	return err
}

// A rollback goes out in the turn that sees it, whatever hangs: the list, statuses, comments, pushes.
func TestFleetsDoNotWaitForTheForge(t *testing.T) {
	s := twoReleases(t)
	s.propose("third", 20)
	s.settle()
	s.revert()
	s.alone()
	if got := s.fleet.published["demo"].Release.Version; got != 1 {
		t.Fatalf("version %d is published, want 1 in the turn after the revert", got)
	}
	s.fleet.report()
	for range 5 {
		s.alone()
	}
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("devices serve %s", got)
	}
	s.settle()
	s.quiet()
}

// Waves and soaks go on while git and the forge are down; an abort too.
func TestWavesGoOnWhileGitIsDown(t *testing.T) {
	for _, broken := range []bool{false, true} {
		s, _ := begun(t)
		s.released("first", 8)
		s.propose("second", 14)
		s.settle()
		bundle := s.signed.last()
		s.fleet.broken[bundle] = broken
		s.merge("second")
		s.turn() // the first wave
		s.repo.down, s.forge.down = true, true
		for range 30 {
			s.fleet.report()
			s.turn()
		}
		want := "2 2 2"
		if broken {
			want = "1 1 1"
		}
		if got := s.serving(); got != want {
			t.Errorf("broken %v: devices serve %s, want %s", broken, got, want)
		}
		if notes := s.notes(); !strings.Contains(notes, poll.GitTrouble+" since 2026-") ||
			!strings.Contains(notes, poll.ListTrouble) {
			t.Errorf("the status says %s", notes)
		}
		s.repo.down, s.forge.down = false, false
		s.settle()
		if notes := s.notes(); notes != "" {
			t.Errorf("afterwards the status says %s", notes)
		}
	}
}

// notes is what the status says of what does not work.
func (s *sim) notes() string {
	status, err := s.source().Status(context.Background())
	if err != nil {
		s.fail("no status: %v", err)
	}
	return strings.Join(status.Notices, "\n")
}

// While main cannot be read, or is gone, fleets go on with its last good commit, also after a restart. No training
// ends.
func TestFleetsFollowMainsLastGoodCommit(t *testing.T) {
	for name, damage := range map[string]func(s *sim){
		"a commit that is not there": func(s *sim) { s.repo.refs[git.Branch+"main"] = strings.Repeat("1", 40) },
		"no branch":                  func(s *sim) { delete(s.repo.refs, git.Branch+"main") },
		"a tree that is too large": func(s *sim) {
			s.repo.bad = map[string]error{s.repo.commit("main", s.main(), s.now,
				map[string]string{"README": "more"}): delivery.Blockedf("remove some", "it has 20001 files")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.released("first", 8)
			s.propose("second", 14)
			s.settle()
			s.propose("third", 20)
			s.untilTraining()
			training := s.runs.running(delivery.RunTrain)
			s.merge("second")
			s.turn()
			good := s.repo.refs[git.Branch+"main"]
			damage(s)
			for i := range 30 {
				s.fleet.report()
				s.turn()
				if i == 3 {
					s.restart()
				}
			}
			if got := s.serving(); got != "2 2 2" {
				t.Errorf("devices serve %s, want the release that was going out", got)
			}
			if notes := s.notes(); !strings.Contains(notes, history.MainTrouble) ||
				!strings.Contains(notes, good[:12]) {
				t.Errorf("the status says %s", notes)
			}
			if s.runs.states[training].Phase != delivery.RunRunning {
				t.Error("the training was ended")
			}
			s.repo.refs[git.Branch+"main"] = good
			s.settle()
			s.want("third", delivery.CheckSuccess)
		})
	}
}

// One pull request that cannot be read fails alone: it says so, is listed, and the others go on; runs that nobody needs
// end.
func TestUnreadablePullRequestDoesNotStopOthers(t *testing.T) {
	for name, breaks := range map[string]func(s *sim, n int){
		"too many files": func(s *sim, n int) {
			s.repo.bad = map[string]error{s.head("bad"): delivery.Blockedf("remove some",
				"it has more than 20000 files")}
		},
		"the forge says so": func(s *sim, n int) { s.forge.prs[n].Unreadable = "object 1234567890 is malformed" },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.propose("bad", 14)
			n := s.forge.open("bad", "dev")
			breaks(s, n)
			s.propose("first", 8)
			s.settle()
			s.want("first", delivery.CheckSuccess, "version 1")
			s.want("bad", delivery.CheckFailure)
			if c := s.check(s.head("bad"), delivery.ContextIntent); c.State != delivery.CheckFailure ||
				!strings.Contains(c.Description, s.head("bad")[:10]) {
				t.Errorf("aob/intent: %+v", c)
			}
			if prs := s.loop.Last().PRs(); len(prs) != 2 {
				t.Errorf("listed: %+v", prs)
			}
			if !s.loop.observed.world.ProposalsKnown {
				t.Error("one pull request keeps the list from being known")
			}
			if notes := s.notes(); !strings.Contains(notes, fmt.Sprintf(pulls.Trouble, n)) {
				t.Errorf("the status says %s", notes)
			}
			reads := s.repo.reads
			s.quiet()
			if s.repo.reads-reads > 1 {
				t.Errorf("it was read %d times more", s.repo.reads-reads)
			}
			s.repo.bad = nil
			s.forge.prs[n].Unreadable = ""
			s.repo.commit("bad", s.head("bad"), s.now, map[string]string{"models/shapes.yaml": "# mended\n" +
				model("shapes", 14)})
			s.settle()
			s.want("bad", delivery.CheckSuccess)
			if notes := s.notes(); notes != "" {
				t.Errorf("afterwards the status says %s", notes)
			}
		})
	}
}

// The ref of a branch is damaged while its model trains: nobody knows what it asks for now, so the training goes on,
// and the damage is named without a turn each second.
func TestDamagedRefKeepsTheTraining(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.untilTraining()
	training := s.runs.running(delivery.RunTrain)
	pr := s.forge.list()[0]
	pr.Head, pr.Ref, pr.Author, pr.Unreadable = "", "", "", "the file refs/heads/first is empty"
	s.forge.old = []delivery.PullRequest{pr}
	for range 20 {
		s.now = s.now.Add(time.Minute)
		s.wake()
		s.turn()
	}
	if s.runs.states[training].Phase != delivery.RunRunning {
		t.Errorf("the training is %s", s.runs.states[training].Phase)
	}
	if notes := s.notes(); !strings.Contains(notes, "the file refs/heads/first is empty") {
		t.Errorf("the status says %s", notes)
	}
	s.forge.old = nil
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
}

// The mirror gets the list of open pull requests, so that it removes heads of closed ones. It removes none while the
// forge is down.
func TestHeadsOfClosedPullRequestsAreRemoved(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	n := s.forge.open("second", "dev")
	s.propose("second", 14)
	s.settle()
	if want := []int{1, n}; !slices.Equal(s.repo.keep, want) {
		t.Errorf("open: %v, want %v", s.repo.keep, want)
	}
	s.forge.down = true
	s.wake()
	s.turn()
	if len(s.repo.keep) != 2 {
		t.Errorf("while the forge is down: %v", s.repo.keep)
	}
	s.forge.down = false
	s.forge.prs[n].closed = true
	s.settle()
	s.now = s.now.Add(time.Hour) // by the next look it is known that it was closed and not merged
	s.wake()
	s.settle()
	if !slices.Equal(s.repo.keep, []int{1}) {
		t.Errorf("open: %v, want only the first", s.repo.keep)
	}
}

// A pull request whose commit has not come yet waits, says so, and holds nobody up.
func TestMissingCommitWaits(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	n := s.forge.open("ghost", "dev")
	s.repo.refs[git.Branch+"ghost"] = strings.Repeat("12", 20)
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	s.want("ghost", delivery.CheckPending, "not here yet")
	if prs := s.loop.Last().PRs(); len(prs) != 2 {
		t.Errorf("listed: %+v", prs)
	}
	s.forge.prs[n].closed = true
}

// A pull request whose commit came to main before it could be read does not stay pending.
func TestPullRequestIsReadAfterItLanded(t *testing.T) {
	s, _ := begun(t)
	s.settle()
	s.repo.down = true
	s.repo.commit("notes", s.main(), s.now, map[string]string{"README.md": "notes"})
	s.forge.open("notes", "dev")
	s.settle()
	s.want("notes", delivery.CheckPending, "not here yet")
	s.repo.refs[git.Branch+"main"] = s.head("notes")
	s.repo.commit("main", s.main(), s.now, map[string]string{"README.md": "more"})
	s.repo.down = false
	s.settle()
	s.want("notes", delivery.CheckSuccess, "no model change")
	s.quiet()
}

// A pull request to another branch is listed, and gets one status that says that AOB judges only pull requests to main.
func TestStackedPullRequestGetsOneStatus(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.repo.commit("stacked", s.head("first"), s.now, map[string]string{"models/shapes.yaml": model("shapes", 14)})
	n := s.forge.open("stacked", "dev")
	s.forge.prs[n].Base = "first"
	s.settle()
	s.want("stacked", delivery.CheckPending, "AOB judges pull requests that target main")
	s.quiet()
	s.forge.prs[n].Base = "main"
	s.settle()
	s.want("stacked", delivery.CheckSuccess)
}

// The author's permission is not known yet: only this pull request waits.
func TestUnknownPermissionDelaysNoOther(t *testing.T) {
	s, _ := begun(t)
	s.forge.mute = map[string]bool{"newcomer": true}
	s.repo.commit("theirs", s.main(), s.now, map[string]string{"models/shapes.yaml": model("shapes", 14)})
	s.forge.open("theirs", "newcomer")
	s.propose("first", 8)
	s.settle()
	s.want("first", delivery.CheckSuccess)
	s.want("theirs", delivery.CheckPending, "waiting for the forge to say which permission newcomer has")
	s.forge.mute = nil
	s.settle()
	s.want("theirs", delivery.CheckSuccess)
}

// A status that somebody else sets is set again, and the comment names who set it.
func TestForgedStatusIsSetAgain(t *testing.T) {
	for _, context := range []string{delivery.ContextRelease, delivery.ContextGate + "production", "aob/intent"} {
		s, _ := begun(t)
		s.released("first", 8)
		s.propose("worse", 2)
		s.settle()
		head := s.head("worse")
		s.want("worse", delivery.CheckFailure)
		was := s.check(head, context)
		s.forge.forge(head, "mal_lory", delivery.Check{Context: context, State: delivery.CheckSuccess,
			Description: "all is well"})
		s.now = s.now.Add(poll.StatusLasts)
		s.turn()
		s.turn()
		if got := s.check(head, context); got != was || s.forge.forged[head+" "+context] != "" {
			t.Errorf("%s stands as %+v, want %+v", context, got, was)
		}
		body := s.forge.comments[s.forge.open("worse", "dev")]
		if !strings.Contains(body, delivery.Markdown("mal_lory")) || !strings.Contains(body, context) {
			t.Errorf("the comment does not name who set %s:\n%s", context, body)
		}
		s.settle()
		s.quiet()
	}
}

// A webhook about a status makes AOB read it back at once.
func TestStatusWebhookReadsBack(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.propose("worse", 2)
	s.settle()
	head := s.head("worse")
	s.forge.forge(head, "mallory", delivery.Check{Context: delivery.ContextRelease, State: delivery.CheckSuccess})
	s.loop.Refresh(head)
	s.turn()
	s.want("worse", delivery.CheckFailure)
}

// A forge that was restored from a backup, or replaced by another, gets its statuses and the comment again, with and
// without a restart of AOB.
func TestLostPostsArePostedAgain(t *testing.T) {
	for name, lose := range map[string]func(s *sim, n int){
		"all of it": func(s *sim, n int) {
			clear(s.forge.statuses)
			clear(s.forge.comments)
		},
		"some, and a restart": func(s *sim, n int) {
			delete(s.forge.statuses[s.head("first")], delivery.ContextIntent)
			delete(s.forge.comments, n)
			s.restart()
		},
		"older ones stand": func(s *sim, n int) {
			s.forge.statuses[s.head("first")][delivery.ContextRelease] = delivery.Check{
				Context: delivery.ContextRelease, State: delivery.CheckPending, Description: "training",
			}
			s.forge.comments[n] = "### AOB: working on it"
		},
		"an edited comment": func(s *sim, n int) { s.forge.comments[n] = "### AOB: ready to merge\n\nnothing to see" },
		"opened again with the same number": func(s *sim, n int) {
			clear(s.forge.statuses)
			clear(s.forge.comments)
			s.forge.prs[n].Created = s.now
		},
		"another forge": func(s *sim, n int) {
			clear(s.forge.statuses)
			clear(s.forge.comments)
			s.forge.address = "https://elsewhere.example/ada/intent"
			s.restart()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.propose("first", 8)
			s.settle()
			n := s.forge.open("first", "dev")
			statuses, body := fmt.Sprint(s.forge.statuses[s.head("first")]), s.forge.comments[n]
			lose(s, n)
			s.now = s.now.Add(max(poll.StatusLasts, poll.BodyLasts))
			s.settle()
			if got := fmt.Sprint(s.forge.statuses[s.head("first")]); got != statuses {
				t.Errorf("statuses are\n%s\nwant\n%s", got, statuses)
			}
			if got := s.forge.comments[n]; got != body {
				t.Errorf("the comment is\n%s\nwant\n%s", got, body)
			}
			if len(s.trained) != 1 {
				t.Errorf("%d trainings", len(s.trained))
			}
			s.quiet()
		})
	}
}

// Without a ledger nothing is said again that stands on the forge already.
func TestLostLedgerRepeatsNothing(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	said := s.forge.said
	s.ledger = newSimLedger(s)
	s.restart()
	s.settle()
	if s.forge.said != said {
		t.Errorf("%d statuses and comments were sent again", s.forge.said-said)
	}
}

// prepared are commits that somebody puts on a branch whose name AOB will want, by what they are. Main is parent to
// them.
var prepared = map[string]func(s *sim, main string) string{
	"a lowered gate": func(s *sim, main string) string { return s.lowered(main) },
	"main itself":    func(_ *sim, main string) string { return main },
	"a lowered gate under AOB's files": func(s *sim, main string) string {
		evil := s.lowered(main)
		release := s.repo.read(s.repo.commits[main].parents[0], "models/shapes.release.yaml")
		return s.repo.write([]string{evil}, s.repo.with(evil, map[string]string{"models/shapes.release.yaml": release}),
			s.now, "back")
	},
}

// lowered is a commit whose gate asks for nothing.
func (s *sim) lowered(main string) string {
	files := map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0)}
	return s.repo.write([]string{main}, s.repo.with(main, files), s.now, "help")
}

// leavesAlone fails unless AOB opens its pull request on another branch than the one that was prepared.
func (s *sim) leavesAlone(t *testing.T, branch, commit string) {
	t.Helper()
	s.repo.refs[git.Branch+branch] = commit
	s.settle()
	var opened []string
	for _, pr := range s.forge.list() {
		if pr.Author == "aob" {
			opened = append(opened, pr.HeadRef)
		}
	}
	if !slices.Equal(opened, []string{branch + "-2"}) {
		t.Fatalf("AOB opened pull requests of %q", opened)
	}
	if got := s.repo.read(s.head(branch+"-2"), "gates/production.yaml"); got != gateFile("production", "shapes", 0.3) {
		t.Errorf("AOB's pull request has the gate\n%s", got)
	}
	s.quiet()
}

// AOB opens a pull request only if the branch is at the commit that AOB made.
func TestAOBOpensPullRequestsOnlyForItsOwnCommits(t *testing.T) {
	for name, prepare := range prepared {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.released("first", 8)
			s.propose("second", 14)
			s.settle()
			bundle := s.signed.last()
			s.fleet.broken[bundle] = true
			main := s.merge("second")
			s.leavesAlone(t, "aob/quarantine-shapes-"+bundle.Short(), prepare(s, main))
		})
	}
}

// A branch that AOB pushed and could not open a pull request for is found again, also after main has moved.
func TestOwnBranchIsFoundAgain(t *testing.T) {
	for _, lost := range []bool{false, true} {
		s, _ := begun(t)
		s.released("first", 8)
		s.propose("second", 14)
		s.settle()
		bundle := s.signed.last()
		s.fleet.broken[bundle] = true
		s.merge("second")
		branch := "aob/quarantine-shapes-" + bundle.Short()
		for range 40 {
			s.forge.down = s.head(branch) != "" // from the push on
			s.forge.deaf = true
			s.turn()
			s.fleet.report()
		}
		if s.head(branch) == "" {
			t.Fatal("nothing was pushed")
		}
		s.pushMain(map[string]string{"gates/signs.yaml": gateFile("signs", "shapes", 0.1)})
		if lost {
			s.ledger = newSimLedger(s)
			s.restart()
		}
		s.forge.down, s.forge.deaf = false, false
		s.settle()
		if s.head(branch+"-2") != "" {
			t.Errorf("ledger lost %v: its own branch was taken for somebody else's", lost)
		}
		s.opened(branch)
	}
}

// The list of pull requests is older than main's move: nothing is concluded about them. A merge ends without another
// release.
func TestListOlderThanMainDecidesNothing(t *testing.T) {
	for _, how := range []string{"squash", "merge"} {
		s, _ := begun(t)
		s.propose("first", 8)
		s.settle()
		s.propose("other", 14)
		s.untilTraining()
		training := s.runs.running(delivery.RunTrain)
		head, before := s.head("first"), len(s.signed.index.Releases)
		statuses := fmt.Sprint(s.forge.statuses[head])
		parents := []string{s.main()}
		if how == "merge" {
			parents = append(parents, head)
		}
		s.repo.refs[git.Branch+"main"] = s.repo.write(parents, s.repo.commits[head].files, s.now, "merged")
		for range 5 {
			s.alone() // git is new, and the list is old
		}
		if n := len(s.signed.index.Releases); n != before {
			t.Errorf("%s: %d more releases were signed", how, n-before)
		}
		if s.runs.states[training].Phase != delivery.RunRunning {
			t.Errorf("%s: the other training is %s", how, s.runs.states[training].Phase)
		}
		if prs := s.loop.Last().PRs(); len(prs) != 2 || prs[0].Text == "" {
			t.Errorf("%s: listed %+v", how, prs)
		}
		s.forge.prs[s.forge.open("first", "dev")].closed = true
		delete(s.repo.refs, git.Branch+"first")
		s.settle()
		statuses = strings.Replace(statuses, "shapes: version 1, bundle 7efc424f41d8, mAP 0.6000",
			"shapes: merged: version 1", 1)
		if got := fmt.Sprint(s.forge.statuses[head]); got != statuses {
			t.Errorf("%s: the merged head has\n%s\nwant the same figures, and that it is merged\n%s", how, got,
				statuses)
		}
	}
}

// A rollout ends while the forge is down. Its status is posted when the forge is back, also after a restart and after
// main has moved.
func TestRolloutStatusIsPostedWhenTheForgeIsBack(t *testing.T) {
	for _, moved := range []bool{false, true} {
		s, _ := begun(t)
		s.propose("first", 8)
		s.settle()
		merge := s.merge("first")
		s.forge.down = true
		for range 30 {
			s.turn()
			s.fleet.report()
		}
		if got := s.serving(); got != "1 1 1" {
			t.Fatalf("devices serve %s", got)
		}
		if moved {
			s.pushMain(map[string]string{"gates/signs.yaml": gateFile("signs", "shapes", 0.1)})
			s.turn()
		}
		s.restart()
		s.forge.down = false
		s.settle()
		if c := s.check(merge, delivery.ContextRollout+"demo"); c.State != delivery.CheckSuccess {
			t.Errorf("main moved on %v: the rollout is said as %+v", moved, c)
		}
		s.quiet()
	}
}

// A push that git refuses for good stands in aob/release, and what to do comes first.
func TestRefusedPushIsShownToTheAuthor(t *testing.T) {
	s, _ := begun(t)
	s.repo.refuses = delivery.Blockedf("remove the lock if no git is at work there", "push to first: %s",
		strings.Repeat("cannot lock ref; ", 20))
	s.propose("first", 8)
	for range 40 {
		s.turn()
		s.runs.finishAll()
	}
	posts := s.forge.said
	s.want("first", delivery.CheckFailure, "remove the lock if no git is at work there", "cannot be pushed")
	c := s.check(s.head("first"), delivery.ContextRelease)
	if i := strings.Index(c.Description, "remove the lock"); i > 80 {
		t.Errorf("what to do comes late: %s", c.Description)
	}
	for range 300 {
		s.turn()
	}
	if s.forge.said != posts {
		t.Errorf("%d more statuses and comments were sent while it was tried again", s.forge.said-posts)
	}
	s.repo.refuses = nil
	for range 60 {
		s.turn()
	}
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
}

// While a release is being pushed it is neither pushed again nor called failed.
func TestPushUnderWayIsLeftAlone(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	for range 30 {
		s.now = s.now.Add(time.Second)
		s.loop.look(t.Context())
		s.again, s.failed = s.loop.Reconcile(t.Context())
		s.runs.finishAll()
		s.loop.board.Drain(t.Context())
	}
	if n, _ := s.loop.pushes.Oldest(); n != 1 || s.failed != nil {
		t.Errorf("%d pushes wait, last error %v", n, s.failed)
	}
	s.want("first", delivery.CheckPending, "version 1") // statuses were said meanwhile
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
}

// A step that succeeds without a visible effect is not taken again at once.
func TestStepWithoutVisibleEffectIsRepeatedWithPauses(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.untilTraining()
	s.runs.slow = true // ends are taken, and nothing comes of them
	delete(s.repo.refs, git.Branch+"first")
	s.now = s.now.Add(time.Hour) // past any grace
	ends := s.runs.ends
	for range 200 {
		s.now = s.now.Add(2 * time.Millisecond)
		s.loop.look(t.Context())
		if _, err := s.loop.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.loop.Wake()
	}
	if n := s.runs.ends - ends; n > 2 {
		t.Errorf("the run was ended %d times in less than a second", n)
	}
}

// Any step is taken once, and then again with growing pauses while it is planned.
func TestSuccessfulStepIsNotRepeatedAtOnce(t *testing.T) {
	s, _ := begun(t)
	step := plan.EndRun{Run: delivery.DigestOf("run", 1)}
	var at []int
	for second := range 60 {
		if done, _, _ := s.loop.act(t.Context(), []plan.Step{step}); done > 0 {
			at = append(at, second)
		}
		s.now = s.now.Add(time.Second)
	}
	if want := []int{0, 1, 3, 7, 15, 31}; !slices.Equal(at, want) {
		t.Errorf("taken at seconds %v, want %v", at, want)
	}
	s.loop.act(t.Context(), nil) // not planned any more
	if done, _, _ := s.loop.act(t.Context(), []plan.Step{step}); done != 1 {
		t.Error("a step that is planned anew waits")
	}
}

// What readers write costs the loop nothing: comments are read only where a code was asked for.
func TestCommentsOfReadersCostNothing(t *testing.T) {
	s, main := begun(t)
	s.forge.permission["eve"] = delivery.PermissionRead
	s.propose("first", 8)
	n := s.fork("theirs", "eve", main, map[string]string{"README": "hello"})
	for i := range 1000 {
		s.forge.comment(n, "eve", fmt.Sprintf("/aob run %032x", i))
		s.forge.comment(s.forge.open("first", "dev"), "eve", fmt.Sprintf("/aob run %032x", i))
	}
	s.settle()
	reads, asked := s.forge.reads, s.forge.permissions
	for range 60 {
		s.wake()
		s.turn()
	}
	if s.forge.reads != reads || s.forge.permissions-asked > 3 {
		t.Errorf("comments were read %d times, permissions %d times in a minute", s.forge.reads-reads,
			s.forge.permissions-asked)
	}
	// Where a code is asked for, what others write is not asked about.
	s.repo.commit("spend", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 14)})
	m := s.forge.open("spend", "eve")
	s.settle()
	for i := range 1000 {
		s.forge.comment(m, "eve", fmt.Sprintf("/aob run %032x", i))
	}
	asked = s.forge.permissions
	for range 60 {
		s.wake()
		s.turn()
	}
	if n := s.forge.permissions - asked; n > 4 {
		t.Errorf("permissions were asked for %d times in a minute", n)
	}
}

// Before git was ever read, the status says why nothing is known.
func TestStatusBeforeGitWasRead(t *testing.T) {
	s := newSim(t)
	s.repo.down = true
	s.turn()
	if notes := s.notes(); !strings.Contains(notes, poll.GitTrouble) || !strings.Contains(notes, "git is down") {
		t.Errorf("the status says %q", notes)
	}
	if _, err := s.source().PRs(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "git is down") {
		t.Errorf("the list of pull requests says %v", err)
	}
}

// Devices are shown as they are now, also while no turn succeeds.
func TestStatusShowsDevicesAsTheyAreNow(t *testing.T) {
	s := twoReleases(t)
	s.signed.down, s.repo.down = true, true
	s.turn()
	s.now = s.now.Add(time.Hour)
	s.fleet.report()
	status, err := s.source().Status(t.Context())
	if err != nil || !status.Fleets[0].Devices[0].Seen.Equal(s.now) {
		t.Errorf("seen at %v, want %v (%v)", status.Fleets[0].Devices[0].Seen, s.now, err)
	}
	s.wake()
	s.turn()
	if notes := s.notes(); !strings.Contains(notes, "the registry is down") || !strings.Contains(notes, "since") {
		t.Errorf("the status says %s", notes)
	}
}
