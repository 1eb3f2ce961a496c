package artifact_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A cut writer closes the connection after some bytes of a response.
type cut struct {
	http.ResponseWriter
	left int
}

func (c *cut) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		c.ResponseWriter.Write(p[:max(0, len(p)+c.left)])
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return c.ResponseWriter.Write(p)
}

// Repeated calls over a connection that always breaks download the bundle, and no byte twice if the server supports
// ranges. The complete blob is verified.
func TestPullContinuesAfterInterruption(t *testing.T) {
	const size = 2 << 20
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	served := t.TempDir()
	s := open(t, served)
	digest := push(t, s, string(content))
	h := s.Handler(nil)
	for _, c := range []struct {
		name    string
		change  func(w http.ResponseWriter, r *http.Request) // changes the request before the store handles it
		tries   int                                          // maximum number of attempts
		most    float64                                      // maximum number of received bytes, in sizes of the model
		without bool                                         // the server does not support ranges
	}{
		{name: "ranges", tries: 3, most: 1.1},
		{name: "no ranges", change: func(_ http.ResponseWriter, r *http.Request) { r.Header.Del("Range") },
			without: true},
		{name: "another range", tries: 3, most: 2.5, change: func(_ http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				r.Header.Set("Range", "bytes=1-")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var broken atomic.Int64
			limit := size * 6 / 10
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.change != nil {
					c.change(w, r)
				}
				if c.name == "another range" && broken.Add(1) > 8 {
					limit = 2 * size // the connection does not break any more
				}
				h.ServeHTTP(&cut{w, limit}, r)
			}))
			defer web.Close()
			cacheDir, dir := t.TempDir(), filepath.Join(t.TempDir(), "slot")
			var all int64
			for try := 1; ; try++ {
				cache := open(t, cacheDir) // a device opens it for each attempt
				n, err := cache.Pull(t.Context(), artifact.Source{URL: web.URL + "/bundles"}, digest, dir)
				all += n
				if err == nil {
					if c.without || try > c.tries && c.tries > 0 && c.name == "ranges" || float64(all) > c.most*size {
						t.Errorf("complete after %d attempts and %.2f times its size", try, float64(all)/size)
					}
					break
				}
				if source := (*artifact.SourceError)(nil); !errors.As(err, &source) {
					t.Fatal(err)
				}
				if found, _ := os.ReadDir(filepath.Join(cacheDir, "partial")); len(found) > 1 {
					t.Errorf("%d partial files", len(found))
				}
				if try == 12 {
					if !c.without {
						t.Errorf("incomplete after %d attempts and %.2f times its size", try, float64(all)/size)
					}
					return
				}
			}
			if got, err := os.ReadFile(filepath.Join(dir, "model.onnx")); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if left, _ := os.ReadDir(filepath.Join(cacheDir, "partial")); len(left) != 0 {
				t.Errorf("partial files: %v", left)
			}
		})
	}
}

// Partial files may be damaged, too long, or of another bundle. At most one attempt fails because of that.
func TestPartialFilesAreChecked(t *testing.T) {
	served := t.TempDir()
	s := open(t, served)
	digest := push(t, s, "a model that is good")
	web := httptest.NewServer(s.Handler(nil))
	defer web.Close()
	name := delivery.Sum([]byte("a model that is good")).Hex()
	for what, c := range map[string]struct {
		content string
		fails   bool
	}{
		"good": {"a model", false}, "whole": {"a model that is good", false}, "empty": {"", false},
		"damaged": {"b model", true}, "too long": {strings.Repeat("x", 99), false},
	} {
		cacheDir := t.TempDir()
		cache := open(t, cacheDir)
		if err := os.MkdirAll(filepath.Join(cacheDir, "partial"), 0o700); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{name: c.content, strings.Repeat("0", 64): "of another bundle"} {
			if err := os.WriteFile(filepath.Join(cacheDir, "partial", file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		dir := filepath.Join(t.TempDir(), "slot")
		from := artifact.Source{URL: web.URL + "/bundles"}
		_, err := cache.Pull(t.Context(), from, digest, dir)
		if (err != nil) != c.fails || err != nil && !errors.Is(err, artifact.ErrOtherContent) {
			t.Errorf("%s: %v", what, err)
		}
		if c.fails {
			_, err = cache.Pull(t.Context(), from, digest, dir)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, "model.onnx")); err != nil ||
			string(got) != "a model that is good" {
			t.Errorf("%s: %q, %v", what, got, err)
		}
		if left, _ := os.ReadDir(filepath.Join(cacheDir, "partial")); len(left) != 0 {
			t.Errorf("%s: partial files %v", what, left)
		}
	}
}

// A bundle that does not fit on the disk is not downloaded. The error says how much space is missing.
func TestSpaceIsCheckedBeforeTheDownload(t *testing.T) {
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("a small disk needs the right to mount one: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(small, 0) })
	s := open(t, t.TempDir())
	big, fits := push(t, s, strings.Repeat("onnx", 2<<20)), push(t, s, "onnx")
	web := httptest.NewServer(s.Handler(nil))
	defer web.Close()
	cache := open(t, filepath.Join(small, "cache"))
	from := artifact.Source{URL: web.URL + "/bundles"}
	for range 3 {
		n, err := cache.Pull(t.Context(), from, big, filepath.Join(small, "big"))
		const why = "free at least 6.0 MiB: the rest of the download has 8.0 MiB"
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), why) || n > 4000 {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	if _, err := cache.Pull(t.Context(), from, fits, filepath.Join(small, "fits")); err != nil {
		t.Error(err)
	}
}
