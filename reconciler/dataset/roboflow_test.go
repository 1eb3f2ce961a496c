package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/roboflow/roboflowtest"
	"github.com/autonomos/aob/tools/venvtest"
)

const rfKey = "rf_s3cr3tK3y+/="

var rfFiles = map[string]string{"train/" + AnnotationsFile: `{"images":[]}`, "train/a_jpg.rf.0a1b.jpg": noise(50_000),
	"README.dataset.txt": "pallets"}

// rfZip is an export as Roboflow packs it.
func rfZip(t testing.TB, files map[string]string) []byte {
	all := maps.Clone(files)
	all[exportedNote] = "This dataset was exported via roboflow.com on March 1, 2026"
	return packZip(t, entries(all))
}

func roboflowKit(t *testing.T) sourceKit {
	server := roboflowtest.New("acme", rfKey)
	at := httptest.NewServer(server)
	t.Cleanup(at.Close)
	version := 0
	put := func(data []byte) (string, string) {
		version++ // a version never changes
		server.Put("pallets", version, data)
		return at.URL + "/acme", fmt.Sprintf("pallets/%d", version)
	}
	kit := sourceKit{source: Roboflow{}, secret: func(string) (string, error) { return rfKey + "\n", nil },
		put: func(t *testing.T, files map[string]string) (string, string) { return put(rfZip(t, files)) },
		hostile: map[string]func(*testing.T) (string, string){
			"a project without version": func(*testing.T) (string, string) { return at.URL + "/acme", "pallets" },
			"a version that is no number": func(*testing.T) (string, string) {
				return at.URL + "/acme", "pallets/latest"
			},
			"a location without workspace": func(*testing.T) (string, string) { return at.URL, "pallets/1" },
			"a location without https": func(*testing.T) (string, string) {
				return "http://api.roboflow.com/acme", "pallets/1"
			},
			"a location with a key": func(*testing.T) (string, string) {
				return at.URL + "/acme?api_key=" + rfKey, "pallets/1"
			},
			"half a zip":  func(t *testing.T) (string, string) { d := rfZip(t, rfFiles); return put(d[:len(d)/2]) },
			"no zip":      func(*testing.T) (string, string) { return put([]byte("<html>Sign in</html>")) },
			"a large zip": func(t *testing.T) (string, string) { return put([]byte(noise(2 << 20))) },
		}}
	for what, e := range hostileEntries() {
		kit.hostile[what] = func(t *testing.T) (string, string) {
			return put(packZip(t, []entry{{name: "train/a.png", text: "a"}, e}))
		}
	}
	return kit
}

// overHandler answers requests by a handler, in this process.
type overHandler struct{ http.Handler }

func (h overHandler) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	response := w.Result()
	response.Request = r
	return response, nil
}

// A story is a fetch of version 14 from a server that answers in some way first.
type story struct {
	queue map[string][]http.HandlerFunc // by path
	zip   []byte                        // nil is a good one
	key   string                        // "" is the right one

	want     string // the beginning of the error; "" if it succeeds
	blocked  bool
	phases   []string      // told on the way, if they matter
	at       time.Duration // how long it takes at least
	requests int           // of the export; 0 if it does not matter
}

const (
	rfVersion = "/acme/pallets/14"
	rfExport  = rfVersion + "/coco"
	rfStorage = "/storage/pallets/14.zip"
)

func repeat(n int, h http.HandlerFunc) []http.HandlerFunc {
	return slices.Repeat([]http.HandlerFunc{h}, n)
}

