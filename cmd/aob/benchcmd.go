package main

// This file measures how fast this machine runs a bundle.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/gate"
	"github.com/autonomos/aob/reconciler/profile"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/reconciler/words"
)

// A benchRequest is what the flags of aob bench say.
type benchRequest struct {
	client
	bundle, profile, profiles, config  string
	detector, library, engines, memory string
	variant                            string
	threads                            int
	pictures                           []string
	settings                           delivery.BenchSettings
	sign                               bool
}

func newBenchCommand() *cobra.Command {
	r := benchRequest{settings: delivery.GateBench()}
	c := &cobra.Command{
		Use:   "bench BUNDLE",
		Short: "Measure how fast this machine runs a bundle",
		Long: `Bench runs a bundle on this machine as a hardware profile says, in a process of its
own and by the code that serves it. BUNDLE is the folder of a bundle (aob bundle pull),
MODEL or MODEL@VERSION, which is copied from the server, or on the server's machine the
digest of any bundle in its store.

After some images to warm up it measures in repeats: images one after the other give
the time of each stage, and images of several clients the throughput. Each figure is
the median of the repeats. It prints how much they differ, and fails with "no data"
where that is too much, or where the machine has slowed itself down.

With --sign the result becomes evidence about the bundle, which gates judge latency by.
That works on the server's machine, where its keys are. Bench devices of a fleet measure
by themselves: docs/bench.md.`,
		Example: `  aob bench shapes@2 --profile cpu-fp32
  aob bench ./shapes-2 --profile orin-nano-fp16 -n 200 --warmup 50 --picture frame.jpg
  aob bench ./shapes-2 --profile cpu-fp32 -o json | jq .figures.total.p95.value
  aob bench sha256:1f0c… --profile cpu-fp32 --sign --config world/aob.yaml`,
		RunE: func(c *cobra.Command, args []string) error {
			r.bundle = args[0]
			m, err := r.run(c.Context(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			if err := r.print(c.OutOrStdout(), m, func(t *terminal) { t.measurement(m) }); err != nil {
				return err
			}
			return m.fault()
		},
	}
	r.register(c)
	f := c.Flags()
	f.StringVar(&r.profile, "profile", profile.Default().Name, "the hardware `profile`; aob-detect profiles lists them")
	f.StringVar(&r.variant, "variant", delivery.FP32, "of MODEL: the `number format` fp32, fp16 or int8")
	f.StringVar(&r.profiles, "profiles", "", "a YAML `file` with more hardware profiles")
	f.IntVarP(&r.settings.Images, "images", "n", r.settings.Images, "images of each repeat")
	f.IntVar(&r.settings.WarmUp, "warmup", r.settings.WarmUp, "images before the first repeat")
	f.IntVar(&r.settings.Repeats, "repeats", r.settings.Repeats, "how often it is measured")
	f.StringArrayVar(&r.pictures, "picture", nil, "a JPEG or PNG `file`; can be repeated (default: built-in pictures "+
		"of 1280 x 720)")
	f.BoolVar(&r.sign, "sign", false, "sign the result as evidence about the bundle, with the server's key")
	f.StringVar(&r.config, "config", "aob.yaml", "the server's configuration `file`, for --sign and for a digest")
	f.StringVar(&r.detector, "detector", "", "the `path` of aob-detect (default: beside this program, or on PATH)")
	f.StringVar(&r.library, "library", "", "the `path` of ONNX Runtime's library (default: AOB_ONNXRUNTIME, else the "+
		"installed one)")
	f.StringVar(&r.engines, "cache", "", "the `folder` of TensorRT engines (default: AOB_ENGINES, else one in the "+
		"user's cache folder)")
	f.IntVar(&r.threads, "threads", 0, "CPU cores to use (default: the profile's, else all)")
	f.StringVar(&r.memory, "memory", "", "the `limit` of the process's memory (default: the profile's)")
	return c
}

// A measurement is the result of aob bench.
type measurement struct {
	delivery.Bench
	Figures    map[string]map[string]delivery.BenchFigure `json:"figures"` // by stage and quantile
	Throughput delivery.BenchFigure                       `json:"throughput"`
	// NoData says of quantiles of the whole time why they say nothing.
	NoData map[string]string `json:"noData,omitempty"`
	Signed bool              `json:"signed"`
}

func newMeasurement(b delivery.Bench) measurement {
	m := measurement{Bench: b, Throughput: b.Result.Throughput(),
		Figures: map[string]map[string]delivery.BenchFigure{}, NoData: map[string]string{}}
	for _, stage := range delivery.BenchStages {
		m.Figures[stage] = map[string]delivery.BenchFigure{}
		for _, q := range delivery.Quantiles {
			m.Figures[stage][q] = b.Result.Time(stage, q)
		}
	}
	for _, q := range delivery.Quantiles {
		if why := gate.NoData(b, q); !why.IsZero() {
			m.NoData[q] = words.Text(why)
		}
	}
	return m
}

// fault returns an error if the figures that most people look at say nothing. Fewer repeats than gates need are the
// user's choice.
func (m measurement) fault() error {
	for _, q := range []string{"p50", "p95"} {
		if f := m.Fault(q); f != delivery.BenchSound && f != delivery.BenchFew {
			what, do, _ := strings.Cut(m.NoData[q], "; ")
			return hinted{errors.New(what), do}
		}
	}
	return nil
}

func (r benchRequest) run(ctx context.Context, messages io.Writer) (m measurement, err error) {
	if err := r.settings.Check(); err != nil {
		return m, hinted{err, "aob bench --help says what --images, --warmup and --repeats are"}
	}
	least := delivery.GateBench()
	if s := r.settings; r.sign && (s.Images < least.Images || s.WarmUp < least.WarmUp || s.Repeats < least.Repeats ||
		len(r.pictures) > 0) {
		return m, hinted{errors.New("gates do not judge by these settings, so the result is not signed"), fmt.Sprintf(
			"want at least -n %d --warmup %d --repeats %d, and the built-in pictures", least.Images, least.WarmUp,
			least.Repeats)}
	}
	detector, err := r.find()
	if err != nil {
		return m, err
	}
	var sign func(delivery.Bench) error
	if r.sign {
		if sign, err = r.signer(ctx); err != nil {
			return m, err
		}
	}
	folder, bundle, done, err := r.open(ctx)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, done()) }()
	show, shown := showBench(messages, r.profile)
	detector.Progress = func(p profile.Progress) {
		printMessage(messages, "engine of TensorRT: %s", strings.TrimSpace(p.Stage+" "+p.Text))
	}
	b, err := detector.Bench(ctx, folder, r.settings, r.pictures, show)
	if shown(); err != nil {
		return m, err
	}
	b.Bundle = bundle
	if m = newMeasurement(b); sign == nil || m.fault() != nil {
		return m, nil
	}
	m.Signed = true
	return m, sign(b)
}

