package artifact_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/autonomos/aob/reconciler/delivery"
)

// OCI clients can pull: oras-go copies a bundle with its referrers.
func TestAnOCIClientCopiesTheBundleAndItsEvidence(t *testing.T) {
	dir, one, _ := layout(t)
	srv := httptest.NewServer(open(t, dir).Handler(nil))
	defer srv.Close()
	repo, err := remote.NewRepository(strings.TrimPrefix(srv.URL, "http://") + "/bundles")
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	dst := memory.New()
	desc, err := oras.ExtendedCopy(t.Context(), repo, string(one), dst, "copied", oras.DefaultExtendedCopyOptions)
	if err != nil {
		t.Fatal(err)
	}
	model := ocispec.Descriptor{MediaType: "application/vnd.cncf.model.weight.v1.raw", Size: 6}
	model.Digest = desc.Digest.Algorithm().FromString("onnx 1")
	if data, err := content.FetchAll(t.Context(), dst, model); err != nil || string(data) != "onnx 1" {
		t.Errorf("copied the model as %q, %v", data, err)
	}
	referrers, err := dst.Predecessors(t.Context(), desc)
	if err != nil || len(referrers) != 2 {
		t.Errorf("copied the referrers %v, %v; want 2", referrers, err)
	}
	var listed []ocispec.Descriptor
	err = repo.Referrers(t.Context(), desc, evidenceType, func(page []ocispec.Descriptor) error {
		listed = append(listed, page...)
		return nil
	})
	if err != nil || len(listed) != 2 || listed[0].ArtifactType != evidenceType {
		t.Errorf("referrers by type %v, %v; want 2", listed, err)
	}
	if err := repo.Referrers(t.Context(), desc, "application/vnd.aob.none", func(page []ocispec.Descriptor) error {
		if len(page) != 0 {
			t.Errorf("referrers of no type: %v", page)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestHandler(t *testing.T) {
	dir, one, _ := layout(t)
	// Files near the blobs that must not be served.
	for _, secret := range []string{filepath.Join(dir, "secret"), filepath.Join(dir, "blobs", "sha256", "secret"),
		filepath.Join(filepath.Dir(dir), "secret")} {
		if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "blobs", "sha256", strings.Repeat("a", 64)), 0o755); err != nil {
		t.Fatal(err)
	}
	var served atomic.Int64
	h := open(t, dir).Handler(func(n int64) { served.Add(n) })
	srv := httptest.NewServer(h)
	defer srv.Close()
	model := delivery.Sum([]byte("onnx 1"))
	for _, c := range []struct {
		method, path, rng string
		status            int
		body              string // a part of it
		counted           int64
	}{
		{"GET", "/v2/", "", 200, "{}", 0},
		{"GET", "/v2", "", 200, "{}", 0},
		{"GET", "/v2/bundles/blobs/" + string(model), "", 200, "onnx 1", 6},
		{"HEAD", "/v2/bundles/blobs/" + string(model), "", 200, "", 0},
		{"GET", "/v2/bundles/blobs/" + string(model), "bytes=2-3", 206, "nx", 2},
		{"GET", "/v2/bundles/blobs/" + string(model), "bytes=4-", 206, " 1", 2},
		{"GET", "/v2/bundles/blobs/" + string(model), "bytes=9-", 416, "", 0},
		{"GET", "/v2/bundles/manifests/" + string(one), "", 200,
			`"artifactType":"application/vnd.cncf.model.manifest.v1+json"`, manifestSize(t, dir, one)},
		{"HEAD", "/v2/bundles/manifests/" + string(one), "", 200, "", 0},
		{"GET", "/v2/bundles/referrers/" + string(one), "", 200, evidenceType, 0},
		{"GET", "/v2/bundles/referrers/" + string(model), "", 200, `"manifests":[]`, 0},
		{"GET", "/v2/bundles/manifests/latest", "", 404, "MANIFEST_UNKNOWN", 0},
		{"GET", "/v2/bundles/manifests/" + string(model), "", 404, "MANIFEST_UNKNOWN", 0}, // a blob is not a manifest
		{"GET", "/v2/bundles/blobs/" + string(delivery.Sum([]byte("none"))), "", 404, "BLOB_UNKNOWN", 0},
		{"GET", "/v2/bundles/blobs/sha256:" + strings.Repeat("a", 64), "", 404, "BLOB_UNKNOWN", 0},
		{"GET", "/v2/bundles/blobs/sha256:secret", "", 400, "DIGEST_INVALID", 0},
		{"GET", "/v2/bundles/blobs/sha256:../../secret", "", 400, "DIGEST_INVALID", 0},
		{"GET", "/v2/bundles/blobs/..%2f..%2fsecret", "", 400, "DIGEST_INVALID", 0},
		{"GET", "/v2/bundles/referrers/x", "", 400, "DIGEST_INVALID", 0},
		{"GET", "/v2/bundles/tags/list", "", 404, "NAME_UNKNOWN", 0},
		{"GET", "/v2/other/blobs/" + string(model), "", 404, "NAME_UNKNOWN", 0},
		{"GET", "/v2/../secret", "", 404, "NAME_UNKNOWN", 0},
		{"GET", "/index.json", "", 404, "NAME_UNKNOWN", 0},
		{"PUT", "/v2/bundles/manifests/latest", "", 405, "UNSUPPORTED", 0},
		{"DELETE", "/v2/bundles/blobs/" + string(model), "", 405, "UNSUPPORTED", 0},
		{"POST", "/v2/bundles/blobs/uploads/", "", 405, "UNSUPPORTED", 0},
	} {
		t.Run(c.method+" "+c.path+" "+c.rng, func(t *testing.T) {
			served.Store(0)
			req, err := http.NewRequestWithContext(t.Context(), c.method, srv.URL+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.rng != "" {
				req.Header.Set("Range", c.rng)
			}
			resp, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status || !strings.Contains(string(body), c.body) {
				t.Errorf("got %d %s, want %d with %q", resp.StatusCode, body, c.status, c.body)
			}
			if strings.Contains(string(body), "secret\n") || string(body) == "secret" {
				t.Errorf("the handler served a secret: %s", body)
			}
			if c.status >= 400 && c.status != 416 {
				var refusal struct {
					Errors []struct{ Code, Message string }
				}
				if err := json.Unmarshal(body, &refusal); err != nil || len(refusal.Errors) != 1 ||
					refusal.Errors[0].Message == "" {
					t.Errorf("not an OCI error: %s", body)
				}
			}
			if c.status == 200 && (strings.Contains(c.path, "/blobs/") || strings.Contains(c.path, "/manifests/")) {
				if got := resp.Header.Get("Docker-Content-Digest"); !strings.HasSuffix(c.path, got) || got == "" {
					t.Errorf("Docker-Content-Digest %q", got)
				}
				if resp.ContentLength <= 0 {
					t.Errorf("Content-Length %d", resp.ContentLength)
				}
			}
			// The callback runs after the response was sent, so call the handler directly.
			if c.method == "GET" {
				rec := httptest.NewRecorder()
				served.Store(0)
				h.ServeHTTP(rec, req.Clone(t.Context()))
				if served.Load() != c.counted {
					t.Errorf("counted %d bytes, want %d", served.Load(), c.counted)
				}
			}
		})
	}
}

func TestHandlerReportsADamagedManifest(t *testing.T) {
	dir, one, _ := layout(t)
	h := open(t, dir).Handler(nil)
	replace(t, filepath.Join(dir, "blobs", "sha256", one.Hex()), []byte("{}"))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/v2/bundles/manifests/"+string(one), nil))
	if rec.Code != http.StatusInternalServerError || !strings.Contains(rec.Body.String(), "damaged") {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
	if err := os.Remove(filepath.Join(dir, "blobs", "sha256", one.Hex())); err != nil {
		t.Fatal(err)
	}
	rec = httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest("GET", "/v2/bundles/manifests/"+string(one), nil))
	if rec.Code != http.StatusNotFound {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}
