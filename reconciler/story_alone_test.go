package reconciler

// Stories of what fails alone: one model, one fleet or one statement that cannot be read keeps no other from going on.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/pulls"
)

// twoModels is a world with two models that have a release each; a fleet of three runs the first.
func twoModels(t *testing.T) *sim {
	s, _ := begun(t)
	s.released("first", 8)
	s.repo.commit("main", s.head("main"), s.now, map[string]string{"gates/other.yaml": gateFile("other", "other", 0.3)})
	s.repo.commit("other", s.head("main"), s.now, map[string]string{"models/other.yaml": model("other", 8),
		"gates/other.yaml": gateFile("other", "other", 0.3)})
	s.forge.open("other", "dev")
	s.settle()
	s.merge("other")
	s.settle()
	s.want("main", delivery.CheckSuccess)
	return s
}

// status returns the sentences of aob status.
func (s *sim) status(t *testing.T) string {
	t.Helper()
	status, err := s.source().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(status.Notices, "\n")
}

// wantStatus fails unless aob status has words, or where there are none, no notice at all.
func (s *sim) wantStatus(t *testing.T, words ...string) {
	t.Helper()
	got := s.status(t)
	if len(words) == 0 && got != "" {
		t.Errorf("aob status says %s", got)
	}
	for _, w := range words {
		if !strings.Contains(got, w) {
			t.Errorf("aob status does not mention %q:\n%s", w, got)
		}
	}
}

// The history of one model cannot be read, so it waits, and the status says so. The other model is judged and released,
// and fleets go on. The first model continues when its history can be read.
func TestOnlyTheModelWithUnreadableHistoryWaits(t *testing.T) {
	for name, damage := range map[string]func(s *sim) string{
		"the history": func(s *sim) string { return "models/shapes.release.yaml" },
		"an old release file": func(s *sim) string {
			return s.repo.commits[s.head("main")].files["models/shapes.release.yaml"]
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := twoModels(t)
			what := damage(s)
			s.propose("second", 14)
			s.settle()
			s.merge("second")
			s.settle()
			s.repo.bad = map[string]error{what: errors.New("object 1234 is damaged")}
			s.restart()
			s.propose("third", 20)
			s.repo.commit("more", s.head("main"), s.now, map[string]string{"models/other.yaml": model("other", 20)})
			s.forge.open("more", "dev")
			s.settle()
			s.want("third", delivery.CheckPending, "the history of shapes on main cannot be read",
				"object 1234 is damaged")
			s.want("more", delivery.CheckSuccess, "version 2")
			s.wantStatus(t, "the history of a model on main cannot be read", "since", "shapes: ")
			if got := s.serving(); got != "2 2 2" {
				t.Errorf("devices serve %s", got)
			}
			s.merge("more")
			s.settle()
			if got := len(s.signed.index.Accepted["other"]); got != 2 {
				t.Errorf("the other model has %d accepted releases, want 2", got)
			}
			s.quiet()

			s.repo.bad = nil
			s.settle()
			s.want("third", delivery.CheckSuccess, "version 3")
			s.wantStatus(t)
		})
	}
}

// A fleet's wave, abort and way back do not need the history of its model.
func TestFleetGoesOnWhileTheHistoryOfItsModelCannotBeRead(t *testing.T) {
	for _, broken := range []bool{false, true} {
		s := twoModels(t)
		s.propose("second", 14)
		s.settle()
		s.fleet.broken[s.signed.last()] = broken
		s.merge("second")
		s.settle2(3)
		s.repo.bad = map[string]error{"models/shapes.release.yaml": errors.New("object 1234 is damaged")}
		s.settle()
		want := "2 2 2"
		if broken {
			want = "1 1 1"
		}
		if got := s.serving(); got != want {
			t.Errorf("devices serve %s, want %s", got, want)
		}
	}
}

// settle2 takes some turns in which runs end and devices report.
func (s *sim) settle2(turns int) {
	for range turns {
		s.turn()
		s.runs.finishAll()
		s.fleet.report()
	}
}

