package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/tools/servesoak/mutate"
)

// A mutationsPlan says how many hostile things there are.
type mutationsPlan struct {
	models, requests int
	load             time.Duration // limit of the fronts; 0: a long one, and what is too slow is not given to them
	neighbours       time.Duration // beside each of the dear models; 0: not timed
	held             int           // the largest number of connections that are held open; 0: none
}

// Limits of the processes of models in a run.
const (
	hostileMemory = delivery.Bytes(1 << 30)
	hostileLoad   = 3 * time.Second // of an inspection
	hostileCall   = 4 * time.Second
	// grace is what ending a process, or a machine with other work, may take besides.
	grace = 30 * time.Second
)

// longLoad is a limit that good models keep on any machine.
const longLoad = time.Minute

// profiles is the file that gives a server these limits.
func profiles(load time.Duration) string {
	return `apiVersion: aob/v1
kind: Profiles
profiles:
  hostile: {from: cpu-fp32, for: tests, memory: 1GiB, load: ` + load.String() + `}
`
}

// A tally counts outcomes. It is safe for concurrent use.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
	wrong  []error
}

func newTally() *tally { return &tally{counts: map[string]int{}} }

func (t *tally) add(outcome string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[outcome]++
}

func (t *tally) fail(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wrong = append(t.wrong, fmt.Errorf(format, args...))
}

func (t *tally) err(of string) error {
	if len(t.wrong) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d went wrong: %w", of, len(t.wrong), errors.Join(t.wrong[:min(20, len(t.wrong))]...))
}

func (t *tally) print(out io.Writer) {
	for _, outcome := range slices.Sorted(maps.Keys(t.counts)) {
		fmt.Fprintf(out, "  %-60s %6d\n", outcome, t.counts[outcome])
	}
}

// mutations gives hostile models, pictures and requests to a server.
func mutations(ctx context.Context, o options, plan mutationsPlan, out io.Writer) error {
	dir, err := os.MkdirTemp("", "mutations")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "profiles.yaml")
	if err := os.WriteFile(file, []byte(profiles(cmp.Or(plan.load, longLoad))), 0o600); err != nil {
		return err
	}
	flags := []string{"--profiles", file, "--profile", "hostile", "--timeout", hostileCall.String()}
	began := time.Now()
	err = hostileModels(ctx, o, plan, dir, flags, out)
	fmt.Fprintf(out, "models: %v\n", time.Since(began).Round(time.Second))
	if plan.neighbours > 0 {
		err = errors.Join(err, neighbours(ctx, o, plan, dir, flags, out))
	}
	began = time.Now()
	err = errors.Join(err, hostileRequests(ctx, o, plan, flags, out))
	fmt.Fprintf(out, "pictures and requests: %v\n", time.Since(began).Round(time.Second))
	if left := descendants(os.Getpid()); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("processes %v are left", left))
	}
	return err
}

// hostileModels opens each model in three ways: inspected, as the shadow of a good one, which has to go on
// answering, and
// as the model that serves, if it has passed the inspection.
func hostileModels(ctx context.Context, o options, plan mutationsPlan, dir string, flags []string,
	out io.Writer) (err error) {
	good, err := os.ReadFile(filepath.Join(o.bundle, delivery.ModelFile))
	if err != nil {
		return err
	}
	h := &hostile{o: o, plan: plan, dir: dir, tally: newTally(), detector: detect.Detector{Binary: o.binary,
		Timeout: hostileLoad, MemoryLimit: hostileMemory}}
	for _, f := range []**front{&h.shadowed, &h.replaced} {
		if *f, err = startFront(o.binary, o.bundle, flags...); err != nil {
			return err
		}
		defer func() {
			most, stopErr := (*f).stop()
			err = errors.Join(err, stopErr)
			fmt.Fprintf(out, "most memory of a process of a front: %.0f MiB\n", mib(most))
			err = errors.Join(err, within(most))
		}()
	}
	c, err := newClients(h.shadowed.url, o.pictures, 1)
	if err != nil {
		return err
	}
	c.pause = 50 * time.Millisecond
	end := c.start(1)
	defer end()
	for i := range plan.models {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		made := mutate.Model(good, o.seed, i)
		if err := h.try(ctx, i, made, c); err != nil {
			return fmt.Errorf("model %d (%s): %w", i, made.Kind, err)
		}
		if i%100 == 99 {
			fmt.Fprintf(out, "%d models\n", i+1)
		}
	}
	end()
	answers := c.take()
	n, failed := failures(answers)
	fmt.Fprintf(out, "%d hostile models, and %d answers of a good one beside them, %d wrong; p99 %.1f ms\n",
		plan.models,
		len(answers), n, quantile(sortedTimes(answers), 0.99).Seconds()*1e3)
	h.tally.print(out)
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage); err == nil {
		fmt.Fprintf(out, "most memory of an inspection: %.0f MiB\n", mib(usage.Maxrss<<10))
		failed = errors.Join(failed, within(usage.Maxrss<<10))
	}
	return errors.Join(failed, h.tally.err("models"), h.recover())
}

// within says whether a process kept its limit, besides what it maps of files.
func within(rss int64) error {
	const mapped = 150 << 20
	if rss > int64(hostileMemory)+mapped {
		return fmt.Errorf("a process had %.0f MiB, and its limit is %v", mib(rss), hostileMemory)
	}
	return nil
}

// hostile tries models.
type hostile struct {
	o                  options
	plan               mutationsPlan
	dir                string
	detector           detect.Detector
	shadowed, replaced *front
	tally              *tally
}

