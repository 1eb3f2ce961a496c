package forge

import (
	"context"
	"net/http"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// MaxDescription is the longest description of a status, in characters. GitHub
// takes no more, and what fits there is short enough everywhere.
const MaxDescription = 140

// MaxComment is the longest comment, in bytes.
const MaxComment = 65_000

// Cut returns s with at most n characters, the last of them an ellipsis where
// it was longer.
func Cut(s string, n int) string { panic("not written yet") }

// An Event says that something happened on the forge. It wakes the loop; its
// fields are for the log alone.
type Event struct {
	Kind   string // as push, pull_request; cut and printable
	Ref    string
	Commit string
}

// Webhook returns a function that checks a request's signature and reads its
// event. It refuses an empty secret. The function's errors are for the answer:
// ErrSignature is 401, others are 400.
func Webhook(secret string) (func(*http.Request) (Event, error), error) { panic("not written yet") }

// A Server is a Gitea repository's address.
type Server struct {
	URL       string            // as https://git.example.com
	Owner     string            // user or organisation
	Repo      string            // name
	Token     func() string     // asked before each request
	Transport http.RoundTripper // nil is one of its own
}

// Gitea is a repository on a Gitea or Forgejo server.
type Gitea struct{}

// NewGitea makes a Gitea. It asks the server nothing.
func NewGitea(s Server) (*Gitea, error) { panic("not written yet") }

// Local is a bare git folder whose branches are proposals.
type Local struct{}

// NewLocal makes a Local whose target branch is main.
func NewLocal(git Git, rows Rows, main string) *Local { panic("not written yet") }

// Git is what a local forge needs of the repository; git.Mirror has it.
type Git interface {
	Observe(ctx context.Context) (refs map[string]string, changed bool, err error)
	Subject(commit string) (string, error)
	Author(commit string) (name, email string, when time.Time, err error)
	IsAncestor(a, b string) (bool, error)
	Merge(base, head string, name, email string, when time.Time, message string) (hash string, err error)
	Push(ctx context.Context, hash, ref, old string) error
}

// Rows is where a local forge keeps what another forge would keep: numbers,
// checks and comments. The ledger has it.
type Rows interface {
	// Number returns the number of a branch's proposal: the next free one when
	// the branch is new, and the same ever after.
	Number(ctx context.Context, branch string) (int, error)
	// PutCheck replaces the check of its context on a commit.
	PutCheck(ctx context.Context, commit string, c delivery.Check) error
	// Checks returns a commit's checks, sorted by context.
	Checks(ctx context.Context, commit string) ([]delivery.Check, error)
	// PutComment replaces the comment with the marker.
	PutComment(ctx context.Context, pr int, marker, body string) error
	// Commands returns what people asked on a proposal, oldest first.
	Commands(ctx context.Context, pr int) ([]delivery.Comment, error)
}

func (f *Gitea) PullRequests(ctx context.Context) ([]delivery.PullRequest, error) {
	panic("not written yet")
}

func (f *Gitea) SetStatus(ctx context.Context, commit string, c delivery.Check) error {
	panic("not written yet")
}

func (f *Gitea) Comment(ctx context.Context, pr int, marker, body string) error {
	panic("not written yet")
}

func (f *Gitea) Commands(ctx context.Context, pr int) ([]delivery.Comment, error) {
	panic("not written yet")
}

func (f *Gitea) Permission(ctx context.Context, user string) (delivery.Permission, error) {
	panic("not written yet")
}

func (f *Gitea) OpenPR(ctx context.Context, head, base, title, body string) (number int, err error) {
	panic("not written yet")
}

func (f *Local) PullRequests(ctx context.Context) ([]delivery.PullRequest, error) {
	panic("not written yet")
}

func (f *Local) SetStatus(ctx context.Context, commit string, c delivery.Check) error {
	panic("not written yet")
}

func (f *Local) Comment(ctx context.Context, pr int, marker, body string) error {
	panic("not written yet")
}

func (f *Local) Commands(ctx context.Context, pr int) ([]delivery.Comment, error) {
	panic("not written yet")
}

func (f *Local) Permission(ctx context.Context, user string) (delivery.Permission, error) {
	panic("not written yet")
}

func (f *Local) OpenPR(ctx context.Context, head, base, title, body string) (number int, err error) {
	panic("not written yet")
}

// Merge merges a proposal into main, if aob/release has passed on its head and
// main lies in its history.
func (f *Local) Merge(ctx context.Context, number int, user string) (commit string, err error) {
	panic("not written yet")
}
