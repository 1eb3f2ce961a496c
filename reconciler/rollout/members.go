package rollout

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A standing is the state of one device with respect to the target release.
type standing int

const (
	waiting standing = iota // may still become healthy
	healthy                 // served the target through the soak
	failed                  // tried the target and fell back
	silent                  // received the document, then not heard from for the deadline
	away                    // not heard from; no evidence about the target
	held                    // reports and does not install, or its report is not trusted
)

type member struct {
	device   *delivery.Device
	position float64
	profile  string // name of the hardware profile; empty if none
	standing standing
	why      []delivery.Fact // reasons, if failed, silent or held
	inWave   bool            // is in the wave; set by markWave
}

// members are the fleet's devices, sorted by position.
type members []member

// members computes the standing of every device of the fleet.
func (in *turn) members(s State) members {
	salt := in.salt(s)
	type place struct { // what is sorted is small, as there may be very many
		position float64
		device   *delivery.Device
	}
	places := make([]place, 0, len(in.fleet))
	for _, d := range in.fleet {
		places = append(places, place{delivery.WavePosition(salt, d.Report.Device), d})
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.position == b.position {
			return cmp.Compare(a.device.Report.Device, b.device.Report.Device)
		}
		return cmp.Compare(a.position, b.position)
	})
	m := make(members, 0, len(places))
	for _, p := range places {
		x := member{device: p.device, position: p.position, profile: profile(in.Fleet, p.device)}
		x.standing, x.why = in.judge(s, p.device)
		m = append(m, x)
	}
	return m
}

// judge returns a device's standing, and the reasons if it failed, is silent or is held. Only what a
// device did with the target is evidence against the target: a device that never received the document,
// or reported that it could not follow it, shows nothing.
func (in *turn) judge(s State, d *delivery.Device) (standing, []delivery.Fact) {
	r := &d.Report
	lastHeard := in.lastHeard(d)
	recent := in.At.Sub(lastHeard) <= in.Deadline
	begun := later(s.Started, in.Listening) // silence before this says nothing about the target
	onTarget := r.Phase == delivery.DeviceHealthy && r.Bundle == s.Target.Bundle
	switch {
	case d.TwoPlaces(in.At, in.Deadline):
		return held, Anomalies(d, in.At, in.Deadline)
	case d.Ignored != "" && recent:
		return held, Anomalies(d, in.At, in.Deadline)
	case onTarget && recent:
		return healthy, nil
	case onTarget && !s.Done && in.justListening():
		return waiting, nil // it was healthy when last heard, and may still be
	case onTarget, s.Done && !recent:
		return away, nil // it was healthy when last heard
	// A failure that was reported to an earlier rollout of the same bundle does not count: the device has
	// not tried again yet.
	case r.Phase == delivery.DeviceFailed && r.Failed == s.Target.Bundle && r.Desired > s.Since && d.Ignored == "":
		if !in.Untrusted.IsZero() {
			return held, []delivery.Fact{reason(r.Why), in.Untrusted}
		}
		return failed, []delivery.Fact{reason(r.Why)}
	case lastHeard.Before(s.Started.Add(-in.Deadline)):
		return away, nil
	case in.silenceUntil().Sub(later(lastHeard, begun)) > in.Deadline:
		switch {
		case r.Blocked != "":
			return held, Anomalies(d, in.At, in.Deadline)
		case r.Desired <= s.Since:
			return away, nil // it never received the document
		}
		return silent, []delivery.Fact{fact(code.DeviceSilent, values{At: d.LastHeard})}
	case r.Blocked != "":
		return held, Anomalies(d, in.At, in.Deadline)
	case in.At.Sub(begun) > in.Deadline+time.Duration(in.Fleet.Soak):
		return held, []delivery.Fact{fact(code.DeviceStuck, values{Stage: string(r.Phase), At: begun})}
	}
	return waiting, nil
}

// justListening reports whether the server has been listening for less than the deadline, so that a device's
// silence may be the server's fault.
func (in *turn) justListening() bool { return in.At.Sub(in.Listening) <= in.Deadline }

// silenceUntil returns the time up to which silence counts: the last report of any device of the fleet.
func (in *turn) silenceUntil() time.Time {
	if in.Heard.IsZero() || in.Heard.After(in.At) {
		return in.At
	}
	return in.Heard
}

// absence explains that the silence may be the server's or the network's fault. It is no fact if it is not.
func (in *turn) absence() []delivery.Fact {
	switch {
	case in.justListening():
		return []delivery.Fact{fact(code.ServerWasAway, values{At: in.Listening})}
	case in.allSilent():
		return []delivery.Fact{fact(code.FleetSilent, values{At: in.silenceUntil()})}
	}
	return nil
}

// allSilent reports whether no device of the fleet was heard from for the deadline.
func (in *turn) allSilent() bool { return in.At.Sub(in.silenceUntil()) > in.Deadline }