// What Roboflow has answered, in recordings and in reports of its users.
func roboflowStories(t *testing.T) map[string]story {
	good := rfZip(t, rfFiles)
	export := func(list ...http.HandlerFunc) map[string][]http.HandlerFunc {
		return map[string][]http.HandlerFunc{rfExport: list}
	}
	storage := func(list ...http.HandlerFunc) map[string][]http.HandlerFunc {
		return map[string][]http.HandlerFunc{rfStorage: list}
	}
	link := func(link string) http.HandlerFunc {
		return roboflowtest.JSON(200, fmt.Sprintf(`{"export":{"format":"coco","link":%q}}`, link))
	}
	whole := func(body string, length int) http.HandlerFunc {
		return roboflowtest.Answer(200, "application/zip", body, fmt.Sprintf("Content-Length: %d", length))
	}
	return map[string]story{
		"ready": {phases: []string{"unpacking: 4 of 4"}, requests: 1},
		"202, 202, 200": {queue: export(roboflowtest.Exporting(0), roboflowtest.Exporting(0.4)), requests: 3,
			phases: []string{"exporting 0 %", "exporting 40 %"}, at: 2 * time.Second},
		"202 without progress": {queue: export(roboflowtest.JSON(202, `{}`),
			roboflowtest.JSON(202, `{"progress":null}`)), requests: 3},
		"200 without a link": {queue: export(roboflowtest.JSON(200, `{"export":{}}`)), requests: 2},
		"progress above 100 %": {queue: export(roboflowtest.Exporting(1.48), roboflowtest.Exporting(-3)),
			phases: []string{"exporting 100 %", "exporting 0 %"}},
		"stuck progress": {queue: export(repeat(1000, roboflowtest.Exporting(0.9875))...), blocked: true,
			want: "version acme/pallets/14 was not exported in 30m0s; Roboflow says " +
				"98 %; look at the version in Roboflow; ", at: 29 * time.Minute},
		"generating": {queue: map[string][]http.HandlerFunc{rfVersion: {roboflowtest.Generating(0.1),
			roboflowtest.Generating(0.9)}}, phases: []string{"generating 10 %", "generating 90 %"}},
		"generating for ever": {queue: map[string][]http.HandlerFunc{rfVersion: repeat(1000,
			roboflowtest.Generating(0.5))}, blocked: true,
			want: "version acme/pallets/14 was not generated in 30m0s; Roboflow says 50 %"},
		"429 with Retry-After": {queue: export(roboflowtest.JSON(429, `{"message":"Too many requests"}`,
			"Retry-After: 90")), at: 90 * time.Second, requests: 2},
		"429 without Retry-After": {queue: export(roboflowtest.JSON(429, `{}`), roboflowtest.JSON(429, `{}`)),
			at: 2 * time.Second, requests: 3,
			phases: []string{"no answer yet, try 2 of 8", "no answer yet, try 3 of 8"}},
		"429 for hours": {queue: export(roboflowtest.JSON(429, `{"message":"quota"}`, "Retry-After: 7200")),
			want: "ask rf.example for version acme/pallets/14: too many requests " +
				"(status 429: quota); it wants us to wait for 2h0m0s"},
		"429 always": {queue: export(repeat(1000, roboflowtest.JSON(429, `{}`))...), requests: maxTries,
			want: "ask rf.example for version acme/pallets/14: too many requests"},
		"500 and 502": {queue: export(roboflowtest.JSON(500, `{"error":"Unknown error"}`),
			roboflowtest.Answer(502, "text/html", "<html>Bad gateway</html>")), requests: 3},
		"500 always": {queue: export(repeat(1000, roboflowtest.JSON(500, `{"error":"Unknown error"}`))...),
			want: "ask rf.example for version acme/pallets/14: status 500: Unknown error"},
		"a page instead of JSON": {queue: export(repeat(1000, roboflowtest.Answer(200, "text/html; charset=utf-8",
			"<html>Sign in</html>"))...), want: "ask rf.example for version " +
			"acme/pallets/14: it answers with text/html that is not the JSON of its API"},
		"a page once": {queue: export(roboflowtest.Answer(200, "text/html", "<html>")), requests: 2},
		"another key": {key: "rf_other", blocked: true, want: "Roboflow refuses the " +
			"server's key (status 401: This API key does not exist (or has been revoked).); make a key in Roboflow"},
		"403": {queue: export(roboflowtest.JSON(403, `{"error":{"message":"no access","type":"X"}}`)), blocked: true,
			want: "the server's key for Roboflow may not read version acme/pallets/14 " +
				"(status 403: no access); use a key of workspace acme"},
		"404": {queue: map[string][]http.HandlerFunc{rfVersion: {roboflowtest.JSON(404,
			`{"error":{"message":"Version not found."}}`)}}, blocked: true,
			want: "Roboflow has no version acme/pallets/14 (status 404: Version not " +
				"found.); check the names and the number in Roboflow"},
		"409": {queue: export(roboflowtest.JSON(409, `{"message":"Version is being changed"}`)), blocked: true,
			want: "Roboflow cannot export version acme/pallets/14 now (status 409: " +
				"Version is being changed); wait until"},
		"400 as text": {queue: export(roboflowtest.Answer(400, "text/plain", "bad "+rfKey+" format")), blocked: true,
			want: "Roboflow does not give version acme/pallets/14 (status 400: bad *** " +
				"format)"},
		"a redirect of the API": {queue: export(roboflowtest.Answer(302, "text/html", "", "Location: /else?api_key="+
			url.QueryEscape(rfKey))), blocked: true, want: "rf.example answers with a " +
			"redirect, which is not followed"},
		"a redirect to nonsense": {queue: export(repeat(100, roboflowtest.Answer(302, "text/html", "",
			"Location: http://[::1?api_key="+rfKey))...), want: "ask rf.example for "},

		"an expired link": {queue: storage(roboflowtest.Answer(400, "application/xml", "<Code>ExpiredToken</Code>")),
			requests: 2},
		"links that are refused": {queue: storage(repeat(100, roboflowtest.Answer(403, "application/xml", ""))...),
			blocked: true, want: "each of 4 links to the dataset was refused",
			requests: 4},
		"storage that is busy": {queue: storage(roboflowtest.Answer(503, "text/plain", "", "Retry-After: 20"),
			roboflowtest.Answer(429, "text/plain", "")), at: 20 * time.Second, requests: 1},
		"storage that is down": {queue: storage(repeat(100, roboflowtest.Answer(500, "text/plain", ""))...),
			want: "download from rf.example: status 500"},
		"a shorter file than it says": {queue: storage(whole(string(good[:1000]), len(good))), requests: 1},
		"a range of another place": {queue: storage(whole(string(good[:1000]), len(good)), roboflowtest.Answer(206,
			"application/zip", string(good[:500]), "Content-Range: bytes 0-499/5000")), requests: 1},
		"a truncated zip once": {queue: storage(whole(string(good[:1000]), 1000)), requests: 2},
		"a truncated zip":      {zip: good[:1000], blocked: true, want: "it is no complete zip"},
		"a page for the zip":   {zip: []byte("<html>"), blocked: true, want: "it is no zip, tar"},
		"a redirect of the storage": {queue: storage(roboflowtest.Answer(302, "", "",
			"Location: "+rfStorage+"?n=1"))},
		"redirects without end": {queue: storage(repeat(100, roboflowtest.Answer(302, "", "",
			"Location: "+rfStorage))...), blocked: true, want: "the download has more than 5 redirects"},
		"a link without https": {queue: export(link("http://storage.example/x.zip?X-Goog-Signature=5160a7u4e")),
			blocked: true, want: "the download leads to http://storage.example, and " +
				"not to https; find out why"},
		"a link to a file": {queue: export(link("file:///etc/passwd")), blocked: true,
			want: "the download leads to file://, and not to https"},
		"a redirect without https": {queue: storage(roboflowtest.Answer(302, "", "",
			"Location: http://other.example/")), blocked: true,
			want: "the download leads to http://other.example, and"},
		"a link that is no address": {queue: export(link("http://[::1?X-Goog-Signature=5160a7u4e")),
			want: "Roboflow gives a link to version acme/pallets/14 that is no address"},
		"an entry twice": {zip: packZip(t, []entry{{name: "a.jpg"}, {name: "a.jpg"}}), blocked: true,
			want: "it has file a.jpg twice; remove one of them"},
	}
}

