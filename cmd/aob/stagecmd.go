package main

// This file has the commands that take one stage of a model without a server, for workflow engines: aob train, aob eval
// --trained, aob gate judge and aob release. Each reads what the one before wrote with -o json.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/stage"
	"github.com/autonomos/aob/reconciler/web"
)

// A workshop is where stages are taken: a configuration, a folder of work and an intent repository.
type workshop struct {
	config, work, dir string
}

func (w *workshop) register(c *cobra.Command) {
	c.Flags().StringVar(&w.config, "config", "aob.yaml", "the server's configuration `file`: datasets, trainers, tools")
	c.Flags().StringVar(&w.work, "work", ".aob", "the `folder` of runs and models; the next stages need it")
	w.registerDir(c)
}

func (w *workshop) registerDir(c *cobra.Command) {
	c.Flags().StringVar(&w.dir, "dir", ".", "the `folder` of the intent repository, with models/ and gates/")
}

// makeWork makes the folder of work if it is missing. It may be in the repository, so it tells git to ignore it.
func makeWork(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("*\n"), 0o600)
}

// openWork prepares the folder of work. close releases it.
func (w *workshop) openWork(ctx context.Context, progress io.Writer) (l *stage.Local, trainers intent.Trainers,
	closed func() error, err error) {
	s, err := loadServer(w.config)
	if err != nil {
		return nil, nil, nil, err
	}
	config, err := filepath.Abs(w.config)
	if err == nil {
		s.State, err = filepath.Abs(w.work)
	}
	if err == nil {
		err = makeWork(s.State)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	st := state(s.State)
	lock, err := durable.TryLock(st.path("serve.lock"))
	if errors.Is(err, durable.ErrLocked) {
		return nil, nil, nil, hinted{fmt.Errorf("another command or an aob serve works in %s", w.work),
			"wait for it, or name another folder with --work"}
	}
	if err != nil {
		return nil, nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Unlock())
		}
	}()
	if trainers, err = installTrainers(ctx, s, st); err != nil {
		return nil, nil, nil, err
	}
	settings, err := planServer(ctx, s, trainers)
	if err != nil {
		return nil, nil, nil, err
	}
	bundles, err := artifact.Open(st.bundles())
	if err != nil {
		return nil, nil, nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, nil, err
	}
	files, err := filesOf(s)
	if err != nil {
		return nil, nil, nil, err
	}
	return &stage.Local{
		Runs: &run.Store{Dir: st.runs(), Command: []string{self, "runner", "--config", config, "--state", s.State},
			Env: runnerEnv(s, trainers), Mask: secretMask(s)},
		Bundles: bundles, Server: settings, Datasets: datasets(s), Progress: showRun(progress),
		Missing: func(file string) bool {
			f, err := files.Open(file)
			if err == nil {
				f.Close()
			}
			return err != nil
		},
	}, trainers, lock.Unlock, nil
}

// intent reads the intent repository. Complaints about files are an error.
func (w *workshop) intent(trainers intent.Trainers) (delivery.Intent, error) {
	in, complaints, err := w.read(trainers)
	if err != nil {
		return in, err
	}
	return in, w.complained(complaints)
}

// gates reads the intent repository for its gates. What trainers there are, which models need, is not known.
func (w *workshop) gates() (delivery.Intent, error) {
	in, complaints, err := w.read(nil)
	if err != nil {
		return in, err
	}
	return in, w.complained(slices.DeleteFunc(complaints, func(c delivery.Complaint) bool {
		return !strings.HasPrefix(c.File, "gates/")
	}))
}

func (w *workshop) read(trainers intent.Trainers) (delivery.Intent, delivery.Complaints, error) {
	files, err := intentFiles(w.dir)
	if err != nil {
		return delivery.Intent{}, nil, err
	}
	options := intent.Options{Zone: knownZone, Datasets: map[string][]string{}, Trainers: trainers}
	for source := range sources {
		options.Datasets[source] = nil // any name
	}
	in, complaints := intent.Parse(files, options)
	return in, complaints, nil
}

