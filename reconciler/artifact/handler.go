package artifact

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Repository is the one repository that [Store.Handler] serves.
const Repository = "bundles"

// Handler serves the store to OCI clients, read-only and by digest. It implements the part
// of the OCI distribution API under /v2/ that pulling needs, and referrers.
//
//	GET, HEAD /v2/
//	GET, HEAD /v2/bundles/manifests/DIGEST
//	GET, HEAD /v2/bundles/blobs/DIGEST                   with Range
//	GET       /v2/bundles/referrers/DIGEST?artifactType=
//
// There are no tags. It serves the manifests in the index, and all stored blobs. Manifests are verified before they are
// served; clients must verify blobs. The handler does no authorization: the caller must do it before. If served is not
// nil, it is called after each GET with the number of bytes of manifest or blob that were sent.
func (s *Store) Handler(served func(bytes int64)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted := &countingWriter{ResponseWriter: w}
		s.serve(counted, r)
		if served != nil && counted.content > 0 && r.Method == http.MethodGet {
			served(counted.content)
		}
	})
}

func (s *Store) serve(w *countingWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only")
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2")
	if !ok {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "the registry is under /v2/")
		return
	}
	if rest == "" || rest == "/" {
		answer(w, "application/json", []byte("{}"))
		return
	}
	rest, ok = strings.CutPrefix(rest, "/"+Repository+"/")
	kind, ref, cut := strings.Cut(rest, "/")
	if !ok || !cut {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "the only repository is "+Repository)
		return
	}
	digest, err := delivery.ParseDigest(clip(ref))
	switch {
	case kind == "manifests" && err != nil:
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifests are only served by digest")
	case kind == "manifests":
		s.serveManifest(w, digest)
	case kind == "blobs" && err != nil:
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
	case kind == "blobs":
		s.serveBlob(w, r, digest)
	case kind == "referrers" && err != nil:
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
	case kind == "referrers":
		s.serveReferrers(w, r, digest)
	default:
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "this registry serves manifests, blobs and referrers")
	}
}

func (s *Store) serveManifest(w *countingWriter, digest delivery.Digest) {
	ix, err := s.loadIndex()
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "the store cannot be read")
		return
	}
	if _, there := ix.entry(digest); !there {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no such manifest")
		return
	}
	data, err := s.readBlob(digest, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no such manifest")
		return
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "the manifest is damaged")
		return
	}
	immutable(w, digest)
	w.isContent = true
	answer(w, ocispec.MediaTypeImageManifest, data)
}

func (s *Store) serveBlob(w *countingWriter, r *http.Request, digest delivery.Digest) {
	f, err := os.Open(s.blobPath(digest))
	if errors.Is(err, fs.ErrNotExist) {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "no such blob")
		return
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "the blob cannot be read")
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "no such blob")
		return
	}
	immutable(w, digest)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.isContent = true
	http.ServeContent(w, r, "", time.Time{}, f)
}

func (s *Store) serveReferrers(w *countingWriter, r *http.Request, digest delivery.Digest) {
	ix, err := s.loadIndex()
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "the store cannot be read")
		return
	}
	filter := r.URL.Query().Get("artifactType")
	if filter != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	list := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	for e := range ix.attachedTo(digest) {
		if filter == "" || e.artifactType == filter {
			entry := descriptor(ocispec.MediaTypeImageManifest, blob{e.digest, e.size})
			entry.ArtifactType = e.artifactType
			list.Manifests = append(list.Manifests, entry)
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "the list cannot be encoded")
		return
	}
	answer(w, ocispec.MediaTypeImageIndex, data)
}

// immutable sets the headers of content that is addressed by its digest.
func immutable(w http.ResponseWriter, digest delivery.Digest) {
	h := w.Header()
	h.Set("Docker-Content-Digest", string(digest))
	h.Set("ETag", `"`+string(digest)+`"`)
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
}

// answer writes a small body, which net/http omits for HEAD requests.
func answer(w http.ResponseWriter, contentType string, data []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	io.Copy(w, bytes.NewReader(data)) // an error means that the client is gone
}

// refuse writes an error response of the OCI distribution specification.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	type problem struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	json.NewEncoder(w).Encode(map[string][]problem{"errors": {{code, message}}})
}

// A countingWriter counts the bytes of content that are sent to a client. It passes
// ReadFrom on, so that files can be sent with sendfile(2).
type countingWriter struct {
	http.ResponseWriter
	isContent bool // the body is a manifest or blob; false after an error status
	content   int64
}

func (w *countingWriter) WriteHeader(status int) {
	if status != http.StatusOK && status != http.StatusPartialContent {
		w.isContent = false
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.count(int64(n))
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (w *countingWriter) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(w.ResponseWriter, r)
	w.count(n)
	return n, err
}

func (w *countingWriter) count(n int64) {
	if w.isContent {
		w.content += n
	}
}

// Unwrap gives http.ResponseController access to the underlying writer.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
