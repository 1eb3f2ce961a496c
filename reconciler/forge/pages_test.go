package forge

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// All open pull requests are listed, whatever a proxy leaves of the headers that tell of further pages, and however
// small the pages of a server are.
func TestAllPullRequestsAreListedWithoutHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		open, page  int
		total, link bool
	}{
		"both headers":                  {120, 50, true, true},
		"no Link":                       {120, 50, true, false},
		"no Link, small pages":          {120, 30, true, false},
		"no X-Total-Count":              {120, 50, false, true},
		"neither":                       {120, 50, false, false},
		"neither, small pages":          {45, 15, false, false},
		"neither, and a last full page": {100, 50, false, false},
		"none is open":                  {0, 50, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				page := 1
				_, _ = fmt.Sscan(r.URL.Query().Get("page"), &page)
				from, to := min((page-1)*c.page, c.open), min(page*c.page, c.open)
				if c.total {
					w.Header().Set("X-Total-Count", fmt.Sprint(c.open))
				}
				if c.link && to < c.open {
					w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?page=%d>; rel="next"`, r.Host, r.URL.Path, page+1))
				} else if c.link {
					w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?page=1>; rel="first"`, r.Host, r.URL.Path))
				}
				fmt.Fprint(w, "[")
				for i := from + 1; i <= to; i++ {
					if i > from+1 {
						fmt.Fprint(w, ",")
					}
					fmt.Fprintf(w, `{"number":%d,"state":"open","head":{"ref":"b%d","sha":"%040d","repo_id":1},`+
						`"base":{"ref":"main","repo_id":1},"user":{"login":"ada"}}`, i, i, i)
				}
				fmt.Fprint(w, "]")
			}))
			defer server.Close()
			f, err := NewGitea(Settings{URL: server.URL, Repo: "ada/intent", Token: func() string {
				return "x"
			}})
			if err != nil {
				t.Fatal(err)
			}
			prs, err := f.PullRequests(t.Context())
			if err != nil || len(prs) != c.open {
				t.Errorf("%d of %d open pull requests are listed, error %v", len(prs), c.open, err)
			}
			if requests > c.open/c.page+2 {
				t.Errorf("%d requests", requests)
			}
		})
	}
}
