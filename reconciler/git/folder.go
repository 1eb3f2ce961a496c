package git

// This file reads the refs and the settings of a bare repository on this
// machine, as git does. A file that is damaged is named and refused. It is never
// taken for one that is not there, and an older value never takes its place.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	maxRefFile  = 4 << 10  // bytes of a loose ref
	maxConfig   = 1 << 20  // bytes of a repository's config, shallow and alternates files
	maxPackRefs = 64 << 20 // bytes of a packed-refs file
	maxRefDepth = 32       // folders in folders under refs/heads
	maxSymbolic = 5        // symbolic refs in a row, as in git
)

// A folderState is what the files of a bare repository say of its refs.
type folderState struct {
	refs map[string]plumbing.Hash
	bad  map[string]delivery.Blocked // refs that cannot be read, and why
	head string                      // the ref that HEAD names; empty where it names a commit

	before map[string]refFile // loose refs as they were read the last time, by name
	files  map[string]refFile // those that were read now
}

// A refFile is what a loose ref said when its file was last read.
type refFile struct {
	info fs.FileInfo
	read time.Time
	ref  looseRef
}

// racy is how long after a file was changed it may be changed again without showing it: clocks of files are coarse.
const racy = 2 * time.Second

// still reports whether a file is as it was when it was read.
func (f refFile) still(info fs.FileInfo) bool {
	return f.info != nil && os.SameFile(f.info, info) && f.info.Size() == info.Size() && f.info.Mode() == info.Mode() &&
		f.info.ModTime().Equal(info.ModTime()) && f.read.Sub(info.ModTime()) > racy
}

// packedRefs is the key in folderState.bad for refs that only a damaged
// packed-refs file knows.
const packedRefs = "packed-refs"

// readFolder reads the branches and the pull requests' heads of a repository. What
// was read before, and has not changed since, is not read again. The error is about
// the repository as a whole.
func readFolder(dir string, before map[string]refFile) (*folderState, error) {
	if err := checkFolder(dir); err != nil {
		return nil, err
	}
	s := &folderState{refs: map[string]plumbing.Hash{}, bad: map[string]delivery.Blocked{},
		before: before, files: map[string]refFile{}}
	head, err := readLoose(dir, "HEAD")
	if err != nil {
		return nil, delivery.Blockedf("write `ref: refs/heads/main` into it", "HEAD of %s is damaged: %v", dir, err)
	}
	s.head = head.target

	// Loose refs come before packed ones: a ref that is packed meanwhile is then
	// seen twice, and otherwise might be seen nowhere.
	loose := map[string]looseRef{}
	for _, under := range []string{Branch, Pull} {
		if err := s.walk(dir, strings.TrimSuffix(under, "/"), 0, loose); err != nil {
			return nil, err
		}
	}
	packed, err := readPacked(filepath.Join(dir, packedRefs))
	if err != nil {
		blocked := delivery.Blockedf("put back a copy of the file; or push every branch again, after you moved it away",
			"the file %s is damaged: %v", filepath.Join(dir, packedRefs), err)
		s.bad[packedRefs] = blocked
		for name := range packed {
			_, isLoose := loose[name]
			if _, bad := s.bad[name]; !bad && !isLoose && isInteresting(name) {
				s.bad[name] = blocked
			}
		}
		packed = nil // git reads none of them either
	}
	for name, h := range packed {
		_, isLoose := loose[name]
		if _, bad := s.bad[name]; !bad && !isLoose {
			s.refs[name] = h
		}
	}
	for name, ref := range loose {
		h, err := resolve(dir, ref, loose, packed, s.bad)
		if err != nil {
			s.bad[name] = damagedRef(dir, name, err)
			continue
		}
		s.refs[name] = h
	}
	s.before = nil
	return s, nil
}

