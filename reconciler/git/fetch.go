package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/autonomos/aob/reconciler/delivery"
)

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
		m.pullPacks["pack-"+rec.sum.String()] = delivery.Each(wants, plumbing.Hash.String)
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
