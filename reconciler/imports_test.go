package reconciler

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The map of the code. A package imports, of AOB, what stands behind it and
// nothing else; tests may import more.
var (
	pure = []string{"delivery", "intent", "coco", "explain", "gate", "rollout", "plan", "code",
		"words", "provenance", "profile", "retention"}
	leaves   = []string{"durable", "trust"}
	adapters = []string{"git", "forge", "dataset", "run", "terraform", "cloud", "artifact", "evidence", "detect",
		"engine", "fleet", "ledger", "track", "web", "picture", "trainer", "store"}

	allowed = map[string][]string{
		"delivery": {},

		"provenance": {"delivery"},
		"profile":    {"delivery", "intent"},
		"code":       {"delivery"},
		"intent":     {"delivery"},
		"coco":       {"delivery"},
		"explain":    {"delivery", "code", "plan"},
		"gate":       {"delivery", "code", "coco"},
		"rollout":    {"delivery", "code"},
		"plan":       {"delivery", "code", "gate", "rollout"},
		"words":      {"delivery", "code", "gate", "rollout", "plan", "explain"},
		"durable":    {"delivery"},
		"trust":      {"delivery", "durable"},
		"work": {"delivery", "coco", "gate", "profile", "durable", "dataset", "artifact", "detect", "run", "trainer",
			"picture"},
		"stage":     {"delivery", "gate", "plan", "words", "trust", "run", "artifact", "evidence"},
		"turn":      {"delivery"},
		"queue":     {"delivery", "turn"},
		"poll":      {"delivery", "code", "git", "ledger", "plan", "words", "turn", "queue"},
		"post":      {"delivery", "forge", "ledger", "plan", "words", "turn", "queue", "poll"},
		"commits":   {"delivery", "git", "intent"},
		"history":   {"delivery", "git", "intent", "ledger", "plan", "words", "turn", "commits"},
		"pulls":     {"delivery", "code", "git", "ledger", "plan", "words", "turn", "poll", "commits"},
		"outbox":    {"delivery", "ledger", "plan", "track", "turn", "queue"},
		"retention": {"delivery", "code", "plan"},
		"shelf": {"delivery", "code", "retention", "plan", "durable", "artifact", "dataset", "engine", "ledger", "run",
			"trainer", "post"},
		"archive": {"delivery", "plan", "artifact", "evidence", "provenance"},
		"view": {"delivery", "intent", "coco", "gate", "rollout", "plan", "code", "words", "explain", "retention",
			"git", "run", "web"},
		"edge":      {"delivery", "durable", "trust", "detect", "artifact"},
		"serve":     {"delivery", "profile", "durable", "detect"},
		"onnx":      {"delivery", "profile", "durable", "detect"},
		"turbojpeg": {},
	}

	// What a pure package must not touch: time passing, files, processes,
	// networks, logs. Types of time are values.
	impure = []string{"context", "os", "os/exec", "log", "log/slog", "net", "net/http", "path/filepath", "syscall",
		"io/ioutil"}

	// One third-party library, one package.
	vendors = map[string][]string{
		"github.com/go-git/":                      {"git"},
		"github.com/hashicorp/terraform-exec":     {"terraform"},
		"github.com/hashicorp/terraform-json":     {"terraform"},
		"github.com/yalue/onnxruntime_go":         {"onnx"},
		"github.com/prometheus/client_golang":     {"web", "edge", "serve"},
		"gopkg.in/yaml.v3":                        {"intent", "dataset"},
		"modernc.org/sqlite":                      {"ledger"},
		"oras.land/oras-go":                       {"artifact"},
		"github.com/opencontainers/":              {"artifact"},
		"code.gitea.io/sdk":                       {"forge"},
		"github.com/google/go-github":             {"forge"},
		"gitlab.com/gitlab-org/api/client-go":     {"forge"},
		"github.com/bradleyfalzon/ghinstallation": {"forge"},
		"github.com/secure-systems-lab/":          {"trust"},
		"golang.org/x/crypto/":                    {"trust"},
		"github.com/aws/":                         {"cloud"},
		"golang.org/x/image":                      {"picture"},
		"github.com/hajimehoshi/bitmapfont":       {"picture"},
		"github.com/go-text/typesetting":          {"picture"},
		"github.com/CycloneDX/":                   {"provenance"},
		"github.com/spf13/":                       {},
		"github.com/google/go-containerregistry":  {},
	}
	names = []string{"util", "utils", "common", "helpers", "helper", "mocks", "mock", "misc", "types", "base"}
)

