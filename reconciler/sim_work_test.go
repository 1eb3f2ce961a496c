package reconciler

// The working half of the small world: runs, evidence, a fleet and a ledger.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
)

// ---- runs

// withheld are the validation images that stand in an eval set.
var withheld = delivery.DigestOf("withheld", nil)

type simRuns struct {
	sim    *sim
	states map[delivery.Digest]*delivery.RunState
	slow   bool // runs take long to end
	ends   int
	fail   map[delivery.RunKind]string // kinds that end failed, with the reason
	newer  delivery.Digest             // a run that a newer aob has written

	starts  int    // calls of Start
	started func() // called by Start; may be nil
}

func (r *simRuns) Start(_ context.Context, spec delivery.RunSpec) error {
	defer r.sim.effect()()
	r.starts++
	if r.started != nil {
		r.started()
	}
	if spec.Key == r.newer {
		return delivery.CheckFormat("run "+spec.Key.Short(), 2, 1)
	}
	r.sim.checkStart(spec)
	if s, ok := r.states[spec.Key]; ok {
		if s.Phase == delivery.RunDied || s.Phase == delivery.RunStopped {
			s.Phase = delivery.RunRunning
			s.Attempt++
		}
		return nil
	}
	r.states[spec.Key] = &delivery.RunState{Spec: spec, Phase: delivery.RunRunning, Attempt: 1, Started: r.sim.now}
	return nil
}

func (r *simRuns) Observe() ([]delivery.RunState, error) {
	var list []delivery.RunState
	var unread error
	for _, key := range r.keys() {
		if key == r.newer {
			unread = delivery.CheckFormat("run "+key.Short(), 2, 1)
			continue
		}
		c := *r.states[key]
		c.Result = nil
		list = append(list, c)
	}
	return list, unread
}

func (r *simRuns) keys() []delivery.Digest { return slices.Sorted(maps.Keys(r.states)) }

func (r *simRuns) State(key delivery.Digest) (delivery.RunState, error) {
	if s, ok := r.states[key]; ok {
		return *s, nil
	}
	return delivery.RunState{}, nil
}

func (r *simRuns) End(_ context.Context, key delivery.Digest, _ string) error {
	defer r.sim.effect()()
	if r.ends++; r.slow {
		return nil
	}
	if s, ok := r.states[key]; ok && (s.Phase == delivery.RunRunning || s.Phase == delivery.RunDied) {
		s.Phase = delivery.RunStopped
	}
	return nil
}

func (r *simRuns) Keep(key delivery.Digest, need delivery.RunNeed) error {
	if s, ok := r.states[key]; ok {
		s.Need = need
	}
	return nil
}

// Retry forgives a failed run; Start goes on from where it was.
func (r *simRuns) Retry(key delivery.Digest) error {
	if s, ok := r.states[key]; ok && s.Phase == delivery.RunFailed {
		s.Phase, s.Error = delivery.RunStopped, ""
	}
	return nil
}

func (r *simRuns) Remove(key delivery.Digest) error {
	delete(r.states, key)
	return nil
}

func (r *simRuns) Detach(key delivery.Digest) (string, error) { return "", r.Remove(key) }

func (r *simRuns) active() int {
	n := 0
	for _, s := range r.states {
		if s.Phase == delivery.RunRunning {
			n++
		}
	}
	return n
}

func (r *simRuns) running(kind delivery.RunKind) delivery.Digest {
	for _, key := range r.keys() {
		if s := r.states[key]; s.Spec.Kind == kind && s.Phase == delivery.RunRunning {
			return key
		}
	}
	return ""
}

func (r *simRuns) finishAll() {
	for _, key := range r.keys() {
		r.finish(key)
	}
}

// finish ends a running run with the result that its content decides.
func (r *simRuns) finish(key delivery.Digest) {
	s := r.states[key]
	if s.Phase != delivery.RunRunning {
		return
	}
	if why, ok := r.fail[s.Spec.Kind]; ok {
		s.Phase, s.Error, s.Ended = delivery.RunFailed, why, r.sim.now
		return
	}
	data, err := json.Marshal(r.result(key, s.Spec))
	if err != nil {
		r.sim.fail("%v", err)
	}
	s.Phase, s.Result, s.Ended = delivery.RunDone, data, r.sim.now
}

