package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/words"
)

// explainLimit is how many links of a chain are shown.
const explainLimit = 500

func newExplainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain",
		Short: "Tell how a release, a pull request or a device came to what it is",
		Long: `Explain tells the chain from a commit to the devices that run it: content,
dataset, run, bundle, scores, verdicts with their reasons, release statement,
acceptance on main, fleets and devices. Digests are cut to 12 digits; -o json has
them in full.`,
		Example: `  aob explain pr 12
  aob explain commit 4f1c09d
  aob explain model pallets
  aob explain device dock-3 -o json`,
	}
	group(c)
	for _, k := range []struct {
		kind                explain.Kind
		arg, short, example string
	}{
		{explain.PR, "N", "What a pull request changes, measured and released", "12"},
		{explain.Commit, "SHA", "What a commit asks for, or brought to main", "4f1c09d"},
		{explain.Model, "NAME", "Every version of a model, and where it runs", "pallets"},
		{explain.Device, "ID", "What a device runs, and how that came to be", "dock-3"},
	} {
		limit, full := 0, false
		explains := query(&cobra.Command{
			Use:     fmt.Sprintf("%s %s", k.kind, k.arg),
			Short:   k.short,
			Example: fmt.Sprintf("  aob explain %s %s", k.kind, k.example),
		}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
			most := limit
			if full {
				most = 0
			}
			chain, err := api.ExplainFirst(c.Context(), k.kind, args[0], most)
			return chain, func(t *terminal) {
				t.printf("%s", safeText(words.ChainText(chain, t.width)))
				if chain.More > 0 {
					t.printf("… and %d more; --full shows them\n", chain.More)
				}
			}, err
		})
		explains.Flags().IntVar(&limit, "limit", explainLimit, "at most this `number` of links")
		explains.Flags().BoolVar(&full, "full", false, "all links")
		c.AddCommand(explains)
	}
	return c
}