func TestImports(t *testing.T) {
	for _, a := range adapters {
		allowed[a] = append(slices.Clone(leaves), slices.DeleteFunc(slices.Clone(pure), func(p string) bool {
			return p == "plan" || p == "words" || p == "retention"
		})...)
	}
	allowed["terraform"] = append(allowed["terraform"], "trainer") // it is asked by trainer.Request
	const root = "github.com/autonomos/aob/reconciler"
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if slices.Contains(names, e.Name()) {
				t.Errorf("%s: name the duty, not the drawer", file)
			}
			if e.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		pkg, _, nested := strings.Cut(filepath.ToSlash(file), "/")
		if !nested {
			pkg = "" // the loop itself puts everything together
		}
		may, known := allowed[pkg]
		if pkg != "" && !known {
			if !seen[pkg] {
				t.Errorf("package %s is not on the map in this file", pkg)
			}
			seen[pkg] = true
			return nil
		}
		seen[pkg] = true
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, im := range parsed.Imports {
			p, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			if own, ok := strings.CutPrefix(p, root+"/"); ok && pkg != "" && !slices.Contains(may, own) && own != pkg &&
				!strings.HasPrefix(own, pkg+"/") {
				t.Errorf("%s imports %s; %s may import %s", file, own, pkg, strings.Join(may, ", "))
			}
			if p == root {
				t.Errorf("%s imports the loop", file)
			}
			if slices.Contains(pure, pkg) && slices.Contains(impure, p) {
				t.Errorf("%s imports %s: %s is pure", file, p, pkg)
			}
			if pkg == "delivery" && strings.Contains(strings.Split(p, "/")[0], ".") {
				t.Errorf("%s imports %s: delivery takes the standard library only", file, p)
			}
			if p == "C" && pkg != "onnx" && pkg != "turbojpeg" {
				t.Errorf("%s uses cgo", file)
			}
			for vendor, homes := range vendors {
				if strings.HasPrefix(p, vendor) && !slices.Contains(homes, pkg) {
					t.Errorf("%s imports %s, whose home is %s", file, p, strings.Join(homes, " or "))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for p := range allowed {
		if !seen[p] && p != "cloud" {
			t.Errorf("%s is on the map and not in the tree", p)
		}
	}
}

// The commands only wire; ONNX Runtime and libjpeg-turbo are reached by aob-detect alone.
func TestCommandImports(t *testing.T) {
	may := map[string]func(string) bool{
		"aob": func(p string) bool { return p != "onnx" && p != "turbojpeg" && p != "edge" },
		"aob-agent": func(p string) bool {
			return slices.Contains([]string{"delivery", "profile", "durable", "trust", "detect", "artifact", "edge"}, p)
		},
		"aob-detect": func(p string) bool {
			return slices.Contains([]string{"delivery", "intent", "profile", "durable", "detect", "engine", "serve",
				"onnx", "turbojpeg"}, p)
		},
	}
	for command, ok := range may {
		files, err := filepath.Glob(filepath.Join("..", "cmd", command, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files of %s: %v", command, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, im := range parsed.Imports {
				p, _ := strconv.Unquote(im.Path.Value)
				if own, is := strings.CutPrefix(p, "github.com/autonomos/aob/reconciler/"); is && !ok(own) {
					t.Errorf("%s imports %s", file, own)
				}
			}
		}
	}
}

// Every folder and file that a document names exists, so that no map rots.
func TestDocumentsNamePathsThatExist(t *testing.T) {
	documents, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(documents, more...) {
		data, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range strings.FieldsFunc(string(data), func(r rune) bool {
			return strings.ContainsRune(" \n\t`()[]|,;:\"'", r)
		}) {
			first, _, ok := strings.Cut(word, "/")
			if !ok || !slices.Contains([]string{"reconciler", "cmd", "infra", "trainers", "schemas", "demo", "tools",
				"docs"}, first) || strings.ContainsAny(word, "*…<>{}$=") ||
				strings.ToUpper(word) != strings.ToLower(word) && strings.Contains(word, "NAME") {
				continue
			}
			if _, err := os.Stat(path.Join("..", strings.TrimRight(word, ".#"))); err != nil {
				t.Errorf("%s names %s, which is not there", doc, word)
			}
		}
	}
}
