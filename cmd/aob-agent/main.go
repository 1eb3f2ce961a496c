// Command aob-agent runs on a device: it installs the release of the device's fleet, serves it, and
// falls back if it fails. See package edge for its files and for what it trusts.
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
		Short: "Install and serve the release of this device's fleet",
		Long: `aob-agent runs on a device. It reads the desired state of its fleet, downloads
and checks the bundle, starts a detector on it beside the serving one, and
switches to it. If the new bundle fails, it falls back. It serves without a network.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(runCommand(), statusCommand(), inferCommand())
	return root
}
