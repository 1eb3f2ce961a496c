// Package ledger stores what AOB cannot read from git, the forge, the artifact store or the devices: who approved a
// run, when a rollout's wave began, what has been posted on the forge, and what a device last reported. For the local
// forge it also stores checks and comments.
//
// Nothing in it is evidence. When the file is lost, AOB makes an empty one. It then asks again for approvals, restarts
// waves, and posts the same texts again. It never trains, ships or comments twice because of that.
//
// The ledger is one SQLite file in WAL mode. Every write is one transaction and is durable when the call returns.
package ledger

import (
	"context"
	"database/sql"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	sqlite "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/autonomos/aob/reconciler/delivery"
)

//go:embed schema.sql
var schema string

// A Ledger is an open ledger. Its methods may be called from any goroutine.
type Ledger struct {
	db   *sql.DB
	path string
}

// Open opens the ledger file at path, and creates it if it does not exist. The error
// is a [delivery.Blocked] if the file is not a ledger, or if the disk is full.
func Open(ctx context.Context, path string) (*Ledger, error) {
	l, err := openFile(ctx, path)
	if b, ok := errors.AsType[delivery.Blocked](err); ok && b.Do == freeSpace {
		b.Do = "free some space, and start it again" // the process exits if Open fails
		return nil, b
	}
	return l, err
}

