package profile

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// docs/profiles.md has the table of the code. AOB_UPDATE=1 writes it.
func TestDocument(t *testing.T) {
	const path = "../../docs/profiles.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, part := range []struct {
		header string // the end of the table's first line
		lines  []string
	}{
		{"| workspace | batch | load | build |", table()},
		{"| boxes found | scores |", bounds()},
	} {
		header := part.header
		_, rest, ok := strings.Cut(text, header+"\n")
		if !ok {
			t.Fatalf("%s has no line %q", path, header)
		}
		_, rest, _ = strings.Cut(rest, "\n") // the line of dashes
		got, _, _ := strings.Cut(rest, "\n\n")
		if want := strings.Join(part.lines, "\n"); got != want {
			if os.Getenv("AOB_UPDATE") == "" {
				t.Errorf("%s has\n%s\nwant\n%s\nwrite it with AOB_UPDATE=1 go test ./reconciler/profile", path, got,
					want)
			}
			text = strings.Replace(text, got, want, 1)
		}
	}
	if os.Getenv("AOB_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func row(cells ...any) string {
	return "| " + strings.Join(delivery.Each(cells, func(v any) string { return fmt.Sprint(v) }), " | ") + " |"
}

func table() (lines []string) {
	or := func(text, none string) string {
		if text == "" || text == "0" || text == "0B" {
			return none
		}
		return text
	}
	for _, p := range Builtin() {
		batch, build := "-", "-"
		if p.Engine != nil {
			batch, build = fmt.Sprint(p.Engine.Batch), p.Engine.Timeout.String()
		}
		lines = append(lines, row("`"+p.Name+"`", p.For, p.Provider, p.Precision, or(fmt.Sprint(p.Threads), "all"),
			or(p.Memory.String(), "-"), p.Swap, or(p.Compute, "-"), p.Ladder(), batch, p.Load, build))
	}
	return lines
}

func bounds() (lines []string) {
	for _, c := range []struct{ name, profile string }{
		{"`cpu`", "cpu-fp32"}, {"GPU, `fp32`", "cuda-fp32"}, {"GPU, `fp16`", "t4-fp16"}, {"GPU, `int8`", "t4-int8"},
	} {
		p, _ := Find(Builtin(), c.profile)
		b := p.Bounds()
		if b.IoU == 0 {
			lines = append(lines, row(c.name, b.Tensor, "-", "-", "-"))
			continue
		}
		lines = append(lines, row(c.name, b.Tensor, b.IoU, fmt.Sprint(100*b.Found, " %"), b.Score))
	}
	return lines
}

// The profiles of the document are read without a complaint.
func TestDocumentedProfiles(t *testing.T) {
	data, err := os.ReadFile("../../docs/profiles.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "    apiVersion: aob/v1\n")
	example, _, _ := strings.Cut(rest, "\n\n")
	example = "apiVersion: aob/v1\n" + strings.ReplaceAll("\n"+example, "\n    ", "\n")
	list, complaints := Parse("docs/profiles.md", []byte(example))
	if len(complaints) > 0 || len(list) != len(Builtin())+2 {
		t.Errorf("%v\n%s", complaints, example)
	}
}
