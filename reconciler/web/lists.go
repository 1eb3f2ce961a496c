package web

// This file makes answers brief, and cuts them into pages: a server may have thousands of models and pull requests.

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Lists of a status that have pages.
const (
	ListModels = "models"
	ListPRs    = "prs"
	ListRuns   = "runs"
	ListFleets = "fleets"
)

// A StatusAsk says how much of a status is asked for.
type StatusAsk struct {
	Page // of each list; with After only of the one that it names
	// Full asks for everything, without pages: all facts, releases and devices.
	Full bool
}

// More says that a list of a status goes on.
type More struct {
	List  string `json:"list"`  // models, prs, runs or fleets
	Count int    `json:"count"` // items that are not listed
	Next  string `json:"next"`  // the After that asks for them
}

// A PRAsk says which pull requests are asked for.
type PRAsk struct {
	Page
	Full   bool   // with the facts of all texts
	Branch string // only those of this branch
}

// A PRList is a page of pull requests.
type PRList struct {
	PRs  []PR   `json:"prs"` // the newest first, without the fields that only Source.PR sets
	More int    `json:"more,omitempty"`
	Next string `json:"next,omitempty"`
}

// A TrainingAsk says which trainings are asked for, and in which order.
type TrainingAsk struct {
	Page
	Full  bool   // with the facts of all texts
	Model string // only those of this model
	From  string // only those of one kind: try, pr or release
	Sort  string // asked, mAP, diff or gate
}

// A TrainingList is a page of trainings.
type TrainingList struct {
	Trainings []Training `json:"trainings"`
	More      int        `json:"more,omitempty"`
	Next      string     `json:"next,omitempty"`
}

func (a API) handleLists(get func(string, func(*http.Request) (any, error))) {
	get("/v1/status", func(r *http.Request) (any, error) {
		ask, err := statusAskOf(r)
		if err != nil {
			return nil, err
		}
		s, err := a.Source.Status(r.Context())
		if !ask.Full && err == nil {
			s, err = s.page(ask.Page)
		}
		return s.withLists(), err
	})
	get("/v1/prs", func(r *http.Request) (any, error) {
		page, err := pageOf(r)
		if err != nil {
			return nil, err
		}
		prs, err := a.Source.PRs(r.Context())
		if err != nil {
			return nil, err
		}
		q := r.URL.Query()
		if branch := q.Get("branch"); branch != "" {
			prs = slices.DeleteFunc(slices.Clone(prs), func(p PR) bool { return p.HeadRef != branch })
		}
		var v PRList
		if err := afterNumber(page.After); err != nil {
			return v, err
		}
		v.PRs, v.More, v.Next = cutNewest(prs, page, prKey)
		v.PRs = delivery.Each(v.PRs, PR.withLists) // a copy: the source keeps its list
		if q.Get("full") != "true" {
			v.PRs = delivery.Each(v.PRs, PR.brief)
		}
		v.PRs = list(v.PRs)
		return v, nil
	})
	get("/v1/trainings", func(r *http.Request) (any, error) {
		page, err := pageOf(r)
		if err != nil {
			return nil, err
		}
		q := r.URL.Query()
		before, ok := TrainingSorts[q.Get("sort")]
		if !ok && q.Get("sort") != "" {
			return nil, badRequest("", "sort: there is no order %q", truncate(q.Get("sort")))
		}
		all, err := a.Source.Trainings(r.Context())
		if err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(slices.Clone(all), func(t Training) bool {
			model, from := q.Get("model"), q.Get("from")
			return model != "" && t.Model != model || from != "" && t.Kind() != from
		})
		if ok {
			slices.SortStableFunc(all, before)
		}
		var v TrainingList
		if v.Trainings, v.More, v.Next, err = cutAt(all, page, trainingKey); err != nil {
			return nil, err
		}
		if q.Get("full") != "true" {
			v.Trainings = delivery.Each(v.Trainings, Training.brief)
		}
		v.Trainings = list(v.Trainings)
		return v, nil
	})
}

func statusAskOf(r *http.Request) (StatusAsk, error) {
	page, err := pageOf(r)
	return StatusAsk{page, r.URL.Query().Get("full") == "true"}, err
}

func prKey(p PR) string { return NumberKey(p.Number) }

