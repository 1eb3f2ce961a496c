package reconciler

// Stories of people without write permission who ask for very much.

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/poll"
)

// many are so many models, each with a gate.
func many(from, n int) map[string]string {
	files := map[string]string{}
	for i := from; i < from+n; i++ {
		name := fmt.Sprintf("m%d", i)
		files["models/"+name+".yaml"] = model(name, 2)
		files["gates/"+name+".yaml"] = gateFile(name, name, 0.1)
	}
	return files
}

// The work for a stranger's pull request is bounded. A check says so, and others go on.
func TestLargePullRequestOfAStrangerDoesNotStopOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	for name, change := range map[string]func(s *sim) map[string]string{
		"many models": func(s *sim) map[string]string { return many(1000, 500) },
		"large files": func(s *sim) map[string]string {
			files := map[string]string{}
			for i := range 10 {
				files[fmt.Sprintf("models/x%d.yaml", i)] = strings.Repeat(fmt.Sprintf("a%d: [[]]\n", i), 5000)
			}
			return files
		},
		"everything removed": func(s *sim) map[string]string {
			s.pushMain(many(0, 100))
			files := many(0, 100)
			for path := range files {
				files[path] = ""
			}
			return files
		},
		"a change of all": func(s *sim) map[string]string {
			s.pushMain(many(0, 100))
			files := many(0, 100)
			for path, text := range files {
				files[path] = "# x\n" + text
			}
			return files
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.forge.permission["eve"] = delivery.PermissionRead
			files := change(s)
			n := s.fork("theirs", "eve", s.main(), files)
			s.propose("first", 8)
			s.settle()
			s.want("first", delivery.CheckSuccess, "version 1")
			head := s.forge.head(s.forge.prs[n])
			c := s.check(head, delivery.ContextIntent)
			if c.State != delivery.CheckFailure || !strings.Contains(c.Description, "without write permission") ||
				!strings.Contains(c.Description, fmt.Sprintf("aob pr adopt %d", n)) {
				t.Errorf("aob/intent: %s: %s", c.State, c.Description)
			}
			if s.loop.commits.Has(head) {
				t.Error("its files were read")
			}
			s.quiet()
			if name == "many models" {
				return // to judge them takes a while
			}
			// The same of somebody with write permission is judged.
			s.forge.permission["eve"] = delivery.PermissionWrite
			s.now = s.now.Add(poll.PermissionStands)
			s.wake()
			s.settle()
			if c := s.check(head, delivery.ContextIntent); strings.Contains(c.Description, "without write permission") {
				t.Errorf("of a writer: aob/intent: %s: %s", c.State, c.Description)
			}
		})
	}
}

// Many pull requests of strangers share one bound. An ordinary one is judged beside them, and those that came too late
// are once the others are closed.
func TestStrangersPullRequestsShareABound(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	s, main := begun(t)
	var heads []string
	for i := range 10 {
		author := fmt.Sprintf("eve%d", i)
		s.forge.permission[author] = delivery.PermissionRead
		n := s.fork(author, author, main, many(100*i, 60))
		heads = append(heads, s.forge.head(s.forge.prs[n]))
	}
	late := heads[len(heads)-1]
	s.forge.permission["kim"] = delivery.PermissionRead
	ordinary := s.fork("fine", "kim", main, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.propose("first", 14)
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	if c := s.check(s.forge.head(s.forge.prs[ordinary]), delivery.ContextRelease); c.State != delivery.CheckPending ||
		!strings.Contains(c.Description, "/aob run") {
		t.Errorf("an ordinary pull request of a stranger: %s: %s", c.State, c.Description)
	}
	read := 0
	for _, head := range heads {
		if s.loop.commits.Has(head) {
			read++
		}
	}
	if c := s.check(late, delivery.ContextIntent); read > 4 || !strings.Contains(c.Description, "close some of them") {
		t.Errorf("%d of 10 were read; the last says %s", read, c.Description)
	}
	for n := range maps.Clone(s.forge.prs) {
		if p := s.forge.prs[n]; strings.HasPrefix(p.Author, "eve") && p.Author != "eve9" {
			p.closed = true
		}
	}
	s.settle()
	if c := s.check(late, delivery.ContextIntent); c.State != delivery.CheckSuccess {
		t.Errorf("once the others are closed: %s: %s", c.State, c.Description)
	}
}

// One stranger with many large pull requests does not use up what all strangers share: one of everybody comes first.
func TestOneStrangerDoesNotUseUpTheShareOfAll(t *testing.T) {
	s, main := begun(t)
	for _, author := range []string{"eve", "kim"} {
		s.forge.permission[author] = delivery.PermissionRead
	}
	for i := range 8 {
		s.fork(fmt.Sprintf("eve-%d", i), "eve", main, many(100*i, 60))
	}
	head := s.forge.head(s.forge.prs[s.fork("large", "kim", main, many(2000, 60))])
	s.settle()
	if c := s.check(head, delivery.ContextIntent); c.State != delivery.CheckSuccess {
		t.Errorf("of somebody else: %s: %s", c.State, c.Description)
	}
}

// Large pull requests, of however many people, leave room for small ones, and for one that somebody gave a go.
func TestLargePullRequestsLeaveRoomForSmallOnes(t *testing.T) {
	for _, c := range []struct {
		name          string
		others, files int // pull requests of other people, and the models in each
	}{
		{"that use the large budget up exactly", 4, 64},
		{"of many people", 12, 40},
		{"that are small themselves", 40, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, main := begun(t)
			for i := range c.others {
				author := fmt.Sprintf("eve%d", i)
				s.forge.permission[author] = delivery.PermissionRead
				s.fork(author, author, main, many(100*i, c.files))
			}
			s.forge.permission["kim"] = delivery.PermissionRead
			n := s.fork("fine", "kim", main, map[string]string{"models/shapes.yaml": model("shapes", 8)})
			s.settle()
			head := s.forge.head(s.forge.prs[n])
			if c := s.check(head, delivery.ContextIntent); c.State != delivery.CheckSuccess {
				t.Errorf("aob/intent of an ordinary pull request: %s: %s", c.State, c.Description)
			}
			if c := s.check(head, delivery.ContextRelease); c.State != delivery.CheckPending ||
				!strings.Contains(c.Description, "/aob run") {
				t.Errorf("aob/release of an ordinary pull request: %s: %s", c.State, c.Description)
			}
		})
	}
}

// A large approved pull request keeps its place when smaller ones are opened later.
func TestApprovedPullRequestKeepsItsPlace(t *testing.T) {
	s, main := begun(t)
	s.forge.permission["kim"] = delivery.PermissionRead
	files := map[string]string{"models/shapes.yaml": model("shapes", 8)}
	for i := range 4 {
		name := fmt.Sprintf("large%d", i)
		files["gates/"+name+".yaml"] = gateFile(name, "shapes", 0.1) + strings.Repeat("# note\n", 8_000)
	}
	n := s.fork("large", "kim", main, files)
	s.settle()
	head := s.forge.head(s.forge.prs[n])
	_, code, _ := strings.Cut(s.check(head, delivery.ContextRelease).Description, "/aob run ")
	s.forge.comment(n, "maintainer", "/aob run "+code)
	s.settle()
	for i := range 8 {
		author := fmt.Sprintf("eve%d", i)
		s.forge.permission[author] = delivery.PermissionRead
		s.fork(author, author, main, many(100*i, 45))
	}
	s.settle()
	if c := s.check(head, delivery.ContextIntent); c.State != delivery.CheckSuccess {
		t.Errorf("aob/intent: %s: %s", c.State, c.Description)
	}
}
