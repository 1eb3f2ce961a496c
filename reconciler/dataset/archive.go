package dataset

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Archive is the source archive: zip, tar and tar.gz archives in folders of this machine. A reference names the archive
// below its location, and may go on with a folder in it: exports/pallets-14.zip/pallets.
type Archive struct{}

// Secrets implements [Source].
func (Archive) Secrets(string) []string { return nil }

// Check implements [Source].
func (Archive) Check(_ context.Context, ref Reference) (string, error) {
	if !filepath.IsAbs(ref.Location) {
		return "", errNotAbsolute
	}
	info, err := os.Stat(ref.Location)
	if err != nil {
		return "", delivery.Blockedf("put the folder there, or correct datasets.archive", "%s: %s", ref.Location,
			pathless(err))
	}
	if !info.IsDir() {
		return ref.Location, nil
	}
	files, err := os.ReadDir(ref.Location)
	if err == nil && len(files) == 0 {
		err = delivery.Blockedf("put the archives there", "%s is empty", ref.Location)
	}
	return ref.Location, err
}

var errNotAbsolute = delivery.Blockedf("give an absolute path in the server's configuration",
	"its location is not an absolute path")

// Open implements [Source].
func (Archive) Open(_ context.Context, ref Reference) (Version, error) {
	if !filepath.IsAbs(ref.Location) {
		return Version{}, errNotAbsolute
	}
	at, below := ref.Location, ""
	parts := strings.Split(cmp.Or(ref.Path, "."), "/")
	for i, part := range parts {
		at = filepath.Join(at, part)
		info, err := os.Lstat(at)
		if err == nil && info.Mode().IsRegular() {
			below = strings.Join(parts[i+1:], "/")
			break
		}
		if errors.Is(err, fs.ErrNotExist) {
			return Version{}, delivery.Blockedf("check the name, or put the archive there",
				"there is no archive or folder %s on the server", shownCut(part))
		}
		if err := isFolder(at, part); err != nil {
			return Version{}, err
		}
		if i == len(parts)-1 {
			return Version{}, delivery.Blockedf("name an archive in it, as in NAME/pallets.zip", "it is a folder")
		}
	}
	id, err := archiveID(at)
	if err != nil {
		return Version{}, err
	}
	return Version{ID: id, Fetch: func(ctx context.Context, to *Writer) error {
		f, err := openFile(at)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unpackArchive(ctx, f, below, to); err != nil {
			return err
		}
		if now, err := archiveID(at); err != nil || now != id {
			return errors.Join(err, errors.New("the archive was changed while it was unpacked"))
		}
		return nil
	}}, nil
}

// archiveID identifies the content of an archive by its size, its times and its first and last bytes: the list of a
// zip's files with their checksums is at its end.
func archiveID(at string) (string, error) {
	f, err := openFile(at)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	const part = 64 << 10
	for _, from := range []int64{0, max(0, info.Size()-part)} {
		if _, err := io.Copy(h, io.NewSectionReader(f, from, part)); err != nil {
			return "", err
		}
	}
	s := stampOf(info)
	return fmt.Sprintf("%d %d %d %d %x", s.Size, s.Modified, s.Changed, s.Inode, h.Sum(nil)), nil
}
