package artifact_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
)

// All kinds of sources behave alike.
func TestPull(t *testing.T) {
	sources := map[string]func(t *testing.T, dir string) artifact.Source{
		"a server": func(t *testing.T, dir string) artifact.Source {
			srv := httptest.NewServer(open(t, dir).Handler(nil))
			t.Cleanup(srv.Close)
			return artifact.Source{URL: srv.URL + "/bundles"}
		},
		"a server with TLS and a token": func(t *testing.T, dir string) artifact.Source {
			h := open(t, dir).Handler(nil)
			srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer secret" {
					http.Error(w, "who are you?", http.StatusUnauthorized)
					return
				}
				h.ServeHTTP(w, r)
			}))
			t.Cleanup(srv.Close)
			return artifact.Source{URL: srv.URL + "/bundles", Client: srv.Client(), Token: "secret"}
		},
		"a copy of the folder": func(t *testing.T, dir string) artifact.Source {
			return artifact.Source{URL: "file://" + dir}
		},
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) { testPull(t, source) })
	}
}

func testPull(t *testing.T, source func(t *testing.T, dir string) artifact.Source) {
	served := t.TempDir()
	s := open(t, served)
	one, two := push(t, s, "onnx 1"), push(t, s, "another onnx")
	from := source(t, served)
	cacheDir, slots := t.TempDir(), t.TempDir()
	cache := open(t, cacheDir)
	pull := func(digest delivery.Digest, slot, model string, want int64) {
		t.Helper()
		dir := filepath.Join(slots, slot)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		got, err := cache.Pull(t.Context(), from, digest, dir)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("pulled %d bytes for %s, want %d", got, model, want)
		}
		if diff := cmp.Diff(unpacked(model), files(t, dir)); diff != "" {
			t.Error(diff)
		}
	}
	// The first bundle is downloaded completely, of the second one only new blobs, and of a
	// bundle in the cache nothing.
	pull(one, "a", "onnx 1", sizes(t, served, one))
	pull(two, "b", "another onnx", sizes(t, served, two)-int64(len(delivery.Canonical(signature()))+
		len(`["pallet","forklift"]`)+len("golden tensors")))
	pull(one, "a", "onnx 1", 0)

	t.Run("a blob damaged in the cache is fetched again", func(t *testing.T) {
		blob := filepath.Join(cacheDir, "blobs", "sha256", delivery.Sum([]byte("onnx 1")).Hex())
		replace(t, blob, []byte("onnx X"))
		pull(one, "a", "onnx 1", 6)
	})
	t.Run("an unknown bundle", func(t *testing.T) {
		refuses(t, cache, from, delivery.Sum([]byte("none")), fs.ErrNotExist, "the source does not have it")
	})
	t.Run("a bundle damaged at the source", func(t *testing.T) {
		three := push(t, s, "onnx 3")
		replace(t, filepath.Join(served, "blobs", "sha256", delivery.Sum([]byte("onnx 3")).Hex()), []byte("onnx X"))
		refuses(t, cache, from, three, nil, "model.onnx")
		replace(t, filepath.Join(served, "blobs", "sha256", delivery.Sum([]byte("onnx 3")).Hex()),
			[]byte("onnx 3 and more"))
		refuses(t, cache, from, three, nil, "model.onnx")
		replace(t, filepath.Join(served, "blobs", "sha256", delivery.Sum([]byte("onnx 3")).Hex()), []byte("onnx"))
		refuses(t, cache, from, three, nil, "model.onnx")
		// After repair, complete blobs are not fetched again.
		replace(t, filepath.Join(served, "blobs", "sha256", delivery.Sum([]byte("onnx 3")).Hex()), []byte("onnx 3"))
		pull(three, "c", "onnx 3", manifestSize(t, served, three)+6)
	})
	t.Run("a manifest damaged at the source", func(t *testing.T) {
		four := push(t, s, "onnx 4")
		path := filepath.Join(served, "blobs", "sha256", four.Hex())
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		replace(t, path, []byte(strings.Replace(string(data), "onnx", "onnX", 1)))
		refuses(t, cache, from, four, nil, "")
	})
	left, err := os.ReadDir(filepath.Join(cacheDir, "ingest"))
	if err != nil || len(left) != 0 {
		t.Errorf("files in ingest: %v, %v", left, err)
	}
}

