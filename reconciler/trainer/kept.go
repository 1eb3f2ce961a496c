package trainer

// This file removes environments that no training has used for long. They are made again when one needs them.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// Kept is an environment in the folder.
type Kept struct {
	Name        string // of its folder
	Environment delivery.Environment
	Bytes       int64     // of its files, of which other environments may have some
	Used        time.Time // last by a training
}

// noteUse records that an environment is used. An error only makes it look older.
func (m Made) noteUse() {
	now := time.Now()
	_ = os.Chtimes(filepath.Join(m.Folder, madeFile), now, now)
}

// Kept lists the environments.
func (e Environments) Kept() ([]Kept, error) {
	entries, err := os.ReadDir(filepath.Join(e.Dir, "environments"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Kept
	for _, entry := range entries {
		if !entry.IsDir() || strings.HasSuffix(entry.Name(), partialSuffix) {
			continue
		}
		made := filepath.Join(e.Dir, "environments", entry.Name(), madeFile)
		info, err := os.Stat(made)
		var m Made
		if err != nil || durable.ReadJSON(made, &m) != nil {
			continue // it is not AOB's
		}
		list = append(list, Kept{entry.Name(), m.Environment, m.Bytes, info.ModTime()})
	}
	return list, nil
}

// Remove removes an environment that was last used before a time. It does nothing while another process makes one.
func (e Environments) Remove(k Kept, before time.Time) error {
	lock, err := durable.TryLock(filepath.Join(e.Dir, "environments", "making.lock"))
	if errors.Is(err, durable.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	folder := filepath.Join(e.Dir, "environments", k.Name)
	info, err := os.Stat(filepath.Join(folder, madeFile))
	if err != nil || !info.ModTime().Before(before) {
		return err
	}
	// A process that is killed here leaves what the next environment's process removes.
	gone := folder + partialSuffix
	err = os.RemoveAll(gone)
	if err == nil {
		err = durable.Rename(folder, gone)
	}
	if err == nil {
		err = os.RemoveAll(gone)
	}
	if err != nil {
		return fmt.Errorf("remove an environment: %w", err)
	}
	return nil
}
