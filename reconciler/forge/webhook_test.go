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
	"os"
	"os/exec"
	"path/filepath"
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

// The webhooks of GitLab are the examples of its official client. The secret is in a header.
func TestGitLabWebhooks(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "gitlab.com/gitlab-org/api/client-go/v2").Output()
	if err != nil {
		t.Fatal(err)
	}
	examples := filepath.Join(strings.TrimSpace(string(out)), "testdata", "webhooks")
	c, err := Kinds["gitlab"].Connect(Settings{Repo: "vision/intent", Token: func() string { return "token" },
		HookSecret: hookSecret})
	if err != nil {
		t.Fatal(err)
	}
	for example, tt := range map[string]struct {
		kind string
		want Event
	}{
		"push": {"Push Hook", Event{"push", "refs/heads/master", "da1560886d4f094c3e6c9ef40349f7d38b5d27d7"}},
		"merge_request": {"Merge Request Hook", Event{"merge_request", "ms-viewport",
			"da1560886d4f094c3e6c9ef40349f7d38b5d27d7"}},
		"note_merge_request": {"Note Hook", Event{"note", "master", "562e173be03b8ff2efb05345d12df18815438a4b"}},
		"pipeline": {"Pipeline Hook", Event{"status", "master",
			"bcbb5ec396a2c0f828686f14fac9b80b780504f2"}},
		"job":                      {"Job Hook", Event{"status", "main", "95d49d1efbd941908580e79d65e4b5ecaf4a8305"}},
		"emoji_note_merge_request": {"Emoji Hook", Event{"emoji", "feature/test", ""}},
	} {
		body, err := os.ReadFile(filepath.Join(examples, example+".json"))
		if err != nil {
			t.Fatal(err)
		}
		post := func(secret string) (Event, error) {
			req := httptest.NewRequest(http.MethodPost, "/webhook", bytes.NewReader(body))
			req.Header.Set("X-Gitlab-Token", secret)
			req.Header.Set("X-Gitlab-Event", tt.kind)
			return c.Webhook(req)
		}
		if got, err := post(hookSecret); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v", example, got, err, tt.want)
		}
		for _, wrong := range []string{"", hookSecret + "x", hookSecret[1:]} {
			if got, err := post(wrong); !errors.Is(err, ErrSignature) || got != (Event{}) {
				t.Errorf("%s with the secret %q: %+v, %v", example, wrong, got, err)
			}
		}
	}
	large := httptest.NewRequest(http.MethodPost, "/webhook", strings.NewReader(strings.Repeat(" ", maxWebhook+1)))
	large.Header.Set("X-Gitlab-Token", hookSecret)
	if _, err := c.Webhook(large); !errors.Is(err, ErrWebhookTooLarge) {
		t.Errorf("a large one: %v", err)
	}
	if _, err := c.Webhook(httptest.NewRequest(http.MethodGet, "/webhook", nil)); err == nil {
		t.Error("a GET: no error")
	}
}

// FuzzGitLabWebhook sends whatever content with the right secret.
func FuzzGitLabWebhook(f *testing.F) {
	f.Add([]byte(`{"ref":"refs/heads/main","after":"abc"}`), "Push Hook")
	f.Add([]byte(`{"object_attributes":{"source_branch":"\u0000","last_commit":{"id":{}}}}`), "\x1b[31m")
	f.Add([]byte(`{"merge_request":{"last_commit":null},"sha":7}`), "")
	f.Fuzz(func(t *testing.T, body []byte, kind string) {
		e := gitLabEvent(http.Header{"X-Gitlab-Event": {kind}}, body)
		for _, text := range []string{e.Kind, e.Ref, e.Commit} {
			if utf8.RuneCountInString(text) > 100 ||
				strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("for the log: %q", text)
			}
		}
	})
}
