package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// unsureGate asks for more truths than the test split has, so it is never sure of
// its second check.
const unsureGate = `apiVersion: aob/v1
kind: Gate
name: production
covers: [bccd]
owners: [ada]
evaluate: {dataset: {dir: bccd}, split: test}
classes: [RBC, WBC, Platelets]
checks:
  - {metric: mAP, min: 0.001}
  - {metric: AP, classes: [Platelets], min: 0.01, support: 100000, unsure: review}
`

// small is a model that is trained in seconds.
func small(lr string) map[string]string {
	files := model(1, lr)
	files["models/bccd.yaml"] = strings.Replace(files["models/bccd.yaml"], "resolution: 192", "resolution: 64", 1)
	return files
}

var asksAccept = regexp.MustCompile(`/aob accept ([0-9a-f]+)`)

// On a real forge every writer may edit every comment. An accept and an approval count if the person who may give them
// reacts to AOB's question, and not by what others make of comments.
func TestEditedCommentsDecideNothingOnGitea(t *testing.T) {
	if os.Getenv("AOB_SECURITY") == "" {
		t.Skip("it takes minutes: make test-security")
	}
	files := small("2e-3")
	files["README.md"], files["gates/production.yaml"] = "# What our devices run\n", unsureGate
	m := newTeam(t, files)
	mal := m.gitea.User(t, "mal") // a writer who owns no gate
	m.gitea.Allow(t, m.repo, mal, "write")
	m.startServer(t)

	developer := m.clone(t, m.ben, m.repo)
	commit := developer.push(t, "first", "bccd: a first model", small("1e-3"))
	number := m.open(t, m.ben, "first", commit, "bccd: a first model")
	var code string
	until(t, func() error {
		head, statuses := m.await(t, number, delivery.ContextRelease, "pending", "failure", "error", "success")
		asked := asksAccept.FindStringSubmatch(m.mainComment(t, number))
		if asked == nil {
			return fmt.Errorf("%.10s: the comment names no verdict:%s", head, words(statuses))
		}
		code = asked[1]
		return nil
	})

	attacked := t.Run("edits and reactions of a writer", func(t *testing.T) {
		said := m.gitea.PostComment(t, m.ada, m.repo, number, "Looks nice, I will look at it tomorrow.")
		edits, stop := m.attack(t, mal, number, said.ID, "/aob accept "+code+" because the set is small")
		// AOB asks Ada, as the comment is hers by the forge's word.
		until(t, func() error {
			if len(m.questions(t, number)) == 0 {
				return fmt.Errorf("no question on #%d", number)
			}
			return nil
		})
		until(t, func() error {
			if n := edits.Load(); n < 100 {
				return fmt.Errorf("%d edits and reactions", n)
			}
			return nil
		})
		m.looked(t)
		stop()
		m.looked(t)
		t.Logf("%d edits and reactions", edits.Load())
		if accepts := m.accepts(t); len(accepts) > 0 {
			t.Fatalf("a writer made an accept: %q", accepts)
		}
		_, statuses := m.await(t, number, delivery.ContextRelease, "pending", "failure", "error", "success")
		if got := statuses[delivery.ContextRelease]; got.State != "pending" {
			t.Fatalf("after the attack: %+v", got)
		}
		m.refused(t, number)
	})
	if !attacked {
		t.FailNow()
	}
	t.Run("the reaction of the owner", func(t *testing.T) {
		const because = "the field test of May was good"
		m.gitea.PostComment(t, m.ada, m.repo, number, "/aob accept "+code+" because "+because)
		m.agree(t, m.ada, m.asked(t, number, because))
		m.settled(t, number, "success")
		accepts := m.accepts(t)
		if len(accepts) != 1 || accepts[0].By != m.ada.Name || accepts[0].Because != because ||
			!strings.Contains(accepts[0].How, "👍 to AOB's comment") {
			t.Errorf("the release statements hold %+v", accepts)
		}
	})
	t.Run("approval of a run", func(t *testing.T) {
		theirs := m.clone(t, m.eve, m.gitea.Fork(t, m.eve, m.repo))
		commit := theirs.push(t, "other", "bccd: another rate", small("3e-3"))
		before := m.costs(t)
		fork := m.open(t, m.eve, "eve:other", commit, "bccd: another rate")
		_, statuses := m.await(t, fork, delivery.ContextRelease, "pending")
		m.commented(t, fork, "needs approval")
		asks := waitsForGo.FindStringSubmatch(m.mainComment(t, fork))
		if asks == nil {
			t.Fatalf("nobody is asked for a go:%s", words(statuses))
		}
		m.gitea.PostComment(t, m.eve, m.repo, fork, asks[0])
		m.looked(t)
		if asked := m.questions(t, fork); len(asked) > 0 {
			t.Errorf("a reader made AOB ask: %v", asked)
		}
		m.gitea.PostComment(t, m.ada, m.repo, fork, asks[0])
		question := m.asked(t, fork, asks[1])
		m.agree(t, m.eve, question)
		m.looked(t)
		if after := m.costs(t); after != before {
			t.Errorf("nobody who may has agreed: before %+v, after %+v", before, after)
		}
		m.agree(t, m.ada, question)
		until(t, func() error {
			if after := m.costs(t); after.trainings == before.trainings {
				return fmt.Errorf("no training has started: %+v", after)
			}
			return nil
		})
	})
}