// A release file in an old commit of main does not parse. It is ignored.
func TestOldUnparsableReleaseFileIsIgnored(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	good := s.repo.read(s.head("main"), "models/shapes.release.yaml")
	for _, file := range []string{"kind: Release\nname: [", "\x00\xff", strings.Repeat("- ", 9000), good + good} {
		s.repo.commit("main", s.head("main"), s.now, map[string]string{"models/shapes.release.yaml": file})
		s.turn()
		s.repo.commit("main", s.head("main"), s.now, map[string]string{"models/shapes.release.yaml": good})
		s.settle()
	}
	s.restart()
	s.settle()
	s.propose("second", 14)
	s.settle()
	s.want("second", delivery.CheckSuccess, "version 2")
	s.wantStatus(t)
}

// An old quarantine file of one model cannot be read, so its entries are not known and that model waits.
func TestOnlyTheModelWithUnreadableQuarantineWaits(t *testing.T) {
	s := twoModels(t)
	held := "apiVersion: aob/v1\nkind: Quarantine\nname: shapes\nentries:\n  - {digest: \"" +
		string(delivery.Sum([]byte("x"))) + "\", why: it failed}\n"
	s.repo.commit("main", s.head("main"), s.now, map[string]string{"models/shapes.quarantine.yaml": held})
	blob := s.repo.commits[s.head("main")].files["models/shapes.quarantine.yaml"]
	s.repo.commit("main", s.head("main"), s.now, map[string]string{"models/shapes.quarantine.yaml": strings.Replace(
		held, "why:", "lifted: a mistake, why:", 1)})
	s.settle()
	s.repo.bad = map[string]error{blob: errors.New("object 1234 is damaged")}
	s.ledger.said = map[string]ledger.Record{}
	s.restart()
	s.propose("second", 14)
	s.repo.commit("more", s.head("main"), s.now, map[string]string{"models/other.yaml": model("other", 20)})
	s.forge.open("more", "dev")
	s.settle()
	s.want("second", delivery.CheckPending, "cannot be read", "object 1234 is damaged")
	s.want("more", delivery.CheckSuccess, "version 2")
	s.wantStatus(t, "what main holds in quarantine cannot be read", "shapes.quarantine.yaml at commit")
	s.repo.bad = nil
	s.settle()
	s.want("second", delivery.CheckSuccess, "version 2")
}

// While evidence cannot be read, waves go on, a release that fails is aborted, and a revert goes out, also after a
// restart, when nothing of the evidence is known. What was said of pull requests stands, and nothing is trained anew.
func TestFleetsGoOnWhileEvidenceCannotBeRead(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		for _, what := range []string{"wave", "abort", "revert"} {
			t.Run(fmt.Sprintf("%s, restarted %v", what, restarted), func(t *testing.T) {
				s, _ := begun(t)
				s.released("first", 8)
				s.propose("second", 14)
				s.settle()
				s.fleet.broken[s.signed.last()] = what == "abort"
				s.merge("second")
				if what == "revert" {
					s.settle()
				}
				for len(s.fleet.published["demo"].Release.Bundle) == 0 ||
					s.fleet.published["demo"].Release.Version != 2 {
					s.turn()
				}
				s.propose("third", 20)
				if what == "revert" {
					s.settle()
					s.want("third", delivery.CheckSuccess)
				}
				s.signed.down = true
				trained := len(s.trained)
				if restarted {
					s.restart()
				}
				if what == "revert" {
					s.revert()
				}
				s.settle2(40)
				want := map[string]string{"wave": "2 2 2", "abort": "1 1 1", "revert": "1 1 1"}[what]
				if got := s.serving(); got != want {
					t.Errorf("devices serve %s, want %s; status:\n%s", got, want, s.status(t))
				}
				s.wantStatus(t, "the evidence about bundles cannot be read", "since", "the registry is down",
					"check the folder")
				if len(s.trained) != trained {
					t.Errorf("%d trainings while evidence could not be read", len(s.trained)-trained)
				}
				s.signed.down = false
				s.settle()
				if got := s.serving(); got != want {
					t.Errorf("afterwards devices serve %s, want %s", got, want)
				}
				if what == "abort" && len(s.signed.index.Aborts) != 1 {
					t.Errorf("%d aborts are signed, want 1", len(s.signed.index.Aborts))
				}
				s.quiet()
			})
		}
	}
}

