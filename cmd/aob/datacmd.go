package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
)

func newDataCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "data",
		Aliases: []string{"dataset"},
		Short:   "Fetch, check or compare datasets, count, show an image, or divide into splits",
		Long: `These commands read a dataset before a pull request does, and without a server. They
read the layouts that Roboflow, CVAT, Label Studio, Pascal VOC, YOLO and COCO have.`,
		Example: `  aob data check ~/pallets
  aob data diff ~/pallets/v3 ~/pallets/v4
  aob data stats shapes/v3 --config aob.yaml
  aob data show ~/pallets/train/a.jpg
  aob data split ~/pallets
  aob data pull roboflow:acme/pallets/14 --config aob.yaml`,
	}
	group(c)
	c.AddCommand(newDataCheckCommand(), newDataDiffCommand(), newDataStatsCommand(), newDataShowCommand(),
		newDataSplitCommand(), newDataPullCommand())
	return c
}

// A dataRequest has the flags that say which dataset is meant.
type dataRequest struct {
	config   string
	noMemory bool
}

func (r *dataRequest) register(c *cobra.Command) {
	c.Flags().StringVar(&r.config, "config", "aob.yaml",
		"the server's configuration `file`, which has the locations of datasets; only for a NAME")
}

// located finds a dataset, with the pattern of scenes.
func (r *dataRequest) located(name, scenes string) (dataset.Located, error) {
	catalog, d, err := r.find(name)
	if err == nil && scenes != "" {
		catalog.Scenes, err = delivery.ScenePattern(scenes)
	}
	return dataset.Located{Catalog: catalog, Dataset: d}, err
}

// find returns the dataset of a folder, or else of a name in the server's configuration.
func (r *dataRequest) find(name string) (dataset.Catalog, delivery.Dataset, error) {
	info, err := os.Stat(name)
	if err == nil && info.IsDir() {
		c, d, err := dataset.Folder(name)
		c.Memory = r.memory()
		return c, d, err
	}
	isPath := filepath.IsAbs(name) || strings.HasPrefix(name, ".") // and no NAME
	if _, missing := os.Stat(r.config); isPath || errors.Is(missing, os.ErrNotExist) {
		if err == nil {
			return dataset.Catalog{}, delivery.Dataset{}, hinted{fmt.Errorf("%s is a file, not a folder", name),
				"name the folder of a dataset; unpack an archive first"}
		}
		return dataset.Catalog{}, delivery.Dataset{}, hinted{fmt.Errorf("%s: no such folder", name),
			"name a folder, or with --config a dataset of a server, as in shapes/v3"}
	}
	server, err := loadServer(r.config)
	if err != nil {
		return dataset.Catalog{}, delivery.Dataset{}, err
	}
	d, err := datasetNamed(server.Datasets, name)
	c := datasets(server)
	c.Memory = r.memory()
	return c, d, err
}

// memory returns the folder that keeps what was found about files.
func (r *dataRequest) memory() string {
	cache, err := os.UserCacheDir()
	if err != nil || r.noMemory {
		return ""
	}
	return filepath.Join(cache, "aob", "datasets")
}

// A dataReport is what aob data check prints.
type dataReport struct {
	Dataset string `json:"dataset"`
	delivery.DataResult
}

