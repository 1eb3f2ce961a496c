package intent_test

import (
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

const model = `apiVersion: aob/v1
kind: Model
name: m
dataset: {dir: shapes}
classes: [a]
train: {with: tiny@1}
`

func file(path, data string) intent.File {
	return intent.File{Path: path, Size: int64(len(data)), Data: []byte(data)}
}

// lines returns complaints as people see them.
func lines(files ...intent.File) []string {
	_, complaints := intent.Parse(files, intent.Options{})
	var list []string
	for _, c := range complaints {
		list = append(list, c.String())
	}
	return list
}

func TestFiles(t *testing.T) {
	for _, c := range []struct {
		name string
		file intent.File
		want []string
	}{
		{"right", file("models/m.yaml", model), nil},
		{"executable with CRLF", file("models/m.yaml", strings.ReplaceAll(model, "\n", "\r\n")), nil},
		{"symbolic link", intent.File{Path: "models/m.yaml", Mode: fs.ModeSymlink, Size: 11,
			Data: []byte("/etc/passwd")},
			[]string{"models/m.yaml: is a symbolic link; want the file itself"}},
		{"submodule", intent.File{Path: "models/m.yaml", Mode: fs.ModeIrregular},
			[]string{"models/m.yaml: is not a regular file, but a submodule for example; want the file itself"}},
		{"the folder is a link", intent.File{Path: "models", Mode: fs.ModeSymlink, Size: 4},
			[]string{"models: is a symbolic link, which AOB does not follow; put the folder itself there"}},
		{"the folder is a submodule", intent.File{Path: "models", Mode: fs.ModeIrregular},
			[]string{"models: is a submodule, which AOB does not read; put the files themselves into the folder"}},
		{"the folder is a file", file("models", "x"), []string{"models: is a file; want a folder of files"}},
		{"Git LFS pointer", file("models/m.yaml",
			"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
			[]string{
				`models/m.yaml: is a Git LFS pointer, which AOB does not follow; take the file out of LFS: ` +
					`git lfs migrate export --include="models/m.yaml" --everything`,
			}},
		{"tab in a list", file("models/m.yaml", "kind: Model\nclasses:\n\t- a\n"),
			[]string{"models/m.yaml:3:1: YAML does not allow tabs for indentation; use spaces"}},
		{"tab after a value", file("models/m.yaml",
			"apiVersion: aob/v1\nkind: Model\nname: m\n\ttrain: {with: tiny@1}\n"),
			[]string{"models/m.yaml:4:1: YAML does not allow tabs for indentation; use spaces"}},
		{"tab after spaces", file("models/m.yaml", "kind: Model\ntrain:\n  with: tiny@1\n  \tepochs: 1\n"),
			[]string{"models/m.yaml:4:3: YAML does not allow tabs for indentation; use spaces"}},
		{"tab with CRLF", file("models/m.yaml", "kind: Model\r\nname: m\r\n\ttrain: {with: tiny@1}\r\n"),
			[]string{"models/m.yaml:3:1: YAML does not allow tabs for indentation; use spaces"}},
		{"big UTF-16", file("models/m.yaml", "\xfe\xff\x00a"),
			[]string{"models/m.yaml:1:1: is UTF-16; save it as UTF-8"}},
		{"1 GiB, by its size alone", intent.File{Path: "models/m.yaml", Size: 1 << 30},
			[]string{"models/m.yaml: is too large; want at most 64 KiB"}},
		{"of unknown size", intent.File{Path: "models/m.yaml", Size: math.MaxInt64},
			[]string{"models/m.yaml: is too large; want at most 64 KiB"}},
		{"larger than it says", intent.File{Path: "models/m.yaml", Size: 1, Data: make([]byte, intent.MaxFileSize+1)},
			[]string{"models/m.yaml: is too large; want at most 64 KiB"}},
		{"not read", intent.File{Path: "models/m.yaml", Size: 10},
			[]string{"models/m.yaml: its content could not be read; check that the file can be read"}},
		{"as large as may be", file("models/m.yaml", model+"#"+strings.Repeat("x", intent.MaxFileSize-len(model)-1)),
			nil},
		{"byte order mark", file("models/m.yaml", "\xef\xbb\xbf"+model),
			[]string{"models/m.yaml:1:1: starts with a byte order mark; save it as UTF-8 without one"}},
		{"UTF-16", file("models/m.yaml", "\xff\xfea\x00"), []string{"models/m.yaml:1:1: is UTF-16; save it as UTF-8"}},
		{"Latin-1", file("models/m.yaml", "kind: Model\n# Gr\xf6\xdfe\n"),
			[]string{"models/m.yaml:2:5: is not UTF-8; save it as UTF-8"}},
		{"control character", file("models/m.yaml", "kind: Model\nname: a\x00b\n"),
			[]string{"models/m.yaml:1:1: is not YAML: control characters are not allowed"}},
		{"an empty second document", file("models/m.yaml", "kind: Model\n---"),
			[]string{
				"models/m.yaml:2:1: a second YAML document starts here; want one document in a file, so remove ---",
			}},
		{"lines of old", file("models/m.yaml", strings.ReplaceAll(model, "\n", "\r")+"nmae: m\r"),
			[]string{"models/m.yaml:7:1: nmae: unknown key; did you mean name?"}},
		{"control character in the name", file("models/\x00.Yml", model),
			[]string{`"models/\x00.Yml": AOB reads .yaml, not .Yml; rename it to "\x00.yaml"`}},
		{"outside", file("infra/m.yaml", model),
			[]string{"infra/m.yaml: is not in a folder that AOB reads; move it into models/, gates/ or fleets/"}},
		{"out of the tree", file("models/../m.yaml", model),
			[]string{"models/../m.yaml: is not in a folder that AOB reads; move it into models/, gates/ or fleets/"}},
		{"newline in the name", file("models/a\nb.yaml", model),
			[]string{
				`"models/a\nb.yaml": want a file name NAME.yaml, where NAME is a name of at most 63 ` +
					`lower-case letters, digits and dashes, got "a\nb.yaml"`,
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lines(c.file)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("complaints (-want +got):\n%s", diff)
			}
		})
	}
}

// A file in a wrong place is said first, and then what does not find it.
func TestMisplacedFilesComeFirst(t *testing.T) {
	const (
		gate = "apiVersion: aob/v1\nkind: Gate\nname: g\ncovers: [m]\nevaluate: {dataset: {dir: shapes}, split: " +
			"test}\nclasses: [a]\nchecks: [{metric: mAP, min: 0.5}]\n"
		fleet = "apiVersion: aob/v1\nkind: Fleet\nname: f\nruns: m\n"
	)
	others := []intent.File{file("fleets/f.yaml", fleet), file("gates/g.yaml", gate)}
	if got := lines(append(others, file("models/m.yaml", model))...); len(got) > 0 {
		t.Fatal(got)
	}
	const lost = `fleets/f.yaml:4:7: runs: unknown model "m"; `
	for _, c := range []struct {
		file        intent.File
		cause, lost string
	}{
		{file("models/m.yml", model), `models/m.yml: AOB reads .yaml, not .yml; rename it to "m.yaml"`,
			`AOB does not read "models/m.yml"`},
		{file("models/m.YAML", model), `models/m.YAML: AOB reads .yaml, not .YAML; rename it to "m.yaml"`,
			`AOB does not read "models/m.YAML"`},
		{file("models/cv/m.yaml", model),
			`models/cv/m.yaml: is in a subfolder, which AOB does not read; move it to "models/m.yaml"`,
			`AOB does not read "models/cv/m.yaml"`},
		{intent.File{Path: "models", Mode: fs.ModeSymlink}, "models: is a symbolic link", "none is known"},
		{intent.File{Path: "models", Mode: fs.ModeIrregular}, "models: is a submodule", "none is known"},
	} {
		got := lines(append(others, c.file)...)
		want := 3
		if c.lost == "none is known" { // nothing stands in a wrong place, so the gate may be earlier than its model
			want = 2
		}
		if len(got) != want || !strings.HasPrefix(got[0], c.cause) || got[1] != lost+c.lost {
			t.Errorf("%s: %q", c.file.Path, got)
		}
	}
	// The same of fleets that wait for others.
	after := file("fleets/z.yaml", "apiVersion: aob/v1\nkind: Fleet\nname: z\nruns: m\nafter: {fleet: f}\n")
	got := lines(file("models/m.yaml", model), file("gates/g.yaml", gate), after, file("fleets/f.yml", fleet))
	if len(got) != 2 || !strings.HasPrefix(got[0], "fleets/f.yml: AOB reads .yaml") ||
		!strings.HasSuffix(got[1], `unknown fleet "f"; AOB does not read "fleets/f.yml"`) {
		t.Errorf("%q", got)
	}
}

// The text of a file comes back in complaints, but not all of it.
func TestComplaintsAreBounded(t *testing.T) {
	var many strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&many, "key%d: 1\n", i)
	}
	for name, data := range map[string]string{
		"many keys":  many.String(),
		"long key":   strings.Repeat("k", 30_000) + ": 1\n",
		"long value": "kind: " + strings.Repeat("v", 30_000) + "\n",
		"long class": "classes: [" + strings.Repeat("v", 30_000) + "]\n",
		"many lists": "classes: [" + strings.Repeat("[],", 20_000) + "]\n",
		"long unit": strings.Replace(model, "train: {", "train: {machine: {limit: "+strings.Repeat("1", 30_000)+"h}, ",
			1),
		"long label": "classes: {a: [" + strings.Repeat("v", 30_000) + "]}\n",
	} {
		got := lines(file("models/m.yaml", data))
		if len(got) == 0 || len(got) > 101 {
			t.Errorf("%s: %d complaints", name, len(got))
		}
		for _, line := range got {
			if len(line) > 600 {
				t.Errorf("%s: a complaint of %d bytes: %.200s…", name, len(line), line)
			}
		}
	}
	if got := lines(file("models/m.yaml",
		many.String())); got[0] != "models/m.yaml: 2906 more complaints about this file are not shown" {
		t.Errorf("the first line does not say how many more there are: %q", got[0])
	}
}

