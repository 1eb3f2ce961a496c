package dataset

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A packer makes an archive of entries, with a change to each header.
type packer func(t testing.TB, entries []entry) []byte

// An entry of an archive that a test makes.
type entry struct {
	name, text string
	mode       fs.FileMode // of the type; 0 is a file
	link       string      // the target of a link
	zip        func(*zip.FileHeader)
	tar        func(*tar.Header)
}

// entries are those of files, sorted.
func entries(files map[string]string) (list []entry) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, entry{name: name, text: files[name]})
	}
	return list
}

func packZip(t testing.TB, list []entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range list {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(e.mode | 0o644)
		if e.mode.IsDir() {
			h.Method = zip.Store
		}
		if e.zip != nil {
			e.zip(h)
		}
		f, err := w.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(f, e.link+e.text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packTar(t testing.TB, list []entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range list {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.text)), Typeflag: tar.TypeReg, Linkname: e.link}
		switch {
		case e.mode&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
		case e.mode&fs.ModeDir != 0:
			h.Typeflag = tar.TypeDir
		case e.mode&fs.ModeCharDevice != 0:
			h.Typeflag = tar.TypeChar
		case e.mode&fs.ModeNamedPipe != 0:
			h.Typeflag = tar.TypeFifo
		}
		if e.tar != nil {
			e.tar(h)
		}
		err := w.WriteHeader(h)
		if err == nil {
			_, err = io.WriteString(w, e.text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packTarGz(t testing.TB, list []entry) []byte {
	t.Helper()
	return gzipped(t, packTar(t, list))
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(data)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// hostileEntries are entries that are refused in every kind of archive.
func hostileEntries() map[string]entry {
	return map[string]entry{
		"a path that leaves":    {name: "../out"},
		"a path inside out":     {name: "train/../../out"},
		"an absolute path":      {name: "/tmp/out"},
		"a folder outside":      {name: "../../out/", mode: fs.ModeDir},
		"a Windows path":        {name: `train\b.png`},
		"a symbolic link":       {name: "train/link.png", mode: fs.ModeSymlink, link: "/etc/passwd"},
		"a link inside":         {name: "train/link.png", mode: fs.ModeSymlink, link: "a.png"},
		"a device":              {name: "train/null", mode: fs.ModeDevice | fs.ModeCharDevice},
		"a pipe":                {name: "train/pipe", mode: fs.ModeNamedPipe},
		"one file twice":        {name: "train/a.png"},
		"one file twice, as ./": {name: "./train/a.png"},
		"names by case alone":   {name: "train/A.PNG"},
		"a file as a folder":    {name: "train/a.png/b.png"},
		"too many folders":      {name: strings.Repeat("a/", 40) + "b.png"},
		"too much":              {name: "train/b.png", text: strings.Repeat("a", 2<<20)},
	}
}

func archiveKit(pack packer) func(t *testing.T) sourceKit {
	return func(t *testing.T) sourceKit {
		root := t.TempDir()
		write := func(t *testing.T, data []byte) (string, string) {
			if err := os.WriteFile(filepath.Join(root, "set.zip"), data, 0o644); err != nil {
				t.Fatal(err)
			}
			return root, "set.zip"
		}
		kit := sourceKit{source: Archive{}, hostile: map[string]func(*testing.T) (string, string){
			"a relative location": func(*testing.T) (string, string) { return "data", "" },
			"a folder":            func(*testing.T) (string, string) { return root, "" },
			"what is no archive":  func(t *testing.T) (string, string) { return write(t, []byte("hello")) },
			"an empty file":       func(t *testing.T) (string, string) { return write(t, nil) },
			"an empty archive":    func(t *testing.T) (string, string) { return write(t, pack(t, nil)) },
			"a link to an archive": func(t *testing.T) (string, string) {
				if err := os.Symlink("/etc/passwd", filepath.Join(root, "set.zip")); err != nil {
					t.Fatal(err)
				}
				return root, "set.zip"
			},
			"half an archive": func(t *testing.T) (string, string) {
				data := pack(t, []entry{{name: "train/a.png", text: noise(10_000)},
					{name: "train/b.png", text: noise(9000)}})
				return write(t, data[:len(data)/2])
			},
		}, put: func(t *testing.T, files map[string]string) (string, string) {
			return write(t, pack(t, append([]entry{{name: "train/", mode: fs.ModeDir}}, entries(files)...)))
		}}
		for what, e := range hostileEntries() {
			kit.hostile[what] = func(t *testing.T) (string, string) {
				return write(t, pack(t, []entry{{name: "train/a.png", text: "a"}, e}))
			}
		}
		return kit
	}
}

// noise is text that cannot be compressed, always the same.
func noise(n int) string {
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return string(data)
}

// unpacked unpacks an archive and returns its files.
func unpacked(t testing.TB, data []byte, below string, any int64) (map[string]string, error) {
	t.Helper()
	dir := t.TempDir()
	w, err := newWriter(dir, filepath.Join(dir, blobsFolder), 64<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.root.Close()
	f, err := w.Spool()
	if err == nil {
		_, err = f.Write(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	u := unpacker{to: w, below: below, any: any}
	err = u.unpack(t.Context(), f)
	files := map[string]string{}
	for name := range w.list.Files {
		text, err := os.ReadFile(filepath.Join(dir, filesFolder, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	return files, err
}

// What is refused is said with the entry's name and with what to do.
func TestRefusedArchives(t *testing.T) {
	ok := entry{name: "train/a.png", text: noise(1000)}
	good := packZip(t, []entry{ok})
	damaged := bytes.Clone(good)
	damaged[100] ^= 1
	lying := packZip(t, []entry{{name: "train/a.png", text: strings.Repeat("a", 5000)}})
	central := bytes.LastIndex(lying, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(lying[central+24:], 10) // its size
	noTrailer := packTar(t, []entry{ok, {name: "train/b.png", text: noise(512)}})
	noTrailer = noTrailer[:len(noTrailer)-1024]
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"encrypted": {packZip(t, []entry{ok, {name: "train/b.png", zip: func(h *zip.FileHeader) { h.Flags |= 1 }}}),
			`entry train/b.png of the archive is encrypted; pack the files without a password`},
		"another method": {bytes.ReplaceAll(packZip(t, []entry{{name: "b.png", text: "b", zip: func(h *zip.FileHeader) {
			h.Method = zip.Store
		}}}), []byte("PK\x01\x02\x14\x03\x14\x00\x08\x00\x00\x00"),
			[]byte("PK\x01\x02\x14\x03\x14\x00\x08\x00\x0c\x00")),
			`entry b.png of the archive is compressed by method 12; pack the files with the usual method, deflate`},
		"damaged":             {damaged, `entry train/a.png of the archive is damaged or incomplete: `},
		"larger than it says": {lying, `entry train/a.png of the archive is damaged or incomplete: `},
		"cut":                 {good[:len(good)-30], `it is no complete zip archive: `},
		"names of Windows": {packZip(t, []entry{{name: `train\a.png`}}),
			`an entry of the archive is refused: the name "train\\a.png" has a backslash; write / between folders; `},
		"a Git repository": {packZip(t, []entry{{name: "train/.GIT/config"}}),
			`an entry of the archive is refused: train/.GIT/config is of a Git repository, and no file of a dataset; `},
		"a zero in a name": {packZip(t, []entry{{name: "a\x00.png"}}),
			`an entry of the archive is refused: "a\x00.png" is not a path below the dataset; rename it`},
		"names in Latin-1": {packZip(t, []entry{{name: "caf\xe9.png"}}),
			`an entry of the archive is refused: the name "caf\xe9.png" is not in UTF-8; write its name in UTF-8; `},
		"a bomb": {packZip(t, []entry{{name: "a.bmp", text: strings.Repeat("\x00", 10<<20)}}),
			`the archive of 0 MB would unpack to 10 MB, more than 200 times its size; `},
		"a sparse bomb": {sparse(t, 20<<20), `the archive unpacks to more than 200 times its size; pack it again, `},
		"a bomb of tar.gz": {packTarGz(t, []entry{{name: "a.bmp", text: strings.Repeat("\x00", 10<<20)}}),
			`the archive unpacks to more than 200 times its size; `},
		"entries that overlap": {overlapping(t),
			`entry b.png of the archive has the bytes of a.png; `},
		"tar without its end": {noTrailer,
			`the archive is incomplete: it ends without its mark, after entry train/b.png; make or download `},
		"cut tar": {noTrailer[:len(noTrailer)-300],
			`entry train/b.png of the archive is damaged or incomplete: unexpected EOF; make or download `},
		"cut tar.gz": {func() []byte { d := packTarGz(t, []entry{ok}); return d[:len(d)-4] }(),
			`it is no complete tar.gz archive: unexpected EOF; make or download the archive again`},
		"gzip of a text": {gzipped(t, []byte("hello")), `it is a gzip file of something that is no tar archive; `},
		"hard link": {packTar(t, []entry{ok, {name: "b.png", link: "train/a.png", tar: func(h *tar.Header) {
			h.Typeflag = tar.TypeLink
		}}}), `entry b.png of the archive is a link to another entry; pack the files themselves: tar --hard`},
		"zstd":   {[]byte("\x28\xb5\x2f\xfdxxxx"), `it is a zstd archive, which is not read; pack the files as `},
		"rar":    {[]byte("Rar!\x1a\x07"), `it is a rar archive, which is not read; pack the files as `},
		"a page": {[]byte("<html>"), `it is no zip, tar or tar.gz archive; make or download the archive again`},
	} {
		_, err := unpacked(t, c.data, "", 1<<20)
		if !isBlocked(err) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s…", name, err, c.want)
		}
	}
}

// sparse is a tar of one file that is a hole of n bytes.
func sparse(t *testing.T, n int) []byte {
	data := packTar(t, []entry{{name: "a.bmp", tar: func(h *tar.Header) {
		h.PAXRecords = map[string]string{"XNU.sparse.size": fmt.Sprint(n), "XNU.sparse.map": fmt.Sprintf("%d,0", n),
			"XNU.sparse.numblocks": "1"}
	}}})
	return bytes.ReplaceAll(data, []byte("XNU.sparse"), []byte("GNU.sparse"))
}

// A fetch leaves some of the disk to other programs, and what it keeps in memory of names has a bound.
func TestBoundsOfFetches(t *testing.T) {
	add := func(change func(*Writer), names ...string) (err error) {
		w, err := newWriter(t.TempDir(), t.TempDir(), 1<<20, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.root.Close()
		change(w)
		for _, name := range names {
			if err := w.Add(name, strings.NewReader("a")); err != nil {
				return err
			}
		}
		return nil
	}
	full := add(func(w *Writer) { w.keep = 1 << 62 }, "train/a.png")
	if !isBlocked(full) || !strings.Contains(full.Error(), " MB must stay free; free some, ") {
		t.Errorf("a full disk: %v", full)
	}
	long := add(func(w *Writer) { w.names = maxNames - 20 }, "train/a.png", "train/b.png")
	if !isBlocked(long) || !strings.Contains(long.Error(), "give its files shorter names") {
		t.Errorf("long names: %v", long)
	}
	if err := add(func(*Writer) {}, "train/a.png", "train/b.png"); err != nil {
		t.Error(err)
	}
	list := limitedReaderAt{strings.NewReader(noise(100)), 50}
	if _, err := list.ReadAt(make([]byte, 40), 0); err != nil {
		t.Error(err)
	}
	if _, err := list.ReadAt(make([]byte, 40), 40); !isBlocked(err) {
		t.Errorf("a long list of entries: %v", err)
	}
}

// overlapping is a zip of which two entries have the same bytes, as bombs have.
func overlapping(t *testing.T) []byte {
	store := func(h *zip.FileHeader) { h.Method = zip.Store }
	data := packZip(t, []entry{{name: "a.png", text: noise(100), zip: store}, {name: "b.png", text: noise(100),
		zip: store}})
	central := bytes.LastIndex(data, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(data[central+42:], 0) // where its local header is
	return data
}

// What people's programs write is read.
func TestReadableArchives(t *testing.T) {
	want := map[string]string{"train/a.png": "a", "valid/b c.png": "b"}
	list := entries(want)
	var many []entry
	manyFiles := map[string]string{}
	for i := range 66_000 { // more entries than a zip without zip64 may have
		name := fmt.Sprintf("train/%05d.txt", i)
		many, manyFiles[name] = append(many, entry{name: name}), ""
	}
	dotted := []entry{{name: "./", mode: fs.ModeDir}, {name: "./train/a.png", text: "a"},
		{name: "./valid/b c.png", text: "b"}}
	for name, c := range map[string]struct {
		data  []byte
		below string
		want  map[string]string
	}{
		"zip":   {packZip(t, list), "", want},
		"zip64": {packZip(t, many), "", manyFiles},
		"stored zip": {packZip(t, []entry{{name: "a", text: "a", zip: func(h *zip.FileHeader) {
			h.Method = zip.Store
		}}}), "", map[string]string{"a": "a"}},
		"zip with something before it": {append([]byte("PK\x03\x04 not yet"), packZip(t, list)...), "", want},
		"zip of macOS": {packZip(t, append(list, entry{name: "__MACOSX/train/._a.png", text: "x"},
			entry{name: "train/.DS_Store", text: "x"})), "", want},
		"a folder of a zip": {packZip(t, []entry{{name: "pallets/train/a.png", text: "a"}, {name: "notes.txt"},
			{name: "pallets/valid/b c.png", text: "b"}}), "pallets", want},
		"names with accents": {packZip(t, []entry{{name: "é/日本.png", text: "a"}}), "",
			map[string]string{"é/日本.png": "a"}},
		"tar with ./": {packTar(t, dotted), "", want},
		"tar.gz":      {packTarGz(t, list), "", want},
		"tar with long names": {packTar(t, []entry{{name: strings.Repeat("long/", 30) + "é.png", text: "a"}}), "",
			map[string]string{strings.Repeat("long/", 30) + "é.png": "a"}},
		"tar of git": {packTar(t, append([]entry{{name: "pax_global_header", tar: func(h *tar.Header) {
			*h = tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: h.Name,
				PAXRecords: map[string]string{"comment": "abc"}}
		}}}, list...)), "", want},
	} {
		got, err := unpacked(t, c.data, c.below, 1<<20)
		if err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s: got %d files, %v, want %d", name, len(got), err, len(c.want))
		}
	}
	if _, err := unpacked(t, packZip(t, list), "nowhere", 1<<20); err == nil || !strings.Contains(err.Error(),
		`the archive has no file in a folder nowhere; it has "train", "valid"; name a folder that it has`) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// Whatever an archive is, nothing is written outside the folder, and what cannot be read is said to a person.
func FuzzUnpack(f *testing.F) {
	for _, e := range hostileEntries() {
		if len(e.text) > 1000 || strings.Contains(e.name, "\x00") {
			continue
		}
		f.Add(packZip(f, []entry{{name: "train/a.png", text: "a"}, e}))
		f.Add(packTar(f, []entry{{name: "train/a.png", text: "a"}, e}))
	}
	f.Add(packTarGz(f, []entry{{name: "train/a.png", text: "a"}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		w, err := newWriter(dir, filepath.Join(dir, blobsFolder), 1<<20, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.root.Close()
		archive := filepath.Join(parent, "archive")
		if err := os.WriteFile(archive, data, 0o600); err != nil {
			t.Fatal(err)
		}
		in, err := os.Open(archive)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		u := unpacker{to: w, any: 1 << 20}
		if err := u.unpack(t.Context(), in); err != nil && !isBlocked(err) {
			t.Errorf("%v, want Blocked", err)
		} else if err != nil && strings.Contains(err.Error(), parent) {
			t.Errorf("the error has the server's path: %v", err)
		}
		if delivery.Bytes(diskUse(t, dir)) > 1<<20+1 {
			t.Error("more was written than the limit")
		}
		for _, path := range filesBelow(t, parent) {
			if path != archive && !strings.HasPrefix(path, dir+"/files/") {
				t.Errorf("it wrote %s", path)
			}
			if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%s is no file", path)
			}
		}
	})
}
