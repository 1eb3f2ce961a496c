package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

func newValidateCommand() *cobra.Command {
	var o output
	var config, trainers string
	c := &cobra.Command{
		Use:   "validate [DIR]",
		Short: "Check the files of an intent repository, without a server",
		Long: `Validate checks models/, gates/ and fleets/ in DIR (default: the current folder) as
the server would, and prints every complaint as file:line:column: path: what is
wrong. The exit status is 1 if there is one.

With --config it also checks the server's configuration, that datasets begin with a
name that the configuration allows, and models against the server's own trainers.
--trainers names a folder of trainers instead.

-o github is for a job of GitHub Actions: complaints are annotations on their lines, and
the job gets a summary.`,
		Example: "  aob validate\n  aob validate intent --config aob.yaml\n" +
			"  aob validate --trainers trainers\n  aob validate -o json | jq -r " +
			"'.complaints[].text'",
		RunE: func(c *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			v, err := validate(dir, config, trainers)
			if err != nil {
				return err
			}
			if o.format == formatGitHub {
				list, markdown := v.job()
				err = printJob(c.OutOrStdout(), list, markdown)
			} else {
				err = o.print(c.OutOrStdout(), v, func(t *terminal) { t.validation(v) })
			}
			if err != nil {
				return err
			}
			if n := len(v.Complaints); n > 0 {
				return fmt.Errorf("%s in %s", delivery.Count(n, "complaint"), dir)
			}
			return nil
		},
	}
	o.register(c, formatGitHub)
	c.Flags().StringVar(&config, "config", "",
		"the `file` of the server's configuration, to check it, and datasets and trainers against it")
	c.Flags().StringVar(&trainers, "trainers", "",
		"the `folder` of trainers that models are checked against; the server's, or the built-in ones by default")
	return c
}

// validation is the result of aob validate.
type validation struct {
	Models     int                  `json:"models"`
	Gates      int                  `json:"gates"`
	Fleets     int                  `json:"fleets"`
	Complaints []delivery.Complaint `json:"complaints"`
	Notes      []string             `json:"notes,omitempty"` // nothing is wrong, and something may be missing
}

// loadTrainers reads the trainers in a folder, or the built-in ones if it is empty.
func loadTrainers(folder string) (intent.Trainers, error) {
	files, err := trainerFiles(folder)
	if err != nil {
		return nil, err
	}
	return intent.LoadTrainers(files)
}

// validate checks the files in a folder. The paths in complaints begin with the folder.
func validate(dir, config, trainers string) (validation, error) {
	v := validation{Complaints: []delivery.Complaint{}}
	options := intent.Options{Zone: knownZone, Datasets: map[string][]string{}}
	for source := range sources {
		options.Datasets[source] = nil // any name
	}
	var server intent.Server
	if config != "" {
		var err error
		server, err = loadServer(config)
		bad, isBad := errors.AsType[delivery.Complaints](err)
		switch {
		case isBad:
			v.Complaints = append(v.Complaints, bad...)
		case err != nil:
			return v, err
		default:
			options.Datasets = datasetNames(server)
			options.Trackers = append([]string{}, server.Track.Trackers()...) // nil would allow all
			options.Weights = append([]string{}, slices.Sorted(maps.Keys(server.Weights))...)
		}
	}
	if trainers == "" {
		trainers = server.Trainers
	}
	var err error
	if options.Trainers, err = loadTrainers(trainers); err != nil {
		return v, err
	}
	files, err := intentFiles(dir)
	if err != nil {
		return v, err
	}
	in, complaints := intent.Parse(files, options)
	for _, c := range complaints {
		c.File = filepath.Join(dir, filepath.FromSlash(c.File))
		v.Complaints = append(v.Complaints, c)
	}
	wrong := plan.WrongClasses(in)
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		for _, text := range words.Lines(wrong[name]) {
			v.Complaints = append(v.Complaints, delivery.Complaint{Path: "classes", Text: text,
				File: filepath.Join(dir, "models", name+".yaml")})
		}
	}
	notes := plan.UndeclaredVariants(in)
	if len(v.Complaints) == 0 { // else a gate may be missing because of its complaint
		notes = append(notes, plan.UncoveredModels(in)...)
	}
	v.Models, v.Gates, v.Fleets = in.Models.Len(), in.Gates.Len(), in.Fleets.Len()
	for _, f := range files { // a model with a complaint is there
		if name, ok := strings.CutPrefix(f.Path, "models/"); ok {
			in.Models = in.Models.With(delivery.NamedChange[delivery.Model]{Name: strings.TrimSuffix(name, ".yaml")})
		}
	}
	v.Notes = words.Lines(slices.Concat(plan.AwaitedModels(in), notes))
	if len(files) == 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("there is no file in %s/ yet", strings.Join(intent.Folders(), "/, ")))
	}
	return v, nil
}

// intentFiles reads the files in the folders of intent. It does not follow symbolic links.
func intentFiles(dir string) ([]intent.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var files []intent.File
	for _, folder := range intent.Folders() {
		err := fs.WalkDir(root.FS(), folder, func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) && path == folder {
				return nil
			}
			if err != nil || e.IsDir() {
				return err
			}
			f, err := intentFile(root, path)
			files = append(files, f)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	// A new repository has none yet.
	if _, err := root.Lstat(".git"); err != nil && len(files) == 0 {
		return nil, hinted{fmt.Errorf("%s has no file in %s/", dir, strings.Join(intent.Folders(), "/, ")),
			"name the folder of a repository with models/, gates/ and fleets/; aob init writes one"}
	}
	return files, nil
}

func intentFile(root *os.Root, path string) (intent.File, error) {
	info, err := root.Lstat(path)
	if err != nil {
		return intent.File{}, err
	}
	f := intent.File{Path: path, Mode: info.Mode(), Size: info.Size()}
	if f.Mode.IsRegular() && f.Size <= intent.MaxFileSize {
		f.Data, err = root.ReadFile(path)
	}
	return f, err
}

func (t *terminal) validation(v validation) {
	for _, c := range v.Complaints {
		t.printf("%s\n", c.String())
	}
	for _, n := range v.Notes {
		t.paragraph("", "note: "+n)
	}
	if len(v.Complaints) == 0 {
		t.printf("%s, %s, %s: no complaint\n", delivery.Count(v.Models, "model"), delivery.Count(v.Gates, "gate"),
			delivery.Count(v.Fleets, "fleet"))
	}
}

func newSchemaCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "schema [KIND]",
		Short: "Print the JSON Schema of a kind of file",
		Long: `Schema prints the JSON Schema (draft 2020-12) of a kind of file: what fields it
has, what they mean, their defaults and limits. Editors use it for suggestions and checks.
Without KIND it lists the kinds.`,
		Example: "  aob schema\n  aob schema model >model.schema.json\n  aob schema gate | jq '.properties.checks'",
		RunE: func(c *cobra.Command, args []string) error {
			known, err := loadTrainers("")
			if err != nil {
				return err
			}
			for _, kind := range intent.Kinds() {
				if len(args) == 0 {
					fmt.Fprintln(c.OutOrStdout(), strings.ToLower(kind))
				} else if strings.EqualFold(kind, args[0]) {
					_, err := c.OutOrStdout().Write(intent.Schema(kind, known))
					return err
				}
			}
			if len(args) == 0 {
				return nil
			}
			return hinted{fmt.Errorf("there is no kind %q", args[0]), "the kinds are " +
				strings.ToLower(strings.Join(intent.Kinds(), ", "))}
		},
	}
	c.ValidArgs = intent.Kinds()
	return c
}
