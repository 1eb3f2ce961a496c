package dataset

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Dir is the source dir: folders of this machine, used where they are.
type Dir struct{}

// Secrets implements [Source].
func (Dir) Secrets(string) []string { return nil }

// Check implements [Source].
func (d Dir) Check(ctx context.Context, ref Reference) (string, error) {
	v, err := d.Open(ctx, ref)
	if err != nil {
		return "", err
	}
	files, err := os.ReadDir(v.Folder)
	if err == nil && len(files) == 0 {
		err = delivery.Blockedf("put the dataset there", "%s is empty", v.Folder)
	}
	return ref.Location, err
}

// Open implements [Source].
func (Dir) Open(_ context.Context, ref Reference) (Version, error) {
	if !filepath.IsAbs(ref.Location) {
		return Version{}, delivery.Blockedf("give an absolute path in the server's configuration",
			"its location is not an absolute path")
	}
	// Check each part: a symbolic link in the middle may lead out of the location too.
	at := ref.Location
	for part := range strings.SplitSeq(cmp.Or(ref.Path, "."), "/") {
		at = filepath.Join(at, part)
		if part == "." {
			part = "its location"
		}
		if err := isFolder(at, part); err != nil {
			return Version{}, err
		}
	}
	return Version{Folder: at}, nil
}

func isFolder(at, name string) error {
	info, err := os.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return delivery.Blockedf("check the name, or put the folder there", "there is no such folder on the server")
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return delivery.Blockedf("name the folder that the link leads to in the server's configuration, or put the "+
			"files themselves there", "%s is a symbolic link", name)
	case !info.IsDir():
		return delivery.Blockedf("name the folder of a dataset", "%s is not a folder", name)
	}
	return nil
}
