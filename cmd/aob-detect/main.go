// Command aob-detect runs detector models with ONNX Runtime, for programs that must not load it into their own process.
//
// Package detect uses the subcommands inspect, describe, evaluate and serve: their standard output has lines of JSON,
// and their standard error is for users. infer and serve --listen are for users only. See package detect for the
// contract of models and bundles, and package serve for the HTTP APIs.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/onnx"
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
	library string
	threads int
	memory  string
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
	flags.IntVar(&o.threads, "threads", 0, "CPU cores to use (default: all)")
	flags.StringVar(&o.memory, "memory", "", "limit of this process's private memory, such as 4GiB (default: none)")
	root.AddCommand(inspectCommand(&o), describeCommand(&o), evaluateCommand(&o), serveCommand(&o), inferCommand(&o))
	return root
}

// limits returns the values of --memory, 0 if there is none, and --threads.
func (o options) limits() (memory delivery.Bytes, threads int, err error) {
	if o.memory != "" {
		if err := memory.UnmarshalText([]byte(o.memory)); err != nil {
			return 0, 0, fmt.Errorf("--memory: %w", err)
		}
	}
	if o.threads < 0 {
		return 0, 0, fmt.Errorf("--threads: want a number of cores, got %d", o.threads)
	}
	return memory, o.threads, nil
}

// worker limits the process and loads the library.
func (o options) worker() (detect.Worker, error) {
	memory, threads, err := o.limits()
	if err != nil {
		return detect.Worker{}, err
	}
	library := o.library
	if library == "" {
		found, err := detect.FindLibrary()
		if err != nil {
			return detect.Worker{}, err
		}
		library = found
	}
	if err := detect.Confine(memory); err != nil {
		return detect.Worker{}, err
	}
	runtime, err := onnx.Open(library)
	if err != nil {
		return detect.Worker{}, err
	}
	return detect.Worker{Runtime: runtime, JPEG: turbojpeg.Decoder{}, Threads: threads}, nil
}
