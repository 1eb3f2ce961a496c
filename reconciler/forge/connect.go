package forge

import (
	"context"
	"net/http"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Kinds are the forges that AOB knows, by their names in the server's configuration.
// A new one is a file of its own and a line here.
var Kinds = map[string]Kind{
	"local": {Connect: connectLocal},
	"gitea": {Connect: connectGitea, Pulls: "refs/pull/",
		TokenHelp: "make an access token for AOB's user in Gitea, and write it there; docs/gitea.md lists its scopes"},
}

// A Kind is one kind of forge. One without TokenHelp is the bare repository alone: it
// has no address, no token and no webhooks.
type Kind struct {
	Connect func(Settings) (Connection, error)

	// Pulls is how the forge names the refs of pull requests, before NUMBER/head. Inside
	// AOB, and in [delivery.PullRequest].Ref, they are called refs/pull/NUMBER/head.
	Pulls string
	// GitUser is who reads the repository with the token; empty where it does not matter.
	GitUser string
	// TokenHelp says what to do where there is no token.
	TokenHelp string
}

// Settings are what the server's configuration says of its forge.
type Settings struct {
	URL        string        // as https://git.example.com
	Repo       string        // owner/name
	Token      func() string // asked before each request
	Hooks      string        // the address that webhooks must be sent to; empty where none are expected
	HookSecret string        // empty where no webhooks are taken

	Main    string // the target branch
	Signed  Signed // how AOB signs its commits
	Address string // of the repository
	Git     Git
	Rows    interface {
		Rows
		// Ask keeps what a person asks on a proposal.
		Ask(ctx context.Context, pr int, author, body string) error
	}
}

// A Connection is a forge with all that AOB needs of it.
type Connection struct {
	Forge Forge

	// Webhook checks that a request comes from the forge, by whatever the forge offers,
	// and reads what it tells. Its errors are those of [Webhook]. It is nil where no
	// webhooks are taken.
	Webhook func(*http.Request) (Event, error)

	// Merge and Ask do what people do on the pages of other forges; nil there.
	Merge interface {
		Merge(ctx context.Context, number int, head, user string) (commit string, err error)
	}
	Ask interface {
		Ask(ctx context.Context, pr int, author, body string) error
	}
}

// A Forge is where pull requests live; the package comment says what each method
// does, and the conformance suite holds every forge to it.
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
