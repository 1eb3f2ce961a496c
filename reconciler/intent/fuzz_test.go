package intent_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

// FuzzParse reads anything under any name. What has no complaint is valid by
// its schema, has a digest that survives JSON, and is what AOB would write.
func FuzzParse(f *testing.F) {
	for _, a := range golden(f) {
		files, _ := split(a)
		for _, file := range files {
			f.Add(file.Path, file.Data)
		}
	}
	for _, file := range embedded(f) {
		f.Add(file.Path, file.Data)
	}
	schemas := compiled(f)
	o := options(f)
	f.Fuzz(func(t *testing.T, path string, data []byte) {
		in, complaints := intent.Parse([]intent.File{{Path: path, Size: int64(len(data)), Data: data}}, o)
		again, repeat := intent.Parse([]intent.File{{Path: path, Size: int64(len(data)), Data: data}}, o)
		if !cmp.Equal(complaints, repeat) {
			t.Fatalf("complaints differ the second time: %v and %v", complaints, repeat)
		}
		opaque := cmp.AllowUnexported(delivery.Model{}, delivery.Gate{})
		if !cmp.Equal(in, again, opaque) {
			t.Fatal("the intent differs the second time")
		}
		for _, c := range complaints {
			if c.File != path || c.Text == "" || c.Line < 0 || c.Column < 0 || (c.Line == 0) != (c.Column == 0) {
				t.Errorf("complaint without a place or text: %+v", c)
			}
			if n := 1 + bytes.Count(data, []byte("\n")) + bytes.Count(data, []byte("\r")) +
				bytes.Count(data, []byte("\u2028")) +
				bytes.Count(data, []byte("\u2029")) + bytes.Count(data, []byte("\u0085")); c.Line > n {
				t.Errorf("complaint in line %d of %d: %s", c.Line, n, c)
			}
			if s := c.String(); bytes.ContainsAny([]byte(s), "\n\x00") || len(s) > 1000+len(path)*4 {
				t.Errorf("complaint of more than a line: %q", s)
			}
		}
		for _, m := range in.Models.All() {
			plain, err := json.Marshal(m.Spec())
			if err != nil {
				t.Fatal(err)
			}
			var back delivery.Spec
			if err := json.Unmarshal(plain, &back); err != nil || back.Digest() != m.Spec().Digest() {
				t.Errorf("the spec's digest does not survive JSON: %v\n%s", err, plain)
			}
		}
		for name, r := range in.Releases.All() {
			data := intent.FormatRelease(r, nil)
			if got := reparse(t, "models/"+name+".release.yaml", data).Releases.Of(name); !cmp.Equal(rounded(r), got) {
				t.Errorf("formatted and read it is another release:\n%s", cmp.Diff(rounded(r), got))
			}
		}
		for name, q := range in.Quarantines.All() {
			if got := reparse(t, "models/"+name+".quarantine.yaml",
				intent.FormatQuarantine(q)).Quarantines.Of(name); !cmp.Equal(q, got) {
				t.Errorf("formatted and read it is another quarantine:\n%s", cmp.Diff(q, got))
			}
		}
		if in.Models.Len()+in.Gates.Len()+in.Fleets.Len()+in.Releases.Len()+in.Quarantines.Len() == 1 {
			if err, _ := valid(t, schemas[kindOf(path)], data); err != nil {
				t.Errorf("Parse has no complaint, and the schema says: %v", err)
			}
		}
	})
}

func reparse(t *testing.T, path string, data []byte) delivery.Intent {
	t.Helper()
	doc := intent.ParseFile(intent.File{Path: path, Size: int64(len(data)), Data: data}, intent.Options{})
	if len(doc.Complaints()) > 0 {
		t.Fatalf("%v in what AOB wrote:\n%s", doc.Complaints(), data)
	}
	in, _ := intent.Join([]*intent.Doc{doc})
	return in
}

// FuzzServer reads anything as the server's configuration.
func FuzzServer(f *testing.F) {
	f.Add([]byte("repository: intent.git\n"))
	f.Add([]byte("repository: x\nforge: {gitea: {url: https://g.example.com, repo: a/b, tokenEnv: T}}\nlisten: " +
		"{certificate: c, key: k}\n"))
	f.Add([]byte("repository: x\ndatasets: {dir: {a: /b}}\nkeys: {trusted: [a]}\npassword: p\n"))
	f.Add([]byte("repository: x\n? [a]\n: {token: t}\ndetector: {memory: 3GB}\n"))
	schema := compiled(f)["Server"]
	f.Fuzz(func(t *testing.T, data []byte) {
		s, complaints := intent.ParseServer("aob.yaml", data, nil, nil)
		if len(complaints) > 0 {
			return
		}
		if err, _ := valid(t, schema, data); err != nil {
			t.Errorf("ParseServer has no complaint, and the schema says: %v", err)
		}
		once := s.Resolve("/srv")
		if twice := once.Resolve("/other"); !cmp.Equal(once, twice) {
			t.Errorf("resolved again it differs:\n%s", cmp.Diff(once, twice))
		}
	})
}
