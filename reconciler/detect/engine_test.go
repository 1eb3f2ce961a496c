package detect

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// opened returns a server of a model without ONNX Runtime.
func opened(t *testing.T, w Worker) *Server {
	w.JPEG = decoder
	s, err := w.Open(t.Context(), pureBundle(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tensorOf returns a tensor of n images, whose first channel has the image's number.
func tensorOf(n int) Tensor {
	in := Tensor{Shape: []int64{int64(n), 3, 24, 32}, Data: make([]float32, n*3*24*32)}
	for i := range n {
		for k := range 24 * 32 {
			in.Data[i*3*24*32+k] = float32(i)
		}
	}
	return in
}

// Calls that wait together are one run, and each gets its own outputs.
func TestBatches(t *testing.T) {
	started, gate := make(chan int64, 8), make(chan struct{})
	var held atomic.Bool
	model := pureRuntime{func(ctx context.Context, in Tensor) ([]Tensor, error) {
		if held.Load() {
			started <- in.Shape[0]
			<-gate
		}
		return pureRuntime{}.Run(ctx, in)
	}}
	s := opened(t, Worker{Runtime: model, Threads: 1, Batch: 4, BatchWait: time.Hour})
	held.Store(true)
	images := tensorOf(7).Data
	results := make([]result, 7)
	spoilt := errors.New("spoilt")
	var all sync.WaitGroup
	ask := func(i int) {
		all.Go(func() {
			results[i] = s.engine.do(newCall(t.Context(), func(to []float32) (filled, error) {
				copy(to, images[i*3*24*32:][:3*24*32])
				if i == 2 {
					return filled{}, spoilt
				}
				return filled{width: i}, nil
			}))
		})
	}
	ask(0)
	if n := <-started; n != 1 { // nothing else runs, so it does not wait for others
		t.Errorf("the first run has %d images", n)
	}
	for i := 1; i < 7; i++ {
		ask(i)
	}
	waiting(s.engine, 6)
	gate <- struct{}{}
	if n := <-started; n != 4 {
		t.Errorf("the second run has %d images, want 4 of those that waited", n)
	}
	gate <- struct{}{}
	if n := <-started; n != 1 {
		t.Errorf("the last run has %d images, want the one that is left", n)
	}
	gate <- struct{}{}
	all.Wait()
	batches := map[int]int{}
	for i, r := range results {
		if i == 2 {
			if r.err != spoilt {
				t.Errorf("the spoilt image: %v", r.err)
			}
			continue
		}
		batches[r.timing.Batch]++
		if r.err != nil || len(r.boxes) != 4 || r.width != i || math.Abs(float64(r.logits[0])-float64(i)) > 1e-4 {
			t.Errorf("call %d: %+v", i, r)
		}
	}
	if batches[1] != 2 || batches[4] != 4 {
		t.Errorf("images by the size of their run: %v", batches)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// waiting returns when so many calls wait for a place.
func waiting(e *engine, n int) {
	for {
		e.mu.Lock()
		now := len(e.waiting)
		e.mu.Unlock()
		if now == n {
			return
		}
		runtime.Gosched()
	}
}

// A run takes along calls that arrive while it fills its input, and one that its caller has left gets no part of it.
func TestCallsJoinWhileOthersAreFilled(t *testing.T) {
	s := opened(t, Worker{Runtime: pureRuntime{}, Threads: 1, Batch: 3})
	filling, filled2 := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	ask := func(ctx context.Context, fill func(), to *result) {
		all.Go(func() {
			*to = s.engine.do(newCall(ctx, func([]float32) (filled, error) {
				fill()
				return filled{}, nil
			}))
		})
	}
	var first, second, left, large result
	ask(t.Context(), func() { close(filling); <-filled2 }, &first)
	<-filling
	ctx, leave := context.WithCancel(t.Context())
	ask(ctx, func() { t.Error("a call without a caller is filled") }, &left)
	waiting(s.engine, 1)
	leave()
	waiting(s.engine, 0)
	all.Go(func() {
		c := newCall(t.Context(), func([]float32) (filled, error) { return filled{}, nil })
		c.leads = true
		large = s.engine.do(c)
	})
	waiting(s.engine, 1)
	ask(t.Context(), func() {}, &second)
	waiting(s.engine, 2)
	close(filled2)
	all.Wait()
	if !errors.Is(left.err, context.Canceled) {
		t.Errorf("the call that was left: %v", left.err)
	}
	for name, r := range map[string]result{"first": first, "second": second} {
		if r.err != nil || r.timing.Batch != 2 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if large.err != nil || large.timing.Batch != 1 {
		t.Errorf("the large image: %+v", large)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A place is free again after a panic, and no call waits for ever.
func TestPanicWhileFilling(t *testing.T) {
	s := opened(t, Worker{Runtime: pureRuntime{}, Threads: 1, Batch: 2})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		s.engine.do(newCall(t.Context(), func([]float32) (filled, error) { panic("a decoder") }))
	}()
	if _, _, _, err := s.Run(t.Context(), tensorOf(1)); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A model in which one image of a batch changes the outputs of another is not run in batches.
func TestNoBatchesWhereImagesMix(t *testing.T) {
	mixes := pureRuntime{func(ctx context.Context, in Tensor) ([]Tensor, error) {
		out, err := pureRuntime{}.Run(ctx, in)
		if in.Shape[0] > 1 {
			out[1].Data[0] += 0.01
		}
		return out, err
	}}
	if got := opened(t, Worker{Runtime: mixes, Threads: 1, Batch: 4}).description.Batch; got != 1 {
		t.Errorf("a batch of %d", got)
	}
	if got := opened(t, Worker{Runtime: pureRuntime{}, Threads: 1, Batch: 4}).description.Batch; got != 4 {
		t.Errorf("others have a batch of %d, want 4", got)
	}
}

// One call alone uses the session with all threads, and calls at the same time the one with a thread each.
func TestAloneAndInACrowd(t *testing.T) {
	var alone, crowd atomic.Int32
	runs, both := make(chan struct{}), make(chan struct{})
	counted := func(n *atomic.Int32) pureRuntime {
		return pureRuntime{func(ctx context.Context, in Tensor) ([]Tensor, error) {
			n.Add(1)
			if in.Data[0] == 1 { // held until the other has run
				close(runs)
				<-both
			}
			return pureRuntime{}.Run(ctx, in)
		}}
	}
	s := opened(t, Worker{Runtime: pureRuntime{}, Threads: 2})
	s.engine.alone.model, s.engine.crowd.model = counted(&alone), counted(&crowd)
	if _, _, _, err := s.Run(t.Context(), tensorOf(1)); err != nil {
		t.Fatal(err)
	}
	held := tensorOf(1)
	held.Data[0] = 1
	var all sync.WaitGroup
	all.Go(func() {
		if _, _, _, err := s.Run(t.Context(), held); err != nil {
			t.Error(err)
		}
	})
	<-runs
	if _, _, _, err := s.Run(t.Context(), tensorOf(1)); err != nil {
		t.Fatal(err)
	}
	close(both)
	all.Wait()
	if alone.Load() != 2 || crowd.Load() != 1 {
		t.Errorf("%d runs alone, %d in a crowd; want 2 and 1", alone.Load(), crowd.Load())
	}
}

// A caller that leaves stops the run, alone and in a batch; in a batch with others only the last one to leave does.
func TestLeavingStopsTheRun(t *testing.T) {
	for _, batch := range []int{1, 4} {
		started, stopped := make(chan struct{}, 8), make(chan struct{}, 8)
		var endless atomic.Bool
		model := pureRuntime{func(ctx context.Context, in Tensor) ([]Tensor, error) {
			if !endless.Load() {
				return pureRuntime{}.Run(ctx, in)
			}
			started <- struct{}{}
			<-ctx.Done()
			stopped <- struct{}{}
			return nil, ctx.Err()
		}}
		s := opened(t, Worker{Runtime: model, Threads: 1, Batch: batch})
		endless.Store(true)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, _, _, err := s.Run(ctx, tensorOf(1))
			left <- err
		}()
		<-started
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("batch %d: %v", batch, err)
		}
		<-stopped
		endless.Store(false)
		if _, _, _, err := s.Run(t.Context(), tensorOf(1)); err != nil {
			t.Errorf("batch %d: after that: %v", batch, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A run that does not stop is reported, because it holds a thread for ever.
func TestStuckRun(t *testing.T) {
	for _, batch := range []int{1, 4} {
		started, stuck, free := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
		var deaf atomic.Bool
		model := pureRuntime{func(ctx context.Context, in Tensor) ([]Tensor, error) {
			if deaf.Load() {
				started <- struct{}{}
				<-free
			}
			return pureRuntime{}.Run(ctx, in)
		}}
		s := opened(t, Worker{Runtime: model, Threads: 1, Batch: batch, Stuck: func() { close(stuck) },
			StuckAfter: time.Millisecond})
		deaf.Store(true)
		ctx, leave := context.WithCancel(t.Context())
		go s.Run(ctx, tensorOf(1))
		<-started
		leave()
		<-stuck
		close(free)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestUntilAllLeft(t *testing.T) {
	first, leaveFirst := context.WithCancel(t.Context())
	second, leaveSecond := context.WithCancel(t.Context())
	ctx, cancel := untilAllLeft([]*call{{ctx: first}, {ctx: second}})
	defer cancel()
	leaveFirst()
	if <-first.Done(); ctx.Err() != nil {
		t.Error("done although one caller waits")
	}
	leaveSecond()
	<-ctx.Done()
}

// served returns a client of a server of a model without ONNX Runtime.
func served(t *testing.T, s *Server) Client {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: s}
	go h.Serve(l)
	t.Cleanup(func() { h.Close() })
	return NewClient(socket)
}

func TestClientRun(t *testing.T) {
	s := opened(t, Worker{Runtime: pureRuntime{}, Threads: 1, Batch: 3})
	c := served(t, s)
	d, err := c.Describe(t.Context())
	if err != nil || d.Batch != 3 || d.Inputs[0].Shape[0] != -1 || d.Outputs[1].Name != "labels" ||
		d.Provider != "cpu" {
		t.Errorf("%+v, %v", d, err)
	}
	if err := c.Live(t.Context()); err != nil {
		t.Error(err)
	}
	for n := 1; n <= 3; n++ {
		out, timing, err := c.Run(t.Context(), tensorOf(n))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(out[0].Shape, []int64{int64(n), 1, 4}) || len(out[1].Data) != 4*n ||
			math.Abs(float64(out[1].Data[4*(n-1)])-float64(n-1)) > 1e-4 || timing.Batch != n {
			t.Errorf("%d images: %v, %+v", n, out, timing)
		}
	}
	spoilt := tensorOf(1)
	spoilt.Data[7] = float32(math.NaN())
	for name, in := range map[string]Tensor{
		"too many images": tensorOf(4),
		"no image":        {Shape: []int64{0, 3, 24, 32}},
		"another size":    {Shape: []int64{1, 3, 32, 24}, Data: make([]float32, 3*24*32)},
		"few values":      {Shape: []int64{1, 3, 24, 32}, Data: make([]float32, 5)},
		"NaN":             spoilt,
		"no shape":        {Data: make([]float32, 4)},
	} {
		_, _, err := c.Run(t.Context(), in)
		if _, ok := errors.AsType[*TensorError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	found, timing, err := c.Detect(t.Context(), read(t, "picture.jpg"), 0)
	if err != nil || len(found.Boxes) != 2 || timing.Pre <= 0 || timing.Batch != 1 {
		t.Errorf("%+v, %+v, %v", found, timing, err)
	}
	if found, _, err := c.Detect(t.Context(), read(t, "picture.jpg"), found.Boxes[0].Score); err != nil ||
		len(found.Boxes) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
	if _, _, err := c.Detect(t.Context(), []byte("text"), 0); err == nil ||
		err.Error() != "image: neither JPEG nor PNG" {
		t.Errorf("text: %v", err)
	}
}

func TestParseShape(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "1,3,24,32": 2304, "": 0, "0": 0, "-1": 0, "1,": 0, "a": 0,
		"9223372036854775807,9223372036854775807": 0, "10001": 0, "100,101": 0, "1,1,1,1,1,1,1,1,1": 0, "1 ,2": 0} {
		_, n, err := parseShape(text, 10000)
		if n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

func TestTiming(t *testing.T) {
	want := Timing{Pre: 1500 * time.Microsecond, Queue: 20 * time.Microsecond, Infer: time.Second, Post: 7 *
		time.Microsecond, Batch: 3}
	if got := parseTiming(want.Header()); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, odd := range []string{"", ";", "pre", "pre;dur=", "pre;dur=NaN", "pre;dur=-1", "pre;dur=1e300",
		"other;dur=1"} {
		if got := parseTiming(odd); got != (Timing{}) {
			t.Errorf("%q: %+v", odd, got)
		}
	}
}
