package terraform

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
)

// An upload brings the inputs of a run into a bucket. boot.sh says which there are. Folders are sent as parts of one
// tar file, since a dataset has many small files and an environment is larger than an object may be.
type upload struct {
	objects Objects
	at      string // the prefix
	dir     string // a folder for parts on their way, and for what was sent before
	note    func(text string) error

	sums  map[string]string // SHA-256 of all inputs, by name
	sent  map[string]string // of those that were sent, also by earlier attempts
	there map[string]int64  // sizes of the objects that are there
	bytes int64
}

const (
	partSize = 256 << 20 // of a tar file
	sentFile = "sent.json"
	sumsFile = "SHA256SUMS"
)

// inputs uploads all inputs whose content is not there yet, and returns the digest of their list. home is AOB's folder
// on the instance.
func (u *upload) inputs(ctx context.Context, req trainer.Request, home string, environment bool) (string, error) {
	if err := os.MkdirAll(u.dir, 0o700); err != nil {
		return "", err
	}
	u.sums, u.sent, u.there = map[string]string{}, map[string]string{}, map[string]int64{}
	// A list that cannot be read only means that everything is sent again.
	_ = durable.ReadJSON(filepath.Join(u.dir, sentFile), &u.sent)
	if err := u.objects.List(ctx, u.at, func(key string, size int64, _ string) error {
		u.there[strings.TrimPrefix(key, u.at)] = size
		return nil
	}); err != nil {
		return "", err
	}
	data := filepath.Join(home, "data")
	run, err := json.Marshal(req.RunJSON(place(req, home)))
	if err == nil {
		err = u.bytesOf(ctx, runFile, run)
	}
	if err != nil {
		return "", err
	}
	if err := u.files(ctx, "trainer", filepath.Dir(req.Script)); err != nil {
		return "", err
	}
	var entries []entry
	for i, from := range req.Inputs {
		entries = append(entries, entry{from, strings.TrimPrefix(inputAt(data, i, from), data+"/")})
	}
	if err := u.tar(ctx, "data.tar", entries); err != nil {
		return "", err
	}
	if environment {
		root, err := environmentOf(req.Python)
		if err != nil {
			return "", err
		}
		if err := u.tar(ctx, "environment.tar", []entry{{root, "."}}); err != nil {
			return "", err
		}
	}
	var list bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(u.sums)) {
		fmt.Fprintf(&list, "%s  %s\n", u.sums[name], name)
	}
	if err := u.bytesOf(ctx, sumsFile, list.Bytes()); err != nil {
		return "", err
	}
	return u.sums[sumsFile], u.clear(ctx)
}

// place returns where the paths of run.json are on the instance.
func place(req trainer.Request, home string) func(string) string {
	return func(of string) string {
		if of == filepath.Join(req.Dir, outputDir) {
			return filepath.Join(home, "output")
		}
		for i, input := range req.Inputs {
			if of == input {
				return inputAt(filepath.Join(home, "data"), i, input)
			}
		}
		return of
	}
}

// inputAt returns where an input is below the folder of inputs.
func inputAt(data string, number int, input string) string {
	return filepath.Join(data, strconv.Itoa(number), filepath.Base(input))
}

// environmentOf returns the folder of the environment of an interpreter.
func environmentOf(python string) (string, error) {
	root := filepath.Dir(filepath.Dir(python))
	if !exists(filepath.Join(root, "pyvenv.cfg")) {
		return "", delivery.Blockedf("give the trainer a lock file or an image, or name the Python of a virtual "+
			"environment under python: in the server's configuration",
			"the trainer runs with the server's own Python %s, which an instance does not have", python)
	}
	return root, nil
}

