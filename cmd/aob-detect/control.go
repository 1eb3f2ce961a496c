package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/serve"
)

// operate sends a request to the control socket of a server and returns what serves.
func operate(ctx context.Context, socket, method, path string, body any) (s serve.Status, err error) {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return s, err
		}
	}
	client := &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://aob-detect"+path, &content)
	if err != nil {
		return s, err
	}
	resp, err := client.Do(req)
	if _, ok := errors.AsType[net.Error](err); ok {
		return s, delivery.Blockedf("start aob-detect serve with --control "+socket, "no server answers on %s: %v",
			socket, err)
	}
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return s, err
	}
	if resp.StatusCode != http.StatusOK {
		var wrong struct{ Error string }
		_ = json.Unmarshal(data, &wrong) // if it is not JSON the status is enough
		return s, fmt.Errorf("the server answers %s: %s", resp.Status, delivery.PlainText(wrong.Error, 4000))
	}
	return s, json.Unmarshal(data, &s)
}

// printStatus prints what serves.
func printStatus(out io.Writer, s serve.Status, format string) error {
	out = delivery.LogWriter{W: out} // names of bundles are untrusted
	if format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(s)
	}
	line := func(role string, r serve.RoleStatus) {
		if r.Trouble != "" {
			fmt.Fprintf(out, "%-7s none serves: %s\n", role, r.Trouble)
			return
		}
		fmt.Fprintf(out, "%-7s %s %s, from %s\n", role, r.Model, r.Version, r.Dir)
	}
	line("main", s.Main)
	if s.Shadow != nil {
		line("shadow", s.Shadow.RoleStatus)
		a := s.Shadow.Agreement
		fmt.Fprintf(out, "        sees %.3g %% of the images; %d compared\n", 100*s.Shadow.Share, a.Images)
		if a.Images > 0 {
			fmt.Fprintf(out, "        F1 of its boxes against main's %.3f; %d of another class\n", s.Shadow.F1,
				a.Flipped)
		}
		if a.Matched > 0 {
			fmt.Fprintf(out, "        scores %+.3f on average\n", a.Shift/float64(a.Matched))
		}
	}
	return nil
}

// A controlled command has the flags of all commands for a running server.
type controlled struct{ socket, output string }

func (c *controlled) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.socket, "control", "", "the server's control socket")
	cmd.Flags().StringVarP(&c.output, "output", "o", "text", "the format: text or json")
	cmd.MarkFlagRequired("control")
}

func (c *controlled) run(cmd *cobra.Command, method, path string, body any) error {
	if c.output != "text" && c.output != "json" {
		return fmt.Errorf("--output: want text or json, got %q", c.output)
	}
	s, err := operate(cmd.Context(), c.socket, method, path, body)
	if err != nil {
		return err
	}
	return printStatus(cmd.OutOrStdout(), s, c.output)
}

func statusCommand() *cobra.Command {
	var c controlled
	cmd := &cobra.Command{
		Use:   "status --control PATH",
		Short: "Show what a server serves",
		Long: `Status shows the model that answers, and of a shadow how alike its boxes are: F1
is that of its boxes with the main model's as truth, at an IoU of 0.5.`,
		Example: `  aob-detect status --control /run/aob/control.sock
  aob-detect status --control /run/aob/control.sock -o json | jq .shadow.f1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd, http.MethodGet, "/status", nil) },
	}
	c.flags(cmd)
	return cmd
}

func loadCommand() *cobra.Command {
	var c controlled
	var version string
	cmd := &cobra.Command{
		Use:   "load --control PATH BUNDLE",
		Short: "Change the model of a server without losing a request",
		Long: `Load loads the bundle in a folder beside the one that serves, replays its golden,
and changes to it. Requests in progress are finished by the old one. If it does
not load, the old one goes on serving.`,
		Example: "  aob-detect load --control /run/aob/control.sock bundles/v2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := bundleOf(args[0], version)
			if err != nil {
				return err
			}
			return c.run(cmd, http.MethodPut, "/bundle", b)
		},
	}
	cmd.Flags().StringVar(&version, "model-version", "",
		"the model's version for callers and metrics (default: the first 12 digits of model.onnx's SHA-256)")
	c.flags(cmd)
	return cmd
}

func shadowCommand() *cobra.Command {
	var c controlled
	var version string
	var share float64
	var off bool
	cmd := &cobra.Command{
		Use:   "shadow --control PATH (BUNDLE | --off)",
		Short: "Let a second model see a share of a server's images",
		Long: `Shadow loads the bundle in a folder as a second model, which sees a share of the
images that the first one answers. Their boxes are compared; aob-detect status
and the metrics say how alike they are. No answer waits for the second model: it
has only the processor time that is left, and images that it cannot take in time
are dropped.`,
		Example: `  aob-detect shadow --control /run/aob/control.sock --share 0.2 bundles/v2
  aob-detect status --control /run/aob/control.sock
  aob-detect shadow --control /run/aob/control.sock --off`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if off == (len(args) == 1) {
				return errors.New("want a bundle's folder or --off")
			}
			if off {
				return c.run(cmd, http.MethodDelete, "/shadow", nil)
			}
			b, err := bundleOf(args[0], version)
			if err != nil {
				return err
			}
			return c.run(cmd, http.MethodPut, "/shadow", map[string]any{"bundle": b.Dir, "version": b.Version,
				"share": share})
		},
	}
	cmd.Flags().StringVar(&version, "model-version", "",
		"the model's version for metrics (default: the first 12 digits of model.onnx's SHA-256)")
	cmd.Flags().Float64Var(&share, "share", 0.1, "the share of the images, above 0 and at most 1")
	cmd.Flags().BoolVar(&off, "off", false, "end the shadow")
	c.flags(cmd)
	return cmd
}
