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

// Branch is the prefix of a branch's ref, and Pull that of a pull request's,
// which ends in /head.
const (
	Branch = "refs/heads/"
	Pull   = "refs/pull/"
)

// MaxBlob is the largest file that is ever read, in bytes: an intent file that is
// larger is a complaint. Larger files stay on the remote.
const MaxBlob = intent.MaxFileSize

// ErrMoved means that the ref is not where the caller thought: look again.
var ErrMoved = errors.New("the ref has moved meanwhile")

// ErrTooBig means that a file, or what a commit holds, is larger than it may be.
var ErrTooBig = errors.New("the file is too large")

// A TreeError says that one commit cannot be read because of what is in it: an
// object that is malformed or too large, or too many files. Other commits can be
// read. It is for the people who pushed the commit. It is ErrTooBig where there
// is too much.
type TreeError struct {
	delivery.Blocked
	TooBig bool
}

// Unwrap returns the Blocked, and ErrTooBig where there is too much.
func (e TreeError) Unwrap() []error {
	if e.TooBig {
		return []error{e.Blocked, ErrTooBig}
	}
	return []error{e.Blocked}
}

// at says which commit it is about.
func (e TreeError) at(commit plumbing.Hash) TreeError {
	e.What = fmt.Sprintf("%s, at commit %.10s", e.What, commit)
	return e
}

// tooBig makes a TreeError about something that is too large.
func tooBig(format string, args ...any) error {
	return TreeError{delivery.Blockedf("take it out of the branch's history", format, args...), true}
}

// A Mirror is an open copy of a repository.
type Mirror struct {
	dir    string
	remote *remote
	lock   *durable.Lock

	net sync.Mutex // one Observe at a time; taken before mu

	mu           sync.Mutex // guards all below; never held while waiting for the network
	own          *store
	folder       *store // the remote's own objects where it is a folder of this machine, else nil
	observed     bool
	observedRefs map[string]plumbing.Hash
	refs         map[string]string           // observedRefs as text; replaced, never changed
	bad          map[string]delivery.Blocked // refs that the last Observe could not read, and why
	head         string                      // the ref that the remote's HEAD names; empty if it names none
	last         *folderState                // what observeFolder has read last
	refFiles     map[string]refFile          // the loose refs' files as it read them
	refused      map[plumbing.Hash]string    // commits of refs that were too large to bring, and why
	alone        map[plumbing.Hash]bool      // commits that are brought one by one: with others they took too long
	committer    Committer
	broken       error                  // the mirror is damaged: the next Observe clones it again
	blamed       map[plumbing.Hash]bool // objects for which it was
	failed       map[plumbing.Hash]failure
	keep         map[string]bool            // refs of open pull requests; nil: all are
	pulled       map[string][]plumbing.Hash // packs that pull requests alone have brought, and their heads
	base         int64                      // bytes of packs when it was cloned, without those

	commits   map[plumbing.Hash]*commit
	room      int // how many of them and of their parents are kept
	kept      int
	lists     map[listKey]*list
	latest    [len(folders)]*list      // of each folder, the one asked for last
	listed    int                      // files in lists
	files     map[plumbing.Hash][]File // by root tree
	filesKept int                      // files in files
	unread    map[plumbing.Hash]error  // commits whose files cannot be read, and why
	histories map[historyKey]map[string][]FileVersion
	changes   [len(folders)]map[plumbing.Hash][]change

	changesKept int // commits and changes in changes

	reached     map[plumbing.Hash]bool // the history of reachedFrom
	reachedFrom plumbing.Hash
}

// Open opens the mirror in dir, and makes the folder if it is not there. It
// asks the remote nothing: until the first Observe a new mirror is empty, and
// an old one has what it had.
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
	m := &Mirror{dir: dir, remote: rem, lock: lock, blamed: map[plumbing.Hash]bool{},
		committer: Committer{Name: delivery.CommitName, Email: delivery.CommitEmail}}
	if err := m.open(); err != nil {
		lock.Unlock()
		return nil, err
	}
	return m, nil
}

// Close gives the folder back.
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

// config is the mirror's config file. A mirror whose file says anything else is
// of another repository, or was made by another aob.
func (m *Mirror) config() string {
	return fmt.Sprintf("[core]\n\trepositoryformatversion = 0\n\tbare = true\n[remote \"origin\"]\n\turl = "+
		"%s\n[aob]\n\tmirror = 1\n", strconv.Quote(m.remote.url))
}

func (m *Mirror) open() error {
	text, err := os.ReadFile(filepath.Join(m.dir, "config"))
	switch {
	case err == nil && string(text) == m.config():
		for _, name := range []string{renewed, replaced} {
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
				"%s holds something else than a mirror of aob's", m.dir)
		}
	default:
		return err
	}
	return m.clear()
}

// load reads what a mirror of this remote has left.
func (m *Mirror) load() error {
	m.forget()
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
		if p, _ := m.own.find(h); p == nil && strings.HasPrefix(name, Branch) {
			return fmt.Errorf("%s: %w", name, errMissing)
		}
	}
	m.setRefs(refs)
	m.readPacks()
	return nil
}

