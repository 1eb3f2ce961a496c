package serve

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestFromHere(t *testing.T) {
	inside := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, c := range []struct {
		host, site string
		named      bool
		want       string // in the answer; empty: it is let in
	}{
		{"127.0.0.1:8380", "", true, ""},
		{"127.0.0.1", "", true, ""},
		{"[::1]:8380", "", true, ""},
		{"[::1]", "", true, ""},
		{"localhost:8380", "", true, ""},
		{"LOCALHOST", "same-origin", true, ""},
		{"models.localhost.", "same-site", true, ""},
		{"robot-7:8380", "none", true, ""},
		{"host.docker.internal:8380", "", true, ""},
		{"robot.local", "", true, ""},
		{"", "", true, ""},
		{"evil.example:8380", "same-origin", true, "is for the host evil.example:8380"},
		{"127.0.0.1.evil.example", "", true, "is for the host"},
		{"localhost.evil.example:80", "", true, "is for the host"},
		{"evil.example\x1b[2J", "", true, "evil.example[2J"},
		{"evil.example", "", false, ""},
		{"evil.example", "cross-site", false, "another site"},
		{"127.0.0.1:8380", "cross-site", true, "another site"},
	} {
		r := httptest.NewRequest(http.MethodPost, "/v1/detect", nil)
		r.Host = c.host
		if c.site != "" {
			r.Header.Set("Sec-Fetch-Site", c.site)
		}
		w := httptest.NewRecorder()
		FromHere(inside, c.named).ServeHTTP(w, r)
		body := w.Body.String()
		code := map[bool]int{true: http.StatusOK, false: http.StatusForbidden}[c.want == ""]
		if w.Code != code || !strings.Contains(body, c.want) {
			t.Errorf("%s, %s, %v: %d %s, want %d %s", c.host, c.site, c.named, w.Code, body, code, c.want)
		}
	}
}
