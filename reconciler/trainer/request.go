package trainer

import (
	"maps"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Request describes one training, in the folder of its run. The result is [Trained] or an error:
//
//   - delivery.Blocked: another attempt would fail too. A program is missing, the trainer
//     refused its task, or the limit is exceeded.
//   - the context's error, wrapped: the training was interrupted and can be resumed.
//   - any other error: another attempt may succeed.
//
// In every case no process is left running. A repeated request in the same folder does
// not repeat a completed training, and resumes any other from its checkpoint.
type Request struct {
	Dir string // the run's folder, absolute; the trainer's output is in Dir/output

	// RunJSON returns what the trainer is to do, which becomes run.json, the trainer's one argument. place returns
	// where a path of this machine is on the trainer's machine; RunJSON calls it for every path.
	RunJSON func(place func(path string) string) any

	Python  string            // absolute path of the interpreter itself, not of a shim; "" in a container
	Script  string            // absolute path of the trainer's train.py
	Inputs  []string          // absolute paths of the files and folders that RunJSON names, without the output
	Env     []string          // added to the trainer's environment, which else is PATH, HOME and LANG
	Secrets map[string]string // more variables of its environment, which are never written to a file

	Container *Container // what it runs in; nil for this machine itself

	// Quote is what it may cost, and for whom it is made; nil for a machine that costs nothing.
	Quote *delivery.Quote

	Heartbeat time.Duration // a trainer without a heartbeat for longer counts as hung
	Limit     time.Duration // for all attempts together; 0 is no limit
	Grace     time.Duration // between SIGTERM and SIGKILL; 0 is 30 s

	Stage    func(string) error             // called with clean, plan, apply, training, destroy; may be nil
	Progress func(delivery.RunStatus) error // called with each change of status.json; may be nil
}

// Mask masks the secrets of the request in what the trainer prints and writes.
func (r Request) Mask() delivery.Mask { return delivery.NewMask(maps.Values(r.Secrets)) }

// Trained is the result of a completed training.
type Trained struct {
	Output   string // the folder with model.onnx, train.json and other files of the trainer
	Attempts int    // launches, those before a restart included
	Status   delivery.RunStatus
}
