package dataset

// This file finds out in which layout a dataset is: AOB's own, which is Roboflow's COCO export, or one of those in
// layout_*.go. A reader of a layout yields the truths of a split in COCO form, with the file of each image.

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A layout is how the files of a dataset are arranged.
type layout struct {
	name    string // as people call it
	subsets []subset
	other   string // what it says if the folder has the labels of another layout too
}

// A subset is a part of a dataset, as its files divide it.
type subset struct {
	split string // train, valid or test; "" if the files do not say
	file  string // what has its truths or lists its images
	read  func(group string) (*split, error)
}

// The findings of readers.
const (
	codeShape   = "left-out-shape"      // a shape that has no box
	codeRotated = "rotated-box"         // replaced by the upright box around it
	codeLabel   = "bad-label"           // a line or element that cannot be read
	codeNoImage = "missing-file"        // an image that is not there
	codeSeveral = "several-annotations" // an image that two people labelled
	codeNoSplit = "no-split"            // an image that splits.json does not name
)

// maxTool is the most bytes of a file of CVAT or Label Studio, which takes several times that of memory.
const maxTool = 256 << 20

// native is the name of AOB's own layout.
const native = "COCO in split folders (Roboflow)"

// layout returns the dataset's layout. Its error says what the folder holds and what to do.
func (v *version) layout() (*layout, error) {
	if v.lay == nil && v.layErr == nil {
		v.lay, v.layErr = v.detect()
	}
	return v.lay, v.layErr
}

// A kind of layout.
type kind struct {
	family string // of layouts whose files are taken for each other's
	read   func() (*layout, error)
}

// detect looks for the layouts, the more certain ones first.
func (v *version) detect() (*layout, error) {
	readers := []kind{{"native", v.nativeLayout}, {"yolo", v.darknet}, {"yolo", v.ultralytics}, {"cvat", v.cvat},
		{"voc", v.voc}, {"yolo", v.yoloTree}, {"via", v.via}, {"coco", v.cocoFiles},
		{"label studio", v.labelStudio}}
	for i, r := range readers {
		l, err := r.read()
		switch {
		case err != nil:
			return nil, err
		case l == nil:
			continue
		case len(l.subsets) == 0:
			return nil, delivery.Blockedf("put the images into the folder",
				"the folder looks like %s, and has no images",
				l.name)
		}
		slices.SortStableFunc(l.subsets, func(a, b subset) int {
			return cmp.Compare(slices.Index(splitNames, a.split), slices.Index(splitNames, b.split))
		})
		for i, s := range l.subsets[1:] {
			if before := l.subsets[i]; before.split == s.split {
				return nil, delivery.Blockedf("leave one of them in the folder", "%s and %s both hold the images of %s",
					before.file, s.file, cmp.Or(s.split, "the dataset"))
			}
		}
		for _, other := range readers[i+1:] {
			if other.family == r.family {
				continue
			}
			if also, err := other.read(); err == nil && also != nil && len(also.subsets) > 0 {
				l.other = fmt.Sprintf("the folder has labels of two kinds: those of %s are used, and those of %s (%s) "+
					"are not; remove the ones that are not meant", l.name, also.name, also.subsets[0].file)
				break
			}
		}
		return l, nil
	}
	return nil, v.refusal()
}

// addSplits says how a dataset gets the splits that it lacks.
const addSplits = "aob data split makes them out of train"

// readable returns an error if the dataset is in no layout that can be read, or is not divided into splits.
func (v *version) readable() error {
	l, err := v.layout()
	if err != nil {
		return err
	}
	assigned, err := v.assigned()
	if s, ok := l.unsplit(); ok && err == nil && assigned == nil {
		if _, err := s.read(""); err != nil { // dividing it would not help
			return err
		}
		return delivery.Blockedf("run aob data split in its folder, which writes "+SplitsFile,
			"%s (%s) has all images in one set, without train, valid and test", cmp.Or(strings.TrimPrefix(s.file, "."),
				"the folder"), l.name)
	}
	return err
}

// lacks says that the dataset does not have a split.
func (v *version) lacks(name string) string {
	if l, _ := v.layout(); l == nil || l.name == native {
		return fmt.Sprintf("there is no %s/%s", name, AnnotationsFile)
	}
	return "there is no split " + name
}

// annotations returns the file that has the truths of a split.
func (v *version) annotations(name string) string {
	if l, _ := v.layout(); l != nil {
		for _, s := range l.subsets {
			if s.split == name {
				return s.file
			}
		}
	}
	return name
}

