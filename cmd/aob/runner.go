package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/terraform"
	"github.com/autonomos/aob/reconciler/work"
)

// newRunnerCommand returns the command that aob serve starts for each run.
func newRunnerCommand() *cobra.Command {
	var config, state string
	c := &cobra.Command{
		Use:    "runner --config FILE RUN",
		Short:  "Work on one run in its folder; aob serve starts this",
		Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			r, err := run.Open(dir)
			if errors.Is(err, run.ErrEnded) || errors.Is(err, run.ErrLocked) {
				return nil // another runner has ended it, or works on it
			}
			if err != nil {
				return err
			}
			defer r.Close()
			syscall.Umask(0o077) // only this user may read what Terraform and trainers write
			if r.Spec.Kind == delivery.RunData {
				if err := detect.Confine(dataMemory); err != nil {
					return fmt.Errorf("limit a data run: %w", err)
				}
			}
			return r.Do(c.Context(), func(ctx context.Context) (any, error) {
				stages, err := stagesOf(config, state)
				if err != nil {
					return nil, err
				}
				return stages.Work(ctx, r)
			})
		},
	}
	c.Flags().StringVar(&config, "config", "aob.yaml", "the server's configuration")
	c.Flags().StringVar(&state, "state", "", "the state `folder`; the configuration's by default")
	return c
}

// stagesOf builds the stages of runs from a configuration file. Its errors are the server's and of no pull request, so
// none is a [delivery.Blocked], which would end the run: it is tried again until the server is mended. The state folder
// is the configuration's if state is "".
func stagesOf(config, state string) (*work.Stages, error) {
	s, err := loadServer(config)
	if err != nil {
		return nil, fmt.Errorf("the server's configuration: %v", err)
	}
	s.State = cmp.Or(state, s.State)
	stages, err := newStages(s)
	if err != nil {
		return nil, fmt.Errorf("the server is not ready for runs, and tries again: %v", err)
	}
	return stages, nil
}

// dataMemory limits the memory of a data run, because it reads untrusted files.
const dataMemory = 4 << 30

// newLaunchCommand returns the command that the Terraform module train-local calls.
func newLaunchCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "launch start|stop|wait|exec",
		Short:  "Launch or end the trainer of the folder; the module train-local calls this",
		Hidden: true,
		RunE:   func(_ *cobra.Command, args []string) error { return terraform.Launch(args[0]) },
	}
}
