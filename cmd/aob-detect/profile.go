package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/engine"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/onnx"
	"github.com/autonomos/aob/reconciler/profile"
)

// list returns the known profiles.
func (o options) list() ([]profile.Profile, error) {
	if o.profiles == "" {
		return profile.Builtin(), nil
	}
	data, err := durable.ReadFile(o.profiles, intent.MaxFileSize)
	if err != nil {
		return nil, fmt.Errorf("--profiles: %w", err)
	}
	list, complaints := profile.Parse(o.profiles, data)
	if len(complaints) > 0 {
		return nil, errors.New(strings.Join(delivery.Each(complaints, delivery.Complaint.String), "\n"))
	}
	return list, nil
}

// chosen returns the profile that the flags name.
func (o options) chosen() (profile.Profile, error) {
	list, err := o.list()
	if err != nil {
		return profile.Profile{}, err
	}
	return profile.Find(list, o.profile)
}

// withProfile gives a worker the options of its profile. With TensorRT it gets the engine of the bundle in a folder,
// which is built if the cache does not have it; progress is told about that.
func (o options) withProfile(ctx context.Context, w detect.Worker, runtime onnx.Runtime, p profile.Profile,
	bundle string, progress func(profile.Progress)) (detect.Worker, error) {
	w.Bounds, w.Provider = p.Bounds(), p.Provider
	with := func(e engine.Entry, plan *onnx.Engine) (detect.Worker, error) {
		r, err := runtime.With(p.Session(e.Engine, e.Folder), plan)
		w := w
		w.Runtime, w.TensorRT = r, e.Engine.Target.TensorRT
		return w, err
	}
	// Asked before an engine is built, so that a library without the provider is found at once.
	plain, err := with(engine.Entry{}, nil)
	if err != nil || p.Provider != profile.TensorRT {
		return plain, err
	}
	if bundle == "" {
		return detect.Worker{}, delivery.Blockedf(
			"take a profile with provider cuda or cpu, or use build, serve or infer",
			"profile %s has provider tensorrt, which runs bundles, and this command has none", p.Name)
	}
	cache := o.cache
	if cache == "" {
		if cache, err = detect.EngineCache(); err != nil {
			return detect.Worker{}, err
		}
	}
	load := func(e engine.Entry) (detect.Worker, error) {
		return with(e, &onnx.Engine{Model: e.Engine.Model, Plan: e.Plan})
	}
	e, err := engine.Builder{
		Cache: cache, Profile: p, Trtexec: os.Getenv("AOB_TRTEXEC"), Check: onnx.Check, Shape: onnx.InputShape,
		Verify: func(ctx context.Context, e engine.Entry) (json.RawMessage, error) {
			w, err := load(e)
			if err != nil {
				return nil, err
			}
			return measure(ctx, w, bundle)
		},
		Progress: progress,
	}.Ensure(ctx, bundle)
	if err != nil {
		return detect.Worker{}, err
	}
	return load(e)
}

// measure opens a bundle, which compares its answers with those of the CPU, and says how near they are.
func measure(ctx context.Context, w detect.Worker, bundle string) (_ json.RawMessage, err error) {
	server, err := w.Open(ctx, bundle)
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, server.Close()) }()
	parity, err := server.Parity(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(parity)
}

func buildCommand(o *options) *cobra.Command {
	var bundle string
	cmd := &cobra.Command{
		Use:   "build --bundle DIR --profile NAME",
		Short: "Build the TensorRT engine of a bundle before it gets traffic",
		Long: `Build runs trtexec on this machine's GPU, compares the engine's answers with those
of the CPU, and keeps it in the cache. serve and infer then find it there. A line
of JSON tells each step. If the cache has the engine, nothing is built.

The path of trtexec is AOB_TRTEXEC, or else it is searched on PATH and in
/usr/src/tensorrt/bin. The cache is --cache, AOB_ENGINES or a folder in the user's
cache folder. docs/profiles.md explains profiles, memory and timeouts.`,
		Example: `  aob-detect build --bundle bundle --profile orin-nano-fp16 --cache /var/lib/aob/engines`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := o.chosen()
			if err != nil {
				return err
			}
			if p.Provider != profile.TensorRT {
				return delivery.Blockedf("serve the bundle with it directly, or name a profile with provider "+
					"tensorrt: aob-detect profiles",
					"profile %s has provider %s, which needs no engine", p.Name, p.Provider)
			}
			return o.respond(cmd, bundle, func(_ detect.Worker, out io.Writer) error { return detect.Ready(out) })
		},
	}
	cmd.Flags().StringVar(&bundle, "bundle", "", "the bundle's folder")
	cmd.MarkFlagRequired("bundle")
	return cmd
}

func providerCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "provider",
		Short: "Check that this machine can compute as a profile says",
		Long: `Provider checks that ONNX Runtime's library has what the profile needs, and that
the GPU is the profile's. It prints what computes, as it is part of the key of
evaluations: two machines with the same answer share results.`,
		Example: `  aob-detect provider --profile cuda-fp16 | jq -r 'select(.provider).provider'`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := &lockedWriter{w: cmd.OutOrStdout()}
			if err := detect.Hello(out); err != nil {
				return err
			}
			provider, err := o.provider(cmd.Context())
			if err == nil {
				err = detect.WriteProvider(out, provider)
			}
			if err != nil {
				return errors.Join(err, detect.Fail(out, err))
			}
			return nil
		},
	}
}

// provider checks that this machine can compute as the profile says, and returns what computes.
func (o options) provider(ctx context.Context) (string, error) {
	p, err := o.chosen()
	if err != nil {
		return "", err
	}
	runtime, err := o.open()
	if err != nil {
		return "", err
	}
	if _, err := runtime.With(p.Session(profile.Engine{}, ""), nil); err != nil {
		return "", err
	}
	var target profile.Target
	if p.Provider != profile.CPU {
		if target, err = (engine.Builder{Profile: p, Trtexec: os.Getenv("AOB_TRTEXEC")}).Target(ctx); err != nil {
			return "", err
		}
	}
	return p.Result(target), nil
}

func profilesCommand(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "profiles",
		Short: "Print the hardware profiles",
		Long: `Profiles prints the hardware profiles that --profile can name: those of AOB, and
those of a file that --profiles names.`,
		Example: `  aob-detect profiles
  aob-detect profiles --profiles profiles.yaml -o json | jq '.[] | select(.provider == "tensorrt").name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := o.list()
			if err != nil {
				return err
			}
			switch format {
			case "json":
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(list)
			case "text":
			default:
				return fmt.Errorf("-o: want text or json, got %q", format)
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tPROVIDER\tPRECISION\tSWAP\tWORKSPACE\tFOR")
			for _, p := range list {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, p.Provider, p.Precision, p.Swap, p.Ladder(),
					delivery.Terminal(p.For))
			}
			return t.Flush()
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "output format: text or json")
	return cmd
}