// The time in this test is not real, so that waiting takes no time.
func TestRoboflowAnswers(t *testing.T) {
	for name, c := range roboflowStories(t) {
		t.Run(name, func(t *testing.T) {
			server := roboflowtest.New("acme", rfKey)
			server.Put("pallets", 14, rfZip(t, rfFiles))
			if c.zip != nil {
				server.Put("pallets", 14, c.zip)
			}
			for path, answers := range c.queue {
				server.Queue(path, answers...)
			}
			var phases []string
			dir := t.TempDir()
			source := Roboflow{Transport: overHandler{server}}
			catalog := Catalog{Sources: map[string]Source{"roboflow": source}, Cache: dir,
				Locations: map[string]map[string]string{"roboflow": {"acme": "https://rf.example/acme"}},
				Secret: func(string) (string, error) {
					if c.key != "" {
						return c.key, nil
					}
					return rfKey, nil
				},
				Fetching: func(phase Phase, done, total int) { phases = append(phases, phase.Text(done, total)) }}
			var folder string
			var err error
			var took time.Duration
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				d := delivery.Dataset{Source: "roboflow", Path: "acme/pallets/14"}
				folder, _, err = catalog.folder(t.Context(), d)
				took = time.Since(began)
			})
			noSecret(t, dir, fmt.Sprint(err))
			const what = "dataset roboflow:acme/pallets/14: "
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				for file, text := range rfFiles {
					if data, err := os.ReadFile(filepath.Join(folder, file)); err != nil || string(data) != text {
						t.Errorf("%s has %d bytes, %v", file, len(data), err)
					}
				}
				if _, err := os.Stat(filepath.Join(folder, exportedNote)); err == nil {
					t.Errorf("the dataset has %s", exportedNote)
				}
			} else if err == nil || !strings.HasPrefix(err.Error(), what+c.want) || isBlocked(err) != c.blocked {
				t.Errorf("got %v (Blocked: %t), want %s…", err, isBlocked(err), c.want)
			}
			for _, phase := range c.phases {
				if !slices.Contains(phases, phase) {
					t.Errorf("progress %q, want %q in it", phases, phase)
				}
			}
			if took < c.at {
				t.Errorf("it took %s, want at least %s", took, c.at)
			}
			asked := 0
			for _, r := range server.Requests() {
				if r == "GET "+rfExport {
					asked++
				}
			}
			if c.requests > 0 && asked != c.requests {
				t.Errorf("the export was asked for %d times, want %d", asked, c.requests)
			}
		})
	}
}

