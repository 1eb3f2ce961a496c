package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/gate"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/words"
)

func newGateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "gate",
		Short: "Freeze a gate's eval set, show the smallest drop it can detect, or judge scores by it",
		Example: "  aob gate freeze production --config aob.yaml --dataset dir:shapes/gold-2\n  aob gate power " +
			"production",
	}
	group(c)
	c.AddCommand(newGateFreezeCommand(), newGatePowerCommand(), newGateJudgeCommand())
	return c
}

// A freezeRequest holds the argument and flags of aob gate freeze.
type freezeRequest struct {
	name, config, dir string
	dataset, split    string   // empty keeps the file's
	group             *string  // nil keeps the file's
	covers            []string // for a new gate
	check             bool     // write nothing
}

// A freezeResult is what aob gate freeze prints.
type freezeResult struct {
	File    string         `json:"file"`
	Changed bool           `json:"changed"`
	Frozen  dataset.Frozen `json:"frozen"`
}

func newGateFreezeCommand() *cobra.Command {
	var o output
	var r freezeRequest
	var group string
	c := &cobra.Command{
		Use:   "freeze NAME",
		Short: "Write the digest of a gate's eval set into gates/NAME.yaml",
		Long: `Freeze reads the images and truths of an eval set and writes their digest into the
gate's file in this folder: evaluate: {…, content: sha256:…}. From then on the server
refuses other content under that name. To replace an eval set, merge a change of the
gate. If the gate has no classes:, freeze also writes the classes that all models it
covers have in common, and labels: where a model maps other labels of the eval set to
these classes. Everything else in the file stays as it is.

Without --dataset, freeze uses the dataset that the file names. If there is no file,
--covers creates one.`,
		Example: `  aob gate freeze production --config aob.yaml
  aob gate freeze production --config aob.yaml --dataset dir:shapes/gold-2 --group video
  aob gate freeze night --config aob.yaml --dataset dir:night --covers shapes
  aob gate freeze production --config aob.yaml --check      # in CI: fails if it is out of date`,
		RunE: func(c *cobra.Command, args []string) error {
			r.name = args[0]
			if c.Flags().Changed("group") {
				r.group = &group
			}
			result, err := freeze(c.Context(), r)
			if err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), result, func(t *terminal) { t.frozen(result) })
		},
	}
	o.register(c)
	f := c.Flags()
	f.StringVar(&r.config, "config", "aob.yaml",
		"the server's configuration `file`, which has the locations of datasets")
	f.StringVar(&r.dir, "dir", ".", "the `folder` of the intent repository")
	f.StringVar(&r.dataset, "dataset", "", "the `dataset` to judge on, as dir:shapes/gold-2; default: the file's")
	f.StringVar(&r.split, "split", "", "the split to judge on: train, valid or test")
	f.StringVar(&group, "group", "", "the image `field` that marks dependent images, as video")
	f.StringArrayVar(&r.covers, "covers", nil, "create a new gate that covers this `model`")
	f.BoolVar(&r.check, "check", false, "write nothing, and fail if the file is out of date")
	return c
}

// freeze reads the eval set of a gate and writes its digest into the gate's file. With
// check set it writes nothing and fails if the file would change.
func freeze(ctx context.Context, r freezeRequest) (freezeResult, error) {
	result := freezeResult{File: filepath.Join(r.dir, "gates", r.name+".yaml")}
	server, err := loadServer(r.config)
	if err != nil {
		return result, err
	}
	data, err := r.read(result.File)
	if err != nil {
		return result, err
	}
	file := intent.File{Path: "gates/" + r.name + ".yaml", Size: int64(len(data)), Data: data}
	g, complaints := intent.Draft(file)
	if len(complaints) > 0 {
		return result, delivery.Complaints(complaints)
	}
	e, err := r.evalSet(g.Evaluate)
	if err != nil {
		return result, err
	}
	if result.Frozen, err = datasets(server).Freeze(ctx, e); err != nil {
		return result, err
	}
	text, err := intent.SetEvaluate(data, result.Frozen.EvalSet)
	if err != nil {
		return result, err
	}
	if text, err = withClasses(r.name, text, g, r.dir, result.Frozen); err != nil {
		return result, err
	}
	file.Size, file.Data = int64(len(text)), text
	if list := intent.ParseFile(file, intent.Options{}).Complaints(); len(list) > 0 {
		return result, delivery.Complaints(list)
	}
	old, _ := os.ReadFile(result.File) // a missing file counts as changed
	result.Changed = !bytes.Equal(old, text)
	switch {
	case !result.Changed:
		return result, nil
	case r.check:
		frozen := result.Frozen.EvalSet
		return result, hinted{fmt.Errorf("%s is out of date: %s now has content %s", result.File, frozen,
			frozen.Content), "aob gate freeze " + r.name + " --config " + r.config + " updates it"}
	}
	if err := os.MkdirAll(filepath.Dir(result.File), 0o755); err != nil {
		return result, err
	}
	return result, durable.WriteFile(result.File, text, 0o644)
}

