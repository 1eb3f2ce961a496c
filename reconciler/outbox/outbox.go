package outbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/queue"
	"github.com/autonomos/aob/reconciler/track"
	"github.com/autonomos/aob/reconciler/turn"
)

// A Tracker shows trainings and models. Its methods may be repeated.
type Tracker interface {
	// Address identifies the server. Another one is told everything again.
	Address() string
	PutRun(ctx context.Context, r track.Run, epochs []track.Epoch) error
	PutModel(ctx context.Context, m track.Model) error
}

// Metrics counts what is told. See package web for the names.
type Metrics interface {
	TrackerCall(tracker string, took time.Duration, err error)
	TrackerWaiting(tracker string, records int)
}

// Config has what an Outbox needs.
type Config struct {
	Trackers map[string]Tracker // by KIND/NAME
	Ledger   ledger.RecordStore
	Metrics  Metrics
	Turn     *turn.Turn
	// Epochs returns the metrics.jsonl of a training. A missing one is fs.ErrNotExist.
	Epochs func(run delivery.Digest) ([]byte, error)
	// Bundles is the address of AOB's bundles, as in oci://HOST/bundles.
	Bundles string
}

// An Outbox keeps what trackers should show, and tells them. Note may be called by the loop only, the other methods by
// anybody.
type Outbox struct {
	config Config

	mu    sync.Mutex
	boxes map[string]*box // by tracker
	ready bool            // the ledger was read
}

// A box has what one tracker should show.
type box struct {
	name    string
	tracker Tracker
	changed turn.Signal
	retry   queue.Backoff // of the tracker under "", and of single records that it refuses; used by the worker only

	// guarded by Outbox.mu
	runs   map[delivery.Digest]*runRecord
	models map[string]*modelRecord
}

// A sent says what a tracker was told last.
type sent struct {
	Record delivery.Digest `json:"record"` // digest of its content
	Epoch  int             `json:"epoch,omitempty"`
}

// A runRecord is what a tracker should show about a training. It is stored in the ledger.
type runRecord struct {
	Run   track.Run       `json:"run"`
	Model string          `json:"model"`
	Spec  delivery.Digest `json:"spec"`
	Pulls []pull          `json:"pulls"` // that asked for it, by number

	told   sent
	digest delivery.Digest // of Run
	epoch  int             // that its trainer has reported
}

// A pull is a pull request that asked for a training.
type pull struct {
	Number int       `json:"number"`
	Made   time.Time `json:"made,omitzero"`
	URL    string    `json:"url,omitempty"`
	Title  string    `json:"title"`
	Author string    `json:"author"`
	Head   string    `json:"head"`
	Branch string    `json:"branch"`
	State  string    `json:"state"` // open, merged or closed
}

// A modelRecord is what a tracker should show about a model on main. It is stored in the ledger.
type modelRecord struct {
	Model track.Model `json:"model"`

	told   sent
	digest delivery.Digest
}

// New returns an outbox; it reads the ledger when it is first used.
func New(c Config) *Outbox {
	o := &Outbox{config: c, boxes: map[string]*box{}}
	for name, tracker := range c.Trackers {
		o.boxes[name] = &box{name: name, tracker: tracker, changed: turn.NewSignal(), retry: queue.Backoff{},
			runs: map[delivery.Digest]*runRecord{}, models: map[string]*modelRecord{}}
	}
	return o
}

// The ledger's keys. What was told has the address of the tracker.
func (b *box) runKey(key delivery.Digest) string { return "track/" + b.name + "/run/" + string(key) }
func (b *box) modelKey(model string) string      { return "track/" + b.name + "/model/" + model }
func (b *box) toldKey(record string) string {
	return fmt.Sprintf("told/%s/%s", delivery.Sum([]byte(b.tracker.Address())).Short(), record)
}