func (r *simRuns) result(key delivery.Digest, spec delivery.RunSpec) any {
	switch spec.Kind {
	case delivery.RunData:
		d := delivery.DataResult{Content: delivery.DigestOf("content", spec.Data.Dataset),
			Training: delivery.DigestOf("training", []any{spec.Data.Dataset, labelled(spec.Data.Classes)}),
			Images:   map[string]int{"train": 100, "valid": 30, "test": 50}, Truths: map[string]int{}}
		for _, e := range spec.Data.EvalSets {
			d.EvalSets = append(d.EvalSets, simContent(e))
		}
		d.Valid = simContent(delivery.EvalSet{Dataset: spec.Data.Dataset, Split: "valid"})
		d.Valid.LeaveOut = withheld
		d.TrainingImages = simSeen(spec.Data.Dataset.String())
		d.Folders = map[string]delivery.Digest{spec.Data.Dataset.String(): "sha256:as-it-was"}
		return d
	case delivery.RunTrain:
		if r.sim.trained[key]++; r.sim.trained[key] > 1 {
			r.sim.fail("run %s was trained to completion %d times", key.Short(), r.sim.trained[key])
		}
		content := delivery.DigestOf("content", []any{spec.Train.Spec, spec.Train.Training})
		if other := r.sim.learned[content]; other != "" {
			r.sim.fail("runs %s and %s have trained the same", other.Short(), key.Short())
		}
		r.sim.learned[content] = key
		bundle := delivery.DigestOf("bundle", key)
		r.sim.signed.pack(bundle, *spec.Train)
		return delivery.TrainResult{Bundle: bundle, Model: delivery.DigestOf("model", key), Size: 1_000_000,
			Attempts: 1}
	case delivery.RunVariant:
		v := *spec.Variant
		bundle := delivery.DigestOf("bundle", key)
		r.sim.signed.pack(bundle, v.Train)
		info := r.sim.signed.index.Bundles[bundle]
		info.Signature, info.Size = r.sim.signed.index.Bundles[v.Bundle].Signature, 500_000
		r.sim.signed.index.Bundles[bundle] = info
		r.sim.signed.variants[bundle] = v.Variant
		took := 0.01 / r.sim.speed[v.Variant]
		return delivery.VariantResult{Bundle: bundle, Model: info.Model, Size: info.Size, OfSize: 1_000_000,
			Parity: delivery.Parity{Cosine: map[string]float64{"dets": 0.999, "labels": 0.998},
				Largest: map[string]float64{"dets": 0.01, "labels": 0.02}, Images: 30, MinScore: 0.05, Boxes: 90,
				Found: 88, Matched: 87, ScoreShift: 0.003},
			Times: delivery.Times{Provider: "cpu", Processor: "a processor", Threads: 2, Images: 30,
				FP32: delivery.Latency{P50: 0.01, P95: 0.012}, Variant: delivery.Latency{P50: took, P95: took},
				Rounds: []delivery.Round{{FP32: 0.01, Variant: took}}},
			Reported: json.RawMessage(`{"parity": {"images": 32, "cosine": {"dets": 0.97},
				"largest": {"dets": 0.03}}}`)}
	case delivery.RunThresholds:
		thresholds, points := map[string]float64{}, map[string]delivery.OperatingPoint{}
		for _, c := range spec.Thresholds.Valid.Classes.Names() {
			thresholds[c], points[c] = 0.5, delivery.OperatingPoint{Score: 0.5, Precision: 0.9, Recall: 0.8, Truths: 30}
		}
		// what a bundle is, its content says
		bundle := delivery.DigestOf("resolved", []any{spec.Thresholds.Valid.Bundle, thresholds})
		r.sim.signed.pack(bundle, r.sim.signed.bundles[spec.Thresholds.Valid.Bundle])
		info := r.sim.signed.index.Bundles[bundle]
		from := r.sim.signed.index.Bundles[spec.Thresholds.Valid.Bundle]
		info.Model, info.Signature, info.Thresholds = from.Model, from.Signature, thresholds
		r.sim.signed.index.Bundles[bundle] = info
		r.sim.signed.variants[bundle] = r.sim.signed.variants[spec.Thresholds.Valid.Bundle]
		return delivery.ThresholdResult{Bundle: bundle, Size: 1_000_000, Points: points}
	case delivery.RunEval:
		if spec.Eval.EvalSet.Split == "valid" && !slices.Contains(spec.Eval.TrainingImages, withheld) {
			r.sim.fail("validation is scored on images of an eval set")
		}
		if saw := simSeen(r.sim.signed.bundles[spec.Eval.Bundle].Spec.Dataset); !slices.Contains(
			spec.Eval.TrainingImages, saw) {
			r.sim.fail("bundle %s is scored on images that it was trained on", spec.Eval.Bundle.Short())
		}
		r.sim.infer(spec.Eval.Detect)
		set := delivery.ScoreSet{Detections: delivery.DigestOf("detections", spec.Eval.Detect),
			Protocol: spec.Eval.Protocol, Images: 50,
			Values: map[string]float64{}, Truths: map[string]int{}, Classes: []string{}}
		ap := r.sim.measured(*spec.Eval)
		for _, c := range slices.Sorted(maps.Keys(ap)) {
			set.Classes, set.Truths[c] = append(set.Classes, c), 100
		}
		for _, m := range []string{"mAP", "AP50"} {
			set.Values[m] = mean(ap)
		}
		set.Table = simTable(ap, spec.Eval.Thresholds != nil)
		return set
	}
	a, b := r.sim.measured(spec.Compare.Candidate), r.sim.measured(spec.Compare.Baseline)
	maps.DeleteFunc(a, func(class string, _ float64) bool { _, shared := b[class]; return !shared })
	maps.DeleteFunc(b, func(class string, _ float64) bool { _, shared := a[class]; return !shared })
	of := simTable(a, spec.Compare.Candidate.Thresholds != nil)
	with := simTable(b, spec.Compare.Baseline.Thresholds != nil)
	c := delivery.CompareResult{Images: 50, Classes: slices.Sorted(maps.Keys(a)), Truths: map[string]int{},
		Candidate: of.Values(), Baseline: with.Values(), Difference: of.Minus(with)}
	for _, class := range c.Classes {
		c.Truths[class] = 100
		for _, column := range []string{"AP", "AP50"} { // a little doubt is left
			for i, r := range c.Difference.Columns[column] {
				c.Difference.Columns[column][i].Resamples = spread(r.Value)
			}
		}
	}
	return c
}

