package dataset

// This file reads the files of a dataset: their digests and the headers of images in one pass, and then the pixels.
// What it found can be remembered, so that a folder that did not change is not read again.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A Phase is a part of a check that takes long.
type Phase string

// The phases, in their order.
const (
	Asking       Phase = "no answer yet, try" // to ask the source
	Generating   Phase = "generating"         // in percent; the source makes the version
	Exporting    Phase = "exporting"          // in percent; the source packs the version
	Downloading  Phase = "downloading"        // in MB
	Unpacking    Phase = "unpacking"          // files of an archive
	Copying      Phase = "copying files"
	ReadFiles    Phase = "reading files"   // digests and headers
	DecodeImages Phase = "decoding images" // pixels: damage and looks
)

// Text says how far a phase is.
func (p Phase) Text(done, total int) string {
	switch {
	case p == Asking:
		return fmt.Sprintf("%s %d of %d", p, done, total)
	case p == Generating || p == Exporting:
		return fmt.Sprintf("%s %d %%", p, done)
	case p == Downloading && total > 0:
		return fmt.Sprintf("%s %d of %d MB", p, done, total)
	case p == Downloading:
		return fmt.Sprintf("%s, %d MB so far", p, done)
	case total > 0:
		return fmt.Sprintf("%s: %d of %d", p, done, total)
	}
	return fmt.Sprintf("%s: %d", p, done)
}

// A Progress is told how far a phase is. The total is 0 if it is not known.
type Progress func(phase Phase, done, total int)

// A file of a dataset.
type file struct {
	size    int64
	sum     string // hex SHA-256, once read
	header  *imageHeader
	picture *decodedImage
	stamp   stamp
}

// A stamp changes whenever a file does.
type stamp struct {
	Size, Modified, Changed int64 // times in nanoseconds
	Inode, Device           uint64
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{Size: info.Size(), Modified: info.ModTime().UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.Changed, s.Inode, s.Device = sys.Ctim.Nano(), sys.Ino, uint64(sys.Dev)
	}
	return s
}

// An imageHeader has what the first bytes of an image say.
type imageHeader struct {
	Code, Text    string // of a finding, if it is no image that can be used
	Format        string
	Width, Height int
	Orientation   int
	Memory        int64 // that decoding needs
}

// A decodedImage is what decoding an image yields: code and text of a finding, or its looks.
type decodedImage struct {
	Code, Text string
	Hash       imageHash
	Look       *look // nil if it was not wanted
}

// wholeFile is the size up to which a file is read at once.
const wholeFile = 4 << 20

// hash computes the files' digests, and reads the headers of images, in parallel. progress may be nil.
func (v *version) hash(ctx context.Context, names []string, progress Progress) error {
	var todo []string
	for _, name := range names {
		if f := v.files[name]; f.sum == "" && f.size <= largest(name) {
			todo = append(todo, name)
		}
	}
	v.fresh = v.fresh || len(todo) > 0
	const batch = 32
	var done atomic.Int64
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0)) // more than processors, since reading may wait for the disk
	buffers := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	for first := 0; first < len(todo); first += batch {
		g.Go(func() error {
			buffer := buffers.Get().(*bytes.Buffer)
			defer buffers.Put(buffer)
			for _, name := range todo[first:min(first+batch, len(todo))] {
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := v.load(name, buffer); err != nil {
					return fmt.Errorf("dataset %s: %w", v.ref, pathless(err))
				}
			}
			if n := done.Add(int64(min(batch, len(todo)-first))); progress != nil {
				mu.Lock()
				defer mu.Unlock()
				progress(ReadFiles, int(n), len(todo))
			}
			return nil
		})
	}
	return g.Wait()
}

// load reads a file once: its digest, and the header of an image.
func (v *version) load(name string, buffer *bytes.Buffer) error {
	if err := v.loadFile(name, buffer); err != nil {
		return err
	}
	if v.fetched != nil && v.files[name].sum != v.fetched.Files[name].SHA256 {
		return v.damaged(name)
	}
	return nil
}

