package post

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
)

// headKeys is the prefix of the ledger's keys of the heads of pull requests on which statuses were posted.
const headKeys = "head/"

func (b *Board) headKey(pr delivery.PullRequest) string {
	return headKeys + strings.TrimPrefix(b.commentKey(pr), commentKeys)
}

// Supersede ends the checks that the last head of a pull request still shows as pending, once it has another head.
// Check runs that never end look as if something still ran. speaks reports whether checks on a commit are about
// something else, such as main or another pull request.
func (b *Board) Supersede(ctx context.Context, pr delivery.PullRequest, speaks func(commit string) bool) error {
	key := b.headKey(pr)
	last, err := b.posted(ctx, key)
	if err != nil || last.Content == pr.Head {
		return err
	}
	if old := last.Content; old != "" && !speaks(old) {
		prefix := b.statusKey(old, "")
		if _, err := b.posted(ctx, prefix+contextPrefix); err != nil {
			return err
		}
		var errs []error
		left := false
		for _, k := range slices.Clone(b.byCommit[prefix]) {
			answer := delivery.Check{Context: strings.TrimPrefix(k, prefix), State: delivery.CheckError,
				Description: fmt.Sprintf("superseded: the pull request is at %.10s now", pr.Head)}
			// The content is empty while a post is being sent or fails.
			if c := b.records[k].Content; c == "" || strings.HasPrefix(c, string(delivery.CheckPending)+" ") {
				errs = append(errs, b.Status(ctx, old, answer))
				left = true
			}
		}
		if left {
			return errors.Join(errs...)
		}
	}
	b.remember(key, ledger.Record{Content: pr.Head, At: b.turn.Now(), Count: last.Count + 1})
	return b.Ledger.PutRecord(ctx, key, pr.Head, b.turn.Now())
}
