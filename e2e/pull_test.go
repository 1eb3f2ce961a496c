package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/gitea/giteatest"
)

// A pull is a pull request as the forge shows it.
type pull struct {
	Number int    `json:"number"`
	State  string `json:"state"`
	Merged bool   `json:"merged"`
	Commit string `json:"merge_commit_sha"`
	Head   struct {
		Ref string `json:"ref"`
		SHA string `json:"sha"`
	} `json:"head"`
}

func (m *team) pull(t *testing.T, number int) pull {
	t.Helper()
	var p pull
	m.call(t, m.gitea.Admin, "GET", fmt.Sprintf("/pulls/%d", number), nil, &p)
	return p
}

// open opens a pull request, and logs how long it takes until its head has a
// status.
func (m *team) open(t *testing.T, as giteatest.User, head, commit, title string) int {
	t.Helper()
	began := time.Now()
	number := m.gitea.PullRequest(t, as, m.repo, head, "main", title)
	first := m.firstStatus(t, commit)
	t.Logf("#%d %q by %s: %s after it was opened there was %s", number, title, as.Name, round(time.Since(began)), first)
	return number
}

// firstStatus waits until a commit has a status, by the forge's API. aob/release
// comes first, so that nothing is ever merged for want of it.
func (m *team) firstStatus(t *testing.T, commit string) string {
	t.Helper()
	var there map[string]giteatest.Status
	until(t, func() error {
		if there = m.gitea.Statuses(t, m.repo, commit); len(there) == 0 {
			return fmt.Errorf("no status on %.10s", commit)
		}
		return nil
	})
	if _, ok := there[delivery.ContextRelease]; !ok {
		t.Errorf("%.10s has %v before %s", commit, slices.Sorted(maps.Keys(there)), delivery.ContextRelease)
	}
	return words(there)
}

// words writes statuses a line each.
func words(statuses map[string]giteatest.Status) string {
	var b strings.Builder
	for _, context := range slices.Sorted(maps.Keys(statuses)) {
		fmt.Fprintf(&b, "\n    %s %s: %s", statuses[context].State, context, statuses[context].Description)
	}
	return b.String()
}

// await waits until a context on a pull request's head has one of some states,
// and returns the head with its statuses.
func (m *team) await(t *testing.T, number int, context string, states ...string) (head string,
	statuses map[string]giteatest.Status) {
	t.Helper()
	until(t, func() error {
		if err := m.serve.alive(); err != nil {
			return fatal{err}
		}
		head = m.pull(t, number).Head.SHA
		statuses = m.gitea.Statuses(t, m.repo, head)
		if !slices.Contains(states, statuses[context].State) {
			return fmt.Errorf("#%d: %s on %.10s is not %s:%s", number, context, head, strings.Join(states, " or "),
				words(statuses))
		}
		return nil
	})
	return head, statuses
}

// settled waits until aob/release has answered as it should, and all other
// checks too, and logs what a reviewer sees. aob/release is the first that is
// posted, and aob/intent the last.
func (m *team) settled(t *testing.T, number int, want string) (head string, statuses map[string]giteatest.Status) {
	t.Helper()
	_, statuses = m.await(t, number, delivery.ContextRelease, "success", "failure", "error")
	if got := statuses[delivery.ContextRelease]; got.State != want {
		t.Fatalf("#%d: aob/release is %s, want %s:%s", number, got.State, want, words(statuses))
	}
	until(t, func() error {
		head, statuses = m.await(t, number, delivery.ContextIntent, "success", "failure")
		for context, s := range statuses {
			if s.State == "pending" {
				return fmt.Errorf("#%d: %s is pending: %s", number, context, s.Description)
			}
		}
		return nil
	})
	t.Logf("#%d, %.10s:%s", number, head, words(statuses))
	return head, statuses
}

// said returns every description that a context had on a commit, oldest first.
func (m *team) said(t *testing.T, commit, context string) []string {
	t.Helper()
	var list []string
	for page := 1; ; page++ {
		var statuses []giteatest.Status
		m.call(t, m.gitea.Admin, "GET", fmt.Sprintf("/statuses/%s?sort=oldest&page=%d&limit=50", commit, page), nil,
			&statuses)
		for _, s := range statuses {
			if s.Context == context {
				list = append(list, s.State+": "+s.Description)
			}
		}
		if len(statuses) < 50 {
			return list
		}
	}
}

// refused checks that the forge does not merge a pull request, for want of the
// required status.
func (m *team) refused(t *testing.T, number int) {
	t.Helper()
	until(t, func() error {
		err := m.gitea.Merge(m.ada, m.repo, number)
		switch {
		case err == nil:
			return fatal{fmt.Errorf("#%d was merged", number)}
		case !strings.Contains(err.Error(), "status checks"): // it may still be looking at the push
			return err
		}
		t.Logf("#%d is not merged: %v", number, err)
		return nil
	})
}

// merge merges a pull request through the forge, and returns main's new commit.
func (m *team) merge(t *testing.T, number int) string {
	t.Helper()
	until(t, func() error {
		err := m.gitea.Merge(m.ada, m.repo, number)
		if m.pull(t, number).Merged {
			return nil
		}
		return err
	})
	return m.pull(t, number).Commit
}

// comments returns what aob has said on a pull request, its questions left out.
func (m *team) comments(t *testing.T, number int) []string {
	t.Helper()
	var bodies []string
	for _, c := range m.gitea.Comments(t, m.repo, number) {
		if c.Poster.UserName == m.robot.Name && !strings.HasPrefix(c.Body, question) {
			bodies = append(bodies, c.Body)
		}
	}
	return bodies
}

// mainComment is aob's comment on a pull request, or "".
func (m *team) mainComment(t *testing.T, number int) string {
	t.Helper()
	return strings.Join(m.comments(t, number), "\n")
}

// question is the first line of a comment in which aob asks back.
const question = "<!-- aob:question -->"

// questions returns the comments in which aob asks back.
func (m *team) questions(t *testing.T, number int) []giteatest.Comment {
	t.Helper()
	var list []giteatest.Comment
	for _, c := range m.gitea.Comments(t, m.repo, number) {
		if c.Poster.UserName == m.robot.Name && strings.HasPrefix(c.Body, question) {
			list = append(list, c)
		}
	}
	return list
}

// commented waits until aob's comment on a pull request holds a text. There is
// never a second one.
func (m *team) commented(t *testing.T, number int, text string) {
	t.Helper()
	var bodies []string
	until(t, func() error {
		bodies = m.comments(t, number)
		if len(bodies) > 1 {
			return fatal{fmt.Errorf("aob has made %d comments on #%d:\n%s", len(bodies), number,
				strings.Join(bodies, "\n---\n"))}
		}
		if len(bodies) == 0 || !strings.Contains(bodies[0], text) {
			return fmt.Errorf("the comment on #%d does not say %q: %q", number, text, bodies)
		}
		return nil
	})
	t.Logf("the comment on #%d:\n%s", number, bodies[0])
}
