package forge

// This file finds out which comments on GitHub are their authors' own words. Everybody with write permission can edit
// comments there, and the REST API does not say whether that has happened. The GraphQL API does: lastEditedAt.

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// notEdited is how the author of a comment is known; see [delivery.Comment].
const notEdited = "GitHub says that nobody has edited the comment"

// edits remembers what GitHub has said about edits. Its methods may be called from any goroutine.
type edits struct {
	mu     sync.Mutex
	edited map[string]bool    // by node id: an edit stays
	own    map[string]version // by node id: not edited until then
}

// A version is a comment at a time. A later edit changes the time of a comment whose text goes back to what it was.
type version struct {
	text    delivery.Digest
	updated time.Time
}

func versionOf(text string, updated time.Time) version {
	return version{delivery.Sum([]byte(text)), updated}
}

// maxEdits is how many comments are remembered.
const maxEdits = 10_000

// known reports whether a version is known to be its author's, and whether that has to be asked.
func (e *edits) known(id string, v version) (own, ask bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.own[id] == v {
		return true, false
	}
	return false, !e.edited[id]
}

func (e *edits) note(id string, v version, edited bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.edited == nil || len(e.edited)+len(e.own) >= maxEdits {
		e.edited, e.own = map[string]bool{}, map[string]version{}
	}
	if edited {
		e.edited[id] = true
	} else {
		e.own[id] = v
	}
}

// verify sets VerifiedBy of the comments that are their authors' own words. nodes has their ids in the GraphQL API and
// their versions, by id. It asks once for each version.
func (f *GitHub) verify(ctx context.Context, list []delivery.Comment, nodes map[int64]node) error {
	var ask []string
	for _, c := range list {
		if _, unknown := f.edits.known(nodes[c.ID].id, nodes[c.ID].version); unknown {
			ask = append(ask, nodes[c.ID].id)
		}
	}
	var err error
	for len(ask) > 0 && err == nil {
		n := min(len(ask), perPage)
		err = f.askEdits(ctx, ask[:n])
		ask = ask[n:]
	}
	for i, c := range list {
		if own, _ := f.edits.known(nodes[c.ID].id, nodes[c.ID].version); own {
			list[i].VerifiedBy = notEdited
		}
	}
	return err
}

// A node is a comment in the GraphQL API.
type node struct {
	id string
	version
}

// askEdits asks about at most 100 comments.
func (f *GitHub) askEdits(ctx context.Context, ids []string) error {
	const query = "query($ids: [ID!]!) { nodes(ids: $ids) { ... on IssueComment { id body updatedAt lastEditedAt } } }"
	var data struct {
		Nodes []*struct {
			ID           string
			Body         string
			UpdatedAt    time.Time
			LastEditedAt *time.Time
		}
	}
	err := f.graphQL(ctx, query, map[string]any{"ids": ids}, &data)
	if _, some := errors.AsType[*graphQLError](err); err != nil && !(some && len(data.Nodes) > 0) {
		return err
	}
	for _, n := range data.Nodes {
		if n != nil && n.ID != "" {
			f.edits.note(n.ID, versionOf(n.Body, n.UpdatedAt.UTC()), n.LastEditedAt != nil)
		}
	}
	return nil
}
