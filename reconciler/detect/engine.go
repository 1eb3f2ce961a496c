package detect

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An engine shares a model among the calls of a server.
//
// A call that is alone has all threads. Otherwise there are as many runs at the same time as threads, each on one of
// them from the files to the outputs: so none waits for threads of another, and together they finish most calls a
// second. The call that has a place for a run leads it: where the model takes batches, it takes along the calls that
// wait for a place, and those that arrive while it fills their parts of the input.
//
// On a GPU, files are decoded before a call asks for a place, beside the runs.
type engine struct {
	calls  atomic.Int32  // in progress or waiting
	decode chan struct{} // on a GPU: one for each file that is decoded at the same time; nil: a run decodes its own

	alone *loaded       // on all threads
	crowd *loaded       // on one thread; the same as alone if there is one thread
	batch int           // the largest number of images of a run
	wait  time.Duration // how long a run waits for more calls, while other runs are in progress

	stuck      func() // see Worker
	stuckAfter time.Duration

	places  int           // for runs at the same time
	arrived chan struct{} // has an element after a call has begun to wait
	inputs  sync.Pool     // of *[]float32, of one image or more
	mu      sync.Mutex
	free    int     // places; above 0 only if none waits
	waiting []*call // for a place, the oldest first
}

// A call is one image on its way through the model.
type call struct {
	ctx     context.Context
	fill    func(input []float32) (filled, error) // writes the image's tensor; nil: it leads its own run only
	leads   bool                                  // no other call may fill its input
	arrived time.Time
	turn    chan struct{} // has an element when it has a place
	result  chan result   // has an element when it is answered
}

// filled says what an image was, and how long its tensor took.
type filled struct {
	width, height int
	pre, decode   time.Duration
}

// A result is one image's outputs.
type result struct {
	filled
	boxes, logits []float32
	timing        Timing
	err           error
}

// MaxBatch is the largest batch that can be asked for.
const MaxBatch = 64

// newCall returns a call that arrives now.
func newCall(ctx context.Context, fill func([]float32) (filled, error)) *call {
	return &call{ctx: ctx, fill: fill, arrived: time.Now(), turn: make(chan struct{}, 1), result: make(chan result, 1)}
}

// close waits for the runs in progress, and frees the model.
func (e *engine) close() error {
	for range e.places {
		e.enter(newCall(context.Background(), nil))
	}
	err := e.alone.model.Close()
	if e.crowd != e.alone {
		err = errors.Join(err, e.crowd.model.Close())
	}
	return err
}

// run returns the outputs for one image's tensor.
func (e *engine) run(ctx context.Context, input []float32) (boxes, logits []float32, timing Timing, err error) {
	if e.batch == 1 || e.calls.Load() <= 1 {
		b, l, timing, err := e.once(ctx, input, 1)
		return b.Data, l.Data, timing, err
	}
	r := e.do(newCall(ctx, func(to []float32) (filled, error) {
		copy(to, input)
		return filled{}, nil
	}))
	return r.boxes, r.logits, r.timing, r.err
}

// once runs the model on n images when there is a place.
func (e *engine) once(ctx context.Context, input []float32, n int) (boxes, logits Tensor, timing Timing, err error) {
	c := newCall(ctx, nil)
	if leads, r := e.enter(c); !leads {
		return Tensor{}, Tensor{}, Timing{}, r.err
	}
	defer e.leave()
	timing.Batch, timing.Queue = n, time.Since(c.arrived)
	boxes, logits, timing.Infer, err = e.compute(ctx, input, n)
	return boxes, logits, timing, err
}

// do returns the outputs of a call.
func (e *engine) do(c *call) result {
	leads, r := e.enter(c)
	if leads {
		e.lead(c)
		r = <-c.result
	}
	return r
}

// enter waits until a call has a place, or is answered.
func (e *engine) enter(c *call) (leads bool, r result) {
	e.mu.Lock()
	if e.free > 0 {
		e.free--
		e.mu.Unlock()
		return true, r
	}
	e.waiting = append(e.waiting, c)
	e.mu.Unlock()
	select {
	case e.arrived <- struct{}{}:
	default:
	}
	select {
	case <-c.turn:
		return true, r
	case r := <-c.result:
		return false, r
	case <-c.ctx.Done():
	}
	e.mu.Lock()
	e.waiting = slices.DeleteFunc(e.waiting, func(w *call) bool { return w == c })
	e.mu.Unlock()
	select {
	case <-c.turn:
		e.leave()
	default: // if a run has taken it along, that goes on without it
	}
	return false, result{err: context.Cause(c.ctx)}
}

