package ledger

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
)

func TestDrop(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "ledger.db"))
	ctx := t.Context()
	old := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := old.Add(90 * 24 * time.Hour)
	must(t, l.PutRecord(ctx, "status/f/abc/aob/train", "pending", old))
	must(t, l.PutRecord(ctx, "status/f/abc/aob/eval", "success", now))
	must(t, l.PutRecord(ctx, "comment/f/12", "hello", old))
	sizes, err := l.Sizes(ctx, "status/")
	want := []Size{{"status/f/abc/aob/eval", int64(len("status/f/abc/aob/eval") + len("success")), now},
		{"status/f/abc/aob/train", int64(len("status/f/abc/aob/train") + len("pending")), old}}
	if diff := cmp.Diff(want, sizes); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	must(t, l.DropRecords(ctx, []string{"status/f/abc/aob/train", "status/f/abc/aob/eval", "none"}, now))
	if left, err := l.Records(ctx, ""); err != nil || len(left) != 2 || left["comment/f/12"].Content == "" ||
		left["status/f/abc/aob/eval"].Content == "" {
		t.Errorf("%v, %v: want the record that is not old, and the one that was not named", left, err)
	}

	must(t, l.PutClock(ctx, "north", json.RawMessage("{}")))
	must(t, l.PutClock(ctx, "south", json.RawMessage("{}")))
	must(t, l.DropClock(ctx, "north"))
	if clocks, err := l.Clocks(ctx); err != nil || len(clocks) != 1 || clocks["south"] == nil {
		t.Errorf("clocks %v, %v", clocks, err)
	}
	must(t, l.PutApproval(ctx, Approval{PR: 1, Code: "a", Author: "ada", At: old}))
	must(t, l.PutApproval(ctx, Approval{PR: 2, Code: "b", Author: "ada", At: now}))
	must(t, l.DropApprovals(ctx, now))
	if list, err := l.Approvals(ctx, time.Time{}); err != nil || len(list) != 1 || list[0].PR != 2 {
		t.Errorf("approvals %v, %v", list, err)
	}
	must(t, l.PutCheck(ctx, "abc", delivery.Check{Context: "aob/release"}))
	must(t, l.PutCheck(ctx, "abd", delivery.Check{Context: "aob/release"}))
	must(t, l.DropPosts(ctx, nil, now, "abc", 0))
	for commit, want := range map[string]int{"abc": 0, "abd": 1} {
		if list, err := l.Checks(ctx, commit); err != nil || len(list) != want {
			t.Errorf("checks of %s: %v, %v", commit, list, err)
		}
	}
	must(t, l.PutComment(ctx, 12, "aob", "hello"))
	must(t, l.PutComment(ctx, 13, "aob", "hello"))
	must(t, l.DropPosts(ctx, nil, now, "", 12))
	for pr, want := range map[int]string{12: "", 13: "hello"} {
		if body, err := l.CommentBody(ctx, pr, "aob"); err != nil || body != want {
			t.Errorf("comment on %d: %q, %v", pr, body, err)
		}
	}
}
