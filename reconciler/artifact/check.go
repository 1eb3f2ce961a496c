package artifact

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// Damaged is the error if files of a bundle are changed, truncated or missing.
type Damaged struct {
	Files []string // names of all damaged files
	Err   error    // of the first one
}

func (d *Damaged) Error() string { return d.Err.Error() }

// add adds a damaged file.
func (d *Damaged) add(file, name string, err error) {
	if d.Err == nil {
		d.Err = fmt.Errorf("%s: %w", name, err)
	}
	d.Files = append(d.Files, file)
}

// found returns d as an error if it has a file.
func (d *Damaged) found() error {
	if d.Err == nil {
		return nil
	}
	return d
}

// Unwrap returns the cause.
func (d *Damaged) Unwrap() error { return d.Err }

// ErrUnchecked is the error of a folder without a manifest, which older versions did not
// unpack. Its files cannot be checked.
var ErrUnchecked = errors.New("there is no " + ManifestFile + ", so its files cannot be checked")

// Unpacked returns which bundle is in a folder that Unpack wrote. Its files are checked as by CheckUnpacked.
func Unpacked(ctx context.Context, dir string) (delivery.Digest, error) {
	data, err := durable.ReadFile(filepath.Join(dir, ManifestFile), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrUnchecked
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", ManifestFile, err)
	}
	bundle := delivery.Sum(data)
	return bundle, CheckUnpacked(ctx, bundle, dir)
}

// CheckUnpacked compares the files that Unpack wrote into dir with the bundle's digests.
// It reads every byte. The error is a *[Damaged] if a file differs or is missing, and
// [ErrUnchecked] if there is no manifest. Other errors say nothing about the files.
func CheckUnpacked(ctx context.Context, bundle delivery.Digest, dir string) error {
	data, err := durable.ReadFile(filepath.Join(dir, ManifestFile), maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrUnchecked
	}
	if scarce(err) {
		return err
	}
	if err == nil && delivery.Sum(data) != bundle {
		err = errors.New("the content does not match the bundle's digest")
	}
	if err != nil {
		return &Damaged{[]string{ManifestFile}, fmt.Errorf("%s: %w", ManifestFile, err)}
	}
	m, err := parseBundle(data)
	if err != nil {
		return contentError(err)
	}
	var bad Damaged
	for f, b := range m.each() {
		err := checkFile(ctx, filepath.Join(dir, f.name), b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if scarce(err) {
			return err
		}
		if err != nil {
			bad.add(f.name, f.name, differs(err))
		}
	}
	return bad.found()
}

// scarce reports whether an error means that the machine has no memory or file descriptors
// left, so that it says nothing about a file's content.
func scarce(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}

// differs replaces errDamaged, whose hint is about the store.
func differs(err error) error {
	if errors.Is(err, errDamaged) {
		return errors.New("the content does not match the digest in the manifest")
	}
	return err
}

// Check reads every byte of a stored bundle. The error is a *[Damaged] that lists the missing and damaged files.
func (s *Store) Check(ctx context.Context, bundle delivery.Digest) error {
	data, err := s.readBlob(bundle, maxManifest)
	if err != nil {
		return &Damaged{[]string{ManifestFile}, fmt.Errorf("%s: %w", ManifestFile, err)}
	}
	m, err := parseBundle(data)
	if err != nil {
		return contentError(err)
	}
	var bad Damaged
	check := func(name string, b blob) {
		if err := s.verifyBlob(ctx, b); err != nil {
			bad.add(name+" ("+s.blobPath(b.digest)+")", name, err)
		}
	}
	check("config", m.config)
	for f, b := range m.each() {
		check(f.name, b)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return bad.found()
}
