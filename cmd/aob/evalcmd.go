package main

import (
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
	"sync"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/picture"
)

// evalAsk is what aob eval was asked.
type evalAsk struct {
	pictures, images        string // folders: to draw into, and of the images
	truth, detections, base string
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
	var ask evalAsk
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
cover the choice of test images, not the noise of training.`,
		Example: `  aob eval --truth gt.json --detections dt.json
  aob eval --truth gt.json --detections dt.json --mode strict -o json | jq .stats.AP
  aob eval --truth gt.json --detections dt.json --tide --confusion --thresholds
  aob eval --truth gt.json --detections new.json --against old.json --group video
  aob eval --truth gt.json --detections new.json --against old.json --pictures worse`,
		Args: arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if err := ask.check(c); err != nil {
				return err
			}
			// What is taken is little more than what is kept, so that collecting
			// garbage often saves hardly any memory, and costs a tenth of the time.
			debug.SetGCPercent(400)
			v, err := interruptible(c.Context(), func() (*evaluation, error) { return evaluate(ask, c.InOrStdin()) })
			if err != nil {
				return err
			}
			if o.format == "markdown" {
				_, err := io.WriteString(c.OutOrStdout(), v.markdown())
				return err
			}
			return o.print(c.OutOrStdout(), v, func(t *terminal) { t.evaluation(v) })
		},
	}
	o.register(c, "markdown")
	f := c.Flags()
	f.StringVar(&ask.truth, "truth", "", "the COCO annotation `file`; - is the standard input")
	f.StringVar(&ask.detections, "detections", "", "the COCO results `file`; - is the standard input")
	f.StringVar(&ask.mode, "mode", "fixed", "strict, as pycocotools, or fixed, where annotation id 0 counts")
	f.IntSliceVar(&ask.maxDets, "max-dets", []int{1, 10, 100}, "the three limits on detections an image and class")
	f.BoolVar(&ask.curves, "curves", false, "add precision-recall curves")
	f.BoolVar(&ask.thresholds, "thresholds", false, "add each class's score of best F1 at IoU .50")
	f.BoolVar(&ask.confusion, "confusion", false, "add the classes that are taken for each other")
	f.BoolVar(&ask.tide, "tide", false, "add TIDE's six types of error, and what AP50 each costs")
	f.StringVar(&ask.base, "against", "", "compare with the results in this `file`")
	f.StringVar(&ask.group, "group", "", "resample images together that share this `field`")
	f.IntVar(&ask.compare.Resamples, "resamples", 0,
		"how often to resample; 0 is 1000, or more where many classes need it")
	f.Uint64Var(&ask.compare.Seed, "seed", 1, "of the resampling")
	ask.compare.Confidence = 0.95
	f.Var((*share)(&ask.compare.Confidence), "confidence", "of each one-sided bound, as 95% or 0.95")
	f.IntVar(&ask.support, "support", 50, "the truths that a class needs to be judged")
	f.StringVar(&ask.pictures, "pictures", "", "draw the worst images into this `folder`: what --against finds and "+
		"this model does not, or else what it gets wrong")
	f.StringVar(&ask.images, "images", "", "the `folder` of the images; that of the truth's file by default")
	c.MarkFlagFilename("truth", "json")
	c.MarkFlagFilename("detections", "json")
	c.MarkFlagFilename("against", "json")
	c.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"strict", "fixed"},
		cobra.ShellCompDirectiveNoFileComp))
	return c
}

// A share is a flag's part of one, as 95% or 0.95.
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

// Type is what usage calls it.
func (s *share) Type() string { return "share" }

// interruptible waits for work that looks at no context, until the context ends.
func interruptible[T any](ctx context.Context, work func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := work()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// check refuses what makes no sense before anything is read.
func (a *evalAsk) check(c *cobra.Command) error {
	hint := c.CommandPath() + " --help shows how"
	if a.truth == "" || a.detections == "" {
		return hinted{fmt.Errorf("want --truth and --detections"), "usage: " + c.UseLine()}
	}
	if len(a.maxDets) != 3 {
		return hinted{fmt.Errorf("--max-dets: want three numbers, got %d", len(a.maxDets)), hint}
	}
	if !(a.compare.Confidence > 0 && a.compare.Confidence < 1) {
		return hinted{fmt.Errorf("--confidence: want more than 0%% and less than 100%%, got %s",
			(*share)(&a.compare.Confidence)), hint}
	}
	if a.compare.Seed == 0 {
		return hinted{fmt.Errorf("--seed: want a number from 1 up, got 0"), hint}
	}
	if a.support < 1 {
		return hinted{fmt.Errorf("--support: want a number from 1 up, got %d", a.support), hint}
	}
	if a.base == "" {
		for _, name := range []string{"group", "resamples", "seed", "confidence", "support"} {
			if c.Flags().Changed(name) {
				return hinted{fmt.Errorf("--%s goes with --against", name), hint}
			}
		}
	}
	if a.images != "" && a.pictures == "" {
		return hinted{errors.New("--images goes with --pictures"), hint}
	}
	if a.pictures != "" && a.truth == "-" && a.images == "" {
		return hinted{errors.New("--pictures: where are the images? name their folder with --images"), hint}
	}
	return nil
}

// evaluation is what aob eval prints.
type evaluation struct {
	*coco.Result
	Curves     []coco.ClassCurves    `json:"curves,omitzero"`
	Thresholds []coco.OperatingPoint `json:"thresholds,omitzero"`
	Confusions []coco.Confusion      `json:"confusions,omitzero"`
	TIDE       *errorCosts           `json:"tide,omitempty"`
	Against    *against              `json:"against,omitempty"`
	Pictures   *worstImages          `json:"pictures,omitempty"`
}

// worstImages is what was drawn of the worst images.
type worstImages struct {
	Dir     string          `json:"dir"`
	Worse   int             `json:"worse"` // images in all
	Files   []picture.Entry `json:"files"`
	Trouble string          `json:"trouble,omitempty"` // of images that could not be drawn
}

// errorCosts are the error types of a diagnosis.
type errorCosts struct {
	Foreground float64            `json:"foreground"` // IoU from which a detection is on a truth
	Background float64            `json:"background"` // IoU up to which it is on nothing
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
	// that the differences are at: the last limit, also where strict has stats.AP at 100
	MaxDets int `json:"max_dets"`
}

func evaluate(ask evalAsk, stdin io.Reader) (*evaluation, error) {
	params := coco.Params{MaxDets: [3]int(ask.maxDets)}
	if err := params.Mode.UnmarshalText([]byte(ask.mode)); err != nil {
		return nil, fmt.Errorf("--mode: want strict or fixed, got %q", ask.mode)
	}
	if _, err := params.Protocol(); err != nil {
		return nil, fmt.Errorf("--max-dets: %s", strings.TrimPrefix(err.Error(), "coco: limits on detections: "))
	}
	loader := coco.Loader{Group: ask.group}
	truth, err := readFile(ask.truth, stdin, loader.ReadTruth)
	if err != nil {
		return nil, err
	}
	read := func(name string) ([]coco.Detection, error) {
		return readFile(name, stdin, func(r io.Reader) ([]coco.Detection, error) {
			return loader.ReadDetections(r, truth)
		})
	}
	var base []coco.Detection
	var baseErr error
	var reading sync.WaitGroup
	if ask.base != "" {
		reading.Go(func() { base, baseErr = read(ask.base) })
	}
	detections, err := read(ask.detections)
	reading.Wait()
	if err == nil {
		err = baseErr
	}
	if err != nil {
		return nil, err
	}
	m, err := coco.Match(truth, detections, params)
	if err != nil {
		return nil, err
	}
	v := &evaluation{Result: m.Result()}
	if ask.curves {
		v.Curves = m.Curves()
	}
	if ask.thresholds {
		if v.Thresholds, err = m.BestF1(0.5); err != nil {
			return nil, err
		}
	}
	if ask.confusion || ask.tide {
		d, err := coco.Diagnose(truth, detections, params)
		if err != nil {
			return nil, err
		}
		if ask.confusion {
			v.Confusions = d.Confusions
		}
		if ask.tide {
			v.TIDE = &errorCosts{Foreground: coco.Foreground, Background: coco.Background, AP50: d.AP50,
				Errors: d.Errors, PerClass: d.PerClass}
		}
	}
	if ask.base != "" {
		n, err := coco.Match(truth, base, params)
		if err != nil {
			return nil, err
		}
		if v.Against, err = ask.judge(m, n, v.PerClass); err != nil {
			return nil, err
		}
	}
	if ask.pictures != "" {
		if v.Pictures, err = ask.draw(truth, detections, base, params); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// draw draws the images on which a model is worse, or simply wrong.
func (a *evalAsk) draw(truth *coco.Truth, detections, base []coco.Detection, params coco.Params) (*worstImages, error) {
	if a.base == "" {
		base = nil
	}
	worse, err := coco.Regressions(truth, detections, base, nil, nil, params)
	if err != nil {
		return nil, err
	}
	names := map[int64]string{}
	for _, im := range truth.Images {
		names[im.ID] = im.FileName
	}
	folder := a.images
	if folder == "" {
		folder = filepath.Dir(a.truth)
	}
	out := &worstImages{Dir: a.pictures, Worse: len(worse), Files: []picture.Entry{}}
	var list []picture.Picture
	for _, r := range worse[:min(len(worse), picture.MaxPictures)] {
		name := names[r.Image]
		if name == "" {
			list = append(list, picture.Picture{Name: fmt.Sprintf("image %d", r.Image)})
			continue
		}
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return nil, fmt.Errorf("%s: image %d: file_name %q leaves the folder of images", a.truth, r.Image,
				delivery.Terminal(name))
		}
		r.Why = strings.ReplaceAll(r.Why, "the baseline", filepath.Base(a.base))
		list = append(list, picture.Picture{Path: filepath.Join(folder, filepath.FromSlash(name)), Name: name,
			Baseline: filepath.Base(a.base), Regression: r})
	}
	if err := emptied(a.pictures); err != nil {
		return nil, err
	}
	entries, err := picture.Write(a.pictures, list)
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

// emptied makes room for pictures: for a folder that is not there, is empty, or has
// nothing but pictures of an earlier time.
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
			return hinted{fmt.Errorf("--pictures: %s holds %s, which is no picture of aob's", dir,
				delivery.Terminal(e.Name())), "name a folder of its own"}
		}
	}
	return os.RemoveAll(dir)
}

// judge compares two models.
func (a *evalAsk) judge(m, base *coco.Matched, classes []coco.ClassResult) (*against, error) {
	p := a.compare
	p.ByGroup = a.group != ""
	if p.Resamples == 0 {
		enough := 0
		for _, c := range classes {
			if c.Truths >= a.support {
				enough++
			}
		}
		p.Resamples = coco.ResamplesFor(enough, p.Confidence)
	}
	c, err := coco.Compare(m, base, p)
	if errors.Is(err, coco.ErrNoTruth) {
		return nil, hinted{fmt.Errorf("%s: no truth that counts: nothing to compare by", a.truth),
			"leave --against out to see each class"}
	}
	if err != nil {
		return nil, err
	}
	return &against{File: a.base, Findings: c.Judge(a.support), Sampling: c.Sampling, Support: a.support,
		MaxDets: a.maxDets[2]}, nil
}

// readFile opens a file, or takes - for the standard input, and reads it. What is
// wrong in it is said with its name and the place.
func readFile[T any](name string, stdin io.Reader, read func(io.Reader) (T, error)) (T, error) {
	var none T
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return none, err
		}
		defer f.Close()
		in = f
	}
	v, err := read(in)
	if err != nil {
		return none, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}
