package outbox

// This file derives what a tracker should show about trainings.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/track"
)

// A deriver derives records from one turn.
type deriver struct {
	w         *plan.World
	p         *plan.Plan
	bundles   string
	proposals map[int]plan.Proposal
}

func newDeriver(w *plan.World, p *plan.Plan, bundles string) deriver {
	d := deriver{w: w, p: p, bundles: bundles, proposals: map[int]plan.Proposal{}}
	for _, pr := range w.Proposals {
		d.proposals[pr.Number] = pr
	}
	return d
}

// States of a pull request.
const (
	open   = "open"
	merged = "merged"
	closed = "closed"
)

// runs returns the trainings whose record has changed.
func (d deriver) runs(b *box) map[delivery.Digest]*runRecord {
	seen := map[delivery.Digest]*runRecord{}
	if d.w.Evidence.Stale != "" {
		return seen
	}
	for _, report := range d.p.Proposals {
		pr, ok := d.proposals[report.PR.Number]
		if !ok || report.Stale || pr.Stale {
			continue
		}
		for _, mr := range report.Models {
			if pr.Merged.Models.Of(mr.Model).Track.Tracker() != b.name {
				continue
			}
			for _, seed := range mr.Seeds {
				d.run(b, pr, mr, seed, seen)
			}
		}
	}
	for key, old := range b.runs {
		if seen[key] == nil && d.changes(old) {
			seen[key] = old.clone()
			d.finish(seen[key])
		}
	}
	maps.DeleteFunc(seen, func(key delivery.Digest, r *runRecord) bool {
		old := b.runs[key]
		return old != nil && same(old, r)
	})
	return seen
}

// changes reports whether a training that no pull request asks for may change.
func (d deriver) changes(r *runRecord) bool {
	return r.Run.Status == track.Running || r.version() != d.version(r) ||
		slices.ContainsFunc(r.Pulls, func(p pull) bool { return p.State == open })
}

// progress notes how far the trainings are, and reports whether one has reported more than the tracker was told.
func (d deriver) progress(b *box) (more bool) {
	for key, r := range b.runs {
		if r.Run.Status == track.Running {
			r.epoch = d.w.Runs[key].Status.Epoch
			more = more || r.epoch != r.told.Epoch
		}
	}
	return more
}

