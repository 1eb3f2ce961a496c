package git

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/intent"
)

// Branch is the prefix of a branch's ref, and Pull that of a pull request's, which
// ends in /head. A remote that calls those otherwise says so in [Remote].Pulls.
const (
	Branch = "refs/heads/"
	Pull   = "refs/pull/"
)

// MaxBlob is the size in bytes of the largest blob that is read. Larger blobs stay on the
// remote; a larger intent file is invalid.
const MaxBlob = intent.MaxFileSize

// ErrMoved means that compare-and-swap failed: the ref is not at the old commit any more.
var ErrMoved = errors.New("the ref has moved in the meantime")

// ErrTooBig means that a blob, or the content of a commit, exceeds a limit.
var ErrTooBig = errors.New("the file is too large")

// A TreeError means that one commit cannot be read because of its content: an object is malformed or too large, or
// there are too many files. Other commits can be read. The message is for the people who pushed the commit.
type TreeError struct {
	delivery.Blocked
	TooBig bool // a limit is exceeded; the error is then also ErrTooBig
}

// Unwrap returns the Blocked, and ErrTooBig if a limit is exceeded.
func (e TreeError) Unwrap() []error {
	if e.TooBig {
		return []error{e.Blocked, ErrTooBig}
	}
	return []error{e.Blocked}
}

// at adds the commit to the message.
func (e TreeError) at(commit plumbing.Hash) TreeError {
	e.What = fmt.Sprintf("%s, at commit %.10s", e.What, commit)
	return e
}

// tooBig returns a TreeError about something that exceeds a limit.
func tooBig(format string, args ...any) error {
	return TreeError{delivery.Blockedf("remove it from the branch's history", format, args...), true}
}

// A Mirror is an open mirror of a repository.
type Mirror struct {
	dir    string
	remote *remote
	lock   *durable.Lock

	net sync.Mutex // one Observe at a time; taken before mu

	mu           sync.Mutex // protects all fields below; not locked while waiting for the network
	own          *store
	folder       *store // objects of a remote that is a local folder, else nil
	observed     bool
	observedRefs map[string]plumbing.Hash
	refs         map[string]string           // observedRefs as text; immutable
	unreadable   map[string]delivery.Blocked // refs that the last Observe could not read, and why
	head         string                      // target of the remote's HEAD; empty if it is not a symbolic ref
	lastState    *folderState                // result of the last observeFolder
	refFiles     map[string]refFile          // loose refs that observeFolder has read
	refused      map[plumbing.Hash]string    // commits of refs that exceed a limit, and which
	fetchAlone   map[plumbing.Hash]bool      // commits to fetch one by one, because together they took too long
	committer    Committer
	broken       error                  // not nil: the mirror is damaged, and the next Observe clones it again
	reclonedFor  map[plumbing.Hash]bool // unreadable objects for which the mirror was cloned again
	failed       map[plumbing.Hash]failure
	openPulls    map[string]bool     // refs of open pull requests; nil: all are open
	pullPacks    map[string][]string // packs fetched only for pull requests, with the heads
	baseSize     int64               // bytes of packs after the last clone, without pullPacks

	commits     map[plumbing.Hash]*commit
	maxKept     int                         // limit of commitsKept
	commitsKept int                         // commits and parent hashes in commits
	known       map[plumbing.Hash]knownFile // the last listed file of each blob
	lists       map[listKey]list
	listed      int                     // files in lists
	treeErrors  map[plumbing.Hash]error // errors of commits whose files cannot be read
	histories   map[historyKey]map[string][]FileVersion
	changes     [len(folders)]map[plumbing.Hash][]change
	fileChanged [len(folders)]map[plumbing.Hash][]FileChange // with what was before, of some of those in changes

	changesKept int // commits and changes in changes

	reached     map[plumbing.Hash]bool // all commits reachable from reachedFrom
	reachedFrom plumbing.Hash
	before      map[string]entry // entries of a folder by name, see entriesBefore
	beforeOf    plumbing.Hash
}

// Open opens the mirror in dir, and creates the folder if needed. It does not contact the remote: until the first
// Observe, a new mirror is empty, and an existing one has the state of its last Observe. A damaged mirror is emptied.
func Open(dir string, r Remote) (*Mirror, error) {
	rem, err := newRemote(r)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := durable.TryLock(filepath.Join(dir, lockName))
	if errors.Is(err, durable.ErrLocked) {
		return nil, delivery.Blockedf("stop the other aob, or give this one another folder", "the mirror %s is in use",
			dir)
	}
	if err != nil {
		return nil, err
	}
	m := &Mirror{dir: dir, remote: rem, lock: lock, reclonedFor: map[plumbing.Hash]bool{},
		committer: Committer{Name: delivery.CommitName, Email: delivery.CommitEmail}}
	if err := m.open(); err != nil {
		lock.Unlock()
		return nil, err
	}
	return m, nil
}

