package dataset

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// CheckPrepared compares a trainer's input with its digest, before a training begins. Its images are hard links to
// those of the dataset and of other inputs, so whoever wrote into one, as another model's trainer, changed all of them.
// Their names have their digests.
func CheckPrepared(ctx context.Context, dir string, want delivery.Digest) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return pathless(err)
	}
	defer root.Close()
	var parts []delivery.Digest
	var images []string
	for _, split := range preparedSplits {
		data, err := durable.ReadNoFollow(filepath.Join(dir, split, AnnotationsFile), maxAnnotations)
		if err != nil {
			return pathless(err)
		}
		parts = append(parts, delivery.Sum(data))
		var file preparedFile
		if err := json.Unmarshal(data, &file); err != nil {
			return changedInput(split + "/" + AnnotationsFile)
		}
		for _, im := range file.Images {
			images = append(images, path.Join(split, im.FileName))
		}
	}
	if delivery.DigestOf("training", parts) != want {
		return changedInput(AnnotationsFile)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, name := range images {
		g.Go(func() error {
			f, err := regular(root.OpenFile(filepath.FromSlash(name), readOnly, 0))
			if errors.Is(err, fs.ErrNotExist) {
				return changedInput(name)
			}
			if err := errors.Join(ctx.Err(), err); err != nil {
				return pathless(err)
			}
			defer f.Close()
			sum, err := digestOf(f)
			if err == nil && sum[:preparedName] != path.Base(name)[:preparedName] {
				err = changedInput(name)
			}
			return pathless(err)
		})
	}
	return g.Wait()
}

func changedInput(name string) error {
	return delivery.Blockedf("restore the dataset if it is a folder of this machine, then aob pr recheck NUMBER makes "+
		"the input again; look at what else runs as the server's user",
		"the training input was changed after it was checked: %s", shownCut(name))
}

// An image of a trainer's input is named by the first digits of its digest.
const preparedName = 32

var preparedSplits = []string{"train", "valid"}
