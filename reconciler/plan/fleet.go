package plan

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// A FleetReport is what is reported about one fleet.
type FleetReport struct {
	Fleet    string
	Model    string
	Target   delivery.Target
	Variant  string // which of the release it is; empty if that is not known
	State    delivery.CheckState
	Facts    []delivery.Fact
	Decision rollout.Decision
	Stays    Stage // why it keeps another model than main names; zero if it does not
}

// fleets plans every fleet's rollout. A fleet that a broken file of main may concern stays as it is. All fleets do
// while statements of a newer aob cannot be read.
func (m *maker) fleets(main *MainReport) {
	if !m.w.Evidence.newer().IsZero() {
		return
	}
	fleets := maps.Collect(m.w.Main.Intent.Fleets.All())
	for name, d := range m.w.Published {
		if _, there := fleets[name]; !there && !m.brokenFile(delivery.Fleet{Name: name, Runs: d.Model}).IsZero() {
			fleets[name] = delivery.Fleet{Name: name, Runs: d.Model} // its own file may be broken
		}
	}
	var stay []string
	for _, name := range slices.Sorted(maps.Keys(fleets)) {
		f := fleets[name]
		if why := m.brokenFile(f); !why.IsZero() {
			stay = append(stay, name)
			m.plan.Fleets = append(m.plan.Fleets, m.keepFleet(FleetReport{Fleet: name, Model: f.Runs,
				State: delivery.CheckPending}, why))
			continue
		}
		r := m.fleet(f)
		m.plan.Fleets = append(m.plan.Fleets, r)
		for i, c := range main.Checks {
			if c.Context != delivery.ContextRelease || r.Stays.State == "" {
				continue
			}
			if severity(r.Stays.State) > severity(c.State) {
				c.Facts = []delivery.Fact{r.Stays.Fact}
			} else if severity(r.Stays.State) == severity(c.State) {
				c.Facts = append(c.Facts, r.Stays.Fact)
			}
			c.State = worse(r.Stays.State, c.State)
			main.Checks[i] = c
		}
	}
	if len(m.w.Main.Complaints) > 0 && len(main.Checks) > 0 {
		main.Checks[0].Facts = append(main.Checks[0].Facts, staying(stay, len(fleets)))
	}
}

// staying says which fleets stay as they are.
func staying(names []string, all int) delivery.Fact {
	switch len(names) {
	case all:
		return fact(code.FleetsAllStay, values{})
	case 0:
		return fact(code.FleetsNoneStay, values{})
	}
	return fact(code.FleetsSomeStay, values{Names: names})
}

func worse(a, b delivery.CheckState) delivery.CheckState {
	if severity(a) > severity(b) {
		return a
	}
	return b
}

func (m *maker) fleet(f delivery.Fleet) FleetReport {
	r := FleetReport{Fleet: f.Name, Model: f.Runs, State: delivery.CheckPending}
	if why := m.whyFleetWaits(f); !why.IsZero() {
		target, ok := m.knownTarget(f)
		if !ok {
			return m.keepFleet(r, why)
		}
		r.Target = target
		r = m.rollOut(r, f, nil)
		r.Facts = append(r.Facts, why)
		return r
	}
	releases := m.accepted(f.Runs)
	var target delivery.Release
	switch {
	case f.Version > 0:
		var ok bool
		if target, ok = m.pinned(f); !ok {
			r.fail(fact(code.FleetPinUnknown, values{Version: f.Version, Model: f.Runs}))
			return r
		}
		if h, is := m.quarantined(m.w.names(f.Runs), target.Bundle); is {
			r.fail(h.why.In(code.FleetPinQuarantined, values{Version: f.Version, Model: f.Runs}))
			return r
		}
	case len(releases) == 0 || releases[0].Name != f.Runs:
		waits := fact(code.FleetAwaitsRelease, values{Model: f.Runs})
		if r.Facts = []delivery.Fact{waits}; len(releases) > 0 {
			r.Facts[0].FromModel = releases[0].Name
			r.Facts = append(r.Facts, fact(code.DevicesKeep, values{}))
		}
		return r
	default:
		target = releases[0]
	}
	named := m.w.Main.Intent.Fleets.Of(f.Name)
	if ships, lacks := m.shipped(f, target); lacks.IsZero() {
		target = ships
	} else if f, target, ok := m.keepsRelease(&r, f, releases, lacks); ok {
		return m.goOn(r, f, target, m.accepted(f.Runs))
	} else {
		r.fail(r.Stays.Fact)
		return r
	}
	if b, ok := m.fleetGatesOf(f, &named); ok && b.runs != nil {
		if stage := m.mayChange(b, target); stage.State != delivery.CheckSuccess {
			stays := b.values()
			stays.Model, stays.Version = f.Runs, target.Version
			r.Stays = Stage{State: stage.State, Fact: stage.Fact.In(code.FleetStaysWith, stays)}
			// The fleet goes on with the release that it runs.
			f.Runs, f.Version = b.from, 0
			r.Model, target, releases = b.from, *b.runs, m.accepted(b.from)
		}
	}
	return m.goOn(r, f, target, releases)
}