// read reads the ledger once.
func (o *Outbox) read(ctx context.Context) error {
	if o.ready {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(o.boxes)) {
		b := o.boxes[name]
		told, err := o.config.Ledger.Records(ctx, b.toldKey(""))
		if err != nil {
			return err
		}
		sentOf := func(key string) (s sent) {
			// What cannot be read is told again.
			_ = json.Unmarshal([]byte(told[b.toldKey(key)].Content), &s)
			return s
		}
		runs, err := o.config.Ledger.Records(ctx, b.runKey(""))
		if err != nil {
			return err
		}
		for key, record := range runs {
			var r runRecord
			if json.Unmarshal([]byte(record.Content), &r) == nil && b.runKey(r.Run.Key) == key {
				r.digest, r.told = digestOf(r.Run), sentOf(key)
				b.runs[r.Run.Key] = &r
			}
		}
		models, err := o.config.Ledger.Records(ctx, b.modelKey(""))
		if err != nil {
			return err
		}
		for key, record := range models {
			var r modelRecord
			if json.Unmarshal([]byte(record.Content), &r) == nil && b.modelKey(r.Model.Name) == key {
				r.digest, r.told = digestOf(r.Model), sentOf(key)
				b.models[r.Model.Name] = &r
			}
		}
		b.changed.Send()
	}
	o.ready = true
	return nil
}

func digestOf(v any) delivery.Digest { return delivery.DigestOf("track", v) }

// Note derives what trackers should show from a turn, and stores what has changed.
func (o *Outbox) Note(ctx context.Context, w *plan.World, p *plan.Plan) {
	if len(o.boxes) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.read(ctx); err != nil {
		o.config.Turn.Note(turn.LedgerReads, err)
		o.config.Turn.In(time.Second, "the ledger is read again")
		return
	}
	d := newDeriver(w, p, o.config.Bundles)
	for _, b := range o.boxes {
		for key, want := range d.runs(b) {
			want.digest = digestOf(want.Run)
			if o.keep(ctx, b.runKey(key), want) {
				b.runs[key] = want
				b.changed.Send()
			}
		}
		for name, want := range d.models(b) {
			want.digest = digestOf(want.Model)
			if o.keep(ctx, b.modelKey(name), want) {
				b.models[name] = want
				b.changed.Send()
			}
		}
		if d.progress(b) {
			b.changed.Send()
		}
	}
}

// Forget drops the records of trainings that ended before a time, that no open pull request asks for, and that the
// tracker has, and returns their keys in the ledger, which the caller drops. Their runs in the tracker stay. A pull
// request that asks for such a training again makes its record anew.
func (o *Outbox) Forget(ctx context.Context, before time.Time) (keys []string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.read(ctx); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(o.boxes)) {
		b := o.boxes[name]
		for _, run := range slices.Sorted(maps.Keys(b.runs)) {
			r := b.runs[run]
			over := r.Run.Status != track.Running && !r.Run.End.IsZero() && r.Run.End.Before(before)
			if !over || r.told.Record != r.digest || slices.ContainsFunc(r.Pulls, func(p pull) bool {
				return p.State == open
			}) {
				continue
			}
			delete(b.runs, run)
			keys = append(keys, b.runKey(run), b.toldKey(b.runKey(run)))
		}
	}
	return keys, nil
}

// keep stores a record. If that fails, the next turn derives it again.
func (o *Outbox) keep(ctx context.Context, key string, record any) bool {
	content, err := delivery.EncodeJSON(record)
	if err == nil {
		err = o.config.Ledger.PutRecord(ctx, key, string(content), o.config.Turn.Now())
	}
	if o.config.Turn.Note(turn.LedgerWrites, err); err != nil {
		o.config.Turn.In(time.Second, "the ledger is written again")
	}
	return err == nil
}

// Run tells the trackers until ctx ends.
func (o *Outbox) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for _, b := range o.boxes {
		workers.Go(func() {
			for ctx.Err() == nil {
				wait := time.Hour // for a change
				if next := o.pass(ctx, b); !next.IsZero() {
					wait = next.Sub(o.config.Turn.Now())
				}
				b.changed.Wait(ctx, max(0, wait))
				pause(ctx, pace)
			}
		})
	}
	workers.Wait()
}

// pace is the pause between two passes: trainers may report many epochs a second.
const pace = time.Second

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// Drain tells each tracker what it does not have, once. Tests use it instead of Run.
func (o *Outbox) Drain(ctx context.Context) {
	for _, name := range slices.Sorted(maps.Keys(o.boxes)) {
		o.pass(ctx, o.boxes[name])
	}
}

// A parcel is a record that a tracker does not have.
type parcel struct {
	key  string // the ledger's
	will sent
	send func(context.Context) error
	done func() // called with the mutex held
}

