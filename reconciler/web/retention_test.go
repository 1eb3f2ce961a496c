package web_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/web"
)

func TestRetention(t *testing.T) {
	c := serve(t, newMemorySource())
	names := func(ask web.RetentionAsk) string {
		t.Helper()
		v, err := c.Retention(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		var list []string
		for _, it := range v.Items {
			list = append(list, it.ID)
		}
		return strings.Join(append(list, v.Next), " ")
	}
	for want, ask := range map[string]web.RetentionAsk{
		"r ":   {},
		"b r ": {All: true},
		"b ":   {All: true, Kind: "bundle"},
		"b b":  {All: true, Page: web.Page{Limit: 1}},
	} {
		if got := names(ask); got != want {
			t.Errorf("%+v: %q, want %q", ask, got, want)
		}
	}
	if got := names(web.RetentionAsk{All: true, Page: web.Page{After: "b"}}); got != "r " {
		t.Errorf("the second page: %q", got)
	}
	if v, err := c.Remove(t.Context()); err != nil || v.Left != 3 || len(v.Items) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestPagesThatAreRefused(t *testing.T) {
	handler := web.API{Source: newMemorySource(), Log: logger(t.Output())}.Handler()
	for _, path := range []string{"gc?limit=0", "gc?limit=-1", "gc?limit=many", "gc?limit=5001", "gc?after=" +
		strings.Repeat("a", 301), "prs?after=1", "prs?after=zzz", "status?after=prs/1", "status?after=runs/gone",
		"status?after=nothing/1"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/"+path, nil))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// A page goes on where the one before ended, also if items were added or removed meanwhile.
func TestCut(t *testing.T) {
	key := func(s string) string { return s }
	all := strings.Split("abcdefg", "")
	var got []string
	page, more, next := web.Cut(all, web.Page{Limit: 3}, key)
	if more != 4 || next != "c" {
		t.Fatalf("%d more, next %q", more, next)
	}
	got = append(got, page...)
	all = slices.DeleteFunc(append([]string{"A"}, all...), func(s string) bool { return s == "c" || s == "e" })
	for next != "" {
		page, _, next = web.Cut(all, web.Page{Limit: 3, After: next}, key)
		got = append(got, page...)
	}
	if s := strings.Join(got, ""); s != "abcdfg" {
		t.Errorf("got %s", s)
	}
}
