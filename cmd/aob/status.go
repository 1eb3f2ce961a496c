package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

func newStatusCommand() *cobra.Command {
	var o client
	var watch bool
	var ask web.StatusAsk
	c := &cobra.Command{
		Use:   "status",
		Short: "Show models, pull requests, runs, fleets and devices",
		Long: `Status shows how everything stands: what each model on the main branch runs,
open pull requests, runs with their progress, fleets with their wave, and devices.

It shows the first of each list, without facts and most figures; --limit says how many,
and --after goes on. With --full it has everything.

With -w it goes on until interrupted: on a terminal in place, else each time that
something has changed. With -w -o json the first line is the whole status, and each
further one has what changed and what is gone.`,
		Example: "  aob status\n  aob status -w\n  aob status -o json | jq '.fleets[].count'\n" +
			"  aob status --limit 500 --after models/pallets -o json",
		RunE: func(c *cobra.Command, _ []string) error {
			if watch && (ask.Full || ask.After != "") {
				return hinted{fmt.Errorf("-w shows the first of each list, and takes neither --full nor --after"),
					"aob status --help shows how"}
			}
			if watch {
				return o.watch(c.Context(), o.dial(), c.OutOrStdout(), ask.Limit)
			}
			s, err := o.dial().StatusPage(c.Context(), ask)
			if err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), s, func(t *terminal) { t.status(s, time.Now()) })
		},
	}
	o.register(c)
	registerPage(c, &ask.Page)
	c.Flags().BoolVar(&ask.Full, "full", false, "everything: all items, facts, figures and devices")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing it until interrupted")
	return c
}

// statusSource is what watching needs of a server.
type statusSource interface {
	Watch(ctx context.Context, limit int, show func(web.Update) error) error
}

// watch shows the status now and with every change, until ctx ends.
func (o *client) watch(ctx context.Context, source statusSource, w io.Writer, limit int) error {
	var s web.Status
	last := ""
	err := source.Watch(ctx, limit, func(u web.Update) error {
		s = s.Apply(u)
		t := newTerminal(w) // the window's size may have changed
		var b strings.Builder
		if o.json() {
			line, err := json.Marshal(u)
			if err != nil {
				return err
			}
			b.WriteString(delivery.LogText(string(line)) + "\n")
		} else {
			frame := newTerminal(&b)
			frame.tty, frame.color, frame.width = t.tty, t.color, t.width
			frame.status(s, s.At)
			if err := frame.flush(); err != nil {
				return err
			}
		}
		err := writeFrame(t, w, last, b.String(), o.json())
		last = b.String()
		return err
	})
	if ctx.Err() != nil {
		return nil // the user has ended it
	}
	return err
}

// writeFrame draws a frame over the last one, or prints it if it differs.
func writeFrame(t *terminal, w io.Writer, last, frame string, lines bool) error {
	if t.tty && !lines {
		_, err := io.WriteString(w, inPlace(frame, t.lines))
		return err
	}
	if frame == last {
		return nil
	}
	if last != "" && !lines {
		frame = "\n" + frame
	}
	_, err := io.WriteString(w, frame)
	return err
}

// inPlace returns the codes that draw a frame from the upper left corner, cut to the screen, and clear the rest.
func inPlace(frame string, lines int) string {
	rows := strings.Split(strings.TrimSuffix(frame, "\n"), "\n")
	if lines > 1 && len(rows) > lines-1 {
		rows = append(rows[:lines-2], fmt.Sprintf("… and %d more lines", len(rows)-(lines-2)))
	}
	return "\x1b[H" + strings.Join(rows, "\x1b[K\n") + "\x1b[K\n\x1b[J"
}

// status prints the state of everything.
func (t *terminal) status(s web.Status, now time.Time) {
	for _, n := range s.Notices {
		t.paragraph("", "note: "+n)
	}
	t.main(s.Main)
	t.models(s.Models)
	t.prs(s.PRs)
	t.runs(s.Runs, now)
	t.fleets(s.Fleets, now)
	for _, m := range s.More {
		t.printf("\n… and %d more %s; --after '%s' shows them\n", m.Count, m.List, m.Next)
	}
	if !s.LastTurn.IsZero() {
		t.printf("\nlast turn that worked: %s\n", s.LastTurn.UTC().Format("2006-01-02 15:04 UTC"))
	}
}

