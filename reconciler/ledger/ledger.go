// Package ledger stores what AOB cannot read from git, the forge, the artifact store or the devices: who approved a
// run, when a rollout's wave began, what has been posted on the forge, and what a device last reported. For the local
// forge it also stores checks and comments.
//
// Nothing in it is evidence. When the file is lost, AOB makes an empty one. It then asks again for approvals, restarts
// waves, and posts the same texts again. It never trains, ships or comments twice because of that.
//
// The ledger is two SQLite files in WAL mode: one with what the loop writes, and one beside it with the reports of
// devices, so that a fleet which reports at once never holds up the loop. Every write is durable when the call returns.
package ledger

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

//go:embed schema.sql
var schema string

//go:embed devices.sql
var devicesSchema string

// A Ledger is an open ledger. Its methods may be called from any goroutine.
type Ledger struct {
	file
	devices deviceFile
}

// devicesName is the name of the file beside the ledger's.
const devicesName = "devices.db"

// Open opens the ledger file at path and the file of devices beside it, and creates them if they do not exist. The
// error is a [delivery.Blocked] if a file is not a ledger, or if the disk is full.
func Open(ctx context.Context, path string) (*Ledger, error) {
	l, err := openBoth(ctx, path)
	if b, ok := errors.AsType[delivery.Blocked](err); ok && b.Do == freeSpace {
		b.Do = "free some space, and start it again" // the process exits if Open fails
		return nil, b
	}
	return l, err
}

func openBoth(ctx context.Context, path string) (*Ledger, error) {
	main, err := openFile(ctx, path, schema)
	if err != nil {
		return nil, err
	}
	devices, err := openFile(ctx, filepath.Join(filepath.Dir(path), devicesName), devicesSchema)
	if err != nil {
		main.close()
		return nil, err
	}
	l := &Ledger{file: main, devices: deviceFile{file: devices}}
	if err := l.moveDevices(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close closes the files. No method may run then, nor be called later.
func (l *Ledger) Close() error { return errors.Join(l.close(), l.devices.close()) }

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

// Kept returns the contents of the records of all keys that begin with prefix.
func (l *Ledger) Kept(ctx context.Context, prefix string) (map[string]string, error) {
	records, err := l.Records(ctx, prefix)
	texts := make(map[string]string, len(records))
	for key, r := range records {
		texts[key] = r.Content
	}
	return texts, err
}

// Keep stores a record with the present time.
func (l *Ledger) Keep(ctx context.Context, key, text string) error {
	return l.PutRecord(ctx, key, text, time.Now())
}

// OfForge returns a short name of a forge's address for keys: what was posted at one address was not posted at another.
func OfForge(address string) string { return delivery.DigestOf("forge", address).Short() }
