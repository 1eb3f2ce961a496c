package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/moto/mototest"
)

const s3Key = "s3cr3t/K3y+of/a+bucket"

var realS3 = S3{Connect: func(ctx context.Context, at BucketAddress) (Bucket, error) {
	return cloud.OpenBucket(ctx, cloud.Address(at))
}}

func s3Secret(name string) (string, error) {
	switch name {
	case "STORE_ACCESS_KEY_ID":
		return "AKIDEXAMPLE", nil
	case "STORE_SECRET_ACCESS_KEY":
		return s3Key + "\n", nil
	}
	return "", fmt.Errorf("there is no secret %s", name)
}

// The kits of s3: with the objects of a prefix, and with an archive. Moto is one for all tests, with a bucket for each.
func s3Kits(t *testing.T) (objects, archive func(t *testing.T) sourceKit) {
	moto := mototest.Start(t)
	var buckets atomic.Int32
	kit := func(t *testing.T) (kit sourceKit, bucket, location string) {
		bucket = fmt.Sprintf("bucket-%d", buckets.Add(1))
		moto.Bucket(t, bucket)
		location = "s3://" + bucket + "/sets?secrets=STORE&endpoint=" + url.QueryEscape(moto.URL)
		return sourceKit{source: realS3, secret: s3Secret, hostile: map[string]func(*testing.T) (string, string){
			"a location that is no bucket": func(*testing.T) (string, string) { return "https://" + bucket, "set" },
			"a bucket that is not there": func(*testing.T) (string, string) {
				return strings.Replace(location, bucket, "no-bucket", 1), "set"
			},
			"a key in the location": func(*testing.T) (string, string) { return location + "&key=" + s3Key, "set" },
		}}, bucket, location
	}
	objects = func(t *testing.T) sourceKit {
		k, bucket, location := kit(t)
		k.put = func(t *testing.T, files map[string]string) (string, string) {
			moto.Clear(t, bucket, "")
			moto.Put(t, bucket, "sets/set/", "") // a folder, as consoles make them
			moto.Put(t, bucket, "sets/set-2/other.png", "another dataset")
			for name, text := range files {
				moto.Put(t, bucket, "sets/set/"+name, text)
			}
			return location, "set"
		}
		for what, name := range map[string]string{"a path that leaves": "../out", "a Windows path": `..\out`,
			"an empty part": "train//b.png", "names by case alone": "train/A.PNG",
			"a file as a folder": "train/a.png/b",
			"too many folders":   strings.Repeat("a/", 40) + "b.png"} {
			k.hostile[what] = func(t *testing.T) (string, string) {
				moto.Put(t, bucket, "sets/set/train/a.png", "a")
				moto.Put(t, bucket, "sets/set/"+name, "b")
				return location, "set"
			}
		}
		return k
	}
	archive = func(t *testing.T) sourceKit {
		k, bucket, location := kit(t)
		write := func(t *testing.T, data []byte) (string, string) {
			moto.Put(t, bucket, "sets/set.zip", string(data))
			return location, "set.zip"
		}
		k.put = func(t *testing.T, files map[string]string) (string, string) {
			moto.Put(t, bucket, "sets/set.zip.sha256", "not this one")
			return write(t, packZip(t, entries(files)))
		}
		for what, e := range hostileEntries() {
			k.hostile[what] = func(t *testing.T) (string, string) {
				return write(t, packZip(t, []entry{{name: "train/a.png", text: "a"}, e}))
			}
		}
		return k
	}
	return objects, archive
}

