package forge

import (
	"context"
	"net/http"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Kinds are the forges that AOB knows, by their names in the server's configuration.
// A new one is a file of its own and a line here.
var Kinds = map[string]Kind{
	"local": {Connect: connectLocal},
	"gitea": {Connect: connectGitea, Pulls: "refs/pull/",
		TokenHelp: "make an access token for AOB's user in Gitea, and write it there; docs/gitea.md lists its scopes",
		Refusals: map[string]delivery.Blocked{"unverified commit": {
			What: "the server accepts only commits whose signatures it can verify",
			Do: "set commits.signingKey in aob's configuration (see docs/gitea.md), or remove the protection of this " +
				"branch"}}},
	"github": {Connect: connectGitHub, Pulls: "refs/pull/", GitUser: "x-access-token",
		TokenHelp: makeGitHubToken + ", and write it there",
		Refusals: map[string]delivery.Blocked{"must have verified signatures": {
			What: "the repository accepts only commits whose signatures GitHub can verify",
			Do: "set commits.signingKey in aob's configuration (docs/gitea.md, Required signatures), and add the key " +
				"to the account of aob's user as a signing key"}}},
	"gitlab": {Connect: connectGitLab, Pulls: "refs/merge-requests/", GitUser: "oauth2",
		TokenHelp: makeGitLabToken + ", and write it there",
		Refusals: map[string]delivery.Blocked{"Commit must be signed": {
			What: "the project accepts only signed commits",
			Do: "set commits.signingKey in aob's configuration (docs/gitea.md, Required signatures), and add the key " +
				"to the account of aob's user as a signing key"}}},
}

// A Kind is one kind of forge. One without TokenHelp is the bare repository alone: it
// has no address, no token and no webhooks.
type Kind struct {
	Connect func(Settings) (Connection, error)

	// Pulls is the forge's prefix of the refs of pull requests, before NUMBER/head. In AOB,
	// as in [delivery.PullRequest].Ref, they are refs/pull/NUMBER/head.
	Pulls string
	// GitUser is the user name for git fetch with the token; empty if any will do.
	GitUser string
	// TokenHelp is the hint for a missing token.
	TokenHelp string
	// Refusals say why the forge refuses a push, by a text in its answer.
	Refusals map[string]delivery.Blocked
}

// Settings are the forge's settings from the server's configuration.
type Settings struct {
	URL        string        // as https://git.example.com
	Repo       string        // owner/name; on GitLab the project's path or its number
	Token      func() string // called before each request
	App        *App          // of GitHub, in place of a token; nil for none
	Signs      bool          // the forge makes the release commits and signs them
	Hooks      string        // the URL of AOB's webhook; empty if no webhooks are expected
	HookSecret string        // empty if webhooks are not accepted

	// Kept is where a forge keeps what it must know after a restart; nil: nowhere.
	Kept Kept

	Main    string // the target branch
	Signed  Signed // how AOB signs its commits
	Address string // of the repository
	Git     Git
	Rows    interface {
		Rows
		// AddUserComment stores a person's comment on a pull request.
		AddUserComment(ctx context.Context, pr int, author, body string) error
	}
}

// Kept keeps texts by their keys, as the ledger does.
type Kept interface {
	// Kept returns the texts of all keys with a prefix, by key.
	Kept(ctx context.Context, prefix string) (map[string]string, error)
	Keep(ctx context.Context, key, text string) error
}

// A Connection is a forge and its optional features.
type Connection struct {
	Forge Forge

	// Webhook authenticates a request and reads its event. Its errors are those of
	// [Webhook]. It is nil if webhooks are not accepted.
	Webhook func(*http.Request) (Event, error)

	// Details: checks show delivery.CheckDetails.
	Details bool

	// Present returns the address at which git finds the repository now, for its configured one. It is nil if addresses
	// do not change. An error says that another repository has the address.
	Present func(ctx context.Context, address string) (string, error)

	// Spare returns when progress may be posted without using up what verdicts need: now, or later. So many posts wait
	// to be sent before it. It is nil if the forge has no limit.
	Spare func(now time.Time, waiting int) time.Time

	// Queue begins the names of the branches of the forge's merge queue, before MAIN/pr-NUMBER-COMMIT; empty if it has
	// none.
	Queue string

	// Committer makes commits on the forge; nil if AOB pushes its own.
	Committer Committer

	// Deployments shows how far releases have come; nil if the forge has no page for that.
	Deployments Deployments

	// Merge and UserComments are for forges without web pages; nil on others.
	Merge interface {
		Merge(ctx context.Context, number int, head, user string) (commit string, err error)
	}
	UserComments interface {
		AddUserComment(ctx context.Context, pr int, author, body string) error
	}
}

// A Committer makes commits on a forge, which signs them.
type Committer interface {
	// Commit adds files to a branch that is at old, and returns the commit and the hash of its tree. The error is a
	// [delivery.Wait] if the branch is elsewhere.
	Commit(ctx context.Context, branch, old, message string, files map[string][]byte) (commit, tree string, err error)
}

// Deployments is the part of a forge that shows where releases run.
type Deployments interface {
	// Deploy shows a deployment as it is now. Doing so again changes nothing.
	Deploy(ctx context.Context, d delivery.Deployment) error
}

// A Forge hosts pull requests. The package comment describes the methods, and the conformance suite tests every forge.
type Forge interface {
	Address() string
	PullRequests(ctx context.Context) ([]delivery.PullRequest, error)
	Ended(ctx context.Context, pr delivery.PullRequest) (now delivery.PullRequest, ended bool, err error)
	SetStatus(ctx context.Context, commit string, c delivery.Check) error
	Statuses(ctx context.Context, commit string) ([]delivery.Status, error)
	Comment(ctx context.Context, pr int, marker, body string) error
	CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error)
	Commands(ctx context.Context, pr int) ([]delivery.Comment, error)
	Ask(ctx context.Context, pr int, question string) ([]delivery.Consent, error)
	Check(ctx context.Context) (delivery.Setup, error)
	Permission(ctx context.Context, user string) (delivery.Permission, error)
	Teams(ctx context.Context, user string) (map[string]bool, error)
	Owner(ctx context.Context, name string) (problem string, err error)
	OpenPR(ctx context.Context, head, base, title, body string) (number int, err error)
	Knows(ctx context.Context, number int, branch string) (bool, error)
}