// unlisted returns the images that no split has, for a layout whose splits share folders.
func (v *version) unlisted(splits map[string]*split) []string {
	used, shared := map[string]bool{}, false
	for _, s := range splits {
		shared = shared || s.dir == ""
		for _, file := range s.files() {
			used[file] = true
		}
		for _, r := range s.faults {
			used[r.where] = true // has a finding
		}
	}
	if !shared {
		return nil
	}
	return slices.DeleteFunc(v.images(""), func(name string) bool { return used[name] })
}

// splitNames are the names of splits, in their order.
var splitNames = []string{"train", "valid", "test"}

func (v *version) nativeLayout() (*layout, error) {
	l := &layout{name: native}
	for _, name := range splitNames {
		if file := name + "/" + AnnotationsFile; v.files[file] != nil {
			l.subsets = append(l.subsets, subset{name, file, func(group string) (*split, error) {
				s, err := v.cocoSplit(name, file, group, func(im coco.Image) (string, bool) {
					in := path.Join(name, im.FileName)
					return in, v.files[in] != nil && im.FileName != "" && validPath(im.FileName)
				})
				if err == nil {
					s.dir = name + "/"
				}
				return s, err
			}})
		}
	}
	if len(l.subsets) == 0 {
		return nil, nil
	}
	return l, nil
}

// splitName returns the split that the name of a file or folder stands for, as train for instances_train2017.json.
func splitName(name string) string {
	found := ""
	for word := range strings.FieldsFuncSeq(strings.ToLower(name), func(r rune) bool { return r < 'a' || r > 'z' }) {
		split := ""
		switch word {
		case "train", "training":
			split = "train"
		case "val", "valid", "validation":
			split = "valid"
		case "test", "testing":
			split = "test"
		default:
			continue
		}
		if found != "" && found != split {
			return ""
		}
		found = split
	}
	return found
}

// isImage reports whether a name is that of an image. Only JPEG and PNG can be used; the others are there so that a
// finding names them.
func isImage(name string) bool {
	if strings.HasPrefix(path.Base(name), ".") {
		return false // macOS puts ._a.jpg beside a.jpg
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jfif", ".mpo", ".heic", ".avif":
		return true
	}
	return false
}

// stem returns a name without its extension.
func stem(name string) string { return strings.TrimSuffix(name, path.Ext(name)) }

// isText reports whether a file may be larger than an image, since it can hold the truths of a whole split.
func isText(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".json", ".xml", ".txt", ".yaml", ".yml", ".csv":
		return true
	}
	return false
}

// largest returns how many bytes a file may have. Larger ones are not read.
func largest(name string) int64 {
	if isText(name) {
		return maxAnnotations
	}
	return maxImage
}

// names returns the dataset's files, sorted.
func (v *version) names() []string {
	if v.sorted == nil {
		v.sorted = slices.Sorted(maps.Keys(v.files))
	}
	return v.sorted
}

// below returns the files below a folder, sorted; "" is the dataset's own.
func (v *version) below(dir string) []string {
	all := v.names()
	if dir = path.Clean("/" + dir)[1:]; dir == "" {
		return all
	}
	first, _ := slices.BinarySearch(all, dir+"/")
	last, _ := slices.BinarySearch(all, dir+"0") // the byte after the slash
	return all[first:last]
}

// images returns the images below a folder, sorted.
func (v *version) images(dir string) []string {
	return slices.DeleteFunc(slices.Clone(v.below(dir)), func(name string) bool { return !isImage(name) })
}

