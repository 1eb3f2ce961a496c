package reconciler

// Stories of trouble: the design's section 9, cases 12 to 14, forks and goes.

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

// Case 12: while the forge is down nothing is ended, and afterwards everything
// is said.
func TestForgeDown(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.untilTraining()
	s.forge.down = true
	for range 10 {
		s.turn()
		if !s.again.After(s.now) {
			t.Fatal("it does not rest while the forge is down")
		}
	}
	if s.runs.running(delivery.RunTrain) == "" {
		t.Fatal("the training was ended while the forge was down")
	}
	s.runs.finishAll()
	s.forge.down = false
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
}

// Case 13: a full disk under the ledger stops what must be remembered, and
// nothing else; once there is room it goes on.
func TestLedgerDiskFull(t *testing.T) {
	s, _ := begun(t)
	s.ledger.full = true
	s.propose("first", 8)
	s.settle()
	s.ledger.full = false
	for range 60 {
		s.turn() // the longest pause after a blocked write
	}
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	if s.forge.made != 1 {
		t.Errorf("%d comments were made", s.forge.made)
	}
}

// Rechecking one pull request takes nothing from under the training of another.
func TestRecheckLeavesOthersAlone(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.untilTraining()
	training := s.runs.running(delivery.RunTrain)
	data := s.runs.states[training].Spec.Train.Data
	s.turn()
	if err := s.loop.recheck(s.loop.observed.plan.Proposals[0].Runs, s.now.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if s.runs.states[data] == nil {
		t.Fatal("the images were taken from under a training")
	}
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
}

// A fork's branch cannot be pushed to: the author is told what to do. Once the
// pull request is closed nothing is tried for it any more.
func TestForkIsBlockedAndForgotten(t *testing.T) {
	s, main := begun(t)
	n := s.fork("theirs", "dev", main, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.settle()
	c := s.check(s.forge.head(s.forge.prs[n]), delivery.ContextRelease)
	if c.State != delivery.CheckFailure || !strings.Contains(c.Description, fmt.Sprintf("aob pr adopt %d", n)) {
		t.Errorf("a fork that is ready: %s: %s", c.State, c.Description)
	}
	s.forge.prs[n].closed = true
	s.settle()
	s.now = s.now.Add(time.Hour)
	s.turn()
	s.quiet()
}

// An approval expires a week after it was written, also if it is read again or the ledger is lost.
func TestApprovalExpires(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	n := s.forge.open("first", "stranger")
	s.forge.permission["stranger"] = delivery.PermissionRead
	s.settle()
	_, code, _ := strings.Cut(s.check(s.head("first"), delivery.ContextRelease).Description, "/aob run ")
	s.forge.comment(n, "maintainer", "/aob run "+code)
	s.now = s.now.Add(7 * 24 * time.Hour)
	s.settle()
	s.ledger = newSimLedger(s)
	s.restart()
	s.settle()
	if len(s.runs.states) != 0 {
		t.Fatal("a comment of last week started a run")
	}
	s.want("first", delivery.CheckPending, "/aob run ")
	s.quiet()
	s.forge.comment(n, "maintainer", "/aob run "+code)
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	s.quiet()
}

// A process that dies between posting and recording must not take the earlier post for the present one.
func TestKilledWhilePosting(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	green, head := s.repo.refs[git.Branch+"main"], s.head("first")
	for point := 1; point < 30; point++ {
		// The gate is raised and lowered again while nobody listens.
		s.repo.commit("main", s.main(), s.now, map[string]string{"gates/production.yaml": gateFile("production",
			"shapes", 0.65)})
		s.crashIn = point
		s.turn()
		s.repo.refs[git.Branch+"main"] = green
		s.settle()
		if s.head("first") != head {
			t.Fatalf("killed at effect %d: the head moved", point)
		}
		s.want("first", delivery.CheckSuccess, "version 1")
	}
}

// Case 12: an hour's silence, 429, lost and doubled webhooks, and an API that is
// behind git: the end is the same, and nothing is said twice.
func TestForgeInTrouble(t *testing.T) {
	for name, trouble := range map[string]func(s *sim){
		"down for an hour": func(s *sim) {
			s.forge.down = true
			for range 60 {
				s.now = s.now.Add(time.Minute)
				s.turn()
				s.runs.finishAll()
			}
			s.forge.down = false
		},
		"asks for time": func(s *sim) {
			s.forge.busy = true
			clear(s.forge.asked)
			for range 60 {
				s.turn()
				s.runs.finishAll()
			}
			asked := 0
			for _, n := range s.forge.asked {
				asked += n
			}
			if asked > 200 {
				s.fail("a forge that asks for time was asked %d times in a minute", asked)
			}
			s.forge.busy = false
		},
		"a webhook is lost": func(s *sim) {
			for range 10 {
				s.turn() // its poll finds what nobody told
			}
		},
		"a webhook comes twice": func(s *sim) {
			for range 10 {
				s.wake()
				s.turn()
				s.wake()
				s.turn()
			}
		},
		"behind git": func(s *sim) {
			s.forge.old = s.forge.list()
			s.repo.commit("first", s.head("first"), s.now, map[string]string{"models/shapes.yaml": model("shapes", 14)})
			for range 10 {
				s.wake()
				s.turn()
				s.runs.finishAll()
			}
			s.forge.old = nil
			s.repo.commit("first", s.head("first"), s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
		},
		"ahead of git": func(s *sim) {
			// The list names a commit that is not fetched yet.
			pr := s.forge.list()[0]
			pr.Head = strings.Repeat("ab", 20)
			s.forge.old = []delivery.PullRequest{pr}
			for range 5 {
				s.wake()
				s.turn()
			}
			s.forge.old = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.poll = 5 * time.Second
			s.restart()
			s.propose("first", 8)
			s.untilTraining()
			training := s.runs.running(delivery.RunTrain)
			trouble(s)
			if s.runs.states[training].Phase == delivery.RunStopped {
				t.Error("the training was ended")
			}
			s.settle()
			s.want("first", delivery.CheckSuccess, "version 1", "mAP 0.6000")
			if s.forge.made != 1 {
				t.Errorf("%d comments", s.forge.made)
			}
			s.quiet()
		})
	}
}

// Case 13: what is full or gone in the middle stops what needs it, and nothing
// else; afterwards the end is the same.
func TestPartsThatFailForAWhile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	parts := map[string]func(s *sim, down bool){
		"git":           func(s *sim, down bool) { s.repo.down = down },
		"registry":      func(s *sim, down bool) { s.signed.down = down },
		"ledger":        func(s *sim, down bool) { s.ledger.full = down },
		"desired state": func(s *sim, down bool) { s.fleet.down = down },
		"forge":         func(s *sim, down bool) { s.forge.down = down },
	}
	for name, set := range parts {
		t.Run(name, func(t *testing.T) {
			for from := range 24 { // the turn in which it begins
				s, _ := begun(t)
				s.propose("first", 8)
				for turn := range 40 {
					set(s, turn >= from && turn < from+4)
					s.turn()
					s.runs.finishAll()
					s.fleet.report()
					if head := s.head("first"); head != "" &&
						s.check(head, delivery.ContextRelease).State == delivery.CheckSuccess {
						s.merge("first")
					}
				}
				s.settle()
				if got := s.serving(); got != "1 1 1" || s.forge.made != 1 || len(s.trained) != 1 {
					t.Fatalf("down from turn %d: devices serve %s, %d comments, %d trainings", from, got, s.forge.made,
						len(s.trained))
				}
				s.quiet()
			}
		})
	}
}

// After a downgrade a training that a newer AOB has begun is neither ended nor begun again. Its pull request and the
// status say why nothing is seen of it, and it goes on where the newer AOB is started again.
func TestTrainingOfANewerAOBIsLeftAlone(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.untilTraining()
	training := s.runs.running(delivery.RunTrain)
	s.runs.newer = training
	s.restart()
	const why = "was written by a newer aob: it has format 2, and this aob reads formats up to 1"
	for range 5 {
		s.turn()
		if phase := s.runs.states[training].Phase; phase != delivery.RunRunning || s.runs.ends > 0 {
			t.Fatalf("the training is %s, %d were asked to end", phase, s.runs.ends)
		}
	}
	s.want("first", delivery.CheckFailure, why)
	if pr, err := s.loop.Last().PR(1); err != nil || pr.State != delivery.CheckFailure ||
		!strings.Contains(pr.Text, why) {
		t.Errorf("the status of the pull request is %s %q, %v", pr.State, pr.Text, err)
	}
	noticed := false
	for _, one := range s.loop.turn.Troubles() {
		noticed = noticed || strings.Contains(one.String(), why)
	}
	if !noticed {
		t.Errorf("the troubles are %v", s.loop.turn.Troubles())
	}
	s.runs.newer = ""
	s.restart()
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	if s.trained[training] != 1 || len(s.trained) != 1 {
		t.Errorf("trained %v; want the one that was under way", s.trained)
	}
}

// Case 14: an upgrade retrains nothing, commits nothing again, un-ships nothing.
func TestUpgrade(t *testing.T) {
	upgrade := func(s *sim) {
		s.server.Trainers = tiny(delivery.Sum([]byte("tiny, mended")))
		s.server.Protocol = delivery.Sum([]byte("another protocol"))
		s.server.Numerics = "sim/2"
		s.restart()
	}
	s, _ := begun(t)
	s.released("first", 8)
	s.propose("second", 14)
	s.settle()
	head, trained := s.head("second"), len(s.trained)
	upgrade(s)
	s.settle()
	s.want("second", delivery.CheckSuccess, "version 2")
	if s.head("second") != head || len(s.trained) != trained || s.serving() != "1 1 1" {
		t.Errorf("after the upgrade: head moved %v, %d more trainings, devices serve %s", s.head("second") != head,
			len(s.trained)-trained, s.serving())
	}
	s.merge("second")
	s.settle()
	if got := s.serving(); got != "2 2 2" {
		t.Errorf("devices serve %s, want version 2", got)
	}
	s.quiet()

	// While it trains: what is under way goes on, and is what the spec becomes.
	s.propose("third", 20)
	s.untilTraining()
	training := s.runs.running(delivery.RunTrain)
	s.server.Trainers = tiny(delivery.Sum([]byte("tiny, mended again")))
	s.restart()
	s.turn()
	s.turn()
	if phase := s.runs.states[training].Phase; phase != delivery.RunRunning {
		t.Fatalf("the upgrade left the training %s", phase)
	}
	s.settle()
	s.want("third", delivery.CheckSuccess, "version 3")
	if s.trained[training] != 1 {
		t.Error("another training was taken")
	}
}
