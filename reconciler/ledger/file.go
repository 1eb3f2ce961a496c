package ledger

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	sqlite "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A file is one SQLite file.
type file struct {
	db   *sql.DB
	path string
}

// openFile opens a file, and creates it if it does not exist.
func openFile(ctx context.Context, path, schema string) (file, error) {
	if err := private(path); err != nil {
		return file{}, file{path: path}.explain(err)
	}
	db, err := sql.Open("sqlite", "file:"+path+
		"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)")
	if err != nil {
		return file{}, err
	}
	db.SetMaxOpenConns(1) // SQLite allows one writer at a time
	f := file{db: db, path: path}
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		db.Close()
		return file{}, f.explain(err)
	}
	if version > 1 {
		db.Close()
		return file{}, delivery.Blockedf("run the newer aob, or move the file away: aob makes a new one and asks for "+
			"approvals again", "the ledger %s was written by a newer aob (schema %d)", path, version)
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		db.Close()
		return file{}, f.explain(err)
	}
	return f, nil
}

// private creates the file if it does not exist, and sets its mode to 0600. SQLite
// gives the files that it creates beside it (-wal, -shm) the same mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil || info.Mode().Perm()&0o077 == 0 {
			continue
		}
		if err := os.Chmod(path+suffix, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (f file) close() error { return f.db.Close() }

const freeSpace = "free some space; aob then continues by itself"

// explain turns errors that only a person can resolve into [delivery.Blocked].
func (f file) explain(err error) error {
	if err == nil {
		return nil
	}
	var se *sqlite.Error
	isSQLite := errors.As(err, &se)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || isSQLite && (se.Code()&0xff == lib.SQLITE_FULL ||
		noRoom(se.Code()) && full(f.path)) {
		return delivery.Blockedf(freeSpace, "the disk under the ledger %s is full", f.path)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) ||
		errors.Is(err, unix.EISDIR) {
		return delivery.Blockedf("check the folder, its owner and the disk", "the ledger %s cannot be used: %s", f.path,
			err)
	}
	if !isSQLite {
		return fmt.Errorf("ledger %s: %w", f.path, err)
	}
	switch se.Code() & 0xff {
	case lib.SQLITE_NOTADB, lib.SQLITE_CORRUPT:
		return delivery.Blockedf("move the file away and start aob again: it makes a new one and asks for approvals "+
			"again; nothing is trained or shipped twice", "the ledger %s is damaged", f.path)
	case lib.SQLITE_CANTOPEN, lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_IOERR:
		return delivery.Blockedf("check the folder, its owner and the disk", "the ledger %s cannot be used: %s", f.path,
			strings.TrimSpace(se.Error()))
	}
	return fmt.Errorf("ledger %s: %w", f.path, err)
}

// noRoom reports whether a full disk can be the cause of an SQLite error code. Most codes name only the system call
// that failed. A new file on a full disk gives 4874 (IOERR_SHMSIZE).
func noRoom(code int) bool { return code&0xff == lib.SQLITE_IOERR || code&0xff == lib.SQLITE_CANTOPEN }

// leastRoom is how many bytes SQLite needs to open a ledger: a database page, the write-ahead log and its index.
const leastRoom = 64 << 10

// full reports whether the file system of a file has fewer than leastRoom bytes or no inode left.
func full(path string) bool {
	var s unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &s); err != nil {
		return false
	}
	return s.Bavail*uint64(s.Bsize) < leastRoom || s.Files > 0 && s.Ffree == 0
}

func (f file) exec(ctx context.Context, query string, args ...any) error {
	_, err := f.db.ExecContext(ctx, query, args...)
	return f.explain(err)
}

// each calls read for every row of a query. If read fails for some rows, the others are still read, and the error is a
// [delivery.Unreadable] that lists the failed rows by the result of name.
func (f file) each(ctx context.Context, name func(row) string, read func(row) error, query string,
	args ...any) error {
	rows, err := f.db.QueryContext(ctx, query, args...)
	if err != nil {
		return f.explain(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return f.explain(err)
	}
	var bad delivery.Unreadable
	for rows.Next() {
		values := make(row, len(columns))
		to := make([]any, len(columns))
		for i := range values {
			to[i] = &values[i]
		}
		if err := rows.Scan(to...); err != nil {
			return f.explain(err)
		}
		if err := read(values); err != nil {
			bad = append(bad, delivery.Unread{What: name(values), Why: err.Error()})
		}
	}
	if err := rows.Err(); err != nil {
		return f.explain(err)
	}
	if len(bad) > 0 {
		return bad
	}
	return nil
}

// A row is one row of a query. SQLite stores any type in any column, so a value of a damaged file may have another type
// than the one written.
type row []any

// text returns a column as text, whatever type it has.
func (r row) text(i int) string {
	switch v := r[i].(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case nil:
		return ""
	}
	return fmt.Sprint(r[i])
}

// number returns a column that must be an integer.
func (r row) number(i int) (int64, error) {
	if v, ok := r[i].(int64); ok {
		return v, nil
	}
	return 0, fmt.Errorf("column %d: want an integer, got %.40q", i+1, r.text(i))
}

// json returns a column that must hold JSON.
func (r row) json(i int) (json.RawMessage, error) {
	if text := r.text(i); json.Valid([]byte(text)) {
		return json.RawMessage(text), nil
	}
	return nil, fmt.Errorf("column %d: want JSON, got %.40q", i+1, r.text(i))
}
