package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/delivery"
)

func newDataPullCommand() *cobra.Command {
	var o output
	var config string
	c := &cobra.Command{
		Use:   "pull NAME [DIR]",
		Short: "Fetch a dataset of the server's configuration, and say what it has",
		Long: `Pull fetches a dataset as the server does: from Roboflow, from a bucket, or out of an
archive. NAME is as in the file of a model, {roboflow: acme/pallets/14} being
roboflow:acme/pallets/14. A version that is in the cache is not fetched again.

With DIR the files are copied there, into a folder that is empty or not there. Without
it they stay in the cache, in the server's state folder, and the folder is printed.`,
		Example: `  aob data pull roboflow:acme/pallets/14 --config aob.yaml
  aob data pull archive:exports/pallets-14.zip ~/pallets
  aob data pull roboflow:acme/pallets/14 -o json | jq -r .content`,
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := os.Stat(config); err != nil {
				return hinted{fmt.Errorf("%s: no such file", config), "--config names the server's configuration"}
			}
			server, err := loadServer(config)
			if err != nil {
				return err
			}
			d, err := datasetNamed(server.Datasets, args[0])
			if err != nil {
				return err
			}
			to := ""
			if len(args) > 1 {
				to = args[1]
			}
			progress, done := showProgress(c.ErrOrStderr())
			pulled, err := datasets(server).Pull(c.Context(), d, to, progress)
			if done(); err != nil {
				if _, ok := errors.AsType[net.Error](err); ok {
					err = hinted{err, "see whether this machine has a network, and reaches that address"}
				}
				return err
			}
			return o.print(c.OutOrStdout(), pulled, func(t *terminal) { t.pulled(pulled) })
		},
	}
	o.register(c)
	c.Flags().StringVar(&config, "config", "aob.yaml",
		"the server's configuration `file`, which has the locations of datasets")
	return c
}

// datasetNamed reads SOURCE:NAME/PATH, or NAME/PATH where one source alone has the name.
func datasetNamed(locations map[string]map[string]string, text string) (delivery.Dataset, error) {
	if source, path, ok := strings.Cut(text, ":"); ok {
		if strings.HasPrefix(path, "//") { // as Roboflow's pages show it, with a key
			return delivery.Dataset{}, hinted{errors.New("a dataset is not named by an address"),
				"datasets: in the server's configuration names places; write SOURCE:NAME/PATH, as in " +
					"roboflow:acme/pallets/14"}
		}
		return delivery.Dataset{Source: source, Path: path}, nil
	}
	name, _, _ := strings.Cut(text, "/")
	var found []string
	for source, names := range locations {
		if _, ok := names[name]; ok {
			found = append(found, source)
		}
	}
	slices.Sort(found)
	switch len(found) {
	case 0:
		return delivery.Dataset{Source: "dir", Path: text}, nil
	case 1:
		return delivery.Dataset{Source: found[0], Path: text}, nil
	}
	return delivery.Dataset{}, hinted{fmt.Errorf("%s: the name %s is one of %s", text, name,
		strings.Join(found, " and of ")), "put the source before it, as in " + found[0] + ":" + text}
}

// pulled says what a dataset has.
func (t *terminal) pulled(p dataset.Pulled) {
	t.printf("%s: %s, %s, %.1f MB\n", p.Dataset, p.Layout, delivery.Count(p.Files, "file"), float64(p.Bytes)/1e6)
	for _, s := range p.Splits {
		name := s.Name
		if name == "" {
			name = "not divided"
		}
		t.printf("  %s: %s", name, delivery.Count(s.Images, "image"))
		for i, c := range s.Classes {
			before := ", "
			if i == 0 {
				before = "; boxes: "
			}
			t.printf("%s%s %d", before, c.Label, c.Boxes)
		}
		t.printf("\n")
	}
	t.printf("content %s\n%s\n", p.Content, p.Folder)
}
