package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/turn"
)

// A line is a repository whose commits are named by letters: each contains those before it. The trees of damaged
// commits cannot be read.
type line struct{ damaged string }

func (l line) Files(commit string) ([]git.File, error) {
	if strings.Contains(l.damaged, commit) {
		return nil, errors.New("its tree is damaged")
	}
	return nil, nil
}

func (line) Blob(string, int64) ([]byte, error)                { return nil, nil }
func (line) MergeBases(a, b string) ([]string, error)          { return []string{min(a, b)}, nil }
func (line) Missing(string) error                              { return nil }
func (line) Has(string) error                                  { return nil }
func (line) Subject(string) (string, error)                    { return "", nil }
func (line) History(string, string) ([]git.FileVersion, error) { return nil, nil }
func (line) Line(string, string, string, int) ([]git.LineChange, bool, error) {
	return nil, true, nil
}

// A book is a ledger in memory.
type book map[string]ledger.Record

func (b book) Records(_ context.Context, prefix string) (map[string]ledger.Record, error) {
	list := map[string]ledger.Record{}
	for key, r := range b {
		if strings.HasPrefix(key, prefix) {
			list[key] = r
		}
	}
	return list, nil
}

func (b book) PutRecord(_ context.Context, key, content string, at time.Time) error {
	b[key] = ledger.Record{Content: content, At: at, Count: 1}
	return nil
}

func open(repo Repo, b book) (*History, *turn.Turn) {
	now := func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
	t := turn.New(now, slog.New(slog.DiscardHandler))
	return New(repo, b, t, commits.New(repo, intent.NewCache(intent.Options{})), "main"), t
}

// While main cannot be read, its last commit that could be read stands for it, also after a restart.
func TestLastGoodCommitIsUsedForMain(t *testing.T) {
	kept := book{}
	h, troubles := open(line{damaged: "b"}, kept)
	main, stale, err := h.Main(t.Context(), "a")
	if err != nil || stale || main.Commit != "a" {
		t.Fatalf("a: %q, stale %v, %v", main.Commit, stale, err)
	}
	for _, at := range []string{"b", ""} { // damaged, and gone
		for range 2 {
			main, stale, err = h.Main(t.Context(), at)
			if err != nil || !stale || main.Commit != "a" {
				t.Errorf("%q: %q stands for it, stale %v, %v", at, main.Commit, stale, err)
			}
			if troubles.Trouble(MainTrouble) == nil {
				t.Errorf("%q: nothing says that main cannot be read", at)
			}
			h, troubles = open(line{damaged: "b"}, kept)
		}
	}
	if main, stale, err = h.Main(t.Context(), "c"); err != nil || stale || main.Commit != "c" {
		t.Errorf("c: %q, stale %v, %v", main.Commit, stale, err)
	}
	if h, _ = open(line{damaged: "b"}, book{}); true {
		if _, _, err := h.Main(t.Context(), "b"); err == nil {
			t.Error("nothing is known, and main is read all the same")
		}
	}
}

// A move of main to a commit that does not contain where it was is shown until main contains that again.
func TestMainWentBack(t *testing.T) {
	kept := book{}
	h, _ := open(line{}, kept)
	for _, move := range []struct {
		to   string
		from []string // moves back that are shown, newest first
	}{
		{"b", nil}, {"d", nil}, {"a", []string{"d"}}, {"b", []string{"d"}}, {"a", []string{"d"}}, {"d", nil},
	} {
		main, _, err := h.Main(t.Context(), move.to)
		if err != nil {
			t.Fatal(err)
		}
		var from []string
		for _, back := range main.Rewound {
			from = append(from, back.From)
		}
		if !slices.Equal(from, move.from) {
			t.Errorf("at %s: went back from %v, want %v", move.to, from, move.from)
		}
		h, _ = open(line{}, kept) // a restart
	}
}

// An earlier version of AOB kept one move back and no list.
func TestReadRewound(t *testing.T) {
	for content, want := range map[string]int{
		``: 0, `[]`: 0, `no JSON`: 0, `{"from":"b","to":"a"}`: 1, `{}`: 0,
		`[{"from":"b","to":"a"},{"from":"c","to":"b"}]`: 2,
	} {
		if got := len(readRewound(content)); got != want {
			t.Errorf("%q: %d moves back, want %d", content, got, want)
		}
	}
}

// renamed is a repository whose last merge has removed a release file.
type renamed struct{ line }

func (renamed) History(string, string) ([]git.FileVersion, error) {
	return []git.FileVersion{{Commit: "b"}, {Commit: "s", Side: true}}, nil
}
func (renamed) Subject(commit string) (string, error) {
	return "Merge 30: rename (was #7, " + commit + ")", nil
}

// The pull request that removed a model's release file on main is known by the subject of its merge.
func TestRemovalNamesItsPullRequest(t *testing.T) {
	h, _ := open(renamed{}, book{})
	past, err := h.releasesOf("b", "raccoon")
	if err != nil || len(past) != 2 || past[0].Pull != 30 || past[1].Pull != 0 {
		t.Errorf("got %+v, %v", past, err)
	}
}

// A counted repository has one release file a commit, and counts the files that are read.
type counted struct {
	line
	read  map[string]int
	large bool // files are too large, so far
}

func (c *counted) History(head, _ string) (list []git.FileVersion, err error) {
	for commit := head[0]; commit >= 'a'; commit-- {
		list = append(list, git.FileVersion{Commit: string(commit), Blob: "release " + string(commit)})
	}
	return list, nil
}

func (c *counted) Blob(blob string, _ int64) ([]byte, error) {
	c.read[blob]++
	if c.large {
		return nil, git.ErrTooBig
	}
	version := strings.TrimPrefix(blob, "release ")[0] - 'a' + 1
	return fmt.Appendf(nil, "apiVersion: aob/v1\nkind: Release\nname: raccoon\nversion: %d\nbundle: %s\nspec: %s\n"+
		"measured: []\n", version, delivery.Sum(nil), delivery.Sum(nil)), nil
}

// Each release file is read and parsed once, however often main moves.
func TestReleaseFilesAreReadOnce(t *testing.T) {
	repo := &counted{read: map[string]int{}}
	h, _ := open(repo, book{})
	for _, head := range []string{"a", "b", "b", "c", "b", "c"} {
		past, err := h.releasesOf(head, "raccoon")
		if err != nil || len(past) != int(head[0]-'a'+1) {
			t.Fatalf("%s: %d versions, %v", head, len(past), err)
		}
		for i, p := range past {
			if p.Release == nil || p.Release.Version != len(past)-i {
				t.Errorf("%s: version %d is %+v", head, len(past)-i, p.Release)
			}
		}
	}
	if diff := cmp.Diff(map[string]int{"release a": 1, "release b": 1, "release c": 1}, repo.read); diff != "" {
		t.Errorf("reads (-want +got):\n%s", diff)
	}
}

// A file that was not fetched because of its size may be there later.
func TestLargeReleaseFilesAreReadAgain(t *testing.T) {
	repo := &counted{read: map[string]int{}, large: true}
	h, _ := open(repo, book{})
	if past, err := h.releasesOf("a", "raccoon"); err != nil || past[0].Release != nil {
		t.Fatalf("%+v, %v", past, err)
	}
	repo.large = false
	if past, err := h.releasesOf("a", "raccoon"); err != nil || past[0].Release == nil {
		t.Fatalf("%+v, %v", past, err)
	}
}
