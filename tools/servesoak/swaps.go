package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// A swapsPlan says how many swaps are made and timed.
type swapsPlan struct {
	timed, all int           // swaps; the first ones are timed, and requests flow during all
	clients    int           // at the same time
	quiet      time.Duration // of load without a swap, before and after the timed ones; 0: 20 requests
	between    time.Duration // two swaps that are timed
	settle     bool          // wait for Go's collector before memory is compared
}

// swapsFigures are what came of it.
type swapsFigures struct {
	requests        int
	quiet, during   []time.Duration // sorted times of answers: without a swap, and those that overlap one
	swaps           []time.Duration
	start, end      footprint
	settled         bool
	clients, swapsN int
}

// swaps changes the model of a server again and again while clients use it. No request may fail, and each answer is of
// the version that served when it began or when it ended.
func swaps(ctx context.Context, o options, plan swapsPlan) (f swapsFigures, err error) {
	f.clients, f.swapsN = plan.clients, plan.all
	server, err := startFront(o.binary, o.bundle)
	if err != nil {
		return f, err
	}
	defer func() {
		_, stopErr := server.stop()
		err = errors.Join(err, stopErr)
	}()
	c, err := newClients(server.url, o.pictures, plan.clients)
	if err != nil {
		return f, err
	}
	measure := func() (footprint, error) {
		if plan.settle {
			return server.settle(ctx)
		}
		return server.footprint(), nil
	}
	load := func(d time.Duration) ([]answer, error) {
		end := c.start(plan.clients)
		defer end()
		if d == 0 {
			err := c.wait(ctx, 20)
			end()
			return c.take(), err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(d):
		}
		end()
		return c.take(), nil
	}
	if _, err := load(plan.quiet / 4); err != nil { // to warm up
		return f, err
	}
	if f.start, err = measure(); err != nil {
		return f, err
	}
	quiet, err := load(plan.quiet)
	if err != nil {
		return f, err
	}
	made := &swapping{front: server, clients: c, bundle: o.bundle, version: 1}
	if err := made.run(ctx, plan); err != nil {
		return f, err
	}
	after, err := load(plan.quiet)
	if err != nil {
		return f, err
	}
	quiet = append(quiet, after...)
	if f.end, err = measure(); err != nil {
		return f, err
	}
	f.settled = plan.settle
	f.quiet, f.swaps = sortedTimes(quiet), made.took
	f.requests = len(quiet) + made.requests
	f.during = sortedTimes(made.during)
	_, failed := failures(quiet)
	return f, errors.Join(failed, made.check())
}

// swapping makes swaps under load.
type swapping struct {
	front    *front
	clients  *clients
	bundle   string
	version  int // that serves
	took     []time.Duration
	during   []answer // that overlap a timed swap
	requests int
	wrong    []error
}

func (s *swapping) run(ctx context.Context, plan swapsPlan) error {
	end := s.clients.start(plan.clients)
	defer end()
	for i := range plan.all {
		timed := i < plan.timed
		if timed && plan.between > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(plan.between):
			}
		}
		if err := s.clients.wait(ctx, 3); err != nil {
			return err
		}
		began := time.Now()
		if err := s.front.load(s.bundle, strconv.Itoa(s.version+1), 2*time.Minute); err != nil {
			return fmt.Errorf("swap %d: %w", i+1, err)
		}
		ended := time.Now()
		if err := s.clients.wait(ctx, 3); err != nil {
			return err
		}
		if timed {
			s.took = append(s.took, ended.Sub(began))
		}
		if i == plan.all-1 {
			end()
		}
		s.look(s.clients.take(), began, ended, timed)
		s.version++
	}
	return nil
}

// look checks the answers around a swap.
func (s *swapping) look(answers []answer, began, ended time.Time, timed bool) {
	s.requests += len(answers)
	before, after := strconv.Itoa(s.version), strconv.Itoa(s.version+1)
	for _, a := range answers {
		switch {
		case a.err != nil:
			s.wrong = append(s.wrong, a.err)
		case a.ended.Before(began) && a.version != before, a.began.After(ended) && a.version != after,
			a.version != before && a.version != after:
			s.wrong = append(s.wrong, fmt.Errorf("an answer of version %s at the change from %s to %s", a.version,
				before,
				after))
		}
		if timed && a.ended.After(began) && a.began.Before(ended) {
			s.during = append(s.during, a)
		}
	}
}

func (s *swapping) check() error {
	if len(s.wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d requests went wrong during swaps: %v", len(s.wrong), s.requests,
		s.wrong[:min(5, len(s.wrong))])
}

// print writes the figures.
func (f swapsFigures) print(out io.Writer) {
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 }
	fmt.Fprintf(out, "%d swaps, %d clients, %d requests\n", f.swapsN, f.clients, f.requests)
	fmt.Fprintf(out, "quiet:  p50 %6.1f ms, p99 %6.1f ms, of %d\n", ms(quantile(f.quiet, 0.5)), ms(quantile(f.quiet,
		0.99)),
		len(f.quiet))
	fmt.Fprintf(out, "during: p50 %6.1f ms, p99 %6.1f ms, longest %.1f ms, of %d; p99 is %.2f times the quiet one\n",
		ms(quantile(f.during, 0.5)), ms(quantile(f.during, 0.99)), ms(quantile(f.during, 1)), len(f.during),
		f.times())
	var sum time.Duration
	for _, d := range f.swaps {
		sum += d
	}
	fmt.Fprintf(out, "a swap takes %.0f ms\n", ms(sum)/float64(max(1, len(f.swaps))))
	fmt.Fprintf(out, "start:  %v\nend:    %v\n", f.start, f.end)
}

// times is the p99 during swaps by the quiet one.
func (f swapsFigures) times() float64 {
	return quantile(f.during, 0.99).Seconds() / max(1e-9, quantile(f.quiet, 0.99).Seconds())
}

// check says what is not as promised. Times and memory are compared only after a whole run.
func (f swapsFigures) check() error {
	err := leaks(f.start, f.end, f.clients)
	if !f.settled {
		return err
	}
	if f.times() > 2 {
		err = errors.Join(err, fmt.Errorf("p99 during a swap is %.2f times the quiet one, want at most 2", f.times()))
	}
	return errors.Join(err, grown("front", f.start.front, f.end.front), grown("model", f.start.child, f.end.child))
}

// leaks compares what does not depend on a collector. The front keeps its connections to a model for the next calls:
// one of each client, and one of each call whose caller left while the client went on.
func leaks(start, end footprint, clients int) error {
	var err error
	for _, c := range []struct {
		what       string
		start, end int
		more       int // that is no leak
	}{
		{"processes of models", start.children, end.children, 0},
		{"files", start.files, end.files, 0},
		{"descriptors of the front", start.front.descriptors, end.front.descriptors, 2 * clients},
		{"descriptors of the model", start.child.descriptors, end.child.descriptors, 2 * clients},
		{"threads of the front", start.front.threads, end.front.threads, 8}, // Go keeps those that blocked once
		{"threads of the model", start.child.threads, end.child.threads, 8},
	} {
		if c.end > c.start+c.more {
			err = errors.Join(err, fmt.Errorf("%s: %d at the start, %d at the end", c.what, c.start, c.end))
		}
	}
	return err
}

// grown says whether memory is more than a tenth and 8 MiB above its start.
func grown(of string, start, end process) error {
	if end.anonymous > start.anonymous+max(start.anonymous/10, 8<<20) {
		return fmt.Errorf("memory of the %s: %.1f MiB at the start, %.1f MiB at the end", of, mib(start.anonymous),
			mib(end.anonymous))
	}
	return nil
}
