package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

// many is a source with many models, pull requests, fleets and trainings.
type many struct {
	*memorySource
	mu     sync.Mutex
	status web.Status
}

func (m *many) Status(context.Context) (web.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status, nil
}

func (m *many) PRs(context.Context) ([]web.PR, error) { return m.status.PRs, nil }

func (m *many) Trainings(context.Context) ([]web.Training, error) {
	var list []web.Training
	for i := range len(m.status.Models) {
		map1 := float64((i*37)%101) / 101
		list = append(list, web.Training{ID: fmt.Sprintf("shapes%d@1", i), Model: fmt.Sprintf("shapes%d", i),
			Version: 1, At: noon.Add(-time.Duration(i) * time.Hour), MAP: &delivery.Figure{Value: map1},
			Seeds: []web.Seed{{Seed: 1}}})
	}
	return list, nil
}

func (m *many) change(do func(s *web.Status)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	do(&m.status)
}

func newMany(models, prs int) *many {
	facts := []delivery.Fact{{Code: "several", Values: delivery.Values{Text: strings.Repeat("a long reason ", 20)}}}
	s := web.Status{At: noon, Main: web.Main{Branch: "main"}}
	for i := range models {
		r := delivery.Release{Name: fmt.Sprintf("shapes%04d", i), Version: 3, Bundle: delivery.Sum([]byte{byte(i)})}
		for g := range 3 {
			figures := map[string]delivery.Figure{}
			for c := range 20 {
				figures[fmt.Sprintf("AP/class%d", c)] = delivery.Figure{Value: 0.5}
			}
			figures[delivery.MetricMAP] = delivery.Figure{Value: 0.5}
			r.Measured = append(r.Measured, delivery.Measured{Gate: fmt.Sprint("gate", g), Metrics: figures})
		}
		s.Models = append(s.Models, web.Model{Name: r.Name, Accepted: &r, Named: &r, State: delivery.CheckSuccess,
			Sentence: web.Sentence{Text: "version 3", Facts: facts}})
	}
	for i := range prs {
		pr := web.PR{PullRequest: delivery.PullRequest{Number: prs - i, Title: "a change",
			HeadRef: fmt.Sprint("branch", prs-i-1)},
			State: delivery.CheckPending, Sentence: web.Sentence{Text: "waits", Facts: facts}}
		for c := range 8 {
			pr.Checks = append(pr.Checks, web.Check{Check: delivery.Check{Context: fmt.Sprint("aob/gate/", c),
				State: delivery.CheckPending, Description: "waits"}, Facts: facts})
		}
		s.PRs = append(s.PRs, pr)
	}
	fleet := web.Fleet{Name: "docks", Model: "shapes0000"}
	for i := range 1000 {
		fleet.Devices = append(fleet.Devices, web.Device{ID: fmt.Sprintf("dock-%04d", i),
			Phase: delivery.DeviceHealthy, Why: strings.Repeat("x", i/999)}) // the last one needs attention
	}
	for i := range 200 {
		f := fleet
		f.Name = fmt.Sprintf("docks-%04d", i)
		s.Fleets = append(s.Fleets, f)
	}
	return &many{memorySource: newMemorySource(), status: s}
}

// An answer without a page is brief, and as large for thousands of models as for hundreds.
func TestAnswersAreBounded(t *testing.T) {
	source := newMany(2000, 1000)
	handler := web.API{Source: source, Log: logger(t.Output())}.Handler()
	size := func(path string) int {
		t.Helper()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		return w.Body.Len()
	}
	for path, most := range map[string]int{"/v1/status": 600_000, "/v1/prs": 100_000, "/v1/trainings": 60_000,
		"/v1/status?limit=10": 400_000} {
		if n := size(path); n > most {
			t.Errorf("%s has %d bytes, want at most %d", path, n, most)
		}
	}
	if n := size("/v1/status?full=true"); n < 5_000_000 {
		t.Errorf("in full it has %d bytes", n)
	}
	t.Logf("status %d bytes, pull requests %d, trainings %d", size("/v1/status"), size("/v1/prs"),
		size("/v1/trainings"))
}