// clear removes objects that are no inputs any more: the instance takes no others.
func (u *upload) clear(ctx context.Context) error {
	for name := range u.there {
		if _, wanted := u.sums[name]; !wanted {
			if err := u.objects.Remove(ctx, u.at+name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *upload) bytesOf(ctx context.Context, name string, data []byte) error {
	return u.object(ctx, name, bytes.NewReader(data), int64(len(data)), sha256.Sum256(data))
}

// object sends one object, unless its content is there.
func (u *upload) object(ctx context.Context, name string, body io.ReadSeeker, size int64, sum [sha256.Size]byte) error {
	digest := hex.EncodeToString(sum[:])
	u.sums[name] = digest
	if there, ok := u.there[name]; ok && there == size && u.sent[name] == digest {
		return nil
	}
	if err := u.note(fmt.Sprintf("uploads the inputs: %d MiB sent", u.bytes>>20)); err != nil {
		return err
	}
	if err := u.objects.Write(ctx, u.at+name, body, size, sum, false); err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	u.bytes += size
	u.there[name], u.sent[name] = size, digest
	return durable.WriteJSON(filepath.Join(u.dir, sentFile), u.sent)
}

// files sends the files of a folder one by one.
func (u *upload) files(ctx context.Context, to, folder string) error {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() || !plain(name) {
			return delivery.Blockedf("give it a plain name, and no link", "%q cannot be an input of an instance",
				filepath.Join(folder, name))
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		digest := sha256.New()
		size, err := io.Copy(digest, f)
		if err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			return err
		}
		return u.object(ctx, filepath.Join(to, name), f, size, [sha256.Size]byte(digest.Sum(nil)))
	})
}

// plain reports whether sha256sum reads a name as it is.
func plain(name string) bool { return !strings.ContainsAny(name, "\\\n\r") }

// An entry is a file or folder that is to be at a path of a tar file.
type entry struct{ from, to string }

// tar sends files and folders as the parts of a tar file, which has neither times nor owners.
func (u *upload) tar(ctx context.Context, name string, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	p := &parts{name: name, dir: u.dir, most: partSize, send: func(part string, f *os.File, size int64,
		sum [sha256.Size]byte) error {
		return u.object(ctx, part, f, size, sum)
	}}
	defer p.discard()
	w := tar.NewWriter(p)
	for _, e := range entries {
		if err := pack(ctx, w, e); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), p.close())
}

// pack adds a file or folder to a tar file. Links stay links.
func pack(ctx context.Context, w *tar.Writer, e entry) error {
	return filepath.WalkDir(e.from, func(at string, d fs.DirEntry, err error) error {
		if err := cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(e.from, at)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if link, err = os.Readlink(at); err != nil {
				return err
			}
		case !info.Mode().IsRegular() && !info.IsDir():
			return delivery.Blockedf("remove it", "%s is neither a file nor a folder", at)
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		// The trainer's user on the instance is another one, and must be able to read all.
		h = &tar.Header{Typeflag: h.Typeflag, Linkname: link, Size: h.Size, Mode: 0o644 | h.Mode&0o111,
			Name: filepath.ToSlash(filepath.Join(e.to, rel)), Format: tar.FormatPAX}
		if info.IsDir() {
			h.Name, h.Mode = h.Name+"/", 0o755
		}
		if h.Mode&0o100 != 0 {
			h.Mode |= 0o755
		}
		if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(at)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
}

// parts cuts what is written into files of a size, and sends each when it is full.
type parts struct {
	name, dir string
	most      int64 // bytes of a part
	send      func(part string, f *os.File, size int64, sum [sha256.Size]byte) error

	number int
	file   *os.File
	digest hash.Hash
	size   int64
}

// Write implements io.Writer.
func (p *parts) Write(data []byte) (n int, err error) {
	for n < len(data) {
		if p.file == nil {
			if p.file, err = os.CreateTemp(p.dir, "part-"); err != nil {
				return n, err
			}
			p.digest, p.size = sha256.New(), 0
		}
		piece := data[n:min(len(data), n+int(p.most-p.size))]
		if _, err := p.file.Write(piece); err != nil {
			return n, err
		}
		p.digest.Write(piece)
		n, p.size = n+len(piece), p.size+int64(len(piece))
		if p.size == p.most {
			if err := p.close(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// close sends the part that was begun.
func (p *parts) close() error {
	if p.file == nil {
		return nil
	}
	defer p.discard()
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	part := fmt.Sprintf("%s.%03d", p.name, p.number)
	p.number++
	return p.send(part, p.file, p.size, [sha256.Size]byte(p.digest.Sum(nil)))
}

func (p *parts) discard() {
	if p.file != nil {
		p.file.Close()
		os.Remove(p.file.Name())
		p.file = nil
	}
}