// goOn continues a fleet's rollout to a release with the bundle that the fleet gets. releases are those that main has
// accepted, newest first.
func (m *maker) goOn(r FleetReport, f delivery.Fleet, target delivery.Release,
	releases []delivery.Release) FleetReport {
	r.Target = delivery.Target{Version: target.Version, Bundle: target.Bundle}
	if _, there := m.w.Evidence.Bundles[target.Bundle]; !there {
		r.fail(fact(code.FleetBundleGone, values{Bundle: target.Bundle, Model: f.Runs, Version: target.Version}))
		return r
	}

	r = m.rollOut(r, f, m.allShipped(f, releases))
	if slices.Contains(m.unreadAborts(f.Name), target.Bundle) {
		r.Facts = append(r.Facts, fact(code.AbortUnread, values{}))
	} else if _, is := m.quarantined(m.w.names(f.Runs), target.Bundle); !is && r.Decision.Abort == nil &&
		slices.Contains(m.aborted(f), target.Bundle) {
		// Only after the abort is recorded, because NeedsHistory reads it.
		m.proposeQuarantine(f, target, releases, m.abortReason(f, target.Bundle))
	}
	if r.Stays.State != "" {
		r.State, r.Facts = worse(r.State, r.Stays.State), slices.Concat([]delivery.Fact{r.Stays.Fact}, r.Facts)
	}
	return r
}

// fail reports that a fleet cannot be rolled out.
func (r *FleetReport) fail(why delivery.Fact) {
	r.State, r.Facts = delivery.CheckFailure, []delivery.Fact{why, fact(code.DevicesKeep, values{})}
}

// rollOut continues a fleet's rollout to its target. releases are those that it may have run before, newest first.
func (m *maker) rollOut(r FleetReport, f delivery.Fleet, releases []delivery.Release) FleetReport {
	target := r.Target
	devices := m.w.Devices[f.Name]
	in := rollout.Input{Fleet: f, Target: r.Target, State: m.w.Clocks[f.Name], Devices: devices, At: m.w.At,
		Rollback: rollout.HasRun(f, devices, target.Bundle), Aborted: m.aborted(f),
		Deadline: time.Duration(m.w.Server.Deadline),
		Seed:     m.w.Server.Seed, Listening: m.w.Listening[f.Name], Heard: m.w.lastHeard(f.Name),
		Untrusted: m.untrusted(devices, target.Bundle)}
	other := func(r delivery.Release) bool { return r.Bundle != target.Bundle }
	if before, ok := delivery.Find(releases, other); ok {
		in.Previous = &delivery.Target{Version: before.Version, Bundle: before.Bundle}
	}
	if d, ok := m.w.Published[f.Name]; ok {
		in.Published = &d
	}
	if f.After != nil {
		in.After = m.w.Clocks[f.After.Fleet].Standing()
		if m.fp32Of(in.After.Bundle) == m.fp32Of(target.Bundle) {
			in.After.Bundle = target.Bundle // the release counts, whatever variant that fleet runs
		}
		in.After.Unheard = !rollout.Heard(m.w.Devices[f.After.Fleet], m.w.At, time.Duration(m.w.Server.Deadline))
	}
	d := rollout.Next(in)
	r.Facts = slices.Clone(d.Facts)
	if r.Variant, _ = m.variantOf(target.Bundle); len(r.Facts) > 0 && variantNamed(r.Variant) != "" {
		r.Facts[0] = r.Facts[0].In(code.OfVariant, values{Names: []string{r.Variant}})
	}
	if lost := m.w.Stored[target.Bundle].Lost; len(lost) > 0 {
		r.Facts = append(r.Facts, fact(code.StoreLost, values{Files: lost}))
	}
	m.wake(d.Wake)

	// An abort is recorded before anything is published, and kept until it is signed.
	if d.Abort != nil {
		d.Abort.Lifts = m.lifts(f.Runs, target.Bundle)
		d.State.Abort = d.Abort
	} else {
		d.State.Abort = m.unsigned(f)
	}
	r.Decision = d
	if a := d.State.Abort; a != nil {
		m.step(Sign{Bundle: a.Bundle, Type: delivery.AbortType, Predicate: *a, Of: f.Name, Why: d.Because})
	}
	if !same("clock", d.State, in.State) {
		m.step(KeepClock{Fleet: f.Name, State: d.State, Why: d.Because})
	}
	if d.Desired != nil {
		d.Desired.Model = m.modelOf(f, d.Desired.Release)
	}
	if d.Desired != nil && m.mustPublish(*d.Desired, in.Published) {
		desired := *d.Desired
		desired.NextPoll = m.w.Server.NextPoll
		// devices vary it by half; three reports may be lost before a device counts as silent
		desired.Report = m.w.Server.Deadline / 4
		variant, _ := m.variantOf(desired.Release.Bundle)
		m.step(Publish{Desired: desired, Variant: variantNamed(variant), Wave: d.Wave.Devices, Devices: d.Wave.All})
	}
	switch {
	case d.Abort != nil:
		r.State = delivery.CheckFailure
	case slices.Contains(in.Aborted, target.Bundle):
		r.State = delivery.CheckFailure
	case d.Done && d.Wave.Devices > 0: // a fleet with no reporting devices is not a success
		r.State = delivery.CheckSuccess
	}
	return r
}

