package forge

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Every kind of forge that takes webhooks takes its own, and no others. Each kind says
// here how a request is made that it believes.
func TestWebhooksOfKinds(t *testing.T) {
	const secret, body = "between us", `{"ref":"refs/heads/main","after":"abc"}`
	believed := map[string]func(*http.Request){
		"gitea": func(r *http.Request) {
			r.Header.Set("X-Gitea-Signature", sign(secret, body))
			r.Header.Set("X-Gitea-Event", "push")
		},
		"github": func(r *http.Request) {
			r.Header.Set("X-Hub-Signature-256", "sha256="+sign(secret, body))
			r.Header.Set("X-GitHub-Event", "push")
		},
		"gitlab": func(r *http.Request) {
			r.Header.Set("X-Gitlab-Token", secret)
			r.Header.Set("X-Gitlab-Event", "Push Hook")
		},
		"local": nil,
	}
	for name, kind := range Kinds {
		t.Run(name, func(t *testing.T) {
			sign, known := believed[name]
			if !known {
				t.Fatal("this test does not know what its webhooks are believed by")
			}
			c, err := kind.Connect(Settings{URL: "https://git.example.com", Repo: "vision/intent", Main: "main",
				Token: func() string { return "token" }, HookSecret: secret})
			if err != nil {
				t.Fatal(err)
			}
			if (c.Webhook != nil) != (sign != nil) || (kind.TokenHelp == "") != (sign == nil) {
				t.Fatalf("webhooks: %t, help for tokens %q", c.Webhook != nil, kind.TokenHelp)
			}
			if sign == nil {
				if c.Merge == nil {
					t.Error("a forge without pages needs the command to merge")
				}
				return
			}
			post := func(body string) *http.Request {
				return httptest.NewRequest(http.MethodPost, "/webhook", strings.NewReader(body))
			}
			good := post(body)
			sign(good)
			if event, err := c.Webhook(good); err != nil || event != (Event{"push", "refs/heads/main", "abc"}) {
				t.Errorf("its own webhook: %+v, %v", event, err)
			}
			changed := post(body + " ")
			if sign(changed); name == "gitlab" { // it sends the secret, which does not depend on the body
				changed.Header.Set("X-Gitlab-Token", secret+"x")
			}
			for what, bad := range map[string]*http.Request{"not signed": post(body), "another body": changed} {
				if _, err := c.Webhook(bad); !errors.Is(err, ErrSignature) {
					t.Errorf("%s: got %v, want ErrSignature", what, err)
				}
			}
			without, err := kind.Connect(Settings{URL: "https://git.example.com", Repo: "vision/intent",
				Token: func() string { return "token" }})
			if err != nil || without.Webhook != nil {
				t.Errorf("without a secret it takes webhooks (%t), %v", without.Webhook != nil, err)
			}
		})
	}
}
