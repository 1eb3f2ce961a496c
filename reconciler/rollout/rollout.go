package rollout

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// How often devices ask when nobody tells them that there is news.
const (
	pollMoving  = delivery.Duration(15 * time.Second) // during a rollout
	pollSettled = delivery.Duration(5 * time.Minute)
)

// DefaultDeadline is the silence after which a device counts as failed, where
// Input.Deadline is zero: three heartbeats of an agent.
const DefaultDeadline = 15 * time.Minute

// Input is all that a decision depends on.
type Input struct {
	Fleet    delivery.Fleet
	Target   delivery.Target  // the accepted release, or the version that the fleet is pinned to
	Previous *delivery.Target // the release before it; nil for a first. Read where State and Published know no better
	// the fleet has run Target healthily before; read when the rollout begins, and kept in State
	Rollback bool

	State     State             // from the last decision; zero where there was none, or where it was lost
	Published *delivery.Desired // what the ring's document says now; nil where there is none

	Devices  []delivery.Device // those of another ring, or without the fleet's labels, are ignored
	Aborted  []delivery.Digest // bundles that were aborted or forbidden, and not lifted since
	After    AfterState        // of the fleet that Fleet.After names
	At       time.Time         // now
	Deadline time.Duration     // the silence that counts as failure; zero is DefaultDeadline

	// Listening is since when devices can reach the server without a break. A break is over when the server was
	// started, when its machine was woken up, or when the first device was heard after a long time in which none was.
	// Silence before that may be the server's own. Zero is for ever.
	Listening time.Time
	// Heard is when any device of the fleet was heard last. Silence after that may be the network's, of their site or
	// of the server. Zero is At.
	Heard time.Time

	Seed  string // a secret of the server, from which salts are made
	Doubt string // why no device's word that Target failed is believed now; empty: it is
}

// AfterState is how another fleet stands. Its own State gives it: see State.Standing.
type AfterState struct {
	Bundle       delivery.Digest // that it rolled out
	HealthySince time.Time       // since when all of it is healthy; zero: it is not
	Unheard      bool            // none of its devices was heard within the deadline, so that may be old
}

// State is what a rollout remembers between turns. It is kept as JSON. Losing it
// begins the waves again, and takes the release from no device that has it as
// long as Input.Published is there.
type State struct {
	Target   delivery.Target  `json:"target"`
	Base     *delivery.Target `json:"base,omitempty"`  // what the fleet completed before, and falls back to
	Model    string           `json:"model,omitempty"` // that the fleet ran when this began
	Rollback bool             `json:"rollback,omitempty"`
	Salt     string           `json:"salt,omitempty"` // by which devices take their turns; see draw
	Wave     int              `json:"wave"`           // from 0
	Share    float64          `json:"share"`          // published; only grows
	// places beyond Share of devices that the wave has taken for their hardware profile; published; only grows
	Also    []float64 `json:"also,omitempty"`
	Since   int64     `json:"since"` // version of the document before this rollout's first
	Began   time.Time `json:"began"`
	Started time.Time `json:"started"` // this wave
	Healthy time.Time `json:"healthy"` // since when all devices are healthy on Target; zero: they are not
	Done    bool      `json:"done"`
	// Abort is what the fleet fell back from, until that is signed: so it is not forgotten while nothing can be signed.
	Abort *delivery.Abort `json:"abort,omitempty"`
}

// Standing is what a fleet that comes after this one looks at.
func (s State) Standing() AfterState {
	if !s.Done {
		return AfterState{}
	}
	return AfterState{Bundle: s.Target.Bundle, HealthySince: s.Healthy}
}

// A Decision says what to publish, what to keep, and why it goes no further.
type Decision struct {
	// Desired is the ring's document, complete but for Version and Expires. It is
	// to be published every turn, so that it is signed again before it expires.
	// Nil: there is nothing to publish yet.
	Desired *delivery.Desired
	State   State

	Done  bool            // every device that is not away runs Target healthily
	Abort *delivery.Abort // newly decided: to be recorded before Desired is published, so that it is not forgotten
	Hold  string          // why the rollout does not move on now; empty when Done, or aborted
	Text  string          // where the rollout stands, for people, one line
	Wake  time.Time       // when the passing of time alone may change the decision; zero: never

	Wave  Count // of the current wave, or of the fleet when all of it is reached
	Waves int
}

