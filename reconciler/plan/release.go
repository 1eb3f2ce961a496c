package plan

import (
	"math"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// accepted returns a model's accepted releases that are not in quarantine, under all its names, newest first. Releases
// that only merged branches had come last. The first is what fleets follow and the baseline of candidates.
func (m *maker) accepted(model string) []delivery.Release { return m.acceptedAs(m.w.names(model)) }

func (m *maker) acceptedAs(names []string) []delivery.Release {
	return slices.DeleteFunc(m.everAccepted(names), func(r delivery.Release) bool {
		_, is := m.quarantined(names, r.Bundle)
		return is
	})
}

// baseline returns the release that a candidate is compared with; nil for a first model.
func (m *maker) baseline(names []string) *delivery.Release {
	return first(m.acceptedAs(names))
}

func first(list []delivery.Release) *delivery.Release {
	if len(list) == 0 {
		return nil
	}
	return &list[0]
}

func (m *maker) everAccepted(names []string) []delivery.Release {
	var list []delivery.Release
	add := func(r delivery.Release) {
		known := slices.ContainsFunc(list, func(o delivery.Release) bool {
			return o.Version == r.Version && o.Bundle == r.Bundle
		})
		if !known && m.w.Evidence.accepted(r) {
			list = append(list, r)
		}
	}
	var named []Past
	for _, model := range names {
		if r, ok := m.w.Main.Intent.Releases.Get(model); ok && m.ships(model, r) {
			add(r)
		}
		named = append(named, m.history(model)...)
	}
	slices.SortStableFunc(named, func(a, b Past) int {
		if a.Side != b.Side {
			if a.Side {
				return 1
			}
			return -1
		}
		return a.Order - b.Order
	})
	for _, past := range named {
		if past.Release != nil && past.Spec == past.Release.Spec {
			add(*past.Release)
		}
	}
	return list
}

// ships reports whether main's tree has a release together with its spec.
func (m *maker) ships(model string, r delivery.Release) bool {
	mdl, ok := m.w.Main.Intent.Models.Get(model)
	return ok && mdl.SpecDigest() == r.Spec
}

// rollsBackTo returns a proposal's release if main accepted it before, with its spec and an unedited file.
func (m *maker) rollsBackTo(p Proposal, model string) (delivery.Release, bool) {
	r, ok := p.Merged.Releases.Get(model)
	if !ok || r.Spec != p.Merged.Models.Of(model).SpecDigest() {
		return delivery.Release{}, false
	}
	return r, m.w.Evidence.accepted(r) && !m.fileEdited(r)
}

// fileEdited reports whether the figures of a release file differ from those of its statement.
func (m *maker) fileEdited(r delivery.Release) bool { return m.hasStatement(r) && !m.madeByAOB(r) }

// hasStatement reports whether there is a release statement for a release file's version and bundle.
func (m *maker) hasStatement(r delivery.Release) bool {
	_, has := m.w.Evidence.release(r.Bundle, func(s delivery.ReleaseStatement) bool {
		return s.Model == r.Name && s.Version == r.Version && s.Bundle == r.Bundle
	})
	return has
}

// nextVersion returns 1 + the highest version in main's history of the model under all its names.
func (m *maker) nextVersion(names []string) int {
	highest := 0
	for _, model := range names {
		highest = max(highest, m.w.Main.Intent.Releases.Of(model).Version)
		for _, past := range m.history(model) {
			if past.Release != nil {
				highest = max(highest, past.Release.Version)
			}
		}
	}
	return highest + 1
}

// release fills the last stage: it signs the release statement and has the file committed. It succeeds only if the tree
// has the file that the evidence gives.
func (m *maker) release(r *progress, p Proposal, judgements, ofFleets []judgement) ModelReport {
	want := m.releaseFile(r, judgements)
	r.Release = &want
	statement := delivery.ReleaseStatement{Model: r.Model, Version: want.Version, Spec: r.Spec, Bundle: r.Bundle,
		File: want}
	if former := p.Merged.Models.Of(r.Model).RenamedFrom; !m.w.Evidence.recordsRename(r.Model, former) {
		statement.RenamedFrom = former
	}
	if r.Baseline != nil {
		statement.Baseline = r.Baseline.Bundle
	}
	statement.Gates = delivery.Each(slices.Concat(judgements, ofFleets), judgement.signed)
	statement.Variants = r.judgedVariants()
	same := func(s delivery.ReleaseStatement) bool { return sameStatement(s, statement) }
	signed, ok := m.w.Evidence.release(r.Bundle, same)
	if !ok {
		statement.TargetCommit = m.mainCommit()
		m.step(Sign{Bundle: r.Bundle, Type: delivery.ReleaseType, Predicate: statement, Of: r.Model})
		return r.end(delivery.CheckPending, fact(code.ReleaseSigning, values{Version: want.Version}))
	}
	want = signed.File // the file as it was signed
	have, inTree := p.Merged.Releases.Get(r.Model)
	switch {
	case inTree && delivery.SameRelease(have, want):
		return r.end(delivery.CheckSuccess, headline(want))
	case inTree && !sameFile(p.Base.Releases, p.Intent.Releases, r.Model) && !m.madeByAOB(have):
		return m.refuseFile(r, have)
	}
	return m.commit(r, p, want, fact(code.ReleaseCommitting, values{Version: want.Version}))
}

// commit has a release file committed to the branch. If the branch already has the file and the merge yields another
// one, committing it again would change nothing, because the merge takes main's.
func (m *maker) commit(r *progress, p Proposal, file delivery.Release, f delivery.Fact) ModelReport {
	if have, in := p.Intent.Releases.Get(r.Model); in && delivery.SameRelease(have, file) {
		return r.end(delivery.CheckFailure, fact(code.ReleaseFileMoved,
			values{Model: r.Model, Branch: m.w.Main.Branch}))
	}
	r.Commit = &file
	return r.end(delivery.CheckPending, f)
}

// refuseFile refuses a release file that AOB did not write.
func (m *maker) refuseFile(r *progress, have delivery.Release) ModelReport {
	c := code.ReleaseFileUnsigned
	if m.hasStatement(have) {
		c = code.ReleaseFileEdited
	}
	return r.end(delivery.CheckFailure, fact(c, values{Model: r.Model, Version: have.Version, Bundle: have.Bundle}))
}

// madeByAOB reports whether AOB made a release file, now or earlier.
func (m *maker) madeByAOB(r delivery.Release) bool {
	_, ok := m.w.Evidence.statement(r, "")
	return ok
}

// sameStatement compares two statements without what may differ for the same evidence: main's commit, and the wording
// and form that a version of AOB uses.
func sameStatement(a, b delivery.ReleaseStatement) bool {
	if a.Model != b.Model || a.Version != b.Version || a.Bundle != b.Bundle || a.Spec != b.Spec {
		return false // most statements differ here, and digests are slow
	}
	for _, s := range []*delivery.ReleaseStatement{&a, &b} {
		s.TargetCommit, s.File = "", delivery.Release{}
		s.Gates = slices.Clone(s.Gates)
		for i, g := range s.Gates {
			s.Gates[i].Verdict = delivery.Verdict{Key: g.Verdict.Key, Outcome: g.Verdict.Outcome}
		}
		s.Variants = slices.Clone(s.Variants)
		for i, v := range s.Variants {
			s.Variants[i].Gates = delivery.Each(v.Gates, func(g delivery.GateJudged) delivery.GateJudged {
				g.Verdict = delivery.Verdict{Key: g.Verdict.Key, Outcome: g.Verdict.Outcome}
				return g
			})
		}
	}
	return delivery.DigestOf("statement", a) == delivery.DigestOf("statement", b)
}

// headline returns the mAP of a release that is ready, and that of the release before.
func headline(r delivery.Release) delivery.Fact {
	v := values{Version: r.Version, Bundle: r.Bundle}
	if len(r.Measured) > 0 {
		v.Metric, v.Value = delivery.MetricMAP, r.Measured[0].Metrics[delivery.MetricMAP].Value
		if b := r.Measured[0].Baseline; b != nil {
			v.FromVersion, v.Baseline = b.Version, b.Metrics[delivery.MetricMAP]
		}
	}
	return fact(code.ReleaseReady, v)
}

// releaseFile makes the release file. It depends on the evidence, the baseline and the version only.
func (m *maker) releaseFile(r *progress, judgements []judgement) delivery.Release {
	file := delivery.Release{APIVersion: delivery.APIVersion, Kind: "Release", Name: r.Model,
		Version: m.nextVersion(r.names), Bundle: r.Bundle, Spec: r.Spec}
	for _, j := range judgements {
		if j.proposed {
			continue // proposed gates are shown in the comment only
		}
		file.Measured = append(file.Measured, measured(j, r.Baseline))
	}
	if len(file.Measured) == 0 { // the PR adds the model and its first gate
		for _, j := range judgements {
			file.Measured = append(file.Measured, measured(j, r.Baseline))
		}
	}
	slices.SortFunc(file.Measured, func(a, b delivery.Measured) int { return strings.Compare(a.Gate, b.Gate) })
	verdict := func(j judgement) delivery.Verdict { return j.verdict }
	file.Measured = delivery.OneInterval(file.Measured, delivery.Each(judgements, verdict))
	file.Variants = m.releasedVariants(r)
	return file
}

func measured(j judgement, baseline *delivery.Release) delivery.Measured {
	out := delivery.Measured{Gate: j.label, EvalSet: j.set.Digest(), Images: j.score.Scores.Images,
		Metrics: map[string]delivery.Figure{},
		Verdict: j.verdict.Outcome, LeftOut: j.verdict.LeftOut, Look: j.verdict.Look}
	for _, c := range j.verdict.Checks {
		m := delivery.CheckMeasured{Check: c.Check, Class: c.Class, Outcome: c.Outcome, Value: rounded(c.Value),
			Baseline: rounded(c.Baseline), Diff: rounded(c.Diff), Low: rounded(c.Low), High: rounded(c.High)}
		if c.Outcome != delivery.Pass {
			m.Code = decidedBy(c)
		} else if slices.ContainsFunc(j.verdict.Lost, func(l delivery.Loss) bool {
			allowed, ok := j.verdict.CheckOf(l)
			return ok && allowed.Check == c.Check && allowed.Class == c.Class
		}) {
			m.High = nil // the loss shows this bound
		}
		out.Checks = append(out.Checks, m)
	}
	for _, l := range j.verdict.OtherLosses() {
		l.Value, l.Baseline, l.Diff, l.AtBest = round(l.Value), round(l.Baseline), round(l.Diff), round(l.AtBest)
		l.ErrorAP50 = round(l.ErrorAP50)
		out.Lost = append(out.Lost, l)
	}
	if j.base != nil {
		out.Baseline = &delivery.BaselineMeasured{Version: baseline.Version, Bundle: baseline.Bundle,
			Metrics: map[string]float64{}}
	}
	for name, of := range shown(j.score, j.gate.Classes) {
		if f, ok := of.figure(j.score.Scores); ok {
			out.Metrics[name] = f
		}
		if j.base != nil {
			if f, ok := of.figure(j.base.Scores); ok {
				out.Baseline.Metrics[name] = f.Value
			}
		}
	}
	return out
}

// A shownFigure is a metric over a list of classes.
type shownFigure struct {
	metric  string
	classes []string
}

// shown lists the figures of a release file, by name. classes are the gate's.
func shown(score delivery.Scores, classes []string) map[string]shownFigure {
	list := map[string]shownFigure{}
	for _, m := range delivery.Metrics() {
		usual := (m.Headline || m.AtThreshold) && !m.OnDemand
		if usual || slices.Contains(score.Input.Measures, m.Name) {
			list[m.Name] = shownFigure{m.Name, classes}
		}
	}
	for _, class := range score.Scores.Classes { // classes that are not the gate's are shown, never counted
		list[delivery.MetricAP+"/"+class] = shownFigure{delivery.MetricAP, []string{class}}
	}
	return list
}

// figure returns the figure of scores, rounded as release files are; ok is false if it has no value.
func (s shownFigure) figure(of delivery.ScoreSet) (f delivery.Figure, ok bool) {
	row := of.Table.Figure(s.metric, s.classes)
	if math.IsNaN(row.Value) {
		return f, false
	}
	f = delivery.FigureOf(s.metric, row)
	return delivery.Figure{Value: round(f.Value), Low: rounded(f.Low), High: rounded(f.High)}, true
}

// Figures returns the figures that a release file has of scores. classes are the gate's, as far as they were measured.
func Figures(score delivery.Scores, classes []string) map[string]delivery.Figure {
	list := map[string]delivery.Figure{}
	for name, of := range shown(score, classes) {
		if f, ok := of.figure(score.Scores); ok {
			list[name] = f
		}
	}
	return list
}

// decidedBy returns the code of a check's reason; empty if an older version of AOB signed it.
func decidedBy(c delivery.CheckVerdict) delivery.Code {
	if len(c.Because) == 0 {
		return ""
	}
	f := c.Because[0]
	if f.Code == code.OfMetric {
		f = f.Facts[0]
	}
	return f.Code
}

func rounded(v *float64) *float64 {
	if v == nil {
		return nil
	}
	r := round(*v)
	return &r
}

// round keeps four decimals, as release files do. It turns -0 into 0, because a file cannot hold -0 and would differ.
func round(v float64) float64 {
	if r := math.Round(v*1e4) / 1e4; r != 0 {
		return r
	}
	return 0
}