// A document of a fleet is signed again before it expires, whatever cannot be read.
func TestDocumentsAreRenewedWhileEvidenceCannotBeRead(t *testing.T) {
	s := twoReleases(t)
	s.signed.down = true
	s.restart()
	before := s.fleet.published["demo"]
	for range 10 {
		s.now = s.now.Add(5 * time.Hour)
		s.settle2(2)
		if got := s.fleet.published["demo"]; !got.Expires.After(s.now) {
			t.Fatalf("the document has expired at %s, and it is %s", got.Expires, s.now)
		}
	}
	if got := s.fleet.published["demo"]; got.Release != before.Release {
		t.Errorf("release %+v, want %+v", got.Release, before.Release)
	}
}

// The acceptance of the running release cannot be read. It is not reverted, no pull request is opened, and no model is
// judged against an older release. Another model goes on.
func TestDamagedAcceptanceRevertsNothing(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		s := twoModels(t)
		s.propose("second", 14)
		s.settle()
		s.merge("second")
		s.settle()
		main, open := s.head("main"), len(s.forge.prs)
		bundle := s.signed.index.Accepted["shapes"][1].Bundle
		s.signed.damaged = []plan.UnreadStatement{{Bundle: bundle, Type: delivery.AcceptanceType,
			Why: "blob 1234 is damaged"}}
		if restarted {
			s.restart()
		}
		s.propose("third", 20)
		s.repo.commit("more", s.head("main"), s.now, map[string]string{"models/other.yaml": model("other", 20)})
		s.forge.open("more", "dev")
		s.settle()
		if got := s.serving(); got != "2 2 2" {
			t.Errorf("devices serve %s, want version 2", got)
		}
		if len(s.forge.prs) != open+2 || s.head("main") != main {
			t.Errorf("AOB opened a pull request")
		}
		s.want("third", delivery.CheckPending, "a signed statement about bundle "+bundle.Short()+" cannot be read")
		s.want("more", delivery.CheckSuccess, "version 2")
		s.wantStatus(t, "statements about bundles cannot be read", "acceptance of bundle "+bundle.Short(),
			"copy the files from a backup")
		s.revert() // a way back does not wait
		s.settle()
		if got := s.serving(); got != "1 1 1" {
			t.Errorf("after the revert devices serve %s, want version 1", got)
		}
		s.signed.damaged = nil
		s.settle()
		s.quiet()
	}
}

// A fleet fell back from a bundle, and the abort is damaged: the fleet does not get the bundle again.
func TestDamagedAbortStillForbidsTheBundle(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.propose("second", 14)
	s.settle()
	bad := s.signed.last()
	s.fleet.broken[bad] = true
	s.merge("second")
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Fatalf("devices serve %s, want version 1", got)
	}
	s.signed.damaged = []plan.UnreadStatement{{Bundle: bad, Type: delivery.AbortType, Why: "blob 1234 is damaged"}}
	clear(s.ledger.clocks)
	s.fleet.broken[bad] = false
	downloads := s.fleet.downloads
	s.restart()
	s.settle()
	if got := s.serving(); got != "1 1 1" || s.fleet.downloads != downloads {
		t.Errorf("devices serve %s, and downloaded %d times", got, s.fleet.downloads-downloads)
	}
	s.wantStatus(t, "abort of bundle "+bad.Short())
}

// stranger is a user without write permission.
const stranger = "eve"

// strange opens pull requests of a stranger, each with some models.
func (s *sim) strange(pulls, models int) {
	s.forge.permission[stranger] = delivery.PermissionRead
	for i := range pulls {
		files := map[string]string{}
		for k := range models {
			name := fmt.Sprintf("m%d-%d", i, k)
			files["models/"+name+".yaml"] = model(name, 3)
		}
		branch := fmt.Sprintf("strange-%d", i)
		s.repo.commit(branch, s.head("main"), s.now, files)
		s.forge.open(branch, stranger)
	}
}

// timed takes a turn and returns how long it took in the world's time.
func (s *sim) timed() time.Duration {
	s.now = s.now.Add(time.Second)
	ctx := context.Background()
	s.loop.look(ctx)
	start := s.now
	s.again, s.failed = s.loop.Reconcile(ctx)
	took := s.now.Sub(start)
	s.loop.send(ctx)
	return took
}

