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

// A Store starts and ends runs and reads their states. Only one process may start and end runs in a folder; any number
// may read. Only Dir and Command are required. Its methods may be called from several goroutines.
type Store struct {
	Dir     string   // made if missing
	Command []string // starts a runner; the run's folder is appended
	StateID string   // of the state folder; runners of another state folder are not signalled
	Env     Environment
	Mask    func() delivery.Mask // of secrets in status messages and logs; nil if there are none
	Wake    func()               // if not nil, called when a runner that this Store launched has ended

	mu       sync.Mutex
	runs     map[delivery.Digest]*observed
	active   map[*observed]bool  // the runs that Observe reads
	states   []delivery.RunState // the result of Observe, by key; nil after a run was added or removed
	listed   time.Time           // the folder's modification time at the last listing
	unread   map[string]error    // by folder name: why a run cannot be read
	results  map[delivery.Digest]json.RawMessage
	resident int // bytes of results
}

// An Environment returns the whole environment of a run's runner, as KEY=value. Secrets
// reach a run only this way. It is never stored.
type Environment func(delivery.RunSpec) ([]string, error)

// maxResident is how many bytes of results are kept in memory. Scores include their
// resamples, so the results of thousands of runs are large.
const maxResident = 64 << 20

// maxLog is the size in bytes above which a runner's log is renamed.
const maxLog = 1 << 20

// Start creates the run's folder and launches its runner, which outlives this process. It does nothing if the run is
// running, done or failed, so it may be repeated. It returns a delivery.Wait while the pause after a failed attempt
// lasts. It cancels an earlier request to end.
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
	err = os.Remove(filepath.Join(o.dir, endFile))
	if err == nil {
		err = durable.SyncDir(o.dir)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return s.launch(o)
}

// End requests that a run ends, and returns without waiting. Until the run has ended, its state has the reason and the
// time of the request. If the runner died, another is launched to clean up. End does nothing for a run that has ended,
// was stopped, or is not known.
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
	if err := durable.WriteJSON(filepath.Join(o.dir, endFile), end); err != nil {
		return fmt.Errorf("end run %s: %w", key.Short(), err)
	}
	o.state.EndReason, o.state.EndRequested = end.Why, end.At
	switch o.state.Phase {
	case delivery.RunRunning:
		if o.history.state != "" && o.history.state != s.StateID {
			return nil // the recorded process belongs to another state folder; our runner reads end.json
		}
		err := o.history.process.Signal(syscall.SIGTERM)
		if errors.Is(err, os.ErrProcessDone) {
			return nil // it has just ended, or has not begun and will read end.json
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

// Keep records who needs a run. It does nothing for an unknown run.
func (s *Store) Keep(key delivery.Digest, need delivery.RunNeed) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find(key)
	if o == nil || err != nil || o.state.Need.Equal(need) {
		return err
	}
	if err := durable.WriteJSON(filepath.Join(o.dir, needFile), need); err != nil {
		return fmt.Errorf("record who needs run %s: %w", key.Short(), err)
	}
	o.state.Need, s.states = need, nil
	return nil
}

// Retry resets a failed run, so that Start can launch it again. Failed attempts no longer
// count. Retry does nothing for a run that has not failed.
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

// Remove deletes a run and its files. It returns a delivery.Wait for a run that is
// running, or that died and may have left processes; call End first.
func (s *Store) Remove(key delivery.Digest) error {
	gone, err := s.Detach(key)
	if gone == "" || err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

// Detach is Remove without deleting the files, which may take long: the caller deletes the folder that it returns. It
// is "" if there is no such run.
func (s *Store) Detach(key delivery.Digest) (gone string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, err := s.find(key)
	if o == nil || err != nil {
		return "", err
	}
	if err := o.refresh(); err != nil {
		return "", err
	}
	if p := o.state.Phase; p == delivery.RunRunning || p == delivery.RunDied {
		return "", delivery.Wait{For: time.Second, What: fmt.Sprintf("run %s is %s: end it before it is removed",
			key.Short(), p)}
	}
	gone = filepath.Join(s.Dir, ".gone-"+filepath.Base(o.dir))
	err = os.RemoveAll(gone) // left by a process that was killed
	if err == nil {
		err = durable.Rename(o.dir, gone)
	}
	if err != nil {
		return "", err
	}
	s.forget(key)
	return gone, nil
}

// Observe returns the states of all runs, ordered by key and without results. The caller must not change the slice.
// Folders that cannot be read are left out and reported in the error; the slice is valid in that case too.
//
// The first call reads the spec and the journal of every run. Later calls read only
// new journal entries of runs that have not ended.
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
			if shared { // a slice that was returned does not change
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

// State returns the state of one run, with its result if it is done. A run that was never started has phase RunUnknown.
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

// create returns the run of a spec, and creates its folder if it does not exist.
func (s *Store) create(spec delivery.RunSpec) (*observed, error) {
	if o, err := s.find(spec.Key); o != nil || err != nil {
		return o, err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	// The rename makes the folder appear together with its spec.
	tmp, err := os.MkdirTemp(s.Dir, ".new-*")
	if err != nil {
		return nil, err
	}
	err = durable.WriteJSON(filepath.Join(tmp, specFile), spec)
	if err == nil {
		err = durable.Rename(tmp, s.Folder(spec.Kind, spec.Key))
	}
	if err != nil {
		os.RemoveAll(tmp)
		return nil, err
	}
	o := &observed{dir: s.Folder(spec.Kind, spec.Key), state: delivery.RunState{Spec: spec}, mask: s.Mask}
	s.add(o)
	return o, nil
}

// find returns a run, or nil if it is not known. Other runs that cannot be read are no error.
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

// list updates s.runs if the folder has changed.
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
	if info.ModTime().Equal(s.listed) && len(s.unread) == 0 { // unreadable runs are read again each time
		return nil
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	// The file system's clock is coarse: a folder created right after this listing
	// may not change the modification time, so a recent time is not used.
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

func (s *Store) reopen(o *observed) { o.closed, s.active[o] = false, true }

func (s *Store) forget(key delivery.Digest) {
	delete(s.active, s.runs[key])
	delete(s.runs, key)
	s.states = nil
	s.resident -= len(s.results[key])
	delete(s.results, key)
}

// load reads new folders in parallel: with thousands of them the disk is the bottleneck.
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
	o := &observed{dir: dir, state: delivery.RunState{Spec: spec, Need: readNeed(dir)}, mask: s.Mask}
	return o, o.refresh()
}

// result returns a done run's result. Its digest must be the one in the journal.
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
		return nil, fmt.Errorf("%s: content is %s, the journal has %s: remove the run's folder, and it runs again",
			path, got, o.history.last.Result)
	}
	if s.results == nil || s.resident+len(data) > maxResident {
		s.results, s.resident = map[delivery.Digest]json.RawMessage{}, 0
	}
	s.results[key] = data
	s.resident += len(data)
	return data, nil
}

// launch starts a runner in its own session.
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
	var env []string
	if s.Env != nil {
		if env, err = s.Env(o.state.Spec); err != nil {
			return err
		}
	}
	cmd.Env = append([]string{}, env...) // nil would inherit this process's environment
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
