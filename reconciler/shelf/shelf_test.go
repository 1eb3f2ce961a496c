package shelf_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/engine"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/retention"
	"github.com/autonomos/aob/reconciler/rollout"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/shelf"
	"github.com/autonomos/aob/reconciler/trainer"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func digest(text string) delivery.Digest { return delivery.Sum([]byte(text)) }

// A room is a server's stores, with a loop that stands still.
type room struct {
	t     *testing.T
	dir   string
	world plan.World
	plan  plan.Plan

	datasets     []dataset.Kept
	environments []trainer.Kept
	removed      []string // datasets and environments
	unreadable   delivery.Digest
	tracked      []string // keys of records of trainings that are over
	between      func()   // called before each look between turns; may be nil
}

func (r *room) BetweenTurns(_ context.Context, do func(w plan.World, p plan.Plan) error) error {
	if r.between != nil {
		r.between()
	}
	return do(r.world, r.plan)
}

func (r *room) DetachRun(key delivery.Digest) (string, error) {
	folder := run.Folder(filepath.Join(r.dir, "runs"), r.world.Runs[key].Spec.Kind, key)
	gone := filepath.Join(r.dir, "runs", ".gone-"+key.Hex())
	delete(r.world.Runs, key)
	return gone, os.Rename(folder, gone)
}

func (r *room) ForgetPosts(func(commit string, pull int) bool) {}

func (r *room) ForgetTracked(context.Context, time.Time) ([]string, error) { return r.tracked, nil }

func (r *room) State(key delivery.Digest) (delivery.RunState, error) {
	if key == r.unreadable {
		return delivery.RunState{}, errors.New("its disk is gone")
	}
	return r.world.Runs[key], nil
}

type datasets struct{ *room }

func (d datasets) Kept() ([]dataset.Kept, error) { return d.datasets, nil }
func (d datasets) Remove(k dataset.Kept, _ time.Time) error {
	d.removed = append(d.removed, k.Dataset)
	return nil
}

type environments struct{ *room }

func (e environments) Kept() ([]trainer.Kept, error) { return e.environments, nil }
func (e environments) Remove(k trainer.Kept, _ time.Time) error {
	e.removed = append(e.removed, k.Name)
	return nil
}