// clear empties the folder and makes an empty mirror in it.
func (m *Mirror) clear() error {
	if m.own != nil {
		m.own.close()
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return err
	}
	// The config goes last: without it the folder would not be taken for ours.
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
	m.forget()
	return nil
}

// forget empties everything that is in memory.
func (m *Mirror) forget() {
	m.own = newStore(m.dir, false)
	if m.remote.folder != "" && m.folder == nil {
		m.folder = newStore(m.remote.folder, true)
	}
	m.observed, m.broken = false, nil
	m.bad, m.head, m.last, m.refFiles = nil, "", nil, nil
	m.setRefs(nil)
	m.refused = map[plumbing.Hash]string{}
	m.alone = map[plumbing.Hash]bool{}
	m.failed = map[plumbing.Hash]failure{}
	m.pulled, m.base = map[string][]plumbing.Hash{}, 0
	m.commits, m.room, m.kept = map[plumbing.Hash]*commit{}, 2*maxCommits, 0
	m.reached = nil
	m.lists = map[listKey]*list{}
	m.latest = [len(folders)]*list{}
	m.files = map[plumbing.Hash][]File{}
	m.listed, m.filesKept = 0, 0
	m.unread = map[plumbing.Hash]error{}
	m.histories = map[historyKey]map[string][]FileVersion{}
	m.changesKept = 0
	for i := range m.changes {
		m.changes[i] = map[plumbing.Hash][]change{}
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

// Refs returns what the last Observe returned, without asking the remote. The
// caller must not change it.
func (m *Mirror) Refs() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refs
}

// Unreadable returns the refs that the last Observe could not read, and why.
// What their pull requests need is not known: it must not be thought closed. The
// key packed-refs stands for refs whose names cannot be read either. The caller
// must not change the map.
func (m *Mirror) Unreadable() map[string]delivery.Blocked {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bad
}

// Missing says why the last Observe did not return a ref: it cannot be read, or
// it is not there. It is nil if the ref was returned, and where the repository
// is empty: then nothing was pushed yet.
func (m *Mirror) Missing(ref string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.refs[ref]; ok {
		return nil
	}
	for _, name := range []string{ref, packedRefs} {
		if b, ok := m.bad[name]; ok {
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
	case len(others) == 0 && len(m.bad) == 0:
		return nil
	case head != "" && head != branch:
		return delivery.Blockedf(fmt.Sprintf("write `main: %s` into the server's configuration, or push the branch %s",
			head, branch),
			"%s has no branch %s; HEAD names %s", m.remote.url, branch, head)
	}
	if len(others) > 3 {
		others = append(others[:3], "others")
	}
	return delivery.Blockedf("push it, or give the right name as `main` in the server's configuration",
		"%s has no branch %s; it has %s", m.remote.url, branch, strings.Join(others, ", "))
}

// Has returns nil if the commit is here. Otherwise the error is Wait (the
// remote has not shown it yet) or Blocked (it is too large to bring).
func (m *Mirror) Has(commit string) error {
	h, err := hash(commit)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err = m.commit(h)
	return err
}

// read reads a commit or tree, wherever it is.
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
		delete(m.blamed, h)
		return data, nil
	case m.refused[h] != "":
		return nil, tooBig("commit %.10s brings %s", h, m.refused[h])
	case errors.Is(err, ErrTooBig):
		return nil, tooBig("the %s %.10s has more than %d MiB", t, h, limit>>20)
	case errors.Is(err, errKind):
		return nil, malformed(h, fmt.Errorf("it is no %s", t))
	case errors.Is(err, errMissing) && t == plumbing.CommitObject:
		return nil, delivery.Wait{For: 2 * time.Second,
			What: fmt.Sprintf("the repository has not shown commit %.10s yet", h)}
	}
	return nil, m.damaged(h, err)
}

// malformed is about what somebody has pushed and git would not make. It is as
// it came: cloning again would not help.
func malformed(h plumbing.Hash, err error) error {
	return TreeError{Blocked: delivery.Blockedf("take it out of the branch's history; `git fsck` finds it",
		"object %.10s of the repository is malformed: %v", h, err)}
}

// damaged notes that an object which must be here cannot be read. The mirror is
// cloned again for it once.
func (m *Mirror) damaged(h plumbing.Hash, err error) error {
	if m.folder != nil && len(m.folder.lost) > 0 {
		err = fmt.Errorf("%w; %s", err, m.folder.lost[0])
	}
	if m.folder != nil || m.blamed[h] {
		return delivery.Blockedf("run `git fsck` there", "the repository %s is damaged at %.10s: %v", m.remote.url, h,
			err)
	}
	m.blamed[h] = true
	m.broken = fmt.Errorf("the mirror %s is damaged at %.10s, and will be cloned again: %w", m.dir, h, err)
	return m.broken
}

// maxWork is how many bytes are unpacked to read one head of a stranger's: its files, or its commits.
const maxWork = 1 << 30

// budget returns a function that says whether no more than maxWork bytes were unpacked since.
func (m *Mirror) budget() func() bool {
	done := func() int64 {
		work := m.own.cache.work
		if m.folder != nil {
			work += m.folder.cache.work
		}
		return work
	}
	start := done()
	return func() bool { return done()-start <= maxWork }
}

// hash reads a hash that the caller gives.
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
