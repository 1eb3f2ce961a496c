package git

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	// maxCommits is how long a history may be that is looked through.
	maxCommits = 1_000_000
	// maxAhead is how many commits a head may have down to those of main. Anybody who opens a pull request may push a
	// long history.
	maxAhead = 5_000
	// maxCommit is how large a commit may be, in bytes: its headers, its message and its signature.
	maxCommit = 4 << 20
	// maxTree is how large the list of names in one folder may be, in bytes.
	maxTree = 8 << 20
	// maxParents is how many parents a commit may have. The largest merge in Linux has 66.
	maxParents = 100
)

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
	if m.kept += 1 + len(c.parents); m.kept > m.room {
		clear(m.commits) // of heads that were pushed and left again; what is needed is read again
		m.kept = 1 + len(c.parents)
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

// parseCommit reads a commit's headers exactly as git reads them: the tree, then
// the parents, then the author and the committer. A tree or a parent that stands
// elsewhere is none. Without a committer, the commit's time is 0.
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
			return nil, errors.New("a commit's parent is no hash")
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

// parseAnyHash reads a hash in letters of either case, as git does.
func parseAnyHash(text []byte, ok bool) (plumbing.Hash, bool) {
	if !ok {
		return plumbing.ZeroHash, false
	}
	return parseHash(strings.ToLower(string(text)))
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

// maxText is how much of a commit's headers, and of its message, is looked at.
const maxText = 64 << 10

// maxSubject is where a subject is cut, in bytes.
const maxSubject = 1000

// Subject returns the first line of a commit's message.
func (m *Mirror) Subject(commit string) (string, error) {
	_, message, err := m.text(commit)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	if len(line) > maxSubject {
		line = strings.ToValidUTF8(line[:maxSubject], "") + "…"
	}
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

// text returns the beginning of a commit's headers and of its message.
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

// decoder returns what reads text in an encoding that a commit names. Others
// than Latin-1 are read as UTF-8.
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
		runes := make([]rune, len(b))
		for i, c := range b {
			runes[i] = rune(c)
		}
		return string(runes)
	}
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
	err := m.walkAtMost(maxCommits, visit, heads...)
	if errors.Is(err, errTooLong) {
		return delivery.Blockedf("keep intent in a repository of its own", "a branch has more than %d commits",
			maxCommits)
	}
	return err
}

var errTooLong = errors.New("the history is too long")

// walkAtMost is walk, and ends with errTooLong where there are more commits than limit.
func (m *Mirror) walkAtMost(limit int, visit func(*commit) bool, heads ...plumbing.Hash) error {
	seen := map[plumbing.Hash]bool{}
	todo := slices.Clone(heads)
	cheap := m.budget()
	for len(todo) > 0 {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[h] {
			continue
		}
		seen[h] = true
		if len(seen) > limit {
			return errTooLong
		}
		if limit <= maxAhead && !cheap() {
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
			if !seen[p] {
				todo = append(todo, p)
			}
		}
	}
	return nil
}

// MergeBases returns all best common ancestors of a head and a branch such as main,
// newest first. A common ancestor is a best one if it is no ancestor of another
// common ancestor. The list is the one of `git merge-base --all`. It is empty where
// the two histories have nothing in common. A head with more than maxAhead commits
// down to those of the branch is refused.
func (m *Mirror) MergeBases(head, branch string) ([]string, error) {
	ha, err := hash(head)
	if err != nil {
		return nil, err
	}
	hb, err := hash(branch)
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
func (m *Mirror) mergeBases(head, branch plumbing.Hash) ([]*commit, error) {
	if m.reached == nil || m.reachedFrom != branch { // mostly main, which is compared with every head
		of := map[plumbing.Hash]bool{}
		err := m.walk(func(c *commit) bool {
			of[c.hash] = true
			return true
		}, branch)
		if err != nil {
			return nil, err
		}
		m.reached, m.reachedFrom = of, branch
	}
	// A best one lies on a way from the head that meets no other common one first.
	var bases []*commit
	err := m.walkAtMost(maxAhead, func(c *commit) bool {
		if m.reached[c.hash] {
			bases = append(bases, c)
		}
		return !m.reached[c.hash]
	}, head)
	if errors.Is(err, errTooLong) {
		return nil, tooFarAhead(head)
	}
	if err != nil || len(bases) < 2 {
		return bases, err
	}
	// Another way from the head may meet one and go on to the next.
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