// refuses checks that Pull returns an error and that there is no folder and no bundle in the cache.
func refuses(t *testing.T, cache *artifact.Store, from artifact.Source, digest delivery.Digest, is error, want string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "slot")
	_, err := cache.Pull(t.Context(), from, digest, dir)
	if err == nil || !strings.Contains(err.Error(), want) || is != nil && !errors.Is(err, is) {
		t.Errorf("got %v, want an error with %q", err, want)
	}
	if found, _ := filepath.Glob(dir + "*"); len(found) != 0 {
		t.Errorf("left behind: %v", found)
	}
	if slices.Contains(bundles(t, cache), digest) {
		t.Error("the bundle is listed")
	}
}

// sizes returns the total size of a bundle's manifest, config and files.
func sizes(t *testing.T, dir string, digest delivery.Digest) int64 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", digest.Hex()))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Config struct{ Size int64 }
		Layers []struct{ Size int64 }
	}
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	total := int64(len(data)) + m.Config.Size
	for _, l := range m.Layers {
		total += l.Size
	}
	return total
}

// manifestSize returns the size of a bundle's manifest.
func manifestSize(t *testing.T, dir string, digest delivery.Digest) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "blobs", "sha256", digest.Hex()))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestPullRefusesTheSource(t *testing.T) {
	s := open(t, t.TempDir())
	digest := delivery.Sum([]byte("x"))
	for url, want := range map[string]string{
		"http://aob.example/bundles":             "http is only allowed for loopback",
		"http://10.0.0.1:5000/bundles":           "http is only allowed for loopback",
		"http://localhost.evil.example/bundles":  "http is only allowed for loopback",
		"ftp://aob.example/bundles":              "want https or file",
		"":                                       "want https or file",
		"https://user:secret@aob.example/b":      "without user",
		"https://aob.example/bundles?key=secret": "without user, query",
		"https://aob.example":                    "want https://HOST/REPOSITORY",
		"https://aob.example/../x":               "want https://HOST/REPOSITORY",
		"file://host/dir":                        "want file:///DIR",
		"https://secret\x7f@x/":                  "not a URL",
	} {
		_, err := s.Pull(t.Context(), artifact.Source{URL: url}, digest, filepath.Join(t.TempDir(), "slot"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error contains the secret: %v", url, err)
		}
	}
	if _, err := s.Pull(t.Context(), artifact.Source{URL: "https://aob.example/b"}, "sha256:../x",
		"slot"); err == nil || !strings.Contains(err.Error(), "want a digest") {
		t.Errorf("a path instead of a digest: %v", err)
	}
}

func TestPullFromAHostileServer(t *testing.T) {
	served := t.TempDir()
	s := open(t, served)
	digest := push(t, s, strings.Repeat("onnx", 1000))
	honest := s.Handler(nil)
	onModel := func(wrong http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, delivery.Sum([]byte(strings.Repeat("onnx", 1000))).Hex()) {
				wrong(w, r)
				return
			}
			honest.ServeHTTP(w, r)
		}
	}
	onManifest := func(wrong http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				wrong(w, r)
				return
			}
			honest.ServeHTTP(w, r)
		}
	}
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Method == http.MethodGet {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		most    int64 // bytes that Pull may read of the wrong response
	}{
		{"an endless model", onModel(endless), 4001},
		{"an endless manifest", onManifest(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			endless(w, r)
		}), 1<<20 + 1},
		{"a model cut short", onModel(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "4000")
			io.WriteString(w, "onnx")
		}), 4},
		{"another model of the same length", onModel(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, strings.Repeat("ONNX", 1000))
		}), 4000},
		{"another length", onModel(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "onnx") }), 0},
		{"an error page", onModel(func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no", http.StatusBadGateway)
		}), 0},
		{"a page instead of a manifest", onManifest(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "<html>")
		}), 6},
		{"an empty manifest", onManifest(func(w http.ResponseWriter, r *http.Request) {}), 0},
		{"another digest in a header", onManifest(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", "sha256:x")
			io.WriteString(w, "{}")
		}), 2},
		{"a redirect to plain http", onModel(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://aob.example/model", http.StatusFound)
		}), 0},
		{"a redirect loop", onModel(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(c.handler)
			defer srv.Close()
			cacheDir := t.TempDir()
			cache := open(t, cacheDir)
			dir := filepath.Join(t.TempDir(), "slot")
			downloaded, err := cache.Pull(t.Context(), artifact.Source{URL: srv.URL + "/bundles"}, digest, dir)
			if _, ok := errors.AsType[*artifact.SourceError](err); !ok {
				t.Fatalf("got %v, want a SourceError", err)
			}
			if small := sizes(t, served, digest) - 4000; downloaded > small+c.most {
				t.Errorf("read %d bytes, want at most %d", downloaded, small+c.most)
			}
			if found, _ := filepath.Glob(dir + "*"); len(found) != 0 {
				t.Errorf("left behind: %v", found)
			}
			if slices.Contains(bundles(t, cache), digest) {
				t.Error("the bundle is listed")
			}
			if left, _ := os.ReadDir(filepath.Join(cacheDir, "ingest")); len(left) != 0 {
				t.Errorf("files in ingest: %v", left)
			}
		})
	}
}

