package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/versitygw/versitytest"
)

// sharing is a source whose versions are shared.
type sharing struct{ Source }

func (s sharing) Open(ctx context.Context, at Reference) (Version, error) {
	v, err := s.Source.Open(ctx, at)
	v.Share = true
	return v, err
}

// sharedKits gives kits whose datasets are also kept in a bucket of versitygw, each in its own.
func sharedKits(t *testing.T, kit func(t *testing.T) sourceKit) func(t *testing.T) sourceKit {
	server := versitytest.Start(t)
	var buckets atomic.Int32
	return func(t *testing.T) sourceKit {
		k := kit(t)
		k.source = sharing{k.source}
		k.shared = &Shared{Connect: connectTo(t, server, fmt.Sprintf("shared-%d", buckets.Add(1))),
			Warn: func(err error) { t.Errorf("warned: %v", err) }}
		return k
	}
}

func connectTo(t *testing.T, server *versitytest.Server, bucket string) func(context.Context) (Objects, string, error) {
	t.Helper()
	server.Bucket(t, bucket)
	b, err := cloud.OpenBucket(t.Context(), cloud.Address{Bucket: bucket, Endpoint: server.URL,
		KeyID: versitytest.KeyID, Key: versitytest.Key})
	if err != nil {
		t.Fatal(err)
	}
	return func(context.Context) (Objects, string, error) { return b, "acme/", nil }
}

// A machine is one with an empty cache. It counts what it fetches from the source, and keeps what it was warned of.
type machine struct {
	catalog  Catalog
	fetched  int
	warnings []string
}

func (m *machine) Secrets(string) []string                          { return nil }
func (m *machine) Check(context.Context, Reference) (string, error) { return "", nil }

// Open implements [Source] with the dataset of a test: its files are the reference's location.
func (m *machine) Open(_ context.Context, ref Reference) (Version, error) {
	return Version{ID: ref.Path, Share: true, Fetch: func(_ context.Context, to *Writer) error {
		m.fetched++
		if ref.Location == "" {
			return errors.New("the source does not answer")
		}
		var files map[string]string
		err := json.Unmarshal([]byte(ref.Location), &files)
		for name, text := range files {
			err = errors.Join(err, to.Add(name, strings.NewReader(text)))
		}
		return err
	}}, nil
}

func newMachine(t *testing.T, connect func(context.Context) (Objects, string, error)) *machine {
	m := &machine{}
	m.catalog = Catalog{Sources: map[string]Source{"test": m}, Cache: t.TempDir(), MaxBytes: 1 << 20,
		Shared: &Shared{Connect: connect, Warn: func(err error) { m.warnings = append(m.warnings, err.Error()) }}}
	return m
}

// content returns the digest of a version. files is what the source has; nil if it does not answer.
func (m *machine) content(t *testing.T, version string, files map[string]string) (delivery.Digest, error) {
	t.Helper()
	location := ""
	if files != nil {
		data, err := json.Marshal(files)
		if err != nil {
			t.Fatal(err)
		}
		location = string(data)
	}
	// The key of a version has its location, which is the same on all machines.
	d := delivery.Dataset{Source: "test", Path: "d/" + version}
	m.catalog.Locations = map[string]map[string]string{"test": {"d": "here"}}
	m.catalog.Sources = map[string]Source{"test": sourceOf{m, location}}
	v, err := m.catalog.open(t.Context(), d)
	if err == nil {
		err = v.hash(t.Context(), names(v), nil)
	}
	if err != nil {
		return "", err
	}
	return v.content(), nil
}

// sourceOf is a machine's source with the files that it has now.
type sourceOf struct {
	*machine
	files string
}

func (a sourceOf) Open(ctx context.Context, ref Reference) (Version, error) {
	ref.Location = a.files
	return a.machine.Open(ctx, ref)
}

var sharedFiles = map[string]string{"train/" + AnnotationsFile: `{"images":[]}`, "train/a.png": "a",
	"train/b.png": "bb", "valid/" + AnnotationsFile: "{}"}

// What one machine has fetched, another has from the bucket, also while the source does not answer. A later version
// adds what is new in it.
func TestSharedDatasets(t *testing.T) {
	connect := connectTo(t, versitytest.Start(t), "shared")
	first, second := newMachine(t, connect), newMachine(t, connect)
	want, err := first.content(t, "1", sharedFiles)
	if err != nil || first.fetched != 1 {
		t.Fatalf("fetched %d times, %v", first.fetched, err)
	}
	got, err := second.content(t, "1", nil)
	if err != nil || got != want || second.fetched != 0 {
		t.Errorf("content %s, %v, fetched %d times; want %s from the bucket", got, err, second.fetched, want)
	}
	before := len(objectsOf(t, connect))
	more := maps.Clone(sharedFiles)
	more["train/c.png"] = "c"
	if want, err = second.content(t, "2", more); err != nil {
		t.Fatal(err)
	}
	if n := len(objectsOf(t, connect)) - before; n != 2 {
		t.Errorf("a version with one more file added %d objects, want it and a list", n)
	}
	if got, err := first.content(t, "2", nil); err != nil || got != want {
		t.Errorf("content %s, %v; want %s", got, err, want)
	}
	if w := append(first.warnings, second.warnings...); len(w) > 0 {
		t.Errorf("warned: %q", w)
	}
}

