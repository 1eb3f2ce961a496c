package explain

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/words"
)

// This file makes single links.

func (c *chain) content(model string, digest delivery.Digest, s delivery.Spec) {
	t := s.Train
	seeds := make([]string, len(t.Seeds))
	for i, seed := range t.Seeds {
		seeds[i] = fmt.Sprint(seed)
	}
	c.add(Link{What: "content", ID: string(digest),
		Text: fmt.Sprintf("models/%s.yaml: dataset %s; classes %s; %s, resolution %d, epochs %d, lr %g, seed %s",
			model, s.Dataset, strings.Join(s.Classes.Names(), ", "), t.With, t.Resolution, t.Epochs, t.Optimizer.LR,
			strings.Join(seeds, ", "))})
}

func (c *chain) data(dataset string, d delivery.DataResult) {
	l := Link{What: "data", ID: string(d.Content), Text: dataset}
	var splits []string
	for _, split := range []string{"train", "valid", "test"} {
		if n, ok := d.Images[split]; ok {
			splits = append(splits, fmt.Sprintf("%s %d images", split, n))
		}
	}
	if len(splits) > 0 {
		l.Text += ": " + strings.Join(splits, ", ")
	}
	if d.LeftOut > 0 {
		l.Text += fmt.Sprintf("; %d left out of training, they stand in an eval set", d.LeftOut)
	}
	for _, f := range d.Findings {
		for _, line := range f.Lines() {
			l.Lines = append(l.Lines, fmt.Sprintf("%s %s: %s", f.Level, f.Code, line))
		}
	}
	if d.Training != "" {
		l.Inputs = append(l.Inputs, d.Training)
	}
	for _, e := range d.EvalSets {
		l.Inputs = append(l.Inputs, e.Digest())
	}
	c.add(l)
}

// run tells how a bundle was trained.
func (c *chain) run(t delivery.Training) {
	l := Link{What: "run", ID: string(t.Run), Text: fmt.Sprintf("trained with %s, seed %d, by %s",
		t.Input.Spec.Train.With, t.Input.Seed, t.Input.Machine)}
	if t.Result.Attempts > 1 {
		l.Text += fmt.Sprintf(", %d attempts", t.Result.Attempts)
	}
	if r, ok := c.Runs[t.Run]; ok {
		l.At = r.Started
		if took := r.Ended.Sub(r.Started); !r.Started.IsZero() && took > 0 {
			l.Text += ", in " + took.Round(time.Second).String()
		}
		if r.Spec.Note != "" {
			l.Text += "; first asked for by " + r.Spec.Note
		}
	}
	for _, s := range t.Seeds {
		line := fmt.Sprintf("seed %d: mAP %.4f on validation, bundle %s", s.Seed, s.MAP, s.Bundle.Short())
		if s.Bundle == t.Result.Bundle {
			line += ", the best, which is the model"
		}
		l.Lines = append(l.Lines, line)
	}
	l.Inputs = inputs(t.Spec, t.Input.Training, t.Input.Trainer, t.Input.Parent, t.Data.TrainingImages)
	for _, s := range t.Seeds {
		l.Inputs = append(l.Inputs, s.Score)
	}
	c.add(l)
}

// training tells how far the training of a spec is that has no bundle yet.
func (c *chain) training(spec delivery.Spec) {
	for _, key := range slices.Sorted(maps.Keys(c.Runs)) {
		r := c.Runs[key]
		if r.Spec.Train == nil || !SameTraining(r.Spec.Train.Spec, spec) {
			continue
		}
		l := Link{What: "run", ID: string(key), Text: "training: " + r.Phase.String(), At: r.Started}
		if s := r.Status; r.Phase == delivery.RunRunning && s.Epochs > 0 {
			l.Text += fmt.Sprintf(", epoch %d of %d", s.Epoch, s.Epochs)
		}
		if r.Tries() > 1 {
			l.Text += fmt.Sprintf(", attempt %d", r.Tries())
		}
		if r.Error != "" {
			l.Lines = append(l.Lines, r.Error)
		}
		l.Inputs = inputs(r.Spec.Train.Spec.Digest(), r.Spec.Train.Training, r.Spec.Train.Trainer, r.Spec.Train.Parent)
		c.add(l)
	}
}

// SameTraining reports whether two specs ask for the same training, dataset by
// name: what is resolved after training is left out.
func SameTraining(a, b delivery.Spec) bool {
	a.Thresholds, a.Variants = nil, nil
	b.Thresholds, b.Variants = nil, nil
	return a.Digest() == b.Digest()
}

