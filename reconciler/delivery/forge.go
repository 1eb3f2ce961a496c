package delivery

import "time"

// A PullRequest is an open proposal on a forge.
type PullRequest struct {
	Number  int       `json:"number"`
	Title   string    `json:"title"`
	Author  string    `json:"author"`
	Head    string    `json:"head"`    // commit
	HeadRef string    `json:"headRef"` // branch, without refs/heads/
	Base    string    `json:"base"`    // target branch
	Fork    bool      `json:"fork"`    // the branch lives in another repository
	Draft   bool      `json:"draft"`
	URL     string    `json:"url,omitempty"`
	Updated time.Time `json:"updated,omitzero"`
	// Created tells two pull requests with one number apart: a restored forge gives numbers again.
	Created time.Time `json:"created,omitzero"`
	// Unreadable says why the head cannot be read; empty where it can. Only this pull request is affected.
	Unreadable string `json:"unreadable,omitempty"`
	// Merged is the forge's word that the pull request has been merged, by whatever method.
	Merged bool `json:"merged,omitempty"`
}

// A Comment is what a person wrote on a pull request.
type Comment struct {
	ID     int64     `json:"id"`
	Author string    `json:"author"`
	Body   string    `json:"body"`
	At     time.Time `json:"at,omitzero"`
}

// Permission is what a user may do, by the forge's own word.
type Permission string

// The permissions.
const (
	PermissionNone  Permission = "none"
	PermissionRead  Permission = "read"
	PermissionWrite Permission = "write" // write, maintain, admin, owner
)

// The author of AOB's own commits.
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
