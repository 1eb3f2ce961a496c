package words

import (
	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// devices are some of a fleet's devices, with their reasons.
const devices = " ({facts}[; and {moreFacts} more])"

// Rollouts, and the devices in them.
var rollouts = map[delivery.Code]sentence{
	code.RolloutNotBegun: text("version {version} has not started: {facts}"),
	code.RolloutDone:     text("version {version} is rolled out: {facts}"),
	code.RollingBack:     text("rolling back to version {version}: {facts}"),
	code.RolledBack:      text("rolled back to version {version}: {facts}"),
	code.RolloutWave:     text("version {version}, wave {count} of {total} ({wave}): {facts}"),
	code.RolloutAborted:  text("[aborted: {facts}|version {version} is aborted]"),
	code.DevicesGoBack:   text("the devices go back to version {version}"),
	code.NothingBefore:   text("there is no release to go back to, so the devices keep what they run"),

	code.RolloutPaused:     text("paused: true in fleets/{fleet}.yaml; remove it to go on"),
	code.WindowClosed:      text("outside the update window, which opens {at}"),
	code.WindowUnreadable:  text("window: in fleets/{fleet}.yaml is not valid: {text}"),
	code.FleetAwaited:      text("waiting for fleet {fleet} to run version {version} healthily for {lasts}"),
	code.FleetAwaitedUntil: text("waiting until {at} for fleet {fleet} to be healthy for {lasts}"),
	code.FleetUnheard:      text("waiting for fleet {fleet}: none of its devices was heard from for {lasts}"),
	code.SoakUntil:         text("the soak lasts until {at} at least"),
	code.FailureRate: text("{count} of {total device} failed, which does not rule out a failure rate of up to " +
		"{failureRate} %"),

	code.NoDevice:       text("no device has reported yet; aob-agent run --help shows how to start one"),
	code.NoneHeard:      text("waiting for a device: none of {total} was heard from for {lasts}"),
	code.NoneHealthy:    text("no device is healthy, so the next wave does not start"),
	code.DevicesHealthy: text("{count} of {total device} healthy"),
	code.DevicesSeen:    text("{count} of {total device} seen in the last {lasts}"),
	code.DevicesAwaited: text("waiting for {count device}"),
	code.DevicesHeld:    text("{count device} held: they report and do not install" + devices),
	code.DevicesFailed:  text("{count device} failed" + devices),
	code.DevicesSilent:  text("{count device} silent" + devices),
	code.DevicesAway:    text("not heard from for long, so not counted: {names}[ and {moreNames} more]"),
	code.ServerWasAway:  text("this server receives reports only since {at}; silent devices may still report"),
	code.FleetSilent: text("no device of the fleet has reported since {at}: check the network; silence counts " +
		"as a failure only after one of them reports again"),

	code.OfDevice:       text("{device}: {facts}"),
	code.DeviceSays:     text("{says}"),
	code.DeviceSilent:   text("silent since {at}"),
	code.DeviceStuck:    text("it reports, but has been {stage} since {at}"),
	code.DeviceTwice:    text("it reports from two places: two installations have this name; rename one of them"),
	code.ReportIgnored:  text("its report does not count: {text}"),
	code.ClockAhead:     text("its clock is {lasts} ahead; set it"),
	code.ClockBehind:    text("its clock is {lasts} behind; set it"),
	code.FailureDoubted: text("this failure does not count, as the server has lost {files} of the bundle"),
	code.FailureChecked: text("this failure counts once the server has checked its own store"),
}

// Abort writes the reason of an abort, where it is not written yet. People read it in statements and quarantine files.
func Abort(a delivery.Abort, because delivery.Fact) delivery.Abort {
	if a.Why == "" {
		a.Why = delivery.Terminal(Text(because))
	}
	return a
}
