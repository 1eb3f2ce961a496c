package main

import (
	"bytes"
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
	"github.com/autonomos/aob/reconciler/words"
)

func newGateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "gate",
		Short: "Freeze what a gate judges on, and ask what it can show",
		Example: "  aob gate freeze production --config aob.yaml --dataset dir:shapes/gold-2\n  aob gate power " +
			"production",
	}
	group(c)
	c.AddCommand(newGateFreezeCommand(), newGatePowerCommand())
	return c
}

func newGateFreezeCommand() *cobra.Command {
	var o output
	var config, dir, from, split, by string
	var covers []string
	var check bool
	c := &cobra.Command{
		Use:   "freeze NAME",
		Short: "Write into gates/NAME.yaml exactly what it judges on",
		Long: `Freeze reads the images and truths of an eval set and writes them, by digest, into
the gate's file in this folder: evaluate: {…, content: sha256:…}. Anything else
under that name is refused from then on, so that an eval set is replaced only by a
merged change of the gate. A gate without classes: gets the classes that the models
have which it covers, and labels: where their files map labels of the eval set to
these classes. The rest stays as it is.

Without --dataset it freezes what the file names already. Where there is no such
file, --covers makes one.`,
		Example: `  aob gate freeze production --config aob.yaml
  aob gate freeze production --config aob.yaml --dataset dir:shapes/gold-2 --group video
  aob gate freeze night --config aob.yaml --dataset dir:night --covers shapes
  aob gate freeze production --config aob.yaml --check      # in CI: fails if it is out of date`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			server, err := loadServer(config)
			if err != nil {
				return err
			}
			path := filepath.Join(dir, "gates", args[0]+".yaml")
			data, err := os.ReadFile(path)
			if err == nil && len(covers) > 0 {
				return hinted{fmt.Errorf("%s is there already, and --covers is for a new gate", path),
					"edit its covers: by hand"}
			}
			if errors.Is(err, fs.ErrNotExist) && len(covers) > 0 {
				data, err = newGate(args[0], covers), nil
			}
			if errors.Is(err, fs.ErrNotExist) {
				return hinted{fmt.Errorf("there is no %s here", path), "name the intent repository's folder with " +
					"--dir, or make one with --covers MODEL --dataset dir:NAME"}
			}
			if err != nil {
				return err
			}
			g, complaints := intent.Draft(intent.File{Path: "gates/" + args[0] + ".yaml", Size: int64(len(data)),
				Data: data})
			if len(complaints) > 0 {
				return configComplaints(complaints)
			}
			e := g.Evaluate
			if from != "" {
				source, name, _ := strings.Cut(from, ":")
				if sources[source] == nil || name == "" {
					return hinted{fmt.Errorf("--dataset: want SOURCE:NAME or SOURCE:NAME/folder, got %q", from),
						"as dir:NAME, where NAME stands under datasets.dir in " + config}
				}
				e = delivery.EvalSet{Dataset: delivery.Dataset{Source: source, Path: name}, Split: "test"}
			}
			if e.Split == "" {
				e.Split = "test"
			}
			if split != "" {
				e.Split = split
			}
			if c.Flags().Changed("group") {
				e.Group = by
			}
			frozen, err := datasets(server).Freeze(c.Context(), e)
			if err != nil {
				return err
			}
			text, err := intent.SetEvaluate(data, frozen.EvalSet)
			if err != nil {
				return err
			}
			if text, err = withClasses(args[0], text, g, dir, frozen); err != nil {
				return err
			}
			doc := intent.ParseFile(intent.File{Path: "gates/" + args[0] + ".yaml", Size: int64(len(text)), Data: text},
				intent.Options{})
			if list := doc.Complaints(); len(list) > 0 {
				return configComplaints(list)
			}
			have, _ := os.ReadFile(path) // none is other content
			changed := !bytes.Equal(have, text)
			if changed && check {
				return hinted{fmt.Errorf("%s does not say what %s holds: %s", path, frozen.EvalSet,
					frozen.EvalSet.Content), "aob gate freeze " + args[0] + " --config " + config + " writes it"}
			}
			if changed {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					return err
				}
				if err := durable.WriteFile(path, text, 0o644); err != nil {
					return err
				}
			}
			return o.print(c.OutOrStdout(), map[string]any{"file": path, "changed": changed, "frozen": frozen},
				func(t *terminal) { t.frozen(path, frozen, changed) })
		},
	}
	o.register(c)
	c.Flags().StringVar(&config, "config", "aob.yaml",
		"the server's configuration `file`, which says where datasets are")
	c.Flags().StringVar(&dir, "dir", ".", "the `folder` of the intent repository")
	c.Flags().StringVar(&from, "dataset", "",
		"the `dataset` to judge on, as dir:shapes/gold-2; what the file names by default")
	c.Flags().StringVar(&split, "split", "", "which split of it: train, valid or test")
	c.Flags().StringVar(&by, "group", "", "the `field` of images whose equal values are not independent, as video")
	c.Flags().StringArrayVar(&covers, "covers", nil, "make a new gate that covers this `model`")
	c.Flags().BoolVar(&check, "check", false, "write nothing, and fail where the file is out of date")
	return c
}