// attack edits a person's comment and all of AOB's, and reacts to them, as fast as
// the API lets a writer, until stop is called. edits counts the calls that succeeded.
func (m *team) attack(t *testing.T, as giteatest.User, number int, comment int64, text string) (edits *atomic.Int64,
	stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	edits = new(atomic.Int64)
	var wg sync.WaitGroup
	wg.Go(func() {
		at := "/repos/" + m.repo.Owner + "/" + m.repo.Name + "/issues"
		do := func(method, path string, in any) {
			if m.gitea.Call(as, method, at+path, in, nil) == nil {
				edits.Add(1)
			}
		}
		for ctx.Err() == nil {
			do("PATCH", fmt.Sprintf("/comments/%d", comment), map[string]string{"body": text})
			var all []giteatest.Comment
			if m.gitea.Call(as, "GET", fmt.Sprintf("%s/%d/comments", at, number), nil, &all) != nil {
				continue
			}
			for _, c := range all {
				if c.Poster.UserName != m.robot.Name {
					continue
				}
				path := fmt.Sprintf("/comments/%d", c.ID)
				do("POST", path+"/reactions", map[string]string{"content": "+1"})
				do("PATCH", path, map[string]string{"body": text})
				do("PATCH", path, map[string]string{"body": c.Body})
			}
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return edits, stop
}

// asked waits until AOB has asked back about a text, and returns its comment.
func (m *team) asked(t *testing.T, number int, about string) (question giteatest.Comment) {
	t.Helper()
	until(t, func() error {
		for _, c := range m.questions(t, number) {
			if strings.Contains(c.Body, about) {
				question = c
				return nil
			}
		}
		return fmt.Errorf("AOB has not asked about %q on #%d", about, number)
	})
	t.Logf("AOB asked on #%d:\n%s", number, question.Body)
	return question
}

// agree reacts to a comment with 👍, after the second in which it was posted.
func (m *team) agree(t *testing.T, as giteatest.User, to giteatest.Comment) {
	t.Helper()
	path := fmt.Sprintf("/issues/comments/%d/reactions", to.ID)
	thumb := map[string]string{"content": "+1"}
	until(t, func() error {
		m.call(t, as, "POST", path, thumb, nil)
		var all []struct {
			User struct {
				Login string `json:"login"`
			} `json:"user"`
			Created time.Time `json:"created_at"`
		}
		m.call(t, m.gitea.Admin, "GET", path, nil, &all)
		for _, r := range all {
			if r.User.Login == as.Name && r.Created.After(to.Created) {
				return nil
			}
		}
		m.call(t, as, "DELETE", path, thumb, nil)
		return fmt.Errorf("the reaction of %s is not younger than the comment", as.Name)
	})
}

// accepts returns what owners accepted, by the release statements in the store.
func (m *team) accepts(t *testing.T) []delivery.Accept {
	t.Helper()
	var found []delivery.Accept
	err := filepath.WalkDir(filepath.Join(m.dir, "state", "bundles"),
		func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			if info, err := e.Info(); err != nil || info.Size() > 1<<20 {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			var envelope struct{ Payload string }
			if json.Unmarshal(data, &envelope) != nil {
				return nil
			}
			payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
			var statement struct {
				Predicate struct {
					Gates []struct{ Accept *delivery.Accept }
				}
			}
			if err != nil || json.Unmarshal(payload, &statement) != nil {
				return nil
			}
			for _, g := range statement.Predicate.Gates {
				if g.Accept != nil {
					found = append(found, *g.Accept)
				}
			}
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
