package git

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// maxCommits is how long a history may be that is looked through.
const maxCommits = 1_000_000

// A commit is what is remembered of one: enough to walk histories.
type commit struct {
	hash    plumbing.Hash
	tree    plumbing.Hash
	parents []plumbing.Hash
	when    int64 // seconds; of the committer
	topped  bool
	top     [len(folders)]top // if topped
}

// A top is an intent folder in a root tree; mode 0 is none.
type top struct {
	mode uint32
	hash plumbing.Hash
}

// commit returns a commit, which is read once.
func (m *Mirror) commit(h plumbing.Hash) (*commit, error) {
	if c := m.commits[h]; c != nil {
		return c, nil
	}
	data, err := m.read(plumbing.CommitObject, h)
	if err != nil {
		return nil, err
	}
	c, err := parseCommit(h, data)
	if err != nil {
		return nil, malformed(h, err)
	}
	if len(m.commits) >= maxCommits {
		return nil, delivery.Blockedf("keep intent in a repository of its own", "the repository has more than %d commits", maxCommits)
	}
	m.commits[h] = c
	return c, nil
}

// parent returns the commit that another names as its parent: it must be here.
func (m *Mirror) parent(h plumbing.Hash) (*commit, error) {
	c, err := m.commit(h)
	if _, wait := err.(delivery.Wait); wait {
		return nil, m.damaged(h, err)
	}
	return c, err
}

// parseCommit reads the headers that matter. A signature or an encoding may
// follow them.
func parseCommit(h plumbing.Hash, data []byte) (*commit, error) {
	c := &commit{hash: h}
	for {
		line, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok || len(line) == 0 {
			return nil, fmt.Errorf("a commit without a committer")
		}
		key, value, _ := bytes.Cut(line, []byte(" "))
		switch string(key) {
		case "tree", "parent":
			h, ok := parseHash(string(value))
			if !ok {
				return nil, fmt.Errorf("a commit's %s is no hash", key)
			}
			if string(key) == "tree" {
				c.tree = h
			} else {
				c.parents = append(c.parents, h)
			}
		case "committer":
			_, _, when := parsePerson(value)
			c.when = when.Unix()
			if c.tree.IsZero() {
				return nil, fmt.Errorf("a commit without a tree")
			}
			return c, nil
		}
		data = rest
	}
}

// parsePerson reads "Name <email> seconds zone". What it cannot read is empty.
func parsePerson(line []byte) (name, email string, when time.Time) {
	text := strings.ToValidUTF8(string(line), "\uFFFD")
	open, end := strings.IndexByte(text, '<'), strings.LastIndexByte(text, '>')
	if open < 0 || end < open {
		return strings.TrimSpace(text), "", time.Unix(0, 0).UTC()
	}
	seconds, _, _ := strings.Cut(strings.TrimSpace(text[end+1:]), " ")
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		n = 0
	}
	return strings.TrimSpace(text[:open]), strings.TrimSpace(text[open+1 : end]), time.Unix(n, 0).UTC()
}

// Subject returns the first line of a commit's message.
func (m *Mirror) Subject(commit string) (string, error) {
	_, message, err := m.text(commit)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	return strings.TrimSpace(line), nil
}

// Author returns who wrote a commit, and when.
func (m *Mirror) Author(commit string) (name, email string, when time.Time, err error) {
	head, _, err := m.text(commit)
	if err != nil {
		return "", "", time.Time{}, err
	}
	for line := range strings.Lines(head) {
		if value, ok := strings.CutPrefix(line, "author "); ok {
			name, email, when = parsePerson([]byte(strings.TrimSpace(value)))
			break
		}
	}
	return name, email, when, nil
}

// text returns a commit's headers and message.
func (m *Mirror) text(commit string) (head, message string, err error) {
	h, err := hash(commit)
	if err != nil {
		return "", "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	data, err := m.read(plumbing.CommitObject, h)
	if err != nil {
		return "", "", err
	}
	head, message, _ = strings.Cut(strings.ToValidUTF8(string(data), "\uFFFD"), "\n\n")
	return head, message, nil
}

// FirstParents returns head, its first parent, and so on, at most limit.
func (m *Mirror) FirstParents(head string, limit int) ([]string, error) {
	h, err := hash(head)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	line, err := m.firstParents(h, limit)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(line))
	for i, h := range line {
		names[i] = h.String()
	}
	return names, nil
}

