package git

// This file limits the size of the mirror. Objects of closed pull requests and removed
// branches are removed by cloning the mirror again.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
)

const (
	// maxGarbage is how many bytes a mirror may grow before it is cloned again, without the
	// packs of open pull requests. A large mirror may grow by a quarter. Packs of closed
	// pull requests may never take more than maxGarbage.
	maxGarbage = 32 << 20
	smallPack  = 1 << 20 // smaller packs of pull requests count as packs of branches

	newDir = "new" // folder of the new clone
	oldDir = "old" // folder of the replaced objects
)

// packsFile is the file in the mirror that stores baseSize and pullPacks.
const packsFile = "packs.json"

type packsState struct {
	Base  int64               `json:"base"`
	Pulls map[string][]string `json:"pulls"`
}

func (m *Mirror) writePacks() error {
	data, err := json.Marshal(packsState{m.baseSize, m.pullPacks})
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir, packsFile), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write to the mirror %s: %w", m.dir, err)
	}
	return nil
}

// readPacks reads packsFile. Without it, all packs count as packs of branches.
func (m *Mirror) readPacks() {
	var state packsState
	data, err := os.ReadFile(filepath.Join(m.dir, packsFile))
	if err != nil || json.Unmarshal(data, &state) != nil {
		m.baseSize, _ = m.used()
		return
	}
	m.baseSize = state.Base
	maps.Copy(m.pullPacks, state.Pulls)
}

// used returns the bytes of all packs without those of open pull requests (own), and the part
// of it that belongs to closed pull requests.
func (m *Mirror) used() (own, closed int64) {
	live := map[string]bool{}
	for name, h := range m.observedRefs {
		live[h.String()] = live[h.String()] || m.wanted(name, h)
	}
	for _, p := range m.own.packs {
		info, err := os.Stat(filepath.Join(p.dir, "pack", p.name+".pack"))
		if err != nil {
			continue // damage is detected when the pack is read
		}
		heads, pulled := m.pullPacks[p.name]
		if slices.ContainsFunc(heads, func(h string) bool { return live[h] }) {
			continue
		}
		own += info.Size()
		if pulled {
			closed += info.Size()
		}
	}
	return own, closed
}

// needsReclone reports whether the mirror has grown too much.
func (m *Mirror) needsReclone() bool {
	if !m.observed {
		return false
	}
	if m.baseSize == 0 {
		m.baseSize, _ = m.used()
	}
	own, closed := m.used()
	return closed > maxGarbage || own > m.baseSize+max(maxGarbage, m.baseSize/4)
}

// reclone clones the mirror again into newDir, and then replaces the old one, which can be
// read until then. Unreachable objects are not in the new clone.
func (m *Mirror) reclone(ctx context.Context) error {
	dir := filepath.Join(m.dir, newDir)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fresh := &Mirror{dir: dir, remote: m.remote, reclonedFor: map[plumbing.Hash]bool{}}
	if err := fresh.clear(); err != nil {
		return err
	}
	m.mu.Lock()
	fresh.openPulls = m.openPulls
	m.mu.Unlock()
	defer func() { fresh.own.close() }()
	if _, _, err := fresh.observeRemote(ctx); err != nil {
		return err
	}
	fresh.baseSize, _ = fresh.used()
	if err := fresh.writePacks(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.own.close()
	old := filepath.Join(m.dir, oldDir)
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	// After a crash here, the next Open finds no objects and makes an empty mirror.
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
