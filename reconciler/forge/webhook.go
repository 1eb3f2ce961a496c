package forge

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// maxWebhook is the largest webhook that is read, in bytes.
const maxWebhook = 1 << 20

// ErrSignature means that a webhook was not signed with the secret.
var ErrSignature = errors.New("the webhook's signature is wrong")

// ErrWebhookTooLarge means that a webhook has more than 1 MiB.
var ErrWebhookTooLarge = errors.New("the webhook is larger than 1 MiB")

// An Event is the content of a webhook, for the log. Its fields are shortened and printable.
type Event struct {
	Kind   string // as push or pull_request; a changed commit status is status on every forge
	Ref    string
	Commit string
}

// Webhook returns a function that checks a request's signature and reads its event. It is for forges that sign with
// HMAC-SHA256, as Gitea, Forgejo and GitHub; others have their own function in their [Connection]. An empty secret is
// an error. The function's errors are ErrSignature (respond with 401), ErrWebhookTooLarge (413), and others (400). A
// signed request with unknown content is an event too.
func Webhook(secret string) (func(*http.Request) (Event, error), error) {
	read, err := signedBody(secret)
	if err != nil {
		return nil, err
	}
	return func(req *http.Request) (Event, error) {
		body, err := read(req)
		if err != nil {
			return Event{}, err
		}
		return event(req.Header, body), nil
	}, nil
}

// signedBody returns a function that reads the content of a webhook that is signed with a secret. See [Webhook].
func signedBody(secret string) (func(*http.Request) ([]byte, error), error) {
	if secret == "" {
		return nil, delivery.Blockedf("give one, the same as in the forge's webhook settings", "webhooks need a secret")
	}
	key := []byte(secret)
	return func(req *http.Request) ([]byte, error) {
		if req.Method != http.MethodPost {
			return nil, fmt.Errorf("a webhook must be a POST, got %s", delivery.PlainText(req.Method, 20))
		}
		given := signature(req.Header)
		if given == nil {
			return nil, ErrSignature // without reading the body
		}
		body, err := webhookBody(req)
		if err != nil {
			return nil, err
		}
		mac := hmac.New(sha256.New, key)
		mac.Write(body)
		if !hmac.Equal(mac.Sum(nil), given) {
			return nil, ErrSignature
		}
		return body, nil
	}, nil
}

// signature returns the first signature in a request's headers. Forges use different headers.
func signature(h http.Header) []byte {
	for _, name := range []string{"X-Gitea-Signature", "X-Forgejo-Signature", "X-Hub-Signature-256"} {
		if text := strings.TrimPrefix(h.Get(name), "sha256="); text != "" {
			sum, err := hex.DecodeString(text)
			if err != nil {
				return nil
			}
			return sum
		}
	}
	return nil
}

func event(h http.Header, body []byte) Event {
	var e Event
	for _, name := range []string{"X-Gitea-Event", "X-Forgejo-Event", "X-GitHub-Event"} {
		if e.Kind = h.Get(name); e.Kind != "" {
			break
		}
	}
	var content struct {
		Ref      string `json:"ref"`
		After    string `json:"after"`
		SHA      string `json:"sha"` // of a status
		Action   string `json:"action"`
		CheckRun struct {
			HeadSHA string `json:"head_sha"`
		} `json:"check_run"`
		CheckSuite struct {
			HeadSHA string `json:"head_sha"`
		} `json:"check_suite"`
		MergeGroup struct {
			HeadRef string `json:"head_ref"`
			HeadSHA string `json:"head_sha"`
		} `json:"merge_group"`
		PullRequest struct {
			Head struct {
				Ref string `json:"ref"`
				SHA string `json:"sha"`
			} `json:"head"`
		} `json:"pull_request"`
	}
	if json.Unmarshal(body, &content) == nil {
		e.Ref = cmp.Or(content.Ref, content.MergeGroup.HeadRef)
		e.Commit = cmp.Or(content.After, content.SHA, content.MergeGroup.HeadSHA)
		if content.Action == "rerequested" { // else AOB itself has changed the check run
			e.Commit = cmp.Or(content.CheckRun.HeadSHA, content.CheckSuite.HeadSHA)
		}
		if head := content.PullRequest.Head; e.Ref == "" && e.Commit == "" {
			e.Ref, e.Commit = head.Ref, head.SHA
		}
	}
	return e.short()
}

// tokenBody returns a function that reads the content of a webhook with a secret in its header X-Gitlab-Token.
func tokenBody(secret string) func(*http.Request) ([]byte, error) {
	want := sha256.Sum256([]byte(secret))
	return func(req *http.Request) ([]byte, error) {
		if req.Method != http.MethodPost {
			return nil, fmt.Errorf("a webhook must be a POST, got %s", delivery.PlainText(req.Method, 20))
		}
		// The sums have one length, so the time tells nothing about the secret's.
		given := sha256.Sum256([]byte(req.Header.Get("X-Gitlab-Token")))
		if !hmac.Equal(given[:], want[:]) {
			return nil, ErrSignature // without reading the body
		}
		return webhookBody(req)
	}
}

// gitLabKinds are the kinds of GitLab's webhooks, by the header X-Gitlab-Event. A status on a commit changes its
// pipeline.
var gitLabKinds = map[string]string{"Push Hook": "push", "Merge Request Hook": "merge_request", "Note Hook": "note",
	"Emoji Hook": "emoji", "Pipeline Hook": "status", "Job Hook": "status"}

// gitLabEvent reads a webhook of GitLab.
func gitLabEvent(h http.Header, body []byte) Event {
	var content struct {
		Ref     string `json:"ref"`
		After   string `json:"after"`
		SHA     string `json:"sha"` // of a job
		Subject struct {
			Ref    string `json:"ref"`
			SHA    string `json:"sha"` // of a pipeline
			Source string `json:"source_branch"`
			Last   struct {
				ID string `json:"id"`
			} `json:"last_commit"` // of a merge request
		} `json:"object_attributes"`
		MergeRequest struct {
			Source string `json:"source_branch"`
			Last   struct {
				ID string `json:"id"`
			} `json:"last_commit"`
		} `json:"merge_request"` // of a note
	}
	kind := h.Get("X-Gitlab-Event")
	e := Event{Kind: cmp.Or(gitLabKinds[kind], kind)}
	if json.Unmarshal(body, &content) == nil {
		of := content.Subject
		e.Ref = cmp.Or(content.Ref, of.Ref, of.Source, content.MergeRequest.Source)
		e.Commit = cmp.Or(content.After, content.SHA, of.SHA, of.Last.ID, content.MergeRequest.Last.ID)
	}
	return e.short()
}

// short returns an event with short and printable fields.
func (e Event) short() Event {
	const long = 100
	return Event{Kind: delivery.Cut(delivery.Terminal(e.Kind), long), Ref: delivery.Cut(delivery.Terminal(e.Ref), long),
		Commit: delivery.Cut(delivery.Terminal(e.Commit), long)}
}

// webhookBody reads the content of a webhook.
func webhookBody(req *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(req.Body, maxWebhook+1))
	if err != nil {
		return nil, fmt.Errorf("read the webhook: %w", err)
	}
	if len(body) > maxWebhook {
		return nil, ErrWebhookTooLarge
	}
	return body, nil
}
