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

// A standing is what one device says about the target.
type standing int

const (
	waiting standing = iota // it may still become healthy
	healthy                 // it served the target through a soak
	failed                  // it tried the target and fell back
	silent                  // took the document, and was not heard from since the deadline
	away                    // not heard from, and that says nothing about the target
	held                    // it speaks, and says why it does not move, or is not to be believed
)

type member struct {
	device   *delivery.Device
	position float64
	profile  string // hardware profile; empty: of none
	standing standing
	why      string // of one that is held
	taken    bool   // it is in the wave; see take
}

// members are a fleet's devices by their place in the rollout.
type members []member

// members judges every device of the fleet.
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

// judge looks at one device. Only what a device did with the target is evidence
// against it: one that never took the document, or said that it could not do what
// the document says, has shown nothing.
func (in *turn) judge(s State, d *delivery.Device) (standing, string) {
	r := &d.Report
	lastHeard := in.lastHeard(d)
	heard := in.At.Sub(lastHeard) <= in.Deadline
	begun := later(s.Started, in.Listening) // since when its silence says something about the target
	onTarget := r.Phase == delivery.DeviceHealthy && r.Bundle == s.Target.Bundle
	switch {
	case d.TwoPlaces(in.At, in.Deadline):
		return held, "it reports from two places: two installations have this name"
	case d.Ignored != "" && heard:
		return held, "its report does not count: " + clean(d.Ignored)
	case onTarget && heard:
		return healthy, ""
	case onTarget && !s.Done && in.deaf():
		return waiting, "" // it was well when it was heard last, and may be still
	case onTarget, s.Done && !heard:
		return away, "" // it was well when it was heard last
	// A failure that an earlier rollout of the same bundle saw does not count
	// against this one: the device has not tried again yet.
	case r.Phase == delivery.DeviceFailed && r.Failed == s.Target.Bundle && r.Desired > s.Since && d.Ignored == "":
		if in.Doubt != "" {
			return held, clean(r.Why) + "; " + in.Doubt
		}
		return failed, ""
	case lastHeard.Before(s.Started.Add(-in.Deadline)):
		return away, ""
	case in.heard().Sub(later(lastHeard, begun)) > in.Deadline:
		switch {
		case r.Held != "":
			return held, Strange(d, in.At, in.Deadline)
		case r.Desired <= s.Since:
			return away, "" // it never took the document
		}
		return silent, ""
	case r.Held != "":
		return held, Strange(d, in.At, in.Deadline)
	case in.At.Sub(begun) > in.Deadline+time.Duration(in.Fleet.Soak):
		return held, fmt.Sprintf("it reports, and has been %s since the wave began", r.Phase)
	}
	return waiting, ""
}

// deaf reports whether the server has not listened for a whole deadline yet, so that a device's silence may be the
// server's own.
func (in *turn) deaf() bool { return in.At.Sub(in.Listening) <= in.Deadline }

// heard is until when a device's silence is its own: when any device of the fleet was heard last.
func (in *turn) heard() time.Time {
	if in.Heard.IsZero() || in.Heard.After(in.At) {
		return in.At
	}
	return in.Heard
}

// absence says that silence may be the server's own; it is empty where it is not.
func (in *turn) absence() string {
	switch {
	case in.deaf():
		return "; this server heard none of them before " + clock(in.Listening)
	case in.mute():
		return fmt.Sprintf(
			"; no device of the fleet was heard since %s, so their network or this server's may be cut: "+
				"nothing is concluded from the silence before one is heard", clock(in.heard()))
	}
	return ""
}

// mute reports whether no device of the fleet was heard for a whole deadline.
func (in *turn) mute() bool { return in.At.Sub(in.heard()) > in.Deadline }

// lastHeard is when a device was heard last. A time in the future is of a clock that was set back since: then all that
// is known is that it was heard before the server's clock was right.
func (in *turn) lastHeard(d *delivery.Device) time.Time {
	if d.Seen.After(in.At.Add(odd)) && !in.Listening.IsZero() {
		return in.Listening
	}
	return d.Seen
}

// past is a time that the rollout has kept. One in the future is of a clock that was set back since, so what it says
// begins now.
func (in *turn) past(t time.Time) time.Time {
	if t.After(in.At.Add(odd)) {
		return in.At
	}
	return t
}

// Heard reports whether any of some devices was heard within a deadline.
func Heard(devices []delivery.Device, at time.Time, deadline time.Duration) bool {
	if deadline <= 0 {
		deadline = DefaultDeadline
	}
	return slices.ContainsFunc(devices, func(d delivery.Device) bool { return at.Sub(d.Seen) <= deadline })
}

// odd is how far a clock may be off before it is worth a word.
const odd = time.Minute

