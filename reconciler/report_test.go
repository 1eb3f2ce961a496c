package reconciler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// AOB is killed at any point of a rollout: main's commit still gets the final rollout status.
func TestRolloutStatusIsPostedAfterACrash(t *testing.T) {
	for point := 1; ; point++ {
		s, _ := begun(t)
		s.propose("first", 8)
		s.settle()
		merged := s.merge("first")
		s.crashIn = point
		s.settle()
		if c := s.check(merged, delivery.ContextRollout+"demo"); c.State != delivery.CheckSuccess {
			t.Errorf("killed at effect %d: the rollout's check is %+v", point, c)
		}
		if s.crashIn > 0 {
			return // it was over before
		}
	}
}

// The ledger is lost. The status of a rollout is posted again, also if it has ended by then. A commit that moves no
// fleet still gets no rollout status.
func TestRolloutStatusIsPostedWithoutTheLedger(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 8)
	s.settle()
	merged := s.merge("first")
	s.settle()
	s.forge.statuses[merged][delivery.ContextRollout+"demo"] = delivery.Check{Context: delivery.ContextRollout + "demo",
		State: delivery.CheckPending}
	s.ledger = newSimLedger(s)
	s.restart()
	s.settle()
	if c := s.check(merged, delivery.ContextRollout+"demo"); c.State != delivery.CheckSuccess {
		t.Errorf("without the ledger the rollout's check is %+v", c)
	}
	words := s.repo.commit("main", merged, s.now, map[string]string{"models/README.md": "words"})
	s.settle()
	s.restart()
	s.settle()
	if c, told := s.forge.statuses[words][delivery.ContextRollout+"demo"]; told {
		t.Errorf("a commit that moves no fleet has %+v", c)
	}
}

// A rollout's status has texts from devices. New texts every second do not make new statuses every second, but a change
// of the rollout is posted at once.
func TestDeviceTextsArePostedWithPauses(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	context := delivery.ContextRollout + "demo"
	said := map[string]bool{}
	s.loop.board.Progress = 5 * time.Second
	device := &s.fleet.devices[0]
	for i := range 200 {
		device.Report.Phase, device.Report.Blocked = delivery.DeviceDownloading, fmt.Sprintf("word %d", i)
		device.LastHeard = s.now
		s.wake()
		s.turn()
		said[s.check(s.main(), context).Description] = true
	}
	if len(said) > 30 {
		t.Errorf("%d statuses in 200 seconds", len(said))
	}
}

// AOB writes its comment again when somebody takes something out of it, whatever stands in its place.
func TestEditedCommentIsWrittenAgain(t *testing.T) {
	s := barred(t)
	s.pushMain(map[string]string{"gates/production.yaml": gateFile("production", "shapes", 0.01)})
	s.propose("worse", 2)
	s.settle()
	n := s.forge.open("worse", "dev")
	said := s.forge.comments[n]
	if len(said) < 300 {
		t.Fatalf("the comment is too short to take something out: %q", said)
	}
	for name, edited := range map[string]string{
		"a part is taken out":    said[:150] + "…" + said[len(said)-100:],
		"the end is taken":       said[:200] + "…",
		"one word is changed":    strings.Replace(said, "AOB", "A0B", 1),
		"something stands at it": said + "\nall is well",
	} {
		s.forge.comments[n] = edited
		for range 3 {
			s.now = s.now.Add(3 * time.Minute)
			s.wake()
			s.settle()
		}
		if s.forge.comments[n] != said {
			t.Errorf("%s: the edited comment stands:\n%s", name, s.forge.comments[n])
			s.forge.comments[n] = said
		}
	}
}

// A status links to the images that got worse by its gate, or else to the pull request, which has AOB's comment.
func TestStatusesLinkToTheEvidence(t *testing.T) {
	pr := plan.ProposalReport{PR: delivery.PullRequest{URL: "https://git.example.com/a/b/pulls/3"},
		Models: []plan.ModelReport{{Links: []plan.Link{{Gate: "production", Path: "/pictures/0a/",
			URL: "https://aob.example.com/pictures/0a/"}, {Gate: "night", Path: "/pictures/0b/"}}}}}
	for context, want := range map[string]string{
		"aob/gate/production": "https://aob.example.com/pictures/0a/",
		"aob/gate/night":      "https://git.example.com/a/b/pulls/3", // the server's address is not known
		"aob/release":         "https://git.example.com/a/b/pulls/3",
	} {
		if got := evidenceOf(pr, context); got != want {
			t.Errorf("%s links to %s, want %s", context, got, want)
		}
	}
}
