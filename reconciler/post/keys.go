package post

import (
	"fmt"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
)

// statusKey and commentKey are the ledger's keys of posts. They contain the forge, and when a pull request was created:
// another forge, or one that was restored from a backup, uses the same numbers again.
func (b *Board) statusKey(commit, context string) string {
	return fmt.Sprintf(statusKeys+"%s/%s/%s", b.address(), commit, context)
}

// statusKeys is the prefix of the keys of statuses.
const statusKeys = "status/"

func (b *Board) commentKey(pr delivery.PullRequest) string {
	key := fmt.Sprintf("comment/%s/%d", b.address(), pr.Number)
	if !pr.Created.IsZero() {
		key += fmt.Sprintf("-%d", pr.Created.Unix())
	}
	return key
}

func (b *Board) forgedKey(commit, context string) string {
	return fmt.Sprintf("forged/%s/%s/%s", b.address(), commit, context)
}

// address returns a short name of the forge. It is cached, because each key contains it.
func (b *Board) address() string {
	if now := b.API.Address(); b.addressOf != now || b.short == "" {
		b.addressOf, b.short = now, ledger.OfForge(now)
	}
	return b.short
}
