package plan

// This file handles proposals whose content main already has, because they were merged or another one brought the same.
// Nothing is judged or signed again for them: the report repeats the release statement. The list of open pull requests
// may be older than main, so only content is compared.

import (
	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// targetsMain reports whether a proposal's target is main. Other proposals are not judged.
func (m *maker) targetsMain(p Proposal) bool { return p.PullRequest.Base == m.w.Main.Branch }

// releaseOnMain returns main's release of a model if a proposal asks for just that: the same spec, and the same release
// file or none. For a merged proposal it is the release that it brought, even if main has a newer one.
func (m *maker) releaseOnMain(p Proposal, name string) (delivery.Release, bool) {
	spec := p.Intent.Models.Of(name).SpecDigest()
	own, has := p.Intent.Releases.Get(name)
	if p.Landed && has && own.Spec == spec && m.w.Evidence.accepted(own) && !m.fileEdited(own) {
		return own, true
	}
	r, named := m.w.Main.Intent.Releases.Get(name)
	if !named || spec != r.Spec || !m.ships(name, r) {
		return r, false
	}
	if !sameFile(p.Base.Releases, p.Intent.Releases, name) && !(has && delivery.SameRelease(own, r)) {
		return r, false // it names another release, or removes the file
	}
	// A release that main refuses does not count.
	main, _ := m.onMain(name)
	return r, main.State == delivery.CheckPending || main.State == delivery.CheckSuccess && m.w.Evidence.accepted(r)
}

// reportReleased reports a model that main already has, from its release statement. It reports false if there is no
// statement.
func (m *maker) reportReleased(r *progress, p Proposal, release delivery.Release) (ModelReport, bool) {
	s, ok := m.w.Evidence.statement(release, "")
	if !ok {
		return ModelReport{}, false // signed by an older aob, or lost
	}
	r.Release, r.Bundle, r.Measured = &release, release.Bundle, release.Measured
	if b, ok := delivery.Find(m.everAccepted(m.w.names(release.Name)), func(b delivery.Release) bool {
		return b.Bundle == s.Baseline
	}); ok {
		r.Baseline = &b
	}
	if t, ok := m.w.Evidence.Training(release.Bundle); ok {
		r.Data = &t.Training.Data
		r.stage(delivery.ContextData, delivery.CheckSuccess,
			dataFact(p.Intent.Models.Of(release.Name), t.Training.Data))
		r.stage(delivery.ContextTrain, delivery.CheckSuccess, fact(code.Trained,
			values{Bundle: release.Bundle, Bytes: t.Training.Result.Size}))
	}
	if len(release.Measured) > 0 {
		first := release.Measured[0]
		var baseline *float64
		if first.Baseline != nil {
			v := first.Baseline.Metrics[delivery.MetricMAP]
			baseline = &v
		}
		r.stage(delivery.ContextEval, delivery.CheckSuccess,
			evaluated(first.Metrics[delivery.MetricMAP].Value, first.Images, baseline))
	}
	for _, g := range s.Gates {
		r.Verdicts = append(r.Verdicts, g.Verdict)
		why := ReasonOf(g.Verdict)
		if g.Accept != nil {
			why = accepted(*g.Accept, why)
		}
		r.stage(delivery.ContextGate+g.Name, delivery.CheckSuccess, why)
	}
	r.OnMain = true
	if p.Landed {
		return r.end(delivery.CheckSuccess, fact(code.MergedVersion, values{Version: release.Version})), true
	}
	return r.end(delivery.CheckSuccess, fact(code.AlreadyReleased, values{Version: release.Version})), true
}

// reportMerged reports a model of a merged proposal that main does not run. Nothing is trained, judged or signed for
// it.
func (m *maker) reportMerged(r *progress) ModelReport {
	if mm, ok := m.onMain(r.Model); ok && mm.State != delivery.CheckSuccess {
		return r.end(mm.State, mm.Fact.In(code.MergedBut, values{}))
	}
	return r.end(delivery.CheckSuccess, fact(code.Merged, values{}))
}

// acceptedBefore finds a release with this spec and bundle that main accepted before. Going back to it is a rollback
// with its old file, so nothing is signed.
func (m *maker) acceptedBefore(model string, spec, bundle delivery.Digest) (delivery.Release, bool) {
	var found delivery.Release
	for _, a := range m.w.Evidence.Accepted[model] {
		if a.Bundle != bundle || a.Spec != spec || a.Version < found.Version {
			continue
		}
		for _, r := range m.filesOf(model) {
			if r.Version == a.Version && r.Bundle == bundle && r.Spec == spec && !m.fileEdited(r) {
				found = r
				break
			}
		}
	}
	return found, found.Version > 0
}

// filesOf lists the known release files of a model: on main, in its history, and in release statements.
func (m *maker) filesOf(model string) []delivery.Release {
	var files []delivery.Release
	if r, ok := m.w.Main.Intent.Releases.Get(model); ok {
		files = append(files, r)
	}
	for _, past := range m.history(model) {
		if past.Release != nil {
			files = append(files, *past.Release)
		}
	}
	for _, s := range m.w.Evidence.releasesOf(model) {
		files = append(files, s.File)
	}
	return files
}