func objectsOf(t *testing.T, connect func(context.Context) (Objects, string, error)) (list []string) {
	t.Helper()
	objects, prefix, _ := connect(t.Context())
	if err := objects.List(t.Context(), prefix, func(key string, _ int64, _ string) error {
		list = append(list, key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// Whatever somebody has written into the bucket, a machine has what the source has, says what was wrong, leaves nothing
// outside of its cache, and puts the bucket right.
func TestSharedBucketIsHostile(t *testing.T) {
	server := versitytest.Start(t)
	sum := func(text string) string {
		s := sha256.Sum256([]byte(text))
		return hex.EncodeToString(s[:])
	}
	file := func(text string) string { return "acme/datasets/files/" + sum(text) }
	evil := func(change func(m *manifest)) func(list []byte) (string, []byte) {
		return func(list []byte) (string, []byte) {
			var m manifest
			if err := json.Unmarshal(list, &m); err != nil {
				t.Fatal(err)
			}
			change(&m)
			data, _ := json.Marshal(m)
			return "", data
		}
	}
	put := func(key, text string) func([]byte) (string, []byte) {
		return func([]byte) (string, []byte) { return key, []byte(text) }
	}
	for i, test := range []struct {
		name, want string
		write      func(list []byte) (key string, data []byte) // "" is the key of the list
	}{
		{"no list", "is no list of files", put("", "<html>")},
		{"an empty list", "lists 0 files", evil(func(m *manifest) { clear(m.Files) })},
		{"another version's list", "is the list of another dataset", evil(func(m *manifest) { m.ID = "2" })},
		{"other bytes", "does not have the digest", put(file("a"), "A")},
		{"more bytes", "is longer than its list says", put(file("a"), strings.Repeat("a", 100))},
		{"fewer bytes", "object acme/datasets/files/" + sum("bb"), put(file("bb"), "b")},
		{"another size", "object acme/datasets/files/" + sum("bb"),
			evil(func(m *manifest) { m.Files["train/b.png"] = cachedFile{SHA256: sum("bb"), Size: 3} })},
		{"a file that is not there", "an object was removed",
			evil(func(m *manifest) { m.Files["train/c.png"] = cachedFile{SHA256: sum("gone"), Size: 4} })},
		{"a key that leaves", "has no digest or no size",
			evil(func(m *manifest) { m.Files["train/c.png"] = cachedFile{SHA256: "../../list", Size: 4} })},
		{"a digest in upper case", "has no digest or no size",
			evil(func(m *manifest) {
				m.Files["train/c.png"] = cachedFile{SHA256: strings.ToUpper(sum("a")), Size: 1}
			})},
		{"a size below zero", "has no digest or no size",
			evil(func(m *manifest) { m.Files["train/c.png"] = cachedFile{SHA256: sum("a"), Size: -1} })},
		{"more than a dataset may have", "larger than this server's limit",
			evil(func(m *manifest) { m.Files["train/c.png"] = cachedFile{SHA256: sum("a"), Size: 2 << 20} })},
		{"a path that leaves", "is not a path below the dataset",
			evil(func(m *manifest) { m.Files["../../out"] = cachedFile{SHA256: sum("a"), Size: 1} })},
		{"an absolute path", "is not a path below the dataset",
			evil(func(m *manifest) { m.Files["/tmp/out"] = cachedFile{SHA256: sum("a"), Size: 1} })},
		{"a file as a folder", "a file has the name of a folder",
			evil(func(m *manifest) { m.Files["train/a.png/b"] = cachedFile{SHA256: sum("a"), Size: 1} })},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			connect := connectTo(t, server, fmt.Sprintf("hostile-%d", i))
			want, err := newMachine(t, connect).content(t, "1", sharedFiles)
			if err != nil {
				t.Fatal(err)
			}
			objects, _, _ := connect(t.Context())
			keys := objectsOf(t, connect)
			list := keys[slices.IndexFunc(keys, func(key string) bool { return strings.Contains(key, "/test/") })]
			var before bytes.Buffer
			body, err := objects.Read(t.Context(), list, "", 0)
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			if _, err := before.ReadFrom(body); err != nil {
				t.Fatal(err)
			}
			key, data := test.write(before.Bytes())
			if key == "" {
				key = list
			}
			if err := objects.Write(t.Context(), key, bytes.NewReader(data), int64(len(data)), sha256.Sum256(data),
				false); err != nil {
				t.Fatal(err)
			}
			m := newMachine(t, connect)
			outside := filepath.Dir(m.catalog.Cache)
			got, err := m.content(t, "1", sharedFiles)
			if err != nil || got != want || m.fetched != 1 {
				t.Errorf("content %s, %v, fetched %d times; want %s from the source", got, err, m.fetched, want)
			}
			if len(m.warnings) != 1 || !strings.Contains(m.warnings[0], test.want) {
				t.Errorf("warned %q, want one with %q", m.warnings, test.want)
			}
			for _, path := range filesBelow(t, outside) {
				if strings.HasSuffix(path, "out") {
					t.Errorf("%s was written", path)
				}
			}
			next := newMachine(t, connect)
			if got, err := next.content(t, "1", nil); err != nil || got != want || len(next.warnings) > 0 {
				t.Errorf("afterwards the bucket gives %s, %v, %q; want %s", got, err, next.warnings, want)
			}
		})
	}
}

// Where the bucket refuses or does not answer, the source serves.
func TestSharedBucketIsAway(t *testing.T) {
	server := versitytest.Start(t)
	for name, at := range map[string]cloud.Address{
		"refused": {Bucket: "b", Endpoint: server.URL, KeyID: versitytest.KeyID, Key: "wrong"},
		"missing": {Bucket: "none", Endpoint: server.URL, KeyID: versitytest.KeyID, Key: versitytest.Key},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, func(ctx context.Context) (Objects, string, error) {
				b, err := cloud.OpenBucket(ctx, at)
				return b, "", err
			})
			if _, err := m.content(t, "1", sharedFiles); err != nil || m.fetched != 1 || len(m.warnings) == 0 {
				t.Errorf("%v, fetched %d times, warned %q", err, m.fetched, m.warnings)
			}
		})
	}
}