// Close releases the folder. It waits for a running Observe.
func (m *Mirror) Close() error {
	m.net.Lock()
	defer m.net.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own.close()
	if m.folder != nil {
		m.folder.close()
	}
	m.remote.close()
	return m.lock.Unlock()
}

const lockName = "aob.lock"

// config returns the content of the mirror's config file. If the file differs, the mirror
// is of another repository or of another version of aob.
func (m *Mirror) config() string {
	return fmt.Sprintf("[core]\n\trepositoryformatversion = 0\n\tbare = true\n[remote \"origin\"]\n\turl = "+
		"%s\n[aob]\n\tmirror = 1\n", strconv.Quote(m.remote.url))
}

func (m *Mirror) open() error {
	text, err := os.ReadFile(filepath.Join(m.dir, "config"))
	switch {
	case err == nil && string(text) == m.config():
		for _, name := range []string{newDir, oldDir} {
			if err := os.RemoveAll(filepath.Join(m.dir, name)); err != nil {
				return err
			}
		}
		if m.load() == nil {
			return nil
		}
	case err == nil && bytes.Contains(text, []byte("[aob]\n\tmirror")):
	case err == nil || errors.Is(err, fs.ErrNotExist):
		entries, err := os.ReadDir(m.dir)
		if err != nil {
			return err
		}
		if len(entries) > 1 {
			return delivery.Blockedf("give another folder, or empty this one",
				"the folder %s contains files that are not a mirror of aob", m.dir)
		}
	default:
		return err
	}
	return m.clear()
}

// load opens the existing mirror in the folder. An error means that it is damaged.
func (m *Mirror) load() error {
	m.reset()
	if err := m.own.verify(); err != nil {
		return err
	}
	if err := m.own.load(); err != nil {
		return err
	}
	refs, err := readPacked(filepath.Join(m.dir, packedRefs))
	if err != nil {
		return err
	}
	for name, h := range refs {
		if !m.own.has(h) && strings.HasPrefix(name, Branch) {
			return fmt.Errorf("%s: %w", name, errMissing)
		}
	}
	m.setRefs(refs)
	m.readPacks()
	return nil
}

// clear empties the folder and creates an empty mirror in it.
func (m *Mirror) clear() error {
	if m.own != nil {
		m.own.close()
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	// The config is removed last, because without it the folder is not recognized as a mirror after a crash.
	for _, config := range []bool{false, true} {
		for _, e := range entries {
			if e.Name() != lockName && (e.Name() == "config") == config {
				if err := os.RemoveAll(filepath.Join(m.dir, e.Name())); err != nil {
					return err
				}
			}
		}
	}
	if err := durable.WriteFile(filepath.Join(m.dir, "config"), []byte(m.config()), 0o600); err != nil {
		return err
	}
	for _, dir := range []string{"objects/pack", "refs"} {
		if err := os.MkdirAll(filepath.Join(m.dir, filepath.FromSlash(dir)), 0o700); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(m.dir, "HEAD"), []byte("ref: refs/heads/main\n"), 0o600); err != nil {
		return err
	}
	m.reset()
	return nil
}

// reset clears all state in memory.
func (m *Mirror) reset() {
	m.own = newStore(m.dir, false)
	if m.remote.folder != "" && m.folder == nil {
		m.folder = newStore(m.remote.folder, true)
	}
	m.observed, m.broken = false, nil
	m.unreadable, m.head, m.lastState, m.refFiles = nil, "", nil, nil
	m.setRefs(nil)
	m.refused = map[plumbing.Hash]string{}
	m.fetchAlone = map[plumbing.Hash]bool{}
	m.failed = map[plumbing.Hash]failure{}
	m.pullPacks, m.baseSize = map[string][]string{}, 0
	m.commits, m.maxKept, m.commitsKept = map[plumbing.Hash]*commit{}, 2*maxCommits, 0
	m.reached = nil
	m.lists, m.known = map[listKey]list{}, map[plumbing.Hash]knownFile{}
	m.listed = 0
	m.treeErrors = map[plumbing.Hash]error{}
	m.histories = map[historyKey]map[string][]FileVersion{}
	m.changesKept = 0
	for i := range m.changes {
		m.changes[i] = map[plumbing.Hash][]change{}
		m.fileChanged[i] = map[plumbing.Hash][]FileChange{}
	}
}

// setRefs replaces the refs.
func (m *Mirror) setRefs(refs map[string]plumbing.Hash) {
	m.observedRefs = refs
	m.refs = make(map[string]string, len(refs))
	for name, h := range refs {
		m.refs[name] = h.String()
	}
}

// Refs returns the refs of the last Observe. The caller must not change the map.
func (m *Mirror) Refs() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refs
}

// Unreadable returns the refs that the last Observe could not read, and why. They still
// exist, so their pull requests must not be treated as closed. The key packed-refs stands
// for refs whose names are unknown too. The caller must not change the map.
func (m *Mirror) Unreadable() map[string]delivery.Blocked {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unreadable
}

