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
// A call that is alone has all threads. Calls at the same time have one thread each, from the file to the boxes, as
// many as there are threads: so none waits for threads of another, and together they finish most calls a second. Where
// the model takes batches, or runs on a GPU, files are decoded while it runs, and calls that wait together are one run.
type engine struct {
	calls  atomic.Int32  // in progress or waiting
	apart  bool          // the model's run is not on the thread that decodes
	decode chan struct{} // one for each file that is decoded at the same time; slots if not apart

	alone *loaded       // on all threads
	crowd *loaded       // on one thread; the same as alone if there is one thread
	slots chan struct{} // one for each run at the same time

	stuck      func() // see Worker
	stuckAfter time.Duration

	batch  int           // the largest number of images of a run
	wait   time.Duration // how long a call waits for others, while runs are in progress
	queue  chan *call    // with a batch above 1
	closed chan struct{}
	ended  sync.WaitGroup // of the loop over the queue
}

// A call is one image's tensor on its way through the model.
type call struct {
	ctx     context.Context
	input   []float32
	arrived time.Time
	result  chan result
}

// A result is one image's outputs.
type result struct {
	boxes, logits []float32
	timing        Timing
	err           error
}

// MaxBatch is the largest batch that can be asked for.
const MaxBatch = 64

// start begins to take calls, with a batch above 1.
func (e *engine) start() {
	e.closed = make(chan struct{})
	if e.batch <= 1 {
		return
	}
	e.queue = make(chan *call, 4*e.batch)
	e.ended.Go(e.gather)
}

// close waits for the runs in progress, and frees the model.
func (e *engine) close() error {
	close(e.closed)
	e.ended.Wait()
	for range cap(e.slots) {
		e.slots <- struct{}{}
	}
	err := e.alone.model.Close()
	if e.crowd != e.alone {
		err = errors.Join(err, e.crowd.model.Close())
	}
	return err
}

// run returns the outputs for one image's tensor.
func (e *engine) run(ctx context.Context, input []float32) (boxes, logits []float32, timing Timing, err error) {
	began := time.Now()
	if e.batch > 1 && e.calls.Load() > 1 { // a call that is alone needs no queue
		c := &call{ctx, input, began, make(chan result, 1)}
		select {
		case e.queue <- c:
		case <-ctx.Done():
			return nil, nil, Timing{}, context.Cause(ctx)
		}
		select {
		case r := <-c.result:
			return r.boxes, r.logits, r.timing, r.err
		case <-ctx.Done():
			return nil, nil, Timing{}, context.Cause(ctx)
		}
	}
	b, l, queued, ran, err := e.once(ctx, input, 1, began)
	return b.Data, l.Data, Timing{Queue: queued, Infer: ran, Batch: 1}, err
}

// once runs the model on n images when there is a slot.
func (e *engine) once(ctx context.Context, input []float32, n int, arrived time.Time) (boxes, logits Tensor,
	queued, ran time.Duration, err error) {
	if err := acquire(ctx, e.slots); err != nil {
		return Tensor{}, Tensor{}, 0, 0, err
	}
	defer func() { <-e.slots }()
	queued = time.Since(arrived)
	boxes, logits, ran, err = e.compute(ctx, input, n)
	return boxes, logits, queued, ran, err
}

// compute runs the model on n images. The caller has a slot.
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

// gather makes batches of the calls in the queue until the engine is closed.
func (e *engine) gather() {
	var runs sync.WaitGroup
	defer runs.Wait()
	for {
		var calls []*call
		select {
		case c := <-e.queue:
			calls = append(calls, c)
		case <-e.closed:
			return
		}
		busy := len(e.slots) > 0
		e.slots <- struct{}{} // calls that arrive while all runs are taken join this one
		calls = e.fill(calls, busy)
		runs.Go(func() {
			defer func() { <-e.slots }()
			e.runBatch(calls)
		})
	}
}

// fill adds the calls that wait already, and while other runs are in progress those that arrive within the bound.
func (e *engine) fill(calls []*call, busy bool) []*call {
	timeout := time.NewTimer(max(0, e.wait-time.Since(calls[0].arrived)))
	defer timeout.Stop()
	for len(calls) < e.batch {
		select {
		case c := <-e.queue:
			calls = append(calls, c)
			continue
		default:
		}
		if !busy {
			break
		}
		select {
		case c := <-e.queue:
			calls = append(calls, c)
		case <-timeout.C:
			busy = false
		}
	}
	return calls
}

// runBatch runs the model once for all calls whose callers have not left, and answers each.
func (e *engine) runBatch(calls []*call) {
	calls = slices.DeleteFunc(calls, func(c *call) bool { return c.ctx.Err() != nil })
	if len(calls) == 0 {
		return
	}
	ctx, cancel := untilAllLeft(calls)
	defer cancel()
	input := calls[0].input
	if len(calls) > 1 {
		input = make([]float32, 0, len(calls)*len(calls[0].input))
		for _, c := range calls {
			input = append(input, c.input...)
		}
	}
	began := time.Now()
	boxes, logits, ran, err := e.compute(ctx, input, len(calls))
	for i, c := range calls {
		r := result{timing: Timing{Queue: began.Sub(c.arrived), Infer: ran, Batch: len(calls)}, err: err}
		if err == nil {
			r.boxes, r.logits = part(boxes.Data, i, len(calls)), part(logits.Data, i, len(calls))
		}
		c.result <- r
	}
}

func part(data []float32, i, n int) []float32 { return data[i*len(data)/n : (i+1)*len(data)/n] }

// untilAllLeft returns a context that is done when all callers have left.
func untilAllLeft(calls []*call) (context.Context, func()) {
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
