package main

import (
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/edge"
)

func statusCommand() *cobra.Command {
	var state, output string
	cmd := &cobra.Command{
		Use:   "status --state DIR",
		Short: "Print what this device serves, and the state of its agent",
		Example: `  aob-agent status --state /var/lib/aob
  aob-agent status --state /var/lib/aob -o json | jq .release`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := edge.ReadStatus(state)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				return json.NewEncoder(delivery.LogWriter{W: cmd.OutOrStdout()}).Encode(s)
			case "text":
			default:
				return fmt.Errorf("-o: want text or json, got %q", output)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			row := func(name, format string, args ...any) {
				fmt.Fprintf(w, "%s\t%s\n", name, delivery.Terminal(fmt.Sprintf(format, args...)))
			}
			row("device", "%s in fleet %s", s.Device, s.Ring)
			switch {
			case s.Serving:
				row("serves", "version %d, bundle %s, slot %s", s.Release, s.Bundle.Short(), s.Slot)
			case s.Bundle != "":
				row("serves", "nothing now; version %d, bundle %s is in slot %s", s.Release, s.Bundle.Short(), s.Slot)
			default:
				row("serves", "nothing")
			}
			last := ""
			if !s.Serving {
				last = " (last report)"
			}
			row("phase", "%s, document version %d%s", s.Phase, s.Desired, last)
			if s.Failed != "" {
				row("failed", "bundle %s: %s", s.Failed.Short(), s.Why)
			}
			row("downloaded", "%d bytes", s.Downloaded)
			if s.Unsent > 0 {
				row("reports", "%d not sent yet", s.Unsent)
			}
			if s.Serving {
				row("socket", "%s", s.Socket)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "the agent's state folder")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.MarkFlagRequired("state")
	return cmd
}

func inferCommand() *cobra.Command {
	var state string
	var score float64
	cmd := &cobra.Command{
		Use:   "infer --state DIR IMAGE",
		Short: "Run the serving detector on an image",
		Long: `Infer sends an image to the serving detector and prints the image's size and the
detections as JSON, highest score first. x and y are the upper left corner. All
numbers are pixels of the image.`,
		Example: `  aob-agent infer --state /var/lib/aob image.jpg
  aob-agent infer --state /var/lib/aob --score 0.5 image.jpg | jq '.boxes | length'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			image, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			found, err := edge.Infer(cmd.Context(), state, image)
			if err != nil {
				return err
			}
			found.Boxes = found.Above(score)
			return json.NewEncoder(delivery.LogWriter{W: cmd.OutOrStdout()}).Encode(found)
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "the agent's state folder")
	cmd.Flags().Float64Var(&score, "score", 0, "lowest score of a printed box, 0 to 1")
	cmd.MarkFlagRequired("state")
	return cmd
}
