// Command aob delivers computer-vision models the way GitOps delivers software: Git says what should run, a pull
// request proposes a change, and merging releases it.
//
// aob serve is the server. The other commands ask it over its socket, or work on files alone (init, validate, schema).
//
// Results go to standard output, as text or with -o json; all else goes to
// standard error. The exit status is 0, or 1 where something went wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/autonomos/aob/reconciler/delivery"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second one ends the process at once
	code := execute(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// execute runs one command and returns the exit status.
func execute(ctx context.Context, args []string) int {
	root := newRootCommand()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		printError(os.Stderr, err)
		return 1
	}
	return 0
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "aob",
		Short: "Deliver computer-vision models by Git",
		Long: `aob delivers computer-vision models by Git. Git says what should run, a pull
request proposes a change, status checks are the evidence, merging releases, and
git revert rolls back.`,
		Example: `  aob init world                          # a repository and a dataset to start from
  aob serve --config world/aob.yaml       # the server
  aob status -w                           # how everything stands
  aob try models/shapes.yaml --set train.epochs=4,8
  aob explain model shapes                # how it came to be`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		newServeCommand(), newRunnerCommand(), newLaunchCommand(), newInitCommand(),
		newStatusCommand(), newExplainCommand(), newPRCommand(), newLogsCommand(), newPlanCommand(),
		newTryCommand(), newRunsCommand(), newCompareCommand(), newCostCommand(), newGateCommand(), newDataCommand(),
		newDeviceCommand(), newGCCommand(),
		newBundleCommand(), newTrainerCommand(), newTrainCommand(), newReleaseCommand(),
		newImportCommand(), newReproduceCommand(), newEvalCommand(),
		newBenchCommand(), newDoctorCommand(), newValidateCommand(),
		newSchemaCommand(), newVersionCommand(),
	)
	group(root)
	checkArguments(root)
	// Cobra counts a command that only holds others as one to be run, and does not wrap what it says of flags.
	root.SetUsageTemplate(strings.NewReplacer("{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}",
		".FlagUsages ", ".FlagUsagesWrapped 80 ").Replace(root.UsageTemplate()))
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return hinted{err, c.CommandPath() + " --help shows how"}
	})
	return root
}

// group makes a command that only holds others say what it holds, and suggest one where the word is not one of them.
func group(c *cobra.Command) {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		hint := c.CommandPath() + " --help lists the commands"
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "?"
		}
		return hinted{fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath()), hint}
	}
	c.SuggestionsMinimumDistance = 2
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

// checkArguments makes the commands below c check their arguments against their usage.
func checkArguments(c *cobra.Command) {
	for _, sub := range c.Commands() {
		if checkArguments(sub); !sub.HasSubCommands() {
			sub.Args = arguments
		}
	}
}

// optionUsage matches a flag and its value in a usage.
var optionUsage = regexp.MustCompile(` --\S+ \S+`)

// arguments checks the number of arguments against the command's usage. There, [NAME] may be left out, NAME... stands
// for one or more, and | separates two forms.
func arguments(c *cobra.Command, args []string) error {
	var forms []string
	for form := range strings.SplitSeq(optionUsage.ReplaceAllString(c.Use, ""), " | ") {
		names := strings.Fields(form)[1:]
		least, most := len(names)-strings.Count(form, "["), len(names)
		if len(args) >= least && (len(args) <= most || strings.HasSuffix(form, "...")) {
			if i := slices.Index(args, ""); i >= 0 {
				return hinted{fmt.Errorf("%s is missing: argument %d is empty", names[min(i, most-1)], i+1),
					"usage: " + c.UseLine()}
			}
			return nil
		}
		forms = append(forms, strings.Join(names, " "))
	}
	command, want := strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" "), strings.Join(forms, " or ")
	err := fmt.Errorf("%s wants %s, got %s", command, want, delivery.Count(len(args), "argument"))
	if want == "" {
		err = fmt.Errorf("%s takes no arguments, got %q", command, args)
	}
	hint := "usage: " + c.UseLine()
	c.Flags().Visit(func(f *pflag.Flag) { // pflag takes the value of such a flag after = alone
		if len(args) > 0 && f.Value.Type() != "bool" && f.NoOptDefVal != "" && f.Value.String() == f.NoOptDefVal {
			hint = fmt.Sprintf("write the value of --%s after =, as in --%[1]s=%s", f.Name, args[len(args)-1])
		}
	})
	return hinted{err, hint}
}

// hinted is an error with what to do about it.
type hinted struct {
	error
	hint string
}

func (h hinted) Unwrap() error { return h.error }

// Hint returns what to do about it.
func (h hinted) Hint() string { return h.hint }

// printError says what is wrong, and what to do where that is known.
func printError(w io.Writer, err error) {
	what, hint := err.Error(), ""
	if h, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		hint = h.Hint()
	} else if b, ok := errors.AsType[delivery.Blocked](err); ok && b.Do != "" {
		what, hint = strings.TrimSuffix(what, "; "+b.Do), b.Do
	}
	if errors.Is(err, context.Canceled) {
		what = "interrupted"
	}
	for line := range strings.SplitSeq(what, "\n") {
		fmt.Fprintln(w, "aob: "+delivery.Terminal(line))
	}
	if hint != "" {
		fmt.Fprintln(w, "hint: "+delivery.Terminal(hint))
	}
}
