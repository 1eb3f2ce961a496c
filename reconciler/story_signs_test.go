package reconciler

// Stories of a forge that makes the release commits itself.

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
)

// simCommitter makes commits on the forge of a simulation.
type simCommitter struct {
	*sim
	calls  int
	before func()            // each call
	adds   map[string]string // files that nobody asked for
}

func (c *simCommitter) Commit(_ context.Context, branch, old, message string, files map[string][]byte) (string, string,
	error) {
	defer c.effect()()
	if c.calls++; c.before != nil {
		c.before()
	}
	if c.head(branch) != old {
		return "", "", delivery.Wait{For: time.Second, What: "the branch has moved meanwhile"}
	}
	text := maps.Clone(c.adds)
	if text == nil {
		text = map[string]string{}
	}
	for path, data := range files {
		text[path] = string(data)
	}
	commit := c.repo.write([]string{old}, c.repo.with(old, text), c.now.Add(time.Second), message)
	c.repo.refs[git.Branch+branch] = commit
	tree, err := c.repo.TreeHash(commit)
	return commit, tree, err
}

// A release commit that the forge makes is judged as AOB's own is, also if AOB dies when it is made, and if somebody
// pushes before.
func TestForgeMakesTheReleaseCommit(t *testing.T) {
	for name, change := range map[string]func(c *simCommitter){
		"as asked": nil,
		"after a push": func(c *simCommitter) {
			c.before = func() {
				c.before = nil
				c.repo.commit("first", c.head("first"), c.now, map[string]string{
					"models/shapes.yaml": "# more\n" + model("shapes", 8)})
			}
		},
		"with a kill afterwards": func(c *simCommitter) {
			c.before = func() {
				if c.calls > 1 {
					t.Error("it is committed twice")
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			c := &simCommitter{sim: s}
			if change != nil {
				change(c)
			}
			s.restart(func(r *Reconciler) { r.Committer = c })
			s.propose("first", 8)
			for i := 0; i < 200 && c.calls == 0; i++ {
				s.turn()
				s.now = s.now.Add(time.Second)
			}
			s.restart(func(r *Reconciler) { r.Committer = c })
			s.settle()
			s.want("first", delivery.CheckSuccess, "version 1")
			if c.calls == 0 {
				t.Error("the forge made no commit")
			}
			s.quiet()
		})
	}
}

// A forge that changes other files too is named, and what it made is judged for what it is.
func TestForgeMakesAnotherCommit(t *testing.T) {
	s, _ := begun(t)
	c := &simCommitter{sim: s, adds: map[string]string{"models/shapes.yaml": model("shapes", 9)}}
	s.restart(func(r *Reconciler) { r.Committer = c })
	s.propose("first", 8)
	s.quality[9] = 0.1
	s.settle()
	s.want("first", delivery.CheckFailure)
}