// read returns the content of a file of at most so many bytes.
func (v *version) read(name string, most int64) ([]byte, error) {
	if size := v.files[name].size; size > most {
		return nil, fmt.Errorf("%s: %s, want at most %s", name, delivery.Bytes(size), delivery.Bytes(most))
	}
	f, err := v.openFile(name)
	if err != nil {
		return nil, pathless(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(asUTF8(f), most+1))
	switch {
	case err != nil:
		return nil, pathless(err)
	case int64(len(data)) > most:
		return nil, fmt.Errorf("%s: more than %s", name, delivery.Bytes(most))
	case !utf8.Valid(data):
		return nil, delivery.Blockedf("save it as UTF-8", "%s is not in UTF-8", name)
	}
	return data, nil
}

// asUTF8 returns a reader of a text file without its byte order mark. Windows' editors and shells write one, and with
// it also UTF-16, which is turned into UTF-8. Other files are passed on as they are.
func asUTF8(in io.Reader) io.Reader {
	return transform.NewReader(bufio.NewReaderSize(in, 64<<10), unicode.BOMOverride(transform.Nop))
}

// peek returns the first bytes of a file.
func (v *version) peek(name string, n int) []byte {
	f, err := v.openFile(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	head := make([]byte, n)
	n, _ = io.ReadFull(asUTF8(f), head)
	return head[:n]
}

// size returns the width and height of an image in pixels; zeros if it cannot be read. Then checking it says why.
func (v *version) size(name string) (width, height int) {
	f := v.files[name]
	if f.size > maxImage {
		return 0, 0
	}
	if f.header == nil {
		f.loadHeader(v.opener(name))
	}
	return f.header.Width, f.header.Height
}

// sized returns an image with the size that an annotation file says, or with that of the file itself if it says none:
// some tools write 0 x 0.
func (v *version) sized(name, width, height string) sheetImage {
	w, badWidth := strconv.Atoi(strings.TrimSpace(width))
	h, badHeight := strconv.Atoi(strings.TrimSpace(height))
	if badWidth != nil || badHeight != nil || w < 1 || h < 1 {
		w, h = v.size(name)
	}
	return sheetImage{name, w, h}
}

// uploaded matches what Label Studio puts before the name of an uploaded file.
var uploaded = regexp.MustCompile(`^[0-9a-f]{8}-`)

// locate finds the image that an annotation file of another machine names, below one of the folders: the whole path,
// or its end, and last the only file of that name. The result is always a file of the dataset.
func (v *version) locate(name string, dirs ...string) (string, bool) {
	names := []string{name}
	if decoded, err := url.PathUnescape(name); err == nil && decoded != name {
		names = append(names, decoded)
	}
	for _, name := range slices.Clone(names) {
		if base := path.Base(strings.ReplaceAll(name, `\`, "/")); uploaded.MatchString(base) {
			names = append(names, base[len("01234567-"):])
		}
	}
	for _, name := range names {
		if file, ok := v.located(name, dirs); ok {
			return file, true
		}
	}
	return "", false
}

func (v *version) located(name string, dirs []string) (string, bool) {
	name = strings.ReplaceAll(name, `\`, "/")
	if _, file, ok := strings.Cut(name, "?d="); ok { // Label Studio: /data/local-files/?d=FILE
		name = file
	}
	name = lastParts(strings.TrimLeft(path.Clean("/"+name), "/"))
	for rest := name; rest != ""; {
		for _, dir := range dirs {
			if file := path.Join(dir, rest); v.files[file] != nil {
				return file, true
			}
		}
		_, after, more := strings.Cut(rest, "/")
		if rest = after; !more {
			break
		}
	}
	if v.byBase == nil {
		v.byBase = map[string]string{}
		for _, file := range v.names() {
			if base := path.Base(file); isImage(file) {
				if _, twice := v.byBase[base]; twice {
					file = "" // not certain which one is meant
				}
				v.byBase[base] = file
			}
		}
	}
	file := v.byBase[path.Base(name)]
	return file, file != ""
}

// lastParts returns the end of a path, of as many parts as a file's path may have. A path of very many parts, of
// which each end is looked for, would take hours.
func lastParts(name string) string {
	at := len(name)
	for range maxDepth {
		if at = strings.LastIndexByte(name[:at], '/'); at < 0 {
			return name
		}
	}
	return name[at+1:]
}

// parallel calls work for each number below n, on all processors, until there is an error.
func parallel(ctx context.Context, n int, work func(i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	const batch = 16
	g.SetLimit(runtime.GOMAXPROCS(0))
	for first := 0; first < n; first += batch {
		g.Go(func() error {
			for i := first; i < min(first+batch, n); i++ {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := work(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// cocoSplit reads a COCO annotation file. find returns the file of an image.
func (v *version) cocoSplit(name, file, group string, find func(coco.Image) (string, bool)) (*split, error) {
	if size := v.files[file].size; size > maxAnnotations {
		return nil, fmt.Errorf("%s: %d bytes, want at most %d", file, size, maxAnnotations)
	}
	in, err := v.openFile(file)
	if err != nil {
		return nil, pathless(err)
	}
	defer in.Close()
	size := func(im coco.Image) (width, height int) {
		if found, ok := find(im); ok {
			width, height = v.size(found)
		}
		return width, height
	}
	truth, problems, err := coco.Loader{Group: group, Scenes: true, Size: size}.ReadTruthLenient(asUTF8(in))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	s := &split{name: name, annotations: file, truth: truth, problems: problems, images: map[int64]string{},
		otherSize: map[int64]bool{}}
	for _, im := range truth.Images {
		if found, ok := find(im); ok {
			s.images[im.ID] = found
			if width, height := v.size(found); width != im.Width || height != im.Height {
				s.otherSize[im.ID] = true
			}
		} else {
			s.missing = append(s.missing, im)
		}
	}
	return s, nil
}