// section begins a part of the status.
func (t *terminal) section(rows [][]cell) {
	t.printf("\n")
	t.table("", rows)
}

func (t *terminal) main(m web.Main) {
	state, text := delivery.CheckPending, "nothing is there yet"
	for _, c := range m.Checks {
		if state, text = c.State, c.Description; c.Context == delivery.ContextRelease {
			break
		}
	}
	t.table("", [][]cell{{{m.Branch, bold}, {short(m.Commit), faint}, {string(state), stateStyle(state)},
		{text: text}}})
}

func short(commit string) string { return commit[:min(12, len(commit))] }

func (t *terminal) models(models []web.Model) {
	rows := [][]cell{heading("MODEL", "RELEASE", "mAP", "STATE", "")}
	for _, m := range models {
		release, score := "-", "-"
		if m.Accepted != nil {
			release = fmt.Sprintf("version %d", m.Accepted.Version)
			if len(m.Accepted.Measured) > 0 {
				if f, ok := m.Accepted.Measured[0].Metrics["mAP"]; ok {
					score = fmt.Sprintf("%.4f", f.Value)
				}
			}
		}
		rows = append(rows, []cell{{text: m.Name}, {text: release}, {text: score},
			{string(m.State), stateStyle(m.State)}, {text: m.Text}})
	}
	if len(models) > 0 {
		t.section(rows)
	}
}

func (t *terminal) prs(prs []web.PR) {
	if len(prs) == 0 {
		return
	}
	t.printf("\n")
	t.prTable(prs)
}

// prTable lists pull requests.
func (t *terminal) prTable(prs []web.PR) {
	if len(prs) == 0 {
		t.printf("no open pull request\n")
		return
	}
	rows := [][]cell{heading("PR", "TITLE", "AUTHOR", "STATE", "WAITS FOR", "")}
	for _, p := range prs {
		rows = append(rows, []cell{{text: fmt.Sprintf("#%d", p.Number)}, {text: cut(p.Title, 28)}, {text: p.Author},
			{string(p.State), stateStyle(p.State)}, {text: p.WaitsFor}, {text: p.Text}})
	}
	t.tableWithTexts(rows, false)
}

func (t *terminal) runs(runs []web.Run, now time.Time) {
	rows := [][]cell{heading("RUN", "KIND", "FOR", "PHASE", "PROGRESS")}
	for _, r := range runs {
		rows = append(rows, []cell{{text: r.Key.Short()}, {text: string(r.Kind)}, {text: cut(waiting(r), 16)},
			{r.Phase.String(), phaseStyle(r.Phase)}, {text: t.progress(r, now)}})
	}
	if len(runs) > 0 {
		t.printf("\n")
		t.tableWithTexts(rows, true)
	}
}

// waiting returns the pull requests that wait for a run, or the run's note.
func waiting(r web.Run) string {
	if len(r.PRs) == 0 {
		return r.Note
	}
	return strings.Join(delivery.Each(r.PRs, func(n int) string { return fmt.Sprintf("#%d", n) }), " ")
}

func phaseStyle(p delivery.RunPhase) style {
	styles := map[delivery.RunPhase]style{delivery.RunDone: green, delivery.RunFailed: red, delivery.RunDied: red}
	return cmp.Or(styles[p], yellow)
}

// progress returns how far a run is.
func (t *terminal) progress(r web.Run, now time.Time) string {
	var words []string
	if share, ok := done(r); ok && r.Phase == delivery.RunRunning && t.tty {
		words = append(words, bar(share, 16))
	}
	switch {
	case r.Error != "" && r.Phase != delivery.RunRunning:
		words = append(words, r.Error)
	case r.Phase == delivery.RunDone || r.Phase == delivery.RunFailed:
		if took := r.Ended.Sub(r.Started); took > 0 {
			words = append(words, "took "+span(took))
		}
	case r.Ending != "":
		words = append(words, "ending: "+r.Ending)
	case r.Phase == delivery.RunRunning:
		words = append(words, steps(r)...)
		if !r.Started.IsZero() && len(words) == 0 {
			words = append(words, "for "+span(now.Sub(r.Started)))
		}
	}
	if r.Attempt > 1 {
		words = append(words, fmt.Sprintf("attempt %d", r.Attempt))
		if r.Phase == delivery.RunRunning && r.Error != "" {
			words = append(words, "after: "+r.Error)
		}
	}
	return strings.Join(words, "  ")
}

