// Package run does slow work outside the loop. Each run is a detached process with
// its own folder. The loop starts it and reads its files.
//
// The loop uses a [Store]:
//
//	runs := &run.Store{Dir: "/var/lib/aob/runs", Command: []string{"/usr/bin/aob", "runner"}}
//	err := runs.Start(ctx, spec)      // returns at once; may be repeated
//	states, err := runs.Observe()     // called every turn; cheap when nothing runs
//	state, err := runs.State(key)     // one run, with its result
//	err = runs.End(ctx, key, "the pull request was closed")
//
// The process that Start launches uses a [Run]:
//
//	r, err := run.Open(folder)
//	defer r.Close()
//	return r.Do(ctx, func(ctx context.Context) (any, error) {
//		r.Stage("detect")
//		…
//		return result, nil
//	})
//
// # The folder
//
// A run lives in DIR/KIND-KEY, KEY being the first 32 hex digits of its key:
//
//	spec.json      delivery.RunSpec, written before anything else
//	lock           locked while the runner lives
//	journal.jsonl  the run's events: one entry a line, each fsynced, append-only
//	end.json       a request to end the run: time and reason
//	need.json      delivery.RunNeed: who needs the run
//	result.json    durable before the journal has the event done
//	runner.log     the runner's output; at a start, a log over 1 MiB is renamed runner.log.1
//	output/        the files that the work makes; output/status.json has its progress
//
// The lock and the journal decide a run's phase. If the lock is held, the run is running. If it is free and the last
// event is done, failed or stopped, that is the phase. If it is free and the last event is another one, the runner
// died. Process ids are never used to decide whether a run is alive.
//
// # Retries
//
// Each Open of a run begins a new attempt. An attempt ends in one of four ways:
//
//   - It is done.
//   - It fails with a delivery.Blocked error. A person must act; the run has ended.
//   - It fails with another error. The run counts as died and starts again after a pause.
//   - Its process dies. The run starts again as well. After ten such deaths in a row
//     without progress the run fails.
//
// Progress is a stage or an epoch that no attempt reached before. After an attempt with progress there is no pause.
// Without progress the pause starts at 0.25 s and doubles up to 5 min. A delivery.Wait asks for a longer one.
package run

import (
	"path"
	"path/filepath"

	"github.com/autonomos/aob/reconciler/delivery"
)

// OutputName returns the name under which a file or folder of a run is stored. It depends only on kind and key, so one
// run can find the output of another.
func OutputName(kind delivery.RunKind, key delivery.Digest, file string) string {
	return path.Join(Folder("runs", kind, key), file)
}

// Folder returns a run's folder below runs.
func Folder(runs string, kind delivery.RunKind, key delivery.Digest) string {
	hex := key.Hex()
	return filepath.Join(runs, string(kind)+"-"+hex[:min(32, len(hex))])
}

// Logs are the logs in a run's folder: the trainer's, and the runner's.
var Logs = []string{"output/log.txt", logFile}

// The files of a run's folder.
const (
	specFile    = "spec.json"
	lockFile    = "lock"
	journalFile = "journal.jsonl"
	endFile     = "end.json"
	needFile    = "need.json"
	resultFile  = "result.json"
	logFile     = "runner.log"
	statusFile  = "output/status.json"
)
