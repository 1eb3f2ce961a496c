package trainer_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trainer"
)

const described = "apiVersion: aob/v1\nkind: Trainer\nname: x\nversions: [\"1\", \"2\"]\narchitectures: [a]\n"

func files() fstest.MapFS {
	return fstest.MapFS{
		"x/trainer.yaml": {Data: []byte(described)}, "x/train.py": {Data: []byte("pass\n")},
		"x/net/layers.py": {Data: []byte("pass\n")}, "x/README.md": {Data: []byte("notes")},
		"x/test_train.py": {Data: []byte("tests")}, "x/.cache/a": {}, "x/__pycache__/a.pyc": {}, "notes.txt": {},
	}
}

// Every file that trains counts in the digest and is installed; notes and tests are not.
func TestInstall(t *testing.T) {
	to := t.TempDir()
	list, err := trainer.Install(files(), to)
	if err != nil {
		t.Fatal(err)
	}
	first := list["x@1"].Files
	if len(list) != 2 || first == "" || list["x@2"].Files != first {
		t.Fatalf("installed %v", list)
	}
	script := trainer.Script(to, first, "x@2")
	if data, err := os.ReadFile(script); err != nil || string(data) != "pass\n" {
		t.Errorf("%s: %q, %v", script, data, err)
	}
	var there []string
	err = filepath.WalkDir(filepath.Dir(script), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			there = append(there, strings.TrimPrefix(path, filepath.Dir(script)+"/"))
		}
		return err
	})
	if err != nil || strings.Join(there, " ") != "net/layers.py train.py trainer.yaml" {
		t.Errorf("installed files are %q, %v", there, err)
	}
	for name, change := range map[string]struct {
		counts bool
		file   string
	}{"a module": {true, "x/net/layers.py"}, "the description": {true, "x/trainer.yaml"},
		"arguments": {true, "x/schema.json"}, "notes": {false, "x/README.md"}, "a test": {false, "x/test_train.py"}} {
		changed := files()
		text := "# changed\n" + string(files()["x/trainer.yaml"].Data)
		if change.file == "x/schema.json" {
			text = `{"type": "object"}`
		}
		changed[change.file] = &fstest.MapFile{Data: []byte(text)}
		list, err := trainer.Install(changed, to)
		if err != nil {
			t.Fatal(err)
		}
		if now := list["x@1"].Files; (now != first) != change.counts {
			t.Errorf("%s: the digest is %s, and was %s", name, now.Short(), first.Short())
		}
	}
	if _, err := os.Stat(script); err != nil {
		t.Errorf("a run's trainer went with an upgrade: %v", err)
	}
}

// Only the folder of its own version counts for a version.
func TestInstallVersions(t *testing.T) {
	to := t.TempDir()
	digests := func(change func(fstest.MapFS)) (one, two delivery.Digest) {
		f := files()
		f["x/versions/1/schema.json"] = &fstest.MapFile{Data: []byte(`{"type": "object"}`)}
		f["x/versions/2/schema.json"] = &fstest.MapFile{Data: []byte(`{"type": "object"}`)}
		change(f)
		list, err := trainer.Install(f, to)
		if err != nil {
			t.Fatal(err)
		}
		return list["x@1"].Files, list["x@2"].Files
	}
	one, two := digests(func(fstest.MapFS) {})
	now, other := digests(func(f fstest.MapFS) { f["x/versions/2/schema.json"].Data = []byte(`{"type":"object"}`) })
	if one == two || now != one || other == two {
		t.Errorf("version 1 is %s and then %s, version 2 %s and then %s", one.Short(), now.Short(), two.Short(),
			other.Short())
	}
	own := filepath.Join(trainer.Folder(to, one, "x"), "versions")
	if list, err := os.ReadDir(own); err != nil || len(list) != 1 || list[0].Name() != "1" {
		t.Errorf("version 1 has the folders %v, %v", list, err)
	}
	if described, err := trainer.Described(to, one, "x@1"); err != nil || described.Name != "x" {
		t.Errorf("the installed description is %+v, %v", described, err)
	}
}

// What is no trainer is refused when the server starts, with the file.
func TestInstallRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(fstest.MapFS)
		want   string
	}{
		"no description": {func(f fstest.MapFS) { delete(f, "x/trainer.yaml") }, "x/trainer.yaml: missing"},
		"no program":     {func(f fstest.MapFS) { delete(f, "x/train.py") }, "train.py is missing"},
		"a link": {func(f fstest.MapFS) {
			f["x/key"] = &fstest.MapFile{Mode: os.ModeSymlink, Data: []byte("/etc/passwd")}
		},
			"x/key is a symbolic link"},
		"an unknown key": {func(f fstest.MapFS) {
			f["x/trainer.yaml"] = &fstest.MapFile{Data: []byte(described + "accelerators: cpu\n")}
		}, "x/trainer.yaml:6:1: accelerators: unknown key; did you mean accelerator?"},
		"a line break in a name": {func(f fstest.MapFS) { f["x/a\nb"] = &fstest.MapFile{} },
			`"x/a\nb": the name has a control character; rename it`},
		"a folder with an escape in its name": {func(f fstest.MapFS) { f["x/a\x1b/b"] = &fstest.MapFile{} },
			`"x/a\x1b": the name has a control character; rename it`},
		"a program that everybody may write": {func(f fstest.MapFS) { f["x/train.py"].Mode = 0o666 },
			"x/train.py: every user of this machine may write it (mode 0666); run chmod -R o-w on"},
		"a folder that everybody may write": {func(f fstest.MapFS) {
			f["x"] = &fstest.MapFile{Mode: os.ModeDir | 0o777}
		}, "x: every user of this machine may write it (mode 0777)"},
		"a folder of trainers that everybody may write": {func(f fstest.MapFS) {
			f["."] = &fstest.MapFile{Mode: os.ModeDir | 0o777}
		}, "trainers: their folder: every user of this machine may write it"},
	} {
		f := files()
		c.change(f)
		if _, err := trainer.Install(f, t.TempDir()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