// Turns stay short however many files strangers push. Pull requests of authors with write permission are read first,
// and a rollback is published in the turn that sees it. In the end all are read, each once.
func TestManyHeadsOfStrangersDoNotSlowTurns(t *testing.T) {
	s := twoReleases(t)
	const many, models = 40, 10
	s.strange(many, models)
	s.propose("third", 20)
	s.revert()
	s.repo.cost = 10 * time.Millisecond
	most := pulls.ReadTime + 30*s.repo.cost // some files of one head, and main's
	turns := 0
	pending := func() (n int) {
		for i := range many {
			if c := s.check(s.head(fmt.Sprintf("strange-%d", i)), delivery.ContextRelease); !strings.Contains(
				c.Description, "needs approval") && !strings.Contains(c.Description, "no gate covers") {
				n++
			}
		}
		return n
	}
	for ; pending() > 0; turns++ {
		if took := s.timed(); took > most {
			t.Errorf("turn %d took %s, want at most %s", turns, took, most)
		}
		if turns == 0 && s.fleet.published["demo"].Release.Version != 1 {
			t.Errorf("the rollback waits for strangers")
		}
		if c := s.check(s.head("third"), delivery.ContextRelease); turns == 1 &&
			strings.Contains(c.Description, "reads the files") {
			t.Errorf("who may write waits for strangers: %s", c.Description)
		}
		if turns > 2*many {
			t.Fatalf("%d pull requests are not read after %d turns", pending(), turns)
		}
		s.runs.finishAll()
		s.fleet.report()
	}
	if turns < 5 {
		t.Errorf("all was read in %d turns, so the limit was not tried", turns)
	}
	s.repo.cost = 0
	s.settle()
	s.quiet()

	// When main moves, each is compared with it anew. What was said of them stands meanwhile.
	said := s.forge.posts
	s.repo.commit("main", s.head("main"), s.now, s.note("main moves"))
	s.repo.cost = 10 * time.Millisecond
	for range 2 * many {
		if took := s.timed(); took > most {
			t.Errorf("after main has moved a turn took %s", took)
		}
		for i := range many {
			if c := s.check(s.head(fmt.Sprintf("strange-%d", i)), delivery.ContextRelease); strings.Contains(
				c.Description, "reads the files") {
				t.Fatalf("what was said of a pull request is taken back: %s", c.Description)
			}
		}
	}
	if s.forge.posts-said > 10 {
		t.Errorf("%d statuses were said because main has moved", s.forge.posts-said)
	}
}

// A head with very many files, by an author with write permission, takes many turns. Others are read meanwhile.
func TestHugeHeadDoesNotSlowTurns(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	files := map[string]string{}
	for k := range 200 {
		name := fmt.Sprintf("m%d", k)
		files["models/"+name+".yaml"] = model(name, 3)
	}
	s.repo.commit("huge", s.head("main"), s.now, files)
	s.forge.open("huge", "dev")
	s.propose("second", 14)
	s.repo.cost = 10 * time.Millisecond
	for range 4 {
		if took := s.timed(); took > pulls.ReadTime+30*s.repo.cost {
			t.Errorf("a turn took %s", took)
		}
	}
	if s.runs.active() == 0 {
		t.Errorf("the small pull request waits for the huge one: %v", s.forge.statuses[s.head("second")])
	}
	s.repo.cost = 0
	s.settle()
	s.want("second", delivery.CheckSuccess)
	s.want("huge", delivery.CheckFailure, "no gate covers")
}

