package forge

// This file takes the buttons that people press on check runs. GitHub tells of them by webhooks alone, so they are kept
// before the webhook is answered.

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v88/github"

	"github.com/autonomos/aob/reconciler/delivery"
)

// pressedBy is how the author of an order by a button is known; see [delivery.Comment].
const pressedBy = "GitHub says who pressed the button"

// maxPresses is how many presses are kept for one commit.
const maxPresses = 100

// Limits of buttons on GitHub.
const (
	maxButtons = 3
	maxLabel   = 20 // characters of a label, and of an identifier
	maxAbout   = 40 // characters of a description
)

// A press is a button that somebody has pressed on a commit's check run.
type press struct {
	ID    string    `json:"id"` // of the webhook: the same if GitHub sends it again
	By    string    `json:"by"`
	Order string    `json:"order"`
	At    time.Time `json:"at"`
}

// A checkRunEvent is a webhook about a check run or all of a commit. GitHub calls them check_run and check_suite.
type checkRunEvent struct {
	Action   string
	CheckRun struct {
		HeadSHA string `json:"head_sha"`
		App     struct{ ID int64 }
	} `json:"check_run"`
	CheckSuite struct { // of check_suite, which GitHub sends for Re-run all
		HeadSHA string `json:"head_sha"`
		App     struct{ ID int64 }
	} `json:"check_suite"`
	RequestedAction struct{ Identifier string } `json:"requested_action"`
	Repository      struct {
		ID       int64
		FullName string `json:"full_name"`
	}
	Sender struct{ Login, Type string }
}

// Shapes of what webhooks contain.
var (
	deliveryID = regexp.MustCompile(`^[0-9A-Za-z-]{8,64}$`)
	commitHash = regexp.MustCompile(`^[0-9a-f]{40,64}$`)
	gitHubUser = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{0,38}$`)
)

// GitHub's own button Re-run is as good as AOB's Run again.
const (
	rerequested  = "rerequested"
	recheckOrder = "/aob recheck"
)

// pressOf returns the press that a webhook tells of, with the order of Re-run or none, the commit, and the button's
// identifier. ok is false for another event, and for a press that is not about AOB's own check runs of this repository.
func (f *GitHub) pressOf(h http.Header, body []byte, now time.Time) (p press, commit, button string, ok bool) {
	var e checkRunEvent
	kind := h.Get("X-GitHub-Event")
	if f.app == nil || kind != "check_run" && kind != "check_suite" || json.Unmarshal(body, &e) != nil {
		return p, "", "", false
	}
	if kind == "check_suite" {
		if e.Action != rerequested {
			return p, "", "", false
		}
		e.CheckRun.HeadSHA, e.CheckRun.App = e.CheckSuite.HeadSHA, e.CheckSuite.App
	}
	if e.Action != "requested_action" && e.Action != rerequested || e.CheckRun.App.ID != f.app.ID ||
		!f.is(e.Repository.ID, e.Repository.FullName) {
		return p, "", "", false
	}
	p = press{ID: h.Get("X-GitHub-Delivery"), By: e.Sender.Login, At: now}
	if e.Action == rerequested {
		p.Order = recheckOrder
	}
	return p, e.CheckRun.HeadSHA, e.RequestedAction.Identifier, e.Sender.Type == "User" &&
		deliveryID.MatchString(p.ID) && gitHubUser.MatchString(p.By) && commitHash.MatchString(e.CheckRun.HeadSHA)
}

// is reports whether a repository is AOB's.
func (f *GitHub) is(id int64, fullName string) bool {
	f.identity.mu.Lock()
	defer f.identity.mu.Unlock()
	if f.identity.repo.ID != 0 {
		return f.identity.repo.ID == id
	}
	return strings.EqualFold(fullName, f.name())
}

// keys begins the keys of what is kept about a commit.
func (f *GitHub) keys(kind, commit string) string {
	return fmt.Sprintf("%s/%s/%s/", kind, delivery.DigestOf("forge", f.Address()).Short(), commit)
}

// buttonsOf returns the buttons of a check run. GitHub takes short identifiers, so what a button orders is kept.
func (f *GitHub) buttonsOf(ctx context.Context, commit string, d *delivery.CheckDetails) (list []*github.CheckRunAction,
	err error) {
	if d == nil || f.kept == nil || len(d.Buttons) == 0 {
		return nil, nil
	}
	prefix := f.keys("button", commit)
	old, err := f.kept.Kept(ctx, prefix)
	if err != nil {
		return nil, err
	}
	for _, b := range d.Buttons[:min(len(d.Buttons), maxButtons)] {
		id := delivery.Sum([]byte(b.Order)).Hex()[:maxLabel]
		if old[prefix+id] != b.Order {
			if err := f.kept.Keep(ctx, prefix+id, b.Order); err != nil {
				return nil, err
			}
		}
		list = append(list, &github.CheckRunAction{Label: delivery.Cut(b.Label, maxLabel),
			Description: delivery.Cut(cmp.Or(b.About, b.Label), maxAbout), Identifier: id})
	}
	return list, nil
}

// keepPress keeps the press that a webhook tells of, if it tells of one.
func (f *GitHub) keepPress(ctx context.Context, h http.Header, body []byte) error {
	p, commit, button, ok := f.pressOf(h, body, time.Now().UTC())
	if !ok {
		return nil
	}
	if f.kept == nil {
		return errors.New("a pressed button cannot be kept: there is no ledger")
	}
	if p.Order == "" {
		buttons, err := f.kept.Kept(ctx, f.keys("button", commit))
		if err != nil {
			return err
		}
		if p.Order = buttons[f.keys("button", commit)+button]; p.Order == "" {
			return nil // a button of another server, or none of AOB's
		}
	}
	prefix := f.keys("press", commit)
	old, err := f.kept.Kept(ctx, prefix)
	if err != nil {
		return err
	}
	if _, again := old[prefix+p.ID]; again || len(old) >= maxPresses {
		return nil
	}
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return f.kept.Keep(ctx, prefix+p.ID, string(text))
}

// presses returns the orders by buttons on the present head of a pull request, oldest first. Presses on an earlier head
// count for nothing.
func (f *GitHub) presses(ctx context.Context, pr int) (list []delivery.Comment, err error) {
	f.mu.Lock()
	head := f.heads[pr]
	f.mu.Unlock()
	if f.app == nil || f.kept == nil || head == "" {
		return nil, nil
	}
	kept, err := f.kept.Kept(ctx, f.keys("press", head))
	if err != nil {
		return nil, err
	}
	for _, text := range kept {
		var p press
		if json.Unmarshal([]byte(text), &p) == nil {
			list = append(list, delivery.Comment{ID: idOf(p.ID), Author: p.By, Body: p.Order, At: p.At,
				VerifiedBy: pressedBy})
		}
	}
	slices.SortFunc(list, func(a, b delivery.Comment) int { return a.At.Compare(b.At) })
	return list, nil
}

// idOf is a negative id: it is no comment's.
func idOf(id string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id))
	return -int64(h.Sum64()>>1) - 1
}
