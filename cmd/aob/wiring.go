package main

// This file reads the server's configuration and builds what aob serve and its runners share.

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob"
	trainlocal "github.com/autonomos/aob/infra/terraform/train-local"
	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/forge"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/reconciler/terraform"
	"github.com/autonomos/aob/reconciler/trainer"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/reconciler/work"
)

// A state is the path of a server's state folder.
type state string

func (s state) path(parts ...string) string {
	return filepath.Join(append([]string{string(s)}, parts...)...)
}

func (s state) mirror() string   { return s.path("mirror") }
func (s state) runs() string     { return s.path("runs") }
func (s state) bundles() string  { return s.path("bundles") }
func (s state) trainers() string { return s.path("trainers") }
func (s state) engines() string  { return s.path("engines") }
func (s state) verified() string { return s.path("verified") }
func (s state) ledger() string   { return s.path("ledger.db") }

// filesOf returns the store of run outputs.
func filesOf(s intent.Server) (work.Store, error) {
	if s.Files == "" {
		return store.Folder(s.State), nil
	}
	bucket, prefix, err := bucketOf(context.Background(), s)
	return store.Bucket{Objects: bucket, Prefix: prefix}, err
}

// bucketOf opens the bucket of a server's files. prefix is what the keys in it begin with.
func bucketOf(ctx context.Context, s intent.Server) (b *cloud.Bucket, prefix string, err error) {
	at, prefix, names, err := dataset.ParseBucket(s.Files)
	for i := 0; err == nil && i < len(names); i++ {
		*[]*string{&at.KeyID, &at.Key}[i], err = runSecret(s, names[i])
	}
	if err != nil {
		return nil, "", fmt.Errorf("files: in the server's configuration: %w", err)
	}
	b, err = cloud.OpenBucket(ctx, cloud.Address(at))
	return b, prefix, err
}

// loadServer reads the server's configuration.
func loadServer(path string) (intent.Server, error) {
	data, err := durable.ReadFile(path, intent.MaxFileSize)
	if errors.Is(err, fs.ErrNotExist) {
		return intent.Server{}, hinted{fmt.Errorf("%s: no such file", path),
			"--config names the server's configuration"}
	}
	if err != nil {
		return intent.Server{}, fmt.Errorf("%s: %w", path, err)
	}
	s, complaints := intent.ParseServer(path, data, slices.Sorted(maps.Keys(sources)),
		slices.Sorted(maps.Keys(forge.Kinds)))
	if len(complaints) > 0 {
		return s, delivery.Complaints(complaints)
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return s, err
	}
	return s.Resolve(folder), nil
}

// trainerFiles returns the trainers in a folder, or the built-in ones if folder is "".
func trainerFiles(folder string) (fs.FS, error) {
	if folder != "" {
		if info, err := os.Stat(folder); err != nil || !info.IsDir() {
			return nil, hinted{fmt.Errorf("the folder of trainers, %s, is missing or is not a folder", folder),
				"correct trainers: in the configuration, or --trainers; without them the built-in trainers are used"}
		}
		return os.DirFS(folder), nil
	}
	return fs.Sub(aob.Trainers, "trainers")
}

// environmentsOf returns the Python environments of trainers, which are in the user's cache.
func environmentsOf(s intent.Server) (trainer.Environments, error) {
	cache, err := os.UserCacheDir()
	return trainer.Environments{Dir: filepath.Join(cache, "aob"), Python: s.Python}, err
}

// containersOf returns the containers of trainers.
func containersOf(s intent.Server) trainer.Containers {
	c := s.Containers
	return trainer.Containers{Engine: trainer.FindEngine(c.Engine), Images: c.Images, Pull: c.Pull == "missing",
		Limits: trainer.Limits{Memory: c.Memory, CPUs: c.CPUs, Processes: c.Processes, Device: c.Device}}
}

// baseWeights returns what plans know of the configuration's base weights.
func baseWeights(s intent.Server) map[string]delivery.Weights {
	list := map[string]delivery.Weights{}
	for name, w := range s.Weights {
		list[name] = w.Base()
	}
	return list
}

