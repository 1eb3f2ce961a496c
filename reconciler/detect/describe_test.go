package detect

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// fileRuntime declares what a test says. Its models have as many queries as count says at each run.
type fileRuntime struct {
	pureRuntime
	entry    string
	own      string // AOB's own entry
	in, out  []Port
	count    func() int64
	slots    int64
	describe error
}

func (r fileRuntime) Describe([]byte) ([]Port, []Port, error) { return r.in, r.out, r.describe }

func (r fileRuntime) Metadata(_ []byte, name string) (string, error) {
	if name == OwnKey {
		return r.own, nil
	}
	return r.entry, nil
}

func (r fileRuntime) Load([]byte, string, []string, int) (Model, error) {
	return pureRuntime{run: func(context.Context, Tensor) ([]Tensor, error) {
		n := r.count()
		return []Tensor{{[]int64{1, n, 4}, make([]float32, max(0, 4*n))},
			{[]int64{1, n, r.slots}, make([]float32, max(0, n*r.slots))}}, nil
	}}, nil
}

func sixQueries() int64 { return 6 }

func TestWorkerDescribe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, []byte("model"), 0o600); err != nil {
		t.Fatal(err)
	}
	names := []string{"", "a", "b", ""}
	open := func(in, out []Port) ([]Port, []Port) {
		out[0].Shape, out[1].Shape = []int64{-1, -1, 4}, []int64{-1, -1, 4}
		return in, out
	}
	for _, c := range []struct {
		name  string
		file  fileRuntime
		slots []string
		ports func(in, out []Port) ([]Port, []Port)
		want  string // the slots as %q, "" for no signature; or in the error
		fail  bool
	}{
		{name: "metadata", file: fileRuntime{entry: testMetadata}, want: `["red" "" "blue" ""]`},
		{name: "metadata is not replaced", file: fileRuntime{entry: testMetadata}, slots: names,
			want: `["red" "" "blue" ""]`},
		{name: "an entry of AOB", file: fileRuntime{entry: testMetadata, own: `{"schema_version":1}`},
			want: `["red" "" "blue" ""]`},
		{name: "an entry of AOB that is none", file: fileRuntime{entry: testMetadata, own: "[]"}, fail: true,
			want: "its aob_signature metadata"},
		{name: "an entry of AOB alone", file: fileRuntime{own: "[]"}, want: ""},
		{name: "no metadata", want: ""},
		{name: "named slots", slots: names, want: `["" "a" "b" ""]`},
		{name: "open sizes", slots: names, ports: open, want: `["" "a" "b" ""]`},
		{name: "open sizes, unnamed", ports: open, want: ""},
		{name: "open and fixed", slots: names, ports: func(in, out []Port) ([]Port, []Port) {
			out[1].Shape[1] = -1
			return in, out
		}, want: `["" "a" "b" ""]`},

		{name: "does not load", file: fileRuntime{describe: errors.New("truncated")}, fail: true, want: "truncated"},
		{name: "too few names", slots: names[:3], fail: true, want: "output labels has 4 slots, but 3 names of slots"},
		{name: "no class", slots: make([]string, 4), fail: true, want: "no slot has a class"},
		{name: "a name twice", slots: []string{"a", "b", "a", ""}, fail: true, want: `both "a"`},
		{name: "a control character", slots: []string{"a\x1b[2J", "", "", ""}, fail: true,
			want: "want the name of a class"},
		{name: "a long name", slots: []string{strings.Repeat("x", 1<<20), "", "", ""}, fail: true,
			want: "want the name"},
		{name: "huge metadata", file: fileRuntime{entry: strings.Repeat(" ", maxMetadata+1)}, fail: true,
			want: "want at most"},
		{name: "metadata that is none", file: fileRuntime{entry: "{"}, slots: names, fail: true, want: "metadata"},
		{name: "a rank", slots: names, ports: func(in, out []Port) ([]Port, []Port) {
			out[0].Shape = []int64{-1, 6}
			return in, out
		}, fail: true, want: "want 3 dimensions"},
		{name: "no rank", slots: names, ports: func(in, out []Port) ([]Port, []Port) {
			in[0].Shape = nil
			return in, out
		}, fail: true, want: "want 4 dimensions"},
		{name: "a deep rank", ports: func(in, out []Port) ([]Port, []Port) {
			out[2].Shape = make([]int64, maxDimensions+1)
			return in, out
		}, fail: true, want: "17 dimensions"},
		{name: "negative sizes", slots: names, ports: func(in, out []Port) ([]Port, []Port) {
			out[0].Shape[1], out[1].Shape[1] = -5, -5
			return in, out
		}, fail: true, want: "with Q from 1 to 10000, or not fixed"},
		{name: "open slots", slots: names, ports: func(in, out []Port) ([]Port, []Port) {
			out[0].Shape[2] = -1
			return in, out
		}, fail: true, want: "with slots fixed"},
		{name: "an output's name", ports: func(in, out []Port) ([]Port, []Port) {
			out[2].Name = "masks\x1b]0;x\a"
			return in, out
		}, fail: true, want: `"masks\x1b]0;x\a" contains an unprintable character`},
		{name: "many outputs", ports: func(in, out []Port) ([]Port, []Port) {
			return in, slices.Concat(out, slices.Repeat(out[2:], 100))
		}, fail: true, want: "1 input and 103 outputs, want at most 64 of each"},

		{name: "no queries", slots: names, ports: open, file: fileRuntime{count: func() int64 { return 0 }}, fail: true,
			want: "output dets has shape [1 0 4]"},
		{name: "many queries", slots: names, ports: open, fail: true,
			file: fileRuntime{count: func() int64 { return maxQueries + 1 }},
			want: "output dets has shape [1 10001 4]"},
		{name: "other slots at a run", slots: names, ports: open, file: fileRuntime{slots: 5}, fail: true,
			want: "output labels has shape [1 6 5], want [1,6,4]"},
		{name: "other queries at each run", slots: names, ports: open, file: fileRuntime{count: func() func() int64 {
			n := int64(5)
			return func() int64 { n++; return n }
		}()}, fail: true, want: "golden replay: output dets has 28 numbers, want 24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.file.in, c.file.out = testPorts()
			if c.ports != nil {
				c.file.in, c.file.out = c.ports(c.file.in, c.file.out)
			}
			if c.file.slots == 0 {
				c.file.slots = 4
			}
			if c.file.count == nil {
				c.file.count = sixQueries
			}
			got, err := Worker{Runtime: c.file}.Describe(t.Context(), path, c.slots)
			if c.fail {
				if bad, ok := errors.AsType[*ModelError](err); !ok || !strings.Contains(bad.Why, c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			said := ""
			if got.Signature != nil {
				said = strings.Join(strings.Fields(quoted(got.Signature.Slots)), " ")
			}
			if err != nil || got.Slots != 4 || said != c.want || got.Metadata != (c.file.entry != "") {
				t.Errorf("got %+v, %v; want the slots %s", got, err, c.want)
			}
			if producer := map[bool]string{true: "1.10.1"}[got.Metadata]; got.Producer != producer ||
				got.Own != (c.file.own != "" && got.Metadata) {
				t.Errorf("by %q, own %t; want by %q", got.Producer, got.Own, producer)
			}
			if err := got.check(c.slots); err != nil {
				t.Errorf("the caller refuses it: %v", err)
			}
		})
	}
	if _, err := (Worker{Runtime: fileRuntime{}}).Describe(t.Context(), path+"x", nil); err == nil {
		t.Error("no file: no error")
	}
}

