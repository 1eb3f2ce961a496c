// Package commits reads commits of the intent repository: their files, the intent that
// these files describe, and how commits are related.
//
// A commit never changes, so a [Reader] caches what it has read. Trees that were not used for a whole turn are dropped.
package commits

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
)

// A Repo is the mirror of the intent repository.
type Repo interface {
	Files(commit string) ([]git.File, error)
	Blob(hash string, limit int64) ([]byte, error)
	MergeBases(a, b string) ([]string, error)
}

// A Tree is the intent of a commit.
type Tree struct {
	Files      delivery.Named[git.File] // by path
	Intent     delivery.Intent
	Complaints []delivery.Complaint

	size int64 // of the files that are read
}

// maxBases is how many merge bases are cached.
const maxBases = 10_000

// A Reader reads commits. Only the loop's goroutine may use it.
type Reader struct {
	Repo   Repo
	Parser *intent.Cache

	near  Tree                   // without complaints, which trees that are read later are compared with
	trees map[string]Tree        // by commit
	used  map[string]bool        // trees that were used since the last Sweep
	bases map[[2]string][]string // by two commits
}

// New returns a reader that has read nothing.
func New(repo Repo, parser *intent.Cache) *Reader {
	return &Reader{Repo: repo, Parser: parser, trees: map[string]Tree{}, used: map[string]bool{},
		bases: map[[2]string][]string{}}
}

// Tree parses the intent files of a commit.
func (r *Reader) Tree(commit string) (Tree, error) {
	r.used[commit] = true
	if t, ok := r.trees[commit]; ok {
		return t, nil
	}
	files, err := r.Repo.Files(commit)
	if err != nil {
		return Tree{}, err
	}
	t, known, err := r.quick(files, mostChanges)
	if err == nil && !known {
		t, err = r.Parse(files)
	}
	if err != nil {
		return Tree{}, err
	}
	r.trees[commit] = t
	return t, nil
}

// Quick is Tree if that takes little time, because almost all of its files were parsed before. files are those of the
// commit.
func (r *Reader) Quick(commit string, files []git.File) (t Tree, ok bool, err error) {
	if t, ok, err = r.quick(files, atOnce); ok {
		r.used[commit], r.trees[commit] = true, t
	}
	return t, ok, err
}

// atOnce is how many files are parsed before it is asked whether there is time for more.
const atOnce = 16

// mostChanges is how many files may be others than in a known tree, so that the rest is not looked at.
const mostChanges = 256

// quick parses a tree if most of its files are those of a known tree. It reads at most some contents.
func (r *Reader) quick(files []git.File, most int) (t Tree, ok bool, err error) {
	if !r.near.Files.Known() {
		return t, false, nil
	}
	var changes []delivery.NamedChange[git.File]
	i := 0
	for path, before := range r.near.Files.All() {
		for ; i < len(files) && files[i].Path < path; i++ {
			changes = append(changes, delivery.NamedChange[git.File]{Name: files[i].Path, Value: files[i]})
		}
		switch {
		case i == len(files) || files[i].Path != path:
			changes = append(changes, delivery.NamedChange[git.File]{Name: path, Gone: true})
		default:
			if files[i] != before {
				changes = append(changes, delivery.NamedChange[git.File]{Name: path, Value: files[i]})
			}
			i++
		}
		if len(changes) > mostChanges {
			return t, false, nil
		}
	}
	for ; i < len(files); i++ {
		changes = append(changes, delivery.NamedChange[git.File]{Name: files[i].Path, Value: files[i]})
	}
	for _, c := range changes {
		if !c.Gone && r.parses(c.Value) {
			if most--; most < 0 {
				return t, false, nil
			}
		}
	}
	if t, ok, err = r.Change(r.near, changes); !ok || t.Files.Len() != len(files) { // a path is listed twice
		return Tree{}, false, err
	}
	return t, true, nil
}

// Change parses a tree that differs from another one in some files. ok is false if all of the tree must be parsed to
// know the result.
func (r *Reader) Change(from Tree, changes []delivery.NamedChange[git.File]) (t Tree, ok bool, err error) {
	if len(from.Complaints) > 0 || !from.Files.Known() || len(changes) > mostChanges {
		return t, false, nil
	}
	list := make([]intent.Change, len(changes))
	size := from.size
	for i, c := range changes {
		size -= sizeOf(from.Files.Of(c.Name))
		if list[i] = (intent.Change{File: intent.File{Path: c.Name}, Gone: c.Gone}); c.Gone {
			continue
		}
		size += sizeOf(c.Value)
		if list[i].File, err = r.source(c.Value); err != nil {
			return t, false, err
		}
	}
	t = Tree{Files: from.Files.With(changes...), size: size}
	if t.Files.Len() > intent.MaxFiles || size > intent.MaxTree {
		return Tree{}, false, nil
	}
	if t.Intent, ok = r.Parser.ParseChanges(from.Intent, list); !ok {
		return Tree{}, false, nil
	}
	r.share(t)
	return t, true, nil
}

