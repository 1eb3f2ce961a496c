package main

// This file says what trainings have cost.

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

// costBy lists what costs can be added up by.
var costBy = map[string]func(s delivery.Spend) string{
	"model":  func(s delivery.Spend) string { return s.Quote.Model },
	"person": func(s delivery.Spend) string { return s.Quote.By },
	"month":  func(s delivery.Spend) string { return s.Started.UTC().Format("2006-01") },
	"pr": func(s delivery.Spend) string {
		if s.Quote.Pull == 0 {
			return "none"
		}
		return fmt.Sprintf("#%d", s.Quote.Pull)
	},
}

// A costRow is what the trainings of one model, pull request, person or month have cost.
type costRow struct {
	Of        string         `json:"of"`
	Trainings int            `json:"trainings"`
	Cost      delivery.Money `json:"cost"`
	Wasted    delivery.Money `json:"wasted"` // on trainings that failed, or were ended before they had a result
	Agreed    delivery.Money `json:"agreed"` // the ceilings of those that go on
}

// A costs is what aob cost prints.
type costs struct {
	By        string           `json:"by"`
	Rows      []costRow        `json:"rows"` // the most expensive first; months in order
	Total     costRow          `json:"total"`
	Trainings []delivery.Spend `json:"trainings"`
}

func newCostCommand() *cobra.Command {
	var by, since string
	c := query(&cobra.Command{
		Use:   "cost",
		Short: "Show what trainings on machines that cost money have cost",
		Long: `Cost adds up what trainings have cost: by model, pull request, person or month. WASTED is
of trainings that failed, or that a later push ended before they had a result. AGREED is
what those that go on may cost at most. Trainings on the server's own machine cost
nothing and are not shown. A cost is the time of the machine at the agreed price; the
bill of the cloud counts.`,
		Example: "  aob cost --by model\n  aob cost --by person --since 2026-11\n" +
			"  aob cost --by month -o json | jq '.rows[] | {of, cost}'",
		Args: cobra.NoArgs,
	}, func(c *cobra.Command, api *web.Client, _ []string) (any, func(*terminal), error) {
		of, ok := costBy[by]
		if !ok {
			return nil, nil, hinted{fmt.Errorf("--by: want %s, got %q",
				strings.Join(slices.Sorted(maps.Keys(costBy)), ", "), by), "aob cost --help shows examples"}
		}
		from, err := monthOrDay(since)
		if err != nil {
			return nil, nil, hinted{err, "as in --since 2026-11 or --since 2026-11-30"}
		}
		spends, err := api.Spends(c.Context())
		if err != nil {
			return nil, nil, err
		}
		spends = slices.DeleteFunc(spends, func(s delivery.Spend) bool { return s.Started.Before(from) })
		v := addUp(spends, by, of)
		return v, func(t *terminal) { t.costs(v) }, nil
	})
	c.Flags().StringVar(&by, "by", "model", "add up by `what`: model, pr, person or month")
	c.Flags().StringVar(&since, "since", "", "only trainings that began in this `month` or on this day, or later")
	return c
}

// monthOrDay parses 2026-11 or 2026-11-30.
func monthOrDay(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01", time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since: want a month or a day, got %q", text)
}

// addUp adds up costs.
func addUp(spends []delivery.Spend, by string, of func(delivery.Spend) string) costs {
	v := costs{By: by, Rows: []costRow{}, Trainings: spends, Total: costRow{Of: "total"}}
	at := map[string]int{}
	for _, s := range spends {
		name := of(s)
		i, ok := at[name]
		if !ok {
			i = len(v.Rows)
			at[name], v.Rows = i, append(v.Rows, costRow{Of: name})
		}
		for _, row := range []*costRow{&v.Rows[i], &v.Total} {
			row.Trainings++
			row.Cost += s.Cost
			if s.Wasted {
				row.Wasted += s.Cost
			}
			if s.Phase == delivery.RunRunning {
				row.Agreed += s.Quote.Ceiling
			}
		}
	}
	slices.SortStableFunc(v.Rows, func(a, b costRow) int {
		if by == "month" {
			return cmp.Compare(a.Of, b.Of)
		}
		return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(a.Of, b.Of))
	})
	return v
}

// costs prints costs.
func (t *terminal) costs(v costs) {
	if len(v.Trainings) == 0 {
		t.printf("no training has cost anything yet\n")
		return
	}
	rows := [][]cell{heading(strings.ToUpper(v.By), "TRAININGS", "COST", "WASTED", "AGREED")}
	for _, r := range append(slices.Clone(v.Rows), v.Total) {
		rows = append(rows, []cell{{text: r.Of}, {text: fmt.Sprint(r.Trainings)}, {text: r.Cost.String()},
			{text: r.Wasted.String()}, {text: r.Agreed.String()}})
	}
	t.table("", rows)
}
