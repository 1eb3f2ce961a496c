package git

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Observe lists the branches and pull request heads of the remote, fetches new commits, and returns the commits by full
// ref name, such as refs/heads/main and refs/pull/7/head. changed reports whether anything differs from the last call;
// it is always true for the first call. The caller must not change the map.
//
// A ref whose commit exceeds a limit is returned too. All methods that read its commit then
// return a TreeError. Refs that cannot be read are in Unreadable.
func (m *Mirror) Observe(ctx context.Context) (refs map[string]string, changed bool, err error) {
	m.net.Lock()
	defer m.net.Unlock()
	if m.remote.folder != "" {
		refs, changed, err = m.observeFolder()
	} else {
		m.mu.Lock()
		reclone := m.broken != nil || m.needsReclone()
		m.mu.Unlock()
		if reclone {
			err = m.reclone(ctx)
		}
		if err == nil {
			refs, changed, err = m.observeRemote(ctx)
			changed = changed || reclone
		}
	}
	if err != nil {
		return nil, false, err
	}
	return refs, changed, m.tidy(changed)
}

// tidy merges packs if there are more than maxPacks; while busy, only if there are more than twice as many.
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
	m.mu.Lock()
	before := m.refFiles
	m.mu.Unlock()
	state, err := readFolder(m.remote.folder, before)
	if err != nil {
		return nil, false, m.remote.explain("read", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refFiles = state.files
	if m.observed && len(m.unreadable) == 0 && state.equal(m.lastState) {
		return m.refs, false, nil
	}
	m.folder.stale = true
	bad := maps.Clone(state.unreadable)
	readable := map[string]plumbing.Hash{}
	for name, h := range trackedRefs(state.refs) {
		if m.observedRefs[name] == h {
			readable[name] = h
			continue
		}
		m.folder.stale = true
		// The commit must exist. A malformed commit does; its error is returned when it is read.
		if _, err := m.commit(h); isWait(err) {
			bad[name] = m.lostCommit(name, h)
			continue
		} else if _, own := errors.AsType[TreeError](err); err != nil && !own {
			blocked, ok := errors.AsType[delivery.Blocked](err)
			if !ok {
				return nil, false, err
			}
			bad[name] = blocked
			continue
		}
		readable[name] = h
	}
	m.lastState = state
	changed := m.update(readable, bad, state.head)
	if changed {
		m.setRefs(readable)
	}
	return m.refs, changed, nil
}

// update stores the results of an Observe, without the refs, and reports whether anything differs from the last one.
func (m *Mirror) update(refs map[string]plumbing.Hash, unreadable map[string]delivery.Blocked, head string) bool {
	changed := !m.observed || head != m.head || !maps.Equal(refs, m.observedRefs) ||
		!maps.Equal(unreadable, m.unreadable)
	m.unreadable, m.head, m.observed = unreadable, head, true
	return changed
}

func isWait(err error) bool {
	_, wait := errors.AsType[delivery.Wait](err)
	return wait
}

// lostCommit returns the error of a ref whose commit is not in the repository.
func (m *Mirror) lostCommit(name string, h plumbing.Hash) delivery.Blocked {
	b := delivery.Blockedf("push the branch again; `git fsck` there finds what else is missing",
		"%s names commit %.10s, which is not in the repository", name, h)
	if len(m.folder.problems) > 0 {
		b.What += "; " + m.folder.problems[0]
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
	now := trackedRefs(adv.References)
	m.mu.Lock()
	head := symbolicHead(adv)
	branches, pulls := m.missing(now)
	if m.observed && len(branches)+len(pulls)+len(m.unreadable) == 0 && maps.Equal(now, m.observedRefs) {
		defer m.mu.Unlock()
		changed := head != m.head
		m.head = head
		return m.refs, changed, nil
	}
	haves := m.haves(now)
	m.mu.Unlock()

	first := m.mainRef(head)
	others := branches
	f := &fetch{m: m, session: session, adv: adv, haves: haves, tries: maxFetches}
	if i := slices.Index(branches, now[first]); i >= 0 {
		if err := f.fetchAll(ctx, branches[i:i+1], branchBounds); err != nil {
			return nil, false, err
		}
		others = slices.Delete(slices.Clone(branches), i, i+1)
	}
	f.fetchOthers(ctx, others, branchBounds, branchesTime)
	f.tries = maxFetches
	f.fetchOthers(ctx, pulls, pullBounds, pullsTime)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, false, m.remote.explain("fetch", ctx.Err())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	bad := map[string]delivery.Blocked{}
	readable := maps.Clone(now)
	for name, h := range now {
		if !m.own.has(h) && strings.HasPrefix(name, Branch) && m.refused[h] == "" {
			bad[name] = delivery.Blockedf("nothing to do: aob fetches it next", "%s was not fetched yet, "+
				"because fetching other branches took too long", name)
			delete(readable, name)
		}
		if failed, ok := m.failed[h]; ok {
			bad[name] = delivery.Blockedf("run `git fsck` there; aob tries again by itself",
				"%s cannot be read: the server does not send its commit %.10s: %s", name, h, failed.why)
			delete(readable, name)
		}
	}
	if !m.update(readable, bad, head) && len(branches)+len(pulls) == 0 {
		return m.refs, false, nil
	}
	if err := m.writeRefs(readable); err != nil {
		return nil, false, err
	}
	m.setRefs(readable)
	return m.refs, true, m.writePacks()
}

// symbolicHead returns the target of the remote's HEAD, or "" if the remote does not tell it.
func symbolicHead(adv *packp.AdvRefs) string {
	for _, pair := range adv.Capabilities.Get(capability.SymRef) {
		if name, ok := strings.CutPrefix(pair, "HEAD:"); ok && validRef(name) {
			return name
		}
	}
	return ""
}

// trackedRefs returns the branches and the heads of pull requests.
func trackedRefs(refs map[string]plumbing.Hash) map[string]plumbing.Hash {
	tracked := make(map[string]plumbing.Hash, len(refs))
	for name, h := range refs {
		if isTracked(name) && validRef(name) {
			tracked[name] = h
		}
	}
	return tracked
}

// KeepPulls sets which pull requests are open. The heads of others are not fetched, and
// what was fetched for them is removed later. Before the first call, all heads are fetched.
func (m *Mirror) KeepPulls(open []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.openPulls = make(map[string]bool, len(open))
	for _, n := range open {
		m.openPulls[fmt.Sprintf("%s%d/head", Pull, n)] = true
	}
}

// wanted reports whether a ref's commit is to be fetched: the ref is a branch, the head of
// an open pull request, or the head of a pull request that is new or has just moved.
func (m *Mirror) wanted(name string, h plumbing.Hash) bool {
	return strings.HasPrefix(name, Branch) || m.openPulls == nil || m.openPulls[name] ||
		m.observed && m.observedRefs[name] != h
}

// missing returns the commits of branches and of pull requests that are to be fetched now, sorted.
func (m *Mirror) missing(refs map[string]plumbing.Hash) (branches, pulls []plumbing.Hash) {
	for name, h := range refs {
		if !m.wanted(name, h) || m.refused[h] != "" || time.Now().Before(m.failed[h].next) {
			continue
		}
		if m.own.has(h) {
			continue
		}
		if strings.HasPrefix(name, Branch) {
			branches = append(branches, h)
		} else {
			pulls = append(pulls, h)
		}
	}
	plumbing.HashesSort(branches)
	plumbing.HashesSort(pulls)
	branches = slices.Compact(branches)
	pulls = slices.DeleteFunc(slices.Compact(pulls), func(h plumbing.Hash) bool { return slices.Contains(branches, h) })
	onRemote := make(map[plumbing.Hash]bool, len(refs))
	for _, h := range refs {
		onRemote[h] = true
	}
	maps.DeleteFunc(m.failed, func(h plumbing.Hash, _ failure) bool { return !onRemote[h] })
	maps.DeleteFunc(m.refused, func(h plumbing.Hash, _ string) bool { return !onRemote[h] })
	maps.DeleteFunc(m.fetchAlone, func(h plumbing.Hash, _ bool) bool { return !onRemote[h] })
	return branches, pulls
}

// haves returns the commits for the have lines of a fetch: the old commits of refs that have moved, the commits of
// branches, and some older ones, in case the remote has removed the newest.
func (m *Mirror) haves(now map[string]plumbing.Hash) []plumbing.Hash {
	const most = 64
	var moved, branches []plumbing.Hash
	for _, name := range slices.Sorted(maps.Keys(m.observedRefs)) {
		switch {
		case now[name] != m.observedRefs[name]:
			moved = append(moved, m.observedRefs[name])
		case strings.HasPrefix(name, Branch):
			branches = append(branches, m.observedRefs[name])
		}
	}
	tips := append(moved, branches...)
	tips = tips[:min(len(tips), most)]
	haves := slices.Clone(tips)
	for _, tip := range tips[:min(len(tips), 4)] {
		c, err := m.commit(tip)
		if err != nil {
			continue
		}
		back := 0 // commits before the tip: 1, 2, 4, ... 512
		for c, err := range m.firstParents(c) {
			if err != nil || back >= 1<<10 {
				break
			}
			if back&(back-1) == 0 && back > 0 {
				haves = append(haves, c.hash)
			}
			back++
		}
	}
	return slices.DeleteFunc(haves, func(h plumbing.Hash) bool { return !m.own.has(h) })
}

// writeRefs writes the refs for the next Open. It must be called after the objects were written.
func (m *Mirror) writeRefs(refs map[string]plumbing.Hash) error {
	var b strings.Builder
	b.WriteString("# pack-refs with: sorted \n")
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		if m.refused[refs[name]] == "" {
			fmt.Fprintf(&b, "%s %s\n", refs[name], name)
		}
	}
	path := filepath.Join(m.dir, "packed-refs")
	// Neither this file nor the packs are fsynced: after a power cut, Open detects damage,
	// and the mirror is cloned again.
	if err := os.WriteFile(path+".new", []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write to the mirror %s: %w", m.dir, err)
	}
	return os.Rename(path+".new", path)
}
