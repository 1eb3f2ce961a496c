package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Push moves a ref of the remote to a commit, if it is at old: empty means that
// it must not be there. An empty hash removes the ref. Where the ref is
// elsewhere the error is ErrMoved; where the remote refuses, as for a protected
// branch, it is Blocked with the remote's own words. A repeat of a push that
// came through is nil.
func (m *Mirror) Push(ctx context.Context, hash, ref, old string) error {
	cmd := &packp.Command{Name: plumbing.ReferenceName(ref)}
	if !strings.HasPrefix(ref, "refs/") || !properRef(ref) {
		return fmt.Errorf("push: %q is not a ref", ref)
	}
	for _, c := range []struct {
		text string
		hash *plumbing.Hash
	}{{hash, &cmd.New}, {old, &cmd.Old}} {
		h, ok := parseHash(c.text)
		if !ok && c.text != "" {
			return fmt.Errorf("push: %q is not the hash of a commit", c.text)
		}
		*c.hash = h
	}
	if cmd.New == cmd.Old {
		return fmt.Errorf("push %s: from %.10s to %.10s is no move", ref, cmd.Old, cmd.New)
	}
	session, err := m.remote.client.NewReceivePackSession(m.remote.end, m.remote.method())
	if err != nil {
		return m.remote.explain("push to", err)
	}
	defer session.Close()
	adv, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return m.remote.explain("push to", err)
	}
	switch adv.References[ref] {
	case cmd.New:
		return nil
	case cmd.Old:
	default:
		return m.moved(cmd, adv.References[ref])
	}
	req := packp.NewReferenceUpdateRequestFromCapabilities(adv.Capabilities)
	req.Commands = []*packp.Command{cmd}
	words := &words{}
	if adv.Capabilities.Supports(capability.Sideband64k) {
		if err := req.Capabilities.Set(capability.Sideband64k); err != nil {
			return err
		}
		req.Progress = words
	}
	if !cmd.New.IsZero() {
		pack, err := m.outgoing(cmd.New, adv.References)
		if err != nil {
			return err
		}
		req.Packfile = io.NopCloser(bytes.NewReader(pack))
	}
	report, err := session.ReceivePack(ctx, req)
	if err == nil {
		return nil
	}
	// The remote compares with old once more, under its lock, but every server
	// words it differently. Where the ref is now says what happened.
	at, again := m.at(ctx, ref)
	switch {
	case again != nil:
		return m.remote.explain("push to", err)
	case at == cmd.New:
		return nil
	case at != cmd.Old:
		return m.moved(cmd, at)
	case report != nil && lockFile.MatchString(words.b.String()):
		lock := path.Clean(lockFile.FindStringSubmatch(words.b.String())[1])
		return delivery.Blockedf("remove the file if no git is running there: one that was killed has left it",
			"push to %s of %s: the lock file %s is there already", strings.TrimPrefix(ref, Branch), m.remote.url,
			delivery.Terminal(lock))
	case report != nil && strings.Contains(words.b.String(), "unverified commit"): // as Gitea says it
		return delivery.Blockedf(
			"set commits.signingKey in aob's configuration, as docs/gitea.md says, "+
				"or lift the protection of this branch",
			"push to %s of %s: the server takes only commits there whose signatures it can verify: %s",
			strings.TrimPrefix(ref, Branch), m.remote.url, words.with(report.Error()))
	case report != nil:
		return delivery.Blockedf("let aob's user push there, or take the protection into account",
			"push to %s of %s: %s", strings.TrimPrefix(ref, Branch), m.remote.url, words.with(report.Error()))
	}
	return m.remote.explain("push to", err)
}

func (m *Mirror) moved(cmd *packp.Command, at plumbing.Hash) error {
	return fmt.Errorf("push to %s of %s: it is at %.10s, not %.10s: %w", strings.TrimPrefix(cmd.Name.String(), Branch),
		m.remote.url, at, cmd.Old, ErrMoved)
}

// At asks the remote where a ref is now; "" is nowhere. What Observe returns
// next does not depend on it.
func (m *Mirror) At(ctx context.Context, ref string) (string, error) {
	at, err := m.at(ctx, ref)
	if err != nil || at.IsZero() {
		return "", err
	}
	return at.String(), nil
}

