package stage

// This file keeps what was trained, whatever the trainer is by now.

import (
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// kept returns the input of a finished training in the folder that is the given one, but for the trainer's files, its
// packages and the accelerator: an upgrade trains nothing again, as on a server. The latest such training counts.
// Without one it returns the given input.
func (l *Local) kept(input delivery.TrainRun) (delivery.TrainRun, error) {
	key := delivery.TrainKey(input)
	states, err := l.Runs.Observe()
	if err != nil {
		return input, err
	}
	found, latest := input, time.Time{}
	for _, s := range states {
		if s.Spec.Key == key {
			return input, nil // it is there, done or begun
		}
		if s.Spec.Train == nil || s.Phase != delivery.RunDone || !s.Started.After(latest) {
			continue
		}
		was := *s.Spec.Train
		was.Trainer, was.Environment, was.Accelerator = input.Trainer, input.Environment, input.Accelerator
		if delivery.TrainKey(was) == key {
			found, latest = *s.Spec.Train, s.Started
		}
	}
	return found, nil
}

// keptVariant returns the input of a finished run in the folder that made the same variant of the same model; the given
// input without one.
func (l *Local) keptVariant(input delivery.VariantRun) (delivery.VariantRun, error) {
	states, err := l.Runs.Observe()
	if err != nil {
		return input, err
	}
	key := delivery.VariantKey(input)
	found, latest := input, time.Time{}
	for _, s := range states {
		if s.Spec.Key == key {
			return input, nil
		}
		if s.Spec.Variant == nil || s.Phase != delivery.RunDone || !s.Started.After(latest) {
			continue
		}
		was := *s.Spec.Variant
		was.Train.Trainer, was.Train.Environment = input.Train.Trainer, input.Train.Environment
		if delivery.VariantKey(was) == key {
			found, latest = *s.Spec.Variant, s.Started
		}
	}
	return found, nil
}

// removeDone removes a finished run, so that it is done again.
func (l *Local) removeDone(key delivery.Digest) error {
	before, err := l.Runs.State(key)
	if err != nil || before.Phase != delivery.RunDone {
		return err
	}
	return l.Runs.Remove(key)
}
