// Package trainer installs the trainers of a server.
//
// A trainer is a folder: trainer.yaml describes it ([delivery.Trainer]), schema.json is the schema of its arguments,
// and train.py is the program that a run starts. The folder may have any other files. README.md, tests (test_*), names
// that begin with a dot and folders that begin with an underscore are not installed. A folder versions/VERSION has
// what one version has of its own: its schema.json, and the lock file requirements.txt of its environment.
//
// The files of a version are installed under the digest of all of them, so a run that began before an upgrade continues
// with the files that its key names. The folders of other versions do not count.
//
// [Environments] makes the Python environments of trainers, and [Containers] runs trainers in containers.
package trainer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/intent"
)

// program is the file that a run starts.
const program = "train.py"

// The bounds of one trainer.
const (
	maxFiles = 1000
	maxBytes = 1 << 30
)

// Folder returns where a trainer's files are installed below a folder.
func Folder(in string, files delivery.Digest, name string) string {
	return filepath.Join(in, files.Hex(), name)
}

// Script returns the program of an installed trainer. with is NAME@VERSION, as in a model.
func Script(in string, files delivery.Digest, with string) string {
	name, _, _ := strings.Cut(with, "@")
	return filepath.Join(Folder(in, files, name), program)
}

// LockPath returns the lock file of an installed trainer's version.
func LockPath(in string, files delivery.Digest, with string) string {
	name, version, _ := strings.Cut(with, "@")
	return filepath.Join(Folder(in, files, name), intent.VersionsFolder, version, intent.LockFile)
}

// Install reads the trainers in files, one folder each, and copies those that are missing below the folder to. Files
// and folders that every user may write are refused: their programs run as the server's user.
func Install(files fs.FS, to string) (intent.Trainers, error) {
	top, err := fs.Stat(files, ".")
	if err == nil {
		err = checkMode("their folder", top)
	}
	if err != nil {
		return nil, fmt.Errorf("trainers: %w", err)
	}
	trainers, err := intent.LoadTrainers(files)
	if err != nil {
		return nil, fmt.Errorf("trainers: %w", err)
	}
	lists := map[string][]string{}
	for with, t := range trainers {
		if lists[t.Name] == nil {
			if lists[t.Name], err = list(files, t.Name); err != nil {
				return nil, fmt.Errorf("trainer %s: %w", t.Name, err)
			}
		}
		_, version, _ := strings.Cut(with, "@")
		own := intent.VersionsFolder + "/" + version + "/"
		of := slices.DeleteFunc(slices.Clone(lists[t.Name]), func(file string) bool {
			return strings.HasPrefix(file, intent.VersionsFolder+"/") && !strings.HasPrefix(file, own)
		})
		if t.Files, err = install(files, t.Name, of, to); err != nil {
			return nil, fmt.Errorf("trainer %s: %w", t.Name, err)
		}
		trainers[with] = t
	}
	return trainers, nil
}

// Described returns the description in an installed trainer's trainer.yaml. It is fs.ErrNotExist if the files are not
// there.
func Described(in string, files delivery.Digest, with string) (delivery.Trainer, error) {
	name, _, _ := strings.Cut(with, "@")
	file := filepath.Join(Folder(in, files, name), intent.TrainerFile)
	data, err := durable.ReadNoFollow(file, intent.MaxFileSize)
	if err != nil {
		return delivery.Trainer{}, err
	}
	t, complaints := intent.ParseTrainer(file, name, data)
	if len(complaints) > 0 {
		return t, delivery.Complaints(complaints)
	}
	return t, nil
}

func install(files fs.FS, name string, list []string, to string) (delivery.Digest, error) {
	if !slices.Contains(list, program) {
		return "", fmt.Errorf("%s is missing; it is the program that a run starts", program)
	}
	all := sha256.New()
	for _, file := range list {
		sum := sha256.New()
		if err := read(files, path.Join(name, file), sum); err != nil {
			return "", err
		}
		fmt.Fprintf(all, "sha256:%x  %s\n", sum.Sum(nil), file)
	}
	digest := delivery.Digest("sha256:" + hex.EncodeToString(all.Sum(nil)))
	final := Folder(to, digest, name)
	if _, err := os.Stat(final); err == nil {
		return digest, nil
	}
	return digest, durable.WriteFolder(final, func(partial string) error {
		for _, file := range list {
			to := filepath.Join(partial, filepath.FromSlash(file))
			if err := copyFile(files, path.Join(name, file), to); err != nil {
				return err
			}
		}
		return nil
	})
}

// list returns a trainer's files by their paths below its folder, sorted.
func list(files fs.FS, name string) ([]string, error) {
	var list []string
	size := int64(0)
	err := fs.WalkDir(files, name, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := e.Name()
		if at != name && (base == "README.md" || strings.HasPrefix(base, "test_") || strings.HasPrefix(base, ".") ||
			strings.HasPrefix(base, "_") && e.IsDir()) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		// In the list that the digest is of, a name with a line break could look like two files.
		if strings.ContainsFunc(base, unicode.IsControl) {
			return fmt.Errorf("%q: the name has a control character; rename it", at)
		}
		if !e.IsDir() && !e.Type().IsRegular() {
			return fmt.Errorf("%s is a symbolic link or not a regular file; put the file itself there", at)
		}
		info, err := e.Info()
		if err == nil {
			err = checkMode(at, info)
		}
		if err != nil || e.IsDir() {
			return err
		}
		size += info.Size()
		if list = append(list, strings.TrimPrefix(at, name+"/")); len(list) > maxFiles || size > maxBytes {
			return fmt.Errorf("want at most %d files and %d MiB", maxFiles, maxBytes>>20)
		}
		return nil
	})
	slices.Sort(list)
	return list, err
}

// checkMode refuses what every user of the machine may write.
func checkMode(name string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o002 == 0 {
		return nil
	}
	return fmt.Errorf("%s: every user of this machine may write it (mode %04o); run chmod -R o-w on the trainers' "+
		"folder", name, info.Mode().Perm())
}

func read(files fs.FS, name string, to io.Writer) error {
	in, err := files.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(to, io.LimitReader(in, maxBytes))
	return err
}

func copyFile(files fs.FS, name, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(read(files, name, out), out.Close())
}