// lastHeard returns when a device was last heard from. A time in the future comes from a server clock
// that was set back since; then the device was heard some time before Listening.
func (in *turn) lastHeard(d *delivery.Device) time.Time {
	if d.LastHeard.After(in.At.Add(maxSkew)) && !in.Listening.IsZero() {
		return in.Listening
	}
	return d.LastHeard
}

// notInFuture returns t, or now if t is in the future. A stored time in the future comes from a server clock
// that was set back since, so the period that it begins is counted from now.
func (in *turn) notInFuture(t time.Time) time.Time {
	if t.After(in.At.Add(maxSkew)) {
		return in.At
	}
	return t
}

// Heard reports whether any of the devices was heard from within the deadline; a deadline of zero is DefaultDeadline.
func Heard(devices []delivery.Device, at time.Time, deadline time.Duration) bool {
	if deadline <= 0 {
		deadline = DefaultDeadline
	}
	return slices.ContainsFunc(devices, func(d delivery.Device) bool { return at.Sub(d.LastHeard) <= deadline })
}

// maxSkew is the clock difference from which a device's clock is reported.
const maxSkew = time.Minute

// Anomalies returns what is wrong with a device, from its last report and from what the server observed.
func Anomalies(d *delivery.Device, now time.Time, deadline time.Duration) (list []delivery.Fact) {
	if d.TwoPlaces(now, deadline) {
		list = append(list, fact(code.DeviceTwice, values{}))
	}
	if d.Report.Blocked != "" {
		list = append(list, reason(d.Report.Blocked))
	}
	if skew := delivery.Duration(d.Skew.Round(time.Second)); d.Skew >= maxSkew {
		list = append(list, fact(code.ClockAhead, values{Lasts: skew}))
	} else if d.Skew <= -maxSkew {
		list = append(list, fact(code.ClockBehind, values{Lasts: -skew}))
	}
	if d.Ignored != "" {
		list = append(list, fact(code.ReportIgnored, values{Text: d.Ignored}))
	}
	return list
}