// modelOf returns the model of the release that a fleet is told to run. It differs from the model that main names if
// the fleet goes back to an earlier release; then that model's gates stay the fleet's gates.
func (m *maker) modelOf(f delivery.Fleet, t delivery.Target) string {
	is := func(a delivery.Acceptance) bool {
		_, has := a.Variant(t.Bundle)
		return has && a.Version == t.Version
	}
	if _, ok := m.w.Evidence.acceptance(m.w.names(f.Runs), is); ok {
		return f.Runs
	}
	if p, ok := m.w.Published[f.Name]; ok && p.Release == t {
		return p.Model
	}
	a, _ := m.w.Evidence.acceptance(slices.Sorted(maps.Keys(m.w.Evidence.Accepted)), is)
	return cmp.Or(a.Model, f.Runs)
}

// untrusted says why reports of a failed bundle do not count yet: the server first checks whether its own store still
// holds the bundle's files.
func (m *maker) untrusted(devices []delivery.Device, bundle delivery.Digest) delivery.Fact {
	if m.w.Stored == nil {
		return delivery.Fact{}
	}
	var since time.Time // the time of the latest such report
	for _, d := range devices {
		if d.Report.Phase == delivery.DeviceFailed && d.Report.Failed == bundle && d.LastHeard.After(since) {
			since = d.LastHeard
		}
	}
	found := m.w.Stored[bundle]
	switch {
	case since.IsZero():
	case len(found.Lost) > 0:
		return fact(code.FailureNotCounted, values{Files: found.Lost})
	case found.At.Before(since) && m.w.At.Sub(found.At) > storeCheckLasts:
		m.plan.CheckStore = append(m.plan.CheckStore, bundle)
		return fact(code.FailureChecked, values{})
	}
	return delivery.Fact{}
}

// storeCheckLasts is how long the result of a store check is used.
const storeCheckLasts = time.Minute

// pinned finds the release that a fleet is pinned to.
func (m *maker) pinned(f delivery.Fleet) (delivery.Release, bool) {
	a, ok := m.w.Evidence.acceptance(m.w.names(f.Runs), func(a delivery.Acceptance) bool {
		return a.Version == f.Version
	})
	return delivery.Release{Name: a.Model, Version: a.Version, Bundle: a.Bundle, Spec: a.Spec}, ok
}

// aborted lists the bundles that a fleet must not run: those that it fell back from, unless the quarantine was lifted
// since, and those in quarantine with their variants.
func (m *maker) aborted(f delivery.Fleet) []delivery.Digest {
	held := forbidden(m.w.Main.Quarantine)
	list := slices.Concat(m.withVariants(held), m.variantsByFiles(held), m.unreadAborts(f.Name))
	for _, a := range m.aborts(f) {
		// A lift ends the earlier aborts, not later ones.
		lifted := m.lifts(f.Runs, a.Bundle) > a.Lifts
		if !lifted && !slices.Contains(list, a.Bundle) {
			list = append(list, a.Bundle)
		}
	}
	return list
}

// unsigned returns a fleet's last abort if it is not signed yet.
func (m *maker) unsigned(f delivery.Fleet) *delivery.Abort {
	a := m.w.Clocks[f.Name].Abort
	if a == nil || slices.ContainsFunc(m.w.Evidence.Aborts, func(s delivery.Abort) bool {
		return s.Fleet == a.Fleet && s.Bundle == a.Bundle && s.At.Equal(a.At)
	}) {
		return nil
	}
	return a
}

