package rollout

import (
	"math"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

type values = delivery.Values

func fact(c delivery.Code, v values) delivery.Fact { return delivery.Fact{Code: c, Values: v} }

// The poll interval of devices whose long poll is not answered with a new document.
const (
	pollMoving  = delivery.Duration(15 * time.Second) // during a rollout
	pollSettled = delivery.Duration(5 * time.Minute)
)

// DefaultDeadline is the silence after which a device counts as failed if Input.Deadline is zero. An
// agent reports at least three times in this time.
const DefaultDeadline = 15 * time.Minute

// HasRun reports whether a fleet has run a bundle before: more than half of its devices have run it
// through a healthy soak.
func HasRun(f delivery.Fleet, devices []delivery.Device, bundle delivery.Digest) bool {
	all, ran := 0, 0
	for i := range devices {
		d := &devices[i]
		if !belongs(f, d) {
			continue
		}
		all++
		if slices.Contains(d.Healthy, bundle) {
			ran++
		}
	}
	return 2*ran > all
}

// belongs reports whether a device is in the fleet: its ring and its labels match.
func belongs(f delivery.Fleet, d *delivery.Device) bool {
	if d.Report.Ring != f.Name {
		return false
	}
	for k, v := range f.Match {
		if got, ok := d.Report.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// A turn is one decision in progress.
type turn struct {
	Input
	fleet []*delivery.Device // those of Devices that belong to the fleet
}

// Next decides. See the package comment for the rules.
func Next(input Input) Decision {
	in := &turn{Input: input, fleet: make([]*delivery.Device, 0, len(input.Devices))}
	if in.Deadline <= 0 {
		in.Deadline = DefaultDeadline
	}
	for i := range in.Devices {
		if d := &in.Devices[i]; belongs(in.Fleet, d) {
			in.fleet = append(in.fleet, d)
		}
	}
	base := in.base()
	if slices.Contains(in.Aborted, in.Target.Bundle) {
		d := in.aborted(base, delivery.Fact{})
		d.Abort = nil
		return d
	}
	s := in.State
	if s.Target.Bundle != in.Target.Bundle {
		next, hold, wake := in.begin(base)
		if hold != nil {
			return Decision{Desired: in.unchanged(), State: in.State, Hold: hold, Wake: wake,
				Waves: len(in.Fleet.Waves), Facts: in.about(code.RolloutNotBegun, hold)}
		}
		s = next
	} else {
		s.Base = base // the old base may have been aborted or forbidden since
	}
	s.Target = in.Target // the same bundle may have another version number
	s.Started, s.Healthy = in.notInFuture(s.Started), in.notInFuture(s.Healthy)
	if s.Model != "" && s.Model != in.Fleet.Runs {
		// The model was renamed, or the fleet runs another model with the same bytes. Nothing is rolled back for that.
		s.Model, s.Rollback = in.Fleet.Runs, s.Rollback && !s.Done
	}
	if s.Rollback {
		return in.rollBack(s)
	}
	return in.advance(s)
}

// base returns the release that the whole fleet ran before Target: the one for devices outside the
// wave, and the one that an abort returns to.
func (in *turn) base() *delivery.Target {
	var base *delivery.Target
	switch s, p := in.State, in.Published; {
	case s.Target.Bundle == in.Target.Bundle && s.Target.Bundle != "":
		base = s.Base
	case s.Done, s.Rollback && s.Target.Bundle != "": // a rollback was published to all devices at once
		base = &s.Target
	case s.Base != nil || s.Target.Bundle != "":
		base = s.Base // the rollout in between was never completed, so no device is asked to install it
	case p != nil && p.Release.Bundle != in.Target.Bundle && p.Share >= 1:
		base = &p.Release
	case p != nil:
		base = p.Previous
	default:
		base = in.Previous
	}
	if base == nil || base.Bundle == "" || slices.Contains(in.Aborted, base.Bundle) {
		return nil
	}
	b := *base
	return &b
}

// begin returns the state of a new rollout, or why it must wait, and until when.
func (in *turn) begin(base *delivery.Target) (s State, hold []delivery.Fact, wake time.Time) {
	s = State{Target: in.Target, Base: base, Model: in.Fleet.Runs, Began: in.At, Started: in.At}
	p := in.Published
	resumes := p != nil && p.Release.Bundle == in.Target.Bundle && p.Share > 0
	switch {
	case base != nil && base.Bundle == in.Target.Bundle, in.Rollback && !resumes:
		s.Rollback, s.Base = true, nil
		if in.Fleet.Paused {
			hold = in.paused()
		}
		return s, hold, time.Time{}
	case resumes:
		// The rollout had begun, and its state was lost. No device loses the release for that.
		s.Share, s.Salt, s.Also = p.Share, p.Salt, p.Also
		if p.Share >= 1 {
			s.Wave = max(0, len(in.Fleet.Waves)-1)
		}
		return s, nil, time.Time{}
	case p != nil:
		s.Since = p.Version
	}
	if hold, wake := in.closed(); hold != nil {
		return s, hold, wake
	}
	if a := in.Fleet.After; a != nil {
		since := in.After.HealthySince
		if in.After.Bundle != in.Target.Bundle || since.IsZero() {
			return s, one(code.FleetAwaited, values{Fleet: a.Fleet, Version: in.Target.Version, Lasts: a.Healthy}),
				time.Time{}
		}
		if until := since.Add(time.Duration(a.Healthy)); in.At.Before(until) {
			return s, one(code.FleetAwaitedUntil, values{Fleet: a.Fleet, Lasts: a.Healthy, At: until}), until
		}
		if in.After.Unheard {
			return s, one(code.FleetUnheard, values{Fleet: a.Fleet, Lasts: delivery.Duration(in.Deadline)}), time.Time{}
		}
	}
	s.Salt = in.chooseSalt(s)
	return s, nil, time.Time{}
}

// closed returns why no new wave may begin now: the fleet is paused, or its window is closed. wake is
// when the window opens.
func (in *turn) closed() (hold []delivery.Fact, wake time.Time) {
	if in.Fleet.Paused {
		return in.paused(), time.Time{}
	}
	if w := in.Fleet.Window; w != nil {
		open, next, err := opens(*w, in.At)
		if err != nil {
			return one(code.WindowUnreadable, values{Fleet: in.Fleet.Name, Text: err.Error()}), time.Time{}
		}
		if !open {
			return one(code.WindowClosed, values{At: next}), next
		}
	}
	return nil, time.Time{}
}

func (in *turn) paused() []delivery.Fact {
	return one(code.RolloutPaused, values{Fleet: in.Fleet.Name})
}

func one(c delivery.Code, v values) []delivery.Fact { return []delivery.Fact{fact(c, v)} }

// about returns facts of the rollout of the target version, and those that follow.
func (in *turn) about(c delivery.Code, of []delivery.Fact, more ...[]delivery.Fact) []delivery.Fact {
	return append(one(c, values{Version: in.Target.Version, Facts: of}), slices.Concat(more...)...)
}

// rollBack publishes a release that the fleet has run before to all devices.
func (in *turn) rollBack(s State) Decision {
	s.Share = 1
	m := in.members(s)
	m.markWave(s)
	c := m.count()
	s = in.settle(s, c)
	d := in.decision(s, c, pollSettled)
	d.Desired.Soak = 0
	switch {
	case s.Done:
		d.Facts = in.about(code.RolledBack, c.out(in), c.Stuck, m.away(c))
		d.Wake = m.nextSilence(in)
	case c.Devices == 0:
		d.Hold = in.nobody()
		d.Facts = in.about(code.RollingBack, d.Hold)
	default:
		d.Hold = c.missing()
		d.Facts = in.about(code.RollingBack, c.healthy(), d.Hold)
	}
	return d
}

// advance decides about the current wave, and proceeds to the next ones as long as they pass.
func (in *turn) advance(s State) Decision {
	waves := in.Fleet.Waves
	if len(waves) == 0 {
		waves = []delivery.Wave{{Share: 1}}
	}
	for {
		s.Wave = min(s.Wave, len(waves)-1)
		last := s.Wave == len(waves)-1
		m := in.members(s)
		share, n := m.reach(waves[s.Wave])
		if s.Share = max(s.Share, share); s.Share >= 1 {
			s.Also = nil
		}
		m.markWave(s)
		if more := m.missingProfiles(); len(more) > 0 {
			s.Also = slices.Concat(s.Also, more)
			m.markWave(s)
		}
		c := m.count()
		wave := func(of ...delivery.Fact) delivery.Fact {
			return fact(code.RolloutWave, values{Version: in.Target.Version, Count: s.Wave + 1, Total: len(waves),
				Text: waves[s.Wave].String(), Facts: of})
		}

		if s.Done {
			s = in.settle(s, c)
			d := in.decision(s, c, pollSettled)
			d.Facts = in.about(code.RolloutDone, c.out(in), c.Bad, c.Stuck, failureRate(c.Failed, c.Healthy+c.Failed),
				m.away(c))
			d.Wake = m.nextSilence(in)
			return d
		}
		bad := c.Failed + c.Silent
		if bad > in.tolerated(n) {
			d := in.aborted(s.Base, wave(c.Bad...))
			d.Wave = c
			return d
		}
		passed := c.Waiting+c.Held == 0 && c.Healthy > 0
		if passed && last {
			s.Done, s.Healthy = true, in.At
			continue
		}
		hold, wake := in.closed()
		if passed && hold == nil {
			s.Wave, s.Started = s.Wave+1, in.At
			continue
		}
		d := in.decision(s, c, pollMoving)
		d.Hold, d.Wake = hold, wake
		switch {
		case hold != nil:
			d.Wake = earliest(wake, m.deadline(in, s))
		case c.Devices == 0:
			d.Hold = in.nobody()
		default:
			d.Hold, d.Wake = in.waiting(s, c, m)
		}
		d.Facts = slices.Concat([]delivery.Fact{wave(c.healthy()...)}, d.Hold, failureRate(bad, c.Healthy+bad),
			m.away(c))
		return d
	}
}

// tolerated returns how many failures a wave of n devices may have. Devices beyond the configured size, added for their
// profile or back from being away, are not in n, so no device can raise the number.
func (in *turn) tolerated(n int) int {
	if f := in.Fleet.Budget.Failures; f != nil {
		return int(math.Floor(float64(f.Tolerable)*float64(n) + 1e-9))
	}
	return 0
}

// waiting returns what the wave waits for, and when to decide again.
func (in *turn) waiting(s State, c Count, m members) (hold []delivery.Fact, wake time.Time) {
	wake = m.deadline(in, s)
	if c.Waiting+c.Held == 0 {
		return one(code.NoneHealthy, values{}), wake
	}
	if hold = c.missing(); in.allSilent() {
		hold = append(hold, in.absence()...)
	}
	if until := s.Started.Add(time.Duration(in.Fleet.Soak)); in.Fleet.Soak > 0 && until.After(in.At) {
		hold = append(hold, fact(code.SoakUntil, values{At: until}))
		wake = earliest(wake, until)
	}
	return hold, wake
}

func (in *turn) nobody() []delivery.Fact {
	if n := len(in.fleet); n > 0 {
		return append(one(code.NoneHeard, values{Total: n, Lasts: delivery.Duration(in.Deadline)}), in.absence()...)
	}
	return one(code.NoDevice, values{})
}

// settle marks a completed rollout as done, and updates since when the fleet is healthy.
func (in *turn) settle(s State, c Count) State {
	if !s.Done && c.Devices > 0 && c.Healthy == c.Devices {
		s.Done, s.Healthy = true, in.At
	}
	if s.Done {
		switch {
		case c.Failed == 0 && c.Healthy == 0 && in.justListening():
			// The server was not listening, so nothing is known against them.
		case c.Failed > 0 || c.Healthy == 0:
			s.Healthy = time.Time{}
		case s.Healthy.IsZero():
			s.Healthy = in.At
		}
	}
	return s
}

// decision fills the fields that all decisions share.
func (in *turn) decision(s State, c Count, poll delivery.Duration) Decision {
	if s.Done {
		poll = pollSettled
	}
	return Decision{
		Desired: &delivery.Desired{
			Ring: in.Fleet.Name, Match: in.Fleet.Match, Model: in.Fleet.Runs,
			Release: s.Target, Previous: in.previous(s), Share: s.Share, Also: s.Also, Salt: in.salt(s),
			Soak: in.Fleet.Soak, NextPoll: poll,
		},
		State: s, Done: s.Done, Wave: c, Waves: len(in.Fleet.Waves),
	}
}

// previous returns the release for devices outside the wave. If no device is known and nothing is
// published it is nil, so a lost registry takes the release from no device.
func (in *turn) previous(s State) *delivery.Target {
	if len(in.fleet) == 0 && in.Published == nil {
		return nil
	}
	return s.Base
}

// aborted returns all devices to base.
func (in *turn) aborted(base *delivery.Target, why delivery.Fact) Decision {
	d := Decision{
		State: State{Base: base}, Waves: len(in.Fleet.Waves),
		Desired: &delivery.Desired{
			Ring: in.Fleet.Name, Match: in.Fleet.Match, Model: in.Fleet.Runs,
			Release: in.Target, Share: 0, Salt: Salt(in.Fleet.Name, in.Target.Bundle), NextPoll: pollSettled,
		},
		Wave:    Count{All: len(in.fleet)},
		Abort:   &delivery.Abort{Fleet: in.Fleet.Name, Model: in.Fleet.Runs, Bundle: in.Target.Bundle, At: in.At},
		Because: why,
	}
	d.Facts = one(code.RolloutAborted, values{Version: in.Target.Version})
	if !why.IsZero() {
		d.Facts[0].Facts = []delivery.Fact{why}
	}
	if base == nil {
		d.Facts = append(d.Facts, fact(code.NothingBefore, values{}))
		return d
	}
	d.Facts = append(d.Facts, fact(code.DevicesGoBack, values{Version: base.Version}))
	d.Desired.Release, d.Desired.Share, d.Desired.Salt = *base, 1, Salt(in.Fleet.Name, base.Bundle)
	return d
}

// unchanged returns the document as published, but gives a release that was aborted or forbidden since
// to no new device.
func (in *turn) unchanged() *delivery.Desired {
	if in.Published == nil {
		return nil
	}
	d := *in.Published
	d.Version, d.Expires = 0, time.Time{}
	if slices.Contains(in.Aborted, d.Release.Bundle) {
		d.Share = 0
	}
	if d.Previous != nil && slices.Contains(in.Aborted, d.Previous.Bundle) {
		d.Previous = nil
	}
	return &d
}

// Salt returns a salt for a fleet and a bundle. It changes with the bundle, so that it is not always
// the same device that goes first.
func Salt(fleet string, bundle delivery.Digest) string { return fleet + "/" + bundle.Short() }

// earliest returns the earlier of two times; zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
