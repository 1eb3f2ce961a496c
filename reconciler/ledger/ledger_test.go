package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
)

func open(t *testing.T, path string) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// must ends the test if a call that only prepares it fails.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Rows survive closing and opening the file.
func TestRowsAreDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, path)
	ctx := t.Context()
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)

	must(t, l.PutApproval(ctx, Approval{PR: 3, Code: "3f9c2a10", Author: "ada", At: at}))
	must(t, l.PutApproval(ctx, Approval{PR: 3, Code: "3f9c2a10", Author: "bob", At: at.Add(time.Hour)}))
	must(t, l.PutApproval(ctx, Approval{PR: 2, Code: "00000000", Author: "ada", At: at.Add(-8 * 24 * time.Hour)}))
	must(t, l.PutClock(ctx, "north", json.RawMessage(`{"wave":1}`)))
	must(t, l.PutClock(ctx, "north", json.RawMessage(`{"wave":2}`)))
	must(t, l.PutRecord(ctx, "status/abc/aob/train", "pending one", at))
	must(t, l.PutRecord(ctx, "status/abc/aob/train", "success two", at.Add(time.Second)))
	must(t, l.PutRecord(ctx, "status/abd/aob/train", "other", at))
	device := delivery.Device{Report: delivery.Report{Device: "robot-1", Ring: "north", Sequence: 7}, LastHeard: at,
		Healthy: []delivery.Digest{delivery.Sum(nil)}}
	must(t, l.SaveDevice(ctx, "north", device))
	must(t, l.SaveDevice(ctx, "north", device))
	must(t, l.Close())

	l = open(t, path)
	approvals, err := l.Approvals(ctx, at.Add(-7*24*time.Hour))
	must(t, err)
	want := []Approval{{PR: 3, Code: "3f9c2a10", Author: "ada", At: at.Add(time.Hour)}}
	if diff := cmp.Diff(want, approvals); diff != "" {
		t.Error(diff)
	}
	clocks, err := l.Clocks(ctx)
	must(t, err)
	if got := string(clocks["north"]); got != `{"wave":2}` || len(clocks) != 1 {
		t.Errorf("clocks: %v", clocks)
	}
	records, err := l.Records(ctx, "status/abc/")
	must(t, err)
	if diff := cmp.Diff(map[string]Record{"status/abc/aob/train": {Content: "success two", At: at.Add(time.Second),
		Count: 2}}, records); diff != "" {
		t.Error(diff)
	}
	devices, err := l.Devices(ctx)
	must(t, err)
	if diff := cmp.Diff([]delivery.Device{device}, devices); diff != "" {
		t.Error(diff)
	}
}

func TestLocalForge(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	ctx := t.Context()
	for _, c := range []struct {
		branch     string
		used, want int
	}{{"first", 0, 1}, {"second", 0, 2}, {"first", 9, 1}, {"first", 0, 1}, {"third", 0, 3}, {"fourth", 9, 10},
		{"fifth", 2, 11}} {
		if n, err := l.Number(ctx, c.branch, func() (int, error) { return c.used, nil }); err != nil || n != c.want {
			t.Errorf("branch %s has number %d, want %d (%v)", c.branch, n, c.want, err)
		}
	}
	must(t, l.PutCheck(ctx, "abc", delivery.Check{Context: "aob/train", State: delivery.CheckPending}))
	must(t, l.PutCheck(ctx, "abc", delivery.Check{Context: "aob/eval", State: delivery.CheckPending}))
	must(t, l.PutCheck(ctx, "abc", delivery.Check{Context: "aob/train", State: delivery.CheckSuccess,
		Description: "done"}))
	checks, err := l.Checks(ctx, "abc")
	must(t, err)
	if diff := cmp.Diff([]delivery.Check{{Context: "aob/eval", State: delivery.CheckPending}, {Context: "aob/train",
		State: delivery.CheckSuccess, Description: "done"}}, checks); diff != "" {
		t.Error(diff)
	}
	must(t, l.PutComment(ctx, 1, "<!-- m -->", "one"))
	must(t, l.PutComment(ctx, 1, "<!-- m -->", "two"))
	if body, err := l.CommentBody(ctx, 1, "<!-- m -->"); err != nil || body != "two" {
		t.Errorf("comment %q, %v", body, err)
	}
	if body, err := l.CommentBody(ctx, 2, "<!-- m -->"); err != nil || body != "" {
		t.Errorf("no comment was posted, got %q, %v", body, err)
	}
	must(t, l.AddUserComment(ctx, 1, "ada", "/aob run 1"))
	must(t, l.AddUserComment(ctx, 2, "bob", "/aob run 2"))
	must(t, l.AddUserComment(ctx, 1, "ada", "/aob run 3"))
	commands, err := l.UserComments(ctx, 1)
	must(t, err)
	if diff := cmp.Diff([]delivery.Comment{{ID: 1, Author: "ada", Body: "/aob run 1"}, {ID: 2, Author: "ada",
		Body: "/aob run 3"}}, commands); diff != "" {
		t.Error(diff)
	}
}