// trainingKey tells trainings apart: a variant may be in two experiments, and a pull request may change two models.
func trainingKey(t Training) string { return strings.Join([]string{t.ID, t.Trial, t.Model}, " ") }

// cutAt is Cut for a list that is not sorted by key: the page begins behind the item of that key.
func cutAt[T any](all []T, p Page, key func(T) string) (page []T, more int, next string, err error) {
	if p.After != "" {
		i := slices.IndexFunc(all, func(v T) bool { return key(v) == p.After })
		if i < 0 {
			return nil, 0, "", badRequest("begin with the first page again", "after: %q is not in the list any more",
				truncate(p.After))
		}
		all = all[i+1:]
	}
	p.After = ""
	page, more, next = Cut(all, p, key)
	return page, more, next, nil
}

// afterNumber refuses a page that does not begin behind a number.
func afterNumber(after string) error {
	if n, err := strconv.Atoi(after); after != "" && (err != nil || NumberKey(n) != after) {
		return badRequest("use the value of next", "after: want a value of next, got %q", truncate(after))
	}
	return nil
}

// shownDevices is about how many devices a page of a status lists in all. Each fleet lists some.
const shownDevices = 1000

// page returns a brief page of a status.
func (s Status) page(p Page) (Status, error) {
	only, after, _ := strings.Cut(p.After, "/")
	if p.After != "" && !slices.Contains([]string{ListModels, ListPRs, ListRuns, ListFleets}, only) {
		return s, badRequest("use the value of next under more", "after: want LIST/NAME, got %q", truncate(p.After))
	}
	of := func(name string) (Page, bool) {
		if only == "" || only == name {
			return Page{p.Limit, after}, true
		}
		return Page{}, false
	}
	if only == ListPRs {
		if err := afterNumber(after); err != nil {
			return s, err
		}
	}
	s.More = nil
	s.Models = part(&s, ListModels, s.Models, of, modelKey, Model.brief, Cut)
	s.PRs = part(&s, ListPRs, s.PRs, of, prKey, PR.brief, cutNewest)
	s.Fleets = part(&s, ListFleets, s.Fleets, of, fleetKey, Fleet.brief, Cut)
	each := max(10, shownDevices/max(1, len(s.Fleets)))
	for i := range s.Fleets {
		s.Fleets[i] = s.Fleets[i].few(each)
	}
	// Runs are in another order than their keys are.
	key := func(r Run) string { return string(r.Key) }
	if page, ok := of(ListRuns); !ok {
		s.Runs = nil
	} else {
		runs, more, next, err := cutAt(s.Runs, page, key)
		if err != nil {
			return s, err
		}
		if s.Runs = runs; more > 0 {
			s.More = append(s.More, More{ListRuns, more, ListRuns + "/" + next})
		}
	}
	s.Main.Checks = delivery.Each(s.Main.Checks, Check.brief)
	if n := len(s.Notices); n > p.Limit {
		s.Notices = append(slices.Clone(s.Notices[:p.Limit]), "and "+delivery.Count(n-p.Limit, "more note"))
	}
	return s, nil
}

// part cuts one list of a status.
func part[T any](s *Status, name string, all []T, of func(string) (Page, bool), key func(T) string,
	brief func(T) T, cut func([]T, Page, func(T) string) ([]T, int, string)) []T {
	page, ok := of(name)
	if !ok {
		return nil
	}
	items, more, next := cut(all, page, key)
	if more > 0 {
		s.More = append(s.More, More{name, more, name + "/" + next})
	}
	return delivery.Each(items, brief)
}

func (s Sentence) brief() Sentence { return Sentence{Text: s.Text} }

func (c Check) brief() Check { return Check{Check: c.Check} }

// brief leaves out facts, the figures of a release but for its mAP by the first gate, and the release file where it is
// the release that was accepted.
func (m Model) brief() Model {
	if m.Sentence = m.Sentence.brief(); m.Named != nil && m.Accepted != nil && m.Named.Bundle == m.Accepted.Bundle &&
		m.Named.Version == m.Accepted.Version {
		m.Named = nil
	}
	m.Accepted, m.Named = briefRelease(m.Accepted), briefRelease(m.Named)
	return m
}