// A list has several pages, of ten objects each, and only what was changed is told as another version.
func TestS3Lists(t *testing.T) {
	moto := mototest.Start(t)
	moto.Bucket(t, "data")
	want := map[string]string{}
	for i := range 25 {
		want[fmt.Sprintf("train/%04d.txt", i)] = fmt.Sprint(i)
	}
	want["train/large.png"] = noise(smallObject + 1)
	for name, text := range want {
		moto.Put(t, "data", "pallets/14/"+name, text)
	}
	// The proxy damages what it passes on: a body that ends too early, and one with another byte.
	target, err := url.Parse(moto.URL)
	if err != nil {
		t.Fatal(err)
	}
	var broken, damaged, pages atomic.Int32
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		switch {
		case r.Request.URL.Query().Has("list-type"):
			pages.Add(1)
		case strings.HasSuffix(r.Request.URL.Path, "large.png") && broken.Add(1) < 3:
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(io.LimitReader(r.Body, 1<<20), iotest.ErrReader(io.ErrUnexpectedEOF)), r.Body}
		case strings.HasSuffix(r.Request.URL.Path, "0007.txt") && damaged.Add(1) == 1:
			r.Body = io.NopCloser(strings.NewReader("8"))
		}
		return nil
	}
	at := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { _ = recover() }() // the proxy panics to end the connection
		proxy.ServeHTTP(w, r)
	}))
	defer at.Close()
	dir := t.TempDir()
	var progress []string
	c := Catalog{Sources: map[string]Source{"s3": realS3}, Cache: dir, Secret: s3Secret,
		Fetching: func(p Phase, done, total int) { progress = append(progress, p.Text(done, total)) },
		Locations: map[string]map[string]string{"s3": {"d": "s3://data?secrets=STORE&endpoint=" +
			url.QueryEscape(at.URL)}}}
	d := delivery.Dataset{Source: "s3", Path: "d/pallets/14"}
	folder, _, err := c.folder(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if got := contents(t, folder); !maps.Equal(got, want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
	if pages.Load() < 3 {
		t.Errorf("%d pages were listed, want 3", pages.Load())
	}
	if broken.Load() < 3 || damaged.Load() < 2 {
		t.Errorf("what was broken was not read again: %d and %d reads", broken.Load(), damaged.Load())
	}
	if len(progress) == 0 || progress[len(progress)-1] != "downloading 4 of 4 MB" {
		t.Errorf("progress %q", progress[max(0, len(progress)-3):])
	}
	before, err := c.State(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	moto.Put(t, "data", "pallets/14/train/0001.txt", "1")
	if now, err := c.State(t.Context(), d); err != nil || now != before {
		t.Errorf("the same object again is another version: %v", err)
	}
	moto.Put(t, "data", "pallets/14/train/0001.txt", "2")
	if now, err := c.State(t.Context(), d); err != nil || now == before {
		t.Errorf("another object is the same version: %v", err)
	}
	text, err := c.CheckLocation(t.Context(), "s3", "d")
	if err != nil || text != "s3://data/ can be listed" {
		t.Errorf("%s, %v", text, err)
	}
	for _, file := range filesBelow(t, dir) {
		if strings.Contains(file, "s3cr3t") {
			t.Errorf("%s has the key", file)
		}
	}
}

// fakeBucket is a bucket of one object that fails.
type fakeBucket struct {
	data string
	read func(try int, offset int64) (io.Reader, error)
	try  int
}

func (f *fakeBucket) List(_ context.Context, _ string, each func(string, int64, string) error) error {
	return each("sets/a.png", int64(len(f.data)), "1")
}

func (f *fakeBucket) Read(_ context.Context, _, _ string, offset int64) (io.ReadCloser, error) {
	f.try++
	r, err := f.read(f.try, offset)
	return io.NopCloser(r), err
}

// A mute bucket does not answer until the caller gives up.
type muteBucket struct{ fakeBucket }

func (muteBucket) List(ctx context.Context, _ string, _ func(string, int64, string) error) error {
	<-ctx.Done()
	return ctx.Err()
}

// A store that does not answer keeps nobody from seeing that another dataset has changed.
func TestMuteStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mutes := S3{Connect: func(context.Context, BucketAddress) (Bucket, error) { return &muteBucket{}, nil }}
		c := Catalog{Sources: map[string]Source{"dir": Dir{}, "s3": mutes},
			Locations: map[string]map[string]string{"s3": {"d": "s3://data"}, "dir": {"d": t.TempDir()}}}
		mute, changed := delivery.Dataset{Source: "s3", Path: "d/a"}, delivery.Dataset{Source: "dir", Path: "d"}
		run := delivery.DataRun{Dataset: mute, EvalSets: []delivery.EvalSet{{Dataset: changed, Split: "test"}}}
		before := map[string]delivery.Digest{mute.String(): "sha256:a", changed.String(): "sha256:b"}
		if got := c.Changed(t.Context(), run, before); got != changed.String() {
			t.Errorf("%q has changed, want %s", got, changed)
		}
	})
}