// putTime is how long telling one record may take. It may need many calls.
const putTime = 2 * time.Minute

// pass tells a tracker what it does not have. It returns when the next pass is due; zero if only a change makes one
// necessary.
func (o *Outbox) pass(ctx context.Context, b *box) time.Time {
	now := o.config.Turn.Now()
	if err := b.retry.Due("", now); err != nil {
		return b.retry[""].Next
	}
	list := o.waiting(b)
	waiting, refused := len(list), map[string]error{}
	o.config.Metrics.TrackerWaiting(b.name, waiting)
	var ended error
	for _, p := range list {
		if err := b.retry.Due(p.key, o.config.Turn.Now()); err != nil {
			refused[p.key] = err
			continue
		}
		start := o.config.Turn.Now()
		limited, cancel := context.WithTimeout(ctx, putTime)
		err := p.send(limited)
		cancel()
		if ctx.Err() != nil {
			return time.Time{}
		}
		took := o.config.Turn.Now().Sub(start)
		o.config.Metrics.TrackerCall(b.name, took, err)
		if _, alone := errors.AsType[track.Refused](err); err != nil && !alone {
			ended = err
			break
		}
		if b.retry.Note(p.key, o.config.Turn.Now(), took, err); err != nil {
			refused[p.key] = err
			continue
		}
		waiting--
		o.told(ctx, b, p)
	}
	b.retry.Note("", o.config.Turn.Now(), 0, ended)
	o.config.Metrics.TrackerWaiting(b.name, waiting)
	o.config.Turn.Note(Trouble(b.name), cmp.Or(ended, turn.First(refused, "records")))
	keep := func(key string) bool {
		return key == "" || slices.ContainsFunc(list, func(p parcel) bool { return p.key == key })
	}
	maps.DeleteFunc(b.retry, func(key string, _ queue.Failure) bool { return !keep(key) })
	return b.retry.Earliest(func(string) bool { return false })
}

// Trouble returns the name of the trouble that a tracker is not up to date.
func Trouble(tracker string) string {
	return fmt.Sprintf("the tracker %s, which holds up nothing else, is not up to date", tracker)
}

// told records that a tracker has a record.
func (o *Outbox) told(ctx context.Context, b *box, p parcel) {
	o.mu.Lock()
	p.done()
	o.mu.Unlock()
	content := string(delivery.Canonical(p.will))
	err := o.config.Ledger.PutRecord(ctx, b.toldKey(p.key), content, o.config.Turn.Now())
	if err != nil { // it is told again after a restart
		o.config.Turn.Log.Warn("the ledger cannot be written", "tracker", b.name, "error", err.Error())
	}
}

// waiting lists the records that a tracker does not have: trainings by their start, then models.
func (o *Outbox) waiting(b *box) []parcel {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []parcel
	runs := slices.SortedFunc(maps.Values(b.runs), func(a, b *runRecord) int {
		return cmp.Or(a.Run.Start.Compare(b.Run.Start), strings.Compare(string(a.Run.Key), string(b.Run.Key)))
	})
	for _, r := range runs {
		will := sent{Record: r.digest, Epoch: r.epoch}
		if r.Run.Status != track.Running {
			will.Epoch = 0 // its file does not change any more
		}
		if r.told == will || r.told.Record == will.Record && r.epoch == 0 {
			continue
		}
		run := r.Run
		list = append(list, parcel{key: b.runKey(run.Key), will: will, done: func() { r.told = will },
			send: func(ctx context.Context) error {
				epochs, err := o.epochs(run.Key)
				if err != nil {
					return err
				}
				return b.tracker.PutRun(ctx, run, epochs)
			}})
	}
	for _, name := range slices.Sorted(maps.Keys(b.models)) {
		r := b.models[name]
		will := sent{Record: r.digest}
		if r.told == will {
			continue
		}
		m := r.Model
		list = append(list, parcel{key: b.modelKey(name), will: will, done: func() { r.told = will },
			send: func(ctx context.Context) error { return b.tracker.PutModel(ctx, m) }})
	}
	return list
}

// epochs reads what a trainer has said so far.
func (o *Outbox) epochs(run delivery.Digest) ([]track.Epoch, error) {
	data, err := o.config.Epochs(run)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the trainer's figures of run %s cannot be read: %w", run.Short(), err)
	}
	return track.ParseEpochs(data), nil
}
