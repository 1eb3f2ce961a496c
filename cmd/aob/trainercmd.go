package main

// This file lists the trainers of a server, and makes their Python environments.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/trainer"
)

func newTrainerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trainer",
		Short: "List trainers, and install the Python packages that one needs",
		Long: `A trainer may need Python packages of its own. AOB installs them once into the user's
cache, from the lock file of the trainer's version, when the first training needs them.
These commands say what is there, and install it beforehand.`,
		Example: "  aob trainer list\n  aob trainer install rfdetr@1.11.2",
	}
	group(c)
	c.AddCommand(newTrainerListCommand(), newTrainerInstallCommand())
	return c
}

// A trainersRequest has the flags that say which server's trainers are meant.
type trainersRequest struct{ config, trainers, python string }

func (r *trainersRequest) register(c *cobra.Command) {
	c.Flags().StringVar(&r.config, "config", "aob.yaml",
		"the server's configuration `file`, which names trainers and Python; the built-in trainers if it is missing")
	c.Flags().StringVar(&r.trainers, "trainers", "", "the `folder` of trainers, in place of the server's")
	c.Flags().StringVar(&r.python, "python", "", "the `program` to make environments with, in place of the server's")
}

// A trainerSet is the trainers of a server and their environments.
type trainerSet struct {
	files        fs.FS
	trainers     intent.Trainers
	environments trainer.Environments
	containers   trainer.Containers
}

func (r trainersRequest) open(ctx context.Context) (set trainerSet, err error) {
	s := intent.Server{Python: "/usr/bin/python3"}
	if _, err := os.Stat(r.config); err == nil || r.config != "aob.yaml" {
		if s, err = loadServer(r.config); err != nil {
			return set, err
		}
	}
	if r.trainers != "" {
		s.Trainers = r.trainers
	}
	if r.python != "" {
		s.Python = r.python
	}
	if set.files, err = trainerFiles(s.Trainers); err != nil {
		return set, err
	}
	if set.trainers, err = intent.LoadTrainers(set.files); err != nil {
		return set, err
	}
	set.environments, err = environmentsOf(s)
	if err != nil {
		return set, err
	}
	set.environments.Fill(ctx, set.trainers)
	set.containers = containersOf(s)
	return set, set.containers.Fill(set.trainers)
}

// A trainerState is one line of aob trainer list.
type trainerState struct {
	Trainer       string         `json:"trainer"` // NAME@VERSION
	Accelerator   string         `json:"accelerator"`
	Architectures []string       `json:"architectures"`
	State         string         `json:"state"`          // one of the trainer states
	Disk          delivery.Bytes `json:"disk,omitempty"` // that installing its packages needs
	Text          string         `json:"text"`
	Made          *trainer.Made  `json:"environment,omitempty"`
	Image         string         `json:"image,omitempty"` // of the container that it runs in
}

const (
	trainerReady     = "ready"     // it runs with the server's Python
	trainerInstalled = "installed" // its packages or its image are there
	trainerMissing   = "missing"   // the first training installs its packages, or pulls its image
	trainerUnusable  = "unusable"  // this machine cannot run it
)

// packagesInstalled says whether the packages of a built-in trainer are there for a Python.
func packagesInstalled(ctx context.Context, python, with string) bool {
	e, err := environmentsOf(intent.Server{Python: python})
	if err != nil {
		return false
	}
	trainers, err := loadTrainers("")
	if err != nil {
		return false
	}
	e.Fill(ctx, trainers)
	t := trainers[with]
	if t.Runs == nil {
		return t.Unusable == ""
	}
	_, ok := e.Find(*t.Runs)
	return ok
}

// states describes all trainers, sorted by name.
func (set trainerSet) states(ctx context.Context) []trainerState {
	list := []trainerState{}
	for _, with := range slices.Sorted(maps.Keys(set.trainers)) {
		list = append(list, set.state(ctx, with))
	}
	return list
}

func (set trainerSet) state(ctx context.Context, with string) trainerState {
	e, t := set.environments, set.trainers[with]
	s := trainerState{Trainer: with, Accelerator: t.Accelerator, Architectures: t.Architectures}
	switch {
	case t.Unusable != "":
		s.State, s.Text = trainerUnusable, t.Unusable
	case t.Runs == nil:
		s.State, s.Text = trainerReady, "runs with "+e.Python
	case t.Runs.Image != "":
		s.Image = set.containers.Images[with]
		s.State, s.Text = trainerInstalled, "runs in "+s.Image
		if !set.containers.Has(ctx, s.Image) {
			s.State = trainerMissing
			s.Text += ", which is not here yet; its first training pulls it, or now: aob trainer install " + with
			if !set.containers.Pull {
				s.Text = "runs in " + s.Image + ", which is not here; " + filepath.Base(set.containers.Engine) +
					" pull gets it"
			}
		}
	default:
		s.Disk = t.Environment.Disk
		if made, ok := e.Find(*t.Runs); ok {
			s.State, s.Made = trainerInstalled, &made
			s.Text = fmt.Sprintf("%s, %.1f GiB, in %s", delivery.Count(made.Packages, "package"),
				float64(made.Bytes)/(1<<30), made.Folder)
			break
		}
		s.State = trainerMissing
		s.Text = fmt.Sprintf("its packages need %s of disk", s.Disk)
		lock, err := set.lock(with) // without it the installation says what is wrong
		if more := e.Needs(lock, s.Disk); err == nil && more < s.Disk {
			s.Text = fmt.Sprintf("its packages need %.1f GiB of disk, the others are cached", float64(more)/(1<<30))
			s.Disk = more
		}
		if free, err := durable.FreeSpace(e.Dir); err == nil {
			s.Text += fmt.Sprintf(" (%.1f GiB are free)", float64(free)/(1<<30))
		}
		s.Text += "; its first training installs them, or now: aob trainer install " + with
	}
	return s
}