// An error that only a person can resolve is a Blocked with a hint.
func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		want string
	}{
		"not a database": {func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("no database ", 100)), 0o600))
		}, "is damaged; move the file away"},
		"a folder":       {func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "cannot be used"},
		"a newer schema": {newerSchema, "written by a newer aob (schema 9); run the newer aob"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			c.make(t, path)
			_, err := Open(t.Context(), path)
			if _, ok := errors.AsType[delivery.Blocked](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want Blocked with %q", err, c.want)
			}
		})
	}
}

func newerSchema(t *testing.T, path string) {
	l, err := Open(context.Background(), path)
	must(t, err)
	must(t, l.exec(context.Background(), "PRAGMA user_version = 9"))
	must(t, l.Close())
}

// On a full disk the error says so, whichever error SQLite returns.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	failedOpens := 0
	for free := 0; free <= 160; free += 4 { // KiB
		for _, there := range []bool{false, true} {
			path := filepath.Join(dir, "ledger.db")
			if there {
				must(t, open(t, path).Close())
			}
			filler, err := os.Create(filepath.Join(dir, "filler"))
			must(t, err)
			for err == nil {
				_, err = filler.Write(make([]byte, 4096))
			}
			size, err := filler.Seek(0, io.SeekEnd)
			must(t, errors.Join(err, filler.Truncate(max(0, size-int64(free)<<10)), filler.Close()))
			l, err := Open(t.Context(), path)
			if err == nil {
				for i := 0; i < 1000 && err == nil; i++ {
					err = l.PutRecord(t.Context(), fmt.Sprint("status/", i), strings.Repeat("x", 1000), time.Unix(0, 0))
				}
				if want := "is full; free some space; aob then continues by itself"; err == nil ||
					!strings.HasSuffix(err.Error(), want) {
					t.Errorf("%d KiB free, writing: %v", free, err)
				}
				l.Close()
			} else if want := "is full; free some space, and start it again"; !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%d KiB free, opening: %v", free, err)
			} else {
				failedOpens++
			}
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			must(t, err)
			for _, file := range files {
				must(t, os.Remove(file))
			}
		}
	}
	if failedOpens == 0 {
		t.Error("Open never failed on a full disk")
	}
}

func TestFilesArePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	for _, loosen := range []bool{false, true} {
		if loosen { // earlier versions could leave files with mode 0644 after a crash
			for _, suffix := range []string{"", "-wal", "-shm"} {
				must(t, os.WriteFile(path+suffix, nil, 0o600))
				must(t, os.Chmod(path+suffix, 0o644))
			}
		}
		l := open(t, path)
		must(t, l.PutRecord(t.Context(), "a", "b", time.Unix(0, 0)))
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if info, err := os.Stat(path + suffix); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", suffix, info.Mode(), err)
			}
		}
		must(t, l.Close())
	}
}

