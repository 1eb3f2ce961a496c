package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"

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
	changed := !m.observed || !maps.Equal(readable, m.observedRefs) || !maps.Equal(bad, m.unreadable) ||
		state.head != m.head
	m.lastState, m.unreadable, m.head, m.observed = state, bad, state.head, true
	if changed {
		m.setRefs(readable)
	}
	return m.refs, changed, nil
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
	changed := !m.observed || len(branches)+len(pulls) > 0 || head != m.head || !maps.Equal(readable, m.observedRefs) ||
		!maps.Equal(bad, m.unreadable)
	m.unreadable, m.head, m.observed = bad, head, true
	if !changed {
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

// A failure is a commit that the remote lists but does not send.
type failure struct {
	why   string
	pause time.Duration // before the next attempt
	next  time.Time     // of the next attempt
}

const (
	maxFetches = 64 // maximum number of requests for packs of branches in one Observe, and for those of pull requests
	firstPause = 5 * time.Second
	maxPause   = 10 * time.Minute

	// How long one Observe may take to fetch branches other than main, and to fetch pull requests. Each takes at most
	// half of the time left before the context's deadline. Later calls fetch the rest.
	branchesTime = 10 * time.Minute
	pullsTime    = 2 * time.Minute
)

// A fetch is the fetching of one Observe.
type fetch struct {
	m       *Mirror
	session transport.UploadPackSession
	adv     *packp.AdvRefs
	haves   []plumbing.Hash
	tries   int // requests left
}

// fetchOthers fetches the commits of refs other than main. One of them cannot prevent the others from being fetched: if
// they take too long together, or a request fails, each is fetched alone; one that takes too long alone is tried again
// after a pause. Errors are recorded by commit in Mirror.failed.
func (f *fetch) fetchOthers(ctx context.Context, wants []plumbing.Hash, limits bounds, timeout time.Duration) {
	if len(wants) == 0 {
		return
	}
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	fetchWithin := func(wants []plumbing.Hash) error {
		ctx, cancel := context.WithTimeout(ctx, timeout/2)
		defer cancel()
		err := f.fetchAll(ctx, wants, limits)
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("it takes longer than %s", (timeout / 2).Round(time.Second/10))
		}
		return err
	}
	m := f.m
	var together, alone []plumbing.Hash
	m.mu.Lock()
	for _, h := range wants {
		if m.fetchAlone[h] {
			alone = append(alone, h)
		} else {
			together = append(together, h)
		}
	}
	m.mu.Unlock()
	if err := fetchWithin(together); err != nil && len(together) > 1 {
		m.mu.Lock()
		for _, h := range together {
			if !m.own.has(h) && m.refused[h] == "" {
				m.fetchAlone[h] = true
				alone = append(alone, h)
			}
		}
		m.mu.Unlock()
	} else if err != nil && ctx.Err() != context.Canceled {
		f.fail(together[0], err)
	}
	m.mu.Lock()
	slices.SortStableFunc(alone, func(a, b plumbing.Hash) int {
		return cmp.Compare(m.failed[a].pause, m.failed[b].pause) // commits that never failed come first
	})
	m.mu.Unlock()
	for _, h := range alone {
		if ctx.Err() != nil {
			return
		}
		if err := fetchWithin([]plumbing.Hash{h}); err != nil && ctx.Err() != context.Canceled {
			f.fail(h, err)
		}
	}
}

// fail records that a commit could not be fetched. The pause before the next attempt doubles each time.
func (f *fetch) fail(h plumbing.Hash, err error) {
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	pause := min(max(2*m.failed[h].pause, firstPause), maxPause)
	m.failed[h] = failure{m.remote.explain("fetch", err).Error(), pause, time.Now().Add(pause)}
}

// fetchAll fetches commits and the objects they need. If that fails because of the data, it fetches them in halves,
// until the commits that exceed a limit (recorded in Mirror.refused) or that the remote does not send (Mirror.failed)
// are found. So a branch that is damaged on the remote does not prevent others from being fetched. Errors of the
// network, of permission and of this machine are returned.
func (f *fetch) fetchAll(ctx context.Context, wants []plumbing.Hash, limits bounds) error {
	if len(wants) == 0 {
		return nil
	}
	m := f.m
	err := errors.New("too many commits could not be fetched")
	if f.tries--; f.tries >= 0 {
		err = f.try(ctx, wants, limits)
	}
	exceeded, tooLarge := errors.AsType[limitError](err)
	switch {
	case err == nil:
		return nil
	case !tooLarge && !isDataError(ctx, err):
		return m.remote.explain("fetch", err)
	case len(wants) > 1:
		for half := range slices.Chunk(wants, (len(wants)+1)/2) {
			if err := f.fetchAll(ctx, half, limits); err != nil {
				return err
			}
		}
		return nil
	case !tooLarge:
		f.fail(wants[0], err)
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused[wants[0]] = exceeded.what
	return nil
}

// isDataError reports whether an error is about the data that the remote has sent, and not
// about the network, permission, or this machine.
func isDataError(ctx context.Context, err error) bool {
	if ctx.Err() != nil || isWait(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	_, blocked := errors.AsType[delivery.Blocked](err)
	_, network := errors.AsType[net.Error](err)
	_, file := errors.AsType[*fs.PathError](err)
	_, link := errors.AsType[*os.LinkError](err)
	return !blocked && !network && !file && !link
}

func (f *fetch) try(ctx context.Context, wants []plumbing.Hash, limits bounds) error {
	m := f.m
	rec, err := m.receive(ctx, f.session, f.adv, wants, f.haves, limits)
	if err != nil {
		return unwrap(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if limits == pullBounds && rec.size >= smallPack {
		m.pullPacks["pack-"+rec.sum.String()] = wants
	}
	if err := m.own.add(rec); err != nil {
		return fmt.Errorf("write to the mirror %s: %w", m.dir, err)
	}
	for _, h := range wants {
		if !m.own.has(h) {
			return fmt.Errorf("the server listed commit %.10s but did not send it", h)
		}
		delete(m.failed, h)
		delete(m.fetchAlone, h)
	}
	// The next packs may build on these commits.
	f.haves = append(f.haves, wants[:min(len(wants), max(0, 2*maxFetches-len(f.haves)))]...)
	return nil
}

func (m *Mirror) receive(ctx context.Context, session transport.UploadPackSession, adv *packp.AdvRefs, wants,
	haves []plumbing.Hash, limits bounds) (received, error) {
	req := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	req.Wants, req.Haves = wants, haves
	if adv.Capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return received{}, err
		}
	}
	if adv.Capabilities.Supports(capability.Filter) {
		// Blobs that are too large for intent files stay on the remote.
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
	return m.own.receive(ctx, pack, limits)
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