// Missing returns why the last Observe did not return a ref: the ref cannot be read or does
// not exist. It returns nil if the ref was returned, or if the repository is empty.
func (m *Mirror) Missing(ref string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.refs[ref]; ok {
		return nil
	}
	for _, name := range []string{ref, packedRefs} {
		if b, ok := m.unreadable[name]; ok {
			return m.remote.explain("read", b)
		}
	}
	branch := strings.TrimPrefix(ref, Branch)
	var others []string
	for _, name := range slices.Sorted(maps.Keys(m.refs)) {
		if other, ok := strings.CutPrefix(name, Branch); ok {
			others = append(others, other)
		}
	}
	head := strings.TrimPrefix(m.head, Branch)
	switch {
	case len(others) == 0 && len(m.unreadable) == 0:
		return nil
	case head != "" && head != branch:
		return delivery.Blockedf(fmt.Sprintf("write `main: %s` into the server's configuration, or push the branch %s",
			head, branch), "%s has no branch %s; HEAD names %s", m.remote.url, branch, head)
	}
	if len(others) > 3 {
		others = append(others[:3], "others")
	}
	return delivery.Blockedf("push it, or write the right name as `main` into the server's configuration",
		"%s has no branch %s; it has %s", m.remote.url, branch, strings.Join(others, ", "))
}

// Has returns nil if the mirror has the commit. Otherwise the error is Wait (it was not
// fetched yet) or Blocked (it exceeds a limit).
func (m *Mirror) Has(commit string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.commitsOf(commit)
	return err
}

// read reads a commit or tree from the mirror or from a local remote.
func (m *Mirror) read(t plumbing.ObjectType, h plumbing.Hash) ([]byte, error) {
	limit := int64(maxTree)
	if t == plumbing.CommitObject {
		limit = maxCommit
	}
	data, err := m.own.read(t, h, limit)
	if errors.Is(err, errMissing) && m.folder != nil {
		data, err = m.folder.read(t, h, limit)
	}
	switch {
	case err == nil:
		delete(m.reclonedFor, h)
		return data, nil
	case m.refused[h] != "":
		return nil, tooBig("commit %.10s needs %s", h, m.refused[h])
	case errors.Is(err, ErrTooBig):
		return nil, tooBig("the %s %.10s has more than %d MiB", t, h, limit>>20)
	case errors.Is(err, errKind):
		return nil, malformed(h, fmt.Errorf("it is not a %s", t))
	case errors.Is(err, errMissing) && t == plumbing.CommitObject:
		return nil, delivery.Wait{For: 2 * time.Second,
			What: fmt.Sprintf("commit %.10s was not fetched from the repository yet", h)}
	}
	return nil, m.damaged(h, err)
}

// malformed returns a TreeError about an object that git would not create. Cloning again
// would not help, because it was pushed like that.
func malformed(h plumbing.Hash, err error) error {
	return TreeError{Blocked: delivery.Blockedf("remove it from the branch's history; `git fsck` finds it",
		"object %.10s of the repository is malformed: %v", h, err)}
}

// damaged returns the error of an object that must exist and cannot be read. The first time,
// it makes the next Observe clone the mirror again.
func (m *Mirror) damaged(h plumbing.Hash, err error) error {
	if m.folder != nil && len(m.folder.problems) > 0 {
		err = fmt.Errorf("%w; %s", err, m.folder.problems[0])
	}
	if m.folder != nil || m.reclonedFor[h] {
		return delivery.Blockedf("run `git fsck` there", "the repository %s is damaged at %.10s: %v", m.remote.url, h,
			err)
	}
	m.reclonedFor[h] = true
	m.broken = fmt.Errorf("the mirror %s is damaged at %.10s, and will be cloned again: %w", m.dir, h, err)
	return m.broken
}

// maxWork is how many bytes may be unpacked to read the files, or the commits, of one head.
const maxWork = 1 << 30

// budget returns a function that reports whether at most maxWork bytes were unpacked since the call of budget.
func (m *Mirror) budget() func() bool {
	unpacked := func() int64 {
		work := m.own.cache.work
		if m.folder != nil {
			work += m.folder.cache.work
		}
		return work
	}
	start := unpacked()
	return func() bool { return unpacked()-start <= maxWork }
}

// hash parses a hash given by a caller.
func hash(s string) (plumbing.Hash, error) {
	h, ok := parseHash(s)
	if !ok {
		return h, fmt.Errorf("%q is not the hash of a commit or file: want 40 hexadecimal digits", s)
	}
	return h, nil
}

func parseHash(s string) (plumbing.Hash, bool) {
	if !plumbing.IsHash(s) || strings.ToLower(s) != s {
		return plumbing.ZeroHash, false
	}
	return plumbing.NewHash(s), true
}
