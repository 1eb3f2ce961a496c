package web

import (
	_ "embed"
	"encoding/json"
	"html/template"
	"io"
	"net/http"
	"regexp"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The files of a folder of pictures, as package picture writes them.
const pictureIndex = "index.json"

var (
	pictureKey  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	pictureFile = regexp.MustCompile(`^[0-9]{2}-[A-Za-z0-9-]{1,60}\.png$`)
)

//go:embed pictures.html
var pictureHTML string

// The template escapes markup. text removes control and invisible characters.
var picturePage = template.Must(template.New("pictures").Funcs(template.FuncMap{"text": delivery.Terminal}).
	Parse(pictureHTML))

// Pictures serves a store's files below pictures/: /pictures/KEY/ is the page of one
// comparison, and /pictures/KEY/NAME.png a picture. Anybody who knows a key may read it,
// as with bundles. A key is the digest of a comparison, and keys are never listed. about says what a
// comparison is about; it may be nil, or return "".
func Pictures(files interface {
	Open(name string) (io.ReadSeekCloser, error)
}, about func(key string) string) http.Handler {
	read := func(key, name string) ([]byte, error) {
		f, err := files.Open("pictures/" + key + "/" + name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(f)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, ok := strings.CutPrefix(r.URL.Path, "/pictures/")
		key, name, slash := strings.Cut(rest, "/")
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'")
		switch {
		case !ok || !pictureKey.MatchString(key):
			http.NotFound(w, r)
		case !slash:
			http.Redirect(w, r, "/pictures/"+key+"/", http.StatusMovedPermanently)
		case name == "":
			data, err := read(key, pictureIndex)
			var page struct {
				About   string
				Entries []struct{ File, Name, Why string }
			}
			if about != nil {
				page.About = about(key)
			}
			if err != nil || json.Unmarshal(data, &page.Entries) != nil {
				http.NotFound(w, r)
				return
			}
			h.Set("Content-Type", "text/html; charset=utf-8")
			picturePage.Execute(w, page) // it fails only if the client is gone
		case pictureFile.MatchString(name):
			data, err := read(key, name)
			if err != nil {
				http.NotFound(w, r)
				return
			}
			h.Set("Content-Type", "image/png")
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
			w.Write(data) // as above
		default:
			http.NotFound(w, r)
		}
	})
}
