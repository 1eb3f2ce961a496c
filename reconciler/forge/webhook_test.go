package forge

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/autonomos/aob/tools/github/githubtest"
)

func sign(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

func TestWebhook(t *testing.T) {
	if _, err := Webhook(""); err == nil {
		t.Error("without a secret: no error")
	}
	const secret = "between us"
	read, err := Webhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	body := `{"ref":"refs/heads/main","after":"abc","secret":"x"}`
	pull := `{"action":"opened","pull_request":{"head":{"ref":"side","sha":"def"}}}`
	large := strings.Repeat(" ", maxWebhook+1)
	old := hmac.New(sha1.New, []byte(secret))
	old.Write([]byte(body))
	for _, tt := range []struct {
		name   string
		body   string
		header map[string]string
		want   Event
		err    error
	}{
		{"gitea", body, map[string]string{"X-Gitea-Signature": sign(secret, body), "X-Gitea-Event": "push"},
			Event{"push", "refs/heads/main", "abc"}, nil},
		{"forgejo", body, map[string]string{"X-Forgejo-Signature": sign(secret, body), "X-Forgejo-Event": "push"},
			Event{"push", "refs/heads/main", "abc"}, nil},
		{"github", pull, map[string]string{"X-Hub-Signature-256": "sha256=" + sign(secret, pull),
			"X-GitHub-Event": "pull_request"}, Event{"pull_request", "side", "def"}, nil},
		{"no signature", body, nil, Event{}, ErrSignature},
		{"empty signature", body, map[string]string{"X-Gitea-Signature": ""}, Event{}, ErrSignature},
		{"another secret", body, map[string]string{"X-Gitea-Signature": sign("x", body)}, Event{}, ErrSignature},
		{"no secret", body, map[string]string{"X-Gitea-Signature": sign("", body)}, Event{}, ErrSignature},
		{"another body", body + " ", map[string]string{"X-Gitea-Signature": sign(secret, body)}, Event{}, ErrSignature},
		{"cut short", body, map[string]string{"X-Gitea-Signature": sign(secret, body)[:32]}, Event{}, ErrSignature},
		{"no hex", body, map[string]string{"X-Gitea-Signature": "zz"}, Event{}, ErrSignature},
		{"SHA-1", body, map[string]string{"X-Hub-Signature": "sha1=" + hex.EncodeToString(old.Sum(nil))}, Event{},
			ErrSignature},
		{"SHA-1 in the place of SHA-256", body, map[string]string{"X-Hub-Signature-256": hex.EncodeToString(
			old.Sum(nil))}, Event{}, ErrSignature},
		{"a good one behind a bad one", body, map[string]string{"X-Gitea-Signature": sign("x", body),
			"X-Hub-Signature-256": "sha256=" + sign(secret, body)}, Event{}, ErrSignature},
		{"too large", large, map[string]string{"X-Gitea-Signature": sign(secret, large)}, Event{}, ErrWebhookTooLarge},
		{"no JSON", "hello", map[string]string{"X-Gitea-Signature": sign(secret, "hello")}, Event{}, nil},
		{"no object", `[1]`, map[string]string{"X-Gitea-Signature": sign(secret, `[1]`),
			"X-Gitea-Event": "a\x1b[31m\nb"}, Event{Kind: "a[31m b"}, nil},
	} {
		req := httptest.NewRequest(http.MethodPost, "/hook", strings.NewReader(tt.body))
		for name, value := range tt.header {
			req.Header[http.CanonicalHeaderKey(name)] = []string{value}
		}
		got, err := read(req)
		if !errors.Is(err, tt.err) || got != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
	if _, err := read(httptest.NewRequest(http.MethodGet, "/hook", nil)); err == nil {
		t.Error("a GET: no error")
	}
}

// FuzzWebhook sends what nobody has signed, and the same signed.
func FuzzWebhook(f *testing.F) {
	f.Add([]byte(`{"ref":"refs/heads/main","after":"abc"}`), "push", "X-Gitea-Signature", "00")
	f.Add([]byte(`{"pull_request":{"head":{"ref":"\u0000","sha":{}}}}`), "pull_request", "X-Hub-Signature-256",
		"sha256=")
	f.Add([]byte("\xff"), "\x1b", "X-Forgejo-Signature", strings.Repeat("0", 64))
	const secret = "between us"
	read, err := Webhook(secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte, kind, header, signature string) {
		req := httptest.NewRequest(http.MethodPost, "/hook", bytes.NewReader(body))
		req.Header.Set("X-Gitea-Event", kind)
		req.Header.Set(header, signature)
		if e, err := read(req); err == nil || e != (Event{}) {
			t.Errorf("not signed: got %+v, %v", e, err)
		}
		req = httptest.NewRequest(http.MethodPost, "/hook", bytes.NewReader(body))
		req.Header.Set("X-Gitea-Event", kind)
		req.Header.Set("X-Gitea-Signature", sign(secret, string(body)))
		e, err := read(req)
		if err != nil {
			t.Errorf("signed: %v", err)
		}
		for _, text := range []string{e.Kind, e.Ref, e.Commit} {
			if utf8.RuneCountInString(text) > 100 ||
				strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("for the log: %q", text)
			}
		}
	})
}

// The webhook of a merge queue names the commit that waits for statuses.
func TestWebhookOfAMergeQueue(t *testing.T) {
	server := githubtest.Start(t)
	repo := server.Repo("ada", "intent")
	read, err := Webhook(hookSecret)
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.Repeat("0123456789", 4)
	ref := "refs/heads/gh-readonly-queue/main/pr-7-" + commit
	got, err := read(server.MergeGroup(repo, ref, commit, hookSecret))
	if want := (Event{"merge_group", ref, commit}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}