// lock returns the lock file of a version of a trainer.
func (set trainerSet) lock(with string) ([]byte, error) {
	name, version, _ := strings.Cut(with, "@")
	return fs.ReadFile(set.files, path.Join(name, intent.VersionsFolder, version, intent.LockFile))
}

func newTrainerListCommand() *cobra.Command {
	var o output
	var r trainersRequest
	c := &cobra.Command{
		Use:   "list",
		Short: "List the trainers of a server, and whether their packages are installed",
		Long: `List prints each version of each trainer as models name it, and whether the Python
packages that it needs are installed.`,
		Example: "  aob trainer list\n" +
			"  aob trainer list --config aob.yaml -o json | jq '.[] | select(.state != \"ready\")'",
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := r.open(c.Context())
			if err != nil {
				return err
			}
			list := set.states(c.Context())
			return o.print(c.OutOrStdout(), list, func(t *terminal) {
				rows := [][]cell{heading("TRAINER", "ON", "STATE", "")}
				for _, s := range list {
					rows = append(rows, cells(s.Trainer, s.Accelerator, s.State, s.Text))
				}
				t.tableWithTexts(rows, true)
			})
		},
	}
	o.register(c)
	r.register(c)
	return c
}

func newTrainerInstallCommand() *cobra.Command {
	var o output
	var r trainersRequest
	c := &cobra.Command{
		Use:   "install NAME@VERSION",
		Short: "Install the Python packages that a trainer needs",
		Long: `Install makes the Python environment of a trainer in the user's cache, with the packages
and hashes of its lock file, and prints where its Python is. Without it, the first
training does the same. It does nothing if the environment is there, and a trainer that
runs with the server's Python needs none. It takes packages from the index that
UV_DEFAULT_INDEX or PIP_INDEX_URL names.`,
		Example: "  aob trainer install rfdetr@1.11.2\n" +
			"  aob trainer install rfdetr@1.11.2 --config aob.yaml -o json | jq -r .environment.python",
		RunE: func(c *cobra.Command, args []string) error {
			set, err := r.open(c.Context())
			if err != nil {
				return err
			}
			progress, done := showInstalling(c.ErrOrStderr(), args[0])
			s, err := set.install(c.Context(), args[0], progress)
			done()
			if err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), s, func(t *terminal) {
				if s.Made == nil {
					t.printf("%s %s\n", s.Trainer, s.Text)
					return
				}
				t.printf("%s\n", s.Made.Python)
			})
		},
	}
	o.register(c)
	r.register(c)
	return c
}

func (set trainerSet) install(ctx context.Context, with string, progress func(trainer.Making)) (s trainerState,
	err error) {
	t, ok := set.trainers[with]
	switch {
	case !ok:
		return s, hinted{fmt.Errorf("there is no trainer %q", with), "the trainers are " +
			strings.Join(slices.Sorted(maps.Keys(set.trainers)), ", ")}
	case t.Unusable != "":
		if _, err := set.environments.Identify(ctx, t); err != nil && t.Runs == nil {
			return s, err
		}
		return s, errors.New(t.Unusable)
	case t.Runs == nil:
		return set.state(ctx, with), nil
	case t.Runs.Image != "":
		_, err := set.containers.Prepare(ctx, t.Runs.Image, progress)
		return set.state(ctx, with), err
	}
	// The built-in trainers are no files on this disk.
	tmp, err := os.MkdirTemp("", "aob-trainer-")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	data, err := set.lock(with)
	lock := filepath.Join(tmp, intent.LockFile)
	if err == nil {
		err = os.WriteFile(lock, data, 0o600)
	}
	if err != nil {
		return s, err
	}
	if _, err := set.environments.Make(ctx, with, lock, *t.Runs, t.Environment.Disk, progress); err != nil {
		return s, err
	}
	return set.state(ctx, with), nil
}

// showInstalling returns a function that shows on a terminal how far an installation is, and one that ends that.
// Elsewhere it writes a line when something else begins, and then every ten seconds.
func showInstalling(w io.Writer, with string) (progress func(trainer.Making), done func()) {
	t := newTerminal(w)
	before, after := safeText(""), safeText("\n")
	if t.tty {
		before, after = "\r\x1b[K", ""
	}
	drawn := false
	var what string
	var last time.Time
	progress = func(m trainer.Making) {
		if !t.tty && m.What == what && time.Since(last) < 10*time.Second {
			return
		}
		what, last, drawn = m.What, time.Now(), t.tty
		text := m.What
		if m.Total > 0 {
			text = fmt.Sprintf("%d of %d packages", m.Done, m.Total)
		}
		t.printf("%sinstalling %s: %s%s", before, strings.ReplaceAll(with, "@", " "), text, after)
		_ = t.flush() // the result does not depend on it
	}
	return progress, func() {
		if drawn {
			t.printf("%s", before)
			_ = t.flush()
		}
	}
}
