package engine

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// board writes the files of a machine's sensors.
func board(t *testing.T, files map[string]string) (root string, write func(path, text string)) {
	root = t.TempDir()
	write = func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		// In one step, because a watch reads at any time.
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range files {
		write(path, text)
	}
	return root, write
}

func TestDescribe(t *testing.T) {
	root, _ := board(t, map[string]string{
		"proc/cpuinfo":                  "model name\t: ARMv8 Processor\n",
		"proc/meminfo":                  "MemTotal:        7802644 kB\nMemAvailable:    100 kB\n",
		"proc/sys/kernel/osrelease":     "5.15.148-tegra\n",
		"proc/self/status":              "Name:\tx\nVmHWM:\t  61440 kB\n",
		"proc/device-tree/compatible":   "nvidia,p3768-0000+p3767-0003\x00nvidia,p3767-0003\x00nvidia,tegra234\x00",
		"etc/nv_tegra_release":          "# R36 (release), REVISION: 4.3, GCID: 1\n",
		"var/lib/nvpmodel/status":       "pmode:0002",
		"usr/local/cuda/version.json":   `{"cuda": {"version": "12.6.68"}}`,
		"proc/17/status":                "VmHWM:\t1024 kB\n",
		"sys/devices/system/cpu/cpu0/x": "",
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
	})
	m := Machine{Root: root}
	got := m.Describe(t.Context(), 0)
	got.Cores, got.Platform = 0, ""
	want := delivery.BenchMachine{Processor: "ARMv8 Processor", Memory: 7802644 << 10, Kernel: "5.15.148-tegra",
		Module: "p3767-0003", Compute: "8.7", CUDA: "12.6", L4T: "36.4.3", PowerMode: "2", Governor: "schedutil"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
	if n := m.PeakMemory(17); n != 1<<20 {
		t.Errorf("peak of %d bytes", n)
	}
	if n := (Machine{}).PeakMemory(os.Getpid()); n <= 0 {
		t.Error("this machine does not tell the memory of this process")
	}
	if n, ok := (Machine{}).available(); !ok || n <= 0 {
		t.Error("this machine does not tell how much memory is free")
	}
}

func TestWatchPackages(t *testing.T) {
	const package0 = "sys/class/powercap/intel-rapl:0/"
	root, write := board(t, map[string]string{
		package0 + "name": "package-0\n", package0 + "energy_uj": "9000000\n",
		package0 + "max_energy_range_uj":                                   "10000000\n",
		"sys/class/powercap/intel-rapl:0:0/energy_uj":                      "1\n", // a part of the package
		"sys/class/thermal/thermal_zone0/temp":                             "45000\n",
		"sys/class/thermal/thermal_zone1/temp":                             "-256000\n", // switched off
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq":             "1500000\n",
		"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
	})
	w := Machine{Root: root}.Watch(t.Context(), -1)
	w.Begin()
	write(package0+"energy_uj", "2000000\n") // the counter began again
	write("sys/class/thermal/thermal_zone0/temp", "61000\n")
	w.End()
	write(package0+"energy_uj", "5000000\n") // what comes later does not count
	write("sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "4\n")
	var r delivery.BenchResult
	w.Close(&r, 6)
	if r.Energy == nil || r.Energy.Source != "RAPL package-0" || math.Abs(r.Energy.Joules-0.5) > 1e-9 ||
		!(r.Energy.Watts > 0) {
		t.Errorf("energy: %+v", r.Energy)
	}
	if want := (&delivery.BenchRange{Low: 45, High: 61}); !reflect.DeepEqual(r.Temperature, want) {
		t.Errorf("temperature: %+v", r.Temperature)
	}
	if want := (&delivery.BenchRange{Low: 1500, High: 1500}); !reflect.DeepEqual(r.Clock, want) {
		t.Errorf("clock: %+v", r.Clock)
	}
	if want := []string{"CPU: too hot"}; !reflect.DeepEqual(r.Throttled, want) {
		t.Errorf("throttled: %q", r.Throttled)
	}
}

func TestWatchJetson(t *testing.T) {
	const ina = "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/"
	root, write := board(t, map[string]string{
		ina + "in1_label": "VDD_IN\n", ina + "in1_input": "5000\n", ina + "curr1_input": "2000\n",
		ina + "curr1_crit_alarm": "0\n", ina + "in2_label": "VDD_CPU_GPU_CV\n",
		"sys/class/devfreq/17000000.gpu/device/of_node/name": "gpu\x00",
		"sys/class/devfreq/17000000.gpu/cur_freq":            "624750000\n",
	})
	w := Machine{Root: root}.Watch(t.Context(), 0)
	w.Begin()
	write(ina+"curr1_crit_alarm", "1\n")
	w.End()
	var r delivery.BenchResult
	w.Close(&r, 1)
	if r.Energy == nil || r.Energy.Source != "VDD_IN" || math.Abs(r.Energy.Watts-10) > 1e-6 {
		t.Errorf("energy: %+v", r.Energy)
	}
	if want := []string{"overcurrent of VDD_IN"}; !reflect.DeepEqual(r.Throttled, want) {
		t.Errorf("throttled: %q", r.Throttled)
	}
	if want := (&delivery.BenchRange{Low: 624.75, High: 624.75}); !reflect.DeepEqual(r.Clock, want) {
		t.Errorf("clock: %+v", r.Clock)
	}
}

// A machine that tells nothing gives no figures, and no zeros.
func TestWatchNothing(t *testing.T) {
	w := Machine{Root: t.TempDir()}.Watch(t.Context(), -1)
	w.Begin()
	w.End()
	var r delivery.BenchResult
	if w.Close(&r, 1); !reflect.DeepEqual(r, delivery.BenchResult{}) {
		t.Errorf("%+v", r)
	}
}
