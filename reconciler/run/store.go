package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A Store is the loop's side: it starts runs and reads how they stand. One
// process starts and ends runs in a folder; any number may read. The zero value
// but for Dir and Command works, also from several goroutines.
type Store struct {
	Dir     string   // made if missing
	Command []string // starts a runner; the run's folder is appended
	StateID string   // of the state folder; runners that another one's server started are not signalled
	Env     Environment
	Wake    func() // if not nil, called when a runner that this Store launched is gone

	mu       sync.Mutex
	runs     map[delivery.Digest]*observed
	active   map[*observed]bool  // those of runs that are looked at every turn
	states   []delivery.RunState // what Observe answers, by key; nil after a run came or went
	listed   time.Time           // the folder's time of change when it was last listed
	unread   map[string]error    // by the folder's name: why a run cannot be read
	results  map[delivery.Digest]json.RawMessage
	resident int // bytes of results
}

// An Environment returns the whole environment of a run's runner, as KEY=value. Secrets
// reach a run through it and no other way: it is never stored.
type Environment func(delivery.RunSpec) ([]string, error)

func (e Environment) of(spec delivery.RunSpec) ([]string, error) {
	if e == nil {
		return nil, nil
	}
	return e(spec)
}

// maxResident is how many bytes of results are kept in memory. Scores carry
// their resamples, so ten thousand runs' results would not fit.
const maxResident = 64 << 20

// maxLog is the size in bytes from which a runner's log is set aside.
const maxLog = 1 << 20

// Start makes the run's folder and launches its runner, which outlives this
// process. It does nothing where the run is running, done or failed, so a repeat
// is harmless. It answers a delivery.Wait while the pause after a failed attempt
// lasts. A request to end an earlier attempt is void from here on.
func (s *Store) Start(ctx context.Context, spec delivery.RunSpec) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkSpec(spec); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.create(spec)
	if err != nil {
		return fmt.Errorf("start %s run %s: %w", spec.Kind, spec.Key.Short(), err)
	}
	if err := o.refresh(); err != nil {
		return err
	}
	switch o.state.Phase {
	case delivery.RunRunning, delivery.RunDone, delivery.RunFailed:
		return nil
	}
	if err := o.tooSoon(time.Now()); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(o.dir, endFile)); err == nil {
		err = durable.SyncDir(o.dir)
		if err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return s.launch(o)
}

// End asks the run to end, and says why. It does not wait for it: until the run
// has ended its state says when it was asked, so that nobody asks without a pause.
// Where the runner died, another is launched to clean up what it left. It does
// nothing for a run that has ended, was stopped, or is not known.
func (s *Store) End(ctx context.Context, key delivery.Digest, why string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find(key)
	if o == nil || err != nil {
		return err
	}
	if err := o.refresh(); err != nil || o.closed {
		return err
	}
	end := ending{At: time.Now().UTC(), Why: why}
	data, err := json.Marshal(end)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(o.dir, endFile), data, 0o600); err != nil {
		return fmt.Errorf("end run %s: %w", key.Short(), err)
	}
	o.state.EndReason, o.state.EndRequested = end.Why, end.At
	switch o.state.Phase {
	case delivery.RunRunning:
		if o.history.state != "" && o.history.state != s.StateID {
			return nil // its own runner has not begun, and will see end.json; this one is another folder's
		}
		err := o.history.process.Signal(syscall.SIGTERM)
		if errors.Is(err, os.ErrProcessDone) {
			return nil // it has just ended, or has not begun; end.json is there
		}
		return err
	case delivery.RunDied:
		if err := o.tooSoon(time.Now()); err != nil {
			return err
		}
		return s.launch(o)
	}
	return nil
}

// Keep records who needs a run. It does nothing for a run that is not known.
func (s *Store) Keep(key delivery.Digest, need delivery.RunNeed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find(key)
	if o == nil || err != nil || o.state.Need.Equal(need) {
		return err
	}
	data, err := json.Marshal(need)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(o.dir, needFile), data, 0o600); err != nil {
		return fmt.Errorf("keep who needs run %s: %w", key.Short(), err)
	}
	o.state.Need, s.states = need, nil
	return nil
}

// Retry opens a failed run again, its earlier attempts forgiven; Start goes on
// from where it was. It does nothing for a run that has not failed.
func (s *Store) Retry(key delivery.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find(key)
	if o == nil || err != nil || o.state.Phase != delivery.RunFailed {
		return err
	}
	lock, err := takeLock(filepath.Join(o.dir, lockFile))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	j, err := openJournal(filepath.Join(o.dir, journalFile))
	if err != nil {
		return err
	}
	err = j.append(entry{Event: eventRetry})
	s.reopen(o)
	return errors.Join(err, j.f.Close())
}

