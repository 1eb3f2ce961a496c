package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/fleet"
)

// TestPromotionBesideDevices measures how long a promotion takes, from the beginning of the push until aob/release is
// green, alone and beside 10,000 devices that each report something new and poll every 15 s. Both are measured by
// turns, in one run. It takes some minutes and asserts no time, as a machine may have other work meanwhile; make
// bench-devices prints its table, which BENCHMARKS.md keeps.
func TestPromotionBesideDevices(t *testing.T) {
	if os.Getenv("AOB_DEVICES") == "" {
		t.Skip("it measures for minutes: make bench-devices")
	}
	const devices, within, rounds = 10_000, 15 * time.Second, 3
	roomForFiles(t, devices)
	w, b := newHostileWorkshop(t)
	branch := "first" // a release, which the devices are told to run
	w.clone.push(t, branch, "shapes: first", map[string]string{"models/shapes.yaml": shapesModel("shapes", 2)})
	w.merge(t, w.green(t, branch))
	b.done++
	b.promote(b.done) // fills caches
	load := newDeviceLoad(t, w, devices, within)
	load.start(t)
	load.round(t) // all are new
	first := load.stop()
	var alone, beside []time.Duration
	var loop []measuredLoop
	for range rounds {
		b.done++
		alone = append(alone, b.promote(b.done))
		load.start(t)
		load.round(t) // so many devices at once that the first reports of all are over
		server, mine, turns := cpu(t, b.pid()), cpu(t, os.Getpid()), w.turns(t)
		began := time.Now()
		b.done++
		beside = append(beside, b.promote(b.done))
		took := time.Since(began)
		now := w.turns(t)
		loop = append(loop, measuredLoop{took: took, server: cpu(t, b.pid()) - server, load: cpu(t, os.Getpid()) - mine,
			turns: now.count - turns.count, turning: now.seconds - turns.seconds})
		load.stop()
		t.Logf("alone %s; beside %s", round(alone[len(alone)-1]), loop[len(loop)-1])
	}
	reports, polls := load.took()
	t.Logf("all new: %s", first)
	t.Logf("| | p50 | p99 | refused |")
	t.Logf("| reports | %s | %s | %d |", ms(at(reports, 50)), ms(at(reports, 99)), load.refused.Load())
	t.Logf("| polls | %s | %s | |", ms(at(polls, 50)), ms(at(polls, 99)))
	t.Logf("| promotion | alone %s | beside %s | %.2f times |", round(median(alone)), round(median(beside)),
		median(beside).Seconds()/median(alone).Seconds())
	t.Logf("the server took %d MiB at most", peak(t, b.pid())>>20)
	if n := load.refused.Load(); n > 0 {
		t.Errorf("%d reports and polls were refused or lost; the last: %v", n, load.last.Load())
	}
}

// A measuredLoop is what a promotion beside devices cost.
type measuredLoop struct {
	took, server, load time.Duration
	turns              int
	turning            float64 // seconds
}

func (l measuredLoop) String() string {
	return fmt.Sprintf("%s: the server had %.2f s of CPU, the devices %.2f s; %d turns took %.2f s", round(l.took),
		l.server.Seconds(), l.load.Seconds(), l.turns, l.turning)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1e3) }

// at returns a percentile.
func at(list []time.Duration, percent int) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(list))[min(len(list)-1, len(list)*percent/100)]
}

// cpu is the processor time that a process has had, in ticks of 10 ms.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// turns are those that the loop has taken.
type turns struct {
	count   int
	seconds float64
}