// noSecret looks for the key, and for the signature of a link, in texts and in all files of a folder.
func noSecret(t *testing.T, dir string, texts ...string) {
	t.Helper()
	find := func(where, text string) {
		for _, secret := range []string{rfKey, url.QueryEscape(rfKey), "5160a7u4e", "api_key="} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q", where, secret)
			}
		}
	}
	for _, text := range texts {
		find(text, text)
	}
	for _, file := range filesBelow(t, dir) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		find(file, string(data))
		find("a name", file)
	}
}

// A version never changes, so it is fetched once, and used also when Roboflow does not answer any more.
func TestRoboflowVersionsAreFetchedOnce(t *testing.T) {
	server := roboflowtest.New("acme", rfKey)
	server.Put("pallets", 14, rfZip(t, rfFiles))
	at := httptest.NewServer(server)
	catalog := Catalog{Sources: map[string]Source{"roboflow": Roboflow{}}, Cache: t.TempDir(),
		Locations: map[string]map[string]string{"roboflow": {"acme": at.URL + "/acme"}},
		Secret:    func(string) (string, error) { return rfKey, nil }}
	d := delivery.Dataset{Source: "roboflow", Path: "acme/pallets/14"}
	before, err := catalog.open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	at.Close()
	catalog.Secret = func(string) (string, error) { return "", errors.New("there is no key any more") }
	after, err := catalog.open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if before.dir != after.dir || before.state() != after.state() {
		t.Errorf("it was fetched again: %s and %s", before.dir, after.dir)
	}
	if now, err := catalog.State(t.Context(), d); err != nil || now != after.state() {
		t.Errorf("state %s, %v, want %s", now, err, after.state())
	}
}