// The token is only sent to the scheme, host and port of the source's URL.
func TestPullSendsTheTokenOnlyToTheSource(t *testing.T) {
	served := t.TempDir()
	s := open(t, served)
	digest := push(t, s, "onnx")
	var leaked string
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked += r.Header.Get("Authorization")
		s.Handler(nil).ServeHTTP(w, r)
	}))
	defer other.Close()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for _, c := range []struct {
		name  string
		begin func(http.Handler) *httptest.Server
		to    string
	}{
		{"another host", httptest.NewServer, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)}, // to the client
		{"another port", httptest.NewTLSServer, other.URL},
		{"another scheme and port", httptest.NewServer, other.URL},
	} {
		leaked = ""
		own := ""
		first := c.begin(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// Redirect to another path on the same server, and from there to the other server.
			if strings.Contains(r.URL.Path, "/blobs/") && r.URL.RawQuery == "" {
				http.Redirect(w, r, r.URL.Path+"?again", http.StatusTemporaryRedirect)
				return
			}
			if strings.Contains(r.URL.Path, "/blobs/") {
				own = r.Header.Get("Authorization")
				http.Redirect(w, r, c.to+r.URL.Path, http.StatusTemporaryRedirect)
				return
			}
			s.Handler(nil).ServeHTTP(w, r)
		}))
		defer first.Close()
		from := artifact.Source{URL: first.URL + "/bundles", Client: client, Token: "secret"}
		_, err := open(t, t.TempDir()).Pull(t.Context(), from, digest, filepath.Join(t.TempDir(), "slot"))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if leaked != "" || own != "Bearer secret" {
			t.Errorf("%s got the header %q; the redirect on the same server got %q", c.name, leaked, own)
		}
	}
}

// A manifest that matches its digest is still untrusted.
func TestPullRefusesTheManifest(t *testing.T) {
	served := t.TempDir()
	s := open(t, served)
	good, err := os.ReadFile(filepath.Join(served, "blobs", "sha256", push(t, s, "onnx").Hex()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"a path out of the folder", `"model.onnx"`, `"../../model.onnx"`, `unknown file "../../model.onnx"`},
		{"an absolute path", `"model.onnx"`, `"/etc/passwd"`, "unknown file"},
		{"a file twice", `"golden.bin"`, `"labels.json"`, "second labels.json"},
		{"a file of another type", "weight.v1.raw", "weight.v1.tar", "want the media type"},
		{"another artifact", "cncf.model.manifest", "example.thing", "want a bundle"},
		{"not a manifest", "image.manifest", "image.index", "want schema version 2"},
		{"a subject", `"schemaVersion":2`, `"schemaVersion":2,"subject":{"mediaType":"x","digest":"` +
			string(delivery.Sum(nil)) + `","size":2}`, "has no subject"},
		{"a digest that is a path", string(delivery.Sum([]byte("onnx"))), "sha256:../../../etc/passwd",
			"want a digest"},
		{"another algorithm", string(delivery.Sum([]byte("onnx"))), "sha512:" + strings.Repeat("0", 128),
			"want a digest"},
		{"a negative length", `"size":4}`, `"size":-4}`, "want 1 to"},
		{"too long a model", `"size":4}`, fmt.Sprintf(`"size":%d}`, int64(artifact.MaxBundle)+1), "want 1 to"},
		{"too much together", `"size":4}`, fmt.Sprintf(`"size":%d}`, int64(artifact.MaxBundle)), "the files have"},
		{"a length that is not a number", `"size":4}`, `"size":1e99}`, "not an OCI manifest"},
		{"another config", "model.config", "model.confog", "config: want the media type"},
		{"a wrong name in the provenance", "dev.aob.provenance.run", "dev.aob.provenance.r u", "provenance"},
		{"a config about other files", string(delivery.Sum([]byte("golden tensors"))),
			string(delivery.Sum([]byte("onnx"))), "diffIds"},
		{"no JSON", `{`, `x`, "not an OCI manifest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(string(good), c.old) {
				t.Fatalf("the manifest does not contain %s", c.old)
			}
			bad := []byte(strings.Replace(string(good), c.old, c.new, 1))
			digest := delivery.Sum(bad)
			if err := os.WriteFile(filepath.Join(served, "blobs", "sha256", digest.Hex()), bad, 0o644); err != nil {
				t.Fatal(err)
			}
			from := artifact.Source{URL: "file://" + served}
			cache := open(t, t.TempDir())
			refuses(t, cache, from, digest, nil, c.want)
			_, err := cache.Pull(t.Context(), from, digest, filepath.Join(t.TempDir(), "slot"))
			if _, ok := errors.AsType[*artifact.SourceError](err); ok {
				t.Errorf("the error is a SourceError: %v", err)
			}
		})
	}
}