// simTable is a table of classes that have an AP each, and with thresholds are found as well as that.
func simTable(ap map[string]float64, thresholds bool) delivery.Table {
	t := delivery.Table{Images: delivery.Row{Value: 50}, Columns: map[string][]delivery.Row{},
		Classes: slices.Sorted(maps.Keys(ap))}
	put := func(column string, v float64) {
		t.Columns[column] = append(t.Columns[column], delivery.Row{Value: v, Resamples: spread(v)})
	}
	for _, class := range t.Classes {
		put("AP", ap[class])
		put("AP50", ap[class])
		if thresholds {
			put("truths", 100)
			put("found", 100*ap[class])
			put("false", 50*ap[class]/float64(len(ap)))
		}
	}
	return t
}

// simLabels are those of every dataset. What is labelled easy is found by whatever
// was trained on it.
var simLabels = []string{"circle", "easy", "square", "triangle"}

// simContent is what an eval set holds: of shapes/labels-2 the images of shapes with
// other labels.
func simContent(e delivery.EvalSet) delivery.EvalSetContent {
	images := e
	images.Dataset.Path, _, _ = strings.Cut(e.Dataset.Path, "/labels")
	return delivery.EvalSetContent{EvalSet: e, Images: delivery.DigestOf("images", images),
		Truths: delivery.DigestOf("truths", e), Labels: simLabels, Count: 50}
}

// simSeen names the images that a dataset trains on.
func simSeen(dataset string) delivery.Digest { return delivery.DigestOf("seen", dataset) }

