package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/gate"
	"github.com/autonomos/aob/reconciler/stage"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/words"
	"github.com/autonomos/aob/tools/hostile"
)

// filled is a value with a text in each field that is text.
func filled[T any](text string) (v T) {
	hostile.Fill(&v, text)
	return v
}

// printed are all results that commands print, and how.
var printed = map[string]func(text string) (v any, print func(*terminal)){
	"aob status": func(text string) (any, func(*terminal)) {
		v := filled[web.Status](text)
		return v, func(t *terminal) { t.status(v, noon) }
	},
	"aob pr list": func(text string) (any, func(*terminal)) {
		v := filled[[]web.PR](text)
		return v, func(t *terminal) { t.prTable(v) }
	},
	"aob pr show": func(text string) (any, func(*terminal)) {
		v := filled[web.PR](text)
		return v, func(t *terminal) { t.pr(v, noon) }
	},
	"aob plan": func(text string) (any, func(*terminal)) {
		v := filled[web.Plan](text)
		return v, func(t *terminal) { t.plan(v.Text) }
	},
	"aob runs": func(text string) (any, func(*terminal)) {
		v := filled[[]web.Training](text)
		return v, func(t *terminal) { t.trainings(v, noon) }
	},
	"aob train": func(text string) (any, func(*terminal)) {
		v := filled[stage.Trained](text)
		v.Result.Trainer, _ = json.Marshal(text) // work keeps valid JSON alone
		for i := range v.Variants {
			v.Variants[i].Result.Reported = v.Result.Trainer
		}
		return v, func(t *terminal) { t.trained(v) }
	},
	"aob eval --trained": func(text string) (any, func(*terminal)) {
		v := filled[stage.Measured](text)
		return v, func(t *terminal) { t.scores(v) }
	},
	"aob gate judge": func(text string) (any, func(*terminal)) {
		v := filled[[]delivery.Verdict](text)
		return v, func(t *terminal) { t.verdicts(v) }
	},
	"aob runs list": func(text string) (any, func(*terminal)) {
		v := filled[[]web.Trial](text)
		return v, func(t *terminal) { t.trials(v, noon) }
	},
	"aob runs show": func(text string) (any, func(*terminal)) {
		v := filled[web.Trial](text)
		return v, func(t *terminal) { t.trial(v, noon); t.progressTable(v) }
	},
	"aob gc": func(text string) (any, func(*terminal)) {
		v := filled[web.Retention](text)
		return v, func(t *terminal) { t.retention(v, false); t.retention(v, true) }
	},
	"aob cost": func(text string) (any, func(*terminal)) {
		v := filled[costs](text)
		return v, func(t *terminal) { t.costs(v) }
	},
	"aob compare": func(text string) (any, func(*terminal)) {
		v := filled[web.Comparison](text)
		return v, func(t *terminal) { t.comparison(v) }
	},
	"aob device show": func(text string) (any, func(*terminal)) {
		v := filled[fleetDevice](text)
		return v, func(t *terminal) { t.device(v, noon) }
	},
	"aob explain": func(text string) (any, func(*terminal)) {
		v := filled[explain.Chain](text)
		return v, func(t *terminal) { t.printf("%s", safeText(words.ChainText(v, t.width))) }
	},
	"aob gate power": func(text string) (any, func(*terminal)) {
		v := filled[[]gate.ModelPower](text)
		return v, func(t *terminal) { t.powers(v) }
	},
	"aob gate freeze": func(text string) (any, func(*terminal)) {
		v := filled[freezeResult](text)
		return v, func(t *terminal) { v.Changed = true; t.frozen(v); v.Changed = false; t.frozen(v) }
	},
	"aob bench": func(text string) (any, func(*terminal)) {
		v := newMeasurement(filled[delivery.Bench](text))
		return v, func(t *terminal) { t.measurement(v) }
	},
	"aob validate": func(text string) (any, func(*terminal)) {
		v := filled[validation](text)
		return v, func(t *terminal) { t.validation(v) }
	},
	"aob eval": func(text string) (any, func(*terminal)) {
		v := filled[evaluation](text)
		v.Protocol.Mode = coco.Strict // a number
		return v, func(t *terminal) { t.evaluation(&v) }
	},
}

// Whatever stands in a result, a command prints text that moves no cursor and hides nothing, with as many lines as
// harmless text has where lines are not wrapped. As JSON it keeps its meaning.
func TestOutsideTextIsTextOnATerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	for command, result := range printed {
		for _, text := range hostile.Lots(10) {
			if text == "" {
				t.Fatal("no text")
			}
			v, print := result(text)
			for _, color := range []bool{false, true} {
				out := uncolored(drawn(t, 80, color, print))
				if err := hostile.Screen(out); err != nil {
					t.Errorf("%s, %.40q: %v", command, text, err)
				}
			}
			// A plan's text and an evaluation's trouble have lines of their own.
			if command != "aob plan" && command != "aob eval" {
				_, harmless := result(hostile.Harmless)
				const wide = 1 << 20
				got, want := drawn(t, wide, false, print), drawn(t, wide, false, harmless)
				if strings.Count(got, "\n") != strings.Count(want, "\n") {
					t.Errorf("%s, %.40q: other lines:\n%s", command, text, got)
				}
			}
			var b bytes.Buffer
			if err := (&output{format: "json"}).print(&b, v, nil); err != nil {
				t.Fatal(err)
			}
			if err := hostile.Screen(strings.ReplaceAll(b.String(), "\t", " ")); err != nil {
				t.Errorf("%s -o json, %.40q: %v", command, text, err)
			}
			var again, before any
			plain, err := json.Marshal(v)
			if err := errors.Join(err, json.Unmarshal(b.Bytes(), &again), json.Unmarshal(plain, &before)); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(again) != fmt.Sprint(before) {
				t.Errorf("%s -o json, %.40q: it means something else", command, text)
			}
		}
	}
}

