package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
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
		Long: `Logs prints what a run has written: one that is named by its key or the beginning
of it, as aob status shows, or the one of a pull request that matters most: what
is running, else what failed, else the training.

Control characters and invisible ones are left out, as a run may have written
anything; -o json shows them as \u and four digits.`,
		Example: "  aob logs 3f9c2a10ab12\n  aob logs pr 12 -f\n  aob logs pr 12 -o json | jq -r .line",
		Args:    arguments(cobra.RangeArgs(1, 2)),
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
				r, ok := telling(pr.Runs)
				if !ok {
					return hinted{fmt.Errorf("#%d has no run", number),
						fmt.Sprintf("aob pr show %d says what it waits for", number)}
				}
				say(c.ErrOrStderr(), "==> %s run %s, %s", r.Kind, r.Key.Short(), r.Phase)
				run = string(r.Key)
			case len(args) == 2 || args[0] == "pr":
				return hinted{fmt.Errorf("want a run's key, or pr and a number"), "usage: " + c.UseLine()}
			}
			out := c.OutOrStdout()
			if o.json() {
				lines := &jsonLines{out: json.NewEncoder(delivery.LogWriter{W: out}), run: run}
				defer lines.flush()
				out = lines
			} else {
				out = &printableWriter{w: out} // what goes into a pipe ends on a terminal too
			}
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			return printLog(c.Context(), api, out, run, follow, tick.C)
		},
	}
	o.register(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing until the run has ended")
	return c
}

// jsonLines writes a log as JSON, an object a line.
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

// flush writes a last line that has no end.
func (w *jsonLines) flush() {
	if len(w.rest) > 0 {
		_ = w.line(w.rest)
	}
}

// telling picks the run of a pull request that says most: runs come running
// ones first, and then the newest.
func telling(runs []web.Run) (web.Run, bool) {
	for _, is := range []func(web.Run) bool{
		func(r web.Run) bool { return r.Phase == delivery.RunRunning },
		func(r web.Run) bool { return r.Phase == delivery.RunFailed || r.Phase == delivery.RunDied },
		func(r web.Run) bool { return r.Kind == delivery.RunTrain },
		func(web.Run) bool { return true },
	} {
		for _, r := range runs {
			if is(r) {
				return r, true
			}
		}
	}
	return web.Run{}, false
}

// logSource is what printing a log needs of a server.
type logSource interface {
	Log(ctx context.Context, run string, offset int64) (web.Log, error)
}

// printLog prints a log to its end, and with follow to the run's, looking for
// more at every tick.
func printLog(ctx context.Context, source logSource, w io.Writer, run string, follow bool,
	tick <-chan time.Time) error {
	name, offset := "", int64(0)
	for {
		log, err := source.Log(ctx, run, offset)
		if err != nil {
			return err
		}
		if name != "" && log.Name != name && log.Offset > 0 {
			// The run goes on in another file, which has to be read from its start.
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
