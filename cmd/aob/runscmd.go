package main

// This file lists, shows and ends experiments.

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/web"
)

func newRunsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "runs",
		Short: "List, show and end experiments",
		Long: `Runs lists the experiments that aob try asked for, the newest first. They are kept
for two weeks; what they trained is kept longer.`,
		Example: "  aob runs\n  aob runs show 0a1b2c3d4e\n  aob runs write 3f9c2a10ab models/shapes.yaml\n  aob runs " +
			"stop 0a1b2c3d4e",
	}
	group(c)
	list := func(c *cobra.Command, api *web.Client, _ []string) (any, func(*terminal), error) {
		trials, err := api.Trials(c.Context())
		return trials, func(t *terminal) { t.trials(trials, time.Now()) }, err
	}
	query(c, list) // without a command it lists
	c.AddCommand(query(&cobra.Command{
		Use:     "list",
		Short:   "List the experiments",
		Example: "  aob runs list\n  aob runs list -o json | jq -r '.[].id'",
	}, list), newRunsShowCommand(), newRunsWriteCommand(), newRunsStopCommand())
	return c
}

func (t *terminal) trials(trials []web.Trial, now time.Time) {
	if len(trials) == 0 {
		t.printf("no experiment; aob try --help shows how to begin one\n")
		return
	}
	rows := [][]cell{heading("EXPERIMENT", "MODEL", "ASKED", "BY", "VARIANTS", "BEST mAP", "STATE")}
	for _, trial := range trials {
		best := ""
		if v, ok := bestVariant(trial); ok {
			best = fmt.Sprintf("%.4f", v.MAP.Value)
		}
		rows = append(rows, []cell{{text: trial.ID}, {text: trial.Model}, {text: ago(trial.At, now)}, {text: trial.By},
			{text: fmt.Sprint(len(trial.Variants))}, {text: best}, {text: trial.Text, style: stateStyle(trial.State)}})
	}
	t.table("", rows)
}

func newRunsShowCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:     "show ID",
		Short:   "Show an experiment",
		Example: "  aob runs show 0a1b2c3d4e",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		trial, err := api.Trial(c.Context(), args[0])
		return trial, func(t *terminal) { t.trial(trial, time.Now()) }, err
	})
}

func newRunsWriteCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:   "write VARIANT FILE",
		Short: "Write a variant's values into a model's file",
		Long: `Write changes only the values that the variant sets: comments and order stay. A
pull request with the file then finds what the experiment trained.`,
		Example: "  aob runs write 3f9c2a10ab models/shapes.yaml",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		trials, err := api.Trials(c.Context())
		if err != nil {
			return nil, nil, err
		}
		for _, t := range trials {
			for _, v := range t.Variants {
				if len(args[0]) < 4 || !strings.HasPrefix(v.ID, args[0]) {
					continue
				}
				return v, func(t *terminal) {
					t.printf("wrote %s into %s\n", strings.Join(v.Set, " "), args[1])
				}, writeVariant(args[1], v)
			}
		}
		return nil, nil, hinted{fmt.Errorf("there is no variant %q", args[0]), "aob runs show EXPERIMENT lists them"}
	})
}

func newRunsStopCommand() *cobra.Command {
	return query(&cobra.Command{
		Use:   "stop ID",
		Short: "End an experiment",
		Long: `Stop ends what an experiment trains and forgets it. What is trained already stays:
the same aob try finds it.`,
		Example: "  aob runs stop 0a1b2c3d4e",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		return map[string]string{"stopped": args[0]}, func(t *terminal) { t.printf("stopped %s\n", args[0]) },
			api.EndTrial(c.Context(), args[0])
	})
}
