package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Observe asks the remote for its branches and pull requests, brings what is
// new, and returns the commit of each by the ref's full name, as
// refs/heads/main and refs/pull/7/head. changed says whether any differs from
// what the last call returned; the first call's answer is always a change. The
// caller must not change the map.
//
// The content of a ref may be too large to bring. The ref is returned all the
// same, and whatever is asked about its commit is answered with Blocked.
func (m *Mirror) Observe(ctx context.Context) (refs map[string]string, changed bool, err error) {
	m.net.Lock()
	defer m.net.Unlock()
	m.mu.Lock()
	if m.broken != nil {
		err = m.clear()
	}
	m.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	if m.remote.folder != "" {
		refs, changed, err = m.observeFolder()
	} else {
		refs, changed, err = m.observeRemote(ctx)
	}
	if err != nil {
		return nil, false, err
	}
	return refs, changed, m.tidy(changed)
}

// tidy merges packs when nothing else is to do, or when it has to be.
func (m *Mirror) tidy(busy bool) error {
	m.mu.Lock()
	packs := len(m.own.packs)
	m.mu.Unlock()
	if packs <= maxPacks || busy && packs <= 2*maxPacks {
		return nil
	}
	if err := m.own.merge(&m.mu); err != nil {
		return fmt.Errorf("merge packs of the mirror %s: %w", m.dir, err)
	}
	return nil
}

