// Package roboflowtest is a stand-in for Roboflow's API, for tests. It answers as the API does where datasets are
// downloaded, so that the official Python package can download from it too (see [Python]), and it can answer as the API
// does when something is wrong.
//
//	server := roboflowtest.New("acme", "rf_key")
//	server.Put("pallets", 14, zip)
//	at := httptest.NewServer(server).URL + "/acme" // a location of the source roboflow
//	server.Queue("/acme/pallets/14/coco", roboflowtest.JSON(429, `{"message":"slow down"}`, "Retry-After: 7"))
//
// Only tests import it.
package roboflowtest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Server is the API of one workspace, and the storage of its exports.
type Server struct {
	Workspace, Key string

	mu       sync.Mutex
	exports  map[string]map[int][]byte // zips by project and version
	queued   map[string][]http.HandlerFunc
	requests []string
	links    int
	expired  int // links up to this number are not valid any more
}

// New returns the API of a workspace with one key.
func New(workspace, key string) *Server {
	return &Server{Workspace: workspace, Key: key, exports: map[string]map[int][]byte{},
		queued: map[string][]http.HandlerFunc{}}
}

// Put adds a version of a project. zip is its export as COCO.
func (s *Server) Put(project string, version int, zip []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exports[project] == nil {
		s.exports[project] = map[int][]byte{}
	}
	s.exports[project][version] = zip
}

// Queue lets the next requests of a path have other answers than the usual ones.
func (s *Server) Queue(path string, answers ...http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued[path] = append(s.queued[path], answers...)
}

// Requests lists the requests so far: method and path.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Expire makes the links invalid that were given so far.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = s.links
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	var answer http.HandlerFunc
	if q := s.queued[r.URL.Path]; len(q) > 0 {
		answer, s.queued[r.URL.Path] = q[0], q[1:]
	}
	s.mu.Unlock()
	switch {
	case answer != nil:
		answer(w, r)
	case strings.HasPrefix(r.URL.Path, "/storage/"):
		s.storage(w, r)
	case r.URL.Query().Get("api_key") != s.Key:
		JSON(401, `{"message":"This API key does not exist (or has been revoked).","type":"OAuthException",`+
			`"hint":"You may retrieve your API key via the Roboflow Dashboard."}`)(w, r)
	default:
		s.api(w, r)
	}
}

func (s *Server) api(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if r.URL.Path == "/" {
		reply(w, map[string]any{"welcome": "Welcome to the Roboflow API.", "workspace": s.Workspace})
		return
	}
	if parts[0] != s.Workspace {
		JSON(403, `{"error":{"message":"Unsupported request. You do not have access to this workspace.",`+
			`"type":"GraphMethodException"}}`)(w, r)
		return
	}
	if len(parts) == 1 {
		projects := []any{}
		for name := range s.exports {
			projects = append(projects, s.project(name))
		}
		reply(w, map[string]any{"workspace": map[string]any{"name": s.Workspace, "url": s.Workspace, "members": 1,
			"projects": projects}})
		return
	}
	versions, known := s.exports[parts[1]]
	if !known {
		JSON(404, `{"error":{"message":"Project not found.","type":"GraphMethodException"}}`)(w, r)
		return
	}
	if len(parts) == 2 {
		list := []any{}
		for n := range versions {
			list = append(list, s.version(parts[1], n))
		}
		reply(w, map[string]any{"workspace": map[string]any{"name": s.Workspace, "url": s.Workspace},
			"project": s.project(parts[1]), "versions": list})
		return
	}
	n, err := strconv.Atoi(parts[2])
	if _, there := versions[n]; err != nil || !there {
		JSON(404, `{"error":{"message":"Version not found.","type":"GraphMethodException"}}`)(w, r)
		return
	}
	answer := map[string]any{"workspace": map[string]any{"name": s.Workspace, "url": s.Workspace},
		"project": s.project(parts[1]), "version": s.version(parts[1], n)}
	if len(parts) > 3 {
		if parts[3] != "coco" {
			JSON(400, `{"error":{"message":"Invalid export format.","type":"InvalidParameter"}}`)(w, r)
			return
		}
		s.links++
		answer["export"] = map[string]any{"format": "coco", "link": fmt.Sprintf("%s://%s/storage/%s/%d.zip?"+
			"X-Goog-Expires=900&X-Goog-Signature=5160a7u4e&n=%d", cmp.Or(r.URL.Scheme, "http"), r.Host, parts[1], n,
			s.links)}
	}
	reply(w, answer)
}

func (s *Server) project(name string) map[string]any {
	return map[string]any{"id": s.Workspace + "/" + name, "name": name, "type": "object-detection", "annotation": name,
		"created": 1700000000.5, "updated": 1700000001.5, "images": 3, "unannotated": 0, "public": false,
		"multilabel": false, "versions": len(s.exports[name]), "classes": map[string]int{"pallet": 3},
		"colors": map[string]string{"pallet": "#C7FC00"}, "splits": map[string]int{"train": 2, "valid": 1}}
}

func (s *Server) version(project string, n int) map[string]any {
	return map[string]any{"id": fmt.Sprintf("%s/%s/%d", s.Workspace, project, n), "name": "v" + strconv.Itoa(n),
		"created": 1700000000.5, "images": 3, "splits": map[string]int{"train": 2, "valid": 1}, "generating": false,
		"progress": 1, "preprocessing": map[string]any{}, "augmentation": map[string]any{}, "exports": []string{"coco"}}
}

// storage serves an export by a signed link.
func (s *Server) storage(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	var n int
	project, file, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/storage/"), "/")
	_, err := fmt.Sscanf(file, "%d.zip", &n)
	zip := s.exports[project][n]
	link, _ := strconv.Atoi(r.URL.Query().Get("n"))
	valid := err == nil && zip != nil && link > s.expired
	s.mu.Unlock()
	if !valid {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, "<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The provided token has expired."+
			"</Message></Error>")
		return
	}
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("ETag", fmt.Sprintf(`"%s-%d"`, project, n))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(zip))
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(v) // the client sees what is missing
}

// JSON is an answer with a body of JSON.
func JSON(status int, body string, headers ...string) http.HandlerFunc {
	return Answer(status, "application/json; charset=utf-8", body, headers...)
}

// Answer is an answer. Headers are written as in HTTP.
func Answer(status int, contentType, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// Exporting is the answer while a version is exported. Roboflow has sent a progress above 1.
func Exporting(progress float64) http.HandlerFunc {
	return JSON(http.StatusAccepted, fmt.Sprintf(`{"progress":%v}`, progress))
}

// Generating is the answer while a version is generated.
func Generating(progress float64) http.HandlerFunc {
	return JSON(http.StatusOK, fmt.Sprintf(`{"version":{"generating":true,"progress":%v}}`, progress))
}
