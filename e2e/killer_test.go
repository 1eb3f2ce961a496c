package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A phase is a part of a promotion, in the order in which they come. A training
// whose process was killed goes back to planning.
type phase int

const (
	checking phase = iota // the data
	planning              // terraform init and plan, and the cleaning up of a killed attempt
	applying
	training
	destroying // the machine of a completed training
	inspecting
	packing
	evaluating
	signing // until the release commit
	merging // until main has moved
	rolling
	settled // no more is to come
)

var phaseNames = []string{"data", "plan", "apply", "train", "destroy", "inspect", "pack", "eval", "sign and commit",
	"merge", "rollout", "settled"}

func (p phase) String() string { return phaseNames[p] }

// A victim is what a moment is meant for.
type victim string

const (
	server    victim = "aob serve"
	runner    victim = "runner"
	terraform victim = "terraform"
	trainer   victim = "trainer"
)

// plans says for each phase how many of a hundred kills fall into it, how long
// into it at most, in events and in looks after that, and whom they hit, each as
// likely as it is listed.
var plans = map[phase]struct {
	share, events, looks int
	victims              []victim
}{
	checking:   {8, 4, 10, []victim{server, runner}},
	planning:   {12, 12, 50, []victim{terraform, terraform, runner, server}},
	applying:   {12, 2, 20, []victim{terraform, terraform, runner, runner, server}},
	training:   {20, 12, 40, []victim{server, server, runner, runner, trainer}},
	destroying: {8, 3, 50, []victim{terraform, terraform, runner, server}},
	inspecting: {4, 1, 20, []victim{runner, runner, server}},
	packing:    {4, 1, 5, []victim{runner, server}},
	evaluating: {8, 3, 20, []victim{runner, server}},
	signing:    {8, 6, 3, []victim{server}},
	merging:    {8, 8, 3, []victim{server}},
	rolling:    {8, 16, 10, []victim{server}},
}

// A moment is when to kill whom: in a phase, after some events and looks.
type moment struct {
	phase         phase
	events, looks int
	victim        victim
}

// moments draws n moments, spread over all phases.
func moments(rng *rand.Rand, n int) []moment {
	total := 0
	for _, p := range plans {
		total += p.share
	}
	list := make([]moment, n)
	for i := range list {
		at, ph := (float64(i)+rng.Float64())/float64(n)*float64(total), checking
		for ; ph < rolling && at >= float64(plans[ph].share); ph++ {
			at -= float64(plans[ph].share)
		}
		p := plans[ph]
		list[i] = moment{ph, 1 + rng.IntN(p.events), rng.IntN(p.looks), p.victims[rng.IntN(len(p.victims))]}
	}
	return list
}

// A killer kills processes of a workshop at moments, and starts the server
// again. All else must come back by itself.
type killer struct {
	w       *workshop
	branch  string // the promotion's
	pushed  string // its commit
	main    string // where main was before
	over    atomic.Bool
	seen    map[string]stamp   // by file
	runs    map[string]history // by name
	killed  []killing
	ended   chan struct{}
	failure error // to be read after ended
}

// A killing is what a moment came to.
type killing struct {
	moment
	hit victim
	in  phase
}

// look is how often the killer looks at what happens.
const look = 3 * time.Millisecond

// A stamp tells whether a file has changed.
type stamp struct {
	size int64
	at   time.Time
}

// A history is what a run's journal says.
type history struct {
	runner durable.Process // the last
	stage  string
	done   bool
}

// start begins to kill.
func (k *killer) start(ctx context.Context, list []moment) {
	k.seen, k.runs, k.ended = map[string]stamp{}, map[string]history{}, make(chan struct{})
	go func() {
		defer close(k.ended)
		for i, m := range list {
			if k.failure = k.strike(ctx, m); k.failure != nil {
				k.failure = fmt.Errorf("kill %d, of %s: %w", i+1, m.victim, k.failure)
				return
			}
		}
	}()
}