// withClasses adds classes, and labels, to a gate that has none.
func withClasses(name string, text []byte, g delivery.Gate, dir string, f dataset.Frozen) ([]byte, error) {
	if len(g.Classes) > 0 {
		return text, nil
	}
	classes, labels := classesOf(dir, g.Covers, f)
	if len(classes) == 0 {
		return nil, hinted{fmt.Errorf("the models that gate %s covers have no class in common, so it holds them to "+
			"nothing", name), "give each of them a gate of its own, or write classes: by hand"}
	}
	return intent.SetClasses(text, classes, labels)
}

// classesOf reads the models that a gate covers: the classes that all of them have, and, of the labels that the eval
// set has, those that a model takes for one of these classes.
func classesOf(dir string, covers []string, f dataset.Frozen) ([]string, delivery.Labels) {
	var classes []string
	labels := delivery.Labels{}
	read := 0
	for _, covered := range covers {
		path := "models/" + covered + ".yaml"
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(path)))
		if err != nil {
			continue // the server complains of it
		}
		mdl, ok := intent.ParseFile(intent.File{Path: path, Size: int64(len(data)), Data: data},
			intent.Options{}).Model()
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
			there := slices.DeleteFunc(slices.Clone(c.Labels), func(label string) bool { return f.Truths[label] == 0 })
			if len(there) > 0 && !slices.Equal(there, []string{c.Name}) {
				labels[c.Name] = there
			}
		}
	}
	maps.DeleteFunc(labels, func(class string, _ []string) bool { return !slices.Contains(classes, class) })
	return classes, labels
}

// newGate is a gate to begin with.
func newGate(name string, covers []string) []byte {
	return fmt.Appendf(nil, `apiVersion: aob/v1
kind: Gate
name: %s
covers: [%s]
# owners: [vision-leads]         # who may settle a check that is unsure
evaluate: {}
looks: 20                        # models judged on it against one release
checks:
  - {metric: mAP, min: 0.10}
  - {metric: mAP, maxDrop: 0.02}
  - {metric: AP, classes: all, maxDrop: 0.05, support: 20, unsure: ignore}
`, name, strings.Join(covers, ", "))
}

func (t *terminal) frozen(path string, f dataset.Frozen, changed bool) {
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
	if changed {
		t.printf("wrote %s; what it judges on is %s\n", path, f.EvalSet.Content)
		return
	}
	t.printf("%s says so already\n", path)
}

// frozenWarnings says what an eval set is too small for.
func frozenWarnings(f dataset.Frozen) []string {
	var list []string
	if f.EvalSet.Split != "test" {
		list = append(list, fmt.Sprintf("this is split %s, which the dataset's own models are trained and chosen on: "+
			"what stands in an eval set is left out of that, and more than 5%% of it is an error", f.EvalSet.Split))
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
		list = append(list, "few truths, of which little can be said: "+strings.Join(few, ", ")+
			"; give checks by class a support:")
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
	var o client
	c := &cobra.Command{
		Use:   "power NAME",
		Short: "Say how small a drop a gate can show",
		Long: `Power says, for each check of a gate on main that bounds a drop, the smallest drop
that its eval set can show: one that it finds four times in five. It comes from
what was compared there, or else from how much the release's own figures vary.`,
		Example: "  aob gate power production\n  aob gate power production -o json | jq '.[].checks[].smallest'",
		Args:    arguments(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			list, err := o.dial().Power(c.Context(), args[0])
			if err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), list, func(t *terminal) {
				if len(list) == 0 {
					t.paragraph("", "gate "+args[0]+" has judged no release yet, so nobody knows how much figures "+
						"vary on its eval set; ask again when it has")
				}
				t.powers(list)
			})
		},
	}
	o.register(c)
	return c
}

// powers prints what gates can show.
func (t *terminal) powers(list []gate.ModelPower) {
	for i, m := range list {
		if i > 0 {
			t.printf("\n")
		}
		about := delivery.Count(m.Images, "image")
		if m.Groups > 0 {
			about += " in " + delivery.Count(m.Groups, "group")
		}
		t.printf("%s\n", t.styled(bold, fmt.Sprintf("what gate %s can show of %s, on %s", m.Gate, m.Model, about)))
		for _, c := range m.Checks {
			t.paragraph("  ", words.Power(c))
		}
		if len(m.Checks) == 0 {
			t.paragraph("  ", "no check bounds a drop of what was measured")
		}
	}
}