func briefRelease(r *delivery.Release) *delivery.Release {
	if r == nil {
		return nil
	}
	short := *r
	short.Measured, short.Variants = nil, nil
	for _, m := range r.Measured[:min(1, len(r.Measured))] {
		m.Baseline = nil
		all := m.Metrics
		m.Metrics = map[string]delivery.Figure{}
		if f, ok := all[delivery.MetricMAP]; ok {
			m.Metrics[delivery.MetricMAP] = f
		}
		short.Measured = append(short.Measured, m)
	}
	for _, v := range r.Variants {
		v.Faster = nil
		short.Variants = append(short.Variants, v)
	}
	return &short
}

func (p PR) brief() PR {
	p.Sentence, p.Checks = p.Sentence.brief(), delivery.Each(p.Checks, Check.brief)
	return p
}

func (f Fleet) brief() Fleet {
	f.Sentence = f.Sentence.brief()
	return f
}

// few leaves at most n devices, those first that need attention.
func (f Fleet) few(n int) Fleet {
	if len(f.Devices) <= n {
		return f
	}
	sorted := slices.Clone(f.Devices)
	slices.SortStableFunc(sorted, func(a, b Device) int { return a.calm() - b.calm() })
	f.More += len(sorted) - n
	f.Devices = slices.Clip(sorted[:n])
	slices.SortFunc(f.Devices, func(a, b Device) int { return strings.Compare(a.ID, b.ID) })
	return f
}

// calm is 1 for a device that needs no attention.
func (d Device) calm() int {
	if d.Silent || d.Why != "" || len(d.Notes) > 0 || d.Phase != delivery.DeviceHealthy {
		return 0
	}
	return 1
}

func (t Training) brief() Training {
	t.Sentence = t.Sentence.brief()
	t.Seeds = delivery.Each(t.Seeds, func(s Seed) Seed {
		s.Sentence = s.Sentence.brief()
		return s
	})
	return t
}

// StatusPage returns a page of the state of everything.
func (c *Client) StatusPage(ctx context.Context, ask StatusAsk) (Status, error) {
	q := ask.query()
	q.Set("full", strconv.FormatBool(ask.Full))
	return get[Status](ctx, c, "/v1/status?"+q.Encode())
}

// PRList returns a page of the open pull requests.
func (c *Client) PRList(ctx context.Context, ask PRAsk) (PRList, error) {
	q := ask.query()
	setNonEmpty(q, "branch", ask.Branch)
	q.Set("full", strconv.FormatBool(ask.Full))
	return get[PRList](ctx, c, "/v1/prs?"+q.Encode())
}

// TrainingList returns a page of what was trained.
func (c *Client) TrainingList(ctx context.Context, ask TrainingAsk) (TrainingList, error) {
	q := ask.query()
	setNonEmpty(q, "model", ask.Model)
	setNonEmpty(q, "from", ask.From)
	setNonEmpty(q, "sort", ask.Sort)
	q.Set("full", strconv.FormatBool(ask.Full))
	return get[TrainingList](ctx, c, "/v1/trainings?"+q.Encode())
}

func setNonEmpty(q url.Values, name, value string) {
	if value != "" {
		q.Set(name, value)
	}
}

// Status returns the state of everything, in full.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return c.StatusPage(ctx, StatusAsk{Full: true})
}

// PRs returns all open pull requests.
func (c *Client) PRs(ctx context.Context) ([]PR, error) {
	return everyPage(func(p Page) ([]PR, string, error) {
		v, err := c.PRList(ctx, PRAsk{Page: p, Full: true})
		return v.PRs, v.Next, err
	})
}

// Trainings returns all that was trained, newest first.
func (c *Client) Trainings(ctx context.Context) ([]Training, error) {
	return everyPage(func(p Page) ([]Training, string, error) {
		v, err := c.TrainingList(ctx, TrainingAsk{Page: p, Full: true})
		return v.Trainings, v.Next, err
	})
}

// everyPage reads all pages of a list.
func everyPage[T any](get func(Page) (items []T, next string, err error)) ([]T, error) {
	all := []T{}
	for p := (Page{Limit: MaxLimit}); ; {
		items, next, err := get(p)
		if all = append(all, items...); err != nil || next == "" {
			return all, err
		}
		p.After = next
	}
}