// leave gives a place to the call that waits longest.
func (e *engine) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waiting) == 0 {
		e.free++
		return
	}
	e.waiting[0].turn <- struct{}{}
	e.waiting = slices.Delete(e.waiting, 0, 1)
}

// next takes along the call that waits longest; nil if none does. busy says whether other runs are in progress.
func (e *engine) next() (c *call, busy bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.IndexFunc(e.waiting, func(c *call) bool { return !c.leads && c.fill != nil }); i >= 0 {
		c = e.waiting[i]
		e.waiting = slices.Delete(e.waiting, i, i+1)
	}
	return c, e.free < e.places-1
}

// await is next that waits for a call, within the bound.
func (e *engine) await(first *call) *call {
	for {
		c, busy := e.next()
		left := e.wait - time.Since(first.arrived)
		if c != nil || !busy || left <= 0 {
			return c
		}
		timeout := time.NewTimer(left)
		select {
		case <-e.arrived:
		case <-timeout.C:
		}
		timeout.Stop()
	}
}

// lead runs the model once for a call that has a place and those that it takes along, and answers each whose input
// could be filled.
func (e *engine) lead(first *call) {
	input := e.inputs.Get().(*[]float32)
	defer e.inputs.Put(input)
	var calls []*call
	var images []filled
	open := first // whose input is being filled
	defer func() {
		e.leave()
		if open != nil {
			calls = append(calls, open)
		}
		for _, c := range calls { // after a panic
			c.result <- result{err: errors.New("the run has failed")}
		}
	}()
	for ; open != nil; open = e.await(first) {
		part := e.part(input, len(calls))
		image, err := filled{}, context.Cause(open.ctx)
		if err == nil {
			image, err = open.fill(part)
		}
		if err != nil {
			open.result <- result{filled: image, err: err}
			if open == first { // the next call leads the run
				open = nil
				return
			}
			continue
		}
		calls, images = append(calls, open), append(images, image)
		if len(calls) == e.batch {
			open = nil
			break
		}
	}
	ctx, cancel := untilAllLeft(calls)
	defer cancel()
	began := time.Now()
	boxes, logits, ran, err := e.compute(ctx, (*input)[:len(calls)*e.alone.numbers()], len(calls))
	done := calls
	calls = nil
	for i, c := range done {
		r := result{filled: images[i], err: err, timing: Timing{Queue: began.Sub(c.arrived) - images[i].pre,
			Infer: ran, Batch: len(done)}}
		if err == nil {
			r.boxes, r.logits = share(boxes.Data, i, len(done)), share(logits.Data, i, len(done))
		}
		c.result <- r
	}
}

// part returns the memory of an image's tensor in the input of a run, which grows for it.
func (e *engine) part(input *[]float32, image int) []float32 {
	one := e.alone.numbers()
	if need := (image + 1) * one; len(*input) < need {
		grown := make([]float32, need)
		copy(grown, *input)
		*input = grown
	}
	return (*input)[image*one:][:one]
}

// compute runs the model on n images. The caller has a place.
func (e *engine) compute(ctx context.Context, input []float32, n int) (boxes, logits Tensor, ran time.Duration,
	err error) {
	model := e.crowd
	if e.calls.Load() <= 1 {
		model = e.alone
	}
	defer e.watch(ctx)()
	began := time.Now()
	boxes, logits, err = model.run(ctx, input, n)
	return boxes, logits, time.Since(began), err
}

func acquire(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watch reports a run that goes on for too long after its callers have left. The returned function ends the watch.
func (e *engine) watch(ctx context.Context) (ended func()) {
	if e.stuck == nil {
		return func() {}
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-done:
		case <-time.After(e.stuckAfter):
			e.stuck()
		}
	})
	return func() {
		close(done)
		stop()
	}
}

func share(data []float32, i, n int) []float32 { return data[i*len(data)/n : (i+1)*len(data)/n] }

// untilAllLeft returns a context that is done when all callers have left.
func untilAllLeft(calls []*call) (context.Context, func()) {
	if len(calls) == 1 {
		return calls[0].ctx, func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	left := 0
	stops := make([]func() bool, len(calls))
	for i, c := range calls {
		stops[i] = context.AfterFunc(c.ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if left++; left == len(calls) {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