// thresholds tells where a bundle's score thresholds come from.
func (c *chain) thresholds(r delivery.Resolved) {
	l := Link{What: "thresholds", ID: string(r.Key),
		Text: fmt.Sprintf("found on %s, which trains nothing, and added to bundle %s", r.Input.Valid.EvalSet,
			r.Input.Valid.Bundle.Short()),
		Inputs: inputs(r.Input.Valid.Bundle, delivery.ScoreKey(r.Input.Valid))}
	for _, class := range slices.Sorted(maps.Keys(r.Result.Points)) {
		p := r.Result.Points[class]
		asked := ""
		if t, ok := r.Input.Ask.For(class); ok {
			asked = ", asked for " + t.String()
		}
		line := fmt.Sprintf("%s: from score %.4g%s; precision %.4f, recall %.4f", class, p.Score, asked, p.Precision,
			p.Recall)
		if p.Note != "" {
			line += "; " + p.Note
		}
		l.Lines = append(l.Lines, line)
	}
	c.add(l)
}

func (c *chain) bundle(d delivery.Digest) {
	if r, ok := c.Resolved[d]; ok {
		c.thresholds(r)
	}
	l := Link{What: "bundle", ID: string(d), Text: "the packaged model"}
	if r, ok := c.Resolved[d]; ok {
		l.Inputs = inputs(r.Key, r.Input.Valid.Model)
	}
	if t, ok := c.Trainings[d]; ok {
		l.Inputs = inputs(t.Run, t.Result.Model)
	}
	if size, ok := c.Sizes[d]; ok {
		l.Text += fmt.Sprintf(", %.1f MB", float64(size)/1e6)
	} else {
		l.Text += "; the registry no longer holds it"
	}
	c.add(l)
}

// judged tells what was measured and what the gates said of it.
func (c *chain) judged(verdicts []delivery.Verdict, measured []delivery.Measured) {
	for _, v := range verdicts {
		i := slices.IndexFunc(measured, func(m delivery.Measured) bool { return m.Gate == v.Gate })
		switch {
		case i >= 0:
			c.measured(v, measured[i])
		case len(v.Inputs) > 0:
			c.scores(v)
		}
		l := Link{What: "verdict", ID: string(v.Key), Text: fmt.Sprintf("gate %s: %s", v.Gate, v.Outcome),
			Inputs: append(inputs(v.GateSpec), v.Inputs...)}
		if why := words.VerdictReason(v); why != "" {
			l.Text += ": " + why
		}
		l.Lines = append(l.Lines, words.About(v)...)
		for _, loss := range v.Lost {
			l.Lines = append(l.Lines, "worse than that release: "+words.Loss(loss))
		}
		for _, check := range v.Checks {
			l.Lines = append(l.Lines, fmt.Sprintf("%s: %s: %s", check.Outcome, words.CheckName(check),
				words.CheckText(check)))
		}
		c.add(l)
	}
}

// measured tells what a release file says that an eval set showed.
func (c *chain) measured(v delivery.Verdict, m delivery.Measured) {
	l := Link{What: "scores", Text: fmt.Sprintf("on %d images", m.Images), Inputs: inputs(m.EvalSet)}
	if len(v.Inputs) > 0 {
		l.ID = string(v.Inputs[0]) // a verdict's first input is the candidate's score key
	}
	if s, ok := c.Scores[delivery.Digest(l.ID)]; ok {
		l.Text = fmt.Sprintf("on %s, %d images", s.Input.EvalSet, m.Images)
		l.Inputs = inputs(s.Input.Bundle, m.EvalSet, s.Scores.Detections, s.Input.Protocol)
	}
	for _, name := range slices.SortedFunc(maps.Keys(m.Metrics), delivery.CompareFigures) {
		fig := m.Metrics[name]
		line := fmt.Sprintf("%s %.4f", name, fig.Value)
		if fig.Low != nil && fig.High != nil {
			line += fmt.Sprintf(" (at least %.4f, at most %.4f, each 95%% sure)", *fig.Low, *fig.High)
		}
		if b := m.Baseline; b != nil {
			if base, ok := b.Metrics[name]; ok {
				line += fmt.Sprintf("; version %d: %.4f", b.Version, base)
			}
		}
		l.Lines = append(l.Lines, line)
	}
	c.add(l)
}

// scores tells what was measured where no release file says it yet.
func (c *chain) scores(v delivery.Verdict) {
	s, ok := c.Scores[v.Inputs[0]]
	if !ok {
		return
	}
	l := Link{What: "scores", ID: string(s.Key), Text: fmt.Sprintf("on %s, %d images", s.Input.EvalSet,
		s.Scores.Images),
		Inputs: inputs(s.Input.Bundle, s.Content.Digest(), s.Scores.Detections, s.Input.Protocol)}
	for _, name := range delivery.MetricNames(func(m delivery.Metric) bool { return m.Headline }) {
		if value, ok := s.Scores.Values[name]; ok {
			l.Lines = append(l.Lines, fmt.Sprintf("%s %.4f", name, value))
		}
	}
	c.add(l)
}