// strike waits for a moment and kills. Where the phase has passed meanwhile, it
// kills at once, and whoever is there.
func (k *killer) strike(ctx context.Context, m moment) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	events, looks := 0, 0
	for {
		news, now := k.look()
		if now == m.phase {
			events += news
		}
		if events >= m.events {
			looks++
		}
		whom := []victim{m.victim}
		switch late := now > m.phase; {
		case late:
			whom = append(whom, terraform, runner, server)
		case now < m.phase || events < m.events || looks <= m.looks:
			whom = nil
		}
		for _, who := range whom {
			hit, err := k.kill(who)
			if err != nil {
				return err
			}
			if hit {
				k.killed = append(k.killed, killing{m, who, now})
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// kill kills one process, if there is one. The server is started again.
func (k *killer) kill(who victim) (bool, error) {
	var there []durable.Process
	switch who {
	case server:
		k.w.killServer()
		return true, k.w.startServer()
	case runner:
		for _, run := range k.runs {
			there = append(there, run.runner)
		}
	case trainer:
		files, _ := filepath.Glob(k.w.path("state", "runs", "*", "attempts", "*", "process.json"))
		for _, file := range files {
			var p durable.Process
			if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &p) == nil {
				there = append(there, p)
			}
		}
	case terraform:
		for _, pid := range k.w.named("terraform") {
			p, err := durable.FindProcess(pid)
			if err == nil {
				there = append(there, p)
			}
		}
	}
	for _, p := range there {
		if err := p.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			return err == nil, err
		}
	}
	return false, nil
}

// look counts what has happened since the last look, in everything that AOB
// writes, and says how far the promotion is.
func (k *killer) look() (events int, now phase) {
	see := func(pattern string) {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			info, err := os.Stat(file)
			if err != nil {
				continue
			}
			last := k.seen[file]
			if info.Size() == last.size && info.ModTime().Equal(last.at) {
				continue
			}
			k.seen[file] = stamp{info.Size(), info.ModTime()}
			switch filepath.Ext(file) {
			case ".log", ".jsonl":
				events += newLines(file, last.size)
			default:
				events++
			}
			if filepath.Base(file) == "journal.jsonl" {
				k.runs[filepath.Base(filepath.Dir(file))] = readHistory(file)
			}
		}
	}
	runs := k.w.path("state", "runs")
	for _, pattern := range []string{
		filepath.Join(runs, "*", "journal.jsonl"),
		filepath.Join(runs, "*", "output", "status.json"),
		filepath.Join(runs, "*", "attempts", "*", "terraform", "terraform.log"),
		filepath.Join(k.w.dir, "intent.git", "refs", "heads", "*"),
		filepath.Join(k.w.logs, "*.log"),
	} {
		see(pattern)
	}
	return events, k.phase()
}

func (k *killer) phase() phase {
	if k.over.Load() {
		return settled
	}
	head := func(branch string) string {
		data, _ := os.ReadFile(k.w.path("intent.git", "refs", "heads", branch))
		return strings.TrimSpace(string(data))
	}
	if head("main") != k.main {
		return rolling
	}
	if head(k.branch) != k.pushed {
		return merging
	}
	evals, open := 0, 0
	var train *history
	trainRun := ""
	for name, h := range k.runs {
		switch kind, _, _ := strings.Cut(name, "-"); delivery.RunKind(kind) {
		case delivery.RunTrain:
			train, trainRun = &h, name
		case delivery.RunEval:
			evals++
			if !h.done {
				open++
			}
		}
	}
	switch {
	case train == nil:
		return checking
	case evals == 2 && open == 0: // on the validation split and on the test set
		return signing
	case train.done:
		return evaluating
	}
	switch train.stage {
	case "inspect":
		return inspecting
	case "pack":
		return packing
	}
	var status delivery.RunStatus
	data, err := os.ReadFile(k.w.path("state", "runs", trainRun, "output", "status.json"))
	if err == nil && json.Unmarshal(data, &status) == nil && status.Phase == "done" {
		return destroying
	}
	switch train.stage {
	case "apply":
		return applying
	case "training":
		return training
	}
	return planning
}

// newLines counts the lines of a log from an offset.
func newLines(file string, from int64) int {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	data, _ := io.ReadAll(io.NewSectionReader(f, from, 1<<20))
	return bytes.Count(data, []byte("\n"))
}

// readHistory reads a run's journal.
func readHistory(file string) (h history) {
	data, _ := os.ReadFile(file)
	for line := range bytes.Lines(data) {
		var e struct {
			Event, Stage string
			Process      durable.Process
		}
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		switch e.Event {
		case "start":
			h.runner = e.Process
		case "stage":
			h.stage = e.Stage
		case "done":
			h.done = true
		}
	}
	return h
}

// wait waits until the last kill is done, the promotion being over.
func (k *killer) wait(t *testing.T) {
	t.Helper()
	k.over.Store(true)
	<-k.ended
	if k.failure != nil {
		t.Fatal(k.failure)
	}
	counts, late := map[string]int{}, 0
	for _, x := range k.killed {
		counts[fmt.Sprintf("%2d %s: %s", x.in, x.in, x.hit)]++
		if x.in > x.phase {
			late++
		}
	}
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "\n%3d in phase %s", counts[what], what)
	}
	t.Logf("%d kills, %d of them after their phase:%s", len(k.killed), late, b.String())
}
