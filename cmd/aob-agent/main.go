// Command aob-agent runs on a device: it keeps the release that the device's
// fleet must run, serves it, and falls back by itself where it fails. See
// package edge for what it keeps and what it believes.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newCommand().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "aob-agent: "+delivery.Terminal(err.Error()))
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "aob-agent",
		Short: "Keep the release that this device's fleet must run, and serve it",
		Long: `aob-agent runs on a device. It reads what its fleet must run, fetches that
bundle, checks it, starts a detector on it beside the one that serves, switches,
and falls back by itself where the new one fails. It needs no network to serve.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(runCommand(), statusCommand(), inferCommand())
	return root
}
