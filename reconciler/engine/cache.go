package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/profile"
)

// The files of an entry.
const (
	planFile  = "engine.plan"
	entryFile = "entry.json"
	lockFile  = "lock" // of a cache, not of an entry
)

// MaxPlan is the size of the largest engine.
const MaxPlan = 2 << 30

// An Entry is an engine in a cache.
type Entry struct {
	Folder string `json:"-"`
	Plan   []byte `json:"-"`

	Engine    profile.Engine  `json:"engine"`
	Digest    delivery.Digest `json:"digest"` // of the plan
	Profile   string          `json:"profile"`
	Workspace delivery.Bytes  `json:"workspace"` // that the build had
	Seconds   float64         `json:"seconds"`   // of the build
	Parity    json.RawMessage `json:"parity"`    // how near to the CPU's its answers are
}

// open reads an entry, and fails unless it is whole and of this engine.
func open(folder string, want profile.Engine) (Entry, error) {
	const most = 1 << 20
	var e Entry
	data, err := durable.ReadFile(filepath.Join(folder, entryFile), most)
	if err == nil {
		err = delivery.ParseJSON(data, &e)
	}
	if err == nil && e.Engine.Key() != want.Key() {
		err = errors.New("it is another engine's")
	}
	if err == nil {
		e.Plan, err = durable.ReadFile(filepath.Join(folder, planFile), MaxPlan)
	}
	if err == nil && delivery.Sum(e.Plan) != e.Digest {
		err = errors.New("its engine has changed")
	}
	if err != nil {
		return Entry{}, fmt.Errorf("engine %s: %w", folder, err)
	}
	e.Folder = folder
	return e, nil
}

// prune removes what an update of the machine has made useless: entries for another GPU or other software, and timing
// caches. It removes what a crash has left of builds too. It returns how many entries it has removed.
func prune(cache string, keep profile.Engine) (int, error) {
	removed := 0
	remove := func(path string) error {
		removed++
		return os.RemoveAll(path)
	}
	files, err := filepath.Glob(filepath.Join(cache, "timing-*.bin"))
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		if filepath.Base(f) != keep.TimingCache() {
			err = errors.Join(err, os.Remove(f))
		}
	}
	// release/GPU/version of TensorRT/key
	entries, globbed := filepath.Glob(filepath.Join(cache, "*", "*", "*", "*"))
	err = errors.Join(err, globbed)
	for _, folder := range entries {
		if strings.HasSuffix(folder, ".partial") {
			err = errors.Join(err, os.RemoveAll(folder))
			continue
		}
		var e Entry
		data, read := durable.ReadFile(filepath.Join(folder, entryFile), 1<<20)
		if read != nil || delivery.ParseJSON(data, &e) != nil || e.Engine.Target != keep.Target {
			err = errors.Join(err, remove(folder))
		}
	}
	return removed, errors.Join(err, removeEmpty(cache))
}

// removeEmpty removes the empty folders of removed entries.
func removeEmpty(cache string) error {
	for _, pattern := range []string{"*/*/*", "*/*", "*"} {
		folders, err := filepath.Glob(filepath.Join(cache, pattern))
		if err != nil {
			return err
		}
		for _, folder := range folders {
			if list, err := os.ReadDir(folder); err != nil || len(list) > 0 {
				continue // a file, or in use
			}
			if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