// labelled keeps of classes the labels that there are.
func labelled(classes delivery.Classes) delivery.Classes {
	classes = slices.Clone(classes)
	for i, c := range classes {
		classes[i].Labels = slices.DeleteFunc(slices.Clone(c.Labels), func(label string) bool {
			return !slices.Contains(simLabels, label)
		})
	}
	return classes
}

// measured is the AP that a bundle reaches, by the classes that have truths and that
// it knows.
func (s *sim) measured(ask delivery.EvalRun) map[string]float64 {
	ap := map[string]float64{}
	names := s.signed.bundles[ask.Bundle].Spec.Classes.Names()
	for _, c := range ask.Classes {
		if called := ask.Classes.Called(c.Name, names); len(called) == 1 {
			if v, ok := s.finds(ask.Bundle, called[0], c.Labels); ok {
				ap[c.Name] = v
			}
		}
	}
	return ap
}

// finds is how well what a bundle calls a class finds truths of some labels: those
// that it was trained on.
func (s *sim) finds(bundle delivery.Digest, class string, labels []string) (ap float64, ok bool) {
	classes := s.signed.bundles[bundle].Spec.Classes
	i := slices.IndexFunc(classes, func(c delivery.Class) bool { return c.Name == class })
	var values []float64
	for _, label := range labels {
		switch {
		case i < 0 || !slices.Contains(simLabels, label):
		case !slices.Contains(classes[i].Labels, label):
			values = append(values, 0)
		case label == "easy":
			values = append(values, 0.95)
		default:
			values = append(values, s.qualityOf(bundle))
		}
	}
	for _, v := range values {
		ap += v / float64(len(values))
	}
	return ap, len(values) > 0
}

func mean(values map[string]float64) float64 {
	sum := 0.0
	for _, key := range slices.Sorted(maps.Keys(values)) {
		sum += values[key] / float64(len(values))
	}
	return sum
}

// infer counts what is not stored: each detect key is inferred once.
func (s *sim) infer(detect delivery.Digest) { s.inferred[detect] = true }

// spread is a narrow bootstrap around a value.
func spread(v float64) []float64 {
	s := make([]float64, 201)
	for i := range s {
		s[i] = v + float64(i-100)*0.00005
	}
	return s
}

// ---- evidence

type simEvidence struct {
	sim        *sim
	bundles    map[delivery.Digest]delivery.TrainRun // what each was trained from
	variants   map[delivery.Digest]string            // which variant each is; none for FP32
	order      []delivery.Digest                     // of bundles, oldest first
	statements []simStatement
	known      map[delivery.Digest]bool
	index      plan.Evidence
	given      string // what kept was made of
	kept       plan.Evidence
	down       bool
	damaged    []plan.UnreadStatement // whose bytes are gone
}

type simStatement struct {
	bundle    delivery.Digest
	predicate any
}

func newSimEvidence(s *sim) *simEvidence {
	return &simEvidence{sim: s, bundles: map[delivery.Digest]delivery.TrainRun{},
		variants: map[delivery.Digest]string{}, known: map[delivery.Digest]bool{},
		index: plan.Evidence{BySpec: map[delivery.Digest]plan.Trained{}, ByRun: map[delivery.Digest]plan.Trained{},
			Scores:   map[delivery.Digest]delivery.Scores{},
			Resolved: map[delivery.Digest]delivery.Resolved{},
			Variants: map[delivery.Digest][]delivery.MadeVariant{}, Verdicts: map[delivery.Digest]delivery.Verdict{},
			Accepted: map[string][]delivery.Acceptance{}, Bundles: map[delivery.Digest]plan.Bundle{}}}
}

func (e *simEvidence) pack(bundle delivery.Digest, from delivery.TrainRun) {
	e.bundles[bundle] = from
	e.order = append(e.order, bundle)
	e.index.Bundles[bundle] = plan.Bundle{Model: delivery.DigestOf("m", bundle), Signature: delivery.DigestOf("s",
		bundle), Size: 1_000_000, Classes: from.Spec.Classes.Names()}
}

// last returns the newest bundle.
func (e *simEvidence) last() delivery.Digest { return e.order[len(e.order)-1] }