func (m *Mirror) at(ctx context.Context, ref string) (plumbing.Hash, error) {
	if m.remote.folder != "" {
		state, err := readFolder(m.remote.folder, nil)
		if err != nil {
			return plumbing.ZeroHash, m.remote.explain("read", err)
		}
		if b, bad := state.bad[ref]; bad {
			return plumbing.ZeroHash, m.remote.explain("read", b)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.folder.stale = true
		return state.refs[ref], nil
	}
	session, adv, err := m.remote.advertised(ctx)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	defer session.Close()
	return adv.References[ref], nil
}

// outgoing packs what a commit needs and the remote does not have.
func (m *Mirror) outgoing(h plumbing.Hash, refs map[string]plumbing.Hash) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.commit(h); err != nil {
		return nil, err
	}
	news, err := m.news(h, refs)
	if err != nil {
		return nil, err
	}
	w := writer{done: map[plumbing.Hash]bool{}}
	for _, c := range news {
		if err := w.brings(m, c); err != nil {
			return nil, err
		}
	}
	return encode(w.objects, 0)
}

// news returns a commit and those of its history that the remote does not have. The remote has what its refs name, and
// the history of its branches. Histories of pull requests are not looked through: anybody may push a long one, and AOB
// makes commits on top of their heads only.
func (m *Mirror) news(h plumbing.Hash, refs map[string]plumbing.Hash) ([]*commit, error) {
	there := map[plumbing.Hash]bool{}
	known := m.reached // main's history, mostly
	var branches []string
	for _, list := range []map[string]plumbing.Hash{refs, m.observedRefs} {
		for _, at := range list {
			there[at] = true
		}
	}
	if !there[m.reachedFrom] {
		known = nil
	}
	if news, root, err := m.newsUpTo(h, there, known); err == nil && !root {
		return news, nil
	}
	// The commit follows one that is behind the tips.
	for name := range refs {
		if strings.HasPrefix(name, Branch) {
			branches = append(branches, name)
		}
	}
	main := m.mainRef(m.head)
	slices.SortFunc(branches, func(a, b string) int {
		switch main {
		case a:
			return -1
		case b:
			return 1
		}
		return strings.Compare(a, b)
	})
	walked := map[plumbing.Hash]bool{}
	for _, name := range branches {
		// A branch that is damaged, or too long, keeps no other from being pushed: what was seen of it counts.
		m.walkAtMost(maxCommits-len(walked), func(c *commit) bool {
			if walked[c.hash] {
				return false
			}
			walked[c.hash] = true
			return true
		}, refs[name])
	}
	news, _, err := m.newsUpTo(h, there, walked)
	if errors.Is(err, errTooLong) {
		return nil, delivery.Blockedf("make the change anew on top of main",
			"commit %.10s has more than %d commits that no branch of %s has", h, maxAhead, m.remote.url)
	}
	return news, err
}

// newsUpTo returns a commit and its history up to commits that are there or known. root says that it came to one
// without parents.
func (m *Mirror) newsUpTo(h plumbing.Hash, there, known map[plumbing.Hash]bool) (news []*commit, root bool, err error) {
	err = m.walkAtMost(maxAhead, func(c *commit) bool {
		if there[c.hash] || known[c.hash] {
			return false
		}
		news = append(news, c)
		root = root || len(c.parents) == 0
		return true
	}, h)
	return news, root, err
}

// mainRef is the ref of main: the branch that was named, or else the one that the remote's HEAD names.
func (m *Mirror) mainRef(head string) string {
	if m.remote.main != "" {
		return Branch + m.remote.main
	}
	return head
}

// lockFile finds the lock in what git says where it cannot take one.
var lockFile = regexp.MustCompile(`Unable to create '([^'\n]{1,1000}\.lock)': File exists`)

// words keeps what the remote says while it takes a push: the reason is there.
type words struct{ b bytes.Buffer }

func (w *words) Write(p []byte) (int, error) {
	if room := 4<<10 - w.b.Len(); room > 0 {
		w.b.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// with returns an error's text with the remote's words, on one line.
func (w *words) with(err error) string {
	text := strings.Join(strings.Fields(delivery.Terminal(w.b.String())), " ")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	if text == "" {
		return err.Error()
	}
	return err.Error() + " (" + text + ")"
}