// try gives one model to all that open models. An error means that the run cannot go on.
func (h *hostile) try(ctx context.Context, i int, made mutate.Made, beside *clients) error {
	bundle := filepath.Join(h.dir, fmt.Sprint("bundle", i))
	if err := copyBundle(h.o.bundle, bundle); err != nil {
		return err
	}
	defer os.RemoveAll(bundle)
	model := filepath.Join(bundle, delivery.ModelFile)
	if err := os.WriteFile(model, made.Data, 0o600); err != nil {
		return err
	}
	began := time.Now()
	sig, golden, err := h.detector.Inspect(ctx, model)
	if took := time.Since(began); took > hostileLoad+grace {
		h.tally.fail("model %d (%s): its inspection took %v", i, made.Kind, took)
	}
	outcome := inspected(err)
	h.tally.add("inspected: " + outcome)
	if outcome == "other" {
		h.tally.fail("model %d (%s): inspected: %v", i, made.Kind, err)
	}
	loads := err == nil
	if loads {
		if err := rewrite(bundle, sig, golden); err != nil {
			return err
		}
	}
	if outcome == tooLong && h.plan.load == 0 {
		return nil
	}
	h.tally.add("shadow: " + h.operated(i, made, "shadow", h.shadowed, func(patience time.Duration) error {
		return h.shadowed.operate("PUT", "/shadow", map[string]any{"bundle": bundle, "version": fmt.Sprint("h", i),
			"share": 1},
			patience)
	}))
	if loads {
		if err := beside.wait(ctx, 3); err != nil {
			return err
		}
		outcome := h.operated(i, made, "serving", h.replaced, func(patience time.Duration) error {
			return h.replaced.load(bundle, fmt.Sprint("h", i), patience)
		})
		h.tally.add("serving: " + outcome)
		for _, picture := range [][]byte{h.o.pictures[0], plainPicture(), []byte("none")} {
			h.ask(i, made, picture)
		}
	}
	for _, f := range []*front{h.shadowed, h.replaced} {
		if !f.alive() {
			return fmt.Errorf("the front has ended: %w\n%s", f.err, tail(f.said()))
		}
		if n := len(f.children()); n > 3 { // one that serves, a shadow, and one that is ending
			h.tally.fail("model %d (%s): %d processes", i, made.Kind, n)
		}
	}
	return nil
}

// patience is how long an operation of a front may take.
func (h *hostile) patience() time.Duration {
	return cmp.Or(h.plan.load, longLoad) + hostileCall + grace
}

// operated is the outcome of giving a model to a front.
func (h *hostile) operated(i int, made mutate.Made, role string, f *front, do func(time.Duration) error) string {
	began := time.Now()
	err := do(h.patience())
	refused, ok := errors.AsType[refusal](err)
	switch {
	case err == nil:
		return "loads"
	case !ok:
		h.tally.fail("model %d (%s), %s, after %v: %v", i, made.Kind, role, time.Since(began), err)
		return "no answer"
	case strings.Contains(string(refused), "gave no result for"):
		return "refused: too long"
	case strings.Contains(string(refused), "aob-detect serve: "):
		return "refused: its process ended"
	}
	return "refused"
}

// ask sends a picture to the front that serves a hostile model. Every answer is right; none is not.
func (h *hostile) ask(i int, made mutate.Made, picture []byte) {
	began := time.Now()
	status, _, err := send(h.replaced.url, mutate.Sent{Made: mutate.Made{Data: pictureRequest(picture)}, Whole: true},
		hostileCall+grace)
	if err != nil {
		h.tally.fail("model %d (%s) serves: no answer after %v: %v", i, made.Kind, time.Since(began), err)
	}
	h.tally.add("serving, answer " + status)
}

// recover loads the good model again where hostile ones have served.
func (h *hostile) recover() error {
	if err := h.replaced.load(h.o.bundle, "good", h.patience()); err != nil {
		return fmt.Errorf("the good model does not load again: %w", err)
	}
	c, err := newClients(h.replaced.url, h.o.pictures, 1)
	if err != nil {
		return fmt.Errorf("the good model does not answer again: %w", err)
	}
	c.http.CloseIdleConnections()
	return nil
}

// tooLong is an outcome.
const tooLong = "too long, killed"

// inspected names the outcome of an inspection.
func inspected(err error) string {
	if err == nil {
		return "loads"
	}
	if _, bad := errors.AsType[*detect.ModelError](err); bad {
		return "refused"
	}
	crash, ok := errors.AsType[*detect.CrashError](err)
	switch {
	case !ok:
		return "other"
	case strings.Contains(crash.Why, "gave no result for"):
		return tooLong
	case strings.Contains(crash.Why, "memory"):
		return "too much memory, ended"
	case strings.Contains(crash.Why, "it crashed"):
		return "crashed"
	}
	return "ended without a result"
}

// copyBundle copies a bundle's folder without its model.
func copyBundle(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == delivery.ModelFile {
			continue
		}
		data, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rewrite makes the bundle fit a model that loads.
func rewrite(bundle string, sig delivery.Signature, golden detect.Golden) error {
	encoded, err := golden.MarshalBinary()
	if err != nil {
		return err
	}
	labels := slices.DeleteFunc(slices.Clone(sig.Slots), func(s string) bool { return s == "" })
	for name, content := range map[string][]byte{delivery.SignatureFile: delivery.Canonical(sig),
		delivery.GoldenFile: encoded, delivery.LabelsFile: delivery.Canonical(labels)} {
		if err := os.WriteFile(filepath.Join(bundle, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}