// Main goes back to version 1 of shapes while one of its files cannot be read. The documents of fleets that stay as
// they are are signed again before they expire.
func TestBrokenFileOnMainStopsOnlyItsFleets(t *testing.T) {
	broken := func(kind, name string) string {
		return "apiVersion: aob/v1\nkind: " + kind + "\nname: " + name + "\nnonsense: 1\n"
	}
	for file, c := range map[string]struct{ text, serving, says string }{
		"models/other.yaml":             {broken("Model", "other"), "1 1 1", "no fleet is affected"},
		"gates/other.yaml":              {broken("Gate", "other"), "1 1 1", "no fleet is affected"},
		"fleets/other.yaml":             {broken("Fleet", "other"), "1 1 1", "no fleet is affected"},
		"models/shapes.quarantine.yaml": {broken("Quarantine", "shapes"), "2 2 2", "fleets stay as they are"},
		"models/other.quarantine.yaml":  {broken("Quarantine", "other"), "2 2 2", "fleets stay as they are"},
		"fleets/demo.yaml":              {broken("Fleet", "demo"), "2 2 2", "fleets stay as they are"},
	} {
		t.Run(file, func(t *testing.T) {
			s := barred(t)
			first := s.main()
			s.released("second", 14)
			if got := s.serving(); got != "2 2 2" {
				t.Fatalf("devices serve %s, want version 2", got)
			}
			s.repo.commit("main", s.main(), s.now, map[string]string{file: c.text})
			s.settle()
			back := map[string]string{}
			for _, path := range []string{"models/shapes.yaml", "models/shapes.release.yaml"} {
				back[path] = string(s.repo.blobs[s.repo.commits[first].files[path]])
			}
			s.repo.commit("main", s.main(), s.now, back)
			s.settle()
			if got := s.serving(); got != c.serving {
				t.Errorf("devices serve %s, want %s", got, c.serving)
			}
			said := s.forge.statuses[s.main()][delivery.ContextIntent]
			if said.State != delivery.CheckFailure || !strings.Contains(said.Description, c.says) {
				t.Errorf("aob/intent on main is %s: %s; want failure and %q", said.State, said.Description, c.says)
			}
			for range 3 {
				s.now = s.now.Add(11 * time.Hour)
				s.settle()
			}
			if d := s.fleet.published["demo"]; !d.Expires.After(s.now) {
				t.Errorf("the fleet's document expired at %s, and it is %s", d.Expires, s.now)
			}
		})
	}
}

// adopt asks for a fork's pull request to be adopted as it is, as aob pr adopt does.
func (s *sim) adopt(n int) (int, error) {
	head := "0123456789"
	if pr := s.forge.prs[n]; pr != nil {
		head = s.forge.head(pr)
	}
	return s.adoptAt(n, head)
}

// adoptAt asks for a fork's pull request to be adopted if its head is still the one that was looked at.
func (s *sim) adoptAt(n int, head string) (int, error) {
	answered := make(chan struct{})
	defer close(answered)
	go func() { // the loop between two turns
		select {
		case ask := <-s.loop.requests:
			ask()
		case <-answered:
		}
	}()
	return s.loop.Adopt(context.Background(), n, head)
}