// complained returns complaints as an error, with the folder before the names of files.
func (w *workshop) complained(complaints delivery.Complaints) error {
	for i := range complaints {
		complaints[i].File = filepath.Join(w.dir, filepath.FromSlash(complaints[i].File))
	}
	if len(complaints) > 0 {
		return complaints
	}
	return nil
}

// gates returns the gates that cover a model.
func gates(in delivery.Intent, model string) map[string]delivery.Gate {
	list := map[string]delivery.Gate{}
	for _, name := range in.Covering(model) {
		list[name] = in.Gates.Of(name)
	}
	return list
}

// showRun returns a function that writes how far a run is: on a terminal in place, elsewhere a line for each change of
// what it does, and one every ten seconds.
func showRun(w io.Writer) func(delivery.RunState) {
	t := newTerminal(w)
	var last time.Time
	var doing string
	return func(s delivery.RunState) {
		r := web.Run{Kind: s.Spec.Kind, Phase: s.Phase, Stage: s.Stage, Started: s.Started, Epoch: s.Status.Epoch,
			Epochs: s.Status.Epochs, Batch: s.Status.Batch, Batches: s.Status.Batches, MAP: s.Status.MAP,
			SecondsLeft: s.Status.SecondsLeft}
		text := fmt.Sprintf("%s: %s", s.Spec.Kind, strings.Join(steps(r), "  "))
		now := string(s.Spec.Kind) + s.Stage
		switch {
		case len(steps(r)) == 0:
			return
		case t.tty:
			t.printf("\r\x1b[K%s", safeText(printable(text)))
		case now != doing || time.Since(last) > 10*time.Second:
			t.printf("%s\n", text)
		default:
			return
		}
		doing, last = now, time.Now()
		_ = t.flush() // the result does not depend on it
	}
}

