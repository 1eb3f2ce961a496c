package terraform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
)

// More files of an attempt's folder.
const (
	attemptFile = "begun.json"
	appliedFile = "applied.json"
	settledFile = "settled.json"
	stackFolder = "terraform"
)

// An attempt is one launch of a training: a folder with its own Terraform state.
type attempt struct {
	dir     string
	number  int
	begun   time.Time
	applied time.Time // when apply returned; zero if it did not
	settled bool      // no process or resource is left
	spent   time.Duration
	lost    Lost
	watched bool // by this process, which saw it end
}

// A settlement is settled.json.
type settlement struct {
	At    time.Time         `json:"at"`
	Spent delivery.Duration `json:"spent"` // how long the trainer ran, for the limit
	Lost  Lost              `json:"lost,omitempty"`
}

// attempts returns a run's attempts, oldest first.
func attempts(run string) ([]*attempt, error) {
	dir := filepath.Join(run, "attempts")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var list []*attempt
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || n < 1 || !e.IsDir() {
			continue
		}
		a := &attempt{dir: filepath.Join(dir, e.Name()), number: n}
		// A crash may leave a folder without begun.json: nothing was launched in it.
		if a.begun, err = readMoment(filepath.Join(a.dir, attemptFile)); err != nil {
			return nil, err
		}
		if a.applied, err = readMoment(filepath.Join(a.dir, appliedFile)); err != nil {
			return nil, err
		}
		var s settlement
		switch err := durable.ReadJSON(filepath.Join(a.dir, settledFile), &s); {
		case err == nil:
			a.settled, a.spent, a.lost = true, time.Duration(s.Spent), s.Lost
		case !errors.Is(err, os.ErrNotExist):
			return nil, err
		}
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *attempt) int { return a.number - b.number })
	return list, nil
}

// heldFile is in a run's folder: how many attempts there were when a person had to act. Earlier ones do not count any
// more once the person lets the run go on.
const heldFile = "held.json"

// A hold is held.json.
type hold struct {
	Attempts int `json:"attempts"`
}

// upcoming returns the next attempt of a run.
func upcoming(run string, list []*attempt) (Next, error) {
	next := Next{Number: 1, Spent: spentOn(list)}
	var held hold
	if err := durable.ReadJSON(filepath.Join(run, heldFile), &held); err != nil && !errors.Is(err, os.ErrNotExist) {
		return next, err
	}
	for _, a := range list {
		if next.Number = a.number + 1; a.lost != "" && a.number > held.Attempts {
			next.Earlier = append(next.Earlier, a.lost)
		}
	}
	next.Dir = attemptDir(run, next.Number)
	return next, nil
}

func spentOn(list []*attempt) (spent time.Duration) {
	for _, a := range list {
		spent += a.spent
	}
	return spent
}

func attemptDir(run string, number int) string {
	return filepath.Join(run, "attempts", strconv.Itoa(number))
}

// begin creates the next attempt's folder.
func begin(run string, number int, l launch) (*attempt, error) {
	a := &attempt{dir: attemptDir(run, number), number: number, begun: time.Now().UTC()}
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, err
	}
	l.Mark = a.dir
	l.Env = append([]string{"PATH=" + path, "LANG=C.UTF-8"}, l.Env...)
	if err := durable.WriteJSON(filepath.Join(a.dir, launchFile), l); err != nil {
		return nil, err
	}
	return a, writeMoment(filepath.Join(a.dir, attemptFile), a.begun)
}

// A moment is a file that records a time.
type moment struct {
	At time.Time `json:"at"`
}

func writeMoment(path string, at time.Time) error { return durable.WriteJSON(path, moment{at}) }

// readMoment returns the zero time if the file is missing.
func readMoment(path string) (time.Time, error) {
	var m moment
	if err := durable.ReadJSON(path, &m); err != nil && !errors.Is(err, os.ErrNotExist) {
		return time.Time{}, err
	}
	return m.At, nil
}

// copied reports whether an attempt's folder is a copy whose original still exists. The
// files of a copy name the original's processes.
func copied(dir string) bool {
	var l launch
	if err := durable.ReadJSON(filepath.Join(dir, launchFile), &l); err != nil || l.Mark == "" || l.Mark == dir {
		return false
	}
	original, err := os.Stat(l.Mark)
	if err != nil {
		return false // moved
	}
	here, err := os.Stat(dir)
	return err == nil && !os.SameFile(original, here)
}

func (a *attempt) stackDir() string { return filepath.Join(a.dir, stackFolder) }

// settle ends the attempt: it fences the folder, destroys the stack, ends all processes, collects what they left and
// records the end. After an error in one step it still tries to end all processes.
func (t *Trainer) settle(ctx context.Context, req trainer.Request, a *attempt, why Lost) error {
	if a.settled {
		return nil
	}
	ran := t.ran(ctx, req.Dir, a)
	if err := fence(a.dir); err != nil {
		return err
	}
	var err error
	if !copied(a.dir) { // a copy's Terraform state names the original's resources
		err = t.destroy(ctx, a)
	}
	if err = errors.Join(err, t.Machine.Stop(ctx, a.dir)); err == nil {
		err = t.Machine.Collect(ctx, req, a.dir)
	}
	if err != nil {
		return fmt.Errorf("clean up attempt %d: %w", a.number, err)
	}
	s := settlement{At: time.Now().UTC(), Spent: delivery.Duration(ran), Lost: why}
	if err := durable.WriteJSON(filepath.Join(a.dir, settledFile), s); err != nil {
		return err
	}
	a.settled, a.spent, a.lost = true, ran, why
	return nil
}

// ran returns how long the attempt's trainer has run: until now if it is alive or was just seen to end, else until the
// last sign of life that a process of AOB saw. What the trainer says of the time can only make it longer.
func (t *Trainer) ran(ctx context.Context, run string, a *attempt) time.Duration {
	if a.begun.IsZero() {
		return 0
	}
	now := time.Now()
	alive, err := t.Machine.Alive(ctx, a.dir)
	if a.watched || err != nil || alive {
		return max(0, now.Sub(a.begun))
	}
	end := a.begun
	seen := func(at time.Time) {
		if at.After(end) && at.Before(now) {
			end = at
		}
	}
	if s, err := readStatus(run, delivery.Mask{}); err == nil {
		seen(s.Heartbeat)
	}
	for _, path := range []string{filepath.Join(run, outputDir, statusFile), filepath.Join(a.dir, trainerLog),
		filepath.Join(a.dir, bootLog)} {
		if info, err := os.Lstat(path); err == nil {
			seen(info.ModTime())
		}
	}
	return end.Sub(a.begun)
}

func (t *Trainer) destroy(ctx context.Context, a *attempt) error {
	if !exists(a.stackDir()) {
		return nil
	}
	env, err := t.Machine.Env(ctx)
	if err != nil {
		return err
	}
	s, err := t.Machine.Module(t.module(), a.dir).Reopen(a.stackDir(), Policy{}, env)
	if err != nil {
		return err
	}
	return s.Destroy(ctx)
}
