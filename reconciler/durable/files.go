package durable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/autonomos/aob/reconciler/delivery"
)

// ReadFile reads a regular file of at most limit bytes. It never blocks, as opening a pipe
// would. The path is not in its own errors, but in those of the system.
func ReadFile(path string, limit int64) ([]byte, error) { return readFile(path, limit, 0) }

// ReadNoFollow is like ReadFile, but a symbolic link is an error. It is for files in folders that others write.
func ReadNoFollow(path string, limit int64) ([]byte, error) {
	return readFile(path, limit, syscall.O_NOFOLLOW)
}

func readFile(path string, limit int64, flag int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|flag, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a file")
	case info.Size() > limit:
		return nil, fmt.Errorf("%d bytes, want at most %d", info.Size(), limit)
	}
	data := make([]byte, info.Size())
	n, err := io.ReadFull(f, data)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) { // the file was cut meanwhile
		err = nil
	}
	return data[:n], err
}

// WriteJSON replaces the file at path with v as indented JSON, as [WriteFile] does. Only the owner may access the file.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return WriteFile(path, append(data, '\n'), 0o600)
}

// ReadJSON decodes the file at path into v.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// WriteFolder creates a folder whose content fill writes. The folder appears atomically and durably: fill gets the path
// of another folder, which is renamed to dir. Only one process at a time may write the same folder.
func WriteFolder(dir string, fill func(partial string) error) error {
	partial := dir + ".partial" // a fixed name, so that the next call removes the rest of a crash
	err := os.RemoveAll(partial)
	if err == nil {
		err = os.MkdirAll(partial, 0o700)
	}
	if err == nil {
		err = fill(partial)
	}
	if err == nil {
		err = SyncTree(partial)
	}
	if err == nil {
		err = Rename(partial, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(partial))
	}
	return nil
}

// Link creates target as a hard link to source, or as a copy if the file system allows no link.
func Link(source, target string) error {
	if os.Link(source, target) == nil {
		return nil
	}
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Close())
}

// RemoveTemporary removes what interrupted calls of WriteFile have left of some files in a folder. No such call may be
// running.
func RemoveTemporary(dir string, files ...string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if slices.ContainsFunc(files, func(file string) bool { return strings.HasPrefix(e.Name(), "."+file+".") }) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// LastLine returns the last line of a log, at most 300 bytes of it, for an error. It is ""
// if the log is empty or cannot be read. The mask is applied before the line is cut.
func LastLine(path string, mask delivery.Mask) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	tail := make([]byte, 2000+mask.Longest())
	start := max(0, end-int64(len(tail)))
	n, _ := f.ReadAt(tail, start)
	text := mask.Text(string(tail[:n]))
	if start > 0 { // the tail may begin with the rest of a secret
		text = text[min(len(text), mask.Longest()):]
	}
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(text, "")), "\n")
	return delivery.PlainText(lines[len(lines)-1], 300)
}

// A ContextReader returns the context's error after the context has ended.
type ContextReader struct {
	Ctx context.Context
	R   io.Reader
}

// Read implements io.Reader.
func (r ContextReader) Read(p []byte) (int, error) {
	if err := r.Ctx.Err(); err != nil {
		return 0, err
	}
	return r.R.Read(p)
}
