package delivery

import (
	"bytes"
	"encoding/json"
	"errors"
	"html"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"

	"github.com/autonomos/aob/tools/hostile"
)

var tag = regexp.MustCompile(`<[^>]*>`)

func finds(t *testing.T, in, out string, patterns ...map[string]*regexp.Regexp) {
	t.Helper()
	for _, list := range patterns {
		for what, re := range list {
			if found := re.FindString(out); found != "" {
				t.Errorf("%q still has a %s, %q, in %q", in, what, found, out)
			}
		}
	}
}

func shows(t *testing.T, in, out string) {
	t.Helper()
	for _, r := range out {
		if r != '\u200b' && (r == utf8.RuneError || !unicode.IsPrint(r)) {
			t.Errorf("%q still has %U", in, r)
		}
	}
}

// same is what people see of text.
func same(s string) string { return strings.Join(strings.Fields(Terminal(s)), " ") }

func testMarkdown(t *testing.T, in string) {
	t.Helper()
	md := goldmark.New(goldmark.WithExtensions(extension.GFM, extension.Footnote, extension.DefinitionList),
		goldmark.WithParserOptions(parser.WithAttribute(), parser.WithAutoHeadingID()))
	out := Markdown(in)
	shows(t, in, out)
	if same(in) == "" {
		if out != "" {
			t.Errorf("%q became %q", in, out)
		}
		return
	}
	// Everywhere that text is put: alone, after other text, in a list, a cell, bold text, a heading.
	for place, around := range map[string][3]string{
		"a line":    {"", "\n", `^<p>([^\n]*)</p>\n$`},
		"next line": {"first\n", "\n", `^<p>first\n?([^\n]*)</p>\n$`},
		"a word":    {"is ", " it\n", `^<p>is ([^\n]*) ?it</p>\n$`},
		"a list":    {"- x: ", "\n", `^<ul>\n<li>x: ?([^\n]*)</li>\n</ul>\n$`},
		"a cell":    {"| a | b |\n| --- | --- |\n| ", " | c |\n", `<td>([^\n]*)</td>\n<td>c</td>`},
		"bold":      {"**x ", ".**\n", `^<p><strong>x ?([^\n]*)\.</strong></p>\n$`},
		"a heading": {"### AOB: ", "\n", `^<h3 id="[^"]*">AOB: ?([^\n]*)</h3>\n$`},
	} {
		var b bytes.Buffer
		if err := md.Convert([]byte(around[0]+out+around[1]), &b); err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(around[2]).FindStringSubmatch(b.String())
		if m == nil {
			t.Errorf("%q in %s yields\n%s", in, place, b.String())
			continue
		}
		if tag.MatchString(m[1]) {
			t.Errorf("%q in %s yields markup: %s", in, place, m[1])
		}
		text := html.UnescapeString(m[1])
		finds(t, in, text, hostile.References, hostile.Signs)
		if got := strings.TrimSpace(strings.ReplaceAll(text, "\u200b", "")); got != same(in) {
			t.Errorf("%q in %s shows as %q", in, place, got)
		}
	}
}

func testCode(t *testing.T, in string) {
	t.Helper()
	var b bytes.Buffer
	if err := goldmark.New(goldmark.WithExtensions(extension.GFM)).Convert([]byte(MarkdownCode("a", in, "b")),
		&b); err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSuffix(strings.TrimPrefix(b.String(), "<pre><code>"), "</code></pre>\n")
	if tag.MatchString(text) || strings.ReplaceAll(html.UnescapeString(text), "\r", "") != "a\n"+Terminal(in)+"\nb\n" {
		t.Errorf("%q as code yields %s", in, b.String())
	}
}

func testCommitText(t *testing.T, in string) {
	t.Helper()
	out := CommitText(in)
	shows(t, in, out)
	finds(t, in, out, hostile.References, hostile.Marks)
	if got := strings.ReplaceAll(out, "\u200b", ""); got != same(in) {
		t.Errorf("%q shows as %q", in, got)
	}
}

func testTerminal(t *testing.T, in string) {
	t.Helper()
	out := Terminal(in)
	shows(t, in, out)
	if strings.Contains(out, "\u200b") || strings.TrimSpace(out) != out || Terminal(out) != out {
		t.Errorf("%q became %q", in, out)
	}
	shows(t, in, strings.NewReplacer("\n", "", "\t", "").Replace(TerminalLines(in)))
	if strings.Count(TerminalLines(in), "\n") != strings.Count(in, "\n") {
		t.Errorf("%q lost lines: %q", in, TerminalLines(in))
	}
	shows(t, in, strings.NewReplacer("\n", "", "\t", "").Replace(LogText(in)))
}

func TestTextFromOutsideIsNoMarkup(t *testing.T) {
	for _, in := range hostile.Texts {
		testMarkdown(t, in)
		testMarkdown(t, "x "+in+" y")
		testCode(t, in)
		testCode(t, in+in)
	}
}

func TestOutsideTextIsNoCommandInACommit(t *testing.T) {
	for _, in := range hostile.Texts {
		testCommitText(t, in)
		testCommitText(t, "x "+in+" y")
	}
}