func same(a, b any) bool {
	x, errX := delivery.EncodeJSON(a)
	y, errY := delivery.EncodeJSON(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// clone returns a copy of a record that may be changed.
func (r *runRecord) clone() *runRecord {
	c := *r
	c.Pulls, c.Run.Data, c.Run.Measured = slices.Clone(r.Pulls), slices.Clone(r.Run.Data), slices.Clone(r.Run.Measured)
	c.Run.Params, c.Run.Tags = maps.Clone(r.Run.Params), maps.Clone(r.Run.Tags)
	return &c
}

// run adds the record of a training that a pull request asks for to seen, if it has begun.
func (d deriver) run(b *box, pr plan.Proposal, mr plan.ModelReport, seed plan.SeedReport,
	seen map[delivery.Digest]*runRecord) {
	state, begun := d.w.Runs[seed.Key]
	trained, signed := d.w.Evidence.ByRun[seed.Key]
	if seed.Key == "" || !signed && (!begun || state.Spec.Train == nil) {
		return
	}
	r := seen[seed.Key] // another pull request asks for it too
	if old := b.runs[seed.Key]; r == nil && old != nil {
		r = old.clone()
	} else if r == nil {
		r = &runRecord{Model: mr.Model, Run: track.Run{Key: seed.Key, Experiment: mr.Model, Tags: map[string]string{}}}
	}
	input := trained.Training.Input
	if !signed {
		input = *state.Spec.Train
	}
	r.Spec, r.Run.Params, r.Run.Bundle = mr.Spec, params(input), trained.Bundle
	if mr.Data != nil {
		r.Run.Data = dataOf(input, *mr.Data)
	}
	if t, ok := d.w.Evidence.BySpec[mr.Spec]; ok && t.Training.Run == seed.Key && mr.Bundle != "" {
		r.measured(pr, mr, d.w.Main.Intent)
	} else if seed.Score != nil {
		r.Run.Measured = []track.Measured{scored("validation", *seed.Score)}
	}
	tags := map[string]string{
		"aob.model": r.Model, "aob.seed": strconv.FormatInt(input.Seed, 10), "aob.spec": string(r.Spec),
		"aob.trainer": input.Spec.Train.With, "aob.trainer_files": string(input.Trainer),
		"aob.training_data": string(input.Training), "aob.parent": string(input.Parent),
	}
	if w := input.Weights; w != nil {
		tags["aob.weights"] = string(w.SHA256)
	}
	if e := input.Environment; e != nil {
		tags["aob.packages"], tags["aob.image"] = string(e.Lock), string(e.Image)
	}
	tags["aob.licences"] = strings.Join(delivery.Each(input.Licences, func(l delivery.Licensed) string {
		return l.Part + ": " + l.Licence
	}), ", ")
	maps.DeleteFunc(tags, func(_, value string) bool { return value == "" })
	maps.Copy(r.Run.Tags, tags)
	r.join(pr)
	d.finish(r)
	seen[seed.Key] = r
}

// join adds a pull request that asks for the training.
func (r *runRecord) join(pr plan.Proposal) {
	now := pull{Number: pr.Number, Made: pr.Created, URL: pr.URL, Title: pr.Title, Author: pr.Author, Head: pr.Head,
		Branch: pr.HeadRef}
	if i := slices.IndexFunc(r.Pulls, now.is); i >= 0 {
		now.Head = r.Pulls[i].Head // AOB's release commit is not what was trained
		r.Pulls[i] = now
		return
	}
	r.Pulls = append(r.Pulls, now)
}

// is reports whether two are the same pull request: a restored forge uses numbers again.
func (p pull) is(o pull) bool { return p.Number == o.Number && p.Made.Equal(o.Made) }

// finish derives the rest of a record: how the training goes, and what became of its pull requests.
func (d deriver) finish(r *runRecord) {
	why := d.state(&r.Run)
	version := d.version(r)
	for i := range r.Pulls {
		d.pull(&r.Pulls[i], version != 0, len(r.Pulls) == 1)
	}
	first, last := r.Pulls[0], r.Pulls[len(r.Pulls)-1]
	r.Run.Name = fmt.Sprintf("PR #%d seed %s", first.Number, r.Run.Tags["aob.seed"])
	state := closed
	for _, s := range []string{open, merged} {
		if slices.ContainsFunc(r.Pulls, func(p pull) bool { return p.State == s }) {
			state = s
		}
	}
	numbers := delivery.Each(r.Pulls, func(p pull) string { return strconv.Itoa(p.Number) })
	set := map[string]string{
		"aob.pull_request": strings.Join(numbers, ", "), "aob.pull_request.state": state,
		"aob.pull_request.url": last.URL, "aob.error": why, "mlflow.user": first.Author,
		"mlflow.source.name": "AOB", "mlflow.source.type": "PROJECT", "mlflow.source.git.commit": last.Head,
		"mlflow.source.git.branch": last.Branch, versionTag: "",
	}
	if last.URL != "" {
		set["mlflow.source.name"] = last.URL
	}
	if version != 0 {
		set[versionTag] = strconv.Itoa(version)
	}
	for key, value := range set {
		if value == "" {
			delete(r.Run.Tags, key)
		} else {
			r.Run.Tags[key] = delivery.PlainText(value, 2000)
		}
	}
	r.Run.Note = r.note(why)
}

const versionTag = track.VersionTag

// version returns the version of the release that the record shows; 0 for none.
func (r *runRecord) version() int {
	n, _ := strconv.Atoi(r.Run.Tags[versionTag])
	return n
}

// version returns the release of a training's spec that main has accepted; 0 for none.
func (d deriver) version(r *runRecord) (newest int) {
	for _, a := range d.w.Evidence.Accepted[r.Model] {
		if a.Spec == r.Spec {
			newest = max(newest, a.Version)
		}
	}
	return newest
}

// state updates the status, and says why a training did not succeed.
func (d deriver) state(r *track.Run) (why string) {
	run, known := d.w.Runs[r.Key]
	if !known { // trained long ago, or its folder was removed
		r.Status = track.Killed
		if r.Bundle != "" {
			r.Status = track.Finished
		}
		if r.Start.IsZero() {
			r.Start = d.w.At
		}
		if r.End.IsZero() {
			r.End = d.w.At
		}
		return r.Tags["aob.error"]
	}
	if r.Start.IsZero() {
		r.Start = run.Started
	}
	r.Status, r.End = track.Running, run.Ended
	switch run.Phase {
	case delivery.RunDone:
		r.Status = track.Finished
	case delivery.RunFailed:
		r.Status, why = track.Failed, run.Error
	case delivery.RunStopped:
		r.Status, why = track.Killed, run.EndReason
		if why == "" {
			why = run.Error
		}
	default:
		return "" // it goes on, or will
	}
	if r.End.IsZero() {
		r.End = d.w.At
	}
	return delivery.PlainText(why, 2000)
}

// pull updates the state of a pull request. released: main has accepted a release of the spec. only: no other pull
// request asked for it.
func (d deriver) pull(p *pull, released, only bool) {
	pr, there := d.proposals[p.Number]
	switch {
	case there && p.is(pull{Number: pr.Number, Made: pr.Created}):
		p.State = open
		if pr.Landed || pr.PullRequest.Merged {
			p.State = merged
		}
	case p.State == open && d.w.ProposalsKnown:
		p.State = closed
		if released {
			p.State = merged
		}
	case p.State == closed && released && only: // main has accepted it after the pull request was gone
		p.State = merged
	}
}

// note describes a training for people, in Markdown.
func (r *runRecord) note(why string) string {
	var b strings.Builder
	for _, p := range r.Pulls {
		name := fmt.Sprintf("#%d", p.Number)
		if plainURL.MatchString(p.URL) {
			name = fmt.Sprintf("[#%d](%s)", p.Number, p.URL)
		}
		fmt.Fprintf(&b, "Pull request %s by %s (%s): %s\n\n", name, delivery.Markdown(p.Author), p.State,
			delivery.Markdown(delivery.Cut(p.Title, 200)))
	}
	if why != "" {
		fmt.Fprintf(&b, "It ended: %s\n\n", delivery.Markdown(delivery.Cut(why, 1000)))
	}
	b.WriteString("Figures under `trainer/` are what the trainer itself says. The others are measured by AOB and " +
		"signed. Git is the record; this is a copy of it.\n")
	return b.String()
}

// plainURL matches an address that can stand in a Markdown link.
var plainURL = regexp.MustCompile(`^https?://[A-Za-z0-9.:/_~#?=&%+-]+$`)

// params returns the spec and the seed of a training as a flat list.
func params(input delivery.TrainRun) map[string]string {
	spec := input.Spec
	spec.Train.Seeds, spec.Variants = nil, nil // a training is of one seed, and variants are made afterwards
	list := map[string]string{"seed": strconv.FormatInt(input.Seed, 10), "accelerator": input.Accelerator,
		"machine": input.Machine, "classes": strings.Join(spec.Classes.Names(), ", ")}
	spec.Classes = nil
	var fields map[string]any
	dec := json.NewDecoder(bytes.NewReader(delivery.Canonical(spec)))
	dec.UseNumber()
	if dec.Decode(&fields) == nil {
		flatten(list, "", fields)
	}
	maps.DeleteFunc(list, func(_, value string) bool { return value == "" })
	return list
}

func flatten(list map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			at := key
			if path != "" {
				at = path + "." + key
			}
			flatten(list, at, value)
		}
	case nil:
	case string:
		list[path] = v
	default:
		text, _ := delivery.EncodeJSON(v)
		list[path] = strings.TrimSpace(string(text))
	}
}

