package git

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	// maxCommits is the maximum number of commits of a branch.
	maxCommits = 1_000_000
	// maxAhead is the maximum number of commits of a head that main does not have. Anybody can open a pull request with
	// a long history.
	maxAhead = 5_000
	// maxCommit is the maximum size of a commit object in bytes.
	maxCommit = 4 << 20
	// maxTree is the maximum size of a tree object in bytes.
	maxTree = 8 << 20
	// maxParents is the maximum number of parents of a commit. The largest merge in Linux has 66.
	maxParents = 100
)

// A commit is the cached part of a commit, which is enough to walk histories.
type commit struct {
	hash     plumbing.Hash
	tree     plumbing.Hash
	parents  []plumbing.Hash
	when     int64 // committer time in Unix seconds
	topsRead bool
	top      [len(folders)]top // valid if topsRead
}

// A top is the entry of an intent folder in a root tree. Mode 0 means that there is none.
type top struct {
	mode uint32
	hash plumbing.Hash
}

// commit returns a commit from the cache, or reads it.
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
	if m.commitsKept += 1 + len(c.parents); m.commitsKept > m.maxKept {
		clear(m.commits) // most belong to old heads; the others are read again
		m.commitsKept = 1 + len(c.parents)
	}
	m.commits[h] = c
	return c, nil
}

// commitsOf returns commits by the hashes that a caller has given.
func (m *Mirror) commitsOf(hashes ...string) ([]*commit, error) {
	list := make([]*commit, len(hashes))
	for i, s := range hashes {
		h, err := hash(s)
		if err != nil {
			return nil, err
		}
		if list[i], err = m.commit(h); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// parent returns a parent of another commit. If it is missing, the mirror is damaged.
func (m *Mirror) parent(h plumbing.Hash) (*commit, error) {
	c, err := m.commit(h)
	if _, wait := err.(delivery.Wait); wait {
		return nil, m.damaged(h, err)
	}
	return c, err
}

// parseCommit parses a commit's headers exactly as git does: the tree, then the parents, then the author and the
// committer. Tree and parent lines in other places are ignored. Without a committer, the commit's time is 0.
func parseCommit(h plumbing.Hash, data []byte) (*commit, error) {
	c := &commit{hash: h}
	line, rest, ok := bytes.Cut(data, []byte("\n"))
	tree, isTree := bytes.CutPrefix(line, []byte("tree "))
	if c.tree, isTree = parseAnyHash(tree, isTree); !ok || !isTree {
		return nil, errors.New("a commit without a tree")
	}
	for {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		parent, isParent := bytes.CutPrefix(line, []byte("parent "))
		if !isParent {
			break
		}
		p, ok := parseAnyHash(parent, ended)
		if !ok {
			return nil, errors.New("a commit's parent is not a hash")
		}
		if len(c.parents) == maxParents {
			return nil, fmt.Errorf("a commit with more than %d parents", maxParents)
		}
		c.parents = append(c.parents, p)
		rest = after
	}
	line, rest, _ = bytes.Cut(rest, []byte("\n"))
	if bytes.HasPrefix(line, []byte("author")) {
		line, _, _ = bytes.Cut(rest, []byte("\n"))
		if committer, ok := bytes.CutPrefix(line, []byte("committer")); ok {
			_, _, when := parsePerson(committer)
			c.when = when.Unix()
		}
	}
	return c, nil
}

// parseAnyHash parses a hash in upper or lower case, as git does.
func parseAnyHash(text []byte, ok bool) (plumbing.Hash, bool) {
	if !ok {
		return plumbing.ZeroHash, false
	}
	return parseHash(strings.ToLower(string(text)))
}

// parsePerson parses "Name <email> seconds zone". Parts that it cannot parse are empty.
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

// maxText is how many bytes of a commit's headers, and of its message, are used.
const maxText = 64 << 10

// maxSubject is the maximum length of a subject in characters.
const maxSubject = 1000

// Subject returns the first line of a commit's message, cut to maxSubject characters.
func (m *Mirror) Subject(commit string) (string, error) {
	_, message, err := m.text(commit)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	return delivery.Cut(strings.TrimSpace(line), maxSubject), nil
}

// TreeHash returns the hash of a commit's tree.
func (m *Mirror) TreeHash(commit string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, err := m.commitsOf(commit)
	if err != nil {
		return "", err
	}
	return list[0].tree.String(), nil
}

// Author returns the author of a commit and the author time.
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

// text returns the first maxText bytes of a commit's headers and of its message, as UTF-8.
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
	headers, body, _ := bytes.Cut(data, []byte("\n\n"))
	headers, body = headers[:min(len(headers), maxText)], body[:min(len(body), maxText)]
	decode := utf8Text
	for line := range bytes.Lines(headers) {
		if name, ok := bytes.CutPrefix(line, []byte("encoding ")); ok {
			decode = decoder(strings.TrimSpace(string(name)))
		}
	}
	return decode(headers), decode(body), nil
}

func utf8Text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// decoder returns a function that decodes text of a commit's encoding. All encodings other
// than Latin-1 are treated as UTF-8.
func decoder(encoding string) func([]byte) string {
	switch strings.ToLower(encoding) {
	case "iso-8859-1", "iso8859-1", "latin1", "latin-1", "iso-8859-15", "iso8859-15", "windows-1252", "cp1252":
	default:
		return utf8Text
	}
	return func(b []byte) string {
		if utf8.Valid(b) {
			return string(b)
		}
		return string(delivery.Each(b, func(c byte) rune { return rune(c) }))
	}
}

// FirstParents returns head, its first parent, that one's first parent, and so on: at most limit commits.
func (m *Mirror) FirstParents(head string, limit int) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	heads, err := m.commitsOf(head)
	if err != nil {
		return nil, err
	}
	var line []string
	for c, err := range m.firstParents(heads[0]) {
		if err != nil {
			return nil, err
		}
		if line = append(line, c.hash.String()); len(line) >= limit {
			break
		}
	}
	return line, nil
}

