package ledger

// This file removes rows that nothing needs any more. The file does not shrink then: later rows take the space.

import (
	"context"
	"time"
)

// A Size says how large a record is.
type Size struct {
	Key   string
	Bytes int64
	At    time.Time // when it was stored last
}

// Sizes returns the sizes of all records whose keys begin with a prefix, by key.
func (l *Ledger) Sizes(ctx context.Context, prefix string) ([]Size, error) {
	var list []Size
	err := l.each(ctx, nil, func(r row) error {
		s := Size{Key: r.text(0)}
		s.Bytes, _ = r.number(1) // a damaged row is old
		at, _ := r.number(2)
		s.At = time.UnixMilli(at).UTC()
		s.Bytes += int64(len(s.Key))
		list = append(list, s)
		return nil
	}, "SELECT key, length(content), at FROM said WHERE key >= ? AND key < ? ORDER BY key", prefix, prefix+"\xff")
	return list, err
}

// DropRecords deletes the records with these keys that were last stored before a time.
func (l *Ledger) DropRecords(ctx context.Context, keys []string, before time.Time) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return l.explain(err)
	}
	defer tx.Rollback() // does nothing after Commit
	for _, key := range keys {
		if _, err := tx.ExecContext(ctx, "DELETE FROM said WHERE key = ? AND at < ?", key,
			before.UnixMilli()); err != nil {
			return l.explain(err)
		}
	}
	return l.explain(tx.Commit())
}

// DropChecks deletes what the local forge shows on a commit.
func (l *Ledger) DropChecks(ctx context.Context, commit string) error {
	return l.exec(ctx, "DELETE FROM checks WHERE head = ?", commit)
}

// DropComments deletes AOB's comments on a pull request of the local forge. Those of people stay.
func (l *Ledger) DropComments(ctx context.Context, pr int) error {
	return l.exec(ctx, "DELETE FROM comments WHERE pr = ?", pr)
}

// DropClock deletes the state of a fleet's rollout.
func (l *Ledger) DropClock(ctx context.Context, fleet string) error {
	return l.exec(ctx, "DELETE FROM clocks WHERE fleet = ?", fleet)
}

// DropApprovals deletes the approvals that were given before a time.
func (l *Ledger) DropApprovals(ctx context.Context, before time.Time) error {
	return l.exec(ctx, "DELETE FROM gos WHERE at < ?", before.UnixMilli())
}
