package reconciler

// Stories of what a go lets run, of what AOB opens in its own name, and of what is said before it is too late.

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/poll"
)

// asked returns the code that a commit's aob/release waits for.
func (s *sim) asked(commit string) string {
	_, code, _ := strings.Cut(s.check(commit, delivery.ContextRelease).Description, "/aob run ")
	return code
}

// An approval covers the gates that the pull request adds: another gate needs another approval. A training that is
// running goes on.
func TestApprovalCoversProposedGates(t *testing.T) {
	own := func(name, set string) map[string]string {
		return map[string]string{"gates/" + name + ".yaml": strings.Replace(gateFile(name, "shapes", 0.1),
			"dir: shapes", "dir: "+set, 1)}
	}
	for name, push := range map[string]map[string]string{
		"another gate":     own("second", "gold"),
		"another eval set": own("first", "silver"),
		"another threshold": {"gates/first.yaml": strings.Replace(own("first", "gold")["gates/first.yaml"], "0.1",
			"0.2", 1)},
		"main's gate": {"gates/production.yaml": onGold(gateFile("production", "shapes", 0.3))},
	} {
		t.Run(name, func(t *testing.T) {
			s, main := begun(t)
			s.forge.permission["stranger"] = delivery.PermissionRead
			n := s.fork("theirs", "stranger", main, with(map[string]string{"models/shapes.yaml": model("shapes", 8)},
				own("first", "gold")))
			ref := fmt.Sprintf("%s%d/head", git.Pull, n)
			s.settle()
			first := s.asked(s.repo.refs[ref])
			s.forge.comment(n, "maintainer", "/aob run "+first)
			s.wake()
			s.untilTraining()
			training, data := s.runs.running(delivery.RunTrain), s.started(delivery.RunData)

			s.repo.refs[ref] = s.repo.write([]string{s.repo.refs[ref]}, s.repo.with(s.repo.refs[ref], push), s.now,
				"other gates")
			for range 200 { // past the grace of a run
				s.turn()
			}
			if phase := s.runs.states[training].Phase; phase != delivery.RunRunning {
				t.Errorf("the training is %s", phase)
			}
			s.settle()
			second := s.asked(s.repo.refs[ref])
			if second == "" || second == first {
				t.Errorf("it waits for a go with code %q, and %q was given", second, first)
			}
			if got := s.started(delivery.RunData) - data + s.started(delivery.RunEval); got != 0 {
				t.Errorf("%d more runs were started without a go", got)
			}
			s.forge.comment(n, "maintainer", "/aob run "+second)
			s.wake()
			s.settle()
			if len(s.trained) != 1 || s.runs.states[training].Attempt > 1 {
				t.Errorf("trained %v, attempt %d", s.trained, s.runs.states[training].Attempt)
			}
		})
	}
}

// A gate that is pushed during a training does not end it, also while the data is checked again.
func TestPushedGateEndsNoTraining(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.forge.open("first", "dev")
	s.untilTraining()
	training, data := s.runs.running(delivery.RunTrain), s.started(delivery.RunData)
	for i := range 4 {
		gate := strings.Replace(gateFile("own", "shapes", 0.1), "dir: shapes", fmt.Sprintf("dir: gold%d", i), 1)
		s.repo.commit("first", s.head("first"), s.now, map[string]string{"gates/own.yaml": gate})
		for range 200 {
			s.turn()
		}
		if phase := s.runs.states[training].Phase; phase != delivery.RunRunning {
			t.Fatalf("push %d: the training is %s", i+1, phase)
		}
	}
	if s.started(delivery.RunData) == data {
		t.Error("no other gate had its data checked")
	}
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	if len(s.trained) != 1 || s.runs.states[training].Attempt > 1 {
		t.Errorf("trained %v, attempt %d", s.trained, s.runs.states[training].Attempt)
	}
}

// Somebody else's branch with the name of AOB's restore branch is left alone.
func TestRestoreLeavesForeignBranchesAlone(t *testing.T) {
	for name, prepare := range prepared {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.released("first", 8)
			bundle := delivery.Sum([]byte("never judged"))
			was := s.signed.last()
			forged := strings.Replace(s.repo.read(s.main(), "models/shapes.release.yaml"), string(was), string(bundle),
				1)
			main := s.repo.commit("main", s.main(), s.now, map[string]string{"models/shapes.release.yaml": forged})
			s.leavesAlone(t, "aob/restore-shapes-"+bundle.Short(), prepare(s, main))
		})
	}
}

// The hint is in the part of a status that forges show.
func TestCrossedHistoryStatusSaysWhatToDo(t *testing.T) {
	s, before, branch := raised(t)
	s.crossing("evil", before, branch, s.note("x"))
	s.settle()
	for _, context := range []string{delivery.ContextIntent, delivery.ContextRelease} {
		if said := delivery.Cut(s.check(s.head("evil"), context).Description, 140); !strings.Contains(said,
			"rebase onto main") || !strings.Contains(said, "history crosses") {
			t.Errorf("%s says %q", context, said)
		}
	}
}

// The comment says that AOB will add a commit, before somebody approves an earlier one.
func TestCommentAnnouncesAOBsCommit(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.untilTraining()
	s.turn()
	if said := s.forge.comments[1]; !strings.Contains(said, "AOB pushes one more commit") ||
		!strings.Contains(said, "Approve after that commit") {
		t.Errorf("the comment says\n%s", said)
	}
}

// A user without write permission who approves a run gets one answer, however often the comment is repeated.
func TestApprovalByReaderIsAnswered(t *testing.T) {
	s, main := begun(t)
	s.forge.permission["stranger"] = delivery.PermissionRead
	n := s.fork("theirs", "stranger", main, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.settle()
	code := s.asked(s.repo.refs[fmt.Sprintf("%s%d/head", git.Pull, n)])
	for range 20 {
		s.forge.comment(n, "stranger", "/aob run "+code)
	}
	for range 2 * int(poll.StatusLasts/time.Second) {
		s.turn()
	}
	const told = "stranger has no write permission here, so that comment does not count"
	if got := strings.Count(s.forge.comments[n], told); got != 1 {
		t.Errorf("it is said %d times in:\n%s", got, s.forge.comments[n])
	}
	if started := s.started(delivery.RunTrain); started > 0 {
		t.Errorf("%d trainings were started", started)
	}
}
