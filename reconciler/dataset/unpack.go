package dataset

// This file unpacks archives: zip, tar and tar.gz. They come from outside, so an entry that is no file below the
// dataset is refused by its name, and sizes are bounded before anything is written.

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Packed images hardly shrink. So an archive that grows much more than any dataset does is an attack.
const (
	maxRatio = 200
	anyRatio = 1 << 30 // bytes up to which the ratio does not count, as for masks and annotations
)

// maxDirectory is the largest list of entries at the end of a zip, in bytes. All of it is kept in memory: two million
// entries with usual names take 300 MB.
const maxDirectory = 384 << 20

// A brokenArchive is the error of an archive that is not complete or damaged: another copy may be sound.
type brokenArchive struct{ delivery.Blocked }

func (b brokenArchive) Unwrap() error { return b.Blocked }

func broken(format string, args ...any) error {
	return brokenArchive{delivery.Blockedf("make or download the archive again", format, args...)}
}

// An unpacker unpacks one archive.
type unpacker struct {
	to    *Writer
	below string // the folder in the archive that is the dataset; "" for all of it
	any   int64  // anyRatio
	skip  string // the name of a file that is left out

	size, out int64 // bytes of the archive, and of what was unpacked

	added int
	tops  map[string]bool // names of the first folders, for a message
}

// unpackArchive writes the files of an archive, or those in a folder of it.
func unpackArchive(ctx context.Context, f *os.File, below string, to *Writer) error {
	u := unpacker{to: to, below: below, any: anyRatio}
	return u.unpack(ctx, f)
}

func (u *unpacker) unpack(ctx context.Context, f *os.File) error {
	u.tops = map[string]bool{}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	u.size = size
	head, err := bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 512).Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch kind := archiveKind(head); kind {
	case "zip":
		err = u.zip(ctx, io.NewSectionReader(f, 0, size), size) // a hostile offset is no error of the file
	case "gzip":
		err = u.gzip(ctx, f)
	case "tar":
		err = u.tar(ctx, f)
	case "":
		return broken("it is no zip, tar or tar.gz archive")
	default:
		return delivery.Blockedf("pack the files as zip, tar or tar.gz", "it is a %s archive, which is not read", kind)
	}
	switch {
	case err != nil:
		return err
	case u.added == 0 && u.below != "":
		return delivery.Blockedf("name a folder that it has, or none for all of it",
			"the archive has no file in a folder %s; it has %s", u.below, quoted(slices.Sorted(maps.Keys(u.tops))))
	case u.added == 0:
		return delivery.Blockedf("pack the dataset's files", "the archive has no files")
	}
	return nil
}

// archiveKind returns the kind of an archive by its first bytes: zip, tar and gzip, or what it is else.
func archiveKind(head []byte) string {
	for _, k := range []struct {
		at    int
		magic string
		kind  string
	}{{0, "PK\x03\x04", "zip"}, {0, "PK\x05\x06", "zip"}, {0, "\x1f\x8b", "gzip"}, {257, "ustar", "tar"},
		{0, "\x28\xb5\x2f\xfd", "zstd"}, {0, "BZh", "bzip2"}, {0, "\xfd7zXZ\x00", "xz"},
		{0, "7z\xbc\xaf\x27\x1c", "7z"},
		{0, "Rar!", "rar"}} {
		if len(head) >= k.at+len(k.magic) && string(head[k.at:k.at+len(k.magic)]) == k.magic {
			return k.kind
		}
	}
	if len(head) == 512 { // an old tar has no magic number, but a checksum
		if _, err := tar.NewReader(bytes.NewReader(head)).Next(); err == nil {
			return "tar"
		}
	}
	return ""
}

// add writes an entry, if it is in the folder that is wanted.
func (u *unpacker) add(ctx context.Context, name string, content io.Reader) error {
	if first, _, _ := strings.Cut(name, "/"); len(u.tops) < 100 {
		u.tops[first] = true
	}
	base := path.Base(name)
	if strings.HasPrefix(name, "__MACOSX/") || base == ".DS_Store" || name == u.skip { // macOS adds these for itself
		return nil
	}
	if u.below != "" {
		rest, ok := strings.CutPrefix(name, u.below+"/")
		if !ok {
			return nil
		}
		name = rest
	}
	u.added++
	return u.to.Add(name, entryReader{ctx, name, content, u})
}

// An entryReader reads an entry. Its errors say that the archive is damaged. It counts what all entries have: a sparse
// entry of a tar has more bytes than the archive.
type entryReader struct {
	ctx  context.Context
	name string
	from io.Reader
	of   *unpacker
}