func TestTreesAreBounded(t *testing.T) {
	var large []intent.File
	for i := range 300 {
		large = append(large, intent.File{Path: fmt.Sprintf("gates/g%d.yaml", i), Size: intent.MaxFileSize})
	}
	if diff := cmp.Diff(
		[]string{"gates: the tree has 19 MiB of files in models/, gates/ and fleets/; want at most 16 MiB"},
		lines(large...)); diff != "" {
		t.Error(diff)
	}
	files := make([]intent.File, intent.MaxFiles+1)
	for i := range files {
		files[i] = intent.File{Path: fmt.Sprintf("models/m%d.yaml", i), Data: []byte(model)}
	}
	if diff := cmp.Diff([]string{"models: the tree has 10001 files in models/, gates/ and fleets/; want at most 10000"},
		lines(files...)); diff != "" {
		t.Error(diff)
	}
}

// Trees that are made to be slow are read like others, and what is wrong with them is not said a million times.
func TestHostileTreesAreReadLikeOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	tree := func(n int, file func(i int) (path, text string)) []intent.File {
		var list []intent.File
		for i := range n {
			path, text := file(i)
			list = append(list, intent.File{Path: path, Size: int64(len(text)), Data: []byte(text)})
		}
		return list
	}
	waits := func(i, on int) (string, string) {
		return fmt.Sprintf("fleets/f%05d.yaml", i), fmt.Sprintf("apiVersion: aob/v1\nkind: Fleet\nname: f%05d\nruns: "+
			"m\nmatch: {a: b}\nwaves: [100%%]\nsoak: 3s\nadvance: all-healthy\nafter: {fleet: f%05d, healthy: 1m}\n", i,
			on)
	}
	var names strings.Builder
	for i := 0; names.Len() < 50_000; i++ {
		fmt.Fprintf(&names, "n%d, ", i)
	}
	const n = 4000
	for name, list := range map[string][]intent.File{
		"a chain of fleets": tree(n, func(i int) (string, string) { return waits(i, i+1) }),
		"a cycle of fleets": append(tree(n, func(i int) (string, string) { return waits(i, (i+1)%n) }),
			intent.File{Path: "models/m.yaml", Size: int64(len(model)), Data: []byte(model)}),
		"releases of nothing": tree(n, func(i int) (string, string) {
			return fmt.Sprintf("models/m%d.release.yaml", i), "kind: Release\n"
		}),
		"gates before their models": tree(20, func(i int) (string, string) {
			return fmt.Sprintf("gates/g%d.yaml", i), fmt.Sprintf("apiVersion: aob/v1\nkind: Gate\nname: g%d\ncovers: "+
				"[%sm]\nowners: [lead]\nevaluate: {dataset: {dir: shapes}, split: test}\nclasses: [a]\n"+
				"checks:\n  - {metric: mAP, min: 0.1}\n", i, names.String())
		}),
	} {
		_, complaints := intent.Parse(list, intent.Options{})
		if got := len(complaints); (got == 0) != (name == "gates before their models") || got > intent.MaxComplaints+1 {
			t.Errorf("%s: %d complaints", name, got)
		}
		if len(complaints) == 0 {
			continue
		}
		last := complaints[len(complaints)-1]
		if len(complaints) > intent.MaxComplaints &&
			!strings.Contains(last.Text, "more complaints about these files are not shown") {
			t.Errorf("%s: the last complaint is %s", name, last)
		}
		if name == "a cycle of fleets" && !slices.ContainsFunc(complaints, func(c delivery.Complaint) bool {
			return strings.Contains(c.Text, "the fleets wait for each other: f00000 -> f00001") && len(c.Text) < 300
		}) {
			t.Errorf("the cycle is not named")
		}
	}
}
