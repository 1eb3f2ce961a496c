package main

// This file has aob reproduce.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/stage"
	"github.com/autonomos/aob/reconciler/trust"
	"github.com/autonomos/aob/reconciler/web"
)

func newReproduceCommand() *cobra.Command {
	var o client
	var w workshop
	var key, from string
	var fresh bool
	c := &cobra.Command{
		Use:   "reproduce MODEL[@VERSION]",
		Short: "Train a release again from its evidence, and compare the figures",
		Long: `Reproduce reads the signed evidence of a release: spec, seed, trainer, dataset, weights
and scores. It trains the same on this machine, measures it as the release was measured,
and says for each figure whether it is within the bounds that chance explains: those that
the seeds of the release predict, or with one seed the bounds of its bootstrap. It also
says whether model.onnx has the same bytes. It fails if the mAP of a gate, or of the
validation split, is outside. docs/provenance.md has the details.

The evidence comes from a server, or with --from from a registry or a copy of the folder
state/bundles; the version is then the one in models/MODEL.release.yaml of --dir. Only what
the key of --key signed counts. --config must name the datasets and base weights of that
time; where something is not as it was, reproduce says what, and trains nothing.

Only FP32 is compared: the variants of a release are made of it, and are not made again.

A training that is in the folder of --work is not repeated, unless with --fresh.`,
		Example: `  aob reproduce shapes@2 --key evidence.key.pub --config world/aob.yaml
  aob reproduce shapes --key evidence.key.pub --from file:///backup/state/bundles --dir intent --fresh -o json`,
		RunE: func(c *cobra.Command, args []string) error {
			if key == "" {
				return hinted{errors.New("--key is missing"),
					"name the public key of the server's evidence: state/keys/evidence.key.pub"}
			}
			trusted, err := trust.LoadPublic(key)
			if err != nil {
				return err
			}
			var r web.Released
			var source artifact.Source
			if from != "" {
				source = artifact.Source{URL: from}
				r, err = w.release(args[0])
			} else {
				api := o.dial()
				source = artifact.Source{URL: web.BundlesURL, Client: api.HTTP()}
				r, err = releaseOf(c.Context(), api, args[0])
			}
			if err != nil {
				return err
			}
			rel, err := stage.ReadRelease(c.Context(), source, r.Model, r.Version, r.Bundle, trusted)
			if err != nil {
				return err
			}
			local, _, closed, err := w.openWork(c.Context(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			defer closed()
			again, err := local.Reproduce(c.Context(), rel, source, fresh)
			if err != nil {
				return err
			}
			if err := o.print(c.OutOrStdout(), again, func(t *terminal) { t.reproduction(again) }); err != nil {
				return err
			}
			if !again.Reproduced {
				return hinted{fmt.Errorf("%s@%d is not reproduced: a figure that counts is outside of its bounds",
					again.Model, again.Version), "docs/provenance.md says what may be the cause"}
			}
			return nil
		},
	}
	o.register(c)
	w.register(c)
	c.Flags().StringVar(&key, "key", "", "the `file` of the public key that must have signed the evidence")
	c.Flags().StringVar(&from, "from", "", "a registry or folder with the bundles, in place of the server: the `URL` "+
		"https://HOST/REPOSITORY or file:///FOLDER")
	c.Flags().BoolVar(&fresh, "fresh", false, "train also if the folder of --work has this training already")
	return c
}

// release finds a release in the release file of the repository.
func (w *workshop) release(what string) (r web.Released, err error) {
	name, version, err := releaseName(what)
	if err != nil {
		return r, err
	}
	root, err := os.OpenRoot(w.dir)
	if err != nil {
		return r, err
	}
	defer root.Close()
	file := "models/" + name + ".release.yaml"
	f, err := intentFile(root, file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, hinted{fmt.Errorf("there is no %s in %s", file, w.dir),
			"--dir names the repository, at a commit that has the release"}
	}
	if err != nil {
		return r, err
	}
	doc := intent.ParseFile(f, intent.Options{})
	if complaints := doc.Complaints(); len(complaints) > 0 {
		return r, delivery.Complaints(complaints)
	}
	release, ok := doc.Value.(delivery.Release)
	if !ok {
		return r, fmt.Errorf("%s is no release file", filepath.Join(w.dir, file))
	}
	if version != 0 && release.Version != version {
		return r, hinted{fmt.Errorf("%s in %s is of version %d", file, w.dir, release.Version),
			"check out a commit of the repository at which it is of version " + fmt.Sprint(version)}
	}
	return web.Released{Model: name, Version: release.Version, Bundle: release.Bundle}, nil
}

func (t *terminal) reproduction(r stage.Reproduction) {
	t.printf("%s@%d: bundle %s, accepted at commit %s\n", r.Model, r.Version, r.Bundle.Short(), short(r.Commit))
	how := "trained again"
	if r.Kept {
		how = "the folder of --work has this training; --fresh trains again"
	}
	t.printf("seed %d: %s\n", r.Seed, how)
	same := "the same bytes"
	if !r.SameModel {
		same = "other bytes"
	}
	t.printf("model.onnx: %s (%s, released %s)\n", same, r.Again.Model.Short(), r.Released.Model.Short())
	for _, d := range r.Differences {
		t.paragraph("", "other than then: "+d)
	}
	if len(r.NotMade) > 0 {
		t.paragraph("", "not made again: "+strings.Join(r.NotMade, ", ")+"; only FP32 is trained and compared")
	}
	t.printf("\n")
	figure := func(v float64) string { return fmt.Sprintf("%.4f", v) }
	rows := [][]cell{heading("ON", "METRIC", "RELEASED", "AGAIN", "BOUNDS", "FROM", "VERDICT")}
	for _, c := range r.Figures {
		verdict := cell{text: "within", style: green}
		if !c.Within {
			verdict = cell{text: "outside", style: red}
		}
		if !c.Counts {
			verdict.text, verdict.style = verdict.text+" (shown only)", faint
		}
		rows = append(rows, append(cells(c.On, c.Metric, figure(c.Released), figure(c.Reproduced),
			figure(c.Low)+" to "+figure(c.High), c.From), verdict))
	}
	t.whole = !t.tty
	t.table("", rows)
	t.printf("\n")
	if r.Reproduced {
		t.printf("reproduced: every mAP is within its bounds\n")
	} else {
		t.printf("not reproduced\n")
	}
}
