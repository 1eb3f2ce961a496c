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
	return l.DropPosts(ctx, keys, before, "", 0)
}

// DropPosts is DropRecords, and deletes what the local forge shows on a commit, and AOB's comments on a pull request of
// it; "" and 0 for none. Those of people stay. All of it happens, or nothing: a record is how the rest is found.
func (l *Ledger) DropPosts(ctx context.Context, keys []string, before time.Time, commit string, pr int) error {
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
	if commit != "" {
		if _, err := tx.ExecContext(ctx, "DELETE FROM checks WHERE head = ?", commit); err != nil {
			return l.explain(err)
		}
	}
	if pr != 0 {
		if _, err := tx.ExecContext(ctx, "DELETE FROM comments WHERE pr = ?", pr); err != nil {
			return l.explain(err)
		}
	}
	return l.explain(tx.Commit())
}

// DropClock deletes the state of a fleet's rollout.
func (l *Ledger) DropClock(ctx context.Context, fleet string) error {
	return l.exec(ctx, "DELETE FROM clocks WHERE fleet = ?", fleet)
}

// DropApprovals deletes the approvals that were given before a time.
func (l *Ledger) DropApprovals(ctx context.Context, before time.Time) error {
	return l.exec(ctx, "DELETE FROM gos WHERE at < ?", before.UnixMilli())
}