func openFile(ctx context.Context, path string) (*Ledger, error) {
	if err := private(path); err != nil {
		return nil, (&Ledger{path: path}).explain(err)
	}
	db, err := sql.Open("sqlite", "file:"+path+
		"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	// SQLite allows one writer at a time, and the loop needs no more.
	db.SetMaxOpenConns(1)
	l := &Ledger{db: db, path: path}
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		db.Close()
		return nil, l.explain(err)
	}
	if version > 1 {
		db.Close()
		return nil, delivery.Blockedf("run the newer aob, or move the file away: aob makes a new one and asks for "+
			"approvals again", "the ledger %s was written by a newer aob (schema %d)", path, version)
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		db.Close()
		return nil, l.explain(err)
	}
	return l, nil
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

// Close closes the file.
func (l *Ledger) Close() error { return l.db.Close() }

const freeSpace = "free some space; aob then continues by itself"

// explain turns errors that only a person can resolve into [delivery.Blocked].
func (l *Ledger) explain(err error) error {
	if err == nil {
		return nil
	}
	var se *sqlite.Error
	isSQLite := errors.As(err, &se)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || isSQLite && (se.Code()&0xff == lib.SQLITE_FULL ||
		noRoom(se.Code()) && full(l.path)) {
		return delivery.Blockedf(freeSpace, "the disk under the ledger %s is full", l.path)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) ||
		errors.Is(err, unix.EISDIR) {
		return delivery.Blockedf("check the folder, its owner and the disk", "the ledger %s cannot be used: %s", l.path,
			err)
	}
	if !isSQLite {
		return fmt.Errorf("ledger %s: %w", l.path, err)
	}
	switch se.Code() & 0xff {
	case lib.SQLITE_NOTADB, lib.SQLITE_CORRUPT:
		return delivery.Blockedf("move the file away and start aob again: it makes a new one and asks for approvals "+
			"again; nothing is trained or shipped twice", "the ledger %s is damaged", l.path)
	case lib.SQLITE_CANTOPEN, lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_IOERR:
		return delivery.Blockedf("check the folder, its owner and the disk", "the ledger %s cannot be used: %s", l.path,
			strings.TrimSpace(se.Error()))
	}
	return fmt.Errorf("ledger %s: %w", l.path, err)
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

func (l *Ledger) exec(ctx context.Context, query string, args ...any) error {
	_, err := l.db.ExecContext(ctx, query, args...)
	return l.explain(err)
}

// each calls read for every row of a query. If read fails for some rows, the others are still read, and the error is a
// [delivery.Unreadable] that lists the failed rows by the result of name.
func (l *Ledger) each(ctx context.Context, name func(row) string, read func(row) error, query string,
	args ...any) error {
	rows, err := l.db.QueryContext(ctx, query, args...)
	if err != nil {
		return l.explain(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return l.explain(err)
	}
	var bad delivery.Unreadable
	for rows.Next() {
		values := make(row, len(columns))
		to := make([]any, len(columns))
		for i := range values {
			to[i] = &values[i]
		}
		if err := rows.Scan(to...); err != nil {
			return l.explain(err)
		}
		if err := read(values); err != nil {
			bad = append(bad, delivery.Unread{What: name(values), Why: err.Error()})
		}
	}
	if err := rows.Err(); err != nil {
		return l.explain(err)
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

// An Approval lets a pull request do the one run that Code stands for.
type Approval struct {
	PR     int
	Code   string
	Author string
	At     time.Time
}

// PutApproval stores an approval. If there is one for the pull request and code, its author stays and the later of the
// two times is kept.
func (l *Ledger) PutApproval(ctx context.Context, a Approval) error {
	return l.exec(ctx, "INSERT INTO gos VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at)", a.PR,
		a.Code, a.Author, a.At.UnixMilli())
}

// Approvals returns the approvals given since a time. With a [delivery.Unreadable] error it returns those that could be
// read.
func (l *Ledger) Approvals(ctx context.Context, since time.Time) ([]Approval, error) {
	var list []Approval
	name := func(r row) string {
		return fmt.Sprintf("the approval %.40q on pull request %.20s", r.text(1), r.text(0))
	}
	err := l.each(ctx, name, func(r row) error {
		pr, err := r.number(0)
		if err != nil {
			return err
		}
		at, err := r.number(3)
		if err != nil {
			return err
		}
		list = append(list, Approval{PR: int(pr), Code: r.text(1), Author: r.text(2), At: time.UnixMilli(at).UTC()})
		return nil
	}, "SELECT pr, code, author, at FROM gos WHERE at >= ? ORDER BY pr, code", since.UnixMilli())
	return list, err
}

// PutSpend stores what a run has cost until now.
func (l *Ledger) PutSpend(ctx context.Context, s delivery.Spend) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return l.exec(ctx, "INSERT INTO spends VALUES (?, ?, ?) ON CONFLICT (run) DO UPDATE SET body = excluded.body",
		string(s.Run), s.Started.UnixMilli(), string(body))
}

// Spends returns what all runs have cost, the earliest first. With a [delivery.Unreadable] error it returns those that
// could be read.
func (l *Ledger) Spends(ctx context.Context) ([]delivery.Spend, error) {
	var list []delivery.Spend
	name := func(r row) string { return fmt.Sprintf("what run %.80q has cost", r.text(0)) }
	err := l.each(ctx, name, func(r row) error {
		body, err := r.json(1)
		if err != nil {
			return err
		}
		var s delivery.Spend
		if err := json.Unmarshal(body, &s); err != nil {
			return err
		}
		if s.Run != delivery.Digest(r.text(0)) {
			return fmt.Errorf("it is of another run")
		}
		list = append(list, s)
		return nil
	}, "SELECT run, body FROM spends ORDER BY at, run")
	return list, err
}

// PutClock replaces the state of a fleet's rollout. state is JSON that only the caller interprets.
func (l *Ledger) PutClock(ctx context.Context, fleet string, state json.RawMessage) error {
	return l.exec(ctx, "INSERT INTO clocks VALUES (?, ?) ON CONFLICT (fleet) DO UPDATE SET state = excluded.state",
		fleet, string(state))
}

// Clocks returns the states of all rollouts by fleet. It does not check that they are JSON.
func (l *Ledger) Clocks(ctx context.Context) (map[string]json.RawMessage, error) {
	clocks := map[string]json.RawMessage{}
	err := l.each(ctx, nil, func(r row) error {
		clocks[r.text(0)] = json.RawMessage(r.text(1))
		return nil
	}, "SELECT fleet, state FROM clocks")
	return clocks, err
}

// PutTrial stores an experiment. body is JSON that only the caller interprets. If the id exists, only its time changes.
func (l *Ledger) PutTrial(ctx context.Context, id string, at time.Time, body json.RawMessage) error {
	return l.exec(ctx, "INSERT INTO trials VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET at = excluded.at", id,
		at.UnixMilli(), string(body))
}

// DropTrial deletes an experiment.
func (l *Ledger) DropTrial(ctx context.Context, id string) error {
	return l.exec(ctx, "DELETE FROM trials WHERE id = ?", id)
}

// Trials returns the experiments requested since a time, oldest first. With a [delivery.Unreadable] error it returns
// those that could be read.
func (l *Ledger) Trials(ctx context.Context, since time.Time) ([]json.RawMessage, error) {
	var list []json.RawMessage
	name := func(r row) string { return fmt.Sprintf("the experiment %.64q", r.text(0)) }
	err := l.each(ctx, name, func(r row) error {
		body, err := r.json(1)
		if err == nil {
			list = append(list, body)
		}
		return err
	}, "SELECT id, body FROM trials WHERE at >= ? ORDER BY at, id", since.UnixMilli())
	return list, err
}

// A Record is the content last stored under a key, when that was, and how often content was stored.
type Record struct {
	Content string
	At      time.Time
	Count   int
}

// RecordStore is the part of a Ledger with records. The packages that store some take it as an interface.
type RecordStore interface {
	Records(ctx context.Context, prefix string) (map[string]Record, error)
	PutRecord(ctx context.Context, key, content string, at time.Time) error
}

// Records returns the records of all keys that begin with prefix.
func (l *Ledger) Records(ctx context.Context, prefix string) (map[string]Record, error) {
	records := map[string]Record{}
	err := l.each(ctx, nil, func(r row) error {
		record := Record{Content: r.text(1)}
		if at, err := r.number(2); err == nil { // zero if damaged: then the caller may post the content once more
			record.At = time.UnixMilli(at).UTC()
		}
		if count, err := r.number(3); err == nil {
			record.Count = int(count)
		}
		records[r.text(0)] = record
		return nil
	}, "SELECT key, content, at, count FROM said WHERE key >= ? AND key < ?", prefix, prefix+"\xff")
	return records, err
}

// PutRecord replaces the content of key and adds 1 to its count. Content "" means that the current content on the forge
// is unknown; it is not counted.
func (l *Ledger) PutRecord(ctx context.Context, key, content string, at time.Time) error {
	return l.exec(ctx, `INSERT INTO said VALUES (?, ?, ?, 1)
		ON CONFLICT (key) DO UPDATE SET content = excluded.content, at = excluded.at,
		count = count + (excluded.content <> '')`, key, content, at.UnixMilli())
}

// SaveDevice replaces the last report of a device of a ring.
func (l *Ledger) SaveDevice(ctx context.Context, ring string, d delivery.Device) error {
	return l.exec(ctx, "INSERT INTO devices VALUES (?, ?, ?) ON CONFLICT (ring, device) DO UPDATE SET state = "+
		"excluded.state", ring, d.Report.Device, string(delivery.Canonical(d)))
}

// DropDevice deletes a device of a ring. It is no error if the device does not exist.
func (l *Ledger) DropDevice(ctx context.Context, ring, device string) error {
	return l.exec(ctx, "DELETE FROM devices WHERE ring = ? AND device = ?", ring, device)
}

// Devices returns all devices, sorted by ring and name. Devices that cannot be read are left out and listed, as
// RING/DEVICE, in a [delivery.Unreadable] error, which is returned together with the others.
func (l *Ledger) Devices(ctx context.Context) ([]delivery.Device, error) {
	var devices []delivery.Device
	name := func(r row) string { return r.text(0) + "/" + r.text(1) }
	err := l.each(ctx, name, func(r row) error {
		var d delivery.Device
		if err := json.Unmarshal([]byte(r.text(2)), &d); err != nil {
			return err
		}
		if d.Report.Ring != r.text(0) || d.Report.Device != r.text(1) {
			return fmt.Errorf("its report names device %.64q in ring %.64q", d.Report.Device, d.Report.Ring)
		}
		devices = append(devices, d)
		return nil
	}, "SELECT ring, device, state FROM devices ORDER BY ring, device")
	return devices, err
}

// OfForge returns a short name of a forge's address for keys: what was posted at one address was not posted at another.
func OfForge(address string) string { return delivery.DigestOf("forge", address).Short() }
