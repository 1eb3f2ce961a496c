package main

import (
	"context"
	"errors"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/picture"
)

// A shownImage is what aob data show prints.
type shownImage struct {
	dataset.ImageTruths
	Picture string `json:"picture"`
}

func newDataShowCommand() *cobra.Command {
	var o output
	var r dataRequest
	var in, out string
	c := &cobra.Command{
		Use:   "show IMAGE",
		Short: "Draw the boxes of an image, and list them",
		Long: `Show writes a PNG of an image with its boxes, numbered as findings number them, and
prints the path. IMAGE is the path of a file, or with --dataset its path in the dataset.`,
		Example: `  aob data show ~/pallets/train/a.jpg
  aob data show train/a.jpg --dataset shapes/v3 --config aob.yaml --out a.png`,
		RunE: func(c *cobra.Command, args []string) error {
			image, err := r.image(c.Context(), in, args[0])
			if err != nil {
				return err
			}
			shown := shownImage{ImageTruths: image, Picture: out}
			if out == "" {
				dir, err := os.MkdirTemp("", "aob-show-")
				if err != nil {
					return err
				}
				base := filepath.Base(image.Name)
				shown.Picture = filepath.Join(dir, strings.TrimSuffix(base, filepath.Ext(base))+".png")
			}
			if err := drawTruths(image, shown.Picture); err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), shown, func(t *terminal) { t.shownImage(shown) })
		},
	}
	o.register(c)
	r.register(c)
	c.Flags().StringVar(&in, "dataset", "", "the `dataset` with the image: a folder, or a name of the configuration; "+
		"default: the nearest folder above the image that is one")
	c.Flags().StringVar(&out, "out", "", "the PNG `file` to write; default: one in the folder for temporary files")
	return c
}

// image finds an image, in a dataset or in the nearest folder above it that is one.
func (r *dataRequest) image(ctx context.Context, in, name string) (dataset.ImageTruths, error) {
	if in != "" {
		catalog, d, err := r.find(in)
		if err != nil {
			return dataset.ImageTruths{}, err
		}
		if dir, err := filepath.Abs(in); err == nil {
			if file, err := filepath.Abs(name); err == nil && strings.HasPrefix(file, dir+string(filepath.Separator)) {
				name = strings.TrimPrefix(file, dir)
			}
		}
		return catalog.Image(ctx, d, filepath.ToSlash(name))
	}
	file, err := filepath.Abs(name)
	if err == nil {
		_, err = os.Stat(file)
	}
	if err != nil {
		return dataset.ImageTruths{}, hinted{fmt.Errorf("%s: no such file", name), "--dataset names its dataset"}
	}
	const levels = 4 // images/train/a.jpg is two below its dataset; more may be a large part of the disk
	dir := filepath.Dir(file)
	for range levels {
		catalog, d, err := dataset.Folder(dir)
		if err != nil {
			return dataset.ImageTruths{}, err
		}
		rest, err := filepath.Rel(dir, file)
		if err != nil {
			return dataset.ImageTruths{}, err
		}
		if image, err := catalog.Image(ctx, d, filepath.ToSlash(rest)); err == nil {
			return image, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	return dataset.ImageTruths{}, hinted{fmt.Errorf("%s: no folder above it is a dataset that has this image", name),
		"--dataset names the dataset; aob data check says what is wrong with it"}
}

// drawTruths writes a PNG of an image with its boxes.
func drawTruths(image dataset.ImageTruths, to string) error {
	drawn, err := picture.Boxes(image.Path, image.Drawn())
	if err != nil {
		return fmt.Errorf("%s: %w", image.Name, err)
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(png.Encode(f, drawn), f.Close())
}

func (t *terminal) shownImage(s shownImage) {
	t.printf("%s: %d x %d pixels", s.Name, s.Width, s.Height)
	if s.Split != "" {
		t.printf(", in %s", s.Split)
	}
	t.printf("\n")
	rows := [][]cell{heading("BOX", "LABEL", "LEFT", "TOP", "WIDTH", "HEIGHT")}
	for _, b := range s.Boxes {
		label := b.Label
		if b.Crowd {
			label += " (crowd)"
		}
		row := cells(strconv.Itoa(b.Number), label)
		for _, v := range b.Box {
			row = append(row, cell{text: strconv.FormatFloat(v, 'g', 6, 64)})
		}
		rows = append(rows, row)
	}
	if len(s.Boxes) > 0 {
		t.table("  ", rows)
	}
	t.printf("%s\n", s.Picture)
}