func (s *sim) qualityOf(bundle delivery.Digest) float64 {
	t := s.signed.bundles[bundle]
	return s.quality[t.Spec.Train.Epochs] + 0.01*float64(t.Seed-1) - s.loses[s.signed.variants[bundle]]
}

func (e *simEvidence) Sign(_ context.Context, bundle delivery.Digest, kind string, predicate any) error {
	defer e.sim.effect()()
	if e.down {
		return errors.New("the registry is down")
	}
	key := delivery.DigestOf(kind, []any{bundle, predicate})
	if e.known[key] {
		return nil
	}
	e.known[key] = true
	e.statements = append(e.statements, simStatement{bundle, predicate})
	switch p := predicate.(type) {
	case delivery.Training:
		if _, ok := e.index.BySpec[p.Spec]; !ok {
			e.index.BySpec[p.Spec] = plan.Trained{Bundle: bundle, Training: p}
		}
		e.index.ByRun[p.Run] = plan.Trained{Bundle: bundle, Training: p}
	case delivery.Scores:
		e.index.Scores[p.Key] = p
	case delivery.Resolved:
		e.index.Resolved[p.Key] = p
	case delivery.MadeVariant:
		e.index.Variants[p.Input.Bundle] = append(e.index.Variants[p.Input.Bundle], p)
	case delivery.Bench:
		if e.index.Benches == nil {
			e.index.Benches = map[delivery.Digest][]delivery.Bench{}
		}
		e.index.Benches[p.Bundle] = append(e.index.Benches[p.Bundle], p)
	case delivery.Verdict:
		e.index.Verdicts[p.Key] = p
	case delivery.ReleaseStatement:
		e.index.Releases = append(e.index.Releases, p)
	case delivery.Acceptance:
		e.sim.checkAcceptance(p)
		e.index.Accepted[p.Model] = append(e.index.Accepted[p.Model], p)
	case delivery.Abort:
		e.index.Aborts = append(e.index.Aborts, p)
	}
	return nil
}

// snapshot returns what is signed now. It stays as it is.
func (e *simEvidence) snapshot() plan.Evidence {
	now := fmt.Sprint(len(e.statements), len(e.index.BySpec), len(e.index.ByRun), len(e.index.Releases),
		slices.Sorted(maps.Keys(e.index.Scores)), e.damaged, e.index.Bundles)
	if now == e.given {
		return e.kept
	}
	last := e.index
	last.BySpec, last.ByRun, last.Scores = maps.Clone(last.BySpec), maps.Clone(last.ByRun), maps.Clone(last.Scores)
	last.Resolved, last.Variants = maps.Clone(last.Resolved), maps.Clone(last.Variants)
	last.Benches, last.Verdicts = maps.Clone(last.Benches), maps.Clone(last.Verdicts)
	last.Accepted, last.Bundles = maps.Clone(last.Accepted), maps.Clone(last.Bundles)
	e.index.Version++
	last.Version, last.Unread = e.index.Version, nil
	e.given, e.kept = now, last
	return last
}

func (e *simEvidence) Evidence(_ context.Context, scored []delivery.Digest) (plan.Evidence, error) {
	if e.down {
		return plan.Evidence{}, errors.New("the registry is down")
	}
	index := e.snapshot()
	for _, u := range e.damaged {
		index.Unread = append(index.Unread, u)
		switch u.Type {
		case delivery.AcceptanceType:
			index.Accepted = maps.Clone(index.Accepted)
			for model, list := range index.Accepted {
				index.Accepted[model] = slices.DeleteFunc(slices.Clone(list),
					func(a delivery.Acceptance) bool { return a.Bundle == u.Bundle })
			}
		case delivery.AbortType:
			index.Aborts = slices.DeleteFunc(slices.Clone(index.Aborts),
				func(a delivery.Abort) bool { return a.Bundle == u.Bundle })
		}
	}
	// As the archive does: scores that a plan does not ask for are not there.
	index.Scored = map[delivery.Digest]bool{}
	for _, bundle := range scored {
		index.Scored[bundle] = true
	}
	index.Scores = maps.Clone(index.Scores)
	maps.DeleteFunc(index.Scores, func(_ delivery.Digest, s delivery.Scores) bool {
		return !index.Scored[s.Input.Bundle]
	})
	return index, nil
}

