// Package run does slow work outside the loop: each run is a detached process
// with a folder of its own, started by one side and observed by reading files.
//
// The loop's side is a [Store]:
//
//	runs := &run.Store{Dir: "/var/lib/aob/runs", Command: []string{"/usr/bin/aob", "runner"}}
//	err := runs.Start(ctx, spec)      // at once; harmless when repeated
//	states, err := runs.Observe()     // every turn; next to nothing when nothing runs
//	state, err := runs.State(key)     // one run, with its result
//	err = runs.End(ctx, key, "the pull request was closed")
//
// The process that Start launches is the other side:
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
//	lock           held by the runner as long as it lives
//	journal.jsonl  what happened: one entry a line, each fsynced, only appended to
//	end.json       somebody asked the run to end, when and why
//	need.json      delivery.RunNeed: who needs the run
//	result.json    durable before the journal says done
//	runner.log     the runner's own output; at each start one of over 1 MiB becomes runner.log.1
//	output/        what the work makes; output/status.json says how far it is
//
// Lock and journal together are the truth. Lock held: running. Lock free and
// the journal's last word is done, failed or stopped: that. Lock free and any
// other last word: the runner died, whatever killed it. No process id is ever
// asked whether a run is alive.
//
// # Trying again
//
// Each opening of a run counts a new attempt. An attempt ends in one of four
// ways. It is done. It failed with a delivery.Blocked error: a person must act,
// and the run has ended. It failed with any other error, which may pass: the
// run counts as died, and starts again after a pause. Or its process died: the
// same, but a process that dies ten times without getting further than an
// earlier attempt will die of the eleventh too, so the run then fails.
//
// Getting further means a stage or an epoch that no attempt reached before. The
// pause after an attempt that did is nothing; then it grows from 0.25 s, doubling,
// to 5 min.
package run

import (
	"path/filepath"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Folder returns the folder of a run among runs: a function of kind and key, so
// that one run finds what another made.
func Folder(runs string, kind delivery.RunKind, key delivery.Digest) string {
	hex := key.Hex()
	return filepath.Join(runs, string(kind)+"-"+hex[:min(32, len(hex))])
}

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