func TestOutsideTextHasNoTerminalCodes(t *testing.T) {
	for _, in := range hostile.Texts {
		testTerminal(t, in)
	}
}

// Ordinary words are left as they are, so that people can copy them.
func TestOrdinaryTextIsUnchanged(t *testing.T) {
	for _, s := range []string{
		"shapes: back to version 1, fleet demo fell back from version 2",
		"mAP 0.5012 (0.4800 to 0.5300), a drop of -0.01",
		"dock-3 did not start: model.onnx is missing", "it's \"so\"; isn't it?", "50% of 3/4 images",
		"train/images/a.jpg:3", "日本語 café 👍",
	} {
		if got := Markdown(s); got != s {
			t.Errorf("Markdown(%q) = %q", s, got)
		}
		if got := CommitText(s); got != s {
			t.Errorf("CommitText(%q) = %q", s, got)
		}
		if got := Terminal(s); got != s {
			t.Errorf("Terminal(%q) = %q", s, got)
		}
		if got := LogText(s); got != s {
			t.Errorf("LogText(%q) = %q", s, got)
		}
	}
	if got, want := LogText("a\x1b[2J\u202e\xff\n"), "a\\u001b[2J\\u202e\\ufffd\n"; got != want {
		t.Errorf("LogText gives %q, want %q", got, want)
	}
}

// A record keeps its meaning, and shows nothing that a terminal obeys.
func TestLogsHaveNoTerminalCodes(t *testing.T) {
	for _, in := range hostile.Texts {
		for _, shape := range []any{in, []string{in}, map[string]string{"why": in}, errors.New(in)} {
			var b bytes.Buffer
			slog.New(slog.NewJSONHandler(LogWriter{&b}, nil)).Info(in, "what", shape)
			shows(t, in, strings.TrimSuffix(b.String(), "\n"))
			var record map[string]any
			if err := json.Unmarshal(b.Bytes(), &record); err != nil ||
				record["msg"] != strings.ToValidUTF8(in, "\ufffd") && utf8.ValidString(in) {
				t.Errorf("%q is logged as %s: %v", in, b.String(), err)
			}
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range hostile.Texts {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1000 {
			return
		}
		testMarkdown(t, s)
		testCode(t, s)
		testCommitText(t, s)
		testTerminal(t, s)
	})
}

// Long text is as safe as short text.
func TestLongTextIsTextToo(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	if len(hostile.Texts) < 100 {
		t.Fatalf("%d texts are tried", len(hostile.Texts))
	}
	for _, of := range []string{"@a", "[[", ":a:", "www.", "`", "[skip ci", "#1", "e\u0301", "\x1b[", "a\n", "<",
		"http://", "***no_ci"} {
		long := strings.Repeat(of, 1<<15/len(of))
		for name, escape := range map[string]func(string) string{"Markdown": Markdown, "CommitText": CommitText,
			"Terminal":      Terminal,
			"TerminalLines": TerminalLines, "LogText": LogText,
			"MarkdownCode": func(s string) string { return MarkdownCode(s) }} {
			out := escape(long)
			if out == "" || strings.Contains(out, "\x1b") {
				t.Errorf("%s of much of %q: %.40q", name, of, out)
			}
		}
		if err := hostile.Markdown(hostile.Harmless, Markdown(long)); err != nil {
			t.Errorf("much of %q: %.200s", of, err)
		}
		if err := hostile.Commit(hostile.Harmless, CommitText(long)); err != nil {
			t.Errorf("much of %q: %.200s", of, err)
		}
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		s    string
		n    int
		want string
	}{
		{"", 5, ""},
		{"abcde", 5, "abcde"},
		{"abcdef", 5, "abcd…"},
		{"äöüßé", 5, "äöüßé"},
		{"äöüßéa", 5, "äöüß…"},
		{"abc def", 5, "abc…"},
		{"abc", 1, "…"},
		{"abc", 0, ""},
		{"a\xffb", 3, "a\uFFFDb"},
		{"日本語のテキスト", 4, "日本語…"},
	} {
		if got := Cut(tt.s, tt.n); got != tt.want {
			t.Errorf("Cut(%q, %d): got %q, want %q", tt.s, tt.n, got, tt.want)
		}
	}
}

func FuzzCut(f *testing.F) {
	f.Add("äöü\xff", 2)
	f.Fuzz(func(t *testing.T, s string, n int) {
		got := Cut(s, n)
		if !utf8.ValidString(got) || utf8.RuneCountInString(got) > max(n, 0) {
			t.Errorf("Cut(%q, %d): got %q", s, n, got)
		}
	})
}

func TestLogsHaveNoColours(t *testing.T) {
	const in = "\x1b[1mval\x1b[0m \x1b[1;36m0.5\x1b[0m\n[1m]\x1b[2Jdone\n"
	if got, want := TerminalLines(in), "val 0.5\n[1m][2Jdone\n"; got != want {
		t.Errorf("%q becomes %q, want %q", in, got, want)
	}
}
