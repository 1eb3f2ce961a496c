package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

// screen is a terminal of a size, as a test sees it.
func screen(b *bytes.Buffer, width int, color bool) *terminal {
	t := newTerminal(b)
	t.width, t.color, t.tty = width, color, color
	return t
}

func drawn(t *testing.T, width int, color bool, draw func(*terminal)) string {
	t.Helper()
	var b bytes.Buffer
	s := screen(&b, width, color)
	draw(s)
	if err := s.flush(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The lines of a diagnosis fit, and stand below the first one.
func TestDiagnosesFit(t *testing.T) {
	list := []diagnosis{{Check: "weights", State: diagnosisOK, Text: strings.Repeat("what was found ", 20)},
		{Check: "disk", State: diagnosisFailed, Text: strings.Repeat("what is wrong ", 20),
			Do: strings.Repeat("do it ", 30)}}
	plain := strings.NewReplacer("\x1b[32m", "", "\x1b[31m", "", "\x1b[0m", "")
	for _, color := range []bool{false, true} {
		text := drawn(t, 60, color, func(s *terminal) { s.diagnoses(list) })
		for line := range strings.Lines(plain.Replace(text)) {
			first := strings.HasPrefix(line, "ok      weights: ") || strings.HasPrefix(line, "failed  disk: ")
			if utf8.RuneCountInString(line) > 61 || !first && !strings.HasPrefix(line, "        ") {
				t.Errorf("%q", line)
			}
		}
	}
}

// A table fits, whatever is in it, and keeps its columns.
func TestTablesFit(t *testing.T) {
	long := strings.Repeat("a long name of a thing ", 8)
	for _, rows := range [][][]cell{
		{heading("MODEL", "STATE", "TEXT"), cells("shapes", "success", long)},
		{heading("MODEL", "STATE", "TEXT"), cells(long, "success", long)},
		{heading("A", "B", "C", "D", "E"), cells(long, long, long, long, long)},
		{cells(long)},
		{cells("é日本", "x"), cells("a", "\x1b[31mred\x1b[0m\n\u202e")},
	} {
		for _, width := range []int{60, 80, 132} {
			text := drawn(t, width, false, func(s *terminal) { s.table("  ", rows) })
			for line := range strings.Lines(text) {
				line = strings.TrimSuffix(line, "\n")
				if n := utf8.RuneCountInString(line); n > width {
					t.Errorf("%d columns on %d: %q", n, width, line)
				}
				if !strings.HasPrefix(line, "  ") || strings.HasSuffix(line, " ") {
					t.Errorf("%q", line)
				}
			}
			if n := strings.Count(text, "\n"); n != len(rows) {
				t.Errorf("%d lines of %d rows", n, len(rows))
			}
		}
	}
}

func TestTable(t *testing.T) {
	got := drawn(t, 40, false, func(s *terminal) {
		s.table("", [][]cell{heading("PR", "STATE", "TEXT"), {{text: "#3"}, {"pending", yellow},
			{text: "it takes longer than there is room for"}}})
	})
	want := "PR  STATE    TEXT\n#3  pending  it takes longer than there…\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// Colour changes nothing but colour.
func TestColour(t *testing.T) {
	status := everything(t)
	plain := drawn(t, 80, false, func(s *terminal) { s.tty = true; s.status(status, noon) })
	colored := drawn(t, 80, true, func(s *terminal) { s.status(status, noon) })
	if strings.Contains(plain, "\x1b") {
		t.Error("colour where there is none")
	}
	if !strings.Contains(colored, "\x1b[32msuccess\x1b[0m") || !strings.Contains(colored, "\x1b[31mfailed\x1b[0m") {
		t.Errorf("no colour:\n%q", colored)
	}
	if got := uncolored(colored); got != plain {
		t.Errorf("without its colours:\n%s\nwant\n%s", got, plain)
	}
}

func uncolored(s string) string {
	for _, c := range []style{bold, faint, red, green, yellow, "0"} {
		s = strings.ReplaceAll(s, "\x1b["+string(c)+"m", "")
	}
	return s
}

func everything(t *testing.T) web.Status {
	t.Helper()
	s, err := newShop().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Notices = []string{"the forge does not answer"}
	s.Fleets[0].More = 12
	return s
}

// A person sees a bar, a file does not.
func TestBars(t *testing.T) {
	s := everything(t)
	if text := drawn(t, 120, true, func(s *terminal) { s.status(everything(t), noon) }); !strings.Contains(text,
		"[######----------]  epoch 12/30") {
		t.Errorf("no bar:\n%s", text)
	}
	if text := drawn(t, 120, false, func(t *terminal) { t.status(s, noon) }); strings.Contains(text, "[#") {
		t.Errorf("a bar in a file:\n%s", text)
	}
	for share, want := range map[float64]string{-1: "[----]", 0: "[----]", 0.25: "[#---]", 0.99: "[###-]", 1: "[####]",
		7: "[####]"} {
		if got := bar(share, 4); got != want {
			t.Errorf("bar(%v) = %s, want %s", share, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	term := screen(new(bytes.Buffer), 80, false)
	ninety := 90.0
	for want, r := range map[string]web.Run{
		"epoch 3/10  1m30s left": {Kind: delivery.RunTrain, Phase: delivery.RunRunning, Stage: "training",
			Epoch: 3, Epochs: 10, SecondsLeft: &ninety},
		"image 40/72": {Kind: delivery.RunEval, Phase: delivery.RunRunning, Batch: 40,
			Batches: 72},
		"preparing  attempt 3": {Kind: delivery.RunTrain, Phase: delivery.RunRunning, Stage: "apply",
			Attempt: 3},
		"making it": {Kind: delivery.RunVariant, Phase: delivery.RunRunning, Stage: "training"},
		"for 2m05s": {Kind: delivery.RunCompare, Phase: delivery.RunRunning,
			Started: noon.Add(-125 * time.Second)},
		"took 42s": {Kind: delivery.RunEval, Phase: delivery.RunDone, Started: noon,
			Ended: noon.Add(42 * time.Second), Stage: "score"},
		"the trainer failed: out of memory": {Kind: delivery.RunTrain, Phase: delivery.RunFailed,
			Error: "the trainer failed: out of memory", Epoch: 3, Epochs: 10},
		"": {Kind: delivery.RunData, Phase: delivery.RunDied},
	} {
		if got := term.progress(r, noon); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, c := range []struct {
		run  web.Run
		want float64
	}{{web.Run{Epoch: 5, Epochs: 10}, 0.5}, {web.Run{Epoch: 5, Epochs: 10, Batch: 5, Batches: 10}, 0.55},
		{web.Run{Epoch: 10, Epochs: 10, Batch: 9, Batches: 10}, 1}, {web.Run{Batch: 1, Batches: 4}, 0.25}} {
		if got, ok := done(c.run); !ok || got != c.want {
			t.Errorf("done(%+v) = %v, %v, want %v", c.run, got, ok, c.want)
		}
	}
	if _, ok := done(web.Run{}); ok {
		t.Error("a run that says nothing has no share")
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 400 * time.Millisecond: "0s", 59 * time.Second: "59s", time.Minute: "1m00s",
		3599 * time.Second: "59m59s",
		time.Hour:          "1h00m", 47*time.Hour + 59*time.Minute: "47h59m", 48 * time.Hour: "2d",
		400 * 24 * time.Hour: "400d",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %s, want %s", d, got, want)
		}
	}
	if got := ago(time.Time{}, noon); got != "never" {
		t.Error(got)
	}
}

// A frame is drawn over the last one, and never scrolls the screen.
func TestInPlace(t *testing.T) {
	if got, want := inPlace("a\nb\n", 0), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	got := inPlace(strings.Repeat("line\n", 30), 10)
	if n := strings.Count(got, "\n"); n != 9 || !strings.Contains(got, "… and 22 more lines") {
		t.Errorf("%d lines: %q", n, got)
	}
}

// answers is a server that says one thing after another.
type answers struct {
	list []any // web.Update or error
}

func (a *answers) Watch(ctx context.Context, _ int, show func(web.Update) error) error {
	for _, v := range a.list {
		u, ok := v.(web.Update)
		if !ok {
			return v.(error)
		}
		if err := show(u); err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	return nil
}

// In a file or a pipe, watching prints what has changed, and ends with the
// server.
func TestWatch(t *testing.T) {
	one := web.Update{Main: &web.Main{Branch: "main", Commit: "aaaa"}, Models: []web.Model{{Name: "shapes"}}}
	two := web.Update{Main: &web.Main{Branch: "main", Commit: "bbbb"}}
	gone := errors.New("no aob serve answers")
	list := []any{one, web.Update{}, two, gone}
	var b bytes.Buffer
	o := client{output: output{format: "text"}}
	if err := o.watch(t.Context(), &answers{list: list}, &b, 100); err != gone {
		t.Errorf("ended with %v", err)
	}
	if got := b.String(); strings.Count(got, "aaaa") != 1 || strings.Count(got, "bbbb") != 1 ||
		strings.Count(got, "shapes") != 2 {
		t.Errorf("got %q", got)
	}

	b.Reset()
	o.format = "json"
	if err := o.watch(t.Context(), &answers{list: list}, &b, 100); err != gone {
		t.Errorf("ended with %v", err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 3 || strings.Contains(lines[2], "shapes") {
		t.Fatalf("%d lines:\n%s", len(lines), &b)
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
}

// Interrupting is how watching ends.
func TestWatchInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := client{output: output{format: "text"}}
	source := &answers{list: []any{web.Update{}}}
	cancel()
	if err := o.watch(ctx, source, io.Discard, 100); err != nil {
		t.Error(err)
	}
}

// files is a run that goes on in another file.
type files struct{ calls []string }

func (f *files) Log(_ context.Context, _ string, offset int64) (web.Log, error) {
	texts := []struct{ name, text string }{{"runner.log", "init\nplan\n"}, {"output/log.txt", "epoch 1\nepoch 2\n"},
		{"output/log.txt", "epoch 1\nepoch 2\n"}, {"output/log.txt", "epoch 1\nepoch 2\nepoch 3\n"}}
	now := texts[min(len(f.calls), len(texts)-1)]
	f.calls = append(f.calls, fmt.Sprint(offset))
	offset = min(offset, int64(len(now.text)))
	return web.Log{ReadCloser: io.NopCloser(strings.NewReader(now.text[offset:])), Name: now.name, Offset: offset,
		Ended: len(f.calls) == len(texts)}, nil
}

// Following prints every line once, also where the run goes on in another file.
func TestFollow(t *testing.T) {
	tick := make(chan time.Time, 8)
	for range 8 {
		tick <- noon
	}
	var b bytes.Buffer
	f := &files{}
	if err := printLog(t.Context(), f, &b, "3f9c", true, tick); err != nil {
		t.Fatal(err)
	}
	if want := "init\nplan\nepoch 1\nepoch 2\nepoch 3\n"; b.String() != want {
		t.Errorf("got %q, want %q; asked from %v", &b, want, f.calls)
	}
	b.Reset()
	if err := printLog(t.Context(), &files{}, &b, "3f9c", false, nil); err != nil || b.String() != "init\nplan\n" {
		t.Errorf("without following: %q, %v", &b, err)
	}
}

func TestRunToShow(t *testing.T) {
	run := func(kind delivery.RunKind, phase delivery.RunPhase) web.Run { return web.Run{Kind: kind, Phase: phase} }
	done, running, failed := delivery.RunDone, delivery.RunRunning, delivery.RunFailed
	for _, c := range []struct {
		runs []web.Run
		want web.Run
	}{
		{[]web.Run{run(delivery.RunCompare, done), run(delivery.RunTrain, running)}, run(delivery.RunTrain, running)},
		{[]web.Run{run(delivery.RunCompare, done), run(delivery.RunEval, failed), run(delivery.RunTrain, done)},
			run(delivery.RunEval, failed)},
		{[]web.Run{run(delivery.RunCompare, done), run(delivery.RunEval, done), run(delivery.RunTrain, done)},
			run(delivery.RunTrain, done)},
		{[]web.Run{run(delivery.RunCompare, done), run(delivery.RunData, done)}, run(delivery.RunCompare, done)},
	} {
		if got, ok := runToShow(c.runs); !ok || got.Kind != c.want.Kind || got.Phase != c.want.Phase {
			t.Errorf("%v: got %s %s", c.runs, got.Kind, got.Phase)
		}
	}
	if _, ok := runToShow(nil); ok {
		t.Error("no run tells nothing")
	}
}

func TestPrintError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("it broke"), "aob: it broke\n"},
		{errors.New("one\ntwo\x1b[2J"), "aob: one\naob: two[2J\n"},
		{delivery.Blockedf("free some", "the disk is full"), "aob: the disk is full\nhint: free some\n"},
		{fmt.Errorf("serve: %w", delivery.Blockedf("free some", "the disk is full")),
			"aob: serve: the disk is full\nhint: free some\n"},
		{&web.Error{What: "no server", Do: "start it"}, "aob: no server\nhint: start it\n"},
		{hinted{errors.New("unknown flag"), "--help"}, "aob: unknown flag\nhint: --help\n"},
		{fmt.Errorf("ask: %w", context.Canceled), "aob: interrupted\n"},
	} {
		var b bytes.Buffer
		printError(&b, c.err)
		if b.String() != c.want {
			t.Errorf("%v:\n%swant\n%s", c.err, &b, c.want)
		}
	}
}

// Why a run failed is shown whole, however long it is.
func TestErrorsOfRunsAreWhole(t *testing.T) {
	s := everything(t)
	why := "the trainer ended with exit status 1: CUDA out of memory: tried to allocate 2.00 GiB, of which 1.20 GiB " +
		"is free; reduce train.batch.step"
	s.Runs = append(s.Runs, web.Run{Key: sum("another"), Kind: delivery.RunTrain, PRs: []int{4},
		Phase: delivery.RunFailed, Attempt: 1, Error: why})
	text := drawn(t, 80, false, func(t *terminal) { t.status(s, noon) })
	if !strings.Contains(strings.Join(strings.Fields(text), " "), "failed "+why) {
		t.Errorf("the status cuts the error:\n%s", text)
	}
	if !strings.Contains(text, "running  epoch 12/30  mAP 0.412  1m35s left  attempt 2\n") {
		t.Errorf("the other run:\n%s", text)
	}
	for line := range strings.Lines(text) {
		if n := columns(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// A page of a pull request has one number for a change: that of the check, and not the difference of rounded figures.
func TestOneChangeOnAPage(t *testing.T) {
	diff := 0.09957 // of 0.21752 and 0.11795
	m := web.Change{Model: "shapes", Measured: []delivery.Measured{{Gate: "production", Images: 72,
		Metrics: map[string]delivery.Figure{"mAP": {Value: 0.2175}, "AP50": {Value: 0.5}},
		Baseline: &delivery.BaselineMeasured{Version: 1,
			Metrics: map[string]float64{"mAP": 0.118, "AP50": 0.4}}}},
		Verdicts: []delivery.Verdict{{Gate: "production", Model: "shapes", Outcome: delivery.Pass,
			Checks: []delivery.CheckVerdict{{Check: "mAP drop <= 0.02", Metric: "mAP", Outcome: delivery.Pass,
				Diff: &diff}, {Check: "AP50 drop <= 0.02 against shapes@7", Metric: "AP50", Against: "shapes@7",
				Outcome: delivery.Pass, Diff: &diff}}}},
		Pictures: map[string]string{"production": "/pictures/0a1b/"}}
	got := drawn(t, 80, false, func(t *terminal) { t.change(m) })
	for _, want := range []string{"0.1180     +0.0996", "0.4000     +0.1000"} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
	// Without the server's address, its pages are no links.
	if want := "/pictures/0a1b/ on the server's address (listen.url"; !strings.Contains(strings.Join(
		strings.Fields(got), " "), want) {
		t.Errorf("want %q in\n%s", want, got)
	}
}

// Nothing that strangers write moves the cursor.
func FuzzStatus(f *testing.F) {
	f.Add("\x1b[2Jtitle", "why\r\n", "\u202e")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		s := everything(t)
		s.PRs[0].Title, s.PRs[0].Author, s.PRs[0].Text = a, b, c
		s.Models[0].Text, s.Runs[0].Note, s.Runs[0].Stage, s.Runs[0].Error = b, c, a, b
		s.Fleets[0].Text, s.Fleets[0].Devices[1].Why, s.Fleets[0].Devices[1].ID = a, b, c
		s.Notices[0] = c
		p := s.PRs[1]
		p.Checks = append(p.Checks, web.Check{Check: delivery.Check{Context: a, Description: b}})
		p.Complaints = []delivery.Complaint{{File: a, Text: b}}
		text := drawn(t, 80, false, func(t *terminal) { t.status(s, noon); t.pr(p, noon); t.plan(a + "\n" + b) })
		for _, r := range text {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Fatalf("%q in %q", r, text)
			}
		}
	})
}

// On a narrow screen an experiment's figures and values stay whole.
func TestTrialFits(t *testing.T) {
	figure := func(v float64) *delivery.Figure {
		low, high := v-0.03, v+0.03
		return &delivery.Figure{Value: v, Low: &low, High: &high}
	}
	trial := web.Trial{ID: "0a1b2c3d4e", Model: "cells", State: delivery.CheckSuccess,
		Sentence: web.Sentence{Text: "4 of 4 models trained"},
		Release:  &delivery.Release{Version: 12}}
	for i, id := range []string{"3f9c2a10ab", "77d0c1e2f3"} {
		v := 0.4 + float64(i)/10
		trial.Variants = append(trial.Variants, web.Variant{ID: id, State: delivery.CheckSuccess, MAP: figure(v),
			Diff: figure(-v / 4),
			Set: []string{fmt.Sprintf("train.args.channels=%d", 8+4*i), "train.epochs=4",
				fmt.Sprintf("train.optimizer.lr=%de-3", i+1), fmt.Sprintf("train.optimizer.weightDecay=%de-4", i+1)},
			Seeds: []web.Seed{{Seed: 1, MAP: &v}, {Seed: 2, MAP: &v}}})
	}
	text := drawn(t, 80, false, func(s *terminal) { s.trial(trial, time.Time{}) })
	for _, want := range []string{"0.5000, at least 0.4700", "-0.1250, at least -0.1550",
		"  77d0c1e2f3  channels=12 lr=2e-3 weightDecay=2e-4\n", "all with train.epochs=4\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if n := utf8.RuneCountInString(line); n > 81 && !strings.HasPrefix(line, "aob runs write") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}
