package forge

// This file reads back what AOB said: a forge may lose it, and people may write over it.

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"code.gitea.io/sdk/gitea"

	"github.com/autonomos/aob/reconciler/delivery"
)

const contexts = "aob/" // what AOB's statuses begin with

// Address names the server and the repository.
func (f *Gitea) Address() string { return f.url + "/" + f.owner + "/" + f.repo }

// Statuses returns the newest status of each context under aob/ on a commit.
func (f *Gitea) Statuses(ctx context.Context, commit string) ([]delivery.Status, error) {
	doing := fmt.Sprintf("read the statuses of %.10s", commit)
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	me, _, err := c.GetMyUserInfo()
	if err != nil {
		return nil, f.explain(doing, err)
	}
	combined, _, err := c.GetCombinedStatus(f.owner, f.repo, commit)
	if err != nil || combined == nil {
		return nil, f.explain(doing, err)
	}
	newest := map[string]*gitea.Status{}
	for _, s := range combined.Statuses {
		if s == nil || !strings.HasPrefix(s.Context, contexts) {
			continue
		}
		if old := newest[s.Context]; old == nil || s.ID > old.ID {
			newest[s.Context] = s
		}
	}
	var list []delivery.Status
	for _, s := range newest {
		st := delivery.Status{Check: delivery.Check{Context: s.Context, State: delivery.CheckState(s.State), Description: s.Description, URL: s.TargetURL}}
		if s.Creator != nil {
			st.By, st.Mine = s.Creator.UserName, s.Creator.ID == me.ID
		}
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b delivery.Status) int { return strings.Compare(a.Context, b.Context) })
	return list, nil
}

// CommentBody returns AOB's own comment with a marker as it stands now.
func (f *Gitea) CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error) {
	doing := fmt.Sprintf("read the comments on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return "", false, f.explain(doing, err)
	}
	me, _, err := c.GetMyUserInfo()
	if err != nil {
		return "", false, f.explain(doing, err)
	}
	list, err := f.comments(c, pr)
	if err != nil {
		return "", false, f.explain(doing, err)
	}
	for _, old := range list {
		if body, ok := strings.CutPrefix(old.Body, hidden(marker)); ok && old.Poster != nil && old.Poster.ID == me.ID {
			return body, true, nil
		}
	}
	return "", false, nil
}

// Address names the folder.
func (f *Local) Address() string { return "local" }

// Statuses returns the checks on a commit. Only AOB writes them.
func (f *Local) Statuses(ctx context.Context, commit string) ([]delivery.Status, error) {
	checks, err := f.rows.Checks(ctx, commit)
	if err != nil {
		return nil, err
	}
	list := make([]delivery.Status, 0, len(checks))
	for _, c := range checks {
		list = append(list, delivery.Status{Check: c, Mine: true})
	}
	return list, nil
}

// CommentBody returns the comment with a marker.
func (f *Local) CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error) {
	body, err = f.rows.CommentBody(ctx, pr, marker)
	return body, body != "", err
}
