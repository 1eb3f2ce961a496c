package main

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/engine"
	"github.com/autonomos/aob/reconciler/onnx"
	"github.com/autonomos/aob/reconciler/profile"
)

func benchCommand(o *options) *cobra.Command {
	var bundle string
	s := delivery.GateBench()
	cmd := &cobra.Command{
		Use:   "bench --bundle DIR [PICTURE...]",
		Short: "Measure how fast this machine runs a bundle",
		Long: `Bench runs a bundle again and again by the code that serves it, and prints what it
has measured as lines of JSON: the time of each stage, the throughput, memory, and
energy where the board tells it. aob bench and aob-agent use it; aob bench prints the
result for people. See docs/bench.md.`,
		Example: `  aob-detect bench --bundle bundle --profile cpu-fp32 | jq 'select(.benched).benched.result'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.Check(); err != nil {
				return err
			}
			return o.respond(cmd, bundle, func(w detect.Worker, out io.Writer) error {
				p, err := o.chosen()
				if err != nil {
					return err
				}
				b, err := bench(cmd, w, p, bundle, s, args, out)
				if err != nil {
					return err
				}
				return detect.WriteBench(out, b)
			})
		},
	}
	cmd.Flags().StringVar(&bundle, "bundle", "", "the bundle's folder")
	cmd.Flags().IntVar(&s.WarmUp, "warmup", s.WarmUp, "images before the first repeat")
	cmd.Flags().IntVar(&s.Images, "images", s.Images, "images of each repeat")
	cmd.Flags().IntVar(&s.Repeats, "repeats", s.Repeats, "how often it is measured")
	cmd.MarkFlagRequired("bundle")
	return cmd
}

// bench measures a bundle on this machine.
func bench(cmd *cobra.Command, w detect.Worker, p profile.Profile, bundle string, s delivery.BenchSettings,
	paths []string, out io.Writer) (b delivery.Bench, err error) {
	ctx := cmd.Context()
	pictures, digest, err := w.BenchPictures(paths)
	if err != nil {
		return b, err
	}
	s.Pictures = digest
	sum, err := sumOf(filepath.Join(bundle, delivery.ModelFile))
	if err != nil {
		return b, fmt.Errorf("bundle %s: %w", bundle, err)
	}
	server, err := w.Open(ctx, bundle)
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	gpu := -1
	if p.Provider != profile.CPU {
		gpu = p.Device
	}
	var machine engine.Machine
	b = delivery.Bench{BenchRun: delivery.BenchRun{Profile: p.Name, Settings: s}, Model: sum,
		Hardware: delivery.DigestOf("hardware profile", p), Machine: machine.Describe(ctx, gpu)}
	b.Machine.Threads = cmp.Or(w.Threads, runtime.NumCPU())
	b.Machine.TensorRT, b.Machine.Runtime, b.Machine.Numerics = w.TensorRT, onnx.Version(), detect.Numerics
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Machine.AOB = info.Main.Version
	}
	b.Result.Clients = 2 * b.Machine.Threads
	watch := machine.Watch(ctx, gpu)
	b.Result.Repeats, err = detect.Bencher{Server: server, Pictures: pictures, Clients: b.Result.Clients, Watch: watch,
		Progress: func(p detect.BenchProgress) {
			_ = detect.WriteBenchProgress(out, p) // who does not read it can still read the result
		}}.Run(ctx, s)
	if gpu >= 0 && err == nil {
		b.Result.Memory.GPU = machine.GPUMemory(ctx, gpu, os.Getpid())
	}
	watch.Close(&b.Result, s.Repeats*s.Images)
	b.Result.Memory.Peak = machine.PeakMemory(os.Getpid())
	b.At = time.Now().UTC().Truncate(time.Second)
	return b, err
}

// sumOf returns a file's digest, without holding the file in the memory that is measured.
func sumOf(path string) (delivery.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return delivery.Digest(fmt.Sprintf("sha256:%x", h.Sum(nil))), nil
}
