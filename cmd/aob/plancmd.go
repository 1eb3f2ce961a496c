package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

func newPlanCommand() *cobra.Command {
	var config string
	var o client
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show what the server decides, like a diff, and do nothing",
		Long: `Plan shows what the server's last turn decided: what it says about each pull
request and the main branch, and the steps that it takes. It does nothing.

With --config, and if no server is running, it is a dry run: it reads the same state as
aob serve, decides with the same code, prints the plan and ends. Nothing is started,
signed, committed, published or commented.

-o github adds the plan to the summary of a job of GitHub Actions.`,
		Example: "  aob plan\n  aob plan --config world/aob.yaml       # before the first aob serve\n  aob plan -o " +
			"json | jq '.steps[].text'",
		RunE: func(c *cobra.Command, _ []string) error {
			get := o.dial().Plan
			if config != "" {
				get = func(ctx context.Context) (web.Plan, error) { return dryRun(ctx, config) }
			}
			p, err := get(c.Context())
			if err != nil {
				return err
			}
			if o.format == formatGitHub {
				list, markdown := planJob(p)
				return printJob(c.OutOrStdout(), list, markdown)
			}
			return o.print(c.OutOrStdout(), p, func(t *terminal) {
				for _, n := range p.Notices {
					t.paragraph("", "note: "+n)
				}
				t.plan(p.Text)
			})
		},
	}
	o.output.register(c, formatGitHub)
	o.registerSocket(c)
	c.Flags().StringVar(&config, "config", "", "a server's configuration `file`: a dry run instead of asking a server")
	return c
}

// dryRun plans once, as the server of a configuration would.
func dryRun(ctx context.Context, config string) (_ web.Plan, err error) {
	p, err := openServer(ctx, config, false, slog.New(slog.NewTextHandler(delivery.LogWriter{W: os.Stderr},
		&slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return web.Plan{}, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	return p.source.DryRun(ctx)
}

// plan prints a plan in the colours of a diff.
func (t *terminal) plan(text string) {
	styles := map[string]style{"+ ": green, "- ": red, "~ ": yellow, "#": bold}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		trimmed := strings.TrimLeft(line, " ")
		s := plainStyle
		for prefix, is := range styles {
			if strings.HasPrefix(line, prefix) {
				s = is
			}
		}
		indent := line[:len(line)-len(trimmed)]
		t.printf("%s%s\n", indent, t.styled(s, trimmed))
	}
}
