package forge

// This file finds AOB's repository by its id: its name changes when it is renamed or transferred, and another
// repository may take the old name.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v88/github"

	"github.com/autonomos/aob/reconciler/delivery"
)

// identityLasts is how long it is believed that a name is AOB's repository.
const identityLasts = time.Minute

// identityPatience is how long git waits for that.
const identityPatience = 5 * time.Second

// A known repository is one that AOB works with.
type known struct {
	ID   int64  `json:"id"`
	Name string `json:"name"` // owner/name, as it was last seen
}

// identity is what is known of AOB's repository.
type identity struct {
	mu   sync.Mutex
	repo known
	read bool      // what was kept has been read
	at   time.Time // when it was last found
}

// asking marks the context of the requests that find the repository.
type asking struct{}

// sameRepository is a transport that sends requests about the configured repository to where it is now, and refuses
// them if another repository has its name.
type sameRepository struct {
	forge *GitHub
	next  http.RoundTripper
}

func (t *sameRepository) RoundTrip(req *http.Request) (*http.Response, error) {
	old := "/repos/" + t.forge.name()
	i := strings.Index(req.URL.Path, old)
	if i < 0 || req.Context().Value(asking{}) != nil {
		return t.next.RoundTrip(req)
	}
	rest := req.URL.Path[i+len(old):]
	if rest != "" && rest[0] != '/' {
		return t.next.RoundTrip(req)
	}
	name, err := t.forge.where(req.Context())
	if err != nil {
		return nil, err
	}
	if name != t.forge.name() {
		req = req.Clone(req.Context())
		u := *req.URL
		u.Path, u.RawPath = u.Path[:i]+"/repos/"+name+rest, ""
		if raw := req.URL.RawPath; raw != "" { // an escaped branch
			u.RawPath = strings.Replace(raw, old, "/repos/"+name, 1)
		}
		req.URL = &u
	}
	return t.next.RoundTrip(req)
}

func (f *GitHub) identityKey() string {
	return "repository/" + delivery.DigestOf("forge", f.Address()).Short()
}

// where returns the present name of AOB's repository, owner/name. The first repository that is found under the
// configured name is AOB's.
func (f *GitHub) where(ctx context.Context) (name string, err error) {
	f.identity.mu.Lock()
	defer f.identity.mu.Unlock()
	if f.identity.repo.Name != "" && time.Since(f.identity.at) < identityLasts {
		return f.identity.repo.Name, nil
	}
	if err := f.readIdentity(ctx); err != nil {
		return "", err
	}
	before := f.identity.repo
	repo, err := f.named(ctx, before.Name)
	if missing(err) && before.Name != "" || err == nil && repo.GetID() != before.ID && before.ID != 0 {
		// Somebody may have given it its configured name back.
		if again, failed := f.named(ctx, f.name()); failed == nil && again.GetID() == before.ID {
			repo, err = again, nil
		}
	}
	if err != nil {
		return "", err
	}
	now := known{repo.GetID(), repo.GetFullName()}
	if before.ID != 0 && now.ID != before.ID {
		return "", delivery.Blockedf("find out where the old one is, and write its present name in forge.github.repo "+
			"and in repository; to work with the new one, give aob serve a new state folder",
			"%s is another repository now: its id is %d, and aob has worked with %d", f.name(), now.ID, before.ID)
	}
	if strings.Count(now.Name, "/") != 1 || now.ID == 0 {
		return "", errors.New("GitHub's answer has no repository")
	}
	if now != before && f.kept != nil {
		text, err := json.Marshal(now)
		if err == nil {
			err = f.kept.Keep(ctx, f.identityKey(), string(text))
		}
		if err != nil {
			return "", fmt.Errorf("keep the repository's id: %w", err)
		}
	}
	f.identity.repo, f.identity.at = now, time.Now()
	if f.app != nil {
		f.app.narrow(now.ID)
	}
	return now.Name, nil
}

// readIdentity reads which repository an earlier process has worked with.
func (f *GitHub) readIdentity(ctx context.Context) error {
	if f.identity.read || f.kept == nil {
		return nil
	}
	kept, err := f.kept.Kept(ctx, f.identityKey())
	if err != nil {
		return fmt.Errorf("read the repository's id: %w", err)
	}
	if text := kept[f.identityKey()]; text != "" {
		if err := json.Unmarshal([]byte(text), &f.identity.repo); err != nil {
			return fmt.Errorf("the repository's id in the ledger: %w", err)
		}
	}
	f.identity.read = true
	return nil
}

// named reads the repository of a name; "" is the configured one. GitHub redirects an old name.
func (f *GitHub) named(ctx context.Context, name string) (*github.Repository, error) {
	if name == "" {
		name = f.name()
	}
	owner, repo, _ := strings.Cut(name, "/")
	found, _, err := f.client.Repositories.Get(context.WithValue(ctx, asking{}, true), owner, repo)
	return found, err
}

// Present returns the address at which git finds the repository now, for its configured address. An error says that
// another repository has the name; if GitHub does not answer, the last known name is used.
func (f *GitHub) Present(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, identityPatience) // git may answer when the API does not
	defer cancel()
	_, err := f.where(ctx)
	if _, blocked := errors.AsType[delivery.Blocked](err); blocked || missing(err) {
		f.explain(&err, "find the repository")
		return "", err
	}
	f.identity.mu.Lock()
	defer f.identity.mu.Unlock()
	name := f.identity.repo.Name
	if name == "" || strings.EqualFold(name, f.name()) {
		return address, nil
	}
	base, git := strings.CutSuffix(address, ".git")
	if i := len(base) - len(f.name()); i > 0 && strings.EqualFold(base[i:], f.name()) {
		base = base[:i] + name
	}
	if git {
		base += ".git"
	}
	return base, nil
}