func damagedRef(dir, name string, err error) delivery.Blocked {
	return delivery.Blockedf("write the branch's last commit into that file; a clone has it (`git rev-parse "+
		strings.Replace(name, Branch, "origin/", 1)+"`)",
		"%s cannot be read: the file %s %v", name, filepath.Join(dir, filepath.FromSlash(name)), err)
}

// walk collects the loose refs under a folder of refs. It follows symbolic links
// to folders, as git does.
func (s *folderState) walk(dir, under string, depth int, loose map[string]looseRef) error {
	if depth > maxRefDepth {
		return delivery.Blockedf("remove them", "%s has folders deeper than %d", filepath.Join(dir, under), maxRefDepth)
	}
	entries, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(under)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no ref of this kind, or gone between listing and looking
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := under + "/" + e.Name()
		if !properRef(name) {
			continue // git ignores it, too: a lock, or something else than a ref
		}
		var info fs.FileInfo // of a file; nil where it is a link, or nobody knows
		if e.Type().IsRegular() {
			info, _ = e.Info()
		} else if at, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name))); err == nil && at.IsDir() {
			if err := s.walk(dir, name, depth+1, loose); err != nil {
				return err
			}
			continue
		}
		if old := s.before[name]; info != nil && old.still(info) {
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
			s.bad[name] = damagedRef(dir, name, err)
		default:
			loose[name] = ref
		}
	}
	return nil
}

// resolve returns the commit of a loose ref, along symbolic refs.
func resolve(dir string, ref looseRef, loose map[string]looseRef, packed map[string]plumbing.Hash,
	bad map[string]delivery.Blocked) (plumbing.Hash, error) {
	for range maxSymbolic {
		if ref.target == "" {
			return ref.hash, nil
		}
		name := ref.target
		next, ok := loose[name]
		if !ok {
			var err error
			next, err = readLoose(dir, name)
			switch {
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, errIsFolder):
				h, ok := packed[name]
				if !ok && bad[packedRefs].What != "" {
					return h, fmt.Errorf("is a symbolic ref to %s, and %s", name, bad[packedRefs].What)
				}
				if !ok {
					return h, fmt.Errorf("is a symbolic ref to %s, which is not there", name)
				}
				return h, nil
			case err != nil:
				return plumbing.ZeroHash, fmt.Errorf("is a symbolic ref to %s, which %w", name, err)
			}
		}
		ref = next
	}
	if ref.target == "" {
		return ref.hash, nil
	}
	return plumbing.ZeroHash, fmt.Errorf("is a symbolic ref of more than %d steps", maxSymbolic)
}

// A looseRef is the content of a loose ref: a commit, or the name of another ref.
type looseRef struct {
	hash   plumbing.Hash
	target string
}

var errIsFolder = errors.New("is a folder")