// aborts lists a fleet's aborts, signed or not.
func (m *maker) aborts(f delivery.Fleet) []delivery.Abort {
	others := func(a delivery.Abort) bool { return a.Fleet != f.Name }
	list := slices.DeleteFunc(slices.Clone(m.w.Evidence.Aborts), others)
	if a := m.unsigned(f); a != nil {
		list = append(list, *a)
	}
	return list
}

// abortReason says why a fleet fell back from a bundle: by its last abort, or by the quarantine entry if another fleet
// fell back from it.
func (m *maker) abortReason(f delivery.Fleet, bundle delivery.Digest) string {
	var why string
	for _, e := range m.w.Main.Quarantine[f.Runs] {
		if e.Digest == bundle && e.Lifted == "" && why == "" {
			why = e.Why
		}
	}
	var last time.Time
	for _, a := range m.aborts(f) {
		if a.Bundle == bundle && !a.At.Before(last) {
			why, last = a.Why, a.At
		}
	}
	return why
}

// mustPublish reports whether a document differs from the published one, or must be signed again before that expires.
func (m *maker) mustPublish(d delivery.Desired, published *delivery.Desired) bool {
	if published == nil {
		return true
	}
	p := *published
	if p.Version <= m.w.Server.Least {
		return true
	}
	half := m.w.At.Add(time.Duration(m.w.Server.Expiry) / 2)
	if p.Expires.Before(half) {
		return true
	}
	m.wake(p.Expires.Add(-time.Duration(m.w.Server.Expiry) / 2))
	p.Version, d.Version = 0, 0
	p.Expires, d.Expires = time.Time{}, time.Time{}
	p.NextPoll, d.NextPoll = 0, 0
	p.Report, d.Report = 0, 0
	return !same("desired", p, d)
}

// same reports whether two values have the same digest, which is slow to compute.
func same(domain string, a, b any) bool {
	return reflect.DeepEqual(a, b) || delivery.DigestOf(domain, a) == delivery.DigestOf(domain, b)
}

// proposeQuarantine opens a pull request after a fleet fell back: it restores the model's earlier files and adds the
// bundle to the quarantine. A variant is quarantined alone, because other fleets may run the release without it.
func (m *maker) proposeQuarantine(f delivery.Fleet, bad delivery.Release, releases []delivery.Release, why string) {
	if !m.historyUnknown(m.w.names(f.Runs)).IsZero() {
		return // it is not known what to restore
	}
	if named, ok := m.w.Main.Intent.Releases.Get(f.Runs); !ok || named.Bundle != m.fp32Of(bad.Bundle) {
		return // main names another release now
	}
	restore := map[string]string{"models/" + f.Runs + ".release.yaml": ""}
	title := fact(code.QuarantineTitle, values{Model: f.Runs, FromVersion: bad.Version, Fleet: f.Name})
	body := fact(code.QuarantineBody, values{Fleet: f.Name, Text: why})
	if variant, _ := m.variantOf(bad.Bundle); variantNamed(variant) != "" {
		restore, releases = nil, nil
		title.Code, title.Variant = code.QuarantineVariantTitle, variant
		body = fact(code.QuarantineVariantBody, values{Fleet: f.Name, Text: why, Model: f.Runs, Version: bad.Version,
			Variant: variant})
	}
	for _, before := range releases {
		if commit, ok := m.commitOf(f.Runs, before); ok && before.Bundle != bad.Bundle {
			restore["models/"+f.Runs+".release.yaml"] = commit
			restore["models/"+f.Runs+".yaml"] = commit
			title.Code, title.Version = code.QuarantineRestoreTitle, before.Version
			break
		}
	}
	q := m.w.Main.Intent.Quarantines.Of(f.Runs)
	q.APIVersion, q.Kind, q.Name = delivery.APIVersion, "Quarantine", f.Runs
	q.Entries = slices.Clone(q.Entries)
	for _, e := range m.w.Main.Quarantine[f.Runs] { // entries that main lost are restored
		if e.Lost != "" {
			q.Entries = append(q.Entries, e.Quarantined)
		}
	}
	// People read the file as it is, on the forge and in a terminal.
	q.Entries = append(q.Entries, delivery.Quarantined{Digest: bad.Bundle, Why: delivery.Terminal(why), Fleet: f.Name})
	branch := fmt.Sprintf("aob/quarantine-%s-%s", f.Runs, bad.Bundle.Short())
	if n := m.lifts(f.Runs, bad.Bundle); n > 0 { // the quarantine was lifted, and the bundle failed again
		branch += fmt.Sprintf("-%d", n+1)
	}
	m.propose(Propose{Branch: branch, Base: m.mainCommit(), Title: title, Restore: restore, Quarantine: &q,
		Body: body})
}
