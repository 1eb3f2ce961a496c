package forge

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
)

// maxRemembered is how many bytes of answers are remembered to ask for changes alone.
const maxRemembered = 64 << 20

// conditional is a transport that remembers answers with an ETag, and asks for a change of them. An answer of 304 is
// returned as the one that is remembered. On GitHub it does not count against the limit of requests. The token is not
// part of the key, since an App's changes every hour; whoever the token belongs to is the same.
type conditional struct {
	next http.RoundTripper

	mu     sync.Mutex
	known  map[string]*remembered // by URL and Accept
	oldest []string               // keys in the order in which they were first remembered
	size   int
}

// remembered is an answer with an ETag.
type remembered struct {
	etag   string
	header http.Header
	body   []byte
}

func (c *conditional) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet || req.Header.Get("If-None-Match") != "" {
		return c.next.RoundTrip(req)
	}
	key := req.URL.String() + " " + req.Header.Get("Accept")
	c.mu.Lock()
	old := c.known[key]
	c.mu.Unlock()
	if old != nil {
		req = req.Clone(req.Context())
		req.Header.Set("If-None-Match", old.etag)
	}
	resp, err := c.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNotModified && old != nil {
		_ = resp.Body.Close()
		return old.answer(req, resp.Header), nil
	}
	etag := resp.Header.Get("ETag")
	if resp.StatusCode != http.StatusOK || etag == "" {
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	now := &remembered{etag: etag, header: resp.Header.Clone(), body: body}
	c.remember(key, now)
	return now.answer(req, resp.Header), nil
}

// remember keeps an answer, and forgets the oldest ones where they are too many.
func (c *conditional) remember(key string, r *remembered) {
	if len(r.body) > maxRemembered/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]*remembered{}
	}
	if old := c.known[key]; old != nil {
		c.size -= len(old.body)
	} else {
		c.oldest = append(c.oldest, key)
	}
	c.known[key] = r
	c.size += len(r.body)
	for c.size > maxRemembered {
		key, c.oldest = c.oldest[0], c.oldest[1:]
		c.size -= len(c.known[key].body)
		delete(c.known, key)
	}
}

// answer is the remembered response, with the headers of the new one over its own: they tell the time and the limits.
func (r *remembered) answer(req *http.Request, now http.Header) *http.Response {
	header := r.header.Clone()
	for name, values := range now {
		if name == "Date" || strings.HasPrefix(strings.TrimPrefix(name, "X-"), "Ratelimit-") {
			header[name] = values
		}
	}
	return &http.Response{Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: io.NopCloser(bytes.NewReader(r.body)), ContentLength: int64(len(r.body)), Request: req}
}