// A fork's head is brought to a branch here, and judged and released there. Asking again gives the same one.
func TestAdoptedForkIsReleased(t *testing.T) {
	s, main := begun(t)
	n := s.fork("theirs", "dev", main, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.settle()
	adopted, err := s.adopt(n)
	if err != nil {
		t.Fatal(err)
	}
	branch := fmt.Sprintf("aob/adopt-%d", n)
	if s.head(branch) != s.forge.head(s.forge.prs[n]) || s.forge.prs[adopted].HeadRef != branch {
		t.Errorf("pull request %d is of %s at %s", adopted, s.forge.prs[adopted].HeadRef, s.head(branch))
	}
	s.settle()
	s.want(branch, delivery.CheckSuccess, "version 1")
	s.merge(branch)
	s.settle()
	if got := s.serving(); got != "1 1 1" {
		t.Errorf("devices serve %s", got)
	}
}

// What is pushed to a fork after the review is not adopted, so it starts no run without approval.
func TestOnlyTheReviewedHeadIsAdopted(t *testing.T) {
	s, main := begun(t)
	s.forge.permission["eve"] = delivery.PermissionRead
	n := s.fork("theirs", "eve", main, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.settle()
	looked := s.forge.head(s.forge.prs[n])
	runs := len(s.loop.observed.world.Runs)
	s.repo.refs[fmt.Sprintf("%s%d/head", git.Pull, n)] = s.repo.write([]string{main}, s.repo.with(main,
		map[string]string{"models/shapes.yaml": model("shapes", 99)}), s.now, "theirs")
	s.settle()
	now := s.forge.head(s.forge.prs[n])
	if now == looked {
		t.Fatal("the head is the same")
	}
	for _, head := range []string{looked, looked[:10], "", now[:6], strings.ToUpper(now)} {
		if _, err := s.adoptAt(n, head); err == nil || !strings.Contains(err.Error(), "was reviewed") {
			t.Errorf("adopted what was looked at as %q: %v", head, err)
		}
	}
	s.settle()
	_, there := s.repo.refs[git.Branch+fmt.Sprintf("aob/adopt-%d", n)]
	if got := len(s.loop.observed.world.Runs); there || got != runs {
		t.Errorf("a branch is there: %v; %d runs, before %d", there, got, runs)
	}
	if _, err := s.adoptAt(n, now[:10]); err != nil {
		t.Errorf("what was looked at is not adopted: %v", err)
	}
}

// Only open forks are adopted. Somebody else's branch of the same name is left alone, and no pull request is opened if
// the branch moves meanwhile.
func TestAdoptRefusesOtherHeads(t *testing.T) {
	s, main := begun(t)
	n := s.fork("theirs", "dev", main, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.propose("own", 14)
	s.settle()
	own := s.forge.list()[1].Number
	for pr, want := range map[int]string{own: "no fork's", 99: "there is no open pull request 99"} {
		if _, err := s.adopt(pr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("#%d: %v, want %q", pr, err, want)
		}
	}
	branch := fmt.Sprintf("aob/adopt-%d", n)
	theirs := s.repo.commit(branch, main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 20)})
	s.settle()
	adopted, err := s.adopt(n)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.forge.prs[adopted].HeadRef; got != branch+"-2" || s.head(branch) != theirs ||
		s.head(got) != s.forge.head(s.forge.prs[n]) {
		t.Errorf("it is adopted as %s, and the other branch is at %.8s", got, s.head(branch))
	}

	s, main = begun(t)
	n = s.fork("theirs", "dev", main, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.settle()
	s.loop.Repo = raced{s.repo, func() {
		s.repo.commit(fmt.Sprintf("aob/adopt-%d", n), main, s.now, s.note("meanwhile"))
	}}
	open := len(s.forge.prs)
	if _, err := s.adopt(n); err == nil || !strings.Contains(err.Error(), "somebody pushed to aob/adopt-") {
		t.Errorf("a branch that has moved meanwhile: %v", err)
	}
	if len(s.forge.prs) != open {
		t.Error("a pull request was opened on what somebody else pushed")
	}
}

// raced is a repository where somebody pushes just after AOB.
type raced struct {
	*simRepo
	then func()
}

func (r raced) Push(ctx context.Context, hash, ref, old string) error {
	err := r.simRepo.Push(ctx, hash, ref, old)
	r.then()
	return err
}

// The branch of a pull request, or its fork, was deleted. Its last head is judged, a go counts, and the comment says
// what is so.
func TestDeletedForkIsJudgedAtItsLastHead(t *testing.T) {
	for _, ref := range []string{"", "refs/pull/1/head"} {
		s, main := begun(t)
		n := s.fork("theirs", stranger, main, map[string]string{"models/shapes.yaml": model("shapes", 8)})
		s.forge.permission[stranger] = delivery.PermissionRead
		s.settle()
		s.forge.prs[n].HeadRef, s.forge.prs[n].ForkOwner = ref, ""
		s.settle()
		head := s.forge.head(s.forge.prs[n])
		if got := s.forge.comments[n]; !strings.Contains(got, "its branch or its fork was deleted") ||
			!strings.Contains(got, head[:10]) || !strings.Contains(got, fmt.Sprintf("aob pr adopt %d", n)) {
			t.Errorf("the comment says:\n%s", got)
		}
		_, code, _ := strings.Cut(s.check(head, delivery.ContextRelease).Description, "/aob run ")
		s.forge.comment(n, "maintainer", "/aob run "+code)
		s.settle()
		if c := s.check(head, delivery.ContextRelease); c.State != delivery.CheckFailure ||
			!strings.Contains(c.Description, fmt.Sprintf("aob pr adopt %d", n)) {
			t.Errorf("after the go: %+v", c)
		}
		s.quiet()
	}
}

// A pull request to another branch than main gets a status and a comment that say so, and starts no runs.
func TestStackedPullRequestIsNotJudged(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("base", main, s.now, s.note("base"))
	s.propose("stacked", 8)
	n := s.forge.list()[0].Number
	s.forge.prs[n].Base = "base"
	s.settle()
	s.want("stacked", delivery.CheckPending, "it targets base; AOB judges pull requests that target main")
	if got := s.forge.comments[n]; !strings.Contains(got, "AOB: not judged yet") ||
		!strings.Contains(got, "t targets base; AOB judges pull requests that target main") {
		t.Errorf("the comment says:\n%s", got)
	}
	s.forge.comment(n, "maintainer", "/aob run 0123456789abcdef0123456789abcdef")
	s.settle()
	if len(s.runs.states) != 0 {
		t.Error("something runs for it")
	}
	s.quiet()
}