func (r benchRequest) find() (detect.Detector, error) {
	d := detect.Detector{Binary: r.detector, Library: r.library, Engines: r.engines, Profile: r.profile,
		Profiles: r.profiles, Threads: r.threads}
	if r.memory != "" {
		if err := d.MemoryLimit.UnmarshalText([]byte(r.memory)); err != nil {
			return d, fmt.Errorf("--memory: %w", err)
		}
	}
	return d.Find()
}

// open returns the folder of the bundle, and its digest.
func (r benchRequest) open(ctx context.Context) (folder string, bundle delivery.Digest, done func() error, err error) {
	done = func() error { return nil }
	if info, err := os.Stat(r.bundle); err == nil && info.IsDir() && !r.meansModel() {
		if bundle, err = artifact.Unpacked(ctx, r.bundle); err != nil {
			return "", "", done, hinted{fmt.Errorf("%s is not the folder of a bundle: %w", r.bundle, err),
				"aob bundle pull MODEL DIR writes one"}
		}
		return r.bundle, bundle, done, nil
	}
	if d, err := delivery.ParseDigest(r.bundle); err == nil {
		return r.unpack(ctx, d)
	}
	if strings.ContainsAny(r.bundle, "/.") {
		return "", "", done, hinted{fmt.Errorf("%s: no such folder", r.bundle), "aob bundle pull MODEL DIR writes one"}
	}
	tmp, err := os.MkdirTemp("", "aob-bench-")
	if err != nil {
		return "", "", done, err
	}
	done = func() error { return os.RemoveAll(tmp) }
	p, err := pullBundle(ctx, r.dial(), r.bundle, r.variant, filepath.Join(tmp, "bundle"))
	if err != nil {
		return "", "", done, errors.Join(err, done())
	}
	return p.Folder, p.Bundle, done, nil
}

// meansModel reports whether a name that is also that of a folder means a model: a dataset often has the name of its
// model.
func (r benchRequest) meansModel() bool {
	_, err := os.Stat(filepath.Join(r.bundle, "manifest.json"))
	return errors.Is(err, os.ErrNotExist) && !strings.ContainsAny(r.bundle, "/.")
}

// unpack copies a bundle from the server's store.
func (r benchRequest) unpack(ctx context.Context, bundle delivery.Digest) (string, delivery.Digest, func() error,
	error) {
	none := func() error { return nil }
	s, err := loadServer(r.config)
	if err != nil {
		return "", "", none, err
	}
	store, err := artifact.Open(state(s.State).bundles())
	if err != nil {
		return "", "", none, err
	}
	tmp, err := os.MkdirTemp("", "aob-bench-")
	if err != nil {
		return "", "", none, err
	}
	done := func() error { return os.RemoveAll(tmp) }
	folder := filepath.Join(tmp, "bundle")
	if err := store.Unpack(ctx, bundle, folder); err != nil {
		return "", "", none, errors.Join(hinted{fmt.Errorf("bundle %s is not in the store of %s: %w", bundle.Short(),
			r.config, err), "aob pr show names the bundles of a pull request"}, done())
	}
	return folder, bundle, done, nil
}

