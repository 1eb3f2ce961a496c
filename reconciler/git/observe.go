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
	if m.remote.folder != "" {
		refs, changed, err = m.observeFolder()
	} else {
		m.mu.Lock()
		anew := m.broken != nil || m.garbage()
		m.mu.Unlock()
		if anew {
			err = m.renew(ctx)
		}
		if err == nil {
			refs, changed, err = m.observeRemote(ctx)
			changed = changed || anew
		}
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
	if m.observed && len(m.bad) == 0 && state.equal(m.last) {
		return m.refs, false, nil
	}
	m.folder.stale = true
	bad := maps.Clone(state.bad)
	readable := map[string]plumbing.Hash{}
	for name, h := range interesting(state.refs) {
		if m.observedRefs[name] == h {
			readable[name] = h
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
		readable[name] = h
	}
	changed := !m.observed || !maps.Equal(readable, m.observedRefs) || !maps.Equal(bad, m.bad) || state.head != m.head
	m.last, m.bad, m.head, m.observed = state, bad, state.head, true
	if changed {
		m.setRefs(readable)
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
	now := interesting(adv.References)
	m.mu.Lock()
	head := symbolicHead(adv)
	branches, pulls := m.missing(now)
	if m.observed && len(branches)+len(pulls)+len(m.bad) == 0 && maps.Equal(now, m.observedRefs) {
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
		if err := f.bring(ctx, branches[i:i+1], branchBounds); err != nil {
			return nil, false, err
		}
		others = slices.Delete(slices.Clone(branches), i, i+1)
	}
	f.others(ctx, others, branchBounds, branchesTime)
	f.tries = maxFetches
	f.others(ctx, pulls, pullBounds, pullsTime)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil, false, m.remote.explain("fetch", ctx.Err())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	bad := map[string]delivery.Blocked{}
	readable := maps.Clone(now)
	for name, h := range now {
		if p, _ := m.own.find(h); p == nil && strings.HasPrefix(name, Branch) && m.refused[h] == "" {
			bad[name] = delivery.Blockedf("nothing is to do: aob goes on with it", "%s has not been brought yet, "+
				"because other branches took the time", name)
			delete(readable, name)
		}
		if failed, ok := m.failed[h]; ok {
			bad[name] = delivery.Blockedf("run `git fsck` there; aob asks again by itself",
				"%s cannot be read: the server does not send its commit %.10s: %s", name, h, failed.why)
			delete(readable, name)
		}
	}
	changed := !m.observed || len(branches)+len(pulls) > 0 || head != m.head || !maps.Equal(readable, m.observedRefs) ||
		!maps.Equal(bad, m.bad)
	m.bad, m.head, m.observed = bad, head, true
	if !changed {
		return m.refs, false, nil
	}
	if err := m.writeRefs(readable); err != nil {
		return nil, false, err
	}
	m.setRefs(readable)
	return m.refs, true, m.writePacks()
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

// KeepPulls says which pull requests are open. The heads of others are not
// brought, and what they have brought is removed in time. Without a call, all
// heads are brought.
func (m *Mirror) KeepPulls(open []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keep = make(map[string]bool, len(open))
	for _, n := range open {
		m.keep[fmt.Sprintf("%s%d/head", Pull, n)] = true
	}
}

// wanted reports whether a ref's commit is to be brought: it is a branch, or the
// head of an open pull request, or one that has just come or moved.
func (m *Mirror) wanted(name string, h plumbing.Hash) bool {
	return strings.HasPrefix(name, Branch) || m.keep == nil || m.keep[name] || m.observed && m.observedRefs[name] != h
}

// missing returns the commits of branches and of pull requests that are not here
// and are to be brought now, sorted.
func (m *Mirror) missing(refs map[string]plumbing.Hash) (branches, pulls []plumbing.Hash) {
	for name, h := range refs {
		if !m.wanted(name, h) || m.refused[h] != "" || time.Now().Before(m.failed[h].next) {
			continue
		}
		if p, _ := m.own.find(h); p != nil {
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
	there := make(map[plumbing.Hash]bool, len(refs))
	for _, h := range refs {
		there[h] = true
	}
	maps.DeleteFunc(m.failed, func(h plumbing.Hash, _ failure) bool { return !there[h] })
	maps.DeleteFunc(m.refused, func(h plumbing.Hash, _ string) bool { return !there[h] })
	maps.DeleteFunc(m.alone, func(h plumbing.Hash, _ bool) bool { return !there[h] })
	return branches, pulls
}

// haves returns commits that are here and that the remote has or had, so that
// it sends only what is new: where the refs that move were, where branches are,
// and some way back along them, for the remote may have dropped the newest.
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

// A failure is a commit that the remote names and does not send.
type failure struct {
	why   string
	pause time.Duration // until it is asked for again
	next  time.Time
}

const (
	maxFetches = 64 // requests for packs of branches in one Observe, and of pull requests
	firstPause = 5 * time.Second
	maxPause   = 10 * time.Minute

	// How long one Observe takes at most to bring branches other than main, and to bring pull requests: at most half of
	// the time that is left, too. What is left is brought by the next ones.
	branchesTime = 10 * time.Minute
	pullsTime    = 2 * time.Minute
)

// A fetch brings commits in one Observe.
type fetch struct {
	m       *Mirror
	session transport.UploadPackSession
	adv     *packp.AdvRefs
	haves   []plumbing.Hash
	tries   int
}

// others brings commits of refs that are not main. None of them keeps main, or another of them, from being read:
// where they take too long together, or the way to the remote breaks, each is asked for alone, and the one that takes
// too long alone is asked for again after a pause. The error of each is noted.
func (f *fetch) others(ctx context.Context, wants []plumbing.Hash, most bounds, limit time.Duration) {
	if len(wants) == 0 {
		return
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	atOnce := func(wants []plumbing.Hash) error {
		ctx, cancel := context.WithTimeout(ctx, limit/2)
		defer cancel()
		err := f.bring(ctx, wants, most)
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("it takes longer than %s", (limit / 2).Round(time.Second/10))
		}
		return err
	}
	m := f.m
	var together, alone []plumbing.Hash
	m.mu.Lock()
	for _, h := range wants {
		if m.alone[h] {
			alone = append(alone, h)
		} else {
			together = append(together, h)
		}
	}
	m.mu.Unlock()
	if err := atOnce(together); err != nil && len(together) > 1 {
		m.mu.Lock()
		for _, h := range together {
			if p, _ := m.own.find(h); p == nil && m.refused[h] == "" {
				m.alone[h] = true
				alone = append(alone, h)
			}
		}
		m.mu.Unlock()
	} else if err != nil && ctx.Err() != context.Canceled {
		f.fail(together[0], err)
	}
	m.mu.Lock()
	slices.SortStableFunc(alone, func(a, b plumbing.Hash) int {
		return cmp.Compare(m.failed[a].pause, m.failed[b].pause) // one that never failed comes first
	})
	m.mu.Unlock()
	for _, h := range alone {
		if ctx.Err() != nil {
			return
		}
		if err := atOnce([]plumbing.Hash{h}); err != nil && ctx.Err() != context.Canceled {
			f.fail(h, err)
		}
	}
}

// fail notes that a commit could not be brought. It is asked for again after a pause.
func (f *fetch) fail(h plumbing.Hash, err error) {
	m := f.m
	m.mu.Lock()
	defer m.mu.Unlock()
	pause := min(max(2*m.failed[h].pause, firstPause), maxPause)
	m.failed[h] = failure{m.remote.explain("fetch", err).Error(), pause, time.Now().Add(pause)}
}

// bring brings commits and all that they need. What is too large is noted, commit by commit, and so is what the remote
// does not send: one branch that is damaged there keeps no other from being read.
func (f *fetch) bring(ctx context.Context, wants []plumbing.Hash, most bounds) error {
	if len(wants) == 0 {
		return nil
	}
	m := f.m
	err := errors.New("too many commits could not be brought")
	if f.tries--; f.tries >= 0 {
		err = f.try(ctx, wants, most)
	}
	much, tooLarge := errors.AsType[tooMuch](err)
	switch {
	case err == nil:
		return nil
	case !tooLarge && !sent(ctx, err):
		return m.remote.explain("fetch", err)
	case len(wants) > 1:
		for half := range slices.Chunk(wants, (len(wants)+1)/2) {
			if err := f.bring(ctx, half, most); err != nil {
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
	m.refused[wants[0]] = much.what
	return nil
}

// sent reports whether an error is about what the remote has sent, and not about
// the way to it, its permission, or this machine.
func sent(ctx context.Context, err error) bool {
	if ctx.Err() != nil || isWait(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	_, blocked := errors.AsType[delivery.Blocked](err)
	_, network := errors.AsType[net.Error](err)
	_, file := errors.AsType[*fs.PathError](err)
	_, link := errors.AsType[*os.LinkError](err)
	return !blocked && !network && !file && !link
}

func (f *fetch) try(ctx context.Context, wants []plumbing.Hash, most bounds) error {
	m := f.m
	rec, err := m.receive(ctx, f.session, f.adv, wants, f.haves, most)
	if err != nil {
		return unwrap(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if most == pullBounds && rec.size >= smallPack {
		m.pulled["pack-"+rec.sum.String()] = wants
	}
	if err := m.own.add(rec); err != nil {
		return fmt.Errorf("write to the mirror %s: %w", m.dir, err)
	}
	for _, h := range wants {
		if p, _ := m.own.find(h); p == nil {
			return fmt.Errorf("it showed commit %.10s and did not send it", h)
		}
		delete(m.failed, h)
		delete(m.alone, h)
	}
	// What comes next may build on it.
	f.haves = append(f.haves, wants[:min(len(wants), max(0, 2*maxFetches-len(f.haves)))]...)
	return nil
}

func (m *Mirror) receive(ctx context.Context, session transport.UploadPackSession, adv *packp.AdvRefs, wants,
	haves []plumbing.Hash, most bounds) (received, error) {
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
	return m.own.receive(ctx, pack, most)
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
