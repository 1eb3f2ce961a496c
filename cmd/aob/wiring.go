package main

// This file puts the parts together from the server's configuration, the same
// for aob serve and for the runners that it starts.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/autonomos/aob"
	trainlocal "github.com/autonomos/aob/infra/terraform/train-local"
	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/terraform"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/reconciler/work"
)

// A state is the folder of all that a server keeps.
type state string

func (s state) path(parts ...string) string {
	return filepath.Join(append([]string{string(s)}, parts...)...)
}

func (s state) mirror() string     { return s.path("mirror") }
func (s state) runs() string       { return s.path("runs") }
func (s state) bundles() string    { return s.path("bundles") }
func (s state) detections() string { return s.path("detections") }
func (s state) seen() string       { return s.path("seen") }
func (s state) pictures() string   { return s.path("pictures") }
func (s state) trainers() string   { return s.path("trainers") }
func (s state) ledger() string     { return s.path("ledger.db") }

// configComplaints is what aob serve says of a configuration that it refuses.
type configComplaints []delivery.Complaint

func (c configComplaints) Error() string {
	lines := make([]string, len(c))
	for i, one := range c {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// loadServer reads the server's configuration.
func loadServer(path string) (intent.Server, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return intent.Server{}, hinted{fmt.Errorf("%s: no such file", path),
			"--config names the server's configuration"}
	}
	if err != nil {
		return intent.Server{}, err
	}
	if info.Size() > intent.MaxFileSize {
		return intent.Server{}, fmt.Errorf("%s: %d bytes, want at most %d", path, info.Size(), intent.MaxFileSize)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return intent.Server{}, err
	}
	s, complaints := intent.ParseServer(path, data)
	if len(complaints) > 0 {
		return s, configComplaints(complaints)
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return s, err
	}
	return s.Resolve(folder), nil
}

// trainerFiles are the trainers of a server: the built-in ones, or a folder's.
func trainerFiles(s intent.Server) (fs.FS, error) {
	if s.Trainers != "" {
		return os.DirFS(s.Trainers), nil
	}
	return fs.Sub(aob.Trainers, "trainers")
}

// A trainer is one version of a trainer's files.
type trainer struct {
	name   string // as tiny@1
	folder string // as tiny
	digest delivery.Digest
	files  []string
}

// findTrainers digests every trainer's program files. Notes and tests are not
// part of what trains.
func findTrainers(files fs.FS) ([]trainer, error) {
	dirs, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, err
	}
	var list []trainer
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		t := trainer{name: d.Name() + "@1", folder: d.Name()}
		h := sha256.New()
		entries, err := fs.ReadDir(files, d.Name())
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			name := e.Name()
			if e.IsDir() || strings.HasPrefix(name, "test_") || (!strings.HasSuffix(name, ".py") &&
				name != "schema.json") {
				continue
			}
			data, err := fs.ReadFile(files, d.Name()+"/"+name)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(h, "%s  %s\n", delivery.Sum(data), name)
			t.files = append(t.files, name)
		}
		if len(t.files) > 0 {
			t.digest = delivery.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
			list = append(list, t)
		}
	}
	return list, nil
}

// layTrainers writes the trainers where runners find them, each version in a
// folder of its own: a run goes on with the files that its key names, also after
// an upgrade.
func layTrainers(files fs.FS, to string) (map[string]delivery.Digest, error) {
	list, err := findTrainers(files)
	if err != nil {
		return nil, fmt.Errorf("trainers: %w", err)
	}
	digests := map[string]delivery.Digest{}
	for _, t := range list {
		digests[t.name] = t.digest
		final := filepath.Join(to, t.digest.Hex(), t.folder)
		if _, err := os.Stat(final); err == nil {
			continue
		}
		tmp := final + ".part"
		err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o700))
		for _, name := range t.files {
			data, readErr := fs.ReadFile(files, t.folder+"/"+name)
			err = errors.Join(err, readErr, os.WriteFile(filepath.Join(tmp, name), data, 0o600))
		}
		if err = errors.Join(err, durable.SyncTree(tmp)); err == nil {
			err = durable.Rename(tmp, final)
		}
		if err != nil {
			return nil, fmt.Errorf("trainers: %w", err)
		}
	}
	return digests, nil
}

// newDetector finds aob-detect and ONNX Runtime's library.
func newDetector(s intent.Server) (detect.Detector, error) {
	d := detect.Detector{Binary: s.Detector.Binary, Library: s.Detector.Library, MemoryLimit: s.Detector.Memory}
	found, err := detect.Find()
	if d.Binary == "" {
		d.Binary = found.Binary
	}
	if d.Library == "" {
		d.Library = found.Library
	}
	if d.Binary == "" || d.Library == "" {
		return d, err
	}
	return d, nil
}

// newStages wires what a runner works with.
func newStages(s intent.Server) (*work.Stages, error) {
	st := state(s.State)
	bundles, err := artifact.Open(st.bundles())
	if err != nil {
		return nil, err
	}
	detector, err := newDetector(s)
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
	return &work.Stages{
		Roots: s.Datasets.Dir, Runs: st.runs(), Detections: st.detections(), Seen: st.seen(), Pictures: st.pictures(),
		Trainers: st.trainers(), Python: s.Python,
		Trainer:  &terraform.Trainer{Terraform: tf, Module: trainlocal.Files, AOB: self},
		Detector: detector, Bundles: bundles, Heartbeat: time.Duration(s.Heartbeat), Log: newLog(),
	}, nil
}

func findTerraform(s intent.Server) (string, error) {
	if s.Terraform != "" {
		return s.Terraform, nil
	}
	path, err := exec.LookPath("terraform")
	if err != nil {
		return "", delivery.Blockedf("install Terraform, or set terraform: in the configuration",
			"terraform is not on PATH")
	}
	return filepath.Abs(path)
}

// loadKey reads a signing key, and makes it at the first start; its public half
// lies beside it.
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

// secret reads a secret from a variable or a file; neither is no secret.
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