// endless is a bucket whose list does not end.
type endless struct {
	fakeBucket
	key string
}

func (e endless) List(ctx context.Context, _ string, each func(string, int64, string) error) error {
	for {
		if err := each(e.key, 0, "1"); err != nil {
			return err
		}
	}
}

func TestEndlessLists(t *testing.T) {
	for name, b := range map[string]endless{"folders": {key: "a/"}, "names": {key: strings.Repeat("a", 1<<20) + "/"}} {
		s := S3{Connect: func(context.Context, BucketAddress) (Bucket, error) { return &b, nil }}
		if _, err := s.Open(t.Context(), Reference{Location: "s3://data", Path: "a"}); !isBlocked(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestS3Troubles(t *testing.T) {
	small, large := "small", noise(smallObject+1)
	for name, c := range map[string]struct {
		data string
		read func(try int, offset int64) (io.Reader, error)
		want string // of the error; "" if it succeeds
	}{
		"goes on where it was": {data: large, read: func(try int, offset int64) (io.Reader, error) {
			if try < 20 {
				return io.MultiReader(io.LimitReader(strings.NewReader(large[offset:]), 1000),
					iotest.ErrReader(errors.New("reset"))), nil
			}
			return strings.NewReader(large[offset:]), nil
		}},
		"always ends too early": {data: large, read: func(int, int64) (io.Reader, error) {
			return strings.NewReader(""), nil
		}, want: "object sets/a.png: unexpected EOF"},
		"a wrong checksum": {data: small, read: func(int, int64) (io.Reader, error) {
			return io.MultiReader(strings.NewReader("smell"), iotest.ErrReader(errors.New("checksum"))), nil
		}, want: "object sets/a.png: checksum"},
		"is longer than it says": {data: small, read: func(int, int64) (io.Reader, error) {
			return strings.NewReader("small and more"), nil
		}, want: "object sets/a.png is longer than its list says"},
		"an error with the key": {data: small, read: func(int, int64) (io.Reader, error) {
			return nil, errors.New("key " + s3Key)
		}, want: "object sets/a.png: key ***"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				source := S3{Connect: func(context.Context, BucketAddress) (Bucket, error) {
					return &fakeBucket{data: c.data, read: c.read}, nil
				}}
				catalog := Catalog{Sources: map[string]Source{"s3": source}, Cache: dir, Secret: s3Secret,
					Locations: map[string]map[string]string{"s3": {"d": "s3://data/sets?secrets=STORE"}}}
				folder, _, err := catalog.folder(t.Context(), delivery.Dataset{Source: "s3", Path: "d"})
				switch {
				case c.want == "" && err != nil:
					t.Error(err)
				case c.want == "" && contents(t, folder)["a.png"] != c.data:
					t.Error("the file has another content")
				case c.want != "" && (err == nil || err.Error() != "dataset s3:d: "+c.want):
					t.Errorf("got %v, want %s", err, c.want)
				}
			})
		})
	}
}

func TestBucketLocations(t *testing.T) {
	for location, want := range map[string]string{
		"s3://data":                           "",
		"s3://data/":                          "",
		"s3://data/sets/?region=eu-central-1": "",
		"s3://data?endpoint=https%3A%2F%2Fminio.example%3A9000&secrets=MINIO": "",
		"s3://data?endpoint=https://minio.example:9000":                       "",
		"s3://":                          "its location is not the address of a bucket",
		"https://data":                   "its location is not the address of a bucket",
		"s3://AKIA:key@data":             "its location is not the address of a bucket",
		"s3://data?secret=" + s3Key:      `"secret" in its location is not understood`,
		"s3://data?secrets=abc":          `"secrets" in its location is not understood`,
		"s3://data?region=a&region=b":    `"region" in its location is not understood`,
		"s3://data?endpoint=ftp://x":     `"endpoint" in its location is not understood`,
		"s3://data?endpoint=https://a@x": `"endpoint" in its location is not understood`,
	} {
		_, err := parseBucket(location)
		if want == "" && err != nil || want != "" && (!isBlocked(err) || !strings.HasPrefix(err.Error(), want+"; ")) ||
			strings.Contains(fmt.Sprint(err), s3Key) {
			t.Errorf("%s: got %v, want %s", location, err, want)
		}
	}
}