func newDataCheckCommand() *cobra.Command {
	var o output
	var r dataRequest
	var headers bool
	var classes []string
	var before, scenes, tables string
	c := &cobra.Command{
		Use:   "check DIR|NAME",
		Short: "Find what is wrong in a dataset, as the server's check does before a training",
		Long: `Check reads a dataset as the server does for a pull request: annotations, files, images,
copies and leaks between splits. docs/datasets.md lists all findings. It fails if one
of them is an error, since nothing would be trained then.

It first reads all files for their digests and the sizes of images, and then decodes the
images, which finds damaged ones and those that look the same. --headers-only leaves
the second part out. What was found is kept in the user's cache, so a second check of a
folder that did not change is quick; a file counts as changed if its size, times or
inode differ.

Without --classes each label of the train split is a class.

--before names the version before, with which labels and sizes are compared. --scenes
says where the paths of images have the site and the time at which they were taken.

Each rule is an expectation of Great Expectations. -o gx prints what a validation by that
package returns, as JSON, and --tables writes the tables and the suites with which it can
repeat the check.`,
		Example: `  aob data check ~/pallets
  aob data check ~/pallets/v4 --before ~/pallets/v3
  aob data check ~/pallets --scenes '(?P<site>cam[0-9]+)_(?P<time>[0-9]{8}_[0-9]{6})'
  aob data check ~/pallets -o gx --tables gx > validation.json
  aob data check shapes/v3 --config aob.yaml --classes circle,square
  aob data check ~/pallets -o json | jq '.findings[] | select(.level == "error")'`,
		RunE: func(c *cobra.Command, args []string) error {
			at, err := r.located(args[0], scenes)
			if err != nil {
				return err
			}
			var older *dataset.Located
			if before != "" {
				found, err := r.located(before, scenes)
				if err != nil {
					return err
				}
				older = &found
			}
			catalog, d := at.Catalog, at.Dataset
			catalog.HeadersOnly = headers
			run := delivery.DataRun{Dataset: d}
			for _, name := range classes {
				run.Classes = append(run.Classes, delivery.Class{Name: name, Labels: []string{name}})
			}
			progress, done := showProgress(c.ErrOrStderr())
			var result delivery.DataResult
			var measured dataset.Tables
			if older != nil || tables != "" || o.format == "gx" {
				result, measured, err = catalog.Report(c.Context(), run, older, progress)
			} else {
				result, err = catalog.Check(c.Context(), run, "", nil, progress)
			}
			if done(); err != nil {
				return err
			}
			if tables != "" {
				if err := measured.Write(tables); err != nil {
					return err
				}
			}
			report := dataReport{Dataset: args[0], DataResult: result}
			if o.format == "gx" {
				text, err := measured.Validation(args[0], result.Content)
				if err == nil {
					_, err = fmt.Fprintf(delivery.LogWriter{W: c.OutOrStdout()}, "%s\n", text)
				}
				if err != nil {
					return err
				}
			} else if err := o.print(c.OutOrStdout(), report, func(t *terminal) { t.dataReport(report) }); err != nil {
				return err
			}
			if !result.Failed() {
				return nil
			}
			hint := "correct what is an error above, and check again"
			if has, err := catalog.Describe(c.Context(), d); err == nil && has.Unsplit {
				hint = "aob data split " + args[0] + " divides it; then check again"
			}
			return hinted{fmt.Errorf("%s cannot be trained on", args[0]), hint}
		},
	}
	o.register(c, "gx")
	r.register(c)
	c.Flags().StringVar(&before, "before", "", "the `version` before, to compare with: a folder or a NAME")
	c.Flags().StringVar(&scenes, "scenes", "", "a `pattern` for the paths of images: a regular expression with the "+
		"groups site and time; default: what annotation files say")
	c.Flags().StringVar(&tables, "tables", "", "a `folder` for the tables, as CSV, and the suites of expectations")
	c.Flags().BoolVar(&headers, "headers-only", false, "do not decode images")
	c.Flags().BoolVar(&r.noMemory, "reread", false, "read all files, also those that did not change since the last "+
		"check")
	c.Flags().StringSliceVar(&classes, "classes", nil, "the model's `classes`, separated by commas")
	return c
}

// dataReport writes the findings, and what would be trained on.
func (t *terminal) dataReport(r dataReport) {
	for _, f := range r.Findings {
		style := yellow
		if f.Level == delivery.LevelError {
			style = red
		}
		for i, line := range f.Lines() {
			if i == 0 {
				t.printf("%s %s: %s\n", t.styled(style, f.Level), f.Code, line)
			} else {
				t.printf("    %s\n", line)
			}
		}
	}
	var splits []string
	for _, name := range []string{"train", "valid", "test"} {
		if n, ok := r.Images[name]; ok {
			splits = append(splits, fmt.Sprintf("%s %s", name, delivery.Count(n, "image")))
		}
	}
	if len(splits) > 0 {
		t.printf("%s: %s\n", r.Dataset, strings.Join(splits, ", "))
	}
	if len(r.Findings) == 0 {
		t.printf("no findings\n")
	}
}

// showProgress returns a function that shows on a terminal how far the work is and how long it will take, and one that
// ends that. Elsewhere it writes a line every ten seconds.
func showProgress(w io.Writer) (dataset.Progress, func()) {
	t := newTerminal(w)
	every, before, after := 10*time.Second, "", "\n"
	if t.tty {
		every, before, after = 200*time.Millisecond, "\r\x1b[K", ""
	}
	var phase dataset.Phase
	var began, last time.Time
	drawn := false
	progress := func(now dataset.Phase, done, total int) {
		at := time.Now()
		if now != phase {
			phase, began, last = now, at, at
		}
		if at.Sub(last) < every && now != dataset.Asking { // a try is told at once: the next is a pause away
			return
		}
		last, drawn = at, t.tty
		t.printf("%s%s", safeText(before), now.Text(done, total))
		if total > 0 && now != dataset.Asking && now != dataset.Generating && now != dataset.Exporting {
			left := time.Duration(float64(at.Sub(began)) / float64(max(done, 1)) * float64(total-done))
			t.printf(", about %s left", span(left))
		}
		t.printf("%s", safeText(after))
		_ = t.flush() // the result does not depend on it
	}
	return progress, func() {
		if drawn {
			t.printf("%s", safeText(before))
			_ = t.flush()
		}
	}
}

