package work

// This file has what a training starts from: base weights of the server, or the checkpoint of an earlier training,
// which is kept for that.

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/trainer"
)

// start finds the files that a training starts from, and checks that they are the ones that its key names. It comes
// before anything that costs something.
func (s *Stages) start(r *run.Run, input delivery.TrainRun) (*trainerWeights, *trainerParent, error) {
	switch {
	case input.Weights != nil:
		file, ok := s.Weights[input.Weights.SHA256]
		if !ok {
			return nil, nil, delivery.Blockedf("have the server's operator put them back under weights: in its "+
				"configuration", "the server no longer has the weights %s with SHA-256 %s", input.Spec.Train.From,
				input.Weights.SHA256.Hex())
		}
		if err := CheckFile(file, input.Weights.SHA256); err != nil {
			return nil, nil, delivery.Blockedf("have the server's operator put the right file there, then try again",
				"the file of the weights %s %v", input.Spec.Train.From, err)
		}
		return &trainerWeights{file, input.Weights.SHA256.Hex()}, nil, nil
	case input.Checkpoint != "":
		folder, name := delivery.CheckpointName(input.Checkpoint)
		in, err := s.Files.Local(folder, filepath.Join(r.Dir, "parent"))
		file := filepath.Join(in, name)
		if errors.Is(err, fs.ErrNotExist) {
			err = errMissing
		} else if err == nil {
			err = CheckFile(file, input.Checkpoint)
		}
		if err != nil {
			return nil, nil, delivery.Blockedf("restore the folder "+folder+" of the server's state from a backup, or "+
				"name base weights or none in train.from", "the checkpoint of bundle %s, which the training starts "+
				"from, %v", input.Parent.Short(), err)
		}
		return nil, &trainerParent{file, input.Parent}, nil
	}
	return nil, nil, nil
}

var errMissing = errors.New("is missing")

// CheckFile says what is wrong with a file that must have a digest. It does not name the file, since its error is shown
// to people who have no account on the server.
func CheckFile(path string, want delivery.Digest) error {
	got, err := digestOf(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errMissing
	case err != nil:
		if bad, ok := errors.AsType[*fs.PathError](err); ok {
			err = bad.Err
		}
		return fmt.Errorf("cannot be read: %w", err)
	case got != want:
		return fmt.Errorf("was changed: its SHA-256 is %s, and must be %s", got.Hex(), want.Hex())
	}
	return nil
}

func digestOf(path string) (delivery.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return delivery.Digest("sha256:" + hex.EncodeToString(sum.Sum(nil))), nil
}

// keepCheckpoint stores the checkpoint of a completed training, if its trainer can start from one. A checkpoint is kept
// as long as the bundle may be a parent, which only an operator knows, so AOB removes none.
func (s *Stages) keepCheckpoint(input delivery.TrainRun, output string) (delivery.Digest, error) {
	described, err := trainer.Described(s.Trainers, input.Trainer, input.Spec.Train.With)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !slices.Contains(described.From, delivery.StartRelease) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	file := filepath.Join(output, "checkpoint")
	if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
		return "", delivery.Blockedf("fix the trainer: it must leave this file when it is done, or not name release "+
			"under from: in trainer.yaml", "the trainer is done but left no checkpoint")
	}
	digest, err := digestOf(file)
	if err != nil {
		return "", err
	}
	folder, name := delivery.CheckpointName(digest)
	return digest, s.Files.Put(folder+"/"+name, file)
}