func steps(r web.Run) []string {
	var words []string
	switch {
	case r.Kind == delivery.RunTrain && r.Epochs > 0:
		words = append(words, fmt.Sprintf("epoch %d/%d", r.Epoch, r.Epochs))
	case r.Kind == delivery.RunData && r.Message != "":
		words = append(words, r.Message)
	case r.Batches > 0:
		words = append(words, fmt.Sprintf("image %d/%d", r.Batch, r.Batches))
	case r.Stage != "":
		words = append(words, r.Kind.Doing(r.Stage))
	}
	if r.MAP != nil {
		words = append(words, fmt.Sprintf("mAP %.3f", *r.MAP))
	}
	if s := r.SecondsLeft; s != nil && *s >= 1 {
		words = append(words, span(time.Duration(*s*float64(time.Second)))+" left")
	}
	return words
}

// done returns which share of a run's work is done, if the run reports it.
func done(r web.Run) (share float64, ok bool) {
	batch := 0.0
	if r.Batches > 0 {
		batch = float64(r.Batch) / float64(r.Batches)
	}
	if r.Epochs > 0 {
		// Epoch is the number of finished epochs.
		return min(1, (float64(r.Epoch)+batch)/float64(r.Epochs)), true
	}
	return batch, r.Batches > 0
}

func (t *terminal) fleets(fleets []web.Fleet, now time.Time) {
	for _, f := range fleets {
		runs, wave := "-", "-"
		if f.Target.Version > 0 {
			if runs = fmt.Sprintf("%s@%d", f.Model, f.Target.Version); f.Variant != "" && f.Variant != delivery.FP32 {
				runs += " " + f.Variant
			}
		}
		if f.Wave > 0 {
			wave = fmt.Sprintf("%d/%d, %d of %s", f.Wave, f.Waves, f.InWave, delivery.Count(f.Count.Devices, "device"))
		}
		switch {
		case f.Back && f.Done:
			wave = "rolled back"
		case f.Back:
			wave = "rolling back"
		}
		t.section([][]cell{
			heading("FLEET", "RUNS", "WAVE", "HEALTHY", "STATE"),
			{{text: f.Name}, {text: runs}, {text: wave}, {text: healthyOf(f.Count)},
				{string(f.State), stateStyle(f.State)}},
		})
		t.paragraph("  ", f.Text)
		t.devices(f, now)
	}
}

func (t *terminal) devices(f web.Fleet, now time.Time) {
	if len(f.Devices) == 0 {
		return
	}
	rows := [][]cell{heading("DEVICE", "PHASE", "VERSION", "SEEN", "")}
	for _, d := range f.Devices {
		rows = append(rows, deviceCells(d, now))
	}
	t.table("  ", rows)
	if f.More > 0 {
		t.printf("  … and %d more devices\n", f.More)
	}
}

// healthyOf returns how many of a fleet's devices are healthy and silent.
func healthyOf(c web.Count) string {
	s := fmt.Sprintf("%d of %d", c.Healthy, c.Devices)
	if silent := c.Devices - c.Heard; silent > 0 {
		s += fmt.Sprintf(", %d silent", silent)
	}
	return s
}

// phaseOf returns the phase in a device's last report, or silent.
func phaseOf(d web.Device) string {
	if d.Silent {
		return "silent"
	}
	return string(d.Phase)
}

func deviceCells(d web.Device, now time.Time) []cell {
	version := "-"
	if d.Version > 0 {
		version = fmt.Sprint(d.Version)
	}
	style := yellow
	switch {
	case d.Silent || d.Phase == delivery.DeviceFailed:
		style = red
	case d.Phase == delivery.DeviceHealthy:
		style = green
	}
	words := slices.Clone(d.Notes)
	if d.Why != "" {
		words = append(words, d.Why)
	}
	return []cell{{text: d.ID}, {phaseOf(d), style}, {text: version}, {text: ago(d.Seen, now)},
		{text: strings.Join(words, "; ")}}
}
