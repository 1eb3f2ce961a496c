package profile

import (
	"math"
	"reflect"
	"testing"
)

func TestParseProcessor(t *testing.T) {
	for data, want := range map[string]string{
		"processor\t: 0\nmodel name\t: ARMv8 rev 1 (v8l)\nprocessor\t: 1\nmodel name\t: other\n": "ARMv8 rev 1 (v8l)",
		"processor\t: 0\n": "",
		"":                 "",
	} {
		if got := ParseProcessor([]byte(data)); got != want {
			t.Errorf("%q: %q", data, got)
		}
	}
}

func TestParsePowerMode(t *testing.T) {
	for data, want := range map[string]string{"pmode:0002 fmode:fanNull": "2", "pmode:0000\n": "0", "pmode:x": "",
		"": ""} {
		if got := ParsePowerMode([]byte(data)); got != want {
			t.Errorf("%q: %q", data, got)
		}
	}
}

func TestParseGPUReading(t *testing.T) {
	r, ok := ParseGPUReading("31.45, 52, 1590, 0x0000000000000000")
	if !ok || !reflect.DeepEqual(r, GPUReading{31.45, 52, 1590, nil}) {
		t.Errorf("%+v, %v", r, ok)
	}
	// Idle (0x1) and a clock that an application has set (0x2) are no slowdown.
	r, ok = ParseGPUReading("70.01, 84, 900, 0x0000000000000027")
	if !ok || !reflect.DeepEqual(r.Slowed, []string{"GPU: power cap", "GPU: too hot"}) {
		t.Errorf("%+v, %v", r, ok)
	}
	r, ok = ParseGPUReading("[N/A], 52, [N/A], [N/A]")
	if !ok || !math.IsNaN(r.Watts) || !math.IsNaN(r.Clock) || r.Temperature != 52 || r.Slowed != nil {
		t.Errorf("%+v, %v", r, ok)
	}
	for _, line := range []string{"", "No devices were found", "1, 2, 3", "1, 2, 3, 4, 5", "\"1, 2"} {
		if _, ok := ParseGPUReading(line); ok {
			t.Errorf("%q was read", line)
		}
	}
}

func TestParseGPUMemory(t *testing.T) {
	const list = "17, 300\n1734, 512\nno, [N/A]\n"
	if got := ParseGPUMemory([]byte(list), 1734); got != 512<<20 {
		t.Error(got)
	}
	if got := ParseGPUMemory([]byte(list), 173); got != 0 {
		t.Error(got)
	}
}
