package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Retention is what the server has stored, what of it is not needed, and why the rest stays.
type Retention struct {
	At    time.Time    `json:"at"`
	Kinds []StoredKind `json:"kinds"`
	// Items are those that would be removed, or were removed; with RetentionAsk.All, also those that stay.
	Items []Stored `json:"items"`
	More  int      `json:"more,omitempty"` // items behind the last one
	Next  string   `json:"next,omitempty"` // the After that asks for them
	Left  int      `json:"left,omitempty"` // things that are still to be removed, after a removal that took too long
}

// A StoredKind is what there is of one kind.
type StoredKind struct {
	Kind   string   `json:"kind"`
	Keep   Amount   `json:"keep"`
	Remove Amount   `json:"remove"` // what would be removed, or was removed
	Why    []Reason `json:"why"`    // things of this kind stay, the most frequent first
}

// An Amount is a number of things, and their size.
type Amount struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

// A Reason is why things stay. It is that of one of them, and those with the same code count with it.
type Reason struct {
	Sentence
	Amount
}

// A Stored is one thing that the server has stored.
type Stored struct {
	Kind  string    `json:"kind"`
	ID    string    `json:"id"`
	Name  string    `json:"name"`
	Bytes int64     `json:"bytes"`
	At    time.Time `json:"at"` // when it was last written or used
	Keep  bool      `json:"keep"`
	Sentence
}

// A RetentionAsk says which items are listed.
type RetentionAsk struct {
	Page
	Kind string // only these; "": all
	All  bool   // also those that stay
}

func (a API) handleRetention(handle func(string, func(http.ResponseWriter, *http.Request) (any, error))) {
	handle("GET /v1/gc", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		page, err := pageOf(r)
		if err != nil {
			return nil, err
		}
		q := r.URL.Query()
		v, err := a.Source.Retention(r.Context(), RetentionAsk{page, q.Get("kind"), q.Get("all") == "true"})
		return v.withLists(), err
	})
	handle("POST /v1/gc", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		user, _ := peerOf(r)
		a.Log.Info("request", "path", r.URL.Path, "user", user)
		v, err := a.Source.Remove(r.Context())
		return v.withLists(), err
	})
}

func (v Retention) withLists() Retention {
	v.Kinds, v.Items = list(v.Kinds), list(v.Items)
	return v
}

// Retention returns what the server has stored, and what of it is not needed.
func (c *Client) Retention(ctx context.Context, ask RetentionAsk) (Retention, error) {
	q := ask.query()
	q.Set("kind", ask.Kind)
	q.Set("all", strconv.FormatBool(ask.All))
	return get[Retention](ctx, c, "/v1/gc?"+q.Encode())
}

// Remove removes what is not needed, for some seconds. Retention.Left says how much is left to be removed.
func (c *Client) Remove(ctx context.Context) (Retention, error) {
	return exchange[Retention](ctx, c, http.MethodPost, "/v1/gc", nil)
}

// A Page says which part of a list is asked for. The order of a list is stable: what is behind After stays behind it,
// whatever is added or removed.
type Page struct {
	Limit int    // at most this many; 0 is [DefaultLimit]
	After string // the Next of the page before; "" is the first page
}

// Limits of pages.
const (
	DefaultLimit = 100
	MaxLimit     = 5000
)

func (p Page) query() url.Values {
	q := url.Values{}
	if p.Limit > 0 {
		q.Set("limit", strconv.Itoa(p.Limit))
	}
	if p.After != "" {
		q.Set("after", p.After)
	}
	return q
}

func pageOf(r *http.Request) (p Page, err error) {
	q := r.URL.Query()
	if p.Limit, err = number(q.Get("limit"), "limit", MaxLimit); err != nil {
		return p, err
	}
	if p.Limit == 0 {
		p.Limit = DefaultLimit
	}
	if p.After = q.Get("after"); len(p.After) > 300 {
		return p, badRequest("", "after: want the value of next, got %q", truncate(p.After))
	}
	return p, nil
}

func number(text, name string, most int) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, badRequest("", "%s: want a number from 1 to %d, got %q", name, most, truncate(text))
	}
	return n, nil
}

// Cut returns a page of a list that is sorted by key, and how many items are behind it. Keys must not repeat.
func Cut[T any](all []T, p Page, key func(T) string) (page []T, more int, next string) {
	return cut(all, p, key, strings.Compare)
}

// cutNewest is Cut for a list that is sorted by key, the greatest first.
func cutNewest[T any](all []T, p Page, key func(T) string) (page []T, more int, next string) {
	return cut(all, p, key, func(a, b string) int { return strings.Compare(b, a) })
}

func cut[T any](all []T, p Page, key func(T) string, order func(a, b string) int) (page []T, more int, next string) {
	for len(all) > 0 && p.After != "" && order(key(all[0]), p.After) <= 0 {
		all = all[1:]
	}
	limit := p.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	if len(all) <= limit {
		return all, 0, ""
	}
	return all[:limit], len(all) - limit, key(all[limit-1])
}

// NumberKey returns a number as a key that sorts as the number does.
func NumberKey(n int) string { return fmt.Sprintf("%010d", n) }
