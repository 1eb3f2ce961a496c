package main

// This file copies the files of a released model.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

func newBundleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "bundle",
		Short:   "Copy a released model, show and verify the documents about it",
		Example: "  aob bundle pull shapes ./shapes-now\n  aob bundle card shapes@2",
	}
	group(c)
	addPaperCommands(c)
	var variant string
	pull := query(&cobra.Command{
		Use:   "pull MODEL[@VERSION] DIR",
		Short: "Write a released model into a new folder: ONNX file, labels, signature",
		Long: `Pull writes the files of a release into DIR: model.onnx, labels.json, signature.json,
golden.bin, thresholds.json if it has thresholds, and manifest.json. Every file is
checked against the digest of the bundle that main has accepted. DIR must not exist: it
appears when all files are there. Without VERSION it is the release that main has now.

--variant takes the same model in another number format, where main has accepted it with
the release.`,
		Example: "  aob bundle pull shapes ./shapes-now\n  aob bundle pull shapes@2 ./shapes-2 --variant int8 -o json",
	}, func(c *cobra.Command, api *web.Client, args []string) (any, func(*terminal), error) {
		p, err := pullBundle(c.Context(), api, args[0], variant, args[1])
		return p, func(t *terminal) {
			if p.Quarantined != "" {
				t.paragraph("", "warning: this bundle must not run any more: "+p.Quarantined)
			}
			as := ""
			if p.Variant != "" {
				as = " as " + p.Variant
			}
			t.printf("%s@%d%s: bundle %s is in %s\n", p.Model, p.Version, as, p.Bundle, p.Folder)
		}, err
	})
	pull.Flags().StringVar(&variant, "variant", delivery.FP32, "the number format: fp32, fp16 or int8")
	c.AddCommand(pull)
	return c
}

// pulled is the result of aob bundle pull.
type pulled struct {
	web.Released
	Variant string `json:"variant,omitempty"` // that Bundle is; empty for FP32
	Folder  string `json:"folder"`
}

// as lets a release be one of its variants.
func (p *pulled) as(variant string) error {
	if variant == delivery.FP32 {
		return nil
	}
	formats := []string{delivery.FP32}
	for _, v := range p.Variants {
		if v.Variant == variant {
			p.Variant, p.Bundle, p.Quarantined = variant, v.Bundle, v.Quarantined
			return nil
		}
		formats = append(formats, v.Variant)
	}
	return hinted{fmt.Errorf("%s@%d was released without %s", p.Model, p.Version, variant), "--variant takes " +
		strings.Join(formats, " or ")}
}

// releaseOf finds a release by MODEL or MODEL@VERSION.
func releaseOf(ctx context.Context, api *web.Client, what string) (web.Released, error) {
	name, version, err := releaseName(what)
	if err != nil {
		return web.Released{}, err
	}
	return api.Release(ctx, name, version)
}

// releaseName reads MODEL or MODEL@VERSION; version is 0 for the former.
func releaseName(what string) (name string, version int, err error) {
	name, number, versioned := strings.Cut(what, "@")
	if name == "" {
		return name, 0, hinted{fmt.Errorf("the model's name is missing in %q", what), "write it as in shapes@2; aob " +
			"status lists the models"}
	}
	if versioned {
		if version, err = strconv.Atoi(number); err != nil || version < 1 {
			return name, 0, hinted{fmt.Errorf("want MODEL or MODEL@VERSION, got %q", what),
				"as in shapes@2; aob explain model " + name + " lists the versions"}
		}
	}
	return name, version, nil
}

// pullBundle copies a release's files from a server into a new folder.
func pullBundle(ctx context.Context, api *web.Client, what, variant, folder string) (p pulled, err error) {
	if p.Folder, err = filepath.Abs(folder); err != nil {
		return p, err
	}
	if _, err := os.Lstat(p.Folder); !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return p, err
		}
		return p, delivery.Blockedf("name a folder that does not exist", "%s is there already, and nothing is "+
			"overwritten",
			p.Folder)
	}
	if p.Released, err = releaseOf(ctx, api, what); err != nil {
		return p, err
	}
	if err := p.as(variant); err != nil {
		return p, err
	}
	// Beside the folder, so that the files can be moved.
	if err := os.MkdirAll(filepath.Dir(p.Folder), 0o755); err != nil {
		return p, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(p.Folder), ".aob-pull-")
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	store, err := artifact.Open(tmp)
	if err != nil {
		return p, err
	}
	_, err = store.Pull(ctx, artifact.Source{URL: web.BundlesURL, Client: api.HTTP()}, p.Bundle, p.Folder)
	if errors.Is(err, fs.ErrNotExist) {
		return p, delivery.Blockedf("restore it from a backup", "the server no longer has bundle %s of %s@%d",
			p.Bundle.Short(), p.Model, p.Version)
	}
	return p, err
}
