package plan

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// waiting is a main of models with a pull request for each. Every other one changes its model's dataset, and waits for
// the data.
func waiting(models int) World {
	w := released(models, models)
	w.Main.Branch, w.Evidence.Version = "main", 1
	w.Runs = map[delivery.Digest]delivery.RunState{}
	w.Server = Server{Trainers: map[string]delivery.Trainer{}}
	for i := range models {
		name := fmt.Sprintf("m%d", i)
		mdl := delivery.Model{Name: name, Dataset: delivery.Dataset{Source: "dir", Path: "new"}}.Sealed()
		head := w.Main.Intent
		if i%2 == 1 {
			head.Models = head.Models.With(delivery.NamedChange[delivery.Model]{Name: name, Value: mdl})
			head.Gates = delivery.NamedOf(map[string]delivery.Gate{"g": {Name: "g", Covers: []string{name}}})
		}
		w.Proposals = append(w.Proposals, Proposal{Permission: delivery.PermissionWrite, Intent: head,
			Base: w.Main.Intent, Merged: head, Bases: []string{"c"},
			PullRequest: delivery.PullRequest{Number: i + 1, Base: "main", Head: fmt.Sprint("h", i)}})
	}
	return w
}

// A plan makes only the parts anew whose inputs have changed, and is the plan from nothing.
func TestMemoryKeepsWhatIsTheSame(t *testing.T) {
	const models = 20
	w := waiting(models)
	var memory Memory
	check := func(what string, made int) {
		t.Helper()
		got, want := memory.Make(w), Make(w)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: got\n%+v\nwant\n%+v", what, got, want)
		}
		if now := memory.Made(); now.Pulls+now.Models != made {
			t.Errorf("%s: %+v, want %d parts that were made anew", what, now, made)
		}
	}
	check("first", 2*models)
	// A pull request whose data run is not there yet takes any training of its spec for its own.
	check("the same, while runs are to be started", models/2)
	for _, p := range memory.Make(w).Proposals {
		for _, key := range p.Runs {
			w.Runs[key] = delivery.RunState{Spec: delivery.RunSpec{Key: key}, Phase: delivery.RunFailed, Error: "no"}
		}
	}
	check("the runs have failed", models/2)
	w.Proposals[4].Draft = true
	check("one that waits for nothing is a draft now", models/2+1)
	w.Main.History = map[string][]Past{"m4": {{Commit: "c"}}, "m5": {{Commit: "c"}}}
	check("the history of two models is read", models/2+2)
	// The pull requests on main's new commit: each is merged with the new tree.
	merge := func(what string, change func(in *delivery.Intent)) {
		change(&w.Main.Intent)
		for i := range w.Proposals {
			change(&w.Proposals[i].Merged)
		}
		w.Main.Commit = what
	}
	gate := func(model string) func(in *delivery.Intent) {
		return func(in *delivery.Intent) {
			in.Gates = in.Gates.With(delivery.NamedChange[delivery.Gate]{Name: "of-" + model,
				Value: delivery.Gate{Name: "of-" + model, Covers: []string{model}}})
		}
	}
	merge("first gate", gate("m4"))
	check("main has gates now", 2*models)
	merge("second gate", gate("m6"))
	check("main has a gate of one model now, which no pull request changes", models/2)
	merge("third gate", gate("m7"))
	check("main has a gate of another model now", models/2)
	merge("a model", func(in *delivery.Intent) {
		mdl := in.Models.Of("m6")
		mdl.Variants = []string{"fp16"}
		in.Models = in.Models.With(delivery.NamedChange[delivery.Model]{Name: "m6", Value: mdl.Sealed()})
	})
	check("a model on main has changed", models/2+1)
	w.Evidence.Version++
	check("something was signed", 2*models)
	w.Evidence.Version = 0
	check("nobody counts what is signed", 2*models)
	check("nor now", 2*models)
}