func (m *Mirror) firstParents(h plumbing.Hash, limit int) ([]plumbing.Hash, error) {
	var line []plumbing.Hash
	for len(line) < limit {
		c, err := m.commit(h)
		if len(line) > 0 {
			c, err = m.parent(h)
		}
		if err != nil {
			return nil, err
		}
		line = append(line, h)
		if len(c.parents) == 0 {
			break
		}
		h = c.parents[0]
	}
	return line, nil
}

// IsAncestor reports whether a is b or lies in its history.
func (m *Mirror) IsAncestor(a, b string) (bool, error) {
	ha, err := hash(a)
	if err != nil {
		return false, err
	}
	hb, err := hash(b)
	if err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.commit(ha); err != nil {
		return false, err
	}
	if _, err := m.commit(hb); err != nil {
		return false, err
	}
	return m.isAncestor(ha, hb)
}

func (m *Mirror) isAncestor(a, b plumbing.Hash) (bool, error) {
	found := false
	err := m.walk(func(c *commit) bool {
		found = found || c.hash == a
		return !found
	}, b)
	return found, err
}

// walk visits heads and their histories, each commit once and in no order. It
// does not go beyond a commit for which visit says no.
func (m *Mirror) walk(visit func(*commit) bool, heads ...plumbing.Hash) error {
	seen := map[plumbing.Hash]bool{}
	todo := slices.Clone(heads)
	for len(todo) > 0 {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[h] {
			continue
		}
		seen[h] = true
		c, err := m.parent(h)
		if err != nil {
			return err
		}
		if visit(c) {
			todo = append(todo, c.parents...)
		}
	}
	return nil
}

// MergeBases returns all best common ancestors of two commits, newest first. A
// common ancestor is a best one if it is no ancestor of another common ancestor.
// The list is the one of `git merge-base --all`. It is empty where the two
// histories have nothing in common.
func (m *Mirror) MergeBases(a, b string) ([]string, error) {
	ha, err := hash(a)
	if err != nil {
		return nil, err
	}
	hb, err := hash(b)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range []plumbing.Hash{ha, hb} {
		if _, err := m.commit(h); err != nil {
			return nil, err
		}
	}
	bases, err := m.mergeBases(ha, hb)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(bases))
	for i, c := range bases {
		names[i] = c.hash.String()
	}
	return names, nil
}

// mergeBases returns the best common ancestors, newest first. It does not
// believe the commits' dates.
func (m *Mirror) mergeBases(a, b plumbing.Hash) ([]*commit, error) {
	ofA := map[plumbing.Hash]bool{}
	err := m.walk(func(c *commit) bool {
		ofA[c.hash] = true
		return true
	}, a)
	if err != nil {
		return nil, err
	}
	// A best one lies on a way from b that meets no other common one first.
	var bases []*commit
	err = m.walk(func(c *commit) bool {
		if ofA[c.hash] {
			bases = append(bases, c)
		}
		return !ofA[c.hash]
	}, b)
	if err != nil || len(bases) < 2 {
		return bases, err
	}
	// Another way from b may meet one and go on to the next.
	var parents []plumbing.Hash
	for _, c := range bases {
		parents = append(parents, c.parents...)
	}
	behind := map[plumbing.Hash]bool{}
	err = m.walk(func(c *commit) bool {
		behind[c.hash] = true
		return true
	}, parents...)
	if err != nil {
		return nil, err
	}
	bases = slices.DeleteFunc(bases, func(c *commit) bool { return behind[c.hash] })
	slices.SortFunc(bases, newest)
	return bases, nil
}

func newest(a, b *commit) int {
	return cmp.Or(cmp.Compare(b.when, a.when), bytes.Compare(a.hash[:], b.hash[:]))
}
