package trainer

import (
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Request asks for one training, in the folder of its run. Whoever trains answers
// with [Trained], or with an error:
//
//   - a delivery.Blocked says that another attempt would end as this one did: a program
//     is missing, the trainer refused its task, the limit is passed;
//   - the context's error, wrapped, says that the training was interrupted and can go on;
//   - after any other error the next attempt may do better.
//
// In every case nothing is left running. Asked again in the same folder, a completed
// training is not trained again, and any other goes on from its checkpoint.
type Request struct {
	Dir     string // the run's folder, absolute; the trainer's output is in Dir/output
	RunJSON any    // what the trainer is to do; becomes run.json, the trainer's one argument

	Python  string            // absolute path of the interpreter itself, not of a shim
	Script  string            // absolute path of the trainer's train.py
	Env     []string          // added to the trainer's environment, which else is PATH, HOME and LANG
	Secrets map[string]string // variables of its environment that no file may hold

	Heartbeat time.Duration // a trainer that is silent for longer is dead
	Limit     time.Duration // how long all attempts may train together; 0 is no limit
	Grace     time.Duration // between asking the trainer to end and killing it; 0 is 30 s

	Stage    func(string) error             // told: clean, plan, apply, training, destroy; may be nil
	Progress func(delivery.RunStatus) error // told each change of status.json; may be nil
}

// Trained is a training that came to its end.
type Trained struct {
	Output   string // holds model.onnx, train.json and what else the trainer left
	Attempts int    // how many launches it took, those before a restart included
	Status   delivery.RunStatus
}