// Remove deletes a run with all it made. A run that is running, or that died
// and may have left something running, is refused with a delivery.Wait: End it.
func (s *Store) Remove(key delivery.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find(key)
	if o == nil || err != nil {
		return err
	}
	if err := o.refresh(); err != nil {
		return err
	}
	if p := o.state.Phase; p == delivery.RunRunning || p == delivery.RunDied {
		return delivery.Wait{For: time.Second, What: fmt.Sprintf("run %s is %s: end it before it is removed",
			key.Short(), p)}
	}
	gone := filepath.Join(s.Dir, ".gone-"+filepath.Base(o.dir))
	if err := durable.Rename(o.dir, gone); err != nil {
		return err
	}
	s.forget(key)
	return os.RemoveAll(gone)
}

// Observe returns how all runs stand, ordered by key and without their results.
// The slice is shared: it must not be changed. Folders that cannot be read are
// left out, and are the error beside the rest.
//
// A first call reads the spec and the journal of every run. Later ones read
// what was appended to those that have not ended, and cost one stat of Dir
// where there are none.
func (s *Store) Observe() ([]delivery.RunState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.list()
	for _, name := range slices.Sorted(maps.Keys(s.unread)) {
		err = errors.Join(err, s.unread[name])
	}
	for o := range s.active {
		err = errors.Join(err, o.refresh())
	}
	if s.states == nil {
		s.states = make([]delivery.RunState, 0, len(s.runs))
		for _, key := range slices.Sorted(maps.Keys(s.runs)) {
			o := s.runs[key]
			o.index = len(s.states)
			s.states = append(s.states, o.state)
		}
	}
	shared := true
	for o := range s.active {
		if !reflect.DeepEqual(s.states[o.index], o.state) {
			if shared { // the slice that was answered before stays as it was
				s.states, shared = slices.Clone(s.states), false
			}
			s.states[o.index] = o.state
		}
		if o.closed {
			delete(s.active, o)
		}
	}
	return s.states, err
}

// State returns how one run stands, with its result if it is done. A run that
// was never started has phase RunUnknown.
func (s *Store) State(key delivery.Digest) (delivery.RunState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find(key)
	if o == nil || err != nil {
		return delivery.RunState{}, err
	}
	if err := o.refresh(); err != nil {
		return delivery.RunState{}, err
	}
	state := o.state
	if state.Phase == delivery.RunDone {
		state.Result, err = s.result(o)
	}
	return state, err
}

// Folder returns the run's folder, which exists once Start has returned.
func (s *Store) Folder(kind delivery.RunKind, key delivery.Digest) string {
	return Folder(s.Dir, kind, key)
}

// create returns the run of a spec, its folder made if it is not there.
func (s *Store) create(spec delivery.RunSpec) (*observed, error) {
	if o, err := s.find(spec.Key); o != nil || err != nil {
		return o, err
	}
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	// Under its name the folder always has its spec.
	tmp, err := os.MkdirTemp(s.Dir, ".new-*")
	if err != nil {
		return nil, err
	}
	err = durable.WriteFile(filepath.Join(tmp, specFile), append(data, '\n'), 0o600)
	if err == nil {
		err = durable.Rename(tmp, s.Folder(spec.Kind, spec.Key))
	}
	if err != nil {
		os.RemoveAll(tmp)
		return nil, err
	}
	o := &observed{dir: s.Folder(spec.Kind, spec.Key), state: delivery.RunState{Spec: spec}}
	s.add(o)
	return o, nil
}

// find returns what is known of a run, nil for nothing. Other runs that cannot be read are no error.
func (s *Store) find(key delivery.Digest) (*observed, error) {
	if o := s.runs[key]; o != nil {
		return o, nil
	}
	err := s.list()
	if o := s.runs[key]; o != nil || err != nil {
		return o, err
	}
	for name, err := range s.unread {
		kind, _, _ := strings.Cut(name, "-")
		if name == filepath.Base(s.Folder(delivery.RunKind(kind), key)) {
			return nil, err
		}
	}
	return nil, nil
}

