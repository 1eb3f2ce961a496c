package main

import (
	"strings"

	"github.com/spf13/cobra"
)

func newPlanCommand() *cobra.Command {
	var o client
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show what the server decided last, like a diff",
		Long: `Plan shows what the server's last turn decided: what it says about each pull
request and the main branch, and the steps that it takes. It does nothing.`,
		Example: "  aob plan\n  aob plan -o json | jq '.steps[].text'",
		Args:    arguments(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := o.dial().Plan(c.Context())
			if err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), p, func(t *terminal) { t.plan(p.Text) })
		},
	}
	o.register(c)
	return c
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
		t.printf("%s%s\n", indent, t.styled(s, printable(trimmed)))
	}
}
