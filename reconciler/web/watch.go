package web

// This file sends what changes in a status, while somebody watches it.

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An Update is what has changed in a status since the update before. The first one is the whole status.
type Update struct {
	At       time.Time           `json:"at"`
	LastTurn time.Time           `json:"lastTurn,omitzero"`
	Main     *Main               `json:"main,omitempty"`    // nil: as before
	Models   []Model             `json:"models,omitempty"`  // new and changed ones
	PRs      []PR                `json:"prs,omitempty"`     // new and changed ones
	Runs     []Run               `json:"runs,omitempty"`    // new and changed ones
	Fleets   []Fleet             `json:"fleets,omitempty"`  // new and changed ones
	Gone     map[string][]string `json:"gone,omitempty"`    // by list: the names, numbers or keys of what is gone
	Notices  *[]string           `json:"notices,omitempty"` // nil: as before
	More     *[]More             `json:"more,omitempty"`    // nil: as before
}

// empty reports whether nothing but the time has changed.
func (u Update) empty() bool {
	return u.Main == nil && u.Notices == nil && u.More == nil &&
		len(u.Models)+len(u.PRs)+len(u.Runs)+len(u.Fleets)+len(u.Gone) == 0
}

// Watching is how often a status is looked at that somebody watches, and after how long a watcher gets an update
// without a change, so that both sides know of each other.
const (
	watchEvery = time.Second
	watchAlive = 20 * time.Second
)

// A told is what a watcher knows: digests of the parts of a status, by list and name.
type told map[string]map[string]delivery.Digest

// update returns what a watcher does not know yet, and notes that it does now.
func (k told) update(s Status) Update {
	u := Update{At: s.At, LastTurn: s.LastTurn}
	if k.changed("main", s.Main) {
		u.Main = &s.Main
	}
	notices, more := list(s.Notices), list(s.More)
	if k.changed("notices", notices) {
		u.Notices = &notices
	}
	if k.changed("more", more) {
		u.More = &more
	}
	gone := func(name string, keys []string) {
		if len(keys) > 0 {
			if u.Gone == nil {
				u.Gone = map[string][]string{}
			}
			u.Gone[name] = keys
		}
	}
	var lost []string
	u.Models, lost = news(k, ListModels, s.Models, modelKey)
	gone(ListModels, lost)
	u.PRs, lost = news(k, ListPRs, s.PRs, prKey)
	gone(ListPRs, lost)
	u.Runs, lost = news(k, ListRuns, s.Runs, runKey)
	gone(ListRuns, lost)
	u.Fleets, lost = news(k, ListFleets, s.Fleets, fleetKey)
	gone(ListFleets, lost)
	return u
}

func modelKey(m Model) string { return m.Name }
func runKey(r Run) string     { return string(r.Key) }
func fleetKey(f Fleet) string { return f.Name }

func (k told) changed(part string, v any) bool {
	now := map[string]delivery.Digest{"": delivery.DigestOf(part, v)}
	same := k[part][""] == now[""]
	k[part] = now
	return !same
}

// news returns the items of a list that are new or changed, and the keys of those that are gone.
func news[T any](k told, name string, items []T, key func(T) string) (fresh []T, gone []string) {
	before, now := k[name], make(map[string]delivery.Digest, len(items))
	for _, it := range items {
		id, digest := key(it), delivery.DigestOf(name, it)
		if now[id] = digest; before[id] != digest {
			fresh = append(fresh, it)
		}
	}
	for id := range before {
		if _, there := now[id]; !there {
			gone = append(gone, id)
		}
	}
	slices.Sort(gone)
	k[name] = now
	return fresh, gone
}

// Apply returns a status with an update.
func (s Status) Apply(u Update) Status {
	s.At, s.LastTurn = u.At, u.LastTurn
	if u.Main != nil {
		s.Main = *u.Main
	}
	if u.Notices != nil {
		s.Notices = *u.Notices
	}
	if u.More != nil {
		s.More = *u.More
	}
	s.Models = applied(s.Models, u.Models, u.Gone[ListModels], modelKey)
	s.PRs = applied(s.PRs, u.PRs, u.Gone[ListPRs], prKey)
	slices.Reverse(s.PRs) // the newest first
	s.Runs = applied(s.Runs, u.Runs, u.Gone[ListRuns], runKey)
	s.Fleets = applied(s.Fleets, u.Fleets, u.Gone[ListFleets], fleetKey)
	slices.SortStableFunc(s.Runs, func(a, b Run) int {
		if ar, br := a.Phase == delivery.RunRunning, b.Phase == delivery.RunRunning; ar != br {
			return map[bool]int{true: -1, false: 1}[ar]
		}
		return b.Started.Compare(a.Started)
	})
	return s
}

func applied[T any](items, fresh []T, gone []string, key func(T) string) []T {
	items = slices.DeleteFunc(slices.Clone(items), func(v T) bool {
		return slices.Contains(gone, key(v)) ||
			slices.ContainsFunc(fresh, func(f T) bool { return key(f) == key(v) })
	})
	items = append(items, fresh...)
	slices.SortStableFunc(items, func(a, b T) int {
		switch ka, kb := key(a), key(b); {
		case ka < kb:
			return -1
		case ka > kb:
			return 1
		}
		return 0
	})
	return items
}

// serveWatch sends updates, one a line, until the client leaves.
func (a API) serveWatch(w http.ResponseWriter, r *http.Request) {
	ask, err := statusAskOf(r)
	if err == nil && (ask.After != "" || ask.Full) {
		err = badRequest("", "a status that is watched has one page, and is brief")
	}
	if err != nil {
		a.respondError(w, r, err)
		return
	}
	known, last := told{}, time.Time{}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	out := http.NewResponseController(w)
	for {
		s, err := a.Source.Status(r.Context())
		if err == nil {
			s, err = s.page(ask.Page)
		}
		switch {
		case r.Context().Err() != nil:
			return
		case err != nil && last.IsZero():
			a.respondError(w, r, err)
			return
		case err == nil:
			first := last.IsZero()
			u := known.update(s)
			if first {
				w.Header().Set("Content-Type", "application/x-ndjson")
				w.Header().Set("Cache-Control", "no-store")
				w.Header().Set("X-Content-Type-Options", "nosniff")
			}
			if first || !u.empty() || time.Since(last) > watchAlive {
				if err := json.NewEncoder(w).Encode(u); err != nil {
					return
				}
				if err := out.Flush(); err != nil {
					return
				}
				last = time.Now()
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// Watch calls show with each update of a page of the status, until ctx ends, show returns an error, or the server ends.
func (c *Client) Watch(ctx context.Context, limit int, show func(Update) error) error {
	resp, err := c.send(ctx, http.MethodGet, "/v1/watch?"+Page{Limit: limit}.query().Encode(), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(io.LimitReader(resp.Body, 1<<40))
	for {
		var u Update
		if err := lines.Decode(&u); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return &Error{Code: http.StatusBadGateway, What: "aob serve on " + c.socket + " has ended",
					Do: "start it again, or look at its log"}
			}
			return c.unreachable(ctx, err)
		}
		if err := show(u); err != nil {
			return err
		}
	}
}