func newTrainCommand() *cobra.Command {
	var o output
	var w workshop
	var seed int64
	var variants []string
	var fresh bool
	c := &cobra.Command{
		Use:   "train MODEL",
		Short: "Train a model of a repository on this machine, without a server",
		Long: `Train checks the dataset of models/MODEL.yaml and trains it, as the server would for a
pull request. It is a stage for workflow engines: -o json writes what aob eval reads.
The same model is not trained twice in one folder of work, also after an upgrade of aob,
and an interrupted training goes on. --fresh trains again with the present trainer.
--variant makes a number format that the file lists under variants: too, for
aob eval --trained FILE --variant NAME; without it FP32 alone is made.

Nothing is signed, so nothing can be released by it: a server measures again what a
pull request proposes.`,
		Example: `  aob train shapes --config world/aob.yaml --dir world/intent
  aob train shapes --config aob.yaml --seed 2 -o json >trained.json
  aob train shapes --variant fp16,int8 -o json >trained.json`,
		RunE: func(c *cobra.Command, args []string) error {
			local, trainers, closed, err := w.openWork(c.Context(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			defer closed()
			in, err := w.intent(trainers)
			if err != nil {
				return err
			}
			mdl, ok := in.Models.Get(args[0])
			if !ok {
				return hinted{fmt.Errorf("there is no models/%s.yaml in %s", args[0], w.dir),
					"the models are " + cmp.Or(strings.Join(in.Models.Names(), ", "), "none") +
						"; --dir names another repository"}
			}
			if !c.Flags().Changed("seed") {
				seed = mdl.Train.Seeds[0]
			}
			trained, err := local.Train(c.Context(), mdl, seed, slices.Collect(maps.Values(gates(in, mdl.Name))),
				fresh)
			if err != nil {
				return err
			}
			if t, ok := local.Server.Trainers[mdl.Train.With]; ok && t.Files != trained.Input.Trainer {
				printMessage(c.ErrOrStderr(), "it was trained before, with other files of %s; --fresh trains it with "+
					"the present ones", mdl.Train.With)
			}
			for _, name := range variants {
				v, err := local.Variant(c.Context(), mdl, trained, name, fresh)
				if err != nil {
					return err
				}
				trained.Variants = append(trained.Variants, v)
			}
			if left := slices.DeleteFunc(mdl.Made(), func(name string) bool {
				return slices.Contains(variants, name)
			}); len(left) > 0 {
				printMessage(c.ErrOrStderr(), "not made: %s; --variant %s makes it, and the server does for a pull "+
					"request", strings.Join(left, ", "), strings.Join(left, ","))
			}
			return o.print(c.OutOrStdout(), trained, func(t *terminal) { t.trained(trained) })
		},
	}
	o.register(c)
	w.register(c)
	c.Flags().Int64Var(&seed, "seed", 0, "the seed; the model's first one by default")
	c.Flags().BoolVar(&fresh, "fresh", false, "train again, with the present trainer")
	c.Flags().StringSliceVar(&variants, "variant", nil, "also make these `variants` of the model: fp16, int8")
	return c
}

func (t *terminal) trained(m stage.Trained) {
	t.printf("%s: bundle %s, trained on %s, seed %d\n", m.Model, m.Bundle.Short(),
		delivery.Count(m.Data.Images["train"], "image"), m.Seed)
	for _, v := range m.Variants {
		r := v.Result
		t.printf("%s %s: bundle %s, %s, %d of %d boxes as FP32's", m.Model, v.Variant, v.Bundle.Short(),
			delivery.Bytes(r.Size), r.Parity.Matched, r.Parity.Boxes)
		if speed := r.Times.Speedup(); speed > 0 {
			t.printf(", %.2f times as fast here", speed)
		}
		t.printf("\n")
	}
}

// A measureRequest has the flags of aob eval --trained.
type measureRequest struct {
	workshop
	file, baseline, variant string
}

func (r *measureRequest) register(c *cobra.Command) {
	r.workshop.register(c)
	c.Flags().StringVar(&r.file, "trained", "", "what aob train -o json wrote, a `file`; - is the standard input")
	c.Flags().StringVar(&r.baseline, "baseline", "", "with --trained: the `file` of the model to compare with")
	c.Flags().StringVar(&r.variant, "variant", delivery.FP32,
		"with --trained: the `variant` to measure, which aob train --variant made")
}

func (r *measureRequest) measure(c *cobra.Command, o output) error {
	for _, name := range []string{"truth", "detections", "against"} {
		if c.Flags().Changed(name) {
			return hinted{fmt.Errorf("--%s and --trained cannot be used together", name),
				"--trained reads the eval sets of the model's gates; --baseline names a model to compare with"}
		}
	}
	trained, err := readStage[stage.Trained](r.file, c.InOrStdin(), stage.Train)
	if err != nil {
		return err
	}
	var baseline *stage.Trained
	if r.baseline != "" {
		before, err := readStage[stage.Trained](r.baseline, c.InOrStdin(), stage.Train)
		if err != nil {
			return err
		}
		baseline = &before
	}
	local, trainers, closed, err := r.openWork(c.Context(), c.ErrOrStderr())
	if err != nil {
		return err
	}
	defer closed()
	in, err := r.intent(trainers)
	if err != nil {
		return err
	}
	list := gates(in, trained.Model)
	if len(list) == 0 {
		return hinted{fmt.Errorf("no gate in %s covers %s, so there is no eval set to measure on", r.dir,
			trained.Model),
			"add one: aob gate freeze NAME --dataset SOURCE:NAME --covers " + trained.Model}
	}
	measured, err := local.Measure(c.Context(), trained, r.variant, baseline, list)
	if err != nil {
		return err
	}
	return o.print(c.OutOrStdout(), measured, func(t *terminal) { t.scores(measured) })
}

func (t *terminal) scores(m stage.Measured) {
	if m.Variant != "" {
		t.printf("%s %s\n", m.Model, m.Variant)
	}
	rows := [][]cell{heading("GATE", "IMAGES", "mAP", "AP50", "AP75")}
	for _, name := range slices.Sorted(maps.Keys(m.Gates)) {
		scores := m.Gates[name].Scores.Scores
		row := []cell{{text: name}, {text: fmt.Sprint(scores.Images)}}
		for _, metric := range []string{"mAP", "AP50", "AP75"} {
			text := "-"
			if v, ok := scores.Values[metric]; ok {
				text = fmt.Sprintf("%.4f", v)
			}
			row = append(row, cell{text: text})
		}
		rows = append(rows, row)
	}
	t.table("", rows)
}