// Count says how the devices of a wave stand.
type Count struct {
	All     int // in the fleet
	Devices int // in the wave; the sum of the next five
	Healthy int
	Failed  int
	Silent  int
	Waiting int
	Held    int      // they wait for something that is no fault of the target
	HeldWhy []string // for what, sorted by device, at most five
	Away    int      // in the fleet, and counted nowhere else
	Why     []string // what the failed and silent ones say, sorted by device, at most five
}

// HasRun reports whether a fleet knows a bundle as good: more than half of its
// devices have run it through a healthy soak.
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

// belongs reports whether a device is one of the fleet's.
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

// A turn is one look at a fleet.
type turn struct {
	Input
	fleet []*delivery.Device // those of Devices that belong to it
}

// Next decides. See the package comment for the rules.
func Next(input Input) Decision {
	in := &turn{Input: input}
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
		d := in.aborted(base, "")
		d.Abort = nil
		return d
	}
	s := in.State
	if s.Target.Bundle != in.Target.Bundle {
		next, hold, wake := in.begin(base)
		if hold != "" {
			return Decision{
				Desired: in.unchanged(), State: in.State, Hold: hold, Wake: wake, Waves: len(in.Fleet.Waves),
				Text: fmt.Sprintf("version %d has not begun: %s", in.Target.Version, hold),
			}
		}
		s = next
	} else {
		s.Base = base // it may have been aborted or forbidden since
	}
	s.Target = in.Target // another version number for the same bundle
	s.Started, s.Healthy = in.past(s.Started), in.past(s.Healthy)
	if s.Model != "" && s.Model != in.Fleet.Runs {
		// The model was renamed, or the fleet runs another one with these bytes.
		// Nothing goes back for that.
		s.Model, s.Rollback = in.Fleet.Runs, s.Rollback && !s.Done
	}
	if s.Rollback {
		return in.rollBack(s)
	}
	return in.advance(s)
}

