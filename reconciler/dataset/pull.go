package dataset

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// Pulled says what a dataset that was fetched has, and where its files are.
type Pulled struct {
	Dataset string `json:"dataset"`
	Folder  string `json:"folder"`
	Stats
}

// Pull fetches a dataset, if it is not on this machine, and counts what is in it. It copies its files into the folder
// to, which must be empty or not there, unless to is "".
func (c Catalog) Pull(ctx context.Context, d delivery.Dataset, to string, progress Progress) (Pulled, error) {
	c.Fetching = progress
	dir, _, err := c.folder(ctx, d)
	if err != nil {
		return Pulled{}, err
	}
	stats, err := c.Stats(ctx, d, progress)
	if err != nil {
		return Pulled{}, err
	}
	out := Pulled{Dataset: d.String(), Folder: dir, Stats: stats}
	if to == "" {
		return out, nil
	}
	if to, err = filepath.Abs(to); err != nil {
		return Pulled{}, err
	}
	there, err := os.ReadDir(to)
	if len(there) > 0 {
		return Pulled{}, delivery.Blockedf("name a folder that is empty or not there", "%s has files", to)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Pulled{}, err
	}
	empty := err == nil
	v, err := c.open(ctx, d)
	if err != nil {
		return Pulled{}, err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return Pulled{}, err
	}
	out.Folder = to
	if empty {
		return out, v.copyInto(ctx, to, progress)
	}
	return out, durable.WriteFolder(to, func(partial string) error { return v.copyTo(ctx, partial, progress) })
}

// copyInto copies all files into an empty folder. It is not replaced, since somebody may be working in it.
func (v *version) copyInto(ctx context.Context, dir string, progress Progress) error {
	whole := filepath.Join(dir, ".whole")
	err := durable.WriteFolder(whole, func(partial string) error { return v.copyTo(ctx, partial, progress) })
	if err != nil {
		return err
	}
	list, err := os.ReadDir(whole)
	for _, e := range list {
		err = errors.Join(err, os.Rename(filepath.Join(whole, e.Name()), filepath.Join(dir, e.Name())))
	}
	return errors.Join(err, os.Remove(whole))
}

// copyTo copies all files. They are not links, since a file that is changed must stay what it is in the cache.
func (v *version) copyTo(ctx context.Context, dir string, progress Progress) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for i, name := range v.names() {
		if err := errors.Join(ctx.Err(), v.copyFile(name, filepath.Join(dir, filepath.FromSlash(name)))); err != nil {
			return err
		}
		if progress != nil {
			progress(Copying, i+1, len(v.files))
		}
	}
	return nil
}

func (v *version) copyFile(name, to string) error {
	in, err := v.openFile(name)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
