package git

// This file reads the refs and the configuration of a bare repository on this machine, as
// git does. A damaged file is an error that names the file. A damaged loose ref is never
// treated as missing, and never replaced by an older value from packed-refs.

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	maxRefFile  = 4 << 10  // bytes of a loose ref
	maxConfig   = 1 << 20  // bytes of a repository's config, shallow and alternates files
	maxPackRefs = 64 << 20 // bytes of a packed-refs file
	maxRefDepth = 32       // depth of folders under refs/heads
	maxSymbolic = 5        // length of a chain of symbolic refs, as in git
)

// A folderState is the state of a bare repository's refs.
type folderState struct {
	refs       map[string]plumbing.Hash
	unreadable map[string]delivery.Blocked // refs that cannot be read, and why
	head       string                      // target of HEAD; empty if HEAD is a commit

	previous map[string]refFile // loose refs of the previous readFolder, by name
	files    map[string]refFile // loose refs of this one
}

// A refFile is a loose ref with the file from which it was read.
type refFile struct {
	info fs.FileInfo
	read time.Time
	ref  looseRef
}

// racy is how long after its modification time a file may change without getting another modification time, because
// file system clocks are coarse.
const racy = 2 * time.Second

// unchanged reports whether a file has certainly not changed since it was read.
func (f refFile) unchanged(info fs.FileInfo) bool {
	return f.info != nil && os.SameFile(f.info, info) && f.info.Size() == info.Size() && f.info.Mode() == info.Mode() &&
		f.info.ModTime().Equal(info.ModTime()) && f.read.Sub(info.ModTime()) > racy
}

// packedRefs is the name of the file, and the key in folderState.unreadable for refs in a damaged packed-refs file.
const packedRefs = "packed-refs"

// readFolder reads the branches and the pull requests' heads of a repository. Loose refs in previous whose files have
// not changed are not read again. The error is about the repository as a whole.
func readFolder(dir string, previous map[string]refFile) (*folderState, error) {
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	s := &folderState{refs: map[string]plumbing.Hash{}, unreadable: map[string]delivery.Blocked{},
		previous: previous, files: map[string]refFile{}}
	head, err := readLoose(dir, "HEAD")
	if err != nil {
		return nil, delivery.Blockedf("write `ref: refs/heads/main` into it", "HEAD of %s is damaged: %v", dir, err)
	}
	s.head = head.target

	// Read loose refs before packed ones. In the other order, a ref that is packed in between would be missed.
	loose := map[string]looseRef{}
	for _, under := range []string{Branch, Pull} {
		if err := s.walk(dir, strings.TrimSuffix(under, "/"), 0, loose); err != nil {
			return nil, err
		}
	}
	packed, err := readPacked(filepath.Join(dir, packedRefs))
	if err != nil {
		blocked := delivery.Blockedf("restore the file from a copy; or move it away and push all branches again",
			"the file %s is damaged: %v", filepath.Join(dir, packedRefs), err)
		s.unreadable[packedRefs] = blocked
		for name := range packed {
			_, isLoose := loose[name]
			if _, bad := s.unreadable[name]; !bad && !isLoose && isTracked(name) {
				s.unreadable[name] = blocked
			}
		}
		packed = nil // git does not use a damaged file either
	}
	for name, h := range packed {
		_, isLoose := loose[name]
		if _, bad := s.unreadable[name]; !bad && !isLoose {
			s.refs[name] = h
		}
	}
	for name, ref := range loose {
		h, err := s.resolve(dir, ref, loose, packed)
		if err != nil {
			s.unreadable[name] = damagedRef(dir, name, err)
			continue
		}
		s.refs[name] = h
	}
	s.previous = nil
	return s, nil
}

func damagedRef(dir, name string, err error) delivery.Blocked {
	return delivery.Blockedf("write the branch's last commit into that file; a clone has it (`git rev-parse "+
		strings.Replace(name, Branch, "origin/", 1)+"`)",
		"%s cannot be read: the file %s %v", name, filepath.Join(dir, filepath.FromSlash(name)), err)
}