func (r entryReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.from.Read(p)
	if err != nil && err != io.EOF {
		err = damagedEntry(r.name, err)
	}
	if r.of.out += int64(n); r.of.out > r.of.any && r.of.out/maxRatio > r.of.size {
		return n, growsTooMuch()
	}
	return n, err
}

func growsTooMuch() error {
	return delivery.Blockedf("pack it again, and look at what it has", "the archive unpacks to more than %d times its "+
		"size", maxRatio)
}

// damagedEntry is the error of an entry that cannot be read.
func damagedEntry(name string, err error) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok { // of the archive's file
		return err
	}
	if _, ok := errors.AsType[delivery.Blocked](err); ok {
		return err
	}
	return broken("entry %s of the archive is damaged or incomplete: %s", shownCut(name), err)
}

// checkName checks the name of a file or folder in the archive. It returns it without ./ and a slash at its end; "." is
// the folder of the archive itself.
func checkName(name string) (string, error) {
	clean := strings.TrimSuffix(name, "/")
	for strings.HasPrefix(clean, "./") {
		clean = clean[2:]
	}
	if clean == "." {
		return clean, nil
	}
	check := Writer{folded: map[string]string{}}
	if err := check.name(clean); err != nil {
		return "", inEntry(err)
	}
	return clean, nil
}

// inEntry adds to an error that it is one of an archive's entry.
func inEntry(err error) error {
	if b, ok := errors.AsType[delivery.Blocked](err); ok {
		b.What = "an entry of the archive is refused: " + b.What
		return b
	}
	return err
}

func refuseEntry(name, what, do string) error {
	return delivery.Blockedf(do, "entry %s of the archive %s", shownCut(name), what)
}

func refuseType(name, kind string) error {
	return refuseEntry(name, "is "+kind, "pack the files themselves, without links and devices")
}

func (u *unpacker) zip(ctx context.Context, f io.ReaderAt, size int64) error {
	list := &limitedReaderAt{f, maxDirectory}
	z, err := zip.NewReader(list, size)
	list.left = math.MaxInt64 // of the entries, which are checked below
	if err != nil {
		if _, ok := errors.AsType[*fs.PathError](err); ok {
			return err
		}
		if _, ok := errors.AsType[delivery.Blocked](err); ok {
			return err
		}
		return broken("it is no complete zip archive: %s", err)
	}
	if len(z.File) > maxFiles {
		return delivery.Blockedf("split the dataset", "the archive has more than %d entries", maxFiles)
	}
	var total uint64
	type span struct {
		from, to int64
		name     string
	}
	var spans []span
	for _, e := range z.File {
		if err := checkZip(e); err != nil {
			return err
		}
		if total += e.UncompressedSize64; total > uint64(max(u.to.bytes, 0)) || e.UncompressedSize64 > 1<<62 {
			return tooLarge()
		}
		at, err := e.DataOffset()
		if err != nil {
			return damagedEntry(e.Name, err)
		}
		if e.CompressedSize64 > uint64(size) || at > size-int64(e.CompressedSize64) {
			return damagedEntry(e.Name, io.ErrUnexpectedEOF)
		}
		if e.CompressedSize64 > 0 {
			spans = append(spans, span{at, at + int64(e.CompressedSize64), e.Name})
		}
	}
	if int64(total) > u.any && int64(total)/maxRatio > size {
		return delivery.Blockedf("pack it again, and look at what it has", "the archive of %d MB would unpack to %d "+
			"MB, more than %d times its size", size/1e6, total/1e6, maxRatio)
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	for i := 1; i < len(spans); i++ {
		if spans[i].from < spans[i-1].to {
			return refuseEntry(spans[i].name, "has the bytes of "+shownCut(spans[i-1].name),
				"pack the files again; no program writes such archives")
		}
	}
	for i, e := range z.File {
		name, err := checkName(e.Name)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(e.Name, "/") {
			if err := u.zipFile(ctx, e, name); err != nil {
				return err
			}
		}
		u.to.tell(Unpacking, i+1, len(z.File))
	}
	return nil
}

// A limitedReaderAt reads at most a number of bytes.
type limitedReaderAt struct {
	from io.ReaderAt
	left int64
}

func (l *limitedReaderAt) ReadAt(p []byte, at int64) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, delivery.Blockedf("split the dataset, or pack it without comments and extra fields",
			"the list of the archive's entries has more than %d MB", maxDirectory/1_000_000)
	}
	return l.from.ReadAt(p, at)
}

func (u *unpacker) zipFile(ctx context.Context, e *zip.File, name string) error {
	in, err := e.Open()
	if err != nil {
		return damagedEntry(name, err)
	}
	defer in.Close()
	return u.add(ctx, name, in)
}