// reason is what a device says, at most 200 characters of it.
func reason(why string) delivery.Fact {
	return fact(code.DeviceSays, values{Text: delivery.Cut(why, 200)})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// profile returns the hardware profile of a device: the first, by name, with the device's board.
func profile(f delivery.Fleet, d *delivery.Device) string {
	if len(f.Profiles) == 0 {
		return ""
	}
	board := d.Report.Labels["board"]
	name := ""
	for n, p := range f.Profiles {
		if p.Board == board && board != "" && (name == "" || n < name) {
			name = n
		}
	}
	return name
}

// reach returns the share of the line that a wave covers, just above its last device, and how many
// devices that are not away are in it.
func (m members) reach(w delivery.Wave) (share float64, n int) {
	present := m.present()
	if w.Share >= 1 {
		return 1, len(present)
	}
	if len(present) == 0 {
		return 0, 0
	}
	n = w.Devices
	if n == 0 {
		// The slack keeps 5% of 20 devices at 1 despite rounding.
		n = int(math.Ceil(float64(w.Share)*float64(len(present)) - 1e-9))
	}
	n = min(max(n, 1), len(present))
	return shareAbove(present[n-1].position), n
}

// present returns the members that are not away.
func (m members) present() members {
	return slices.DeleteFunc(slices.Clone(m), func(x member) bool { return x.standing == away })
}

// markWave marks the devices of the state's wave.
func (m members) markWave(s State) {
	for i := range m {
		m[i].inWave = s.Share >= 1 || m[i].position < s.Share || slices.Contains(s.Also, m[i].position)
	}
}

// missingProfiles returns the positions of the devices to add to a wave so that it contains each hardware profile: the
// first device of each profile that has none. Devices report their own labels, so only that device is added and none
// before it: a false label adds the device that has it, or the one device that it kept out.
func (m members) missingProfiles() []float64 {
	has := map[string]bool{}
	for _, x := range m {
		if x.inWave && x.standing != away {
			has[x.profile] = true
		}
	}
	var places []float64
	for _, x := range m.present() {
		if x.profile != "" && !has[x.profile] {
			has[x.profile] = true
			places = append(places, x.position)
		}
	}
	return places
}

// shareAbove returns the smallest share that includes a position. Positions lie on a grid that is coarser
// than the spacing of floats, so no other device is included.
func shareAbove(position float64) float64 { return math.Nextafter(position, 2) }

// saltCandidates is how many salts are tried for a first wave.
const saltCandidates = 64

// salt returns the rollout's salt, or the first candidate if chooseSalt has not chosen one yet.
func (in *turn) salt(s State) string { return cmp.Or(s.Salt, Salt(in.Fleet.Name, s.Target.Bundle)) }

// secret returns the part of a salt that cannot be known before the rollout begins, so that nobody can
// choose a device name that gets into the first wave.
func (in *turn) secret(s State) string {
	if in.Seed == "" {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(in.Seed))
	fmt.Fprintf(mac, "%q %s %d", in.Fleet.Name, s.Target.Bundle, s.Began.UnixNano())
	return "/" + hex.EncodeToString(mac.Sum(nil)[:6])
}

// chooseSalt chooses the salt of a new rollout: the first candidate whose first wave contains no away
// device, or else the fewest. A share includes all devices below it, so an away device that returns
// during the first wave would get the release too, and a wave of one would be two.
func (in *turn) chooseSalt(s State) string {
	first := Salt(in.Fleet.Name, s.Target.Bundle) + in.secret(s)
	if len(in.Fleet.Waves) == 0 {
		return first
	}
	best, fewest := first, math.MaxInt
	for i := range saltCandidates {
		if s.Salt = first; i > 0 {
			s.Salt += fmt.Sprintf("/%d", i)
		}
		m := in.members(s)
		share, _ := m.reach(in.Fleet.Waves[0])
		caught := 0
		for _, x := range m {
			if x.standing == away && x.position < share {
				caught++
			}
		}
		if caught < fewest {
			best, fewest = s.Salt, caught
		}
		if fewest == 0 || share >= 1 {
			break
		}
	}
	return best
}

// count counts the devices of the wave by standing.
func (m members) count() Count {
	c := Count{All: len(m)}
	var bad, stuck members
	for _, x := range m {
		if x.standing == away {
			c.Away++
			continue
		}
		if !x.inWave {
			continue
		}
		c.Devices++
		switch x.standing {
		case healthy:
			c.Healthy++
		case failed:
			c.Failed++
			bad = append(bad, x)
		case silent:
			c.Silent++
			bad = append(bad, x)
		case held:
			c.Held++
			stuck = append(stuck, x)
		default:
			c.Waiting++
		}
	}
	c.Stuck = stuck.named(code.DevicesHeld)
	if c.Bad = bad.named(code.DevicesFailed); c.Failed == 0 {
		c.Bad = bad.named(code.DevicesSilent)
	}
	return c
}

// named is the facts about some devices, by name. At most five give their reasons. It is empty if there are none.
func (m members) named(of delivery.Code) []delivery.Fact {
	if len(m) == 0 {
		return nil
	}
	slices.SortFunc(m, func(a, b member) int { return cmp.Compare(a.device.Report.Device, b.device.Report.Device) })
	v := values{Count: len(m)}
	for _, x := range m[:min(5, len(m))] {
		v.Facts = append(v.Facts, fact(code.OfDevice, values{Device: x.device.Report.Device, Facts: x.why}))
	}
	return []delivery.Fact{fact(of, v)}
}

// deadline returns when the next waiting device of the wave would count as silent or as held.
func (m members) deadline(in *turn, s State) time.Time {
	var wake time.Time
	begun := later(s.Started, in.Listening)
	for _, x := range m {
		if x.standing == waiting && x.inWave {
			if quiet := later(in.lastHeard(x.device), begun).Add(in.Deadline + time.Second); quiet.After(in.At) {
				wake = earliest(wake, quiet)
			}
			if stuck := begun.Add(in.Deadline + time.Duration(in.Fleet.Soak) + time.Second); stuck.After(in.At) {
				wake = earliest(wake, stuck)
			}
		}
	}
	return wake
}

// nextSilence returns when the next device that counts as heard would become silent.
func (m members) nextSilence(in *turn) time.Time {
	var wake time.Time
	if in.justListening() {
		wake = in.Listening.Add(in.Deadline + time.Second)
	}
	for _, x := range m {
		if at := in.lastHeard(x.device).Add(in.Deadline + time.Second); at.After(in.At) {
			wake = earliest(wake, at)
		}
	}
	return wake
}

// away names the devices that are not counted, at most five.
func (m members) away(c Count) []delivery.Fact {
	var names []string
	for _, x := range m {
		if x.standing == away {
			names = append(names, x.device.Report.Device)
		}
	}
	if names == nil {
		return nil
	}
	slices.Sort(names)
	return []delivery.Fact{fact(code.DevicesAway, values{Count: c.Away, Names: names[:min(5, len(names))]})}
}

// out is the facts about a fleet whose rollout is done.
func (c Count) out(in *turn) (list []delivery.Fact) {
	if c.Devices > 0 || c.Away == 0 {
		list = c.healthy()
	}
	if c.Away > 0 {
		list = append(list, fact(code.DevicesSeen, values{Count: c.Devices, Total: c.Devices + c.Away,
			Lasts: delivery.Duration(in.Deadline)}))
		list = append(list, in.absence()...)
	}
	return list
}

func (c Count) healthy() []delivery.Fact {
	return one(code.DevicesHealthy, values{Count: c.Healthy, Total: c.Devices})
}

// missing is the facts about the devices of the wave that are not healthy.
func (c Count) missing() (list []delivery.Fact) {
	if c.Waiting > 0 {
		list = append(list, fact(code.DevicesAwaited, values{Count: c.Waiting}))
	}
	return slices.Concat(list, c.Stuck, c.Bad)
}
