package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Damaged is the error of files that are not the bundle's: changed, cut, or gone.
type Damaged struct {
	Files []string // their names, as in a bundle
	Err   error    // of the first
}

func (d *Damaged) Error() string { return d.Err.Error() }

// Unwrap returns the cause.
func (d *Damaged) Unwrap() error { return d.Err }

// ErrUnchecked is the error of a folder without a manifest, as older versions
// unpacked them: nobody can say whether its files are the bundle's.
var ErrUnchecked = errors.New("there is no " + ManifestFile + ", so its files cannot be checked")

// CheckUnpacked compares what Unpack laid into dir with the bundle's digests. It
// reads every byte. The error is a *[Damaged] where a file is not the bundle's,
// and [ErrUnchecked] where nobody can say.
func CheckUnpacked(ctx context.Context, bundle delivery.Digest, dir string) error {
	data, err := readFile(filepath.Join(dir, ManifestFile), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrUnchecked
	}
	if scarce(err) {
		return err
	}
	if err == nil && delivery.Sum(data) != bundle {
		err = errors.New("it is not what the bundle's digest names")
	}
	if err != nil {
		return &Damaged{[]string{ManifestFile}, fmt.Errorf("%s: %w", ManifestFile, err)}
	}
	m, err := parseBundle(data)
	if err != nil {
		return contentError(err)
	}
	var bad *Damaged
	for f, b := range m.each() {
		err := checkFile(ctx, filepath.Join(dir, f.name), b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if scarce(err) {
			return err
		}
		if err == nil {
			continue
		}
		if bad == nil {
			bad = &Damaged{Err: fmt.Errorf("%s: %w", f.name, err)}
		}
		bad.Files = append(bad.Files, f.name)
	}
	if bad != nil {
		return bad
	}
	return nil
}

// scarce reports whether an error says that the machine is out of something, and
// nothing of a file's content.
func scarce(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// checkFile compares a file with what it must be.
func checkFile(ctx context.Context, path string, want blob) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := copyAndSum(ctx, io.Discard, f, want.size)
	if errors.Is(err, errTooLong) || err == nil && got != want {
		return errors.New("its content is not what the bundle names")
	}
	return err
}

// Check reads every byte of a bundle that the store must have. The error is a
// *[Damaged] that names what is gone or damaged.
func (s *Store) Check(ctx context.Context, bundle delivery.Digest) error {
	data, err := s.readBlob(bundle, maxManifest)
	if err != nil {
		return &Damaged{[]string{ManifestFile}, fmt.Errorf("%s: %w", ManifestFile, err)}
	}
	m, err := parseBundle(data)
	if err != nil {
		return contentError(err)
	}
	var bad *Damaged
	note := func(name string, b blob) {
		if err := s.verifyBlob(ctx, b); err != nil && ctx.Err() == nil {
			if bad == nil {
				bad = &Damaged{Err: fmt.Errorf("%s: %w", name, err)}
			}
			bad.Files = append(bad.Files, name+" ("+s.blobPath(b.digest)+")")
		}
	}
	note("config", m.config)
	for f, b := range m.each() {
		note(f.name, b)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if bad != nil {
		return bad
	}
	return nil
}