func (v *version) loadFile(name string, buffer *bytes.Buffer) error {
	f, isImage := v.files[name], isImage(name)
	in, err := v.openFile(name)
	if err != nil {
		return err
	}
	defer in.Close()
	if f.size <= wholeFile {
		buffer.Reset()
		if _, err := buffer.ReadFrom(io.LimitReader(in, wholeFile+1)); err != nil {
			return err
		}
		if data := buffer.Bytes(); len(data) <= wholeFile {
			sum := sha256.Sum256(data)
			if isImage {
				h := readHeader(bytes.NewReader(data))
				f.header = &h
			}
			f.sum = hex.EncodeToString(sum[:])
			return nil
		}
		if _, err := in.Seek(0, io.SeekStart); err != nil { // it has grown
			return err
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(in, maxAnnotations)); err != nil { // it may be growing
		return err
	}
	if isImage {
		h := readHeader(in)
		f.header = &h
	}
	f.sum = hex.EncodeToString(h.Sum(nil))
	return nil
}

// loadHeader reads the header of an image.
func (f *file) loadHeader(open opener) {
	h := imageHeader{Code: "unreadable-image"}
	in, err := open()
	if err == nil {
		defer in.Close()
		h = readHeader(in)
	} else {
		h.Text = pathless(err).Error()
	}
	f.header = &h
}

// openFile opens a file of the dataset. A link that leaves the dataset is refused in each part of its path, since one
// may have been put there after the dataset was listed.
func (v *version) openFile(name string) (*os.File, error) {
	return regular(v.root.OpenFile(filepath.FromSlash(name), readOnly, 0))
}

// An opener opens one file of a dataset.
type opener func() (*os.File, error)

func (v *version) opener(name string) opener {
	return func() (*os.File, error) { return v.openFile(name) }
}

// openFile opens a file. A link or a pipe that was put there after it was listed is refused.
func openFile(path string) (*os.File, error) { return regular(os.OpenFile(path, readOnly, 0)) }

const readOnly = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// regular returns a file that was opened, if it is a regular one.
func regular(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: errors.New("not a file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readHeader reads what the first bytes of an image say.
func readHeader(r io.ReaderAt) (h imageHeader) {
	bad := func(code, format string, args ...any) imageHeader {
		h.Code, h.Text = code, fmt.Sprintf(format, args...)
		return h
	}
	start := func() io.Reader { return io.NewSectionReader(r, 0, math.MaxInt64) }
	config, format, err := image.DecodeConfig(start())
	if err == nil && format != "jpeg" && format != "png" { // another package may have registered more
		err = image.ErrFormat
	}
	if err != nil {
		if pointer(r) {
			return bad("unreadable-image", "is a Git LFS pointer, not the image; run git lfs pull in the dataset's "+
				"folder")
		}
		return bad("unreadable-image", "%s", unreadable(r, err))
	}
	if config.Width < 1 || config.Height < 1 || config.Width > math.MaxInt/config.Height ||
		config.Width*config.Height > maxPixels {
		return bad("too-large", "%d x %d pixels, want at most %d in all", config.Width, config.Height, maxPixels)
	}
	h.Format, h.Width, h.Height = format, config.Width, config.Height
	h.Orientation = orientation(format, start())
	if grey16(format, start()) {
		return bad("16-bit-image", "is greyscale with 16 bits a pixel, which trainers read as white and the "+
			"detector does not; save it with 8 bits")
	}
	if h.Memory = decoded(config, format, start()); h.Memory > maxMemory {
		return bad("too-large", "%d x %d pixels take %s of memory when they are decoded, want at most %s; "+
			"save it with 8 bits a channel, not progressive or interlaced, or smaller",
			config.Width, config.Height, delivery.Bytes(h.Memory), delivery.Bytes(maxMemory))
	}
	return h
}

// saveAs is what to do about an image that cannot be read.
const saveAs = "save it as an RGB JPEG or PNG"

// unreadable says what a file is that is no image that can be read.
func unreadable(r io.ReaderAt, err error) string {
	head := make([]byte, 16)
	n, _ := r.ReadAt(head, 0)
	if n == 0 {
		return "no JPEG or PNG: the file is empty"
	}
	for _, kind := range []struct {
		at          int
		begin, name string
	}{{0, "\xff\x0a", "JPEG XL"}, {4, "JXL ", "JPEG XL"}, {8, "WEBP", "WebP"}, {8, "avif", "AVIF"}, {8, "avis", "AVIF"},
		{4, "ftyp", "HEIC"}, {0, "GIF8", "GIF"}, {0, "BM", "BMP"}, {0, "II*\x00", "TIFF"}, {0, "MM\x00*", "TIFF"},
		{4, "jP  ", "JPEG 2000"}, {0, "\xff\x4f\xff\x51", "JPEG 2000"}, {0, "%PDF", "PDF"}} {
		if bytes.HasPrefix(head[kind.at:], []byte(kind.begin)) {
			return fmt.Sprintf("no JPEG or PNG but %s, whatever its name says; %s", kind.name, saveAs)
		}
	}
	if unsupported(err) {
		return ofOtherKind(err)
	}
	return fmt.Sprintf("no JPEG or PNG: %v", err)
}

// unsupported reports whether a decoder knows a file and does not support its kind.
func unsupported(err error) bool {
	_, photo := errors.AsType[jpeg.UnsupportedError](err)
	_, drawing := errors.AsType[png.UnsupportedError](err)
	return photo || drawing
}

// ofOtherKind says that an image is of a kind that the decoder does not know.
func ofOtherKind(err error) string {
	return fmt.Sprintf("is a JPEG or PNG of a kind that the detector does not read (%v); %s", err, saveAs)
}

// otherSize says that the image is not of the size that its annotations say; "" if it is.
func (h *imageHeader) otherSize(im coco.Image) string {
	if im.Width == h.Width && im.Height == h.Height {
		return ""
	}
	text := fmt.Sprintf("the file has %d x %d pixels, its annotations say %d x %d", h.Width, h.Height, im.Width,
		im.Height)
	if turnsSide(h.Orientation) && im.Width == h.Height && im.Height == h.Width {
		text += fmt.Sprintf(", which is what viewers show: they turn it by its EXIF orientation %d, training and "+
			"detection do not; save the picture upright", h.Orientation)
	}
	return text
}

// pointer reports whether a file is a Git LFS pointer.
func pointer(f io.ReaderAt) bool {
	const start = "version https://git-lfs.github.com/spec/"
	head := make([]byte, len(start))
	n, err := f.ReadAt(head, 0)
	return err == nil && string(head[:n]) == start
}

// decode decodes an image of which the header was read; with its look, if that is wanted. Its error is the context's.
// free is memory that it shares with others.
func (h *imageHeader) decode(ctx context.Context, open opener, looks bool, free *semaphore.Weighted) (out decodedImage,
	err error) {
	if err := ctx.Err(); err != nil {
		return out, err
	}
	f, err := open()
	if err != nil {
		out.Code, out.Text = "unreadable-image", pathless(err).Error()
		return out, nil
	}
	defer f.Close()
	err = spend(ctx, free, h.Memory, func() {
		picture, _, err := image.Decode(io.LimitReader(f, maxImage))
		switch {
		case unsupported(err):
			out.Code, out.Text = "unreadable-image", ofOtherKind(err)
			return
		case err != nil:
			out.Code, out.Text = "truncated-image", fmt.Sprintf("damaged or truncated: %v; "+
				"put a whole copy in its place, or remove it with its labels", err)
			return
		}
		if out.Hash = hashImage(picture); looks {
			out.Look = lookOf(picture)
		}
	})
	return out, err
}