// A bundle of a later version gives a NewerError, and an invalid one a ContentError.
func TestBundleOfALaterVersion(t *testing.T) {
	served := t.TempDir()
	s := open(t, served)
	data, err := os.ReadFile(filepath.Join(served, "blobs", "sha256", push(t, s, "onnx").Hex()))
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	layer := func(name, mediaType string) string {
		return fmt.Sprintf(
			`"layers":[{"annotations":{"org.cncf.model.filepath":%q},"digest":%q,"mediaType":%q,"size":4},`, name,
			delivery.Sum([]byte("more")), mediaType)
	}
	const raw = "application/vnd.cncf.model.weight.config.v1.raw"
	seven := strings.Repeat(strings.TrimPrefix(layer("a.json", raw), `"layers":[`), 7)
	for _, c := range []struct {
		name, old, new string
		newer          bool
	}{
		{"an additional file", `"layers":[`, layer("calibration.json", raw), true},
		{"an additional file of a new type", `"layers":[`, layer("calibration.json", raw+".v2"), true},
		{"many additional files", `"layers":[`, `"layers":[` + seven, true},
		{"a newer type of the bundle", "model.manifest.v1+json", "model.manifest.v2+json", true},
		{"a newer type of the config", "model.config.v1+json", "model.config.v2+json", true},
		{"a newer type of a file", "model.weight.v1.raw", "model.weight.v2.raw", true},
		{"a compressed file", "model.weight.v1.raw", "model.weight.v1.tar+gzip", true},
		{"a file larger than MaxBundle", `"size":4}`, fmt.Sprintf(`"size":%d}`, int64(artifact.MaxBundle)+1), true},
		{"a path", `"layers":[`, layer("../../etc/passwd", raw), false},
		{"a file twice", `"golden.bin"`, `"labels.json"`, false},
		{"not a bundle", "cncf.model.manifest", "example.thing", false},
		{"a negative length", `"size":4}`, `"size":-4}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			other := []byte(strings.Replace(good, c.old, c.new, 1))
			if string(other) == good {
				t.Fatalf("the manifest does not contain %s", c.old)
			}
			digest := delivery.Sum(other)
			if err := os.WriteFile(filepath.Join(served, "blobs", "sha256", digest.Hex()), other, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := open(t, t.TempDir()).Pull(t.Context(), artifact.Source{URL: "file://" + served}, digest,
				filepath.Join(t.TempDir(), "slot"))
			_, newer := errors.AsType[*artifact.NewerError](err)
			_, wrong := errors.AsType[*artifact.ContentError](err)
			if newer != c.newer || wrong == c.newer {
				t.Errorf("newer %v, want %v: %v", newer, c.newer, err)
			}
			if newer && !strings.Contains(err.Error(), "update AOB's programs") {
				t.Errorf("the error has no hint: %v", err)
			}
			dir := t.TempDir() // as a slot of a device whose program was downgraded
			if err := os.WriteFile(filepath.Join(dir, artifact.ManifestFile), other, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, newer := errors.AsType[*artifact.NewerError](artifact.CheckUnpacked(t.Context(), digest,
				dir)); newer != c.newer {
				t.Errorf("unpacked: newer %v, want %v", newer, c.newer)
			}
		})
	}
}
