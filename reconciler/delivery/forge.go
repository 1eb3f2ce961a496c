package delivery

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A PullRequest is an open pull request on a forge.
type PullRequest struct {
	Number  int       `json:"number"`
	Title   string    `json:"title"`
	Author  string    `json:"author"`
	Head    string    `json:"head"`    // commit
	HeadRef string    `json:"headRef"` // branch, without refs/heads/
	Base    string    `json:"base"`    // target branch
	Fork    bool      `json:"fork"`    // AOB cannot push to the head: it is in another repository, or is no branch
	Draft   bool      `json:"draft"`
	Merged  bool      `json:"merged,omitempty"` // by the forge's account
	URL     string    `json:"url,omitempty"`
	Created time.Time `json:"created,omitzero"` // a restored forge may reuse numbers; this tells two apart
	Updated time.Time `json:"updated,omitzero"`

	// Ref is the ref at the head that only the forge can write; empty if there is none.
	Ref string `json:"ref,omitempty"`
	// ForkOwner is the user or organization that owns the head's repository, for a fork. It is empty if that repository
	// is deleted or the head is no branch.
	ForkOwner string `json:"forkOwner,omitempty"`
	// Unreadable says why the head cannot be read; empty if it can, or if the forge does not say.
	Unreadable string `json:"unreadable,omitempty"`
}

// LimitPermission returns the permission that applies to the pull request, given the
// author's permission in the repository. It is none for a fork that the author does not
// own, since the fork's owner may push to its head at any time.
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

	// VerifiedBy says how it is known that the author wrote exactly this text, as in "over the server's socket". It is
	// empty if others may have edited it.
	VerifiedBy string `json:"vouched,omitempty"`
}

// CommandLine returns the command to AOB in a comment, or "". The command is the first
// line that is not blank, if it begins with /aob and is not indented as code. Later lines
// are ignored, so that quotations, code blocks and HTML comments are never commands.
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

// A Consent is a person's approval of a question that AOB posted as a comment.
type Consent struct {
	By      string    `json:"by"`
	Comment int64     `json:"comment"` // the id of AOB's comment
	At      time.Time `json:"at"`
}

// Permission is a user's permission in the repository, as the forge reports it.
type Permission string

// The permissions.
const (
	PermissionNone  Permission = "none"
	PermissionRead  Permission = "read"
	PermissionWrite Permission = "write" // write, maintain, admin, owner
)

// pullReference is #12 as most forges write it, !12, or the Merge 12: of the local one.
var pullReference = regexp.MustCompile(`(?:[#!]|^Merge )([0-9]{1,9})\b`)

// Pulls returns the pull requests that a commit's subject names, as merge commits of forges do.
func Pulls(subject string) []int {
	var list []int
	for _, m := range pullReference.FindAllStringSubmatch(subject, -1) {
		n, _ := strconv.Atoi(m[1]) // nine digits
		list = append(list, n)
	}
	return list
}

// The default author of AOB's commits.
const (
	CommitName  = "aob"
	CommitEmail = "aob@users.noreply.localhost"
)

// CheckState is the state of a commit status.
type CheckState string

// The states of a check. Forges that have no error state show failure.
const (
	CheckPending CheckState = "pending"
	CheckSuccess CheckState = "success"
	CheckFailure CheckState = "failure"
	CheckError   CheckState = "error" // AOB could not determine the result
)

// A Check is one commit status.
type Check struct {
	Context     string     `json:"context"` // as aob/release
	State       CheckState `json:"state"`
	Description string     `json:"description"`
	URL         string     `json:"url,omitempty"`

	// Details is what a forge with check runs shows beside the check; nil for nothing.
	Details *CheckDetails `json:"-"`
}

// CheckDetails is what check runs show beside a check's description.
type CheckDetails struct {
	Summary string      // Markdown
	Notes   []Complaint // shown on the lines of files
	Buttons []Button
}

// Digest identifies the content.
func (d CheckDetails) Digest() Digest { return DigestOf("check details", d) }

// A Button gives AOB an order for the person who presses it, as a comment would.
type Button struct {
	Label string // as Run for about $8
	About string // a few words more
	Order string // as /aob run 3f9c2a10
}

// A Status is a check as the forge shows it.
type Status struct {
	Check        // the description may be shortened
	By    string // the user who set it; empty if the forge does not say
	Mine  bool   // AOB's user set it

	// Details is the Digest of the details that it was posted with; empty if the forge keeps none.
	Details Digest
}

// The contexts. A gate's is ContextGate + its name; a fleet's is ContextRollout + its name.
const (
	ContextIntent  = "aob/intent"
	ContextData    = "aob/data"
	ContextTrain   = "aob/train"
	ContextEval    = "aob/eval"
	ContextGate    = "aob/gate/"
	ContextVariant = "aob/variant/"
	ContextRelease = "aob/release"  // required by branch protection
	ContextRollout = "aob/rollout/" // on commits of main
)