// base is what the fleet ran, all of it, before Target: what devices outside
// the wave get, and what an abort returns to.
func (in *turn) base() *delivery.Target {
	var base *delivery.Target
	switch s, p := in.State, in.Published; {
	case s.Target.Bundle == in.Target.Bundle && s.Target.Bundle != "":
		base = s.Base
	case s.Done, s.Rollback && s.Target.Bundle != "": // a rollback was asked of all devices at once
		base = &s.Target
	case s.Base != nil || s.Target.Bundle != "":
		base = s.Base // the rollout in between never ended, so nobody is asked to take it
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

// begin makes the state of a new rollout, or says what it must wait for.
func (in *turn) begin(base *delivery.Target) (s State, hold string, wake time.Time) {
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
		// It had begun, and the state was lost. Nobody loses the release for that.
		s.Share, s.Salt, s.Also = p.Share, p.Salt, p.Also
		if p.Share >= 1 {
			s.Wave = max(0, len(in.Fleet.Waves)-1)
		}
		return s, "", time.Time{}
	case p != nil:
		s.Since = p.Version
	}
	if hold, wake := in.closed(); hold != "" {
		return s, hold, wake
	}
	if a := in.Fleet.After; a != nil {
		since := in.After.HealthySince
		if in.After.Bundle != in.Target.Bundle || since.IsZero() {
			return s, fmt.Sprintf("waiting for fleet %s to run version %d healthily for %s", a.Fleet, in.Target.Version,
				a.Healthy), time.Time{}
		}
		if until := since.Add(time.Duration(a.Healthy)); in.At.Before(until) {
			return s, fmt.Sprintf("waiting for fleet %s, which must be healthy for %s, until %s", a.Fleet, a.Healthy,
				clock(until)), until
		}
		if in.After.Unheard {
			return s, fmt.Sprintf("waiting for fleet %s: none of its devices was heard from for %s", a.Fleet,
				delivery.Duration(in.Deadline)), time.Time{}
		}
	}
	s.Salt = in.draw(s)
	return s, "", time.Time{}
}

// closed returns why no new wave may begin now: the fleet is paused, or its window is closed. wake is when the window
// opens.
func (in *turn) closed() (hold string, wake time.Time) {
	if in.Fleet.Paused {
		return in.paused(), time.Time{}
	}
	if w := in.Fleet.Window; w != nil {
		open, next, err := opens(*w, in.At)
		if err != nil {
			return "the window cannot be read: " + err.Error(), time.Time{}
		}
		if !open {
			return fmt.Sprintf("the window is closed; it opens %s", clock(next)), next
		}
	}
	return "", time.Time{}
}

func (in *turn) paused() string {
	return fmt.Sprintf("paused: true in fleets/%s.yaml", in.Fleet.Name)
}

// rollBack brings all devices to a release that the fleet knows.
func (in *turn) rollBack(s State) Decision {
	s.Share = 1
	m := in.members(s)
	m.take(s)
	c := m.count()
	s = in.settle(s, c)
	d := in.decision(s, c, pollSettled)
	d.Desired.Soak = 0
	switch {
	case s.Done:
		d.Text = fmt.Sprintf("back on version %d: %s%s", in.Target.Version, c.out(in), m.away(c))
		if c.Held > 0 {
			d.Text += "; " + c.heldText()
		}
		d.Wake = m.fades(in)
	case c.Devices == 0:
		d.Hold = in.nobody()
		d.Text = fmt.Sprintf("going back to version %d: %s", in.Target.Version, d.Hold)
	default:
		d.Hold = c.missing()
		d.Text = fmt.Sprintf("going back to version %d: %s; %s", in.Target.Version, c.healthyOf(), d.Hold)
	}
	return d
}

// advance judges the current wave, and goes on with the next ones as long as they pass.
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
		m.take(s)
		if more := m.missing(); len(more) > 0 {
			s.Also = slices.Concat(s.Also, more)
			m.take(s)
		}
		c := m.count()
		at := fmt.Sprintf("wave %d of %d (%s)", s.Wave+1, len(waves), waves[s.Wave])

		if s.Done {
			s = in.settle(s, c)
			d := in.decision(s, c, pollSettled)
			d.Text = fmt.Sprintf("version %d is out: %s", in.Target.Version, c.out(in))
			if c.Failed > 0 {
				d.Text += "; " + c.whys()
			}
			if c.Held > 0 {
				d.Text += "; " + c.heldText()
			}
			if c.Healthy+c.Failed > 0 {
				d.Text += "; " + evidence(c.Failed, c.Healthy+c.Failed)
			}
			d.Text += m.away(c)
			d.Wake = m.fades(in)
			return d
		}
		bad := c.Failed + c.Silent
		if bad > in.tolerated(n) {
			why := fmt.Sprintf("%s of version %d: %s", at, in.Target.Version, c.whys())
			d := in.aborted(s.Base, why)
			d.Wave = c
			return d
		}
		passed := c.Waiting+c.Held == 0 && c.Healthy > 0
		if passed && last {
			s.Done, s.Healthy = true, in.At
			continue
		}
		hold, wake := in.closed()
		if passed && hold == "" {
			s.Wave, s.Started = s.Wave+1, in.At
			continue
		}
		d := in.decision(s, c, pollMoving)
		d.Hold, d.Wake = hold, wake
		switch {
		case hold != "":
			d.Wake = earliest(wake, m.deadline(in, s))
		case c.Devices == 0:
			d.Hold = in.nobody()
		default:
			d.Hold, d.Wake = in.waiting(s, c, m)
		}
		d.Text = fmt.Sprintf("version %d, %s: %s; %s", in.Target.Version, at, c.healthyOf(), d.Hold)
		if c.Healthy+bad > 0 {
			d.Text += "; " + evidence(bad, c.Healthy+bad)
		}
		d.Text += m.away(c)
		return d
	}
}

// tolerated is how many failures a wave of n devices stands. Those that it has beyond what the fleet says, for their
// profile or since a device came back, do not count in n, so no device can raise the number.
func (in *turn) tolerated(n int) int {
	if f := in.Fleet.Budget.Failures; f != nil {
		return int(math.Floor(float64(f.Tolerable)*float64(n) + 1e-9))
	}
	return 0
}