func quoted(names []string) string {
	var b bytes.Buffer
	if err := writeLine(&b, names); err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(b.String(), `","`, `" "`)
}

// A child that has run a hostile model may write anything.
func TestDescribeChecksTheChild(t *testing.T) {
	const ports = `"inputs":[{"name":"input","type":"float32","shape":[1,3,8,8]}],"outputs":[]`
	for name, c := range map[string]struct {
		said  string
		slots []string
		want  string
	}{
		"another message": {`{"done":1}`, nil, "unexpected message"},
		"a producer": {`{"described":{` + ports + `,"slots":2,"metadata":false,"producer":"1.9\u001b[2J"}}`, nil,
			"is no version"},
		"no slots":     {`{"described":{` + ports + `,"slots":0,"metadata":false}}`, nil, "0 slots"},
		"many slots":   {`{"described":{` + ports + `,"slots":4097,"metadata":false}}`, nil, "4097 slots"},
		"no signature": {`{"described":{` + ports + `,"slots":2,"metadata":true}}`, nil, "no signature"},
		"still no signature": {`{"described":{` + ports + `,"slots":2,"metadata":false}}`, []string{"a", ""},
			"no signature"},
		"a name": {`{"described":{"inputs":[],"outputs":[{"name":"a\u001b[2J","type":"","shape":[]}],"slots":2,` +
			`"metadata":false}}`, nil, "unprintable"},
		"a type": {`{"described":{"inputs":[],"outputs":[{"name":"a","type":"\u001b[2J","shape":[]}],"slots":2,` +
			`"metadata":false}}`, nil, "has the type"},
		"other slots": {`{"described":{` + ports + `,"slots":1,"metadata":false,"signature":` + signatureText(t) + `}}`,
			[]string{"a"}, "the signature has the slots"},
		"an unsafe signature": {`{"described":{` + ports + `,"slots":4,"metadata":true,"signature":` +
			strings.Replace(signatureText(t), `"select":8`, `"select":100000`, 1) + `}}`, nil, "select is 100000"},
	} {
		t.Run(name, func(t *testing.T) {
			read := ""
			if c.slots != nil {
				read = "/bin/cat >/dev/null\n"
			}
			d := script(t, sayHello+read+"echo '"+strings.ReplaceAll(c.said, `\`, `\\`)+"'")
			_, err := d.Describe(t.Context(), "/m.onnx", c.slots)
			if crash, ok := errors.AsType[*CrashError](err); !ok || !strings.Contains(crash.Why, c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	// A child that ends before it has read the slots, of which a pipe holds a part.
	d := script(t, "echo nothing to read >&2; exit 3")
	slots := slices.Repeat([]string{strings.Repeat("x", 200)}, 4000)
	_, err := d.Describe(t.Context(), "/m.onnx", slots)
	if err == nil || !strings.Contains(err.Error(), "nothing to read") {
		t.Errorf("got %v", err)
	}
}

func signatureText(t *testing.T) string {
	line, err := delivery.EncodeJSON(testSignature())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(line))
}

func TestReadSlots(t *testing.T) {
	got, err := ReadSlots(strings.NewReader(`["a", "", "b"]` + "\n"))
	if err != nil || !slices.Equal(got, []string{"a", "", "b"}) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, text := range []string{"", "{}", `["a"`, `["a"] x`, `[1]`, `["` + strings.Repeat("x", maxHeader) + `"]`} {
		if got, err := ReadSlots(strings.NewReader(text)); err == nil {
			t.Errorf("%.20q: got %.20q", text, got)
		}
	}
}
