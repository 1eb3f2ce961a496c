package git

// This file parses refs as git does.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// A looseRef is the content of a loose ref: a commit hash or the name of another ref.
type looseRef struct {
	hash   plumbing.Hash
	target string
}

var errIsFolder = errors.New("is a folder")

// readLoose reads the file of a loose ref. The error is fs.ErrNotExist if there is no file.
// Otherwise its text completes a sentence that begins with "the file NAME".
func readLoose(dir, name string) (looseRef, error) {
	path := filepath.Join(dir, filepath.FromSlash(name))
	info, err := os.Lstat(path)
	if err != nil {
		return looseRef{}, cannotOpen(err)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		// Old versions of git wrote symbolic refs as symbolic links.
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, "refs/") && validRef(to) {
			return looseRef{target: to}, nil
		}
		if info, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return looseRef{}, errors.New("is a symbolic link to a file that does not exist")
		} else if err != nil {
			return looseRef{}, cannotOpen(err)
		}
	}
	if info.IsDir() {
		return looseRef{}, errIsFolder
	}
	if !info.Mode().IsRegular() {
		return looseRef{}, errors.New("is not a regular file")
	}
	data, err := readAtMost(path, maxRefFile)
	if err != nil {
		return looseRef{}, err
	}
	return parseLoose(data)
}

func cannotOpen(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("cannot be opened: %w", errors.Unwrap(err))
}

// readAtMost reads a file of at most limit bytes. Errors are as in readLoose.
func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cannotOpen(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", errors.Unwrap(err))
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("has more than %d bytes", limit)
	}
	return data, nil
}

// parseLoose parses the content of a loose ref as git does.
func parseLoose(data []byte) (looseRef, error) {
	text := bytes.TrimRight(data, " \t\n\v\f\r")
	if target, ok := bytes.CutPrefix(text, []byte("ref:")); ok {
		name := string(bytes.TrimLeft(target, " \t\n\v\f\r"))
		if !strings.HasPrefix(name, "refs/") || !validRef(name) {
			return looseRef{}, errors.New("is a symbolic ref to an invalid ref name")
		}
		return looseRef{target: name}, nil
	}
	if len(text) == 0 {
		return looseRef{}, errors.New("is empty")
	}
	if len(bytes.Trim(text, "\x00")) == 0 {
		return looseRef{}, errors.New("contains only zero bytes")
	}
	digits := 0
	for digits < len(text) && isHex(text[digits]) {
		digits++
	}
	if digits == 64 {
		return looseRef{}, errors.New("contains a SHA-256 hash, but aob only reads repositories with SHA-1")
	}
	if digits != 40 || len(text) > 40 && text[40] != 0 && !isSpace(text[40]) {
		return looseRef{}, errors.New("does not contain the hash of a commit")
	}
	h := plumbing.NewHash(strings.ToLower(string(text[:40])))
	if h.IsZero() {
		return looseRef{}, errors.New("contains a hash of zeros")
	}
	return looseRef{hash: h}, nil
}

func isHex(c byte) bool   { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// readPacked reads a packed-refs file. A missing file has no refs. See parsePacked for errors.
func readPacked(path string) (map[string]plumbing.Hash, error) {
	data, err := readAtMost(path, maxPackRefs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parsePacked(data)
}

// parsePacked parses the content of a packed-refs file. If it is damaged, it returns the refs
// with readable names, and an error that names the first bad line.
func parsePacked(data []byte) (map[string]plumbing.Hash, error) {
	refs := map[string]plumbing.Hash{}
	var damage error
	report := func(line int, problem string) {
		if damage == nil {
			damage = fmt.Errorf("line %d %s", line, problem)
		}
	}
	peels := false // whether a line "^hash" may follow
	for n := 1; len(data) > 0; n++ {
		line, rest, ended := bytes.Cut(data, []byte("\n"))
		data = rest
		if !ended {
			report(n, "is cut short")
		}
		switch {
		case n == 1 && bytes.HasPrefix(line, []byte("#")):
		case bytes.HasPrefix(line, []byte("^")):
			if _, ok := parseHash(string(line[1:])); !ok || !peels {
				report(n, "does not contain the hash of a commit")
			}
			peels = false
		default:
			peels = false
			hash, name, _ := strings.Cut(string(line), " ")
			h, ok := parseHash(strings.ToLower(hash))
			proper := strings.HasPrefix(name, "refs/") && validRef(name)
			switch {
			case !ok && len(hash) == 64:
				report(n, "contains a SHA-256 hash, but aob only reads repositories with SHA-1")
			case !ok || h.IsZero() || !proper:
				report(n, "does not contain a hash and a ref")
			default:
				peels = true
			}
			if proper {
				refs[name] = h
			}
		}
	}
	return refs, damage
}

// validRef reports whether a name is a valid ref name, by the rules of `git check-ref-format`.
func validRef(name string) bool {
	if name == "" || strings.HasSuffix(name, ".") || strings.Contains(name, "..") || strings.Contains(name, "@{") ||
		strings.ContainsFunc(name, func(r rune) bool {
			return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r)
		}) {
		return false
	}
	return !slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool {
		return part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	})
}

// isTracked reports whether a ref is a branch or the head of a pull request.
func isTracked(name string) bool {
	return strings.HasPrefix(name, Branch) || strings.HasPrefix(name, Pull) && strings.HasSuffix(name, "/head")
}