// walk collects the loose refs under a folder of refs. It follows symbolic links to folders, as git does.
func (s *folderState) walk(dir, under string, depth int, loose map[string]looseRef) error {
	if depth > maxRefDepth {
		return delivery.Blockedf("remove them", "%s contains folders deeper than %d", filepath.Join(dir, under),
			maxRefDepth)
	}
	entries, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(under)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there are no refs, or the folder was just removed
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := under + "/" + e.Name()
		if !validRef(name) {
			continue // not a ref, for example a lock file; git ignores it too
		}
		var info fs.FileInfo // nil if it is a symbolic link or cannot be read
		if e.Type().IsRegular() {
			info, _ = e.Info()
		} else if at, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name))); err == nil && at.IsDir() {
			if err := s.walk(dir, name, depth+1, loose); err != nil {
				return err
			}
			continue
		}
		if old := s.previous[name]; info != nil && old.unchanged(info) {
			loose[name], s.files[name] = old.ref, old
			continue
		}
		now := time.Now()
		ref, err := readLoose(dir, name)
		if err == nil && info != nil {
			s.files[name] = refFile{info, now, ref}
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			s.unreadable[name] = damagedRef(dir, name, err)
		default:
			loose[name] = ref
		}
	}
	return nil
}

// resolve returns the commit of a loose ref. It follows symbolic refs.
func (s *folderState) resolve(dir string, ref looseRef, loose map[string]looseRef,
	packed map[string]plumbing.Hash) (plumbing.Hash, error) {
	for range maxSymbolic {
		if ref.target == "" {
			return ref.hash, nil
		}
		name := ref.target
		next, ok := loose[name]
		var err error
		if !ok {
			next, err = readLoose(dir, name)
		}
		switch h, isPacked := packed[name]; {
		case err == nil:
			ref = next
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errIsFolder):
			return h, fmt.Errorf("is a symbolic ref to %s, which %w", name, err)
		case isPacked:
			return h, nil
		case s.unreadable[packedRefs].What != "":
			return h, fmt.Errorf("is a symbolic ref to %s, and %s", name, s.unreadable[packedRefs].What)
		default:
			return h, fmt.Errorf("is a symbolic ref to %s, which does not exist", name)
		}
	}
	if ref.target == "" {
		return ref.hash, nil
	}
	return plumbing.ZeroHash, fmt.Errorf("is the start of more than %d symbolic refs in a chain", maxSymbolic)
}

// checkFolder returns an error if a folder is not a bare repository, or one with a feature
// that aob does not support: SHA-256, reftable, partial or shallow clones.
func checkFolder(dir string) error {
	for _, name := range []string{"HEAD", "objects", "refs"} {
		_, err := os.Lstat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			do := "create one with `git init --bare`, or use another path"
			if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
				do = "use the path of its folder .git, or of a bare clone"
			} else if name != "HEAD" {
				do = "restore it from a copy, or use another repository"
			}
			return delivery.Blockedf(do, "%s is not a bare git repository: it has no %s", dir, name)
		}
		if err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "reftable")); err == nil {
		return reftable(dir)
	}
	data, err := readAtMost(filepath.Join(dir, "config"), maxConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return delivery.Blockedf("restore the file from a copy", "the file %s %v", filepath.Join(dir, "config"), err)
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return delivery.Blockedf("restore the file from a copy", "the file %s is damaged: it contains zero bytes",
			filepath.Join(dir, "config"))
	}
	for name, value := range settings(data) {
		switch {
		case name == "extensions.objectformat" && value != "sha1":
			return objectFormat(dir, value)
		case name == "extensions.refstorage" && value != "files":
			return reftable(dir)
		case name == "extensions.partialclone", name == "remote.promisor" && value != "false":
			return delivery.Blockedf("clone it again with `git clone --bare`, without --filter",
				"%s is a partial clone, which aob does not support", dir)
		}
	}
	shallow, err := readAtMost(filepath.Join(dir, "shallow"), maxConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return delivery.Blockedf("restore the file from a copy", "the file %s %v", filepath.Join(dir, "shallow"), err)
	}
	if len(bytes.TrimSpace(shallow)) > 0 {
		return shallowClone(dir)
	}
	return nil
}

