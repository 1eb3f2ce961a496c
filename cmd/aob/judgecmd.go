package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/explain"
	"github.com/autonomos/aob/reconciler/stage"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/reconciler/words"
)

// stageCommands are the commands that write the results of stages.
var stageCommands = map[string]string{stage.Train: "aob train MODEL -o json",
	stage.Eval: "aob eval --trained FILE -o json"}

// readStage reads the result of a stage.
func readStage[T any](file string, in io.Reader, of string) (v T, err error) {
	var data []byte
	if file == "-" {
		data, err = io.ReadAll(io.LimitReader(in, maxStage))
	} else {
		data, err = durable.ReadFile(file, maxStage)
	}
	if err != nil {
		return v, err
	}
	var is struct{ Stage string }
	if err := json.Unmarshal(data, &is); err != nil || is.Stage != of {
		if file == "-" {
			file = "the standard input"
		}
		return v, hinted{fmt.Errorf("%s is not what %s writes", file, stageCommands[of]), stageCommands[of] + " >FILE"}
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("%s: %w", file, err)
	}
	return v, nil
}

// maxStage is the most bytes of a file between stages. Scores have their resamples.
const maxStage = 1 << 30

func newGateJudgeCommand() *cobra.Command {
	var o output
	var w workshop
	var scores string
	c := &cobra.Command{
		Use:   "judge --scores FILE",
		Short: "Judge the scores of aob eval --trained by the gates of a repository",
		Long: `Judge reads what aob eval --trained -o json wrote, and decides as the gates of the
repository do. It fails if a check fails, or is unsure and the gate says that this
counts as a fail. Scores of a variant are judged by the same gates, and checks against
fp32 compare it with the model. It signs nothing: a server judges again what a pull
request proposes.`,
		Example: `  aob gate judge --scores scores.json
  aob eval --trained trained.json -o json | aob gate judge --scores - -o json >verdicts.json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if scores == "" {
				return hinted{errors.New("--scores is missing"),
					"aob eval --trained FILE -o json >scores.json writes it"}
			}
			measured, err := readStage[stage.Measured](scores, c.InOrStdin(), stage.Eval)
			if err != nil {
				return err
			}
			in, err := w.gates()
			if err != nil {
				return err
			}
			list := []delivery.Verdict{}
			var failed []string
			for _, name := range in.Covering(measured.Model) {
				v, err := stage.Judge(name, in.Gates.Of(name), measured)
				if err != nil {
					return err
				}
				if list = append(list, words.WithTexts(v)); v.Outcome == delivery.Fail {
					failed = append(failed, name)
				}
			}
			if len(list) == 0 {
				return hinted{fmt.Errorf("no gate in %s covers %s", w.dir, measured.Model),
					"--dir names the repository"}
			}
			if err := o.print(c.OutOrStdout(), list, func(t *terminal) { t.verdicts(list) }); err != nil {
				return err
			}
			if len(failed) > 0 {
				of := strings.TrimSpace(measured.Model + " " + measured.Variant)
				return hinted{fmt.Errorf("%s fails gate %s", of, strings.Join(failed, ", ")),
					"docs/gates.md says how a gate decides"}
			}
			return nil
		},
	}
	o.register(c)
	w.registerDir(c)
	c.Flags().StringVar(&scores, "scores", "",
		"what aob eval --trained -o json wrote, a `file`; - is the standard input")
	return c
}

func newReleaseCommand() *cobra.Command {
	var o client
	var wait time.Duration
	var head string
	c := &cobra.Command{
		Use:   "release BRANCH",
		Short: "Wait until the pull request of a branch is judged, and fail if its release is refused",
		Long: `Release waits for aob/release of the pull request of a pushed branch. Its server trains
and measures for itself, so it does not matter what another program has measured. It
succeeds when aob/release has passed; whoever may merge it then releases the model.

--head names the commit that was pushed, so that the checks of an earlier push do not
count.`,
		Example: `  git push origin larger-model && aob release larger-model --head "$(git rev-parse HEAD)"
  aob release larger-model --wait 30m -o json | jq .number`,
		RunE: func(c *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), wait)
			defer cancel()
			pr, err := awaitRelease(ctx, o.dial(), args[0], head, c.ErrOrStderr())
			if errors.Is(err, context.DeadlineExceeded) && c.Context().Err() == nil {
				err = hinted{fmt.Errorf("aob/release of branch %s is not decided after %s", args[0], wait),
					"aob pr list shows what it waits for; --wait waits longer"}
			}
			if err != nil {
				return err
			}
			if err := o.print(c.OutOrStdout(), pr, func(t *terminal) { t.pr(pr, time.Now()) }); err != nil {
				return err
			}
			if pr.State != delivery.CheckSuccess {
				return hinted{fmt.Errorf("aob/release of #%d is %s", pr.Number, pr.State),
					fmt.Sprintf("aob pr show %d", pr.Number)}
			}
			return nil
		},
	}
	o.register(c)
	c.Flags().StringVar(&head, "head", "", "the pushed `commit`")
	c.Flags().DurationVar(&wait, "wait", 8*time.Hour, "how long to wait at most")
	return c
}

// awaitRelease returns the pull request of a branch once aob/release is decided on it. With head it first waits until
// the server has read that commit.
func awaitRelease(ctx context.Context, api *web.Client, branch, head string, progress io.Writer) (web.PR, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	said := ""
	for {
		list, err := api.PRList(ctx, web.PRAsk{Branch: branch})
		if err != nil {
			return web.PR{}, err
		}
		if head != "" {
			if _, err := api.Explain(ctx, explain.Commit, head); err == nil {
				head = ""
			}
		}
		now := fmt.Sprintf("the server has not read commit %s yet", head)
		if head == "" {
			now = fmt.Sprintf("branch %s has no open pull request yet", branch)
		}
		pr, ok := delivery.Find(list.PRs, func(p web.PR) bool { return p.HeadRef == branch && !p.Fork })
		if ok && head == "" {
			if pr.State != delivery.CheckPending {
				return api.PR(ctx, pr.Number)
			}
			now = fmt.Sprintf("#%d: %s", pr.Number, cmp.Or(pr.Text, string(pr.State)))
		}
		if now != said {
			said = now
			printMessage(progress, "%s", now)
		}
		select {
		case <-ctx.Done():
			return web.PR{}, ctx.Err()
		case <-tick.C:
		}
	}
}
