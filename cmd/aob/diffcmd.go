package main

import (
	"cmp"
	"errors"
	"fmt"
	"image/png"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/picture"
)

func newDataDiffCommand() *cobra.Command {
	var o output
	var r dataRequest
	var sheet string
	var headers, fail bool
	c := &cobra.Command{
		Use:   "diff BEFORE NOW",
		Short: "Say what has changed between two versions of a dataset",
		Long: `Diff compares two folders, or datasets of a server's configuration, in any layouts. It
finds images by their bytes, names, sources and looks: those that were added, removed,
moved to another split, renamed, encoded again or replaced. In images that both versions
have it finds the boxes that were added, removed, moved or given another label. It checks
both versions, and says which findings are new and which are gone.

The first line says it all in short. --sheet draws the changed images, with their changed
boxes in red. The exit status does not depend on what was found; with --exit-code it is 1
if the versions differ.`,
		Example: `  aob data diff ~/pallets/v3 ~/pallets/v4
  aob data diff ~/pallets/v3 ~/pallets/v4 --sheet changes.png
  aob data diff shapes/v3 shapes/v4 --config aob.yaml -o json | jq .summary`,
		RunE: func(c *cobra.Command, args []string) error {
			before, err := r.located(args[0], "")
			if err != nil {
				return err
			}
			now, err := r.located(args[1], "")
			if err != nil {
				return err
			}
			before.Catalog.HeadersOnly, now.Catalog.HeadersOnly = headers, headers
			progress, done := showProgress(c.ErrOrStderr())
			d, err := dataset.Compare(c.Context(), before, now, progress)
			if done(); err != nil {
				return err
			}
			if sheet != "" {
				if err := drawChanges(d, sheet); err != nil {
					return err
				}
			}
			if err := o.print(c.OutOrStdout(), d, func(t *terminal) { t.dataDiff(d) }); err != nil {
				return err
			}
			if fail && !d.Same() {
				return fmt.Errorf("%s and %s differ", args[0], args[1])
			}
			return nil
		},
	}
	o.register(c)
	r.register(c)
	c.Flags().StringVar(&sheet, "sheet", "", "a PNG `file` to write: the changed images, as they were and are")
	c.Flags().BoolVar(&headers, "headers-only", false, "do not decode images: their looks are not compared")
	c.Flags().BoolVar(&fail, "exit-code", false, "fail if the versions differ")
	c.Flags().BoolVar(&r.noMemory, "reread", false, "read all files, also those that did not change since the last "+
		"check")
	return c
}

// drawChanges writes a contact sheet of the changed images.
func drawChanges(d dataset.Diff, to string) error {
	var list []picture.Change
	for _, c := range d.Images {
		before, now := c.Sides()
		side := func(p *dataset.ImagePlace, boxes []coco.Drawn) *picture.Side {
			if p == nil {
				return nil
			}
			return &picture.Side{Path: p.Path, Boxes: boxes}
		}
		if len(list) < picture.MaxChanges {
			list = append(list, picture.Change{Title: dataset.Shown(c.Name()) + ": " + c.Text(),
				Before: side(c.Before, before), Now: side(c.Now, now)})
		}
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(png.Encode(f, picture.Contacts(list)), f.Close())
}

// maxListed is how many changed images and findings are listed for people.
const maxListed = 30

func (t *terminal) dataDiff(d dataset.Diff) {
	t.printf("%s\n", d.Summary)
	if d.Same() {
		return
	}
	rows := [][]cell{heading("SPLIT", "IMAGES BEFORE", "NOW")}
	for _, s := range d.Splits {
		rows = append(rows, cells(cmp.Or(s.Split, "not divided"), strconv.Itoa(s.Before), strconv.Itoa(s.Now)))
	}
	t.printf("\n")
	t.table("  ", rows)
	rows = [][]cell{heading("SPLIT", "LABEL", "BOXES BEFORE", "NOW", "ADDED", "REMOVED", "MOVED", "RELABELLED")}
	for _, l := range d.Labels {
		if l.Before != l.Now || l.Added+l.Removed+l.Moved+l.Relabelled > 0 {
			rows = append(rows, cells(cmp.Or(l.Split, "not divided"), l.Label, strconv.Itoa(l.Before),
				strconv.Itoa(l.Now), strconv.Itoa(l.Added), strconv.Itoa(l.Removed), strconv.Itoa(l.Moved),
				strconv.Itoa(l.Relabelled)))
		}
	}
	if len(rows) > 1 {
		t.printf("\n")
		t.table("  ", rows)
	}
	rows = [][]cell{heading("IMAGE", "CHANGE")}
	for _, c := range d.Images[:min(len(d.Images), maxListed)] {
		rows = append(rows, cells(dataset.Shown(c.Name()), c.Text()))
	}
	if len(rows) > 1 {
		t.printf("\n")
		t.table("  ", rows)
	}
	if more := len(d.Images) - maxListed; more > 0 {
		t.printf("  and %s more; -o json has all\n", delivery.Count(more, "image"))
	}
	for i, p := range d.Problems {
		if i == 0 {
			t.printf("\n")
		}
		if i == maxListed {
			t.printf("and %s more; -o json has all\n", delivery.Count(len(d.Problems)-i, "finding"))
			break
		}
		sign, style := "+", yellow
		switch {
		case p.Change == dataset.Removed:
			sign, style = "-", green
		case p.Level == delivery.LevelError:
			style = red
		}
		t.printf("%s %s: %s: %s\n", t.styled(style, sign+" "+p.Level), p.Code, p.Where, p.Text)
	}
}
