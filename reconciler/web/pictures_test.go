package web_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/store"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/tools/hostile"
)

func TestPictures(t *testing.T) {
	root, key := t.TempDir(), strings.Repeat("0a", 32)
	dir := filepath.Join(root, "pictures")
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
	about := ""
	h := web.Site{Pictures: web.Pictures(store.Folder(root), func(string) string { return about })}.Handler()
	page := func(text string) string {
		about = "#4: " + text
		data, err := json.Marshal([]map[string]string{{"file": "01-a.png", "name": text, "why": text}})
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, key, "index.json"), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/pictures/"+key+"/", nil))
		return w.Body.String()
	}
	tags := regexp.MustCompile(`<[a-z/][^>]*>`)
	bare := func(page string) []string {
		return tags.FindAllString(regexp.MustCompile(`alt="[^"]*"`).ReplaceAllString(page, ""), -1)
	}
	for _, text := range hostile.Texts {
		got := page(text)
		if !slices.Equal(bare(got), bare(page(hostile.Harmless))) {
			t.Errorf("%q changes the page: %s", text, got)
		}
		if err := hostile.Screen(got); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	page("<b>.jpg")
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/pictures/" + key + "/", 200, "&lt;b&gt;.jpg</b>: &lt;b&gt;.jpg"},
		{"/pictures/" + key + "/", 200, "<p><b>#4: &lt;b&gt;.jpg</b></p>"},
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