func newDataStatsCommand() *cobra.Command {
	var o output
	var r dataRequest
	c := &cobra.Command{
		Use:   "stats DIR|NAME",
		Short: "Count images, boxes and classes of a dataset",
		Long: `Stats prints for each split the number and sizes of images, images without boxes and
copies, boxes in all and in each image, boxes by COCO's sizes (small below 32 x 32
pixels, medium below 96 x 96, large) and the boxes of each class. Boxes that do not
count, as crowds, are counted apart.`,
		Example: `  aob data stats ~/pallets
  aob data stats shapes/v3 --config aob.yaml -o json | jq .splits[].classes`,
		RunE: func(c *cobra.Command, args []string) error {
			catalog, d, err := r.find(args[0])
			if err != nil {
				return err
			}
			progress, done := showProgress(c.ErrOrStderr())
			s, err := catalog.Stats(c.Context(), d, progress)
			if done(); err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), s, func(t *terminal) { t.dataStats(s) })
		},
	}
	o.register(c)
	r.register(c)
	return c
}

func (t *terminal) dataStats(s dataset.Stats) {
	t.printf("%s: %s, %.1f MB\n", s.Layout, delivery.Count(s.Files, "file"), float64(s.Bytes)/1e6)
	rows := [][]cell{append(heading("SPLIT"), heading("IMAGES", "EMPTY", "COPIES", "WIDTH", "HEIGHT", "BOXES", "EACH",
		"SMALL",
		"MEDIUM", "LARGE", "CROWDS")...)}
	for _, p := range s.Splits {
		size := func(v [3]int) string {
			if v[0] == v[2] {
				return strconv.Itoa(v[0])
			}
			return fmt.Sprintf("%d to %d", v[0], v[2])
		}
		name := p.Name
		if name == "" {
			name = "not divided"
		}
		rows = append(rows, cells(name, strconv.Itoa(p.Images), strconv.Itoa(p.Empty), strconv.Itoa(p.Duplicates),
			size(p.Widths), size(p.Heights), strconv.Itoa(p.Boxes), size(p.PerImage),
			strconv.Itoa(p.Small), strconv.Itoa(p.Medium), strconv.Itoa(p.Large), strconv.Itoa(p.Crowds)))
	}
	t.table("  ", rows)
	rows = [][]cell{heading("CLASS")}
	var order []string
	boxes := map[string][]string{}
	for i, p := range s.Splits {
		rows[0] = append(rows[0], heading(strings.TrimSpace(strings.ToUpper(p.Name)+" BOXES"), "IMAGES")...)
		for _, c := range p.Classes {
			if boxes[c.Label] == nil {
				order = append(order, c.Label)
			}
			for len(boxes[c.Label]) < 2*i {
				boxes[c.Label] = append(boxes[c.Label], "")
			}
			boxes[c.Label] = append(boxes[c.Label], strconv.Itoa(c.Boxes), strconv.Itoa(c.Images))
		}
	}
	for _, label := range order {
		rows = append(rows, cells(append([]string{label}, boxes[label]...)...))
	}
	t.printf("\n")
	t.table("  ", rows)
}

// A splitResult is what aob data split prints.
type splitResult struct {
	File   string         `json:"file"`
	Images map[string]int `json:"images"` // by split
}

func newDataSplitCommand() *cobra.Command {
	var o output
	var shares []int
	c := &cobra.Command{
		Use:   "split DIR",
		Short: "Divide a dataset into train, valid and test",
		Long: `Split writes splits.json into the folder of a dataset: the images of train, valid and
test. It moves no file. Exports of CVAT and Label Studio need it, since they have all
images in one set.

The division depends on nothing but the names of the files, so it is the same on every
machine. Images that Roboflow made from one picture come into one split. Where the
dataset has its own valid or test, their images stay there. Run it again after images
were added: the others stay where they are. The file may also be edited by hand, as to
keep all frames of one video in one split.`,
		Example: `  aob data split ~/pallets
  aob data split ~/pallets --shares 80,10,10
  aob data split ~/gold --shares 0,0,100      # all images judge models`,
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("shares") && len(shares) != 3 {
				return hinted{fmt.Errorf("--shares: want the shares of train, valid and test, got %d numbers",
					len(shares)),
					"as in --shares 70,15,15"}
			}
			if !c.Flags().Changed("shares") {
				catalog, d, err := dataset.Folder(args[0])
				if err != nil {
					return err
				}
				has, err := catalog.Describe(c.Context(), d)
				if err != nil {
					return err
				}
				all := dataset.Shares(has.Images())
				shares = all[:]
			}
			progress, done := showProgress(c.ErrOrStderr())
			s, err := dataset.WriteSplits(c.Context(), args[0], [3]int(shares), progress)
			done()
			if err != nil {
				return err
			}
			r := splitResult{File: filepath.Join(args[0], dataset.SplitsFile),
				Images: map[string]int{"train": len(s.Train),
					"valid": len(s.Valid), "test": len(s.Test)}}
			return o.print(c.OutOrStdout(), r, func(t *terminal) {
				t.printf("wrote %s: train %s, valid %d, test %d\n", r.File, delivery.Count(len(s.Train), "image"),
					len(s.Valid),
					len(s.Test))
			})
		},
	}
	o.register(c)
	c.Flags().IntSliceVar(&shares, "shares", nil, "the `shares` of train, valid and test; default: 70,15,15, and "+
		"more to test where that would be fewer images than a gate needs")
	return c
}