// share has trees that are read later share with this one.
func (r *Reader) share(t Tree) {
	if len(t.Complaints) == 0 && !t.Files.Shares(r.near.Files) {
		r.near = t
	}
}

// sizeOf returns the bytes of a file that is read.
func sizeOf(f git.File) int64 {
	if !f.Mode.IsRegular() || f.Size < 0 || f.Size > intent.MaxFileSize {
		return 0
	}
	return f.Size
}

// Has reports whether the tree of a commit is cached.
func (r *Reader) Has(commit string) bool { _, ok := r.trees[commit]; return ok }

// Keep makes the next Sweep keep the tree of a commit.
func (r *Reader) Keep(commit string) { r.used[commit] = true }

// Sweep drops the trees that were not used since the last Sweep.
func (r *Reader) Sweep() {
	maps.DeleteFunc(r.trees, func(commit string, _ Tree) bool { return !r.used[commit] })
	clear(r.used)
}

// Parse reads and parses the intent files of a tree.
func (r *Reader) Parse(files []git.File) (Tree, error) {
	sources, size := make([]intent.File, len(files)), int64(0)
	byPath := make(map[string]git.File, len(files))
	for i, f := range files {
		var err error
		if sources[i], err = r.source(f); err != nil {
			return Tree{}, err
		}
		byPath[f.Path] = f
		size += sizeOf(f)
	}
	in, complaints := r.Parser.Parse(sources)
	t := Tree{Files: delivery.Near(r.near.Files, byPath, func(path string) bool {
		return byPath[path] == r.near.Files.Of(path)
	}), Intent: in, Complaints: complaints, size: size}
	if len(byPath) == len(files) && len(complaints) == 0 {
		r.near = t
	}
	return t, nil
}

// source returns a file for the parser, with its content if that was not parsed before.
func (r *Reader) source(f git.File) (intent.File, error) {
	s := intent.File{Path: f.Path, Hash: f.Hash, Size: f.Size, Mode: f.Mode}
	if f.Size < 0 {
		s.Size = math.MaxInt64
	}
	if !r.parses(f) {
		return s, nil
	}
	data, err := r.blob(f)
	s.Data = data
	return s, err
}

// Warm reads and parses files that were not parsed before, a few at a time, while there is time. The results are
// cached. It reports whether all were parsed.
func (r *Reader) Warm(files []git.File, inTime func() bool) (all bool, err error) {
	var some []intent.File
	for i, f := range files {
		if r.parses(f) {
			data, err := r.blob(f)
			if err != nil {
				return false, err
			}
			some = append(some, intent.File{Path: f.Path, Hash: f.Hash, Size: f.Size, Data: data})
		}
		if len(some) == atOnce || i == len(files)-1 {
			r.Parser.Warm(some)
			if some = nil; !inTime() && i < len(files)-1 {
				return false, nil
			}
		}
	}
	return true, nil
}

// parses reports whether a file has to be parsed.
func (r *Reader) parses(f git.File) bool {
	return f.Size >= 0 && f.Size <= intent.MaxFileSize && f.Mode.IsRegular() && !r.Parser.Has(f.Path, f.Hash)
}

func (r *Reader) blob(f git.File) ([]byte, error) {
	data, err := r.Repo.Blob(f.Hash, intent.MaxFileSize)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return data, nil
}

// Hash returns the content hash of a file at a commit, or "" if there is no such file.
func (r *Reader) Hash(commit, path string) (string, error) {
	files, err := r.Repo.Files(commit)
	if err != nil {
		return "", err
	}
	f, _ := delivery.Find(files, func(f git.File) bool { return f.Path == path })
	return f.Hash, nil
}

// File reads a file at a commit. It returns nil if there is no such file, or if commit is "".
func (r *Reader) File(commit, path string) ([]byte, error) {
	if commit == "" {
		return nil, nil
	}
	hash, err := r.Hash(commit, path)
	if err != nil || hash == "" {
		return nil, err
	}
	return r.Repo.Blob(hash, intent.MaxFileSize)
}

// Document parses one file.
func Document(path string, data []byte) *intent.Doc {
	return intent.ParseFile(intent.File{Path: path, Data: data}, intent.Options{})
}

// MergeBases returns all best common ancestors of two commits, newest first.
func (r *Reader) MergeBases(a, b string) ([]string, error) {
	key := [2]string{a, b}
	if bases, ok := r.bases[key]; ok {
		return bases, nil
	}
	bases, err := r.Repo.MergeBases(a, b)
	if err != nil {
		return nil, err
	}
	if len(r.bases) > maxBases {
		clear(r.bases)
	}
	r.bases[key] = bases
	return bases, nil
}

// HasBases reports whether the merge bases of two commits are cached.
func (r *Reader) HasBases(a, b string) bool { _, ok := r.bases[[2]string{a, b}]; return ok }

// Contains reports whether a commit has another one in its history.
func (r *Reader) Contains(commit, other string) (bool, error) {
	bases, err := r.MergeBases(other, commit)
	return err == nil && slices.Contains(bases, other), err
}