func (c *chain) release(s delivery.ReleaseStatement) {
	l := Link{What: "release", ID: at(s.Model, s.Version), Inputs: inputs(s.Spec, s.Bundle, s.Baseline)}
	how := "every gate passed"
	for _, g := range s.Gates {
		l.Inputs = append(l.Inputs, g.Spec)
		if a := g.Accept; a != nil {
			how = "every gate passed or was accepted"
			l.Lines = append(l.Lines, fmt.Sprintf("gate %s was unsure, and %s accepted it (%s): %s", g.Name, a.By,
				a.At.UTC().Format("2006-01-02 15:04 MST"), a.Because))
		}
	}
	if l.Text = "signed: " + how + "; the first release"; s.Baseline != "" {
		l.Text = "signed: " + how + ", against bundle " + s.Baseline.Short()
	}
	if s.RenamedFrom != "" {
		l.Text += "; until then it was " + s.RenamedFrom
	}
	if s.TargetCommit != "" {
		l.Text += fmt.Sprintf("; gates as of %s %s", c.Branch, ShortID(s.TargetCommit))
	}
	c.add(l)
}

// accepted tells whether and where main took a release.
func (c *chain) accepted(model string, r delivery.Release) {
	a, ok := c.acceptance(model, r)
	if !ok {
		c.add(Link{What: "acceptance", Text: fmt.Sprintf("%s has not accepted it", c.Branch)})
		return
	}
	l := Link{What: "acceptance", ID: a.Commit, Text: fmt.Sprintf("%s accepted version %d", c.Branch, a.Version),
		Inputs: inputs(a.Spec, a.Bundle)}
	for _, v := range c.Versions[model] {
		if v.Commit == a.Commit {
			l.Text += ": " + c.authored(v)
			l.At = v.At
			break
		}
	}
	c.add(l)
	c.withdrawn(model, r.Bundle)
}

// withdrawn tells what speaks against a bundle since.
func (c *chain) withdrawn(model string, bundle delivery.Digest) {
	for _, abort := range c.Aborts {
		if abort.Model == model && abort.Bundle == bundle {
			c.add(Link{What: "abort", ID: abort.Fleet, Text: "fleet " + abort.Fleet + " fell back from it: " +
				abort.Why, Inputs: inputs(bundle), At: abort.At})
		}
	}
	// A bundle is held by its digest, in whichever model's file an entry stands, for as long as one of them is not
	// lifted.
	var lifted, holds []string
	for _, name := range slices.Sorted(maps.Keys(c.Quarantines)) {
		where := ""
		if name != model {
			where = " (in models/" + name + ".quarantine.yaml)"
		}
		for _, q := range c.Quarantines[name].Entries {
			switch {
			case q.Digest != bundle:
			case q.Lifted != "":
				lifted = append(lifted, "was quarantined ("+q.Why+"), and lifted: "+q.Lifted+where)
			case len(holds) == 0:
				holds = append(holds, "must not run: "+q.Why+where)
			default:
				holds = append(holds, "another entry says that it must not run: "+q.Why+where)
			}
		}
	}
	for i, text := range slices.Concat(lifted, holds) {
		if i < len(lifted) && len(holds) > 0 {
			text += "; another entry still holds it"
		}
		c.add(Link{What: "quarantine", ID: string(bundle), Text: text})
	}
}

// standing tells how a device stands, by its own last report.
func (f Facts) standing(d delivery.Device) Link {
	r := d.Report
	l := Link{What: "device", ID: r.Device, At: d.LastHeard, Inputs: inputs(r.Bundle)}
	switch {
	case r.Bundle == "":
		l.Text = "runs nothing yet"
	case r.Release > 0:
		l.Text = fmt.Sprintf("runs version %d", r.Release)
	default:
		l.Text = "runs bundle " + r.Bundle.Short()
	}
	l.Text += fmt.Sprintf(" in fleet %s, %s", r.Ring, r.Phase)
	if r.Slot != "" {
		l.Text += ", slot " + r.Slot
	}
	if f.Silent != nil && f.Silent(d) {
		l.Text += "; it has been silent since it said so"
	}
	if r.Failed != "" {
		l.Lines = append(l.Lines, strings.TrimSuffix(fmt.Sprintf("bundle %s failed here: %s", r.Failed.Short(), r.Why),
			": "))
		l.Inputs = append(l.Inputs, r.Failed)
	}
	return l
}

// inputs are the digests that name something.
func inputs(list ...delivery.Digest) []delivery.Digest {
	return slices.DeleteFunc(list, func(d delivery.Digest) bool { return d == "" })
}
