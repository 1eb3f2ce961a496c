package words

// This file writes what check runs show beside a status.

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// Details returns what a check of a pull request shows beside its status. body is the pull request's comment, which
// aob/release shows as a whole; a gate shows its own tables, and other checks what they say in full.
func Details(pr plan.ProposalReport, check plan.Check, body string) *delivery.CheckDetails {
	d := &delivery.CheckDetails{}
	gate, isGate := strings.CutPrefix(check.Context, delivery.ContextGate)
	switch {
	case check.Context == delivery.ContextRelease:
		d.Summary, d.Buttons = body, buttons(pr, "")
		return d
	case check.Context == delivery.ContextIntent:
		d.Notes = pr.Problem
	case isGate:
		d.Buttons = buttons(pr, gate)
	}
	c := &comment{}
	for _, f := range check.Facts {
		c.printf("%s.\n\n", capital(Text(f)))
	}
	if isGate {
		for _, m := range pr.Models {
			c.gateOf(m, gate)
		}
	}
	c.printf("AOB's comment on the pull request has the rest.\n")
	d.Summary = c.String()
	return d
}

// gateOf writes the verdict of one gate about a model.
func (c *comment) gateOf(m plan.ModelReport, gate string) {
	for _, v := range m.Verdicts {
		if v.Gate == gate {
			c.printf("**%s**\n\n", m.Model)
			c.verdict(v, baselineOf(m, gate))
		}
	}
}

// buttons returns the buttons for what a pull request waits for. gate limits them to the accepts of one gate.
func buttons(pr plan.ProposalReport, gate string) (list []delivery.Button) {
	if gate == "" {
		for _, command := range pr.ApprovalCommands {
			b := delivery.Button{Label: "Run", About: "Allow the runs of this pull request", Order: command}
			if cost := pr.Cost(command); cost.Code == code.CostQuote {
				b.Label = "Run for about " + roughly(cost.Cost)
				b.About = fmt.Sprintf("Train %s, at most %s", cost.Model, cost.Ceiling)
			}
			list = append(list, b)
		}
	}
	if gate == "" && pr.CanRecheck() {
		list = append(list, delivery.Button{Label: "Run again", About: "Try again what has failed",
			Order: plan.RecheckOrder})
	}
	if len(pr.ApprovalCommands) > 0 {
		return list
	}
	for _, m := range pr.Models {
		for _, d := range m.Unsure {
			if d.Accept == nil && len(d.Owners) > 0 && (gate == "" || d.Gate == gate) {
				list = append(list, delivery.Button{Label: "Accept",
					About: fmt.Sprintf("%s of gate %s", m.Model, d.Gate),
					Order: fmt.Sprintf("/aob accept %s because the button Accept was pressed, without more words",
						d.Code)})
			}
		}
	}
	return list
}

// roughly writes an amount for a button: whole dollars from $10.
func roughly(m delivery.Money) string {
	if m >= 10*delivery.Dollar {
		m = (m + delivery.Dollar/2) / delivery.Dollar * delivery.Dollar
	}
	return cmp.Or(m.String(), "$0")
}

// baselineOf returns the release that a gate compares a model with; nil for none.
func baselineOf(m plan.ModelReport, gate string) *delivery.Release {
	if runs, ok := m.Against[gate]; ok {
		return runs
	}
	return m.Baseline
}
