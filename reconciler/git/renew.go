package git

// This file keeps the mirror small: what closed pull requests and removed
// branches have left on the disk goes when the mirror is cloned anew.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
)

const (
	// maxGarbage is how many bytes a mirror may grow before it is cloned anew,
	// open pull requests aside; a large one may grow by a quarter. Closed pull
	// requests may leave no more than this in any.
	maxGarbage = 32 << 20
	smallPack  = 1 << 20 // a pull request's pack below it is not counted apart

	renewed  = "new" // the folder of a mirror that is being cloned anew
	replaced = "old" // and of the objects that it replaces
)

// packsFile remembers what is known of the packs over a restart.
const packsFile = "packs.json"

type packsState struct {
	Base  int64               `json:"base"`
	Pulls map[string][]string `json:"pulls"`
}

func (m *Mirror) writePacks() error {
	state := packsState{Base: m.base, Pulls: map[string][]string{}}
	for name, heads := range m.pulled {
		for _, h := range heads {
			state.Pulls[name] = append(state.Pulls[name], h.String())
		}
	}
	data, err := json.Marshal(state)
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir, packsFile), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write to the mirror %s: %w", m.dir, err)
	}
	return nil
}

// readPacks reads what writePacks has written. Without it, all that is there
// counts as the repository's own.
func (m *Mirror) readPacks() {
	var state packsState
	data, err := os.ReadFile(filepath.Join(m.dir, packsFile))
	if err != nil || json.Unmarshal(data, &state) != nil {
		m.base, _ = m.used()
		return
	}
	m.base = state.Base
	for name, heads := range state.Pulls {
		for _, s := range heads {
			if h, ok := parseHash(s); ok {
				m.pulled[name] = append(m.pulled[name], h)
			}
		}
	}
}

// used returns the bytes of all packs but those of open pull requests, and how many
// of these bytes closed pull requests have brought.
func (m *Mirror) used() (own, closed int64) {
	live := map[plumbing.Hash]bool{}
	for name, h := range m.observedRefs {
		live[h] = live[h] || m.wanted(name, h)
	}
	for _, p := range m.own.packs {
		info, err := os.Stat(filepath.Join(p.dir, "pack", p.name+".pack"))
		if err != nil {
			continue // what is damaged is found when it is read
		}
		heads, pulled := m.pulled[p.name]
		if slices.ContainsFunc(heads, func(h plumbing.Hash) bool { return live[h] }) {
			continue
		}
		own += info.Size()
		if pulled {
			closed += info.Size()
		}
	}
	return own, closed
}

// garbage reports whether the mirror has grown so much that it is cloned anew.
func (m *Mirror) garbage() bool {
	if !m.observed {
		return false
	}
	if m.base == 0 {
		m.base, _ = m.used()
	}
	own, closed := m.used()
	return closed > maxGarbage || own > m.base+max(maxGarbage, m.base/4)
}

// renew clones the mirror anew, beside the old one, which can be read until the
// new one is whole. What is not reached any more is not in the new one.
func (m *Mirror) renew(ctx context.Context) error {
	dir := filepath.Join(m.dir, renewed)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fresh := &Mirror{dir: dir, remote: m.remote, blamed: map[plumbing.Hash]bool{}}
	if err := fresh.clear(); err != nil {
		return err
	}
	m.mu.Lock()
	fresh.keep = m.keep
	m.mu.Unlock()
	defer func() { fresh.own.close() }()
	if _, _, err := fresh.observeRemote(ctx); err != nil {
		return err
	}
	fresh.base, _ = fresh.used()
	if err := fresh.writePacks(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own.close()
	old := filepath.Join(m.dir, replaced)
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	// If it ends here, the next Open finds no objects, and clones.
	if err := os.Rename(filepath.Join(m.dir, "objects"), old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range []string{"objects", packedRefs, packsFile} {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(m.dir, name)); err != nil {
			return err
		}
	}
	if err := m.load(); err != nil {
		return err
	}
	m.refused, m.failed = fresh.refused, fresh.failed
	return os.RemoveAll(old)
}