// dataOf returns the datasets of a training.
func dataOf(input delivery.TrainRun, data delivery.DataResult) []track.Dataset {
	profile := map[string]int{}
	for split, n := range data.Images {
		profile["images in "+split] = n
	}
	for class, n := range data.Truths {
		profile["objects of "+class+" in train"] = n
	}
	list := []track.Dataset{{Name: input.Spec.Dataset, Digest: data.Content, Context: "training", Profile: profile}}
	if data.Valid.Count > 0 {
		list = append(list, contentOf(data.Valid, "validation"))
	}
	return list
}

func contentOf(c delivery.EvalSetContent, context string) track.Dataset {
	return track.Dataset{Name: c.EvalSet.String(), Digest: c.Digest(), Context: context,
		Profile: map[string]int{"images": c.Count}}
}

// scored returns the figures of signed scores.
func scored(under string, s delivery.Scores) track.Measured {
	return track.Measured{Under: under, Data: contentOf(s.Content, "evaluation"), Values: s.Scores.Values}
}

// measured sets the figures that AOB has measured for a pull request, and the verdicts.
func (r *runRecord) measured(pr plan.Proposal, mr plan.ModelReport, main delivery.Intent) {
	r.Run.Measured = nil
	if mr.Valid != nil {
		r.Run.Measured = append(r.Run.Measured, scored("validation", *mr.Valid))
	}
	if mr.Own != nil {
		r.Run.Measured = append(r.Run.Measured, scored("test", *mr.Own))
	}
	for _, m := range mr.Measured {
		name, _, _ := strings.Cut(m.Gate, ".") // it is GATE.proposed or GATE.fleet-FLEET too
		g, ok := pr.Merged.Gates.Get(name)
		if !ok {
			g = main.Gates.Of(name)
		}
		values := map[string]float64{}
		for metric, f := range m.Metrics {
			values[metric] = f.Value
			if f.Low != nil {
				values[metric+".low"] = *f.Low
			}
			if f.High != nil {
				values[metric+".high"] = *f.High
			}
		}
		r.Run.Measured = append(r.Run.Measured, track.Measured{Under: "gate/" + m.Gate, Values: values,
			Data: track.Dataset{Name: g.Evaluate.String(), Digest: m.EvalSet, Context: "evaluation",
				Profile: map[string]int{"images": m.Images}}})
	}
	r.Run.Tags["aob.release_bundle"] = string(mr.Bundle) // it has thresholds, which the trained one does not have
	maps.Copy(r.Run.Tags, verdictTags(mr.Verdicts))
}

// verdictTags returns tags with the outcome of each gate, and of all of them.
func verdictTags(verdicts []delivery.Verdict) map[string]string {
	tags := map[string]string{}
	var all []delivery.Outcome
	for _, v := range verdicts {
		tags["aob.gate."+v.Gate] = string(v.Outcome)
		all = append(all, v.Outcome)
	}
	if len(all) > 0 {
		tags["aob.verdict"] = string(delivery.Overall(all))
	}
	return tags
}