// waiting says for whom a wave waits, and until when at least.
func (in *turn) waiting(s State, c Count, m members) (hold string, wake time.Time) {
	wake = m.deadline(in, s)
	if c.Waiting+c.Held == 0 {
		return "no device is healthy", wake
	}
	if hold = c.missing(); in.mute() {
		hold += in.absence()
	}
	if until := s.Started.Add(time.Duration(in.Fleet.Soak)); in.Fleet.Soak > 0 && until.After(in.At) {
		hold += fmt.Sprintf("; the soak lasts until %s at least", clock(until))
		wake = earliest(wake, until)
	}
	return hold, wake
}

func (in *turn) nobody() string {
	if n := len(in.fleet); n > 0 {
		return fmt.Sprintf("waiting for a device: none of %d was heard from for %s%s", n,
			delivery.Duration(in.Deadline), in.absence())
	}
	return "no device has reported yet"
}

// settle keeps the clock of a fleet that has been reached.
func (in *turn) settle(s State, c Count) State {
	if !s.Done && c.Devices > 0 && c.Healthy == c.Devices {
		s.Done, s.Healthy = true, in.At
	}
	if s.Done {
		switch {
		case c.Failed == 0 && c.Healthy == 0 && in.deaf():
			// Nobody was there to hear them, so nothing is known against them.
		case c.Failed > 0 || c.Healthy == 0:
			s.Healthy = time.Time{}
		case s.Healthy.IsZero():
			s.Healthy = in.At
		}
	}
	return s
}

// decision fills what all decisions share.
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

// previous is what devices outside the wave are told. Where no device is known
// they are told nothing: a registry that was lost takes the release from nobody.
func (in *turn) previous(s State) *delivery.Target {
	if len(in.fleet) == 0 && in.Published == nil {
		return nil
	}
	return s.Base
}

// aborted returns everybody to base.
func (in *turn) aborted(base *delivery.Target, why string) Decision {
	d := Decision{
		State: State{Base: base}, Waves: len(in.Fleet.Waves),
		Desired: &delivery.Desired{
			Ring: in.Fleet.Name, Match: in.Fleet.Match, Model: in.Fleet.Runs,
			Release: in.Target, Share: 0, Salt: Salt(in.Fleet.Name, in.Target.Bundle), NextPoll: pollSettled,
		},
		Wave: Count{All: len(in.fleet)},
		Abort: &delivery.Abort{Fleet: in.Fleet.Name, Model: in.Fleet.Runs, Bundle: in.Target.Bundle, Why: why,
			At: in.At},
	}
	d.Text = fmt.Sprintf("version %d is aborted", in.Target.Version)
	if why != "" {
		d.Text += ": " + why
	}
	if base == nil {
		d.Text += "; there is no release to fall back to, devices keep what they run"
		return d
	}
	d.Text += fmt.Sprintf("; devices go back to version %d", base.Version)
	d.Desired.Release, d.Desired.Share, d.Desired.Salt = *base, 1, Salt(in.Fleet.Name, base.Bundle)
	return d
}

// unchanged is what is published already; what was forbidden since is given to
// nobody new.
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

// Salt shuffles a fleet's devices anew for every bundle, so that it is not
// always the same one that goes first.
func Salt(fleet string, bundle delivery.Digest) string { return fleet + "/" + bundle.Short() }

// earliest is the earlier of two times; zero is never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// String is the decision in words, with what comes of it.
func (d Decision) String() string {
	var b strings.Builder
	b.WriteString(d.Text)
	if p := d.Desired; p != nil {
		fmt.Fprintf(&b, "\n  publish: version %d to %.4g of %s", p.Release.Version, p.Share, p.Ring)
		if p.Previous != nil {
			fmt.Fprintf(&b, ", version %d to the others", p.Previous.Version)
		}
	}
	if !d.Wake.IsZero() {
		b.WriteString("\n  look again: " + clock(d.Wake))
	}
	return b.String()
}

// byDevice sorts devices by id.
func byDevice(a, b member) int { return cmp.Compare(a.device.Report.Device, b.device.Report.Device) }
