package intent

import (
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A File is one file of a tree under models/, gates/ or fleets/.
type File struct {
	Path string // with slashes, from the root of the tree
	Mode fs.FileMode
	Size int64  // in bytes; over MaxFileSize, Data is not used
	Data []byte // may be nil if the file is too large, or if a Cache has Hash
	Hash string // of the content, as a git blob's hash; "" is never cached
}

// The limits of one tree: the number of files, and of bytes in all of them. They allow thousands of models.
const (
	MaxFiles = 10_000
	MaxTree  = 16 << 20
)

// Options have what files are checked against. The zero value leaves those checks out.
type Options struct {
	// Trainers are the server's trainers. They have defaults and limits for train:; nil leaves train: as it is in the
	// file.
	Trainers Trainers

	// Datasets are the names in the server's configuration with which a reference to a dataset may begin, by source. A
	// nil list allows all names of a source, nil all sources.
	Datasets map[string][]string

	// Trackers are the trackers of the server, as KIND/NAME; nil allows all.
	Trackers []string

	// Weights are the names of base weights in the server's configuration; nil allows any. A server allows any: a model
	// whose weights it no longer has cannot be trained, and is still released.
	Weights []string

	// Instances are the types of instances that the server starts; nil allows any. A server allows any, as of Weights.
	Instances []string

	// Zone returns an error for an unknown time zone.
	Zone func(name string) error

	// accepted marks a file that main accepted in the past: it gets the defaults of today's trainers, and is not
	// checked against them.
	accepted bool
}

// A Doc is one parsed file. It must not be changed.
type Doc struct {
	Value any // delivery.Model, Gate, Fleet, Release or Quarantine; nil if there is a complaint

	file       string
	hash       string // of the content, where known
	kind       string // Model, Gate, Fleet, Release, Quarantine; empty if the file is not read
	name       string // from the file's name; empty if that is wrong
	refs       []ref
	complaints []delivery.Complaint
}

// A ref is a name in one file that another file must define.
type ref struct {
	role   role
	name   string
	path   string
	line   int
	column int
}

type role int

const (
	refCovers  role = iota // a gate's model
	refRuns                // a fleet's model
	refAfter               // a fleet's fleet
	refAgainst             // a model with a version
	refWas                 // a model's former name
)

// Complaints returns what is wrong in the file, without regard to other files, sorted.
func (d *Doc) Complaints() []delivery.Complaint { return d.complaints }

// Parse reads all files of one tree. If there are complaints, the intent has only the files without any: it can be
// shown, but must not be acted on. The result must not be changed, since a Cache shares it between calls.
func Parse(files []File, o Options) (delivery.Intent, []delivery.Complaint) {
	return NewCache(o).Parse(files)
}

// parseAll parses files, on all processors where there are many.
func parseAll(files []File, o Options) []*Doc {
	docs := make([]*Doc, len(files))
	workers := min(runtime.GOMAXPROCS(0), 1+len(files)/16)
	var wait sync.WaitGroup
	for first := range workers {
		wait.Go(func() {
			for i := first; i < len(files); i += workers {
				docs[i] = ParseFile(files[i], o)
			}
		})
	}
	wait.Wait()
	return docs
}

// The folders, and the kinds of their files by the end of the name before .yaml.
var folders = map[string]map[string]string{
	"models": {"": "Model", ".release": "Release", ".quarantine": "Quarantine"},
	"gates":  {"": "Gate"},
	"fleets": {"": "Fleet"},
}

// Folders returns the names of the folders.
func Folders() []string { return []string{"fleets", "gates", "models"} }

// ParseFile reads one file, without regard to other files.
func ParseFile(f File, o Options) *Doc {
	doc := &Doc{file: f.Path, hash: f.Hash}
	d := &document{file: f.Path, options: o}
	var value any
	if doc.kind, doc.name = d.identify(f); doc.kind != "" && d.open(f) && d.header(doc) {
		value = d.parse(doc)
	}
	if doc.complaints = d.complaints(); len(doc.complaints) == 0 {
		doc.Value = sealed(value)
	}
	return doc
}

// sealed returns a model or gate with its digests, which are needed in every turn.
func sealed(value any) any {
	switch v := value.(type) {
	case delivery.Model:
		return v.Sealed()
	case delivery.Gate:
		return v.Sealed()
	}
	return value
}

// identify returns the kind and name that a file must have, by its path.
func (d *document) identify(f File) (kind, name string) {
	refuse := func(format string, args ...any) (kind, name string) {
		d.fault(place{}, "", format, args...)
		return "", ""
	}
	folder, base, _ := strings.Cut(f.Path, "/")
	kinds, ok := folders[folder]
	switch {
	case !ok || path.Clean(f.Path) != f.Path:
		return refuse("is not in a folder that AOB reads; move it into models/, gates/ or fleets/")
	case base == "" && f.Mode&fs.ModeSymlink != 0:
		return refuse("is a symbolic link, which AOB does not follow; put the folder itself there")
	case base == "" && !f.Mode.IsRegular():
		return refuse("is a submodule, which AOB does not read; put the files themselves into the folder")
	case base == "":
		return refuse("is a file; want a folder of files")
	case strings.HasPrefix(base, ".") || strings.Contains(base, "/.") || path.Base(base) == "README.md":
		return "", "" // for people and their editors
	case strings.Contains(base, "/"):
		return refuse("is in a subfolder, which AOB does not read; move it to %s", quote(folder+"/"+path.Base(base)))
	}
	stem, ok := strings.CutSuffix(base, ".yaml")
	if !ok {
		if ext := path.Ext(base); isYAML(ext) {
			return refuse("AOB reads .yaml, not %s; rename it to %s", ext, quote(strings.TrimSuffix(base, ext)+".yaml"))
		}
		return refuse("is not read; %s/ may have only NAME.yaml and README.md, so move it elsewhere", folder)
	}
	name, kind = stem, kinds[""]
	if i := strings.LastIndexByte(stem, '.'); i >= 0 && kinds[stem[i:]] != "" {
		name, kind = stem[:i], kinds[stem[i:]]
	}
	if form := forms["name"]; !form.holds(name) {
		d.fault(place{}, "", "want a file name NAME.yaml, where NAME is %s, got %s", form.want, quote(base))
		name = ""
	}
	return kind, name
}

func isYAML(ext string) bool {
	return strings.EqualFold(ext, ".yml") || strings.EqualFold(ext, ".yaml")
}

// stray returns the kind and name that a file would have if it were in the right place.
func stray(file string) (kind, name string) {
	folder, base, _ := strings.Cut(file, "/")
	base = path.Base(base)
	ext := path.Ext(base)
	if !isYAML(ext) {
		return "", ""
	}
	return folders[folder][""], strings.TrimSuffix(base, ext)
}

// open reads a file into nodes.
func (d *document) open(f File) bool {
	switch {
	case f.Mode&fs.ModeSymlink != 0:
		d.fault(place{}, "", "is a symbolic link; want the file itself")
	case !f.Mode.IsRegular():
		d.fault(place{}, "", "is not a regular file, but a submodule for example; want the file itself")
	case f.Size > MaxFileSize || len(f.Data) > MaxFileSize:
		d.fault(place{}, "", "is too large; want at most %d KiB", MaxFileSize>>10)
	case f.Data == nil && f.Size > 0:
		d.fault(place{}, "", "its content could not be read; check that the file can be read")
	default:
		return d.read(f.Data)
	}
	return false
}

// header compares kind and name with the file's path. It reports whether to read the rest: in a file of another kind or
// of a newer format every line would be wrong.
func (d *document) header(doc *Doc) bool {
	if v := valueOf(d.top, "apiVersion"); v != nil && strings.HasPrefix(v.Value, "aob/") {
		if _, format, ok := delivery.FormatOf(v.Value); ok && format > delivery.IntentFormat {
			d.fault(placeOf(v), "apiVersion",
				"this file is for a newer aob: it has format %d, and this aob reads formats up to %d; %s",
				format, delivery.IntentFormat, delivery.StartNewer)
			return false
		}
	}
	if v := valueOf(d.top, "kind"); v != nil && v.Value != doc.kind && home(v.Value) != "" {
		d.fault(placeOf(v), "kind", "want %s in this place, got %s; correct it, or move the file to %s", doc.kind,
			v.Value, home(v.Value))
		return false
	}
	if v := valueOf(d.top, "name"); v != nil && doc.name != "" && v.Value != doc.name && forms["name"].holds(v.Value) {
		d.fault(placeOf(v), "name", "want %s, the file's name, got %s", quote(doc.name), quote(v.Value))
	}
	return true
}

// home returns the path pattern of a kind's files.
func home(kind string) string {
	for folder, kinds := range folders {
		for suffix, k := range kinds {
			if k == kind {
				return folder + "/NAME" + suffix + ".yaml"
			}
		}
	}
	return ""
}

// parse decodes a file by its kind and checks the rules between its fields.
func (d *document) parse(doc *Doc) any {
	v := reflect.New(kindTypes[doc.kind])
	d.decode(v.Interface())
	switch v := v.Interface().(type) {
	case *delivery.Model:
		d.model(v, doc)
	case *delivery.Gate:
		d.gate(v, doc)
	case *delivery.Fleet:
		d.fleet(v, doc)
	case *delivery.Release:
		d.release(v)
	}
	return v.Elem().Interface()
}

// refer records that another file must define a name.
func (doc *Doc) refer(d *document, role role, name, path string) {
	if name == "" || !d.valid(path) {
		return
	}
	at := d.place(path)
	doc.refs = append(doc.refs, ref{role, name, path, at.line, at.column})
}

// kindTypes are the types behind the kinds.
var kindTypes = map[string]reflect.Type{
	"Model":      reflect.TypeFor[delivery.Model](),
	"Gate":       reflect.TypeFor[delivery.Gate](),
	"Fleet":      reflect.TypeFor[delivery.Fleet](),
	"Release":    reflect.TypeFor[delivery.Release](),
	"Quarantine": reflect.TypeFor[delivery.Quarantine](),
	"Server":     reflect.TypeFor[Server](),
	"Trainer":    reflect.TypeFor[delivery.Trainer](),
	"Signature":  reflect.TypeFor[delivery.Signature](), // in JSON, in bundles; package detect reads it
}

// bounded complains about a tree beyond MaxFiles or MaxTree, at its first folder.
func bounded(files []File) []delivery.Complaint {
	var size int64
	for _, f := range files {
		if f.Mode.IsRegular() && f.Size <= MaxFileSize { // a larger one is not read
			size += f.Size
		}
	}
	var text string
	switch {
	case len(files) > MaxFiles:
		text = fmt.Sprintf("the tree has %d files in models/, gates/ and fleets/; want at most %d", len(files),
			MaxFiles)
	case size > MaxTree:
		text = fmt.Sprintf("the tree has %d MiB of files in models/, gates/ and fleets/; want at most %d MiB",
			(size+1<<20-1)>>20, MaxTree>>20)
	default:
		return nil
	}
	first := slices.MinFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	folder, _, _ := strings.Cut(first.Path, "/")
	return []delivery.Complaint{{File: folder, Text: text}}
}
