package forge

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

// Where GitLab does not say whether somebody has edited a question, it is not asked again, not even after a restart.
func TestGitLabUnsaid(t *testing.T) {
	for name, answer := range map[string]string{
		"an error": `{"errors": [{"message": "Timeout on validation of query"}]}`,
		"no note":  `{"data": {"note": null}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newGitLab(t)
			_, number := s.start()
			address, err := url.Parse(s.server.URL)
			if err != nil {
				t.Fatal(err)
			}
			proxy := httputil.NewSingleHostReverseProxy(address)
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/graphql") {
					w.Header().Set("Content-Type", "application/json")
					_, _ = w.Write([]byte(answer))
					return
				}
				proxy.ServeHTTP(w, r)
			}))
			t.Cleanup(front.Close)
			start := func() *GitLab {
				return must(NewGitLab(Settings{URL: front.URL, Repo: s.lab.path, Token: s.lab.token}))(t)
			}
			const question = "Does ada accept `mAP`?"
			if got := must(start().Ask(t.Context(), number, question))(t); len(got) != 0 {
				t.Fatalf("got %v", got)
			}
			notes := s.server.Notes(s.project, number)
			s.server.Award(s.project, s.ada, notes[len(notes)-1].ID, "thumbsup")
			if got, err := start().Ask(t.Context(), number, question); err == nil || len(got) != 0 {
				t.Errorf("got %v, %v", got, err)
			}
			if again := s.server.Notes(s.project, number); len(again) != len(notes) {
				t.Errorf("%d notes instead of %d", len(again), len(notes))
			}
		})
	}
}