// The pages of a list together are the list.
func TestPagesAreTheWholeList(t *testing.T) {
	source := newMany(250, 130)
	c := serve(t, source)
	var models []string
	ask := web.StatusAsk{}
	for first := true; first || ask.After != ""; first = false {
		s, err := c.StatusPage(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		if !first && len(s.PRs)+len(s.Fleets) > 0 {
			t.Error("the second page of models has other lists")
		}
		for _, m := range s.Models {
			models = append(models, m.Name)
			if len(m.Facts) > 0 || m.Named != nil || len(m.Accepted.Measured) != 1 ||
				len(m.Accepted.Measured[0].Metrics) != 1 {
				t.Fatalf("not brief: %+v", m)
			}
		}
		ask.After = ""
		for _, more := range s.More {
			if more.List == web.ListModels {
				ask.After = more.Next
			}
		}
		if first {
			f := s.Fleets[0]
			if n := len(f.Devices); n > 20 || f.More != 1000-n || f.Devices[n-1].ID != "dock-0999" {
				t.Errorf("%d devices of a fleet, %d more, the last is %s", n, f.More, f.Devices[n-1].ID)
			}
		}
	}
	want := delivery.Each(source.status.Models, func(m web.Model) string { return m.Name })
	if diff := cmp.Diff(want, models); diff != "" {
		t.Errorf("models of all pages (-want +got):\n%s", diff)
	}
	prs, err := c.PRs(t.Context())
	if err != nil || len(prs) != 130 || len(prs[0].Facts) == 0 {
		t.Errorf("%d pull requests, %v", len(prs), err)
	}
	one, err := c.PRList(t.Context(), web.PRAsk{Branch: "branch7"})
	if err != nil || len(one.PRs) != 1 || one.PRs[0].Number != 8 || len(one.PRs[0].Checks[0].Facts) > 0 {
		t.Errorf("of a branch: %+v, %v", one, err)
	}
}

func TestTrainingsAreSortedAndPaged(t *testing.T) {
	c := serve(t, newMany(150, 1))
	page, err := c.TrainingList(t.Context(), web.TrainingAsk{Page: web.Page{Limit: 70}, Sort: "mAP"})
	if err != nil || page.More != 80 {
		t.Fatalf("%d more, %v", page.More, err)
	}
	next, err := c.TrainingList(t.Context(), web.TrainingAsk{Page: web.Page{Limit: 70, After: page.Next}, Sort: "mAP"})
	if err != nil || len(next.Trainings) != 70 || next.More != 10 {
		t.Fatalf("%d, %d more, %v", len(next.Trainings), next.More, err)
	}
	if next.Trainings[0].MAP.Value > page.Trainings[69].MAP.Value {
		t.Error("the second page has a better one than the first")
	}
	only, err := c.TrainingList(t.Context(), web.TrainingAsk{Model: "shapes7", From: "release"})
	if err != nil || len(only.Trainings) != 1 {
		t.Errorf("%v, %v", only, err)
	}
	if none, err := c.TrainingList(t.Context(), web.TrainingAsk{From: "try"}); err != nil || len(none.Trainings) != 0 {
		t.Errorf("%v, %v", none, err)
	}
	if _, err := c.TrainingList(t.Context(), web.TrainingAsk{Page: web.Page{After: "gone"}}); err == nil ||
		!strings.Contains(err.Error(), "is not in the list any more") {
		t.Errorf("a cursor that is gone: %v", err)
	}
}

// A watcher gets everything first, and then only what changes; what it has then is the status.
func TestWatch(t *testing.T) {
	source := newMany(30, 20)
	c := serve(t, source)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var s web.Status
	updates := 0
	err := c.Watch(ctx, 100, func(u web.Update) error {
		updates++
		s = s.Apply(u)
		switch updates {
		case 1:
			if len(u.Models) != 30 || len(u.PRs) != 20 || u.Main == nil {
				t.Errorf("the first update has %d models and %d pull requests", len(u.Models), len(u.PRs))
			}
			source.change(func(s *web.Status) {
				models := append([]web.Model{{Name: "another"}}, s.Models[1:]...)
				models[5].State = delivery.CheckFailure
				s.Models = models
			})
		case 2:
			line, _ := json.Marshal(u)
			if len(u.Models) != 2 || len(u.PRs) != 0 || len(u.Fleets) != 0 || u.Main != nil ||
				!cmp.Equal(u.Gone, map[string][]string{"models": {"shapes0000"}}) {
				t.Errorf("the second update is %s", line)
			}
			cancel()
		}
		return nil
	})
	if err == nil || ctx.Err() == nil {
		t.Errorf("ended with %v", err)
	}
	now, err := c.StatusPage(t.Context(), web.StatusAsk{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(now, s, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("after the updates (-want +got):\n%s", diff)
	}
	if err := c.Watch(t.Context(), 9999, func(web.Update) error { return nil }); err == nil {
		t.Error("a page that is too large is no error")
	}
}