// read returns the gate's file, or the text of a new gate.
func (r freezeRequest) read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case err == nil && len(r.covers) > 0:
		return nil, hinted{fmt.Errorf("%s exists, and --covers is only for a new gate", path),
			"edit covers: in the file"}
	case missing && len(r.covers) > 0:
		return newGate(r.name, r.covers), nil
	case missing:
		return nil, hinted{fmt.Errorf("there is no %s here", path), "name the intent repository's folder with " +
			"--dir, or create the gate with --covers MODEL --dataset dir:NAME"}
	}
	return data, err
}

// evalSet returns the eval set of the gate's file with the flags applied.
func (r freezeRequest) evalSet(e delivery.EvalSet) (delivery.EvalSet, error) {
	if r.dataset != "" {
		source, name, _ := strings.Cut(r.dataset, ":")
		if sources[source] == nil || name == "" {
			return e, hinted{fmt.Errorf("--dataset: want SOURCE:NAME or SOURCE:NAME/folder, got %q", r.dataset),
				"the sources are " + strings.Join(slices.Sorted(maps.Keys(sources)), ", ") +
					"; as dir:NAME, where NAME stands under datasets.dir in " + r.config}
		}
		e = delivery.EvalSet{Dataset: delivery.Dataset{Source: source, Path: name}}
	}
	e.Split = cmp.Or(r.split, e.Split, "test")
	if r.group != nil {
		e.Group = *r.group
	}
	return e, nil
}

// withClasses adds classes: and labels: to a gate that has no classes:.
func withClasses(name string, text []byte, g delivery.Gate, dir string, f dataset.Frozen) ([]byte, error) {
	if len(g.Classes) > 0 {
		return text, nil
	}
	classes, labels := classesOf(dir, g.Covers, f)
	if len(classes) == 0 {
		return nil, hinted{fmt.Errorf("the models that gate %s covers have no class in common, so it would check "+
			"nothing", name), "give each model its own gate, or write classes: by hand"}
	}
	return intent.SetClasses(text, classes, labels)
}

// classesOf returns the classes that all covered models have in common, and the
// labels of the eval set that a model maps to one of these classes.
func classesOf(dir string, covers []string, f dataset.Frozen) ([]string, delivery.Labels) {
	var classes []string
	labels := delivery.Labels{}
	read := 0
	for _, covered := range covers {
		path := "models/" + covered + ".yaml"
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			continue // the server reports the missing model
		}
		mdl, ok := intent.ParseFile(intent.File{Path: path, Data: data}, intent.Options{}).Value.(delivery.Model)
		if !ok {
			continue
		}
		if read++; read == 1 {
			classes = mdl.Classes.Names()
		}
		classes = slices.DeleteFunc(classes, func(class string) bool {
			return !slices.Contains(mdl.Classes.Names(), class)
		})
		for _, c := range mdl.Classes {
			present := slices.DeleteFunc(slices.Clone(c.Labels), func(label string) bool {
				return f.Truths[label] == 0
			})
			if len(present) > 0 && !slices.Equal(present, []string{c.Name}) {
				labels[c.Name] = present
			}
		}
	}
	maps.DeleteFunc(labels, func(class string, _ []string) bool { return !slices.Contains(classes, class) })
	return classes, labels
}