// furnished is a room in which main is read and nothing is needed.
func furnished(t *testing.T) (*room, *shelf.Shelf) {
	r := &room{t: t, dir: t.TempDir(), world: plan.World{ProposalsKnown: true,
		Main: plan.Main{Branch: "main", Commit: strings.Repeat("a", 40)},
		Runs: map[delivery.Digest]delivery.RunState{}}}
	book, err := ledger.Open(t.Context(), filepath.Join(r.dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := artifact.Open(filepath.Join(r.dir, "bundles"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { book.Close() })
	limits := retention.Limits{}
	for _, kind := range []retention.Kind{retention.Run, retention.Bundle, retention.Dataset, retention.Environment,
		retention.Said, retention.Clock, retention.Left, retention.Pictures, retention.Checkpoint,
		retention.Detections, retention.Images, retention.Engine} {
		limits[kind] = 24 * time.Hour
	}
	return r, &shelf.Shelf{Loop: r, State: r.dir, Runs: r, Bundles: bundles, Datasets: datasets{r},
		Environments: environments{r}, Ledger: book,
		Engines: engine.Cache(filepath.Join(r.dir, "engines")), Limits: limits, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return now }}
}

// put writes a file of an age, with its folders.
func (r *room) put(age time.Duration, parts ...string) string {
	r.t.Helper()
	path := filepath.Join(append([]string{r.dir}, parts...)...)
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("content"), 0o644),
		os.Chtimes(path, now.Add(-age), now.Add(-age)))
	if err != nil {
		r.t.Fatal(err)
	}
	return path
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// run puts a run that has ended, with a folder.
func (r *room) run(name string, age time.Duration) (key delivery.Digest, folder string) {
	key = digest(name)
	r.world.Runs[key] = delivery.RunState{Spec: delivery.RunSpec{Key: key, Kind: delivery.RunData,
		Data: &delivery.DataRun{}}, Phase: delivery.RunDone, Started: now.Add(-age), Ended: now.Add(-age),
		Result: []byte("{}")}
	folder = run.Folder(filepath.Join(r.dir, "runs"), delivery.RunData, key)
	rel, err := filepath.Rel(r.dir, folder)
	if err != nil {
		r.t.Fatal(err)
	}
	r.put(age, rel, "journal")
	return key, folder
}

func sweep(t *testing.T, s *shelf.Shelf) []string {
	t.Helper()
	gone, _, err := s.Sweep(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, d := range gone {
		kinds = append(kinds, string(d.Kind))
	}
	slices.Sort(kinds)
	return kinds
}

const month = 30 * 24 * time.Hour

func TestOldThingsAreRemoved(t *testing.T) {
	r, s := furnished(t)
	var old, young []string
	for _, place := range []string{"pictures", "checkpoints"} {
		old = append(old, r.put(month, place, digest("old").Hex()))
		young = append(young, r.put(time.Hour, place, digest("young").Hex()))
	}
	for _, place := range []string{"detections", "seen"} {
		old = append(old, r.put(month, place, digest("old").Hex()+".json"))
		young = append(young, r.put(time.Hour, place, digest("young").Hex()+".json"))
	}
	for age, list := range map[time.Duration]*[]string{month: &old, time.Hour: &young} {
		key := digest(age.String()).Hex()
		*list = append(*list, filepath.Dir(r.put(age, "engines", key, "gpu", "10.9", key, "engine.plan")))
		if err := os.Chtimes((*list)[len(*list)-1], now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	other := r.put(month, "pictures", "a name that AOB does not make")
	old = append(old, r.put(month, "runs", ".gone-x"))
	_, folder := r.run("old", month)
	_, fresh := r.run("young", time.Hour)
	old, young = append(old, folder), append(young, fresh, other)
	r.world.Clocks = map[string]rollout.State{}
	r.datasets = []dataset.Kept{{Dataset: "dir:old", Folder: "/x/" + digest("d").Hex(), Used: now.Add(-month)}}
	r.environments = []trainer.Kept{{Name: "old", Used: now.Add(-month)}}

	look, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range slices.Concat(old, young) {
		if !there(path) {
			t.Errorf("looking has removed %s", path)
		}
	}
	gone := sweep(t, s)
	count := 0
	for _, d := range look {
		if !d.Keep {
			count++
		}
	}
	if count != len(gone) {
		t.Errorf("looking says that %d things would be removed, and %d were: %v", count, len(gone), gone)
	}
	for _, path := range old {
		if there(path) {
			t.Errorf("%s is still there", path)
		}
	}
	for _, path := range young {
		if !there(path) {
			t.Errorf("%s is gone", path)
		}
	}
	if !slices.Equal(r.removed, []string{"dir:old", "old"}) {
		t.Errorf("of datasets and environments, %v were removed", r.removed)
	}
	if again := sweep(t, s); len(again) > 2 { // the stand-ins still list theirs
		t.Errorf("a second sweep removes %v", again)
	}
}

// Folders that have no limit are shown with their sizes; one that is missing is not.
func TestFoldersAreMeasured(t *testing.T) {
	r, s := furnished(t)
	r.put(time.Hour, "mirror", "pack", "a")
	r.put(time.Hour, "mirror", "b")
	s.Folders = map[string]string{"mirror": filepath.Join(r.dir, "mirror"), "none": filepath.Join(r.dir, "none")}
	if _, err := s.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	total := s.Totals()
	if _, there := total["none"]; there || total["mirror"] != (retention.Total{Count: 1, Bytes: 14}) {
		t.Errorf("the folders: %v", total)
	}
}

// While it is not known what is needed, everything stays.
func TestNothingIsRemovedInDoubt(t *testing.T) {
	for name, doubt := range map[string]func(r *room){
		"main cannot be read":                    func(r *room) { r.world.Main.Commit = "" },
		"the list of pull requests is not known": func(r *room) { r.world.ProposalsKnown = false },
		"a statement is damaged": func(r *room) {
			r.world.Evidence.Unread = []plan.UnreadStatement{{Bundle: digest("b")}}
		},
		"a pull request is not read yet": func(r *room) { r.world.Proposals = []plan.Proposal{{Stale: true}} },
	} {
		t.Run(name, func(t *testing.T) {
			r, s := furnished(t)
			_, folder := r.run("old", month)
			picture := r.put(month, "pictures", digest("old").Hex())
			was := *r
			doubt(r)
			if gone := sweep(t, s); len(gone) > 0 || !there(folder) || !there(picture) {
				t.Errorf("%v were removed", gone)
			}
			if got := s.Blocked(); !got.Equal(now) {
				t.Errorf("it is blocked since %s, want %s", got, now)
			}
			r.world = was.world
			if sweep(t, s); !s.Blocked().IsZero() || there(folder) {
				t.Errorf("it is known what is needed, and it is blocked since %s", s.Blocked())
			}
		})
	}
	t.Run("the result of a run cannot be read", func(t *testing.T) {
		r, s := furnished(t)
		key, folder := r.run("old", month)
		state := r.world.Runs[key]
		state.Result, r.unreadable = nil, key
		r.world.Runs[key] = state
		if _, _, err := s.Sweep(t.Context(), 0, 0); err == nil || !there(folder) {
			t.Errorf("the sweep ended with %v", err)
		}
	})
}

// Who asks while things are removed is not kept waiting, and the list is not made twice.
func TestListedDuringASweep(t *testing.T) {
	r, s := furnished(t)
	r.run("old", month)
	ctx, cancel := context.WithCancel(t.Context())
	asked := false
	r.between = func() {
		if asked {
			return
		}
		asked = true
		cancel()
		if _, err := s.Look(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("asked during a sweep: %v", err)
		}
	}
	if gone := sweep(t, s); !asked || len(gone) == 0 {
		t.Errorf("%v were removed", gone)
	}
	if list, err := s.Look(t.Context()); err != nil {
		t.Errorf("afterwards: %v, %v", list, err)
	}
}

// What becomes needed between the decision and the removal stays.
func TestWhatIsNeededMeanwhileStays(t *testing.T) {
	r, s := furnished(t)
	key, folder := r.run("old", month)
	looks := 0
	r.between = func() {
		if looks++; looks == 3 { // the first two decide, the third removes
			r.plan.Needed = []delivery.Digest{key}
		}
	}
	if gone := sweep(t, s); len(gone) > 0 || !there(folder) {
		t.Errorf("%v were removed", gone)
	}
}

// A link in a place is removed itself, and not what it points to.
func TestLinksAreNotFollowed(t *testing.T) {
	r, s := furnished(t)
	outside := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(outside, []byte("outside"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.put(month, "pictures", digest("other").Hex())
	link := filepath.Join(r.dir, "pictures", digest("link").Hex())
	if err := os.Symlink(filepath.Dir(outside), link); err != nil {
		t.Fatal(err)
	}
	s.Now = func() time.Time { return time.Now().Add(month) }
	sweep(t, s)
	if there(link) || !there(outside) {
		t.Errorf("the link is there: %t; what it points to is there: %t", there(link), there(outside))
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir, "pictures", "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