// signer returns a function that signs a result and attaches it to its bundle in the server's store.
func (r benchRequest) signer(ctx context.Context) (func(delivery.Bench) error, error) {
	s, err := loadServer(r.config)
	if err != nil {
		return nil, err
	}
	path := cmp.Or(s.Keys.Evidence, state(s.State).path("keys", "evidence.key"))
	key, err := trust.Load(path)
	if err != nil {
		return nil, hinted{fmt.Errorf("the server's evidence key %s cannot be read: %w", path, err),
			"run it on the server's machine, as the user of aob serve; without --sign nothing is signed"}
	}
	bundles, err := artifact.Open(state(s.State).bundles())
	if err != nil {
		return nil, err
	}
	return func(b delivery.Bench) error {
		if _, err := bundles.Describe(ctx, b.Bundle); err != nil {
			return hinted{fmt.Errorf("the result cannot be attached to bundle %s: %w", b.Bundle.Short(), err),
				"the server's store must have the bundle"}
		}
		return evidence.New(bundles, key, nil).Sign(ctx, b.Bundle, delivery.BenchType, b)
	}, nil
}

// showBench returns a function that shows how far a bench is, and one that ends that.
func showBench(w io.Writer, profile string) (progress func(detect.BenchProgress), done func()) {
	t := newTerminal(w)
	before, after := safeText(""), safeText("\n")
	if t.tty {
		before, after = "\r\x1b[K", ""
	}
	drawn := false
	var last time.Time
	progress = func(p detect.BenchProgress) {
		if !t.tty && time.Since(last) < 10*time.Second {
			return
		}
		last, drawn = time.Now(), t.tty
		t.printf("%smeasuring on %s: image %d of %d%s", before, profile, p.Done, p.Total, after)
		_ = t.flush() // the result does not depend on it
	}
	return progress, func() {
		if drawn {
			t.printf("%s", before)
			_ = t.flush()
		}
	}
}

func (t *terminal) measurement(m measurement) {
	s, machine := m.Settings, m.Machine
	t.printf("bundle %s on %s: %s\n", m.Bundle.Short(), m.Profile, cmp.Or(machine.GPU, machine.Module,
		machine.Processor, machine.Platform))
	pictures := "the built-in pictures"
	if s.Pictures != "" {
		pictures = "pictures " + s.Pictures.Short()
	}
	t.printf("%s of %s after %d to warm up, %s, %s\n\n", delivery.Count(s.Repeats, "repeat"),
		delivery.Count(s.Images, "image"), s.WarmUp, pictures, delivery.Count(machine.Threads, "thread"))
	rows := [][]cell{append(heading("STAGE"), heading(delivery.Quantiles...)...)}
	for _, stage := range delivery.BenchStages {
		row := []cell{{text: stage}}
		for _, q := range delivery.Quantiles {
			row = append(row, cell{text: milliseconds(m.Figures[stage][q].Value)})
		}
		rows = append(rows, row)
	}
	spread := []cell{{text: "spread of total"}}
	for _, q := range delivery.Quantiles {
		spread = append(spread, cell{text: fmt.Sprintf("%.1f %%", 100*m.Figures[delivery.StageTotal][q].Spread)})
	}
	t.table("", append(rows, spread))
	t.printf("\nthroughput: %.1f images/s of %s, spread %.1f %%\n", m.Throughput.Value,
		delivery.Count(m.Result.Clients, "client"), 100*m.Throughput.Spread)
	t.printf("memory: %.0f MB", float64(m.Result.Memory.Peak)/1e6)
	if gpu := m.Result.Memory.GPU; gpu > 0 {
		t.printf(", and %.0f MB of the GPU", float64(gpu)/1e6)
	}
	if e := m.Result.Energy; e != nil {
		t.printf("\nenergy: %.3f J for each image, %.1f W (%s)", e.Joules, e.Watts, e.Source)
	} else {
		t.printf("\nenergy: this machine does not tell it")
	}
	if r := m.Result.Temperature; r != nil {
		t.printf("\ntemperature: %.0f to %.0f °C", r.Low, r.High)
	}
	if r := m.Result.Clock; r != nil {
		t.printf("\nclock: %.0f to %.0f MHz", r.Low, r.High)
	}
	if machine.PowerMode != "" || machine.Governor != "" {
		t.printf("\npower mode: %s", strings.Join(strings.Fields(machine.PowerMode+" "+machine.Governor), ", "))
	}
	t.printf("\n")
	var reasons []string
	of := map[string][]string{}
	for _, q := range delivery.Quantiles {
		why := m.NoData[q]
		if why != "" && of[why] == nil {
			reasons = append(reasons, why)
		}
		of[why] = append(of[why], q)
	}
	for _, why := range reasons {
		t.paragraph("", strings.Join(of[why], ", ")+": "+why)
	}
	if m.Signed {
		t.printf("signed as evidence about the bundle\n")
	}
}

func milliseconds(seconds float64) string { return fmt.Sprintf("%.2f ms", 1e3*seconds) }
