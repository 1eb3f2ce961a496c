package web_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The package comment lists exactly the routes that the handlers of the API and of the site register.
func TestDocListsRoutes(t *testing.T) {
	fset := token.NewFileSet()
	doc, err := parser.ParseFile(fset, "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	api, site, _ := strings.Cut(doc.Doc.Text(), "# The site\n")
	site, _, _ = strings.Cut(site, "\n# ")

	// An upper-case word in a path stands for a parameter, as NUMBER for {number}.
	wantAPI := matches(api, `(?m)^\t([A-Z]+) +(/[^ ?\n]*)`)
	wantSite := matches(site, `(?m)^\t()(/[^ ?\n]*)`)
	if diff := cmp.Diff(wantAPI, slices.Sorted(slices.Values(slices.Concat(registered(t, fset, "api.go"),
		registered(t, fset, "lists.go"), registered(t, fset, "retention.go"))))); diff != "" {
		t.Errorf("routes of the API (-doc.go +api.go):\n%s", diff)
	}
	if diff := cmp.Diff(wantSite, registered(t, fset, "site.go")); diff != "" {
		t.Errorf("routes of the site (-doc.go +site.go):\n%s", diff)
	}
}

// matches returns the methods and paths that a pattern finds, sorted.
func matches(text, pattern string) []string {
	var routes []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		routes = append(routes, strings.TrimSpace(m[1]+" "+m[2]))
	}
	slices.Sort(routes)
	return routes
}

var parameter = regexp.MustCompile(`\{[a-z]+\}`)

// registered returns the routes that a file registers on its first mux, sorted. Routes of the API have a method; routes
// of the site do not. The catch-all "/" is left out.
func registered(t *testing.T, fset *token.FileSet, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(fset, file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var routes []string
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		literal, ok := call.Args[0].(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return true
		}
		route, err := strconv.Unquote(literal.Value)
		if err != nil {
			t.Fatal(err)
		}
		switch function := call.Fun.(type) {
		case *ast.Ident: // helpers of the two handlers
			switch function.Name {
			case "handle":
			case "get":
				route = "GET " + route
			case "post":
				route = "POST " + route
			case "mount":
			default:
				return true
			}
		case *ast.SelectorExpr:
			if on, ok := function.X.(*ast.Ident); !ok || on.Name != "mux" {
				return true
			}
		default:
			return true
		}
		route = parameter.ReplaceAllStringFunc(route, func(s string) string { return strings.ToUpper(s[1 : len(s)-1]) })
		if file == "site.go" {
			route = strings.TrimPrefix(route, "GET ")
		}
		if route != "/" {
			routes = append(routes, route)
		}
		return true
	})
	slices.Sort(routes)
	return routes
}
