package rollout

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

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
	why      string // reason, if held
	inWave   bool   // is in the wave; set by markWave
}

// members are the fleet's devices, sorted by position.
type members []member

// members computes the standing of every device of the fleet.
func (in *turn) members(s State) members {
	salt := in.salt(s)
	m := make(members, 0, len(in.fleet))
	for _, d := range in.fleet {
		x := member{device: d, position: delivery.WavePosition(salt, d.Report.Device), profile: profile(in.Fleet, d)}
		x.standing, x.why = in.judge(s, d)
		m = append(m, x)
	}
	slices.SortFunc(m, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.position, b.position), cmp.Compare(a.device.Report.Device, b.device.Report.Device))
	})
	return m
}

// judge returns a device's standing, and the reason if it is held. Only what a device did with the
// target is evidence against the target: a device that never received the document, or reported that
// it could not follow it, shows nothing.
func (in *turn) judge(s State, d *delivery.Device) (standing, string) {
	r := &d.Report
	lastHeard := in.lastHeard(d)
	recent := in.At.Sub(lastHeard) <= in.Deadline
	begun := later(s.Started, in.Listening) // silence before this says nothing about the target
	onTarget := r.Phase == delivery.DeviceHealthy && r.Bundle == s.Target.Bundle
	switch {
	case d.TwoPlaces(in.At, in.Deadline):
		return held, "it reports from two places: two installations have this name"
	case d.Ignored != "" && recent:
		return held, "its report does not count: " + clean(d.Ignored)
	case onTarget && recent:
		return healthy, ""
	case onTarget && !s.Done && in.justListening():
		return waiting, "" // it was healthy when last heard, and may still be
	case onTarget, s.Done && !recent:
		return away, "" // it was healthy when last heard
	// A failure that was reported to an earlier rollout of the same bundle does not count: the device has
	// not tried again yet.
	case r.Phase == delivery.DeviceFailed && r.Failed == s.Target.Bundle && r.Desired > s.Since && d.Ignored == "":
		if in.Doubt != "" {
			return held, clean(r.Why) + "; " + in.Doubt
		}
		return failed, ""
	case lastHeard.Before(s.Started.Add(-in.Deadline)):
		return away, ""
	case in.silenceUntil().Sub(later(lastHeard, begun)) > in.Deadline:
		switch {
		case r.Blocked != "":
			return held, Anomalies(d, in.At, in.Deadline)
		case r.Desired <= s.Since:
			return away, "" // it never received the document
		}
		return silent, ""
	case r.Blocked != "":
		return held, Anomalies(d, in.At, in.Deadline)
	case in.At.Sub(begun) > in.Deadline+time.Duration(in.Fleet.Soak):
		return held, fmt.Sprintf("it reports, and has been %s since the wave began", r.Phase)
	}
	return waiting, ""
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

// absence explains that the silence may be the server's or the network's fault. It is empty if it is not.
func (in *turn) absence() string {
	switch {
	case in.justListening():
		return "; this server heard none of them before " + clock(in.Listening)
	case in.allSilent():
		return fmt.Sprintf(
			"; no device of the fleet was heard since %s, so their network or this server's may be cut: "+
				"nothing is concluded from the silence before one is heard", clock(in.silenceUntil()))
	}
	return ""
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

// Heard reports whether any of the devices was heard from within the deadline; a deadline of zero is
// DefaultDeadline.
func Heard(devices []delivery.Device, at time.Time, deadline time.Duration) bool {
	if deadline <= 0 {
		deadline = DefaultDeadline
	}
	return slices.ContainsFunc(devices, func(d delivery.Device) bool { return at.Sub(d.LastHeard) <= deadline })
}

// maxSkew is the clock difference from which a device's clock is reported.
const maxSkew = time.Minute

// Anomalies describes what is wrong with a device, from its last report and from what the server
// observed. It is empty if nothing is.
func Anomalies(d *delivery.Device, now time.Time, deadline time.Duration) string {
	var parts []string
	if d.TwoPlaces(now, deadline) {
		parts = append(parts, "it reports from two places: two installations have this name")
	}
	if d.Report.Blocked != "" {
		parts = append(parts, clean(d.Report.Blocked))
	}
	switch {
	case d.Skew >= maxSkew:
		parts = append(parts, fmt.Sprintf("its clock is %s ahead", delivery.Duration(d.Skew.Round(time.Second))))
	case d.Skew <= -maxSkew:
		parts = append(parts, fmt.Sprintf("its clock is %s behind", delivery.Duration(-d.Skew.Round(time.Second))))
	}
	if d.Ignored != "" {
		parts = append(parts, "its report does not count: "+clean(d.Ignored))
	}
	return strings.Join(parts, "; ")
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

// missingProfiles returns the positions of the devices to add to a wave so that it contains each hardware
// profile: the first device of each profile that has none. Devices report their own labels, so only
// that device is added and none before it: a false label adds the device that has it, or the one
// device that it kept out.
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
func (in *turn) salt(s State) string {
	return cmp.Or(s.Salt, Salt(in.Fleet.Name, s.Target.Bundle))
}

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
	slices.SortFunc(stuck, byDevice)
	for _, x := range stuck[:min(5, len(stuck))] {
		c.HeldWhy = append(c.HeldWhy, x.device.Report.Device+": "+x.why)
	}
	slices.SortFunc(bad, byDevice)
	for _, x := range bad[:min(5, len(bad))] {
		why := "silent since " + clock(x.device.LastHeard)
		if x.standing == failed {
			why = clean(x.device.Report.Why)
		}
		c.Why = append(c.Why, x.device.Report.Device+": "+why)
	}
	return c
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
func (m members) away(c Count) string {
	if c.Away == 0 {
		return ""
	}
	var names []string
	for _, x := range m {
		if x.standing == away {
			names = append(names, x.device.Report.Device)
		}
	}
	slices.Sort(names)
	more := ""
	if len(names) > 5 {
		names, more = names[:5], ", …"
	}
	return fmt.Sprintf("; away: %s%s", strings.Join(names, ", "), more)
}

// out is the sentence about a fleet whose rollout is done.
func (c Count) out(in *turn) string {
	last := fmt.Sprintf("seen in the last %s%s", delivery.Duration(in.Deadline), in.absence())
	if c.Devices == 0 && c.Away > 0 {
		return fmt.Sprintf("0 of %d %s", c.Away, last)
	}
	s := c.healthyOf()
	if c.Away > 0 {
		s += fmt.Sprintf(", of %d %s", c.Devices, last)
	}
	return s
}

func (c Count) healthyOf() string {
	return fmt.Sprintf("%d of %s healthy", c.Healthy, delivery.Count(c.Devices, "device"))
}

// missing is the sentence about the devices of the wave that are not healthy.
func (c Count) missing() string {
	var parts []string
	if c.Waiting > 0 {
		parts = append(parts, "waiting for "+delivery.Count(c.Waiting, "device"))
	}
	if c.Held > 0 {
		parts = append(parts, c.heldText())
	}
	if c.Failed+c.Silent > 0 {
		parts = append(parts, c.whys())
	}
	return strings.Join(parts, "; ")
}

// heldText names the held devices and their reasons.
func (c Count) heldText() string {
	s := fmt.Sprintf("%s held (%s", delivery.Count(c.Held, "device"), strings.Join(c.HeldWhy, "; "))
	if n := c.Held - len(c.HeldWhy); n > 0 {
		s += fmt.Sprintf("; and %d more", n)
	}
	return s + ")"
}

// whys names the failed and silent devices and their reasons.
func (c Count) whys() string {
	s := fmt.Sprintf("%s failed", delivery.Count(c.Failed+c.Silent, "device"))
	if c.Failed == 0 {
		s = fmt.Sprintf("%s silent", delivery.Count(c.Silent, "device"))
	}
	s += " (" + strings.Join(c.Why, "; ")
	if n := c.Failed + c.Silent - len(c.Why); n > 0 {
		s += fmt.Sprintf("; and %d more", n)
	}
	return s + ")"
}

// clean makes a device's text printable on one line, and cuts it to 200 characters.
func clean(why string) string {
	why = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, why)
	if r := []rune(why); len(r) > 200 {
		why = string(r[:199]) + "…"
	}
	if strings.TrimSpace(why) == "" {
		return "no reason given"
	}
	return why
}