// What an evaluation says in Markdown changes in words alone.
func TestOutsideTextIsTextInAnEvaluation(t *testing.T) {
	write := func(text string) string { v := filled[evaluation](text); return v.markdown() }
	for _, text := range hostile.Lots(10) {
		if err := hostile.Markdown(write(hostile.Harmless), write(text)); err != nil {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

// An error says what went wrong in lines that begin with aob:, whatever a server answered.
func TestOutsideTextIsTextInErrors(t *testing.T) {
	for _, text := range hostile.Lots(10) {
		var b bytes.Buffer
		printError(&b, &web.Error{What: text, Do: text})
		if err := hostile.Screen(b.String()); err != nil {
			t.Errorf("%.40q: %v", text, err)
		}
		for line := range strings.Lines(b.String()) {
			if !strings.HasPrefix(line, "aob: ") && !strings.HasPrefix(line, "hint: ") && line != "aob:\n" {
				t.Errorf("%.40q: %q", text, line)
			}
		}
	}
}

// A log is text, also where a character is cut by the end of a write.
func TestLogsAreText(t *testing.T) {
	for _, text := range append(hostile.Lots(10), "a\u202eb é 日本 \xff") {
		var b, whole bytes.Buffer
		w := &printableWriter{w: &b}
		for i := range len(text) {
			if _, err := w.Write([]byte{text[i]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := hostile.Screen(strings.ReplaceAll(b.String(), "\t", " ")); err != nil {
			t.Errorf("%.40q: %v", text, err)
		}
		if _, err := (&printableWriter{w: &whole}).Write([]byte(text)); err != nil || whole.String() != b.String() {
			t.Errorf("%.40q: byte by byte %q, at once %q, %v", text, b.String(), whole.String(), err)
		}
		b.Reset()
		lines := &jsonLines{out: json.NewEncoder(delivery.LogWriter{W: &b}), run: "3f9c"}
		if _, err := lines.Write([]byte(text + "\n")); err != nil {
			t.Fatal(err)
		}
		if err := hostile.Screen(b.String()); err != nil {
			t.Errorf("-o json, %.40q: %v", text, err)
		}
	}
}

// What commands print goes through the terminal's printf, or through one of the functions that make text safe. A line
// that writes to a stream by itself is listed here, with why it may.
func TestCommandsPrintSafely(t *testing.T) {
	own := []string{
		`fmt.Fprintln(c.OutOrStdout(), strings.ToLower(kind))`,
		`_, err := c.OutOrStdout().Write(intent.Schema(kind, known))`,
		`progress := c.OutOrStdout()`, // of aob init: the paths that it was given
		`_, err := io.WriteString(c.OutOrStdout(), v.markdown())`,
		// Annotations are workflow commands, and summaries are Markdown.
		`return printJob(c.OutOrStdout(), nil, "### aob eval\n\n"+v.markdown())`,
		`return printJob(c.OutOrStdout(), list, markdown)`,
		`err = printJob(c.OutOrStdout(), list, markdown)`,
		`out := c.OutOrStdout()`,                                       // of aob logs, which wraps it
		`w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)`, // what goes in is made safe
		// Another program reads it.
		`out := &lockedWriter{w: cmd.OutOrStdout()}`,
		`_ = detect.WriteProgress(cmd.ErrOrStderr(), p)`,
		`enc := json.NewEncoder(cmd.OutOrStdout())`, // of profiles, which are the operator's own
		`t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)`,
		`return f.serve(cmd.Context(), cmd.ErrOrStderr(), *o, bundle)`, // which writes through a LogWriter
		`return serve.Frames(ctx, frames, host, score, cmd.OutOrStdout(), log)`,
		`return printStatus(cmd.OutOrStdout(), s, c.output)`,
	}
	stream := regexp.MustCompile(`os\.Std(out|err)|(Out|Err)OrStd(out|err)\(\)|\bslog\.New|` +
		`log\.(Print|Fatal)|fmt\.Print`)
	handed := regexp.MustCompile(
		`(newTerminal|printMessage|\.print|\.watch|infer|follow|printError|run|copyFS|initWorld|showProgress|` +
			`showInstalling|\.openWork|awaitRelease)\(`)
	safe := regexp.MustCompile(`delivery\.(Terminal|LogWriter|LogText|TerminalLines)\b`)
	for _, dir := range []string{".", "../aob-agent", "../aob-detect"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files in %s: %v", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for line := range strings.Lines(string(data)) {
				n++
				text := strings.TrimSpace(line)
				if slices.Contains(own, text) || !stream.MatchString(text) || handed.MatchString(text) ||
					safe.MatchString(text) {
					continue
				}
				t.Errorf("%s:%d prints past the terminal: %s", file, n, text)
			}
		}
	}
}
