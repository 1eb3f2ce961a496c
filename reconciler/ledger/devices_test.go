package ledger

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
)

func reported(ring, device string, sequence int64) delivery.Device {
	return delivery.Device{Report: delivery.Report{Device: device, Ring: ring, Sequence: sequence},
		LastHeard: time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)}
}

// Devices that report at the same time are all stored when their calls return. The loop does not wait for them.
func TestDevicesAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	const devices, reports = 200, 3
	// While this transaction holds the file, the reports gather in one batch.
	held, err := l.devices.db.BeginTx(t.Context(), nil)
	must(t, err)
	var all sync.WaitGroup
	for i := range devices {
		all.Go(func() {
			for n := range reports {
				d := reported("north", fmt.Sprint("r", i), int64(n+1))
				if err := l.SaveDevice(t.Context(), "north", d); err != nil {
					t.Error(err)
				}
			}
		})
	}
	must(t, l.PutClock(t.Context(), "north", []byte(`{}`))) // the loop's file is free
	must(t, held.Rollback())
	all.Wait()
	must(t, l.Close())
	l = open(t, path)
	list, err := l.Devices(t.Context())
	must(t, err)
	if len(list) != devices {
		t.Errorf("%d devices are stored, want %d", len(list), devices)
	}
	for _, d := range list {
		if d.Report.Sequence != reports {
			t.Errorf("report %d of %s is stored, want %d", d.Report.Sequence, d.Report.Device, reports)
		}
	}
}

// All callers of a batch that cannot be written get the error, and a later report is stored.
func TestDevicesNotStored(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	must(t, l.devices.exec(t.Context(), "ALTER TABLE devices RENAME TO moved"))
	failed := make(chan error)
	for i := range 20 {
		go func() {
			failed <- l.SaveDevice(t.Context(), "north", reported("north", fmt.Sprint("r", i), 1))
		}()
	}
	for range 20 {
		if err := <-failed; err == nil {
			t.Error("a report is stored without a table")
		}
	}
	must(t, l.devices.exec(t.Context(), "ALTER TABLE moved RENAME TO devices"))
	must(t, l.SaveDevice(t.Context(), "north", reported("north", "r1", 1)))
}

// Devices that an earlier version kept in the ledger's own file are moved, also if a crash comes before the last step.
func TestDevicesMove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	old, err := sql.Open("sqlite", "file:"+path)
	must(t, err)
	_, err = old.ExecContext(t.Context(), "CREATE TABLE devices (ring TEXT, device TEXT, state TEXT, "+
		"PRIMARY KEY (ring, device)); INSERT INTO devices VALUES ('north', 'bad', '{')")
	must(t, err)
	want := []delivery.Device{reported("north", "a", 5), reported("south", "a", 7)}
	for _, d := range want {
		_, err := old.ExecContext(t.Context(), "INSERT INTO devices VALUES (?, ?, ?)", d.Report.Ring, d.Report.Device,
			string(delivery.Canonical(d)))
		must(t, err)
	}
	must(t, old.Close())
	// As after a crash: an earlier report is in the new file already.
	devices, err := openFile(t.Context(), filepath.Join(filepath.Dir(path), devicesName), devicesSchema)
	must(t, err)
	must(t, (&deviceFile{file: devices}).commit(t.Context(), []deviceRow{{"north", "a", "{}"}}))
	must(t, devices.close())
	for range 2 {
		l := open(t, path)
		list, err := l.Devices(t.Context())
		if bad, ok := errors.AsType[delivery.Unreadable](err); !ok || len(bad) != 1 || bad[0].What != "north/bad" {
			t.Errorf("want north/bad to be unreadable, got %v", err)
		}
		if diff := cmp.Diff(want, list); diff != "" {
			t.Error(diff)
		}
		must(t, l.Close())
	}
}
