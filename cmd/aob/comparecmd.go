package main

// This file compares two models on their validation split.

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

func newCompareCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:   "compare A B",
		Short: "Compare two models on their validation split",
		Long: `Compare shows for each figure whether A is better than B, with bounds from a paired
bootstrap over the images of the validation split. A and B are variants of experiments,
pull requests as #12, or versions as shapes@3. One of them may be release: the current
release of the other's model.`,
		Example: "  aob compare 3f9c2a10ab 77d0c1e2f3\n  aob compare 3f9c2a10ab release\n  aob compare '#12' release " +
			"-o json",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		for written := false; ; written = true {
			v, err := api.Compare(c.Context(), args[0], args[1])
			if err != nil || v.State != delivery.CheckPending {
				return v, func(t *terminal) { t.comparison(v) }, err
			}
			if !written {
				printMessage(c.ErrOrStderr(), "comparing …")
			}
			select {
			case <-c.Context().Done():
				return nil, nil, c.Context().Err()
			case <-tick.C:
			}
		}
	})
}

// comparison prints two models side by side.
func (t *terminal) comparison(c web.Comparison) {
	t.printf("A  %s\nB  %s\n", c.A, c.B)
	over := delivery.Count(c.Images, "validation image")
	if c.Groups > 0 {
		over += " in " + delivery.Count(c.Groups, "group")
	}
	if c.LeftOut > 0 {
		over += fmt.Sprintf(", %d left out: in a gate's eval set or in the training images of A or B", c.LeftOut)
	}
	t.printf("%s\n", over)
	rows := [][]cell{heading("METRIC", "A", "B", "A - B", "AT LEAST", "AT MOST", "A IS")}
	for _, r := range c.Rows {
		name := r.Metric
		if r.Class != "" {
			name += " " + r.Class
		}
		answer := cell{text: string(r.Answer), style: yellow}
		switch r.Answer {
		case "better":
			answer.style = green
		case "worse":
			answer.style = red
		case "unsure":
			answer.text = "cannot tell"
		case coco.TooFew:
			answer.text = "cannot tell: too few images"
		}
		rows = append(rows, []cell{{text: name}, {text: fmt.Sprintf("%.4f", r.A)}, {text: fmt.Sprintf("%.4f", r.B)},
			{text: fmt.Sprintf("%+.4f", r.Diff)},
			{text: fmt.Sprintf("%+.4f", r.Low)}, {text: fmt.Sprintf("%+.4f", r.High)}, answer})
	}
	t.table("  ", rows)
	t.paragraph("", "Each bound is one-sided and 95 % sure. Bounds cover the choice of images, not the noise of "+
		"training; answers over classes are adjusted for their number.")
}