// ---- fleet

type simFleet struct {
	listening time.Time // since when devices are heard; zero is for ever
	sim       *sim
	published map[string]delivery.Desired
	devices   []delivery.Device
	broken    map[delivery.Digest]bool // bundles that fail on devices
	silent    map[string]bool          // devices that say nothing
	downloads int
	reported  int   // reports with news
	least     int64 // what every document that is published is above
	down      bool
	asked     []delivery.BenchAsked
}

func (f *simFleet) add(ring string, ids ...string) {
	for _, id := range ids {
		f.devices = append(f.devices, delivery.Device{Report: delivery.Report{Device: id, Ring: ring,
			Labels: map[string]string{"site": "demo"}, Phase: delivery.DeviceIdle}, LastHeard: f.sim.now})
	}
}

func (f *simFleet) Publish(_ context.Context, d delivery.Desired) error {
	defer f.sim.effect()()
	if f.down {
		return errors.New("the desired state cannot be written")
	}
	old := f.published[d.Ring]
	f.sim.checkPublish(d, old)
	if old.Model != "" && old.Model != d.Model {
		f.sim.happens(fleetChanged)
	}
	was, now := f.sim.kindOf(old.Release.Bundle), f.sim.kindOf(d.Release.Bundle)
	if now != delivery.FP32 {
		f.sim.happens(variantShipped)
	} else if was != now {
		f.sim.happens(variantReversed)
	}
	d.Version = max(old.Version, f.least) + 1
	d.Expires = f.sim.now.Add(24 * time.Hour)
	f.published[d.Ring] = d
	return nil
}

func (f *simFleet) Published(ring string) (delivery.Desired, bool) {
	d, ok := f.published[ring]
	return d, ok
}

func (f *simFleet) Unreadable() []string { return nil }

func (f *simFleet) Listening(string) time.Time { return f.listening }

// hears takes a device's report, as a server does: one after a time in which no device was heard ends a break.
func (f *simFleet) hears(i int) {
	var last time.Time
	for _, d := range f.devices {
		if d.LastHeard.After(last) {
			last = d.LastHeard
		}
	}
	if f.sim.now.Sub(last) > time.Duration(f.sim.server.Deadline)/2 {
		f.listening = f.sim.now
	}
	f.devices[i].LastHeard = f.sim.now
}

func (f *simFleet) Forget(context.Context, string, string) error { return nil }

func (f *simFleet) Ask(_ context.Context, r delivery.BenchRequest) error {
	f.asked = slices.DeleteFunc(f.asked, func(a delivery.BenchAsked) bool {
		return a.Request.Ring == r.Ring && a.Request.Device == r.Device
	})
	r.Expires = f.sim.now.Add(2 * time.Hour)
	f.asked = append(f.asked, delivery.BenchAsked{Request: r})
	return nil
}

func (f *simFleet) Asked() []delivery.BenchAsked { return slices.Clone(f.asked) }

func (f *simFleet) Devices() []delivery.Device { return slices.Clone(f.devices) }

// report lets every device do what it is told, and say so.
func (f *simFleet) report() {
	for i := range f.devices {
		f.reportOne(i)
	}
}

func (f *simFleet) reportOne(i int) {
	d := &f.devices[i]
	want, ok := f.published[d.Report.Ring]
	if f.silent[d.Report.Device] {
		return
	}
	f.hears(i)
	if !ok || want.Version == d.Report.Desired {
		return
	}
	if want.Version < d.Report.Desired && want.Version <= f.least {
		return // of a restored backup, and not published anew yet: a device follows no older document
	}
	if want.Version < d.Report.Desired {
		f.sim.fail("ring %s went from version %d to %d", want.Ring, d.Report.Desired, want.Version)
	}
	target := &want.Release
	if !want.InWave(d.Report.Device) {
		target = want.Previous
	}
	d.Report.Desired = want.Version
	d.Report.Sequence++
	f.reported++
	f.sim.wake()
	if target == nil {
		return
	}
	if target.Bundle == d.Report.Bundle { // by another number, maybe, or back from one that failed
		d.Report.Release, d.Report.Phase, d.Report.Failed, d.Report.Why = target.Version, delivery.DeviceHealthy, "", ""
		return
	}
	if f.broken[target.Bundle] {
		d.Report.Phase, d.Report.Failed, d.Report.Why = delivery.DeviceFailed, target.Bundle, "golden mismatch"
		return
	}
	if !slices.Contains(d.Healthy, target.Bundle) {
		f.downloads++
		d.Healthy = append(slices.Clone(d.Healthy), target.Bundle)
	}
	d.Report.Bundle, d.Report.Release, d.Report.Phase, d.Report.Failed, d.Report.Why = target.Bundle, target.Version,
		delivery.DeviceHealthy, "", ""
}

