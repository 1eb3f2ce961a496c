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

// Push updates a ref of the remote from old to hash with compare-and-swap. An empty old means that the ref must not
// exist. An empty hash removes the ref. The error is ErrMoved if the ref is at another commit, and Blocked with the
// remote's message if the remote refuses the push, for example because the branch is protected. Push returns nil if the
// ref is at hash already, so it can be repeated.
func (m *Mirror) Push(ctx context.Context, hash, ref, old string) error {
	cmd := &packp.Command{Name: plumbing.ReferenceName(ref)}
	if !strings.HasPrefix(ref, "refs/") || !validRef(ref) {
		return fmt.Errorf("push: %q is not a ref", ref)
	}
	for _, text := range []string{hash, old} {
		if _, ok := parseHash(text); !ok && text != "" {
			return fmt.Errorf("push: %q is not the hash of a commit", text)
		}
	}
	cmd.New, cmd.Old = plumbing.NewHash(hash), plumbing.NewHash(old)
	if cmd.New == cmd.Old {
		return fmt.Errorf("push %s: the old and the new commit are both %.10s", ref, cmd.Old)
	}
	endpoint, err := m.remote.now(ctx)
	if err != nil {
		return err
	}
	session, err := m.remote.client.NewReceivePackSession(endpoint, m.remote.credentials())
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
		return m.movedError(cmd, adv.References[ref])
	}
	req := packp.NewReferenceUpdateRequestFromCapabilities(adv.Capabilities)
	req.Commands = []*packp.Command{cmd}
	output := &remoteOutput{}
	if adv.Capabilities.Supports(capability.Sideband64k) {
		if err := req.Capabilities.Set(capability.Sideband64k); err != nil {
			return err
		}
		req.Progress = output
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
	// The remote also compares with old, under its lock, but the error text differs between
	// servers. Read the ref again to find out what has happened.
	at, atErr := m.at(ctx, ref)
	switch {
	case atErr != nil:
		return m.remote.explain("push to", err)
	case at == cmd.New:
		return nil
	case at != cmd.Old:
		return m.movedError(cmd, at)
	case report == nil:
		return m.remote.explain("push to", err)
	}
	refused := func(do, why string) error {
		return delivery.Blockedf(do, "push to %s of %s: %s", strings.TrimPrefix(ref, Branch), m.remote.url, why)
	}
	why := output.explain(report.Error())
	if lock := lockFile.FindStringSubmatch(output.b.String()); lock != nil {
		return refused("remove the file if no git is running there: a git that was killed has left it",
			"the lock file "+delivery.Terminal(path.Clean(lock[1]))+" exists")
	}
	for text, b := range m.remote.refusals {
		if strings.Contains(output.b.String(), text) {
			return refused(b.Do, b.What+": "+why)
		}
	}
	return refused("allow aob's user to push to this branch, or change its protection", why)
}

func (m *Mirror) movedError(cmd *packp.Command, at plumbing.Hash) error {
	return fmt.Errorf("push to %s of %s: it is at %.10s, not %.10s: %w", strings.TrimPrefix(cmd.Name.String(), Branch),
		m.remote.url, at, cmd.Old, ErrMoved)
}

// At asks the remote for the present commit of a ref, and returns "" if the ref does not
// exist. It does not change the state of the mirror.
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
		if b, bad := state.unreadable[ref]; bad {
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

// outgoing returns a pack with the objects of a commit and its history that the remote does not have.
func (m *Mirror) outgoing(h plumbing.Hash, refs map[string]plumbing.Hash) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.commit(h); err != nil {
		return nil, err
	}
	commits, err := m.unpushed(h, refs)
	if err != nil {
		return nil, err
	}
	w := writer{added: map[plumbing.Hash]bool{}}
	for _, c := range commits {
		if err := w.addCommit(m, c); err != nil {
			return nil, err
		}
	}
	return encode(w.objects, 0)
}

// unpushed returns a commit and those commits of its history that the remote does not have. The remote has the commits
// of its refs and the history of its branches. The histories of pull requests are not walked: anybody can push a long
// one, and AOB creates commits only on top of their heads.
func (m *Mirror) unpushed(h plumbing.Hash, refs map[string]plumbing.Hash) ([]*commit, error) {
	onRemote := map[plumbing.Hash]bool{}
	known := m.reached // main's history, mostly
	var branches []string
	for _, list := range []map[string]plumbing.Hash{refs, m.observedRefs} {
		for _, at := range list {
			onRemote[at] = true
		}
	}
	if !onRemote[m.reachedFrom] {
		known = nil
	}
	if commits, root, err := m.unpushedUpTo(h, onRemote, known); err == nil && !root {
		return commits, nil
	}
	// The commit's parent is not the tip of a ref. Walk the branches, main first.
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
		// Ignore errors: a damaged or too long branch must not prevent a push to another one.
		m.walkAtMost(maxCommits-len(walked), func(c *commit) bool {
			if walked[c.hash] {
				return false
			}
			walked[c.hash] = true
			return true
		}, refs[name])
	}
	commits, _, err := m.unpushedUpTo(h, onRemote, walked)
	if errors.Is(err, errTooLong) {
		return nil, delivery.Blockedf("make the change again on top of main",
			"commit %.10s has more than %d commits that no branch of %s has", h, maxAhead, m.remote.url)
	}
	return commits, err
}

// unpushedUpTo returns a commit and its history, without commits in onRemote or known and their history. root is true
// if it contains a commit without parents.
func (m *Mirror) unpushedUpTo(h plumbing.Hash, onRemote, known map[plumbing.Hash]bool) (commits []*commit, root bool,
	err error) {
	err = m.walkAtMost(maxAhead, func(c *commit) bool {
		if onRemote[c.hash] || known[c.hash] {
			return false
		}
		commits = append(commits, c)
		root = root || len(c.parents) == 0
		return true
	}, h)
	return commits, root, err
}

// mainRef returns the ref of main: Remote.Main, or the target of the remote's HEAD.
func (m *Mirror) mainRef(head string) string {
	if m.remote.main != "" {
		return Branch + m.remote.main
	}
	return head
}

// lockFile matches git's error message about a lock file that exists.
var lockFile = regexp.MustCompile(`Unable to create '([^'\n]{1,1000}\.lock)': File exists`)

// A remoteOutput keeps the first 4 KiB of the remote's output during a push, which contain the reason of a refusal.
type remoteOutput struct{ b bytes.Buffer }

func (w *remoteOutput) Write(p []byte) (int, error) {
	if room := 4<<10 - w.b.Len(); room > 0 {
		w.b.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// explain returns the text of err with the remote's output, on one line.
func (w *remoteOutput) explain(err error) string {
	text := delivery.PlainText(strings.Join(strings.Fields(w.b.String()), " "), 300)
	if text == "" {
		return err.Error()
	}
	return err.Error() + " (" + text + ")"
}