func (w *workshop) turns(t *testing.T) (n turns) {
	t.Helper()
	resp, err := http.Get("http://" + w.counters + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch name {
		case "aob_turn_seconds_count":
			_, err = fmt.Sscan(value, &n.count)
		case "aob_turn_seconds_sum":
			_, err = fmt.Sscan(value, &n.seconds)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// A deviceLoad is many devices of a fleet of their own, which all poll and report within a time, again and again. Each
// report has news.
type deviceLoad struct {
	url     string
	tokens  []string
	within  time.Duration
	client  *http.Client
	refused atomic.Int64
	last    atomic.Pointer[error]
	told    atomic.Pointer[toldDevices]

	mu             sync.Mutex
	sequence       int64
	reports, polls []time.Duration

	cancel context.CancelFunc
	done   chan struct{}
	rounds chan struct{}
}

const loadRing = "demo"

func newDeviceLoad(t *testing.T, w *workshop, devices int, within time.Duration) *deviceLoad {
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(w.path("state"), "fleet.secret"))
	if err != nil {
		t.Fatal(err)
	}
	l := &deviceLoad{url: "http://" + w.address, within: within,
		client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}}
	l.told.Store(&toldDevices{})
	for i := range devices {
		l.tokens = append(l.tokens, fleet.DeviceToken(strings.TrimSpace(string(secret)), loadRing, virtual(i)))
	}
	return l
}

func virtual(i int) string { return fmt.Sprintf("virtual-%d", i) }

// toldDevices is the last document that a device got.
type toldDevices struct {
	etag    string
	desired delivery.Desired
}

// start has the devices speak until stop.
func (l *deviceLoad) start(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l.cancel, l.done, l.rounds = cancel, make(chan struct{}), make(chan struct{}, 1)
	go func() {
		defer close(l.done)
		for ctx.Err() == nil {
			l.speak(ctx)
			select {
			case l.rounds <- struct{}{}:
			default:
			}
		}
	}()
}

// round waits until all devices have spoken once more.
func (l *deviceLoad) round(t *testing.T) {
	select {
	case <-l.rounds:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// stop ends the load, and says how it went so far.
func (l *deviceLoad) stop() string {
	l.cancel()
	<-l.done
	reports, polls := l.took()
	return fmt.Sprintf("reports p50 %s, p99 %s; polls p50 %s, p99 %s; %d refused", ms(at(reports, 50)),
		ms(at(reports, 99)), ms(at(polls, 50)), ms(at(polls, 99)), l.refused.Load())
}

func (l *deviceLoad) took() (reports, polls []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.reports), slices.Clone(l.polls)
}

// speak has each device poll and report once, each at its own time: devices do not wait for each other, so a slow
// server gets no fewer of them.
func (l *deviceLoad) speak(ctx context.Context) {
	l.mu.Lock()
	l.sequence++
	sequence := l.sequence
	l.mu.Unlock()
	var all sync.WaitGroup
	defer all.Wait()
	start := time.Now()
	for i := range l.tokens {
		begin := start.Add(l.within * time.Duration(i) / time.Duration(len(l.tokens)))
		if wait := time.Until(begin); wait > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
		all.Go(func() {
			l.note(ctx, &l.polls, begin, l.poll(ctx, i))
			begin := time.Now()
			l.note(ctx, &l.reports, begin, l.report(ctx, i, sequence))
		})
	}
}

func (l *deviceLoad) note(ctx context.Context, list *[]time.Duration, begin time.Time, err error) {
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		l.refused.Add(1)
		l.last.Store(&err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	*list = append(*list, time.Since(begin))
}

func (l *deviceLoad) poll(ctx context.Context, i int) error {
	r, err := http.NewRequestWithContext(ctx, "GET", l.url+"/fleet/v1/desired/"+loadRing, nil)
	if err != nil {
		return err
	}
	if tag := l.told.Load().etag; tag != "" {
		r.Header.Set("If-None-Match", tag)
	}
	return l.do(r, i, http.StatusOK, http.StatusNotModified)
}

// report says something new: a label of the device changes. The device runs what it is told.
func (l *deviceLoad) report(ctx context.Context, i int, sequence int64) error {
	report := delivery.Report{Device: virtual(i), Ring: loadRing, Sequence: sequence, Phase: delivery.DeviceIdle,
		Labels: map[string]string{"site": loadRing, "round": fmt.Sprint(sequence % 2)}}
	if d := l.told.Load().desired; d.Version > 0 {
		target := &d.Release
		if !d.InWave(report.Device) {
			target = d.Previous
		}
		if report.Desired = d.Version; target != nil {
			report.Phase, report.Bundle, report.Release = delivery.DeviceHealthy, target.Bundle, target.Version
		}
	}
	body, err := json.Marshal(report)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, "POST", l.url+"/fleet/v1/reports", bytes.NewReader(body))
	if err != nil {
		return err
	}
	return l.do(r, i, http.StatusOK)
}

func (l *deviceLoad) do(r *http.Request, i int, want ...int) error {
	r.Header.Set("Authorization", "Bearer "+l.tokens[i])
	answer, err := l.client.Do(r)
	if err != nil {
		if errors.Is(err, syscall.EADDRNOTAVAIL) {
			return fmt.Errorf("this machine has no more ports: %w", err)
		}
		return err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if r.Method == "GET" && answer.StatusCode == http.StatusOK {
		told := toldDevices{etag: answer.Header.Get("ETag")}
		var envelope struct {
			Payload []byte `json:"payload"`
		}
		err := json.Unmarshal(data, &envelope)
		if err == nil {
			err = json.Unmarshal(envelope.Payload, &told.desired)
		}
		if err != nil {
			return err
		}
		l.told.Store(&told)
	}
	if !slices.Contains(want, answer.StatusCode) {
		return fmt.Errorf("%s %s: %s", r.Method, r.URL.Path, answer.Status)
	}
	return nil
}
