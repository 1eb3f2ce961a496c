package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A deviceFile has the last reports of devices. Those that come while a transaction is committed share the next one, so
// their number a second does not depend on how long the disk takes for a commit.
type deviceFile struct {
	file

	mu         sync.Mutex
	waiting    *batch // nil for none
	committing bool
}

// A batch is rows that one transaction writes.
type batch struct {
	rows []deviceRow
	done chan struct{} // closed when err is set
	err  error
}

type deviceRow struct{ ring, device, state string }

const saveDevice = "INSERT INTO devices VALUES (?, ?, ?) " +
	"ON CONFLICT (ring, device) DO UPDATE SET state = excluded.state"

// SaveDevice replaces the last report of a device of a ring. If ctx ends first, the report may still be written.
func (l *Ledger) SaveDevice(ctx context.Context, ring string, d delivery.Device) error {
	body, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("save device %s: %w", d.Report.Device, err)
	}
	b := l.devices.add(deviceRow{ring, d.Report.Device, string(body)})
	select {
	case <-b.done:
		return b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// add puts a row into the next batch, and has it committed.
func (f *deviceFile) add(row deviceRow) *batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == nil {
		f.waiting = &batch{done: make(chan struct{})}
	}
	b := f.waiting
	b.rows = append(b.rows, row)
	if !f.committing {
		f.committing = true
		go f.commitWaiting()
	}
	return b
}

// commitWaiting commits batches until none waits.
func (f *deviceFile) commitWaiting() {
	for {
		f.mu.Lock()
		b := f.waiting
		f.waiting, f.committing = nil, b != nil
		f.mu.Unlock()
		if b == nil {
			return
		}
		b.err = f.explain(f.commit(context.Background(), b.rows))
		close(b.done)
	}
}

// commit writes rows in one transaction.
func (f *deviceFile) commit(ctx context.Context, rows []deviceRow) error {
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	save, err := tx.PrepareContext(ctx, saveDevice)
	if err != nil {
		return err
	}
	defer save.Close()
	for _, r := range rows {
		if _, err := save.ExecContext(ctx, r.ring, r.device, r.state); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// moveDevices moves the devices that an earlier version of AOB kept in the ledger's own file.
func (l *Ledger) moveDevices(ctx context.Context) error {
	var tables int
	err := l.db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name = 'devices'").Scan(&tables)
	if err != nil || tables == 0 {
		return l.explain(err)
	}
	var rows []deviceRow
	err = l.each(ctx, row.device, func(r row) error {
		rows = append(rows, deviceRow{r.text(0), r.text(1), r.text(2)})
		return nil
	}, "SELECT ring, device, state FROM devices")
	if err == nil {
		err = l.devices.explain(l.devices.commit(ctx, rows))
	}
	if err != nil {
		return err
	}
	return l.exec(ctx, "DROP TABLE devices") // after a crash before this, the same rows are moved again
}

// device names a device that cannot be read.
func (r row) device() string { return r.text(0) + "/" + r.text(1) }

// DropDevice deletes a device of a ring. It is no error if the device does not exist.
func (l *Ledger) DropDevice(ctx context.Context, ring, device string) error {
	return l.devices.exec(ctx, "DELETE FROM devices WHERE ring = ? AND device = ?", ring, device)
}

// Devices returns all devices, sorted by ring and name. Devices that cannot be read are left out and listed, as
// RING/DEVICE, in a [delivery.Unreadable] error, which is returned together with the others.
func (l *Ledger) Devices(ctx context.Context) ([]delivery.Device, error) {
	var devices []delivery.Device
	err := l.devices.each(ctx, row.device, func(r row) error {
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