func (m *Mirror) observeFolder() (map[string]string, bool, error) {
	state, err := readFolder(m.remote.folder)
	if err != nil {
		return nil, false, m.remote.explain("read", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.observed && len(m.bad) == 0 && state.equal(m.last) {
		return m.refs, false, nil
	}
	m.folder.stale = true
	bad := maps.Clone(state.bad)
	seen := map[string]plumbing.Hash{}
	for name, h := range interesting(state.refs) {
		if m.seen[name] == h {
			seen[name] = h
			continue
		}
		m.folder.stale = true
		// The commit must be there. One that is malformed is: the error is its own.
		if _, err := m.commit(h); isWait(err) {
			bad[name] = m.lost(name, h)
			continue
		} else if _, own := errors.AsType[TreeError](err); err != nil && !own {
			blocked, ok := errors.AsType[delivery.Blocked](err)
			if !ok {
				return nil, false, err
			}
			bad[name] = blocked
			continue
		}
		seen[name] = h
	}
	changed := !m.observed || !maps.Equal(seen, m.seen) || !maps.Equal(bad, m.bad) || state.head != m.head
	m.last, m.bad, m.head, m.observed = state, bad, state.head, true
	if changed {
		m.see(seen)
	}
	return m.refs, changed, nil
}

func isWait(err error) bool {
	_, wait := errors.AsType[delivery.Wait](err)
	return wait
}

// lost says that the commit of a ref is not in the repository.
func (m *Mirror) lost(name string, h plumbing.Hash) delivery.Blocked {
	b := delivery.Blockedf("push the branch again; `git fsck` there finds what else is missing",
		"%s names commit %.10s, which is not in the repository", name, h)
	if len(m.folder.lost) > 0 {
		b.What += "; " + m.folder.lost[0]
		b.Do = "put that back, or push the branch again"
	}
	return b
}

func (m *Mirror) observeRemote(ctx context.Context) (map[string]string, bool, error) {
	session, adv, err := m.remote.advertised(ctx)
	if err != nil {
		return nil, false, err
	}
	if len(adv.Shallows) > 0 {
		return nil, false, m.remote.explain("read", shallowClone("the repository"))
	}
	seen := interesting(adv.References)
	m.mu.Lock()
	if m.observed && maps.Equal(seen, m.seen) {
		defer m.mu.Unlock()
		return m.refs, false, nil
	}
	wants := m.missing(seen)
	haves := m.haves(seen)
	m.mu.Unlock()

	if err := m.fetch(ctx, session, adv, wants, haves); err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.writeRefs(seen); err != nil {
		return nil, false, err
	}
	m.see(seen)
	m.observed = true
	m.head = symbolicHead(adv)
	return m.refs, true, nil
}

// symbolicHead returns the ref that a remote says its HEAD names.
func symbolicHead(adv *packp.AdvRefs) string {
	for _, pair := range adv.Capabilities.Get(capability.SymRef) {
		if name, ok := strings.CutPrefix(pair, "HEAD:"); ok && properRef(name) {
			return name
		}
	}
	return ""
}

// interesting returns the branches and the heads of pull requests.
func interesting(refs map[string]plumbing.Hash) map[string]plumbing.Hash {
	some := make(map[string]plumbing.Hash, len(refs))
	for name, h := range refs {
		if isInteresting(name) && properRef(name) {
			some[name] = h
		}
	}
	return some
}

// missing returns the commits of refs that are not here, sorted.
func (m *Mirror) missing(refs map[string]plumbing.Hash) []plumbing.Hash {
	var wants []plumbing.Hash
	for _, h := range refs {
		if p, _ := m.own.find(h); p == nil && m.refused[h] == "" {
			wants = append(wants, h)
		}
	}
	plumbing.HashesSort(wants)
	return slices.Compact(wants)
}

// haves returns commits that are here and that the remote has or had, so that
// it sends only what is new: where the refs that move were, where branches are,
// and some way back along them, for the remote may have dropped the newest.
func (m *Mirror) haves(now map[string]plumbing.Hash) []plumbing.Hash {
	const most = 64
	var moved, branches []plumbing.Hash
	for _, name := range slices.Sorted(maps.Keys(m.seen)) {
		switch {
		case now[name] != m.seen[name]:
			moved = append(moved, m.seen[name])
		case strings.HasPrefix(name, Branch):
			branches = append(branches, m.seen[name])
		}
	}
	tips := append(moved, branches...)
	tips = tips[:min(len(tips), most)]
	haves := slices.Clone(tips)
	for _, tip := range tips[:min(len(tips), 4)] {
		line, err := m.firstParents(tip, 1<<10)
		for back := 1; err == nil && back < len(line); back *= 2 {
			haves = append(haves, line[back])
		}
	}
	return slices.DeleteFunc(haves, func(h plumbing.Hash) bool {
		p, _ := m.own.find(h)
		return p == nil
	})
}

// fetch brings commits and all that they need. What is too large is noted
// instead, commit by commit.
func (m *Mirror) fetch(ctx context.Context, session transport.UploadPackSession, adv *packp.AdvRefs, wants, haves []plumbing.Hash) error {
	if len(wants) == 0 {
		return nil
	}
	rec, err := m.receive(ctx, session, adv, wants, haves)
	if much, ok := errors.AsType[tooMuch](err); ok {
		if len(wants) == 1 {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.refused[wants[0]] = much.what
			return nil
		}
		for i := range wants {
			if err := m.fetch(ctx, session, adv, wants[i:i+1], haves); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return m.remote.explain("fetch", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.own.add(rec); err != nil {
		return fmt.Errorf("write to the mirror %s: %w", m.dir, err)
	}
	for _, h := range wants {
		if p, _ := m.own.find(h); p == nil {
			return fmt.Errorf("fetch %s: it showed commit %.10s and did not send it", m.remote.url, h)
		}
	}
	return nil
}

func (m *Mirror) receive(ctx context.Context, session transport.UploadPackSession, adv *packp.AdvRefs, wants, haves []plumbing.Hash) (received, error) {
	req := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	req.Wants, req.Haves = wants, haves
	if adv.Capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return received{}, err
		}
	}
	if adv.Capabilities.Supports(capability.Filter) {
		// What is too large to be intent stays on the remote.
		if err := req.Capabilities.Set(capability.Filter); err != nil {
			return received{}, err
		}
		req.Filter = packp.FilterBlobLimit(MaxBlob+1, packp.BlobLimitPrefixNone)
	}
	resp, err := session.UploadPack(ctx, req)
	if err != nil {
		return received{}, err
	}
	defer resp.Close()
	var pack io.Reader = resp
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		pack = sideband.NewDemuxer(sideband.Sideband64k, resp)
	case req.Capabilities.Supports(capability.Sideband):
		pack = sideband.NewDemuxer(sideband.Sideband, resp)
	}
	return m.own.receive(pack)
}

// writeRefs writes the refs to where the next Open looks. It comes after the
// objects, so what it names is there.
func (m *Mirror) writeRefs(refs map[string]plumbing.Hash) error {
	var b strings.Builder
	b.WriteString("# pack-refs with: sorted \n")
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		if m.refused[refs[name]] == "" {
			fmt.Fprintf(&b, "%s %s\n", refs[name], name)
		}
	}
	path := filepath.Join(m.dir, "packed-refs")
	// Neither this nor the packs are forced to the disk: after a power cut Open
	// finds what is damaged, and clones again.
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write to the mirror %s: %w", m.dir, err)
	}
	return os.Rename(path+".new", path)
}
