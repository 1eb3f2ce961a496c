package main

// Secrets reach runs by name, in the environment of the runner. A run gets only those that its trainer or the sources
// of its datasets need.

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/trainer"
)

// secretPrefix stands before the name of a secret in a runner's environment.
const secretPrefix = "AOB_SECRET_"

// awsVariables say where AWS's SDK finds credentials on this machine. None has a secret: those are in secrets.
var awsVariables = []string{"AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CONFIG_FILE",
	"AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
	"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
	"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", awsEndpoint}

// awsKeys are the variables of credentials themselves. The runner of a training on an instance gets them: no trainer
// runs beside it.
var awsKeys = []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}

// runnerEnv returns the environment of runners: a few variables of the server, and the secrets that a run needs.
func runnerEnv(s intent.Server, trainers intent.Trainers) run.Environment {
	var base []string
	for _, name := range []string{"PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "AOB_ONNXRUNTIME"} {
		if v, ok := os.LookupEnv(name); ok {
			base = append(base, name+"="+v)
		}
	}
	return func(spec delivery.RunSpec) ([]string, error) {
		names, err := secretsOf(s, spec, trainers)
		if err != nil {
			return nil, err
		}
		env := slices.Clone(base)
		variables := awsVariables
		paid := spec.Train != nil && delivery.PaidModule(spec.Train.Machine)
		if paid {
			variables = append(slices.Clone(awsVariables), awsKeys...)
		}
		if spec.Training() == nil || s.Files != "" || paid { // a trainer does not read buckets, and its runner may
			for _, name := range variables {
				if v, ok := os.LookupEnv(name); ok {
					env = append(env, name+"="+v)
				}
			}
		}
		if t := spec.Training(); t != nil && t.Environment != nil {
			for _, name := range append(trainer.InstallVariables(), trainer.EngineVariables()...) {
				if v, ok := os.LookupEnv(name); ok && name != "HOME" { // that is in base
					env = append(env, name+"="+v)
				}
			}
		}
		for _, name := range names {
			value, err := readSecret(s, name)
			if err != nil {
				return nil, err
			}
			env = append(env, secretPrefix+name+"="+value)
		}
		return env, nil
	}
}

// secretsOf lists the names of the secrets that a run needs, each once.
func secretsOf(s intent.Server, spec delivery.RunSpec, trainers intent.Trainers) ([]string, error) {
	names := filesSecrets(s)
	from := func(d delivery.Dataset) {
		name, _, _ := strings.Cut(d.Path, "/")
		if source := sources[d.Source]; source != nil {
			names = append(names, source.Secrets(s.Datasets[d.Source][name])...)
		}
	}
	switch {
	case spec.Data != nil:
		from(spec.Data.Dataset)
		if spec.Data.Before != nil {
			from(*spec.Data.Before)
		}
		for _, e := range spec.Data.EvalSets {
			from(e.Dataset)
		}
	case spec.Train != nil:
		t, err := trainerOf(s, *spec.Train, trainers)
		if err != nil {
			return nil, err
		}
		names = append(names, t.Secrets...)
	case spec.Eval != nil:
		from(spec.Eval.EvalSet.Dataset)
	case spec.Compare != nil:
		from(spec.Compare.Candidate.EvalSet.Dataset)
		from(spec.Compare.Baseline.EvalSet.Dataset)
	case spec.Thresholds != nil:
		from(spec.Thresholds.Valid.EvalSet.Dataset)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// filesSecrets lists the names of the secrets that the store of run outputs needs.
func filesSecrets(s intent.Server) []string {
	if s.Files == "" {
		return nil
	}
	_, _, names, err := dataset.ParseBucket(s.Files)
	if err != nil {
		return nil // filesOf says so
	}
	return names
}

// trainerOf returns the description of the trainer that a training runs. After an upgrade that is not the trainer that
// the server has under this name: the training goes on with its own files, and gets what their trainer.yaml names.
func trainerOf(s intent.Server, r delivery.TrainRun, trainers intent.Trainers) (delivery.Trainer, error) {
	with := r.Spec.Train.With
	if t, ok := trainers[with]; ok && t.Files == r.Trainer {
		return t.Trainer, nil
	}
	t, err := trainer.Described(state(s.State).trainers(), r.Trainer, with)
	if errors.Is(err, fs.ErrNotExist) {
		return delivery.Trainer{}, nil // the runner says that these files are missing, and gets no secret for that
	}
	if bad, ok := errors.AsType[delivery.Complaints](err); ok {
		err = delivery.Blockedf("push again, so that the server's current trainer is used",
			"the secrets of a training of earlier trainer files are not known: %v", bad)
	}
	return t, err
}

// readSecret reads a secret by its name in the configuration.
func readSecret(s intent.Server, name string) (string, error) {
	at, ok := s.Secrets[name]
	if !ok {
		return "", delivery.Blockedf(fmt.Sprintf("add secrets: {%s: {file: PATH}} to the server's configuration", name),
			"secret %s is needed, and the server's configuration does not have it", name)
	}
	value, err := secret(at.Env, at.File)
	if err == nil && value == "" {
		return "", delivery.Blockedf("write the secret into it",
			"secrets.%s of the server's configuration: %s is empty", name, at.File)
	}
	if err != nil {
		return "", fmt.Errorf("secrets.%s of the server's configuration: %v", name, err)
	}
	return value, nil
}

// runSecret returns a secret that this process got as a runner, or else reads it.
func runSecret(s intent.Server, name string) (string, error) {
	if value, ok := runSecrets()[name]; ok {
		return value, nil
	}
	return readSecret(s, name)
}

// secretMask returns a function that returns a mask of all secrets of the configuration that can be read. The mask also
// has the values that were read before, since a log may have one that was replaced.
func secretMask(s intent.Server) func() delivery.Mask {
	var mu sync.Mutex
	values := map[string]bool{}
	return func() delivery.Mask {
		mu.Lock()
		defer mu.Unlock()
		for name := range s.Secrets {
			if value, err := readSecret(s, name); err == nil {
				values[value] = true
			}
		}
		return delivery.NewMask(maps.Keys(values))
	}
}

// checkSecrets returns an error if a secret is missing that the server's trainers or the sources of its datasets need.
func checkSecrets(s intent.Server, trainers intent.Trainers) error {
	if err := checkTrainerSecrets(s, trainers); err != nil {
		return err
	}
	names := filesSecrets(s)
	for source, list := range s.Datasets {
		for _, location := range list {
			names = append(names, sources[source].Secrets(location)...)
		}
	}
	return haveSecrets(s, names)
}

func checkTrainerSecrets(s intent.Server, trainers intent.Trainers) error {
	var names []string
	for _, t := range trainers {
		names = append(names, t.Secrets...)
	}
	return haveSecrets(s, names)
}

func haveSecrets(s intent.Server, names []string) error {
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if _, err := readSecret(s, name); err != nil {
			return err
		}
	}
	return nil
}

// runSecrets returns the secrets that this process got as a runner.
func runSecrets() map[string]string {
	secrets := map[string]string{}
	for _, v := range os.Environ() {
		if rest, ok := strings.CutPrefix(v, secretPrefix); ok {
			name, value, _ := strings.Cut(rest, "=")
			secrets[name] = value
		}
	}
	return secrets
}