// list brings s.runs in line with the folder where that has changed.
func (s *Store) list() error {
	if s.runs == nil {
		s.runs, s.active = map[delivery.Digest]*observed{}, map[*observed]bool{}
	}
	info, err := os.Stat(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.ModTime().Equal(s.listed) && len(s.unread) == 0 { // those are tried again each time
		return nil
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	// The file system's clock is coarse: a folder made right after this listing
	// may leave the same time, so a fresh time is not relied on.
	if s.listed = info.ModTime(); time.Since(s.listed) < time.Second {
		s.listed = time.Time{}
	}
	known := map[string]*observed{}
	for _, o := range s.runs {
		known[filepath.Base(o.dir)] = o
	}
	var fresh []string
	there := map[string]bool{}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && !strings.HasPrefix(name, ".") {
			there[name] = true
			if known[name] == nil {
				fresh = append(fresh, name)
			}
		}
	}
	for name, o := range known {
		if !there[name] {
			s.forget(o.state.Spec.Key)
		}
	}
	loaded, errs := s.load(fresh)
	s.unread = map[string]error{}
	for i, o := range loaded {
		if errs[i] != nil {
			s.unread[fresh[i]] = errs[i]
		}
		if o != nil {
			s.add(o)
		}
	}
	return nil
}

func (s *Store) add(o *observed) {
	s.runs[o.state.Spec.Key], s.states = o, nil
	if !o.closed {
		s.active[o] = true
	}
}

func (s *Store) reopen(o *observed) {
	o.closed, s.active[o] = false, true
}

func (s *Store) forget(key delivery.Digest) {
	delete(s.active, s.runs[key])
	delete(s.runs, key)
	s.states = nil
	s.resident -= len(s.results[key])
	delete(s.results, key)
}

// load reads folders seen for the first time, a few at once: with thousands of
// them it is the disk that takes the time.
func (s *Store) load(names []string) (loaded []*observed, errs []error) {
	loaded, errs = make([]*observed, len(names)), make([]error, len(names))
	var work sync.WaitGroup
	const workers = 8
	for w := range workers {
		work.Go(func() {
			for i := w; i < len(names); i += workers {
				loaded[i], errs[i] = s.open(names[i])
			}
		})
	}
	work.Wait()
	return loaded, errs
}

func (s *Store) open(name string) (*observed, error) {
	dir := filepath.Join(s.Dir, name)
	spec, err := readSpec(dir)
	if err != nil {
		return nil, err
	}
	if want := s.Folder(spec.Kind, spec.Key); want != dir {
		return nil, fmt.Errorf("%s holds the run that belongs in %s", dir, filepath.Base(want))
	}
	o := &observed{dir: dir, state: delivery.RunState{Spec: spec, Need: readNeed(dir)}}
	return o, o.refresh()
}

// result returns a done run's result, checked against the journal's word.
func (s *Store) result(o *observed) (json.RawMessage, error) {
	key := o.state.Spec.Key
	if data, ok := s.results[key]; ok {
		return data, nil
	}
	path := filepath.Join(o.dir, resultFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if got := delivery.Sum(data); got != o.history.last.Result {
		return nil, fmt.Errorf("%s: is %s, the journal says %s: remove the run and it is made again", path, got,
			o.history.last.Result)
	}
	if s.results == nil || s.resident+len(data) > maxResident {
		s.results, s.resident = map[delivery.Digest]json.RawMessage{}, 0
	}
	s.results[key] = data
	s.resident += len(data)
	return data, nil
}

// launch starts a runner in a session of its own.
func (s *Store) launch(o *observed) error {
	if len(s.Command) == 0 {
		return errors.New("no command to start a runner with")
	}
	path := filepath.Join(o.dir, logFile)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.Command[0], append(slices.Clone(s.Command[1:]), o.dir)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = o.dir, log, log
	env, err := s.Env.of(o.state.Spec)
	if err != nil {
		return err
	}
	cmd.Env = append([]string{}, env...) // nil would hand over all of ours
	if s.StateID != "" {
		cmd.Env = append(cmd.Env, stateVariable+"="+s.StateID)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a runner: %w", err)
	}
	c := &child{attempt: o.history.attempt}
	if o.child != nil {
		c.failures = o.child.failures
	}
	o.child = c
	s.reopen(o)
	go func() {
		err := cmd.Wait()
		s.mu.Lock()
		c.gone, c.ended = true, time.Now()
		if err == nil {
			c.failures = 0
		} else {
			c.failures++ // until the journal shows that it began an attempt
		}
		s.mu.Unlock()
		if s.Wake != nil {
			s.Wake()
		}
	}()
	return nil
}