// A damaged row, or one with a value of another type, is listed in the error. The other rows are still read.
func TestDamagedRowsAreSkipped(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	ctx := t.Context()
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		must(t, l.SaveDevice(ctx, "north", delivery.Device{Report: delivery.Report{Device: name, Ring: "north",
			Sequence: 7}, LastHeard: at}))
	}
	for device, state := range map[string]any{"b": `{"report": {"device": "b", "ri`, "c": nil, "d": 3.5, "e": `[]`,
		"f": string(delivery.Canonical(delivery.Device{Report: delivery.Report{Device: "a", Ring: "north"}}))} {
		must(t, l.devices.exec(ctx, "UPDATE devices SET state = ? WHERE device = ?", state, device))
	}
	devices, err := l.Devices(ctx)
	bad, ok := errors.AsType[delivery.Unreadable](err)
	if !ok || len(bad) != 5 || len(devices) != 1 || devices[0].Report.Device != "a" {
		t.Errorf("devices %v, error %v", devices, err)
	}
	for _, name := range []string{"north/b", "north/c", "north/d", "north/e", "north/f"} {
		if !strings.Contains(err.Error(), name+": ") {
			t.Errorf("%s is not named in %v", name, err)
		}
	}

	for _, pr := range []int{1, 2, 3} {
		must(t, l.PutApproval(ctx, Approval{PR: pr, Code: "3f9c2a10", Author: "ada", At: at}))
	}
	must(t, l.exec(ctx, "UPDATE gos SET at = 'yesterday' WHERE pr = 1"))
	must(t, l.exec(ctx, "UPDATE gos SET pr = 'x' WHERE pr = 2"))
	approvals, err := l.Approvals(ctx, at)
	if bad, ok := errors.AsType[delivery.Unreadable](err); !ok || len(bad) != 2 || len(approvals) != 1 ||
		approvals[0].PR != 3 {
		t.Errorf("approvals %v, error %v", approvals, err)
	}

	must(t, l.PutTrial(ctx, "good", at, json.RawMessage(`{"id":"good"}`)))
	must(t, l.PutTrial(ctx, "bad", at, json.RawMessage(`{"id":`)))
	trials, err := l.Trials(ctx, at)
	if bad, ok := errors.AsType[delivery.Unreadable](err); !ok || len(bad) != 1 || len(trials) != 1 {
		t.Errorf("experiments %s, error %v", trials, err)
	}

	must(t, l.PutRecord(ctx, "proposed/x", "branch commit", at))
	must(t, l.PutRecord(ctx, "proposed/y", "branch commit", at))
	must(t, l.exec(ctx, "UPDATE said SET at = NULL, count = 'many', content = NULL WHERE key = 'proposed/x'"))
	if records, err := l.Records(ctx, "proposed/"); err != nil || len(records) != 2 ||
		records["proposed/y"].Count != 1 {
		t.Errorf("records %v, error %v", records, err)
	}
	must(t, l.PutClock(ctx, "north", json.RawMessage(`{"wave":1}`)))
	must(t, l.PutClock(ctx, "south", json.RawMessage(`{"wave":`)))
	must(t, l.exec(ctx, "INSERT INTO clocks VALUES ('west', NULL)"))
	if clocks, err := l.Clocks(ctx); err != nil || len(clocks) != 3 || string(clocks["north"]) != `{"wave":1}` {
		t.Errorf("clocks %v, error %v", clocks, err)
	}
	must(t, l.PutCheck(ctx, "abc", delivery.Check{Context: "aob/train", State: delivery.CheckPending}))
	must(t, l.PutCheck(ctx, "abc", delivery.Check{Context: "aob/eval", State: delivery.CheckPending}))
	must(t, l.exec(ctx, "UPDATE checks SET state = '{' WHERE context = 'aob/eval'"))
	if checks, err := l.Checks(ctx, "abc"); err != nil || len(checks) != 1 {
		t.Errorf("checks %v, error %v", checks, err)
	}
}

func TestSpends(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	first := delivery.Spend{Run: delivery.Sum([]byte("1")), Started: at, Cost: 1_500_000, Phase: delivery.RunRunning,
		Quote: delivery.Quote{Model: "shapes", Pull: 7, By: "dev", Ceiling: 8 * delivery.Dollar, PriceAt: at}}
	second := first
	second.Run, second.Started = delivery.Sum([]byte("2")), at.Add(-time.Hour)
	must(t, l.PutSpend(t.Context(), first))
	must(t, l.PutSpend(t.Context(), second))
	first.Cost, first.Phase = 3_000_000, delivery.RunDone
	must(t, l.PutSpend(t.Context(), first))
	list, err := l.Spends(t.Context())
	if err != nil || len(list) != 2 || list[0] != second || list[1] != first {
		t.Errorf("%+v, %v", list, err)
	}
	must(t, l.exec(t.Context(), "UPDATE spends SET body = '{\"cost\": \"free\"}' WHERE run = ?", string(second.Run)))
	if list, err = l.Spends(t.Context()); len(list) != 1 || !delivery.Usable(err) || err == nil {
		t.Errorf("with a damaged row: %+v, %v", list, err)
	}
}