// firstParents returns a commit, its first parent, and so on. It ends with an error if a parent cannot be read.
func (m *Mirror) firstParents(c *commit) iter.Seq2[*commit, error] {
	return func(yield func(*commit, error) bool) {
		for err := error(nil); yield(c, err) && err == nil && len(c.parents) > 0; {
			c, err = m.parent(c.parents[0])
		}
	}
}

// IsAncestor reports whether a is b or an ancestor of b.
func (m *Mirror) IsAncestor(a, b string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, err := m.commitsOf(a, b)
	if err != nil {
		return false, err
	}
	return m.isAncestor(list[0].hash, list[1].hash)
}

func (m *Mirror) isAncestor(a, b plumbing.Hash) (bool, error) {
	found := false
	err := m.walk(func(c *commit) bool {
		found = found || c.hash == a
		return !found
	}, b)
	return found, err
}

// walk calls visit for heads and their ancestors, once for each commit, in no particular
// order. It does not follow the parents of a commit for which visit returns false.
func (m *Mirror) walk(visit func(*commit) bool, heads ...plumbing.Hash) error {
	err := m.walkAtMost(maxCommits, visit, heads...)
	if errors.Is(err, errTooLong) {
		return delivery.Blockedf("keep intent in a repository of its own", "a branch has more than %d commits",
			maxCommits)
	}
	return err
}

var errTooLong = errors.New("the history is too long")

// walkAtMost is like walk, but returns errTooLong if there are more than limit commits.
func (m *Mirror) walkAtMost(limit int, visit func(*commit) bool, heads ...plumbing.Hash) error {
	visited := map[plumbing.Hash]bool{}
	todo := slices.Clone(heads)
	withinBudget := m.budget()
	for len(todo) > 0 {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if visited[h] {
			continue
		}
		visited[h] = true
		if len(visited) > limit {
			return errTooLong
		}
		if limit <= maxAhead && !withinBudget() {
			return tooBig("the commits of %.10s take more than %d MiB to unpack", heads[0], maxWork>>20)
		}
		c, err := m.parent(h)
		if err != nil {
			return err
		}
		if !visit(c) {
			continue
		}
		for _, p := range c.parents {
			if !visited[p] {
				todo = append(todo, p)
			}
		}
	}
	return nil
}

// ancestors returns heads and their ancestors.
func (m *Mirror) ancestors(heads ...plumbing.Hash) (map[plumbing.Hash]bool, error) {
	all := map[plumbing.Hash]bool{}
	err := m.walk(func(c *commit) bool {
		all[c.hash] = true
		return true
	}, heads...)
	return all, err
}

// MergeBases returns all merge bases (best common ancestors) of a head and a branch such as main, newest first: the
// commits that `git merge-base --all` prints. The list is empty if the histories have no common commit. The error is a
// TreeError if the head has more than maxAhead commits that the branch does not have.
func (m *Mirror) MergeBases(head, branch string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, err := m.commitsOf(head, branch)
	if err != nil {
		return nil, err
	}
	bases, err := m.mergeBases(list[0].hash, list[1].hash)
	if err != nil {
		return nil, err
	}
	return delivery.Each(bases, func(c *commit) string { return c.hash.String() }), nil
}

// aheadOf returns the commits that head has and branch does not have, and the first common commit on each path from
// head. The error is a TreeError if there are more than maxAhead commits.
func (m *Mirror) aheadOf(head, branch plumbing.Hash) (ahead, common []*commit, err error) {
	if m.reached == nil || m.reachedFrom != branch { // usually main, which is compared with every head
		reached, err := m.ancestors(branch)
		if err != nil {
			return nil, nil, err
		}
		m.reached, m.reachedFrom = reached, branch
	}
	err = m.walkAtMost(maxAhead, func(c *commit) bool {
		if m.reached[c.hash] {
			common = append(common, c)
			return false
		}
		ahead = append(ahead, c)
		return true
	}, head)
	if errors.Is(err, errTooLong) {
		err = tooManyChanges("%.10s has more than %d commits that main does not have", head, maxAhead)
	}
	return ahead, common, err
}

// tooManyChanges returns the TreeError of a head with too many commits or changes.
func tooManyChanges(format string, args ...any) error {
	return TreeError{delivery.Blockedf("make a new branch from main with the same changes in fewer commits", format,
		args...), true}
}

// mergeBases returns the merge bases, newest first. It does not use the commits' dates to find them, because dates can
// be forged.
func (m *Mirror) mergeBases(head, branch plumbing.Hash) ([]*commit, error) {
	_, bases, err := m.aheadOf(head, branch) // every merge base is among the first common commits
	if err != nil || len(bases) < 2 {
		return bases, err
	}
	// Remove those that are ancestors of another one.
	var parents []plumbing.Hash
	for _, c := range bases {
		parents = append(parents, c.parents...)
	}
	ancestors, err := m.ancestors(parents...)
	if err != nil {
		return nil, err
	}
	bases = slices.DeleteFunc(bases, func(c *commit) bool { return ancestors[c.hash] })
	slices.SortFunc(bases, newest)
	return bases, nil
}

func newest(a, b *commit) int {
	return cmp.Or(cmp.Compare(b.when, a.when), bytes.Compare(a.hash[:], b.hash[:]))
}