// A workspace may have a key of its own.
func TestRoboflowKeysByWorkspace(t *testing.T) {
	server := roboflowtest.New("acme", rfKey)
	server.Put("pallets", 14, rfZip(t, rfFiles))
	at := httptest.NewServer(server)
	defer at.Close()
	asked := ""
	catalog := Catalog{Sources: map[string]Source{"roboflow": Roboflow{}}, Cache: t.TempDir(),
		Locations: map[string]map[string]string{"roboflow": {"own": at.URL + "/acme?secrets=ACME"}},
		Secret:    func(name string) (string, error) { asked += name + " "; return rfKey, nil }}
	if _, err := catalog.open(t.Context(), delivery.Dataset{Source: "roboflow", Path: "own/pallets/14"}); err != nil {
		t.Fatal(err)
	}
	if asked != "ACME_API_KEY " {
		t.Errorf("asked for %q", asked)
	}
	catalog.Cache, catalog.Secret = t.TempDir(), func(string) (string, error) { return "another", nil }
	_, err := catalog.open(t.Context(), delivery.Dataset{Source: "roboflow", Path: "own/pallets/14"})
	if err == nil || !strings.Contains(err.Error(), "secrets.ACME_API_KEY") {
		t.Errorf("of a wrong key: %v", err)
	}
	const host = "https://api.roboflow.com/acme"
	for location, want := range map[string]string{host: RoboflowKey, host + "/": RoboflowKey,
		host + "?secrets=ACME": "ACME_API_KEY"} {
		if got := (Roboflow{}).Secrets(location); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", location, got, want)
		}
	}
	for _, query := range []string{"?", "?secrets=", "?secrets=acme", "?secrets=A&secrets=B", "?api_key=" + rfKey,
		"?secrets=A%0a", "?secrets=A#x", "?secrets=" + strings.Repeat("A", 60)} {
		_, err := Roboflow{}.Open(t.Context(), Reference{Location: host + query, Path: "pallets/14"})
		if _, blocked := errors.AsType[delivery.Blocked](err); !blocked || strings.Contains(err.Error(), rfKey) ||
			(Roboflow{}).Secrets(host+query) != nil {
			t.Errorf("%s: got %v, %q", query, err, Roboflow{}.Secrets(host+query))
		}
	}
}

// A connection is checked when it is made, so neither a link, nor a redirect, nor a name of the server's own network
// helps.
func TestDownloadsStayOnTheInternet(t *testing.T) {
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("a server of this machine was asked")
		fmt.Fprint(w, "secret")
	}))
	defer inside.Close()
	_, port, err := net.SplitHostPort(inside.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1",
		"[::1]", "0.0.0.0", "[fd00::1]", "100.64.0.1"} {
		address := "https://" + host + ":" + port + "/latest?X-Goog-Signature=5160a7u4e"
		for how, answer := range map[string]struct {
			path   string
			answer http.HandlerFunc
		}{
			"a link":     {rfExport, roboflowtest.JSON(200, fmt.Sprintf(`{"export":{"link":%q}}`, address))},
			"a redirect": {rfStorage, roboflowtest.Answer(307, "", "", "Location: "+address)},
		} {
			server := roboflowtest.New("acme", rfKey)
			server.Put("pallets", 14, rfZip(t, rfFiles))
			server.Queue(answer.path, answer.answer)
			at := httptest.NewServer(server)
			dir := t.TempDir()
			catalog := Catalog{Sources: map[string]Source{"roboflow": Roboflow{}}, Cache: dir,
				Locations: map[string]map[string]string{"roboflow": {"acme": at.URL + "/acme"}},
				Secret:    func(string) (string, error) { return rfKey, nil }}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			_, err := catalog.open(ctx, delivery.Dataset{Source: "roboflow", Path: "acme/pallets/14"})
			cancel()
			at.Close()
			if !isBlocked(err) || !strings.Contains(err.Error(), "not an address of the internet") {
				t.Errorf("%s to %s: got %v, want Blocked", how, host, err)
			}
			noSecret(t, dir, fmt.Sprint(err))
		}
	}
}

