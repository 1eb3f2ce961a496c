package web_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/web"
)

func TestPictures(t *testing.T) {
	dir, key := t.TempDir(), strings.Repeat("0a", 32)
	for path, text := range map[string]string{
		key + "/index.json":                     `[{"file": "01-a.png", "name": "<b>.jpg", "why": "misses 1 cat"}]`,
		key + "/01-a.png":                       "png",
		key + "/notes.txt":                      "no picture",
		"secret":                                "outside",
		strings.Repeat("b", 64):                 "a file",
		strings.Repeat("c", 64) + "/index.json": "{",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := web.Site{Pictures: web.Pictures(dir)}.Handler()
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/pictures/" + key + "/", 200, "&lt;b&gt;.jpg</b>: misses 1 cat"},
		{"/pictures/" + key, 301, ""},
		{"/pictures/" + key + "/01-a.png", 200, "png"},
		{"/pictures/" + key + "/02-a.png", 404, ""},
		{"/pictures/" + key + "/notes.txt", 404, ""},
		{"/pictures/" + key + "/index.json", 404, ""},
		{"/pictures/" + key + "/..%2fsecret", 404, ""},
		{"/pictures/", 404, ""},
		{"/pictures/secret", 404, ""},
		{"/pictures/" + strings.Repeat("b", 64) + "/", 404, ""},
		{"/pictures/" + strings.Repeat("c", 64) + "/", 404, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", c.path, nil))
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d %s, want %d %s", c.path, w.Code, w.Body, c.code, c.want)
		}
		if c.code == 200 && w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s: no policy", c.path)
		}
	}
}
