package main

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/trainer"
)

// A training that began before an upgrade goes on with its own files, so it gets the secrets that these files name.
func TestSecretsAreThoseOfTheRunsFiles(t *testing.T) {
	t.Setenv("FROM_OLD", "old value")
	t.Setenv("FROM_NEW", "new value")
	s := intent.Server{State: t.TempDir(),
		Secrets: map[string]intent.ServerSecret{"OLD": {Env: "FROM_OLD"}, "NEW": {Env: "FROM_NEW"}}}
	install := func(secrets string) intent.Trainers {
		list, err := trainer.Install(fstest.MapFS{"x/train.py": {Data: []byte("pass\n")},
			"x/trainer.yaml": {Data: []byte("apiVersion: aob/v1\nkind: Trainer\nname: x\nversions: [\"1\"]\n" +
				"architectures: [a]\nsecrets: " + secrets + "\n")}}, state(s.State).trainers())
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	old, now := install("[OLD]"), install("[NEW]")
	for name, c := range map[string]struct {
		files    delivery.Digest
		trainers intent.Trainers
		want     []string
	}{
		"the installed files":     {now["x@1"].Files, now, []string{"AOB_SECRET_NEW=new value"}},
		"files of an earlier one": {old["x@1"].Files, now, []string{"AOB_SECRET_OLD=old value"}},
		"a trainer that is gone":  {old["x@1"].Files, nil, []string{"AOB_SECRET_OLD=old value"}},
		"files that are gone":     {delivery.Sum([]byte("gone")), now, nil},
	} {
		env, err := runnerEnv(s, c.trainers)(delivery.RunSpec{Kind: delivery.RunTrain, Train: &delivery.TrainRun{
			Trainer: c.files, Spec: delivery.Spec{Train: delivery.Train{With: "x@1"}}}})
		got := slices.DeleteFunc(env, func(v string) bool { return !strings.HasPrefix(v, secretPrefix) })
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// secretive is a source that needs a secret of its own.
type secretive struct {
	dataset.Dir
	secret string
}

func (s secretive) Secrets(string) []string { return []string{s.secret} }

// The same images may come from two sources, and a comparison reads both.
func TestComparisonGetsTheSecretsOfBothDatasets(t *testing.T) {
	sources["one"], sources["two"] = secretive{secret: "ONE"}, secretive{secret: "TWO"}
	defer delete(sources, "one")
	defer delete(sources, "two")
	on := func(source string) delivery.EvalRun {
		return delivery.EvalRun{EvalSet: delivery.EvalSet{Dataset: delivery.Dataset{Source: source, Path: "x"}}}
	}
	got, err := secretsOf(intent.Server{}, delivery.RunSpec{Kind: delivery.RunCompare,
		Compare: &delivery.CompareRun{Candidate: on("one"), Baseline: on("two")}}, nil)
	if err != nil || !slices.Equal(got, []string{"ONE", "TWO"}) {
		t.Errorf("got %q, %v, want ONE and TWO", got, err)
	}
}

// A log may have the value that a secret had before it was replaced.
func TestSecretMask(t *testing.T) {
	t.Setenv("FROM", "first value")
	mask := secretMask(intent.Server{Secrets: map[string]intent.ServerSecret{"A": {Env: "FROM"}, "B": {Env: "NONE"}}})
	mask()
	t.Setenv("FROM", "second value")
	if got := mask().Text("first value, second value, NONE"); got != "***, ***, NONE" {
		t.Errorf("got %q", got)
	}
}