// checkZip refuses entries that are not read.
func checkZip(e *zip.File) error {
	if _, err := checkName(e.Name); err != nil {
		return err
	}
	const encrypted, strong = 1, 1 << 6
	switch mode := e.Mode(); {
	case e.Flags&(encrypted|strong) != 0:
		return refuseEntry(e.Name, "is encrypted", "pack the files without a password")
	case mode&fs.ModeSymlink != 0:
		return refuseType(e.Name, "a symbolic link")
	case mode.IsDir() || strings.HasSuffix(e.Name, "/"):
		if e.UncompressedSize64 > 0 {
			return refuseEntry(e.Name, "is a folder with bytes of its own", "pack the files again")
		}
	case !mode.IsRegular():
		return refuseType(e.Name, "no file but a device or a pipe")
	case e.Method != zip.Store && e.Method != zip.Deflate:
		return refuseEntry(e.Name, fmt.Sprintf("is compressed by method %d", e.Method), "pack the files with the "+
			"usual method, deflate")
	}
	return nil
}

// A growth reads what is unpacked, and refuses what grows too much.
type growth struct {
	from    io.Reader
	in, out int64
	any     int64
}

func (g *growth) Read(p []byte) (int, error) {
	n, err := g.from.Read(p)
	if g.out += int64(n); g.out > g.any && g.out/maxRatio > g.in {
		return n, growsTooMuch()
	}
	return n, err
}

func (u *unpacker) gzip(ctx context.Context, f *os.File) error {
	grown := growth{any: u.any}
	z, err := gzip.NewReader(readerFunc(func(p []byte) (int, error) {
		n, err := f.Read(p)
		grown.in += int64(n)
		return n, err
	}))
	if err != nil {
		return damagedEntry("", err)
	}
	grown.from = z
	in := bufio.NewReaderSize(&grown, 64<<10)
	if head, err := in.Peek(512); err != nil && !errors.Is(err, io.EOF) || archiveKind(head) != "tar" {
		if err != nil && !errors.Is(err, io.EOF) {
			return broken("it is no complete tar.gz archive: %s", err)
		}
		return delivery.Blockedf("pack the files as zip, tar or tar.gz", "it is a gzip file of something that is no "+
			"tar archive")
	}
	if err := u.tar(ctx, in); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // to its checksum
		if _, ok := errors.AsType[delivery.Blocked](err); ok {
			return err
		}
		return broken("it is no complete tar.gz archive: %s", err)
	}
	return nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (u *unpacker) tar(ctx context.Context, f io.Reader) error {
	end := lastBlock{from: f}
	t := tar.NewReader(&end)
	last := ""
	for n := 1; ; n++ {
		h, err := t.Next()
		if err == io.EOF {
			if !end.zero() {
				return broken("the archive is incomplete: it ends without its mark, after entry %s", shownCut(last))
			}
			return nil
		}
		if err != nil {
			if _, ok := errors.AsType[delivery.Blocked](err); ok {
				return err
			}
			if _, ok := errors.AsType[*fs.PathError](err); ok {
				return err
			}
			return broken("the archive is damaged or incomplete after entry %s: %s", shownCut(last), err)
		}
		if n > 2*maxFiles { // folders count too
			return delivery.Blockedf("split the dataset", "the archive has more than %d entries", 2*maxFiles)
		}
		last = h.Name
		if err := u.tarEntry(ctx, h, t); err != nil {
			return err
		}
		u.to.tell(Unpacking, n, 0)
	}
}

func (u *unpacker) tarEntry(ctx context.Context, h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeSymlink:
		return refuseType(h.Name, "a symbolic link")
	case tar.TypeLink:
		return refuseEntry(h.Name, "is a link to another entry", "pack the files themselves: tar --hard-dereference")
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeDir:
	default:
		return refuseType(h.Name, "no file but a device or a pipe")
	}
	name, err := checkName(h.Name)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir || name == "." {
		return nil
	}
	if h.Size > u.to.bytes {
		return tooLarge()
	}
	return u.add(ctx, name, content)
}

// A lastBlock remembers the last bytes that were read, since a tar archive ends with zeros.
type lastBlock struct {
	from io.Reader
	last []byte
}

func (l *lastBlock) Read(p []byte) (int, error) {
	n, err := l.from.Read(p)
	l.last = append(l.last, p[:n]...)
	if extra := len(l.last) - 512; extra > 0 {
		l.last = append(l.last[:0], l.last[extra:]...)
	}
	return n, err
}

func (l *lastBlock) zero() bool {
	return len(l.last) == 512 && len(bytes.Trim(l.last, "\x00")) == 0
}
