package delivery

import (
	"strings"
	"time"
)

// A PullRequest is an open proposal on a forge.
type PullRequest struct {
	Number  int       `json:"number"`
	Title   string    `json:"title"`
	Author  string    `json:"author"`
	Head    string    `json:"head"`    // commit
	HeadRef string    `json:"headRef"` // branch, without refs/heads/
	Base    string    `json:"base"`    // target branch
	Fork    bool      `json:"fork"`    // AOB cannot push to the head: another repository's branch, or no branch
	Draft   bool      `json:"draft"`
	Merged  bool      `json:"merged,omitempty"` // the forge says so
	URL     string    `json:"url,omitempty"`
	Created time.Time `json:"created,omitzero"` // tells two of one number apart: a restored forge gives numbers again
	Updated time.Time `json:"updated,omitzero"`

	// Ref is the ref that the forge itself keeps at the head; empty where it keeps none, and anybody may push one.
	Ref string `json:"ref,omitempty"`
	// ForkOwner is the user or organization that owns the repository of a fork's
	// head. It is empty where that repository is gone, or the head is no branch.
	ForkOwner string `json:"forkOwner,omitempty"`
	// Unreadable says why the head cannot be read, where the forge knows.
	Unreadable string `json:"unreadable,omitempty"`
}

// LimitPermission returns what a pull request's author may cause, given what the author may
// do in the repository. Whoever owns a fork may push to its head at any time, so
// an author who does not own it counts for nothing.
func (p PullRequest) LimitPermission(author Permission) Permission {
	if p.Fork && (p.ForkOwner == "" || !strings.EqualFold(p.ForkOwner, p.Author)) {
		return PermissionNone
	}
	return author
}

// A Comment is what a person wrote on a pull request.
type Comment struct {
	ID     int64     `json:"id"`
	Author string    `json:"author"`
	Body   string    `json:"body"`
	At     time.Time `json:"at,omitzero"`

	// VerifiedBy says how the forge knows that the author wrote exactly this, as "over
	// the server's socket". It is empty where others may have changed the text.
	VerifiedBy string `json:"vouched,omitempty"`
}

// CommandLine returns the line of a comment that is for AOB, or "": the first line
// that is not empty, if it begins with /aob and is not indented as code. Only the
// first line counts, so that nothing that is quoted, shown in a block of code or hidden
// in an HTML comment is an order.
func CommandLine(body string) string {
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, " \t\r\n")
		if strings.TrimSpace(line) == "" {
			continue
		}
		text := strings.TrimLeft(line, " ")
		if word, _, _ := strings.Cut(text, " "); word == "/aob" && len(line)-len(text) < 4 {
			return text
		}
		return ""
	}
	return ""
}

// A Consent is a person's agreement to a question that AOB asked in a comment.
type Consent struct {
	By      string    `json:"by"`
	Comment int64     `json:"comment"` // the id of AOB's comment
	At      time.Time `json:"at"`
}

// Permission is what a user may do, by the forge's own word.
type Permission string

// The permissions.
const (
	PermissionNone  Permission = "none"
	PermissionRead  Permission = "read"
	PermissionWrite Permission = "write" // write, maintain, admin, owner
)

// A Setup is what is wrong with how a forge is set up for AOB.
type Setup struct {
	Problems []string // each a sentence that says what to do
	// Refuses says why the forge refuses to merge a pull request with a commit of AOB's, and what to do; empty where it
	// does not, or where AOB may not see it.
	MergeRefused string
}

// The author of AOB's own commits, where the configuration names no other.
const (
	CommitName  = "aob"
	CommitEmail = "aob@users.noreply.localhost"
)

// CheckState is a commit status's state.
type CheckState string

// The states of a check. Forges without Error show failure.
const (
	CheckPending CheckState = "pending"
	CheckSuccess CheckState = "success"
	CheckFailure CheckState = "failure"
	CheckError   CheckState = "error" // AOB itself could not answer
)

// A Check is one commit status.
type Check struct {
	Context     string     `json:"context"` // as aob/release
	State       CheckState `json:"state"`
	Description string     `json:"description"`
	URL         string     `json:"url,omitempty"`
}

// A Status is a check as it stands on the forge.
type Status struct {
	Check        // the description may be cut
	By    string // the user who set it; empty where the forge does not say
	Mine  bool   // AOB's own user set it
}

// The contexts. A gate's is ContextGate + its name.
const (
	ContextIntent  = "aob/intent"
	ContextData    = "aob/data"
	ContextTrain   = "aob/train"
	ContextEval    = "aob/eval"
	ContextGate    = "aob/gate/"
	ContextRelease = "aob/release"  // the one that branch protection requires
	ContextRollout = "aob/rollout/" // on main's commits, one a fleet
)
