package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

// output is how a command prints its result.
type output struct{ format string }

// register adds -o, which takes more formats than text and json where a command names them.
func (o *output) register(c *cobra.Command, more ...string) {
	formats := append([]string{"text", "json"}, more...)
	last := len(formats) - 1
	choice := strings.Join(formats[:last], ", ") + " or " + formats[last]
	c.Flags().StringVarP(&o.format, "output", "o", "text", "the `format`: "+choice)
	c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	check := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if !slices.Contains(formats, o.format) {
			return hinted{fmt.Errorf("--output: want %s, got %q", choice, o.format), c.CommandPath() +
				" --help shows how"}
		}
		if check != nil {
			return check(c, args)
		}
		return nil
	}
}

func (o *output) json() bool { return o.format == "json" }

// print writes v as JSON, or lets text write it for people.
func (o *output) print(w io.Writer, v any, text func(t *terminal)) error {
	if o.json() {
		enc := json.NewEncoder(delivery.LogWriter{W: w})
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	t := newTerminal(w)
	text(t)
	return t.flush()
}

// client is what commands share that ask a server.
type client struct {
	output
	socket string
}

// register adds the flags of a command that asks a server.
func (o *client) register(c *cobra.Command) {
	o.output.register(c)
	o.registerSocket(c)
}

func (o *client) registerSocket(c *cobra.Command) {
	c.Flags().StringVar(&o.socket, "socket", cmp.Or(os.Getenv("AOB_SOCKET"), "state/aob.sock"),
		"the `path` of the server's socket; AOB_SOCKET names another default")
}

func (o *client) dial() *web.Client { return web.NewClient(o.socket) }

// A question is what a command asks a server. It returns the answer, and what writes it for people.
type question func(c *cobra.Command, api *web.Client, args []string) (v any, text func(t *terminal), err error)

// query completes a command that asks a server and prints the answer.
func query(c *cobra.Command, get question) *cobra.Command {
	var o client
	c.RunE = func(c *cobra.Command, args []string) error {
		v, text, err := get(c, o.dial(), args)
		if err != nil {
			return err
		}
		return o.print(c.OutOrStdout(), v, text)
	}
	o.register(c)
	return c
}

// numberOf parses a pull request's number, as 12 or #12.
func numberOf(word string) (int, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(word, "#"))
	if err != nil || n < 1 {
		return 0, hinted{fmt.Errorf("want a pull request's number, got %q", word), "aob pr list shows the open ones"}
	}
	return n, nil
}
