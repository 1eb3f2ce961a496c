package rollout_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/rollout"
)

// TestInvariants checks the invariants of rollouts on random fleets whose devices appear, fall silent and fail.
func TestInvariants(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { play(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

// play rolls a release out to a random fleet.
func play(t *testing.T, rng *rand.Rand) {
	f := fleet("2", "30%", "100%")
	f.Profiles = map[string]delivery.Profile{"agx": {Board: "agx"}, "nano": {Board: "nano"}}
	if rng.IntN(2) == 0 {
		f.Budget.Failures = &delivery.Failures{Tolerable: 0.1}
	}
	in := rollout.Input{Fleet: f, Target: v2, Previous: &v1, At: noon}
	began := map[string]bool{} // devices that were given v2
	share, done := 0.0, false
	for turn := range 60 {
		if err := happen(rng, &in); err != nil {
			t.Fatal(err)
		}
		d := rollout.Next(in)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("turn %d: %s\nshare before %v, state %+v\n%s", turn,
				fmt.Sprintf(format, args...), share, in.State, d)
		}
		if d.Abort != nil {
			if d.Desired.Release.Bundle == v2.Bundle && d.Desired.Share > 0 ||
				inWave(d, in.Devices) < len(in.Devices) && d.Desired.Release == v1 {
				fail("an abort does not return every device")
			}
			if d.Wave.Failed+d.Wave.Silent == 0 {
				fail("aborted without a failure")
			}
			break
		}
		if d.Desired.Release != v2 {
			fail("publishes %+v", d.Desired)
		}
		if d.Desired.Share < share {
			fail("the share shrank to %v", d.Desired.Share)
		}
		share = d.Desired.Share
		present, profiles, reached := 0, map[string]bool{}, map[string]bool{}
		for _, x := range in.Devices {
			id := x.Report.Device
			if began[id] && !d.Desired.InWave(id) {
				fail("%s lost the release", id)
			}
			if d.Desired.InWave(id) {
				began[id] = true
				reached[x.Report.Labels["board"]] = true
			}
			if in.At.Sub(x.LastHeard) <= rollout.DefaultDeadline {
				present++
				profiles[x.Report.Labels["board"]] = true
			}
		}
		if present > 0 && len(reached) < len(profiles) {
			fail("boards %v are there, the wave has %v", profiles, reached)
		}
		if done && !d.Done {
			fail("a completed rollout is not done any more")
		}
		if d.Done && d.Wave.Healthy == 0 && !done {
			fail("done without a healthy device")
		}
		if !d.Done && d.Hold == nil {
			fail("neither done nor a reason why not")
		}
		if !d.Wake.IsZero() && !d.Wake.After(in.At) {
			fail("wake is in the past: %v, now %v", d.Wake, in.At)
		}
		done = d.Done
		// The state is stored as JSON.
		kept, err := json.Marshal(d.State)
		if err != nil {
			t.Fatal(err)
		}
		in.State = rollout.State{}
		if err := json.Unmarshal(kept, &in.State); err != nil {
			t.Fatal(err)
		}
		published := *d.Desired
		published.Version = int64(turn + 1)
		in.Published = &published
	}
}

// happen changes a fleet at random.
func happen(rng *rand.Rand, in *rollout.Input) error {
	in.At = in.At.Add(time.Duration(rng.IntN(240)) * time.Second)
	if rng.IntN(4) == 0 {
		d := device(fmt.Sprintf("d%03d", rng.IntN(1000)), delivery.DeviceIdle, delivery.Target{})
		d.Report.Labels = map[string]string{"board": []string{"agx", "nano"}[rng.IntN(2)]}
		d.Report.Desired = 0
		known := false
		for _, x := range in.Devices {
			known = known || x.Report.Device == d.Report.Device
		}
		if !known {
			in.Devices = append(in.Devices, d)
		}
	}
	for i := range in.Devices {
		d := &in.Devices[i]
		if rng.IntN(20) == 0 {
			continue // does not report in this turn
		}
		d.LastHeard = in.At
		if in.Published == nil || !in.Published.InWave(d.Report.Device) || in.Published.Release.Bundle != v2.Bundle {
			continue
		}
		d.Report.Desired = in.Published.Version
		switch rng.IntN(300) {
		case 0:
			d.Report.Phase, d.Report.Failed = delivery.DeviceFailed, v2.Bundle
		case 1, 2, 3, 4, 5, 6, 7, 8, 9, 10:
			d.Report.Phase, d.Report.Bundle = delivery.DeviceSoaking, v2.Bundle
		default:
			if d.Report.Phase != delivery.DeviceFailed {
				d.Report.Phase, d.Report.Bundle = delivery.DeviceHealthy, v2.Bundle
			}
		}
	}
	return nil
}

// A wave of n has n devices whatever their names are, and larger waves contain smaller ones.
func TestWaveSizes(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		n := 1 + rng.IntN(60)
		var devices []delivery.Device
		for i := range n {
			devices = append(devices, device(fmt.Sprintf("%x-%d", rng.Uint64(), i), delivery.DeviceHealthy, v1))
		}
		before := 0.0
		for _, want := range []int{1, 2, 5, 20} {
			d := rollout.Next(rollout.Input{Fleet: fleet(fmt.Sprint(want), "100%"), Target: v2, Previous: &v1,
				Devices: devices, At: noon})
			if got := inWave(d, devices); got != min(want, n) {
				t.Fatalf("a wave of %d among %d devices has %d", want, n, got)
			}
			if d.Desired.Share < before {
				t.Fatalf("a wave of %d is smaller than the one before", want)
			}
			before = d.Desired.Share
		}
	}
}

func BenchmarkNext(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("devices=%d", n), func(b *testing.B) {
			var devices []delivery.Device
			for i := range n {
				devices = append(devices, device(fmt.Sprintf("device-%06d", i), delivery.DeviceHealthy, v1))
			}
			in := rollout.Input{Fleet: fleet("1", "25%", "100%"), Target: v2, Previous: &v1, Devices: devices, At: noon}
			for b.Loop() {
				rollout.Next(in)
			}
		})
	}
}
