package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/autonomos/aob/reconciler/delivery"
)

// This file stores the checks and comments of the local forge, which has no server.

// Number returns the number of a branch's pull request. A new branch gets the next free number above the one that used
// returns. Later calls return the same number and do not call used.
func (l *Ledger) Number(ctx context.Context, branch string, used func() (int, error)) (int, error) {
	for {
		var n int
		err := l.db.QueryRowContext(ctx, "SELECT number FROM numbers WHERE branch = ?", branch).Scan(&n)
		if err != sql.ErrNoRows {
			return n, l.explain(err)
		}
		// INSERT OR IGNORE would use up a number each time.
		above, err := used()
		if err != nil {
			return 0, err
		}
		if err := l.exec(ctx, `INSERT INTO numbers (number, branch)
			SELECT MAX(?, COALESCE((SELECT seq FROM sqlite_sequence WHERE name = 'numbers'), 0)) + 1, ?
			WHERE NOT EXISTS (SELECT 1 FROM numbers WHERE branch = ?)`, above, branch, branch); err != nil {
			return 0, err
		}
	}
}

// PutCheck replaces the check with c's context on a commit.
func (l *Ledger) PutCheck(ctx context.Context, commit string, c delivery.Check) error {
	return l.exec(ctx, "INSERT INTO checks VALUES (?, ?, ?) ON CONFLICT (head, context) DO UPDATE SET state = "+
		"excluded.state", commit, c.Context, string(delivery.Canonical(c)))
}

// Checks returns a commit's checks, sorted by context. Checks that cannot be read are left out.
func (l *Ledger) Checks(ctx context.Context, commit string) ([]delivery.Check, error) {
	var checks []delivery.Check
	err := l.each(ctx, nil, func(r row) error {
		var c delivery.Check
		if json.Unmarshal([]byte(r.text(0)), &c) == nil { // the loop sets a missing check again
			checks = append(checks, c)
		}
		return nil
	}, "SELECT state FROM checks WHERE head = ? ORDER BY context", commit)
	return checks, err
}

// PutComment adds or replaces the comment with the marker.
func (l *Ledger) PutComment(ctx context.Context, pr int, marker, body string) error {
	return l.exec(ctx, "INSERT INTO comments VALUES (?, ?, ?) ON CONFLICT (pr, marker) DO UPDATE SET body = "+
		"excluded.body", pr, marker, body)
}

// CommentBody returns the body of the comment with the marker, or "" if there is none.
func (l *Ledger) CommentBody(ctx context.Context, pr int, marker string) (string, error) {
	var body string
	err := l.db.QueryRowContext(ctx, "SELECT body FROM comments WHERE pr = ? AND marker = ?", pr, marker).Scan(&body)
	if err == sql.ErrNoRows {
		return "", nil
	}
	return body, l.explain(err)
}

// AddUserComment adds a person's comment to a pull request.
func (l *Ledger) AddUserComment(ctx context.Context, pr int, author, body string) error {
	return l.exec(ctx, "INSERT INTO asked SELECT ?, COALESCE(MAX(id), 0) + 1, ?, ? FROM asked WHERE pr = ?", pr, author,
		body, pr)
}

// UserComments returns the comments of people on a pull request, oldest first. With a [delivery.Unreadable] error it
// returns those that could be read.
func (l *Ledger) UserComments(ctx context.Context, pr int) ([]delivery.Comment, error) {
	var comments []delivery.Comment
	name := func(r row) string { return fmt.Sprintf("comment %.20s on pull request %d", r.text(0), pr) }
	err := l.each(ctx, name, func(r row) error {
		id, err := r.number(0)
		if err == nil {
			comments = append(comments, delivery.Comment{ID: id, Author: r.text(1), Body: r.text(2)})
		}
		return err
	}, "SELECT id, author, body FROM asked WHERE pr = ? ORDER BY id", pr)
	return comments, err
}