// ---- ledger

type simLedger struct {
	spends []delivery.Spend
	sim    *sim
	gos    []ledger.Approval
	clocks map[string]json.RawMessage
	said   map[string]ledger.Record
	trials map[string]json.RawMessage
	full   bool
}

func newSimLedger(s *sim) *simLedger {
	return &simLedger{sim: s, clocks: map[string]json.RawMessage{}, said: map[string]ledger.Record{},
		trials: map[string]json.RawMessage{}}
}

func (l *simLedger) Trials(context.Context, time.Time) ([]json.RawMessage, error) {
	var list []json.RawMessage
	for _, id := range slices.Sorted(maps.Keys(l.trials)) {
		list = append(list, l.trials[id])
	}
	return list, nil
}

func (l *simLedger) PutTrial(_ context.Context, id string, _ time.Time, body json.RawMessage) error {
	defer l.sim.effect()()
	if err := l.write(); err != nil {
		return err
	}
	l.trials[id] = body
	return nil
}

func (l *simLedger) DropTrial(_ context.Context, id string) error {
	defer l.sim.effect()()
	delete(l.trials, id)
	return l.write()
}

func (l *simLedger) write() error {
	if l.full {
		return delivery.Blocked{What: "the disk under the ledger is full", Do: "free some space"}
	}
	return nil
}

func (l *simLedger) Approvals(_ context.Context, since time.Time) ([]ledger.Approval, error) {
	return slices.DeleteFunc(slices.Clone(l.gos), func(g ledger.Approval) bool { return g.At.Before(since) }), nil
}

func (l *simLedger) PutApproval(_ context.Context, g ledger.Approval) error {
	defer l.sim.effect()()
	if err := l.write(); err != nil {
		return err
	}
	for i, o := range l.gos {
		if o.PR == g.PR && o.Code == g.Code {
			if g.At.After(o.At) {
				l.gos[i].At = g.At
			}
			return nil
		}
	}
	l.gos = append(l.gos, g)
	return nil
}

func (l *simLedger) Spends(context.Context) ([]delivery.Spend, error) { return l.spends, nil }

func (l *simLedger) PutSpend(_ context.Context, s delivery.Spend) error {
	other := slices.DeleteFunc(slices.Clone(l.spends), func(o delivery.Spend) bool { return o.Run == s.Run })
	l.spends = append(other, s)
	return l.write()
}

func (l *simLedger) Clocks(context.Context) (map[string]json.RawMessage, error) {
	return maps.Clone(l.clocks), nil
}

func (l *simLedger) PutClock(_ context.Context, fleet string, s json.RawMessage) error {
	defer l.sim.effect()()
	if err := l.write(); err != nil {
		return err
	}
	l.clocks[fleet] = s
	return nil
}

func (l *simLedger) Records(_ context.Context, prefix string) (map[string]ledger.Record, error) {
	out := map[string]ledger.Record{}
	for k, s := range l.said {
		if strings.HasPrefix(k, prefix) {
			out[k] = s
		}
	}
	return out, nil
}

func (l *simLedger) PutRecord(_ context.Context, key, content string, at time.Time) error {
	defer l.sim.effect()()
	if err := l.write(); err != nil {
		return err
	}
	count := l.said[key].Count
	if content != "" {
		count++
	}
	l.said[key] = ledger.Record{Content: content, At: at, Count: count}
	return nil
}
