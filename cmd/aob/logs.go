package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

func newLogsCommand() *cobra.Command {
	var o client
	var follow bool
	c := &cobra.Command{
		Use:   "logs RUN | logs pr N",
		Short: "Print the log of a run",
		Long: `Logs prints the output of a run. RUN is its key or the beginning of it, as aob status
shows. For a pull request it prints the log of one run: the one that is running, else
one that failed, else the training.

Control characters and invisible characters are left out, because the output of a run
is not trusted; -o json shows them as \u and four digits.`,
		Example: "  aob logs 3f9c2a10ab12\n  aob logs pr 12 -f\n  aob logs pr 12 -o json | jq -r .line",
		RunE: func(c *cobra.Command, args []string) error {
			api, run := o.dial(), args[0]
			switch {
			case args[0] == "pr" && len(args) == 2:
				number, err := numberOf(args[1])
				if err != nil {
					return err
				}
				pr, err := api.PR(c.Context(), number)
				if err != nil {
					return err
				}
				r, ok := runToShow(pr.Runs)
				if !ok {
					return hinted{fmt.Errorf("#%d has no run", number),
						fmt.Sprintf("see what it waits for with: aob pr show %d", number)}
				}
				printMessage(c.ErrOrStderr(), "==> %s run %s, %s", r.Kind, r.Key.Short(), r.Phase)
				run = string(r.Key)
			case len(args) == 2 || args[0] == "pr":
				return hinted{errors.New("name a run by its key, or a pull request as pr NUMBER"),
					"usage: " + c.UseLine()}
			}
			out := c.OutOrStdout()
			if o.json() {
				lines := &jsonLines{out: json.NewEncoder(delivery.LogWriter{W: out}), run: run}
				defer lines.flush()
				out = lines
			} else {
				out = &printableWriter{w: out} // also for a pipe: its output may be shown on a terminal
			}
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			return printLog(c.Context(), api, out, run, follow, tick.C)
		},
	}
	o.register(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "print new lines until the run has ended")
	return c
}

// jsonLines writes a log as JSON, one object for each line.
type jsonLines struct {
	out  *json.Encoder
	run  string
	rest []byte
}

func (w *jsonLines) Write(data []byte) (int, error) {
	w.rest = append(w.rest, data...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(data), nil
		}
		w.rest = rest
		if err := w.line(line); err != nil {
			return len(data), err
		}
	}
}

func (w *jsonLines) line(line []byte) error {
	return w.out.Encode(map[string]string{"run": w.run, "line": strings.ToValidUTF8(string(line), "\uFFFD")})
}

// flush writes the last line if it has no newline.
func (w *jsonLines) flush() {
	if len(w.rest) > 0 {
		_ = w.line(w.rest)
	}
}

// runToShow returns the run of a pull request whose log is printed.
func runToShow(runs []web.Run) (r web.Run, ok bool) {
	if len(runs) == 0 {
		return r, false
	}
	rank := func(r web.Run) int {
		switch {
		case r.Phase == delivery.RunRunning:
			return 0
		case r.Phase == delivery.RunFailed || r.Phase == delivery.RunDied:
			return 1
		case r.Kind == delivery.RunTrain:
			return 2
		}
		return 3
	}
	return slices.MinFunc(runs, func(a, b web.Run) int { return cmp.Compare(rank(a), rank(b)) }), true
}

// A logSource reads logs of runs from a server.
type logSource interface {
	Log(ctx context.Context, run string, offset int64) (web.Log, error)
}

// printLog prints a log. With follow it reads new output at every tick until the run has ended.
func printLog(ctx context.Context, source logSource, w io.Writer, run string, follow bool,
	tick <-chan time.Time) error {
	name, offset := "", int64(0)
	for {
		log, err := source.Log(ctx, run, offset)
		if err != nil {
			return err
		}
		if name != "" && log.Name != name && log.Offset > 0 {
			// The run writes to another file now, which is read from its start.
			log.Close()
			name, offset = log.Name, 0
			continue
		}
		n, err := io.Copy(w, log)
		log.Close()
		if err != nil {
			return fmt.Errorf("print the log of run %s: %w", run, err)
		}
		name, offset = log.Name, log.Offset+n
		if !follow || log.Ended {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick:
		}
	}
}
