package dataset

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/autonomos/aob/reconciler/delivery"
)

const guide = "../../docs/datasets.md"

// docs/datasets.md lists all findings, with their level, in the order of Rules.
func TestGuideListsTheFindings(t *testing.T) {
	doc, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	var want, got strings.Builder
	for _, r := range Rules {
		fmt.Fprintf(&want, "| `%s` | %s | %s |\n", r.Code, r.Level, r.Finds)
	}
	for line := range strings.Lines(string(doc)) {
		if regexp.MustCompile("^\\| `[a-z0-9-]+` \\| (error|warning)").MatchString(line) {
			got.WriteString(line)
		}
	}
	if got.String() != want.String() {
		t.Errorf("the findings of %s are not those of Rules, which are\n%s", guide, want.String())
	}
}

// Each finding that the source makes is one of Rules, with its level.
func TestRulesListTheFindings(t *testing.T) {
	levels := map[string]string{}
	for _, r := range Rules {
		levels[r.Code] = r.Level
	}
	used := map[string]bool{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	constants := map[string]string{}
	var source strings.Builder
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(data)
		}
	}
	for _, m := range regexp.MustCompile(`(code[A-Z]\w+) += "([a-z-]+)"`).FindAllStringSubmatch(source.String(), -1) {
		constants[m[1]] = m[2]
	}
	found := regexp.MustCompile(`(?:finding\(|fault\{)delivery\.Level(\w+),\s+(?:"([a-z0-9-]+)"|(code\w+))|`+
		`\.(fault|warn)\((?:"([a-z0-9-]+)"|(code\w+))`).FindAllStringSubmatch(source.String(), -1)
	for _, m := range found {
		code := cmp.Or(m[2], m[5], constants[cmp.Or(m[3], m[6])])
		level := map[string]string{"Error": delivery.LevelError, "Warning": delivery.LevelWarning,
			"fault": delivery.LevelError, "warn": delivery.LevelWarning}[cmp.Or(m[1], m[4])]
		if used[code] = true; levels[code] != level && levels[code] != Some {
			t.Errorf("a finding %q of level %s; Rules say %q", code, level, levels[code])
		}
	}
	if len(used) < 20 {
		t.Errorf("only %d codes were found in the source", len(used))
	}
}

// The trees in docs/datasets.md are those of datasets that TestLayouts builds and reads, and each layout has one.
func TestGuideShowsTheLayouts(t *testing.T) {
	doc, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	trees := regexp.MustCompile("(?s)```layout ([a-z0-9-]+)\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
	layouts := map[string]bool{}
	for _, tree := range trees {
		a, err := txtar.ParseFile("testdata/layouts/" + tree[1] + ".txtar")
		if err != nil {
			t.Error(err)
			continue
		}
		for line := range strings.Lines(tree[2]) {
			name := strings.TrimSpace(line)
			if !slices.ContainsFunc(a.Files, func(f txtar.File) bool { return f.Name == name }) {
				t.Errorf("%s: the example has no file %q", tree[1], name)
			}
		}
		v, err := openFolder(t.Context(), unpack(t, a.Files[1:]))
		if err != nil {
			t.Fatal(err)
		}
		l, err := v.layout()
		if err != nil {
			t.Fatal(err)
		}
		layouts[l.name] = true
	}
	for _, name := range []string{native, "COCO annotation files", "CVAT for images 1.1", "Pascal VOC", "YOLO",
		"YOLO (Darknet)", "Label Studio JSON", "VGG Image Annotator"} {
		if !layouts[name] {
			t.Errorf("no example of the layout %s", name)
		}
	}
}