// readLoose reads a ref's own file. The error is fs.ErrNotExist if it has none,
// and otherwise completes the sentence "the file …".
func readLoose(dir, name string) (looseRef, error) {
	path := filepath.Join(dir, filepath.FromSlash(name))
	info, err := os.Lstat(path)
	if err != nil {
		return looseRef{}, cannotOpen(err)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		// A symbolic link to a ref is an old form of a symbolic ref.
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, "refs/") && properRef(to) {
			return looseRef{target: to}, nil
		}
		if info, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return looseRef{}, errors.New("is a symbolic link to nowhere")
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

// readAtMost reads a file that has at most limit bytes.
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

// parseLoose reads the text of a loose ref as git reads it.
func parseLoose(data []byte) (looseRef, error) {
	text := bytes.TrimRight(data, " \t\n\v\f\r")
	if target, ok := bytes.CutPrefix(text, []byte("ref:")); ok {
		name := string(bytes.TrimLeft(target, " \t\n\v\f\r"))
		if !strings.HasPrefix(name, "refs/") || !properRef(name) {
			return looseRef{}, errors.New("is a symbolic ref to something that is no ref")
		}
		return looseRef{target: name}, nil
	}
	if len(text) == 0 {
		return looseRef{}, errors.New("is empty")
	}
	if len(bytes.Trim(text, "\x00")) == 0 {
		return looseRef{}, errors.New("holds zero bytes alone")
	}
	digits := 0
	for digits < len(text) && isHex(text[digits]) {
		digits++
	}
	if digits == 64 {
		return looseRef{}, errors.New("holds a SHA-256 hash, and aob reads repositories with SHA-1 only")
	}
	if digits != 40 || len(text) > 40 && text[40] != 0 && !isSpace(text[40]) {
		return looseRef{}, errors.New("holds no hash of a commit")
	}
	h := plumbing.NewHash(strings.ToLower(string(text[:40])))
	if h.IsZero() {
		return looseRef{}, errors.New("holds a hash of zeros")
	}
	return looseRef{hash: h}, nil
}

func isHex(c byte) bool   { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// readPacked reads a file of packed refs. One that is not there is empty.
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

// parsePacked reads the text of a packed-refs file. Where it is damaged it
// returns the refs of the lines that can be read, and an error that names the
// first line that cannot.
func parsePacked(data []byte) (map[string]plumbing.Hash, error) {
	refs := map[string]plumbing.Hash{}
	var damage error
	note := func(line int, what string) {
		if damage == nil {
			damage = fmt.Errorf("line %d %s", line, what)
		}
	}
	peels := false // whether a line "^hash" may follow
	for n := 1; len(data) > 0; n++ {
		line, rest, ended := bytes.Cut(data, []byte("\n"))
		data = rest
		if !ended {
			note(n, "is cut short")
		}
		switch {
		case n == 1 && bytes.HasPrefix(line, []byte("#")):
		case bytes.HasPrefix(line, []byte("^")):
			if _, ok := parseHash(string(line[1:])); !ok || !peels {
				note(n, "holds no hash of a commit")
			}
			peels = false
		default:
			peels = false
			hash, name, _ := strings.Cut(string(line), " ")
			h, ok := parseHash(strings.ToLower(hash))
			proper := strings.HasPrefix(name, "refs/") && properRef(name)
			switch {
			case !ok && len(hash) == 64:
				note(n, "holds a SHA-256 hash, and aob reads repositories with SHA-1 only")
			case !ok || h.IsZero() || !proper:
				note(n, "holds no hash and ref")
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

// properRef reports whether git would take a name for a ref: the rules of `git
// check-ref-format`.
func properRef(name string) bool {
	if name == "" || strings.HasSuffix(name, ".") || strings.Contains(name, "..") || strings.Contains(name, "@{") ||
		strings.ContainsFunc(name, func(r rune) bool {
			return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r)
		}) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}

// isInteresting reports whether a ref is a branch or the head of a pull request.
func isInteresting(name string) bool {
	return strings.HasPrefix(name, Branch) || strings.HasPrefix(name, Pull) && strings.HasSuffix(name, "/head")
}

// checkFolder reports by its name what aob does not read: another kind of
// folder, and repositories that keep their objects or refs in another way.
func checkFolder(dir string) error {
	for _, name := range []string{"HEAD", "objects", "refs"} {
		_, err := os.Lstat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			do := "make one with `git init --bare`, or give another address"
			if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
				do = "give the address of its folder .git, or of a bare clone"
			} else if name != "HEAD" {
				do = "put it back from a copy, or give another address"
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
		return delivery.Blockedf("put back a copy of the file", "the file %s %v", filepath.Join(dir, "config"), err)
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return delivery.Blockedf("put back a copy of the file", "the file %s is damaged: it holds zero bytes",
			filepath.Join(dir, "config"))
	}
	for name, value := range settings(data) {
		switch {
		case name == "extensions.objectformat" && value != "sha1":
			return objectFormat(dir, value)
		case name == "extensions.refstorage" && value != "files":
			return reftable(dir)
		case name == "extensions.partialclone", name == "remote.promisor" && value != "false":
			return delivery.Blockedf("make it anew with `git clone --bare`, without --filter",
				"%s is a partial clone, which aob does not read", dir)
		}
	}
	shallow, err := readAtMost(filepath.Join(dir, "shallow"), maxConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return delivery.Blockedf("put back a copy of the file", "the file %s %v", filepath.Join(dir, "shallow"), err)
	}
	if len(bytes.TrimSpace(shallow)) > 0 {
		return shallowClone(dir)
	}
	return nil
}

func reftable(dir string) error {
	return delivery.Blockedf("make it anew with `git init --bare --ref-format=files`",
		"%s keeps its refs in a reftable, which aob does not read", dir)
}

func objectFormat(at, format string) error {
	return delivery.Blockedf("make it anew with SHA-1 (`git init --bare --object-format=sha1`), and push again",
		"%s keeps %s objects, which aob does not read", at, strings.ToUpper(strings.Replace(format, "sha", "sha-", 1)))
}

func shallowClone(at string) error {
	return delivery.Blockedf("bring the rest with `git fetch --unshallow` there",
		"%s is a shallow clone, and aob needs the whole history", at)
}

// settings returns those settings of a git config that say how the repository
// keeps its refs and objects, as section.name in lower case. It reads what git
// itself writes there.
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

// equal reports whether two states say the same.
func (s *folderState) equal(other *folderState) bool {
	return other != nil && s.head == other.head && maps.Equal(s.refs, other.refs) && maps.Equal(s.bad, other.bad)
}

// alternates returns the folders of objects that a repository borrows from, in
// git's order, and says which of them are not there.
func alternates(objects string) (dirs, lost []string, err error) {
	seen := map[string]bool{}
	var add func(objects string, depth int) error
	add = func(objects string, depth int) error {
		path := filepath.Join(objects, "info", "alternates")
		data, err := readAtMost(path, maxConfig)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return delivery.Blockedf("put back a copy of the file", "the file %s %v", path, err)
		}
		for _, to := range parseAlternates(data) {
			if !filepath.IsAbs(to) {
				to = filepath.Join(objects, to)
			}
			real, err := filepath.EvalSymlinks(to)
			if info, statErr := os.Stat(to); err != nil || statErr != nil || !info.IsDir() {
				lost = append(lost, fmt.Sprintf("%s leads to %q, which is not there", path, to))
				continue
			}
			if seen[real] {
				continue
			}
			seen[real] = true
			if len(dirs) >= 64 || depth >= maxSymbolic {
				return delivery.Blockedf("repack it with `git repack -a -d`, and remove the file",
					"%s leads through too many other repositories", path)
			}
			dirs = append(dirs, to)
			if err := add(to, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if real, err := filepath.EvalSymlinks(objects); err == nil {
		seen[real] = true
	}
	err = add(objects, 0)
	return dirs, lost, err
}

// parseAlternates reads the text of an alternates file: a folder a line.
func parseAlternates(data []byte) []string {
	var dirs []string
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '"' {
			if path, ok := unquote(line); ok {
				line = path
			}
		}
		dirs = append(dirs, line)
	}
	return dirs
}

// unquote reads a string that git has quoted as in C.
func unquote(s string) (string, bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), i == len(s)-1
		case '\\':
			if i++; i >= len(s) {
				return "", false
			}
			if at := strings.IndexByte(`abfnrtv\"`, s[i]); at >= 0 {
				b.WriteByte("\a\b\f\n\r\t\v\\\""[at])
				continue
			}
			if i+2 >= len(s) {
				return "", false
			}
			var n int
			for _, d := range []byte(s[i : i+3]) {
				if d < '0' || d > '7' {
					return "", false
				}
				n = n<<3 | int(d-'0')
			}
			b.WriteByte(byte(n))
			i += 2
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}
