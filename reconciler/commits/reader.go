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
	Files      []git.File
	Intent     delivery.Intent
	Complaints []delivery.Complaint
}

// maxBases is how many merge bases are cached.
const maxBases = 10_000

// A Reader reads commits. Only the loop's goroutine may use it.
type Reader struct {
	Repo   Repo
	Parser *intent.Cache

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
	t, err := r.Parse(files)
	if err != nil {
		return Tree{}, err
	}
	r.trees[commit] = t
	return t, nil
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
	sources := make([]intent.File, len(files))
	for i, f := range files {
		sources[i] = intent.File{Path: f.Path, Hash: f.Hash, Size: f.Size, Mode: f.Mode}
		if f.Size < 0 {
			sources[i].Size = math.MaxInt64
		}
		if !r.parses(f) {
			continue
		}
		data, err := r.blob(f)
		if err != nil {
			return Tree{}, err
		}
		sources[i].Data = data
	}
	in, complaints := r.Parser.Parse(sources)
	return Tree{files, in, complaints}, nil
}

// Warm reads and parses files that were not parsed before, a few at a time, while there is time. The results are
// cached. It reports whether all were parsed.
func (r *Reader) Warm(files []git.File, inTime func() bool) (all bool, err error) {
	const atOnce = 16
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