// Strange says what is odd about a device, by its last report and by what the
// server knows of it. It is empty where nothing is.
func Strange(d *delivery.Device, now time.Time, deadline time.Duration) string {
	var parts []string
	if d.TwoPlaces(now, deadline) {
		parts = append(parts, "it reports from two places: two installations have this name")
	}
	if d.Report.Held != "" {
		parts = append(parts, clean(d.Report.Held))
	}
	switch {
	case d.Skew >= odd:
		parts = append(parts, fmt.Sprintf("its clock is %s ahead", delivery.Duration(d.Skew.Round(time.Second))))
	case d.Skew <= -odd:
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

// profile names the hardware profile of a device: the first, by name, that has
// its board.
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

// reach is how far a wave goes along the line: n devices that are not away, and the share just above the n-th.
func (m members) reach(w delivery.Wave) (share float64, n int) {
	here := m.here()
	if w.Share >= 1 {
		return 1, len(here)
	}
	if len(here) == 0 {
		return 0, 0
	}
	n = w.Devices
	if n == 0 {
		// The slack keeps 5% of 20 devices at one, whatever the last bit says.
		n = int(math.Ceil(float64(w.Share)*float64(len(here)) - 1e-9))
	}
	n = min(max(n, 1), len(here))
	return above(here[n-1].position), n
}

// here are the members that are not away.
func (m members) here() members {
	return slices.DeleteFunc(slices.Clone(m), func(x member) bool { return x.standing == away })
}

// take puts the devices of a state's wave into it.
func (m members) take(s State) {
	for i := range m {
		m[i].taken = s.Share >= 1 || m[i].position < s.Share || slices.Contains(s.Also, m[i].position)
	}
}

// missing are the places of the devices to add to a wave so that each hardware profile has one in it: the first of each
// profile that has none. A device says itself which profile it has. So a profile adds that device alone, and none that
// stands before it: a device with a false label adds itself, or the one device that its label kept out.
func (m members) missing() []float64 {
	has := map[string]bool{}
	for _, x := range m {
		if x.taken && x.standing != away {
			has[x.profile] = true
		}
	}
	var places []float64
	for _, x := range m.here() {
		if x.profile != "" && !has[x.profile] {
			has[x.profile] = true
			places = append(places, x.position)
		}
	}
	return places
}

// above is the smallest share that holds a position. Positions lie on a grid
// that is coarser than the numbers between them, so no other is caught.
func above(position float64) float64 { return math.Nextafter(position, 2) }

// draws is how many salts are tried for the first wave.
const draws = 64

// salt is the rollout's own, or the first that draw would take.
func (in *turn) salt(s State) string {
	return cmp.Or(s.Salt, Salt(in.Fleet.Name, s.Target.Bundle))
}

// secret is the part of a salt that nobody can know before the rollout begins, so
// that no device can choose its name for the first wave.
func (in *turn) secret(s State) string {
	if in.Seed == "" {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(in.Seed))
	fmt.Fprintf(mac, "%q %s %d", in.Fleet.Name, s.Target.Bundle, s.Began.UnixNano())
	return "/" + hex.EncodeToString(mac.Sum(nil)[:6])
}

// draw chooses the salt of a new rollout: the first of some by which the first
// wave holds no device that is away, or else as few as can be. A share holds all
// devices below it: one that comes back in the middle of the first wave would
// take the release too, and a wave of one would be two.
func (in *turn) draw(s State) string {
	first := Salt(in.Fleet.Name, s.Target.Bundle) + in.secret(s)
	if len(in.Fleet.Waves) == 0 {
		return first
	}
	best, fewest := first, math.MaxInt
	for i := range draws {
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

// count sums up the devices of the wave.
func (m members) count() Count {
	c := Count{All: len(m)}
	var bad, stuck members
	for _, x := range m {
		if x.standing == away {
			c.Away++
			continue
		}
		if !x.taken {
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
		why := "silent since " + clock(x.device.Seen)
		if x.standing == failed {
			why = clean(x.device.Report.Why)
		}
		c.Why = append(c.Why, x.device.Report.Device+": "+why)
	}
	return c
}

// deadline is when the next device of the wave would count as silent.
func (m members) deadline(in *turn, s State) time.Time {
	var wake time.Time
	begun := later(s.Started, in.Listening)
	for _, x := range m {
		if x.standing == waiting && x.taken {
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

// fades is when the next device that is heard will not be.
func (m members) fades(in *turn) time.Time {
	var wake time.Time
	if in.deaf() {
		wake = in.Listening.Add(in.Deadline + time.Second)
	}
	for _, x := range m {
		if at := in.lastHeard(x.device).Add(in.Deadline + time.Second); at.After(in.At) {
			wake = earliest(wake, at)
		}
	}
	return wake
}

// away names the devices that are left out.
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

// out says how a fleet stands that has been reached.
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
	return fmt.Sprintf("%d of %s healthy", c.Healthy, devices(c.Devices))
}

// missing says who has not made it yet.
func (c Count) missing() string {
	var parts []string
	if c.Waiting > 0 {
		parts = append(parts, "waiting for "+devices(c.Waiting))
	}
	if c.Held > 0 {
		parts = append(parts, c.heldText())
	}
	if c.Failed+c.Silent > 0 {
		parts = append(parts, c.whys())
	}
	return strings.Join(parts, "; ")
}

// heldText says why devices are held.
func (c Count) heldText() string {
	s := fmt.Sprintf("%s held (%s", devices(c.Held), strings.Join(c.HeldWhy, "; "))
	if n := c.Held - len(c.HeldWhy); n > 0 {
		s += fmt.Sprintf("; and %d more", n)
	}
	return s + ")"
}

// whys says what went wrong.
func (c Count) whys() string {
	s := fmt.Sprintf("%s failed", devices(c.Failed+c.Silent))
	if c.Failed == 0 {
		s = fmt.Sprintf("%s silent", devices(c.Silent))
	}
	s += " (" + strings.Join(c.Why, "; ")
	if n := c.Failed + c.Silent - len(c.Why); n > 0 {
		s += fmt.Sprintf("; and %d more", n)
	}
	return s + ")"
}

func devices(n int) string {
	if n == 1 {
		return "1 device"
	}
	return fmt.Sprintf("%d devices", n)
}

// clean makes what a device wrote fit for one line of a report.
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
