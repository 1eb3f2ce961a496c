package artifact

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// The log has the entries that are not in index.json yet, one on each line, as a checksum, a space and JSON. Adding one
// costs the same however many there are. A line without its end is of a writer that was killed, and does not count.
const logFile = "index.log"

// The log is folded into index.json when it has more than foldMin entries and a foldPart-th of all. So writing all
// entries n times costs n times as much for each, whatever their number.
const (
	foldMin  = 64
	foldPart = 8

	checksum = 16 // hexadecimal digits of the line's SHA-256
)

// Fold writes the entries of the log into index.json, for other tools that read the folder.
func (s *Store) Fold(ctx context.Context) error {
	if _, err := os.Stat(s.path(logFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ix, err := s.loadIndex()
	if err != nil {
		return err
	}
	entries, err := s.allEntries() // takes long; writers wait for the lock a second at most
	if err != nil {
		return s.foldLocked(ctx) // another process may have folded the log meanwhile
	}
	data, err := encodeIndex(entries)
	if err != nil {
		return err
	}
	lock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	now, err := s.currentIndex()
	if err != nil {
		return err
	}
	if now != ix || now.count() != len(entries) {
		return s.fold()
	}
	return s.replaceIndex(entries, data)
}

func (s *Store) foldLocked(ctx context.Context) error {
	lock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return s.fold()
}

// fold writes the entries of the log into index.json. The caller must hold the lock.
func (s *Store) fold() error {
	ix, err := s.currentIndex()
	if err != nil || ix.log == nil {
		return err
	}
	entries, err := s.allEntries()
	if err != nil {
		return err
	}
	return s.writeIndex(entries)
}

// readLog adds the entries of the log that ix does not have, and reports whether there may have been some.
func (s *Store) readLog(ix *index) (read bool, err error) {
	info, err := os.Stat(s.path(logFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if ix.log != nil && os.SameFile(ix.log, info) && info.Size() == ix.log.Size() {
		return false, nil
	}
	f, err := os.Open(s.path(logFile))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // it was folded
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return false, err
	}
	if ix.log == nil || !os.SameFile(ix.log, info) {
		ix.logRead, ix.logged = 0, 0
	}
	if info.Size() > maxIndex {
		return false, fmt.Errorf("it has %d bytes, the maximum is %d", info.Size(), maxIndex)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, ix.logRead, info.Size()-ix.logRead))
	if err != nil {
		return false, err
	}
	for {
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			if _, err := parseLine(line[:max(len(line)-1, 0)]); err == nil {
				return false, fmt.Errorf("damaged: the line at byte %d has another end", ix.logRead)
			}
			break
		}
		e, err := parseLine(line)
		if err != nil {
			return false, fmt.Errorf("damaged: the line at byte %d: %w", ix.logRead, err)
		}
		if _, there := ix.entry(delivery.Digest(e.Digest)); !there {
			ix.add(e)
		}
		ix.logRead += int64(len(line)) + 1
		ix.logged++
		data = rest
	}
	ix.log = info
	return true, nil
}

// appendLog adds an entry to the log and to ix, durably. The caller must hold the lock, and ix must be current.
func (s *Store) appendLog(ix *index, entry ocispec.Descriptor) error {
	line, err := formatLine(entry)
	if err != nil {
		return err
	}
	_, err = os.Stat(s.path(logFile))
	begins := errors.Is(err, fs.ErrNotExist)
	f, err := os.OpenFile(s.path(logFile), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if begins {
		ix.logRead, ix.logged = 0, 0
	}
	// What follows is the beginning of a line whose writer was killed.
	if err := f.Truncate(ix.logRead); err != nil {
		return err
	}
	if _, err := f.WriteAt(line, ix.logRead); err != nil {
		return errors.Join(err, f.Truncate(ix.logRead))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if begins {
		if err := durable.SyncDir(s.dir); err != nil {
			return err
		}
	}
	if ix.log, err = f.Stat(); err != nil {
		return err
	}
	ix.logRead += int64(len(line))
	ix.logged++
	ix.add(entry)
	return nil
}

func formatLine(entry ocispec.Descriptor) ([]byte, error) {
	data, err := json.Marshal(entry)
	if err != nil {
		return nil, err
	}
	return append([]byte(delivery.Sum(data).Hex()[:checksum]+" "), append(data, '\n')...), nil
}

func parseLine(line []byte) (e ocispec.Descriptor, err error) {
	sum, data, ok := bytes.Cut(line, []byte(" "))
	if !ok || string(sum) != delivery.Sum(data).Hex()[:checksum] {
		return e, errors.New("its content does not match its checksum")
	}
	err = delivery.ParseJSON(data, &e)
	return e, err
}
