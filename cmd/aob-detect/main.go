// Command aob-detect runs detector models with ONNX Runtime, for programs that must not load it into their own process.
//
// Package detect uses the subcommands inspect, describe, evaluate, provider, build and serve: their standard output has
// lines of JSON, and their standard error is for users. infer and serve --listen are for users only. See package detect
// for the contract of models and bundles, and package serve for the HTTP APIs.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/onnx"
	"github.com/autonomos/aob/reconciler/profile"
	"github.com/autonomos/aob/reconciler/turbojpeg"
)

func main() {
	if err := newCommand().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "aob-detect: "+delivery.Terminal(err.Error()))
		os.Exit(1)
	}
}

// options are the flags of all subcommands.
type options struct {
	library  string
	threads  int
	memory   string
	profile  string
	profiles string
	cache    string
}

func newCommand() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:   "aob-detect",
		Short: "Run detector models with ONNX Runtime",
		Long: `aob-detect runs detector models with ONNX Runtime in its own process. A model that
crashes the runtime, hangs, or uses too much memory cannot harm other programs.

The path of ONNX Runtime's library is AOB_ONNXRUNTIME, or else where
tools/onnxruntime/install.sh installs it.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&o.library, "library", "",
		"path of ONNX Runtime's shared library (default: AOB_ONNXRUNTIME, else the installed one)")
	flags.IntVar(&o.threads, "threads", 0, "CPU cores to use (default: the profile's, else all)")
	flags.StringVar(&o.memory, "memory", "",
		"limit of this process's private memory, such as 4GiB (default: the profile's, else none)")
	flags.StringVar(&o.profile, "profile", "", "hardware profile, as in t4-fp16 (default: cpu-fp32)")
	flags.StringVar(&o.profiles, "profiles", "", "YAML file with more hardware profiles")
	flags.StringVar(&o.cache, "cache", "",
		"folder of TensorRT engines (default: AOB_ENGINES, else one in the user's cache folder)")
	root.AddCommand(inspectCommand(&o), describeCommand(&o), evaluateCommand(&o), serveCommand(&o), inferCommand(&o),
		runCommand(&o), loadCommand(), shadowCommand(), statusCommand(), buildCommand(&o),
		benchCommand(&o), profilesCommand(&o), providerCommand(&o))
	return root
}

// limits returns the values of --memory and --threads, or else those of a profile that a flag names. 0 is none and all.
func (o options) limits(p profile.Profile) (memory delivery.Bytes, threads int, err error) {
	threads = o.threads
	if o.profile != "" {
		memory, threads = p.Memory, cmp.Or(o.threads, p.Threads)
	}
	if o.memory != "" {
		if err := memory.UnmarshalText([]byte(o.memory)); err != nil {
			return 0, 0, fmt.Errorf("--memory: %w", err)
		}
	}
	if threads < 0 {
		return 0, 0, fmt.Errorf("--threads: want a number of cores, got %d", o.threads)
	}
	return memory, threads, nil
}

// open loads the library.
func (o options) open() (_ onnx.Runtime, err error) {
	library := o.library
	if library == "" {
		if library, err = detect.FindLibrary(); err != nil {
			return onnx.Runtime{}, err
		}
	}
	return onnx.Open(library)
}

// worker limits the process and loads the library. bundle is the folder of the bundle that will be opened, or empty.
func (o options) worker(ctx context.Context, bundle string, progress func(profile.Progress)) (detect.Worker, error) {
	p, err := o.chosen()
	if err != nil {
		return detect.Worker{}, err
	}
	memory, threads, err := o.limits(p)
	if err != nil {
		return detect.Worker{}, err
	}
	if err := detect.Confine(memory); err != nil {
		return detect.Worker{}, err
	}
	runtime, err := o.open()
	if err != nil {
		return detect.Worker{}, err
	}
	w := detect.Worker{JPEG: turbojpeg.Decoder{}, Threads: threads, Memory: memory}
	return o.withProfile(ctx, w, runtime, p, bundle, progress)
}
