package main

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/intent"
)

// The configuration in docs/datasets.md is one that the server reads, each source has an example there, and the
// examples of references name what the configuration has.
func TestGuideShowsTheSources(t *testing.T) {
	page, err := os.ReadFile("../../docs/datasets.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	_, block, _ := strings.Cut(text, "\n    datasets:\n")
	block, _, _ = strings.Cut("    datasets:\n"+block, "\n\n")
	var config strings.Builder
	for line := range strings.Lines(block) {
		config.WriteString(strings.TrimPrefix(line, "    "))
	}
	known := slices.Sorted(maps.Keys(sources))
	data := []byte("repository: intent.git\n" + config.String() + "\n")
	server, complaints := intent.ParseServer("aob.yaml", data, known, nil)
	if len(complaints) > 0 {
		t.Fatalf("%v\n%s", complaints, config.String())
	}
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\|.*$").FindAllStringSubmatch(text, -1)
	var shown []string
	for _, row := range rows {
		source := row[1]
		if sources[source] == nil {
			continue // of another table
		}
		shown = append(shown, source)
		references := regexp.MustCompile(`\{`+source+`: ([^}]+)\}`).FindAllStringSubmatch(row[0], -1)
		if len(references) == 0 {
			t.Errorf("%s: no example of a reference", source)
		}
		for _, r := range references {
			name, path, _ := strings.Cut(r[1], "/")
			location, ok := server.Datasets[source][name]
			if !ok {
				t.Errorf("%s: the example %s names nothing in the configuration", source, r[1])
			}
			for _, secret := range sources[source].Secrets(location) {
				if _, ok := server.Secrets[secret]; !ok {
					t.Errorf("%s: %s needs secret %s, which the example does not have", source, r[1], secret)
				}
			}
			if source == "roboflow" { // its Open asks nobody
				v, err := sources[source].Open(t.Context(), dataset.Reference{Location: location, Path: path})
				if err != nil || v.ID == "" {
					t.Errorf("%s: %v", r[1], err)
				}
			}
		}
	}
	if slices.Sort(shown); !slices.Equal(shown, known) {
		t.Errorf("the guide shows the sources %q, want %q", shown, known)
	}
	for _, location := range server.Datasets["s3"] {
		if strings.Contains(location, "secrets=") && len(sources["s3"].Secrets(location)) != 2 {
			t.Errorf("%s names no secrets", location)
		}
	}
}