func TestPublicAddresses(t *testing.T) {
	for text, want := range map[string]bool{"8.8.8.8": true, "142.250.1.1": true, "2a00:1450:4001:80b::200e": true,
		"127.0.0.1": false, "127.8.8.8": false, "10.1.2.3": false, "172.16.0.1": false, "172.31.255.255": false,
		"172.32.0.1": true, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false,
		"255.255.255.255": false, "224.0.0.1": false, "192.0.0.8": false, "198.18.0.1": false, "::1": false,
		"::": false, "::127.0.0.1": false, "::a00:1": false, "fec0::1": false, "100::1": false,
		"2002:a00:1::%lo": false, "64:ff9b::a00:1%eth0": false,
		"fe80::1": false, "fc00::1": false, "fd12::1": false, "ff02::1": false, "::ffff:10.0.0.1": false,
		"::ffff:8.8.8.8": true, "64:ff9b::a00:1": false, "2002:a00:1::": false, "2001:db8::1": false} {
		if got := public(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %t, want %t", text, got, want)
		}
	}
}

// A body that stalls is given up, and the download goes on where it was.
func TestSlowDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := noise(100_000)
		tries := 0
		transport := roundTrip(func(r *http.Request) (*http.Response, error) {
			tries++
			body, status, header := io.Reader(strings.NewReader(data)), 200, http.Header{"Etag": {`"1"`}}
			var from int
			if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
				body, status = strings.NewReader(data[from:]), 206
				header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
				if r.Header.Get("If-Range") != `"1"` {
					t.Error("another version of the file could be taken for the rest of this one")
				}
			}
			if tries < 3 {
				body = io.MultiReader(io.LimitReader(body, 30_000), stalled{r.Context()})
			}
			return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(body),
				ContentLength: int64(len(data) - from), Request: r}, nil
		})
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d := download{client: &http.Client{Transport: transport}, to: f, most: 1 << 20, tell: func(int64, int64) {},
			room: func(int) error { return nil },
			link: func(context.Context) (*url.URL, error) { return url.Parse("https://storage.example/x") }}
		if err := d.fetch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(f.Name()); err != nil || string(got) != data {
			t.Errorf("%d bytes, %v, want %d", len(got), err, len(data))
		}
		if tries != 3 {
			t.Errorf("%d tries, want 3", tries)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// stalled is a body of which nothing comes.
type stalled struct{ ctx context.Context }

func (s stalled) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// The stand-in is one that Roboflow's own package downloads from, and it gets the same files.
func TestOfficialPackageDownloadsFromTheStandIn(t *testing.T) {
	python := venvtest.Python(t, "roboflow")
	const key = "rf_s3cr3tK3y" // the package does not escape it
	server := roboflowtest.New("acme", key)
	server.Put("pallets", 14, rfZip(t, rfFiles))
	server.Queue(rfExport, roboflowtest.Exporting(0.1), roboflowtest.Exporting(0.6))
	at := httptest.NewServer(server)
	defer at.Close()
	dir := filepath.Join(t.TempDir(), "pallets-14") // the package does nothing if there is one
	script := `import os, sys, roboflow
version = roboflow.Roboflow(api_key=os.environ["KEY"]).workspace("acme").project("pallets").version(14)
version.export("coco")
version.download("coco", location=sys.argv[1])
`
	command := exec.CommandContext(t.Context(), python, "-c", script, dir)
	command.Env = append(os.Environ(), "API_URL="+at.URL, "KEY="+key, "HOME="+t.TempDir(), "ROBOFLOW_API_KEY=",
		"NO_PROXY=127.0.0.1")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	catalog := Catalog{Sources: map[string]Source{"roboflow": Roboflow{}}, Cache: t.TempDir(),
		Locations: map[string]map[string]string{"roboflow": {"acme": at.URL + "/acme"}},
		Secret:    func(string) (string, error) { return key, nil }}
	folder, _, err := catalog.folder(t.Context(), delivery.Dataset{Source: "roboflow", Path: "acme/pallets/14"})
	if err != nil {
		t.Fatal(err)
	}
	theirs, ours := contents(t, dir), contents(t, folder)
	delete(theirs, exportedNote)
	if !maps.Equal(theirs, ours) {
		t.Errorf("the package has %q, we have %q", slices.Sorted(maps.Keys(theirs)), slices.Sorted(maps.Keys(ours)))
	}
}

// contents are all files of a folder.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