// newGate returns the text of a new gate.
func newGate(name string, covers []string) []byte {
	return fmt.Appendf(nil, `apiVersion: aob/v1
kind: Gate
name: %s
covers: [%s]
# owners: [vision-leads]         # who may accept an unsure check
evaluate: {}
looks: 20                        # models judged on it against one release
checks:
  - {metric: mAP, min: 0.10}
  - {metric: mAP, maxDrop: 0.02}
  - {metric: AP, classes: all, maxDrop: 0.05, support: 20, unsure: ignore}
`, name, strings.Join(covers, ", "))
}

func (t *terminal) frozen(r freezeResult) {
	f := r.Frozen
	t.printf("%s: %s", f.EvalSet, delivery.Count(f.Images, "image"))
	if f.EvalSet.Group != "" {
		t.printf(" in %s", delivery.Count(f.Groups, "group"))
	}
	t.printf("\n")
	rows := [][]cell{heading("CATEGORY", "TRUTHS")}
	for _, name := range slices.Sorted(maps.Keys(f.Truths)) {
		rows = append(rows, cells(name, fmt.Sprint(f.Truths[name])))
	}
	t.table("  ", rows)
	for _, w := range frozenWarnings(f) {
		t.paragraph("", "warning: "+w)
	}
	if r.Changed {
		t.printf("wrote %s; the eval set has content %s\n", r.File, f.EvalSet.Content)
		return
	}
	t.printf("%s is up to date\n", r.File)
}

// frozenWarnings lists the problems of an eval set, such as too few images.
func frozenWarnings(f dataset.Frozen) []string {
	var list []string
	if f.EvalSet.Split != "test" {
		list = append(list, fmt.Sprintf("split %s is also used for training. Images of an eval set are left out of "+
			"training; if that is more than 5%% of a split, training is refused", f.EvalSet.Split))
	}
	switch {
	case f.EvalSet.Group != "" && f.Groups < coco.MinUnits:
		list = append(list, fmt.Sprintf("%s are too few for an interval, which needs %d: every check on it is unsure",
			delivery.Count(f.Groups, "group"), coco.MinUnits))
	case f.Images < coco.MinUnits:
		list = append(list, fmt.Sprintf("%s are too few for an interval, which needs %d: every check on it is unsure",
			delivery.Count(f.Images, "image"), coco.MinUnits))
	}
	var few []string
	for _, name := range slices.Sorted(maps.Keys(f.Truths)) {
		if n := f.Truths[name]; n > 0 && n < coco.MinUnits {
			few = append(few, fmt.Sprintf("%s (%d)", name, n))
		}
	}
	if len(few) > 0 {
		list = append(list, "classes with few truths, so checks by class are unsure for them: "+
			strings.Join(few, ", ")+"; add images of them, or set unsure: ignore in the checks by class")
	}
	for i, p := range f.Problems {
		if i == 5 {
			list = append(list, fmt.Sprintf("and %d more", len(f.Problems)-i))
			break
		}
		list = append(list, p)
	}
	return list
}

func newGatePowerCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:   "power NAME",
		Short: "Show the smallest drop that a gate can detect",
		Long: `Power shows the smallest drop that each maxDrop check of a gate on main detects with
80 % probability. The estimate comes from comparisons on the gate's eval set, or, if
there are none, from the variance of the release's own figures.`,
		Example: "  aob gate power production\n  aob gate power production -o json | jq '.[].checks[].smallest'",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		list, err := api.Power(c.Context(), args[0])
		return list, func(t *terminal) {
			if len(list) == 0 {
				t.paragraph("", "gate "+args[0]+" has judged no release yet, so the variance on its eval set is not "+
					"known; try again after the first release")
			}
			t.powers(list)
		}, err
	})
}

// powers prints the smallest drop that each check can detect.
func (t *terminal) powers(list []gate.ModelPower) {
	for i, m := range list {
		if i > 0 {
			t.printf("\n")
		}
		t.printf("%s\n", t.styled(bold, words.PowerTitle(m)))
		for _, c := range m.Checks {
			t.paragraph("  ", words.Power(c))
		}
		if len(m.Checks) == 0 {
			t.paragraph("  ", "no maxDrop check on a measured metric")
		}
	}
}
