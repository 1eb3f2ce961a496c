package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/picture"
)

// An evalRequest has the flags of aob eval.
type evalRequest struct {
	pictures, images        string // folders: the output of pictures, and the images
	truth, detections, base string // files
	mode                    string
	maxDets                 []int
	curves, thresholds      bool
	confusion, tide         bool
	group                   string
	compare                 coco.CompareParams
	support                 int
}

func newEvalCommand() *cobra.Command {
	var o output
	var r evalRequest
	var trained measureRequest
	c := &cobra.Command{
		Use:   "eval --truth FILE --detections FILE",
		Short: "Score detections as COCO does, alone or against another model's",
		Long: `Eval reads a COCO annotation file and COCO results, and prints the twelve COCO
numbers and those of every class. It needs no server.

With --mode strict the numbers are pycocotools' to the last bit, which counts a
detection of the truth with annotation id 0 as false. The default, fixed, counts
such truths like any other. The protocol and its digest say how the numbers were
made; numbers of different protocols must not be compared.

-o json has stats, per_class, protocol and protocol_digest at full precision,
and curves, thresholds, confusions, tide and against where they are asked for.
Nothing to measure is -1.

--against compares with the detections of another model on the same truths: a
paired bootstrap over images, or over groups of images that share the image
field that --group names, as the frames of one video do. A class is called
better or worse where Holm's adjustment over all classes allows it. The bounds
cover the choice of test images, not the noise of training.

With --trained it runs a model that aob train trained on the eval sets of the gates
that cover it, and -o json writes the scores that aob gate judge reads.

-o github adds the numbers to the summary of a job of GitHub Actions.`,
		Example: `  aob eval --truth gt.json --detections dt.json
  aob eval --truth gt.json --detections dt.json --mode strict -o json | jq .stats.AP
  aob eval --truth gt.json --detections dt.json --tide --confusion --thresholds
  aob eval --truth gt.json --detections new.json --against old.json --group video
  aob eval --truth gt.json --detections new.json --against old.json --pictures worse
  aob eval --trained trained.json --baseline before.json -o json >scores.json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if trained.file != "" {
				if o.format != "text" && !o.json() {
					return hinted{fmt.Errorf("--output: with --trained want text or json, got %q", o.format),
						"aob eval --help shows how"}
				}
				return trained.measure(c, o)
			}
			if err := r.check(c); err != nil {
				return err
			}
			// Most of the allocated memory stays in use, so frequent garbage collection would save little and take a
			// tenth of the time.
			debug.SetGCPercent(400)
			var v *evaluation
			err := interruptible(c.Context(), func() (err error) {
				v, err = evaluate(r, c.InOrStdin())
				return err
			})
			if err != nil {
				return err
			}
			switch o.format {
			case "markdown":
				_, err := io.WriteString(c.OutOrStdout(), v.markdown())
				return err
			case formatGitHub:
				return printJob(c.OutOrStdout(), nil, "### aob eval\n\n"+v.markdown())
			}
			return o.print(c.OutOrStdout(), v, func(t *terminal) { t.evaluation(v) })
		},
	}
	o.register(c, "markdown", formatGitHub)
	trained.register(c)
	f := c.Flags()
	f.StringVar(&r.truth, "truth", "", "the COCO annotation `file`; - is the standard input")
	f.StringVar(&r.detections, "detections", "", "the COCO results `file`; - is the standard input")
	f.StringVar(&r.mode, "mode", "fixed", "strict, as pycocotools, or fixed, where annotation id 0 counts")
	f.IntSliceVar(&r.maxDets, "max-dets", []int{1, 10, 100}, "the three limits on detections an image and class")
	f.BoolVar(&r.curves, "curves", false, "add precision-recall curves")
	f.BoolVar(&r.thresholds, "thresholds", false, "add each class's score of best F1 at IoU .50")
	f.BoolVar(&r.confusion, "confusion", false, "add the classes that are taken for each other")
	f.BoolVar(&r.tide, "tide", false, "add TIDE's six types of error, and what AP50 each costs")
	f.StringVar(&r.base, "against", "", "compare with the results in this `file`")
	f.StringVar(&r.group, "group", "", "resample images together that share this `field`")
	f.IntVar(&r.compare.Resamples, "resamples", 0,
		"how often to resample; 0 is 1000, or more where many classes need it")
	f.Uint64Var(&r.compare.Seed, "seed", 1, "of the resampling")
	r.compare.Confidence = 0.95
	f.Var((*share)(&r.compare.Confidence), "confidence", "of each one-sided bound, as 95% or 0.95")
	f.IntVar(&r.support, "support", 50, "the truths that a class needs to be judged")
	f.StringVar(&r.pictures, "pictures", "", "draw the worst images into this `folder`: what --against finds and "+
		"this model does not, or else what it gets wrong")
	f.StringVar(&r.images, "images", "", "the `folder` of the images; that of the truth's file by default")
	c.MarkFlagFilename("truth", "json")
	c.MarkFlagFilename("detections", "json")
	c.MarkFlagFilename("against", "json")
	c.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"strict", "fixed"},
		cobra.ShellCompDirectiveNoFileComp))
	return c
}

// A share is a flag with a number from 0 to 1, written as 95% or 0.95.
type share float64

func (s *share) Set(text string) error {
	number, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return errors.New("want a share as in 95% or 0.95")
	}
	if percent {
		v /= 100
	}
	*s = share(v)
	return nil
}

func (s *share) String() string { return fmt.Sprintf("%g%%", float64(*s)*100) }

// Type returns the flag's type in the usage text.
func (s *share) Type() string { return "share" }

// interruptible does work that takes no context, and returns early if the context ends.
func interruptible(ctx context.Context, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check returns an error for flags that are invalid or do not go together.
func (r *evalRequest) check(c *cobra.Command) error {
	if r.truth == "" || r.detections == "" {
		return hinted{errors.New("want --truth and --detections"), "usage: " + c.UseLine()}
	}
	var text string
	switch {
	case len(r.maxDets) != 3:
		text = fmt.Sprintf("--max-dets: want three numbers, got %d", len(r.maxDets))
	case !(r.compare.Confidence > 0 && r.compare.Confidence < 1):
		text = fmt.Sprintf("--confidence: want more than 0%% and less than 100%%, got %s",
			(*share)(&r.compare.Confidence))
	case r.compare.Seed == 0:
		text = "--seed: want a number from 1 up, got 0"
	case r.support < 1:
		text = fmt.Sprintf("--support: want a number from 1 up, got %d", r.support)
	case r.images != "" && r.pictures == "":
		text = "--images needs --pictures"
	case r.pictures != "" && r.truth == "-" && r.images == "":
		text = "--pictures: where are the images? name their folder with --images"
	}
	for _, name := range []string{"group", "resamples", "seed", "confidence", "support"} {
		if text == "" && r.base == "" && c.Flags().Changed(name) {
			text = "--" + name + " needs --against"
		}
	}
	if text == "" {
		return nil
	}
	return hinted{errors.New(text), c.CommandPath() + " --help shows how"}
}

// An evaluation is what aob eval prints.
type evaluation struct {
	*coco.Result
	Curves     []coco.ClassCurves    `json:"curves,omitzero"`
	Thresholds []coco.OperatingPoint `json:"thresholds,omitzero"`
	Confusions []coco.Confusion      `json:"confusions,omitzero"`
	TIDE       *errorCosts           `json:"tide,omitempty"`
	Against    *against              `json:"against,omitempty"`
	Pictures   *worstImages          `json:"pictures,omitempty"`
	Notes      []string              `json:"notes,omitempty"` // about the ground truth
}

// worstImages lists the pictures of the worst images.
type worstImages struct {
	Dir     string          `json:"dir"`
	Worse   int             `json:"worse"` // number of images that got worse
	Files   []picture.Entry `json:"files"`
	Trouble string          `json:"trouble,omitempty"` // why images could not be drawn
}

// errorCosts are the error types of a diagnosis, whose confusions are shown on their own.
type errorCosts struct {
	Foreground float64            `json:"foreground"` // as coco.Foreground
	Background float64            `json:"background"` // as coco.Background
	AP50       float64            `json:"AP50"`
	Errors     []coco.ErrorCost   `json:"errors"`
	PerClass   []coco.ClassErrors `json:"per_class"`
}

// against is a comparison with another model.
type against struct {
	File string `json:"file"`
	*coco.Findings
	Sampling coco.Sampling `json:"sampling"`
	Support  int           `json:"support"`
	MaxDets  int           `json:"max_dets"` // of the differences: the last limit, even if stats.AP of strict is at 100
}

func evaluate(r evalRequest, stdin io.Reader) (*evaluation, error) {
	params := coco.Params{MaxDets: [3]int(r.maxDets)}
	if err := params.Mode.UnmarshalText([]byte(r.mode)); err != nil {
		return nil, fmt.Errorf("--mode: want strict or fixed, got %q", r.mode)
	}
	if _, err := params.Protocol(); err != nil {
		return nil, fmt.Errorf("--max-dets: %s", strings.TrimPrefix(err.Error(), "coco: limits on detections: "))
	}
	loader := coco.Loader{Group: r.group}
	truth, err := readFile(r.truth, stdin, loader.ReadTruth)
	if err != nil {
		return nil, err
	}
	read := func(name string) ([]coco.Detection, error) {
		return readFile(name, stdin, func(r io.Reader) ([]coco.Detection, error) {
			return loader.ReadDetections(r, truth)
		})
	}
	var base []coco.Detection
	var reading errgroup.Group
	if r.base != "" {
		reading.Go(func() (err error) {
			base, err = read(r.base)
			return err
		})
	}
	detections, err := read(r.detections)
	if err := cmp.Or(err, reading.Wait()); err != nil {
		return nil, err
	}
	m, err := coco.Match(truth, detections, params)
	if err != nil {
		return nil, err
	}
	v := &evaluation{Result: m.Result(), Notes: truth.Notes()}
	if r.curves {
		v.Curves = m.Curves()
	}
	if r.thresholds {
		if v.Thresholds, err = m.BestF1(0.5); err != nil {
			return nil, err
		}
	}
	if r.confusion || r.tide {
		d, err := coco.Diagnose(truth, detections, params)
		if err != nil {
			return nil, err
		}
		if r.confusion {
			v.Confusions = d.Confusions
		}
		if r.tide {
			v.TIDE = &errorCosts{coco.Foreground, coco.Background, d.AP50, d.Errors, d.PerClass}
		}
	}
	if r.base != "" {
		n, err := coco.Match(truth, base, params)
		if err != nil {
			return nil, err
		}
		if v.Against, err = r.judge(m, n, v.PerClass); err != nil {
			return nil, err
		}
	}
	if r.pictures != "" {
		if v.Pictures, err = r.draw(truth, detections, base, params); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// draw draws the images on which the model is worse than the base, or has errors if there is no base.
func (r *evalRequest) draw(truth *coco.Truth, detections, base []coco.Detection, params coco.Params) (*worstImages,
	error) {
	worse, err := coco.Regressions(truth, detections, base, nil, nil, params)
	if err != nil {
		return nil, err
	}
	folder, baseline := cmp.Or(r.images, filepath.Dir(r.truth)), filepath.Base(r.base)
	out := &worstImages{Dir: r.pictures, Worse: len(worse), Files: []picture.Entry{}}
	var list []picture.Picture
	for _, w := range worse[:min(len(worse), picture.MaxPictures)] {
		file := filepath.FromSlash(w.FileName)
		switch {
		case file == "":
			list = append(list, picture.Picture{Name: fmt.Sprintf("image %d", w.Image)})
			continue
		case !filepath.IsLocal(file):
			return nil, fmt.Errorf("%s: image %d: file_name %q leaves the folder of images", r.truth, w.Image,
				delivery.Terminal(w.FileName))
		}
		w.Why = strings.ReplaceAll(w.Why, "the baseline", baseline)
		list = append(list, picture.Picture{Path: filepath.Join(folder, file), Name: w.FileName, Baseline: baseline,
			Regression: w})
	}
	if err := emptied(r.pictures); err != nil {
		return nil, err
	}
	entries, err := picture.Write(r.pictures, list)
	if entries == nil {
		return nil, fmt.Errorf("--pictures: %w", err)
	}
	if err != nil {
		out.Trouble = err.Error()
	}
	if len(list) > 0 && len(entries) == 0 {
		return nil, hinted{fmt.Errorf("--pictures: none of %s could be drawn: %w", delivery.Count(len(list), "image"),
			err), "--images names the folder that they are in; now it is " + folder}
	}
	out.Files = entries
	return out, nil
}

// emptied removes a folder of pictures. It returns an error if the folder has other files.
func emptied(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != picture.IndexFile && !picture.FileName.MatchString(e.Name()) {
			return hinted{fmt.Errorf("--pictures: %s has %s, which aob eval did not write", dir,
				delivery.Terminal(e.Name())), "name a new or an empty folder"}
		}
	}
	return os.RemoveAll(dir)
}

// judge compares two models.
func (r *evalRequest) judge(m, base *coco.Matched, classes []coco.ClassResult) (*against, error) {
	p := r.compare
	p.ByGroup = r.group != ""
	if p.Resamples == 0 {
		enough := 0
		for _, c := range classes {
			if c.Truths >= r.support {
				enough++
			}
		}
		p.Resamples = coco.ResamplesFor(enough, p.Confidence)
	}
	c, err := coco.Compare(m, base, p)
	if errors.Is(err, coco.ErrNoTruth) {
		return nil, hinted{fmt.Errorf("%s: no annotation counts, so there is nothing to compare", r.truth),
			"leave --against out to see each class"}
	}
	if err != nil {
		return nil, err
	}
	return &against{File: r.base, Findings: c.Judge(r.support), Sampling: c.Sampling, Support: r.support,
		MaxDets: r.maxDets[2]}, nil
}

// readFile reads a file, or the standard input if name is -. Its errors begin with the name.
func readFile[T any](name string, stdin io.Reader, read func(io.Reader) (T, error)) (v T, err error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return v, err
		}
		defer f.Close()
		in = f
	}
	if v, err = read(in); err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return v, err
}
