package words

import (
	"fmt"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// Rollouts, and the devices in them.
var rollouts = map[delivery.Code]sentence{
	code.RolloutNotBegun: about("version %d has not started", ofVersion),
	code.RolloutDone:     about("version %d is rolled out", ofVersion),
	code.RollingBack:     about("rolling back to version %d", ofVersion),
	code.RolledBack:      about("rolled back to version %d", ofVersion),
	code.RolloutWave: about("version %d, wave %d of %d (%s)", func(v delivery.Values) []any {
		return []any{v.Version, v.Count, v.Total, waveSize(v.Text)}
	}),
	code.RolloutAborted: func(v delivery.Values) string {
		if len(v.Facts) > 0 {
			return "aborted: " + inner(v)
		}
		return fmt.Sprintf("version %d is aborted", v.Version)
	},
	code.DevicesGoBack: func(v delivery.Values) string {
		return fmt.Sprintf("the devices go back to version %d", v.Version)
	},
	code.NothingBefore: fixed("there is no release to go back to, so the devices keep what they run"),

	code.RolloutPaused: func(v delivery.Values) string {
		return fmt.Sprintf("paused: true in fleets/%s.yaml; remove it to go on", v.Fleet)
	},
	code.WindowClosed: func(v delivery.Values) string { return "the window is closed; it opens " + clock(v.At) },
	code.WindowUnreadable: func(v delivery.Values) string {
		return fmt.Sprintf("the window in fleets/%s.yaml cannot be read: %s", v.Fleet, v.Text)
	},
	code.FleetAwaited: func(v delivery.Values) string {
		return fmt.Sprintf("waiting for fleet %s to run version %d healthily for %s", v.Fleet, v.Version, v.Lasts)
	},
	code.FleetAwaitedUntil: func(v delivery.Values) string {
		return fmt.Sprintf("waiting until %s for fleet %s to be healthy for %s", clock(v.At), v.Fleet, v.Lasts)
	},
	code.FleetUnheard: func(v delivery.Values) string {
		return fmt.Sprintf("waiting for fleet %s: none of its devices was heard from for %s", v.Fleet, v.Lasts)
	},
	code.SoakUntil: func(v delivery.Values) string {
		return fmt.Sprintf("the soak lasts until %s at least", clock(v.At))
	},
	code.FailureRate: func(v delivery.Values) string {
		rate := fmt.Sprintf("%.2g", 100*v.High)
		if v.High >= 0.1 {
			rate = fmt.Sprintf("%.0f", 100*v.High)
		}
		return fmt.Sprintf("a failure rate up to %s %% is not ruled out (%d of %s failed)", rate, v.Count,
			delivery.Count(v.Total, "device"))
	},

	code.NoDevice: fixed("no device has reported yet; aob-agent run --help shows how to start one"),
	code.NoneHeard: func(v delivery.Values) string {
		return fmt.Sprintf("waiting for a device: none of %d was heard from for %s", v.Total, v.Lasts)
	},
	code.NoneHealthy: fixed("no device is healthy, so the next wave does not start"),
	code.DevicesHealthy: func(v delivery.Values) string {
		return fmt.Sprintf("%d of %s healthy", v.Count, delivery.Count(v.Total, "device"))
	},
	code.DevicesSeen: func(v delivery.Values) string {
		return fmt.Sprintf("%d of %s seen in the last %s", v.Count, delivery.Count(v.Total, "device"), v.Lasts)
	},
	code.DevicesAwaited: func(v delivery.Values) string { return "waiting for " + delivery.Count(v.Count, "device") },
	code.DevicesHeld:    devices("held"),
	code.DevicesFailed:  devices("failed"),
	code.DevicesSilent:  devices("silent"),
	code.DevicesAway: func(v delivery.Values) string {
		text := "away, and not counted: " + strings.Join(v.Names, ", ")
		if n := v.Count - len(v.Names); n > 0 {
			text += fmt.Sprintf(" and %d more", n)
		}
		return text
	},
	code.ServerWasAway: func(v delivery.Values) string {
		return fmt.Sprintf("this server receives reports only since %s, so they may still report", clock(v.At))
	},
	code.FleetSilent: func(v delivery.Values) string {
		return fmt.Sprintf("no device of the fleet was heard from since %s, so the network may be cut; their silence "+
			"counts as a failure only after one is heard from", clock(v.At))
	},

	code.OfDevice: about("%s", func(v delivery.Values) []any { return []any{v.Device} }),
	code.DeviceSays: func(v delivery.Values) string {
		if text := delivery.Terminal(v.Text); text != "" {
			return text
		}
		return "no reason given"
	},
	code.DeviceSilent: func(v delivery.Values) string { return "silent since " + clock(v.At) },
	code.DeviceStuck: func(v delivery.Values) string {
		return fmt.Sprintf("it reports, but has been %s since %s", v.Stage, clock(v.At))
	},
	code.DeviceTwice:   fixed("it reports from two places: two installations have this name; rename one of them"),
	code.ReportIgnored: func(v delivery.Values) string { return "its report does not count: " + v.Text },
	code.ClockAhead:    func(v delivery.Values) string { return fmt.Sprintf("its clock is %s ahead", v.Lasts) },
	code.ClockBehind:   func(v delivery.Values) string { return fmt.Sprintf("its clock is %s behind", v.Lasts) },
	code.FailureDoubted: func(v delivery.Values) string {
		return "this does not count, as the server's store has lost " + strings.Join(v.Files, ", ")
	},
	code.FailureChecked: fixed("this counts once the server has checked its own store"),
}

func ofVersion(v delivery.Values) []any { return []any{v.Version} }

// waveSize says how much of a fleet a wave has, from what fleets/NAME.yaml says.
func waveSize(wave string) string {
	switch {
	case wave == "1":
		return "1 device"
	case strings.HasSuffix(wave, "%"):
		return wave + " of the devices"
	}
	return wave + " devices"
}

// devices names devices with their reasons.
func devices(are string) sentence {
	return func(v delivery.Values) string {
		text := fmt.Sprintf("%s %s (%s", delivery.Count(v.Count, "device"), are, inner(v))
		if n := v.Count - len(v.Facts); n > 0 {
			text += fmt.Sprintf("; and %d more", n)
		}
		return text + ")"
	}
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// Abort writes the reason of an abort, where it is not written yet. People read it in statements and quarantine files.
func Abort(a delivery.Abort, because delivery.Fact) delivery.Abort {
	if a.Why == "" {
		a.Why = delivery.Terminal(Text(because))
	}
	return a
}
