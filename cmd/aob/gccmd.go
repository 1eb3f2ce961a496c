package main

// This file shows what the server has stored, and has it remove what nothing needs.

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/retention"
	"github.com/autonomos/aob/reconciler/web"
)

func newGCCommand() *cobra.Command {
	var o client
	var dry bool
	var ask web.RetentionAsk
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove what the server has stored and nothing needs any more",
		Long: `Gc removes run folders, bundles, detections, fetched datasets and other things that
nothing needs and that are older than retention: in the server's configuration allows.
The server does that by itself, too. With --dry-run nothing is removed: it shows what
would be, and why the rest stays. --all lists each thing that stays.

What an accepted release, an open pull request, a pinned fleet, a device or a run needs
is never removed, and neither is a signed statement.`,
		Example: "  aob gc --dry-run\n  aob gc --dry-run --all --kind bundle\n" +
			"  aob gc --dry-run -o json | jq '.kinds[] | {kind, remove}'\n  aob gc",
		RunE: func(c *cobra.Command, _ []string) error {
			if ask.Kind != "" && !slices.Contains(retention.Kinds, retention.Kind(ask.Kind)) {
				names := delivery.Each(retention.Kinds, func(k retention.Kind) string { return string(k) })
				return hinted{fmt.Errorf("--kind: want one of %s, got %q", strings.Join(names, ", "), ask.Kind),
					"aob gc --help shows examples"}
			}
			if !dry {
				if ask.All || ask.Kind != "" || ask.After != "" {
					return hinted{fmt.Errorf("--all, --kind and --after only list things"), "add --dry-run"}
				}
				v, err := removeOld(c.Context(), o.dial(), newTerminal(c.ErrOrStderr()))
				if err != nil {
					return err
				}
				return o.print(c.OutOrStdout(), v, func(t *terminal) { t.retention(v, true) })
			}
			v, err := o.dial().Retention(c.Context(), ask)
			if err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), v, func(t *terminal) { t.retention(v, false) })
		},
	}
	o.register(c)
	c.Flags().BoolVar(&dry, "dry-run", false, "remove nothing, and show what would be removed")
	c.Flags().BoolVar(&ask.All, "all", false, "list what stays, too")
	c.Flags().StringVar(&ask.Kind, "kind", "", "list only things of one `kind`, as run or bundle")
	registerPage(c, &ask.Page)
	return c
}

// registerPage adds the flags of a command that lists things.
func registerPage(c *cobra.Command, p *web.Page) {
	p.Limit = web.DefaultLimit
	c.Flags().Var((*pageLimit)(&p.Limit), "limit", fmt.Sprintf("list at most this `number`, up to %d", web.MaxLimit))
	c.Flags().StringVar(&p.After, "after", "", "go on behind this `cursor`, which next in the JSON says")
}

// A pageLimit is a flag: how many things a page lists.
type pageLimit int

func (l *pageLimit) String() string { return strconv.Itoa(int(*l)) }
func (l *pageLimit) Type() string   { return "number" }

func (l *pageLimit) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > web.MaxLimit {
		return fmt.Errorf("want a number from 1 to %d", web.MaxLimit)
	}
	*l = pageLimit(n)
	return nil
}

// remover is what removing needs of a server.
type remover interface {
	Remove(ctx context.Context) (web.Retention, error)
}

// removeOld has the server remove things until nothing is left to be removed.
func removeOld(ctx context.Context, server remover, progress *terminal) (web.Retention, error) {
	var all web.Retention
	for {
		v, err := server.Remove(ctx)
		if err != nil {
			return all, err
		}
		all = added(all, v)
		if v.Left == 0 || len(v.Items) == 0 {
			return all, nil
		}
		progress.printf("removed %s, %d are left\n", delivery.Count(len(all.Items)+all.More, "thing"), v.Left)
		if err := progress.flush(); err != nil {
			return all, err
		}
	}
}

// added adds up two removals.
func added(a, b web.Retention) web.Retention {
	for _, k := range b.Kinds {
		i := slices.IndexFunc(a.Kinds, func(have web.StoredKind) bool { return have.Kind == k.Kind })
		if i < 0 {
			a.Kinds = append(a.Kinds, k)
			continue
		}
		a.Kinds[i].Remove.Count += k.Remove.Count
		a.Kinds[i].Remove.Bytes += k.Remove.Bytes
	}
	a.At, a.Left, a.More = b.At, b.Left, a.More+b.More
	a.Items = append(a.Items, b.Items...)
	return a
}

// retention prints what is stored, or what was removed.
func (t *terminal) retention(v web.Retention, removed bool) {
	size := func(a web.Amount) string { return fmt.Sprintf("%d, %s", a.Count, megabytes(a.Bytes)) }
	total := web.Amount{}
	rows := [][]cell{heading("KIND", "REMOVE", "KEEP", "WHY IT STAYS")}
	if removed {
		rows = [][]cell{heading("KIND", "REMOVED")}
	}
	for _, k := range v.Kinds {
		total.Count += k.Remove.Count
		total.Bytes += k.Remove.Bytes
		row := []cell{{text: k.Kind}, {text: size(k.Remove)}}
		if !removed {
			var why []string
			for _, r := range k.Why {
				why = append(why, fmt.Sprintf("%d: %s", r.Count, r.Text))
			}
			row = append(row, cell{text: size(k.Keep)}, cell{text: strings.Join(why, "; ")})
		}
		rows = append(rows, row)
	}
	switch {
	case len(v.Kinds) == 0 && removed:
		t.printf("nothing to remove\n")
		return
	case len(v.Kinds) == 0:
		t.printf("nothing is stored yet\n")
		return
	case removed:
		t.table("", rows)
	default:
		t.tableWithTexts(rows, true)
	}
	if len(v.Items) > 0 {
		items := [][]cell{heading("THING", "SIZE", "LAST USED", "KEPT", "")}
		for _, it := range v.Items {
			kept := "no"
			if it.Keep {
				kept = "yes"
			}
			items = append(items, []cell{{text: it.Name}, {text: megabytes(it.Bytes)},
				{text: it.At.UTC().Format("2006-01-02")}, {text: kept}, {text: it.Text}})
		}
		t.printf("\n")
		t.tableWithTexts(items, true)
	}
	if v.More > 0 {
		t.printf("… and %d more", v.More)
		if v.Next != "" {
			t.printf("; --after %s shows them", shellQuoted(v.Next))
		}
		t.printf("\n")
	}
	if !removed {
		t.printf("\naob gc removes %s, %s\n", delivery.Count(total.Count, "thing"), megabytes(total.Bytes))
	}
}

// megabytes returns a size for people.
func megabytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 100_000 || n == 0:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f kB", float64(n)/1e3)
}