func reftable(dir string) error {
	return delivery.Blockedf("create it again with `git init --bare --ref-format=files`",
		"%s stores its refs in a reftable, which aob does not support", dir)
}

func objectFormat(at, format string) error {
	return delivery.Blockedf("create it again with SHA-1 (`git init --bare --object-format=sha1`), and push again",
		"%s has %s objects, which aob does not support", at, strings.ToUpper(strings.Replace(format, "sha", "sha-", 1)))
}

func shallowClone(at string) error {
	return delivery.Blockedf("run `git fetch --unshallow` there",
		"%s is a shallow clone, but aob needs the whole history", at)
}

// settings returns the settings of a git config about the storage of refs and objects, by
// section.name in lower case. It only supports the syntax that git itself writes for them.
func settings(config []byte) map[string]string {
	values := map[string]string{}
	section := ""
	for line := range strings.Lines(string(config)) {
		line = strings.TrimSpace(line)
		if head, ok := strings.CutPrefix(line, "["); ok {
			name, rest, _ := strings.Cut(head, "]")
			section, _, _ = strings.Cut(strings.ToLower(strings.TrimSpace(name)), " ")
			line = strings.TrimSpace(rest)
		}
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		name = section + "." + strings.ToLower(strings.TrimSpace(name))
		if section != "extensions" && name != "remote.promisor" {
			continue
		}
		value, _, _ = strings.Cut(value, "#")
		value, _, _ = strings.Cut(value, ";")
		values[name] = strings.ToLower(strings.Trim(strings.TrimSpace(value), `"`))
	}
	return values
}

// equal reports whether two states have the same refs, errors and HEAD.
func (s *folderState) equal(other *folderState) bool {
	return other != nil && s.head == other.head && maps.Equal(s.refs, other.refs) &&
		maps.Equal(s.unreadable, other.unreadable)
}

// alternates returns the object folders of a repository's alternates, recursively and in
// git's order. lost describes those that do not exist.
func alternates(objects string) (dirs, lost []string, err error) {
	visited := map[string]bool{}
	var add func(objects string, depth int) error
	add = func(objects string, depth int) error {
		path := filepath.Join(objects, "info", "alternates")
		data, err := readAtMost(path, maxConfig)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return delivery.Blockedf("restore the file from a copy", "the file %s %v", path, err)
		}
		for _, to := range parseAlternates(data) {
			if !filepath.IsAbs(to) {
				to = filepath.Join(objects, to)
			}
			real, err := filepath.EvalSymlinks(to)
			if info, statErr := os.Stat(to); err != nil || statErr != nil || !info.IsDir() {
				lost = append(lost, fmt.Sprintf("%s names the folder %q, which does not exist", path, to))
				continue
			}
			if visited[real] {
				continue
			}
			visited[real] = true
			if len(dirs) >= 64 || depth >= maxSymbolic {
				return delivery.Blockedf("repack it with `git repack -a -d`, and remove the file",
					"%s leads to too many other repositories", path)
			}
			dirs = append(dirs, to)
			if err := add(to, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if real, err := filepath.EvalSymlinks(objects); err == nil {
		visited[real] = true
	}
	err = add(objects, 0)
	return dirs, lost, err
}

// parseAlternates parses an alternates file, with one folder on each line.
func parseAlternates(data []byte) []string {
	var dirs []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '"' { // quoted as in C; the escape sequences that git writes are those of Go
			if path, err := strconv.Unquote(line); err == nil {
				line = path
			}
		}
		dirs = append(dirs, line)
	}
	return dirs
}
