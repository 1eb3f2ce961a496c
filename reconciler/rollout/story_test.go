package rollout_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

var update = flag.Bool("update", false, "write testdata/story.txt anew")

// TestStory writes the decisions about one release that is rolled out in waves and one that is aborted.
func TestStory(t *testing.T) {
	const path = "testdata/story.txt"
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wanted := strings.SplitAfter(string(want), "\n\n")
	var b strings.Builder
	in := rollout.Input{Fleet: fleet("1", "25%", "100%"), Target: v2, Previous: &v1, At: noon}
	in.Fleet.Window = &delivery.Window{Days: []string{"tue", "wed"}, From: "11:00", To: "13:00", Zone: "UTC"}
	published := int64(0)
	decide := func(what string) rollout.Decision {
		d := rollout.Next(in)
		text := fmt.Sprintf("%s: %s\n%s\n\n", in.At.Format("Mon 15:04"), what, d)
		b.WriteString(text)
		t.Run(what, func(t *testing.T) {
			if diff := cmp.Diff(strings.Join(wanted[:min(1, len(wanted))], ""), text); diff != "" && !*update {
				t.Errorf("it changed; run go test -update and review the diff (-want +got):\n%s", diff)
			}
		})
		wanted = wanted[min(1, len(wanted)):]
		published++
		in.State, in.Published = d.State, d.Desired
		in.Published.Version = published
		return d
	}
	// follow lets the first n devices of the wave, by name, run what they are given.
	follow := func(n int, phase delivery.DevicePhase) {
		for i := range in.Devices {
			in.Devices[i].LastHeard = in.At
			r := &in.Devices[i].Report
			if n > 0 && in.Published.InWave(r.Device) {
				r.Phase, r.Bundle = phase, in.Published.Release.Bundle
				n--
			}
		}
	}

	decide("nobody is there")
	in.Devices = all(8, delivery.DeviceHealthy, v1)
	decide("eight devices on version 1")
	follow(8, delivery.DeviceSoaking)
	in.At = in.At.Add(10 * time.Minute)
	decide("the canary soaks")
	in.At = in.At.Add(21 * time.Minute)
	follow(8, delivery.DeviceHealthy)
	in.Fleet.Paused = true
	decide("the canary is healthy, and the fleet is paused")
	in.Fleet.Paused = false
	decide("no longer paused")
	in.At = in.At.Add(35 * time.Minute)
	follow(8, delivery.DeviceHealthy)
	decide("the second wave is healthy, too late")
	in.At = in.At.Add(22 * time.Hour)
	follow(0, "")
	in.Devices[7].LastHeard = noon
	decide("the next day, and d07 has been off since")
	in.At = in.At.Add(time.Minute)
	follow(5, delivery.DeviceHealthy)
	in.Devices[7].LastHeard = noon
	decide("most are healthy")
	follow(8, delivery.DeviceHealthy)
	decide("all are")

	in.Target, in.Previous = v3, &v2
	decide("the next release")
	for i := range in.Devices {
		if in.Published.InWave(in.Devices[i].Report.Device) {
			in.Devices[i].Report.Phase, in.Devices[i].Report.Bundle = delivery.DeviceFailed, v2.Bundle
			in.Devices[i].Report.Failed, in.Devices[i].Report.Why = v3.Bundle,
				"golden replay: output dets differs\nby 0.3"
			in.Devices[i].Report.Desired = in.Published.Version
		}
	}
	d := decide("its canary fails")
	in.Aborted = append(in.Aborted, d.Abort.Bundle)
	decide("the abort is recorded")
	in.Target = v2
	decide("people merge the revert")
	in.Target, in.Rollback = v1, true
	decide("and go back further")

	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if rest := strings.Join(wanted, ""); rest != "" && !*update {
		t.Errorf("testdata/story.txt goes on:\n%s", rest)
	}
}