// installTrainers installs the trainers of a server in its state folder, and reads which environment each has.
func installTrainers(ctx context.Context, s intent.Server, st state) (intent.Trainers, error) {
	files, err := trainerFiles(s.Trainers)
	if err != nil {
		return nil, err
	}
	trainers, err := trainer.Install(files, st.trainers())
	if err != nil {
		return nil, err
	}
	environments, err := environmentsOf(s)
	if err != nil {
		return nil, err
	}
	environments.Fill(ctx, trainers)
	return trainers, containersOf(s).Fill(trainers)
}

// newStages builds the stages of runs for a runner.
func newStages(s intent.Server) (*work.Stages, error) {
	st := state(s.State)
	bundles, err := artifact.Open(st.bundles())
	if err != nil {
		return nil, err
	}
	files, err := filesOf(s)
	if err != nil {
		return nil, err
	}
	detector, err := detectorOf(s).Find()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	tf, err := findTerraform(s)
	if err != nil {
		return nil, err
	}
	environments, err := environmentsOf(s)
	if err != nil {
		return nil, err
	}
	weights := map[delivery.Digest]string{}
	for _, w := range s.Weights {
		weights[w.Base().SHA256] = w.File
	}
	machines := map[string]work.Trainer{delivery.TrainLocal: &terraform.Trainer{Terraform: tf, Module: trainlocal.Files,
		AOB: self, Machine: terraform.Local{AOB: self}}}
	if len(instancesOf(s)) > 0 {
		machines[delivery.TrainAWSEC2] = awsTrainer{settings: s, terraform: tf, aob: self}
	}
	return &work.Stages{
		Datasets: datasets(s), Files: files, Weights: weights,
		Trainers: st.trainers(), Python: s.Python, Environments: environments, Containers: containersOf(s),
		Secrets: runSecrets(), Machines: machines,
		Detector: detector, Bundles: bundles, Heartbeat: time.Duration(s.Heartbeat), Log: newLog(),
	}, nil
}

// detectorOf returns the detector of a server's configuration.
func detectorOf(s intent.Server) detect.Detector {
	d := detect.Detector{Binary: s.Detector.Binary, Library: s.Detector.Library, MemoryLimit: s.Detector.Memory}
	if s.Detector.Profile != "" { // it has a limit of its own, since a GPU's driver takes far more than it uses
		d.MemoryLimit, d.Profile, d.Profiles = 0, s.Detector.Profile, s.Detector.Profiles
		d.Engines = detectorEngines(s)
	}
	return d
}

// detectorEngines is the folder of the engines of a server's detector.
func detectorEngines(s intent.Server) string {
	return cmp.Or(s.Detector.Engines, state(s.State).engines())
}

func findTerraform(s intent.Server) (string, error) {
	if s.Terraform != "" {
		return s.Terraform, nil
	}
	if path, err := exec.LookPath("terraform"); err == nil {
		return filepath.Abs(path)
	}
	cache, err := os.UserCacheDir()
	if err == nil {
		cache = filepath.Join(cache, "aob", "bin", "terraform") // where tools/install.sh puts it
		_, err = os.Stat(cache)
	}
	if err != nil {
		return "", delivery.Blockedf("install it: make tools in the folder of AOB's source, or set terraform: in the "+
			"configuration", "terraform, which starts trainings, is not on PATH")
	}
	return cache, nil
}

// loadKey reads a signing key. The first start creates it. Its public key is stored beside
// it, in a file with the suffix .pub.
func loadKey(path string) (*trust.Key, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	key, err := trust.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = trust.Create(path)
	}
	if err != nil {
		return nil, err
	}
	if have, err := os.ReadFile(path + ".pub"); err == nil && bytes.Equal(have, key.Public().PEM()) {
		return key, nil
	}
	return key, durable.WriteFile(path+".pub", key.Public().PEM(), 0o644)
}

// secret reads a secret from an environment variable or a file. It is "" if neither is named.
func secret(variable, file string) (string, error) {
	switch {
	case variable != "":
		value := os.Getenv(variable)
		if value == "" {
			return "", fmt.Errorf("the environment variable %s is empty", variable)
		}
		return value, nil
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		return strings.TrimSpace(string(data)), nil
	}
	return "", nil
}
