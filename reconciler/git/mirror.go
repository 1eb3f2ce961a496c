package git

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"time"
)

// Branch is the prefix of a branch's ref, Pull that of a pull request's, whose
// ref is Pull + number + "/head".
const (
	Branch = "refs/heads/"
	Pull   = "refs/pull/"
)

// MaxBlob is the largest file that is ever read, in bytes. An intent file is a
// thousandth of it.
const MaxBlob = 1 << 20

// ErrMoved means that the ref is not where the caller thought: look again.
var ErrMoved = errors.New("the ref has moved meanwhile")

// ErrTooBig means that a blob is larger than asked for.
var ErrTooBig = errors.New("the file is too large")

// A Remote says where the repository is, and how to be let in.
type Remote struct {
	URL       string                      // http(s) address without user, or a folder of this machine
	Auth      func() (user, token string) // asked before each request; nil is nobody
	Transport http.RoundTripper           // nil is one of the mirror's own
}

// A Mirror is an open copy of a repository.
type Mirror struct{}

// Open opens the mirror in dir, and makes the folder if it is not there. It
// does not ask the remote anything: until the first Observe a new mirror is
// empty, and an old one has what it had.
func Open(dir string, remote Remote) (*Mirror, error) { panic("not written yet") }

// Close gives the folder back.
func (m *Mirror) Close() error { panic("not written yet") }

// Observe asks the remote for its branches and pull requests, brings what is
// new, and returns the commit of each by the ref's full name, as
// refs/heads/main and refs/pull/7/head. changed says whether any differs from
// what the last call returned; the first call's answer is always a change. A
// ref whose content is too large to bring is left out: Has says why.
func (m *Mirror) Observe(ctx context.Context) (refs map[string]string, changed bool, err error) {
	panic("not written yet")
}

// Refs returns what the last Observe returned, without asking.
func (m *Mirror) Refs() map[string]string { panic("not written yet") }

// Has returns nil if the commit is here. Otherwise the error is Wait (not seen
// yet) or Blocked (seen, and too large to bring).
func (m *Mirror) Has(commit string) error { panic("not written yet") }

// A File is an entry of one of the intent folders.
type File struct {
	Path string      // from the repository's root, as models/pallets.yaml
	Mode fs.FileMode // regular; fs.ModeSymlink; fs.ModeDir for a submodule; fs.ModeIrregular for what git does not allow
	Hash string      // of the blob; the same hash is the same content
	Size int64       // bytes; -1 is too large, and left on the remote
}

// Files returns what lies in models/, gates/ and fleets/ at a commit, folders
// in folders included, sorted by path. It reads what differs from what was
// read before. The caller must not change the slice.
func (m *Mirror) Files(commit string) ([]File, error) { panic("not written yet") }

// Blob returns a file's content. It is ErrTooBig, and nothing is read, if the
// file has more than limit bytes.
func (m *Mirror) Blob(hash string, limit int64) ([]byte, error) { panic("not written yet") }

// A FileVersion is one content that a file has had.
type FileVersion struct {
	Commit string    // that brought it
	Parent string    // its first parent; empty for a root
	Blob   string    // empty where the commit removed the file
	When   time.Time // of the commit
}

// History returns the versions of an intent file in the history of head,
// newest first, removals included. All parents are followed; a commit counts
// where the file differs from the one in its first parent, so a merge counts
// for what it brought to its branch.
func (m *Mirror) History(head, path string) ([]FileVersion, error) { panic("not written yet") }

// MergeBase returns the best common ancestor of two commits, or "" if they have
// none. Of several equally good ones it returns the newest.
func (m *Mirror) MergeBase(a, b string) (string, error) { panic("not written yet") }

// IsAncestor reports whether a is b or lies in its history.
func (m *Mirror) IsAncestor(a, b string) (bool, error) { panic("not written yet") }

// FirstParents returns head, its first parent, and so on, at most limit.
func (m *Mirror) FirstParents(head string, limit int) ([]string, error) { panic("not written yet") }

// Subject returns the first line of a commit's message.
func (m *Mirror) Subject(commit string) (string, error) { panic("not written yet") }

// Author returns who wrote a commit, and when.
func (m *Mirror) Author(commit string) (name, email string, when time.Time, err error) {
	panic("not written yet")
}

// An Author is who a commit says has written it.
type Author struct {
	Name, Email string
	When        time.Time // to the second
}

// Commit makes a commit in the mirror and returns its hash; the remote does not
// know of it before Push. Its tree is the first parent's with files changed: a
// nil content removes the file. Equal input makes the same commit.
func (m *Mirror) Commit(parents []string, files map[string][]byte, author Author, message string) (hash string, err error) {
	panic("not written yet")
}

// Merge makes a merge commit of head into base, of which head must be a
// descendant, and returns its hash. Its tree is head's.
func (m *Mirror) Merge(base, head string, name, email string, when time.Time, message string) (hash string, err error) {
	panic("not written yet")
}

// Push moves a ref of the remote to a commit, if it is at old: empty means that
// it must not be there. An empty hash removes the ref. Where the ref is
// elsewhere the error is ErrMoved; a repeat of a push that came through is nil.
func (m *Mirror) Push(ctx context.Context, hash, ref, old string) error { panic("not written yet") }
