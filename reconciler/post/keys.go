package post

import (
	"fmt"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
)

// statusKey and commentKey are where the ledger keeps what was posted. They name the forge, and of a pull request when
// it was created: another forge, or one that was restored from a backup, gives the same numbers again.
func (b *Board) statusKey(commit, context string) string {
	return fmt.Sprintf(statusKeys+"%s/%s/%s", b.address(), commit, context)
}

// statusKeys is what the keys of all statuses begin with.
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

// address is a short name of the forge. It stands in each key, so it is made once.
func (b *Board) address() string {
	if now := b.API.Address(); b.addressOf != now || b.short == "" {
		b.addressOf, b.short = now, ledger.OfForge(now)
	}
	return b.short
}
