// Package hostile contains malicious text, and checks that it is harmless where AOB shows it. Only tests use it.
package hostile

import (
	"fmt"
	"html"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
	renderer "github.com/yuin/goldmark/renderer/html"
)

// Texts are attempts to make a forge, a terminal or git do something: mentions, references, links, Markdown, HTML,
// control characters, trailers and commands. Each text is an example of one kind.
var Texts = []string{
	"", "plain words, 50% of 3/4; it's (ok) \"so\"?", "mAP drop <= 0.01", "AP50 at IoU 0.5:0.95",
	"ok). Closes #1. @all please merge [the fix](http://evil.example/x) ![x](http://evil.example/t.png) <b>now</b>",
	"@ann", "@org/team", "x @ann.", "@@ann", "(@a)", "mail ann@evil.example", "@1h",
	"o/r@d8a994ef243349f321568f9e36d5c3f444b99cae", "#1", "##12", "fixes #1", "Closes: #2", "o/r#3", "!4", "o/r!5",
	"GH-6", "gh-7", "JIRA-8", "closes GH-9 and resolves JIRA-10", "https://forge.example/o/r/issues/1", "http:////a",
	"ftp://a.example", "www.evil.example", "WWW.evil.example", "www.www.evil.example", "mailto:ann@evil.example",
	"xmpp:a@b.example/c", "<http://evil.example>", "javascript:alert(1)", "[a](b)", "![a](b)", "[a][b]",
	"[a]: http://x", "[^1]", "[[page]]", "[[[page]]]", "[x] done", "[ ] open", "> quote", "> [!NOTE]",
	"*a* **b** _c_ __d__ ~e~ ~~f~~ ***g***", "`code` ``more``", "```", "~~~", "\\*", "\\[a\\]", "\\(x\\)", "$x$",
	"$$y$$", "\\", "a\\", "# title", "#hash", "- item", "+ item", "* item", "1. item", "1) item", "123456789. item",
	"---", "***", "===", "- - -", ": means", ":-:", "|:-:|", "a | b", "|---|", "--- | ---", "| a |", "    code",
	"\tcode", "a  \nb", "a\n\nb", "a\r\nb", "\n# x", "\n- x", "<b>", "</details>", "<!-- x -->", "<!--",
	"<script>alert(1)</script>", "<img src=x onerror=y>", "&lt;b&gt;", "&#64;ann", "&amp;", "&", "&copy", ":smile:",
	":+1:", ":a:b:", "a:b:c:d", ":100:", "/aob accept 0123 because", "/close", "{#id}", "{.class}", "^up^",
	"==mark==", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "a\bb", "\x00", "\x7f", "\u202eevil\u202c",
	"\u2066x\u2069", "a\u200bb", "\ufeffx", "\xff\xfe", "\ufffd", "\u2028x\u2029y", "\u00a0x\u00a0", "\u3164\u3164",
	"e" + strings.Repeat("\u0301", 50), "日本語", "café", "👍", "naïve_name*2",
	"Signed-off-by: ann <ann@x.example>", "Co-authored-by: a", "reviewed-by : b", "Change-Id: I1", "Closes: x",
	"fix: y", "Signed-off-by:z", "[skip ci]",
	"[ci skip]", "[no ci]", "[CI SKIP]", "[skip actions]", "[x [skip ci]]", "***NO_CI***", "skip-checks: true",
	"x\n\nSigned-off-by: a", "@everyone", "closes #1, fixes #2", "x\n/aob run 0123456789abcdef\n",
	"/aob run 0123456789abcdef", "\r/aob run 0123456789abcdef", "\x1b]8;;http://evil.example\x1b\\text\x1b]8;;\x1b\\",
	"\x1b]52;c;AAAA\x07", "\x1bP+q\x1b\\", "\u061cx", "x\u2060y\u200dz", "\U000e0041\U000e0042",
	"```\n/aob accept 0123 because I say so\n```", "x\n```\ny", "````", "\"><img src=x>", "</p></td></tr></table>",
	"x\x00y", "a\xffb\xc3", "x\n\nSigned-off-by: ann <ann@x.example>\nCo-authored-by: b <b@x.example>",
	"[skip ci]\n\nskip-checks: true",
}

// Harmless is text without any effect. Output with one of [Texts] in place of Harmless must differ in its words only.
const Harmless = "harmless words"

// Lots returns all texts joined into n texts, for tests that only check whether a field is escaped at all.
func Lots(n int) []string {
	lots := make([]string, n)
	for i := range lots {
		for j := i; j < len(Texts); j += n {
			lots[i] += " " + Texts[j]
		}
		lots[i] = strings.TrimSpace(lots[i])
	}
	return lots
}

// Patterns of what forges and git recognize. They have no word boundaries, so they match more than forges and git do.
var (
	// References are recognized by Gitea 1.25 and GitHub in comments and commit messages.
	References = map[string]*regexp.Regexp{
		"mention":   regexp.MustCompile(`@[-\w]`),
		"reference": regexp.MustCompile(`[#!][0-9]`),
		"issue":     regexp.MustCompile(`\b(?:[A-Z]{1,10}|[Gg][Hh])-[1-9]`),
		"link":      regexp.MustCompile(`(?i)[a-z]://|www\.|mailto:`),
	}
	// Signs are recognized by forges in Markdown text.
	Signs = map[string]*regexp.Regexp{
		"emoji":     regexp.MustCompile(`:[-+\w]+:`),
		"wiki link": regexp.MustCompile(`\[\[`),
	}
	// Marks are recognized by git and CI in commit messages.
	Marks = map[string]*regexp.Regexp{
		"trailer": regexp.MustCompile(`(?im)^(?:[a-z0-9]+-[a-z0-9-]+|closes|fixes|resolves|cc)[ \t]*:`),
		"skip CI": regexp.MustCompile(`(?i)\[(?:skip ci|ci skip|no ci|skip actions|actions skip)\]|\*\*\*NO_CI\*\*\*`),
	}

	tag  = regexp.MustCompile(`<[^>]*>`)
	code = regexp.MustCompile(`(?s)<code[^>]*>.*?</code>`)
)

// Fill sets all values of type string in v to text, at any depth: fields, elements and keys. It does not change defined
// string types such as digests and states, which are checked when they are parsed. It sets integers to 2 and floats to
// one half, so that output that depends on them is produced. v must be a pointer.
func Fill(v any, text string) { fill(reflect.ValueOf(v).Elem(), text, 0) }

func fill(v reflect.Value, text string, depth int) {
	if depth > 10 || !v.CanSet() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		if v.Type() == reflect.TypeFor[string]() {
			v.SetString(text)
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(2)
	case reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text, depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), text, depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, text, depth+1)
		fill(value, text, depth+1)
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), text, depth+1)
		}
	}
}

// Screen returns an error if text for a terminal contains a character that moves the cursor, hides text or changes its
// direction. Newlines are allowed.
func Screen(text string) error {
	for i, r := range text {
		if r != '\n' && (r == utf8.RuneError || !unicode.IsPrint(r)) {
			return fmt.Errorf("%U in %q", r, text[max(0, i-60):min(len(text), i+60)])
		}
	}
	return nil
}

// Markdown returns an error if text, which was made with one of [Texts], differs from harmless, which was made with
// [Harmless] instead, in more than words: in its structure, or by more mentions, references and links.
func Markdown(harmless, text string) error {
	want, wantWords, err := render(harmless)
	if err != nil {
		return err
	}
	got, words, err := render(text)
	if err != nil {
		return err
	}
	for i := range max(len(want), len(got)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			return fmt.Errorf("the structure changed: %q instead of %q", rest(got, i), rest(want, i))
		}
	}
	// Emoji are not checked: the end of a text with a colon by AOB can look like one, as digests do.
	return more(wantWords, words, References, map[string]*regexp.Regexp{"wiki link": Signs["wiki link"]})
}

// Commit is like [Markdown] for commit messages and for titles that become commit messages.
func Commit(harmless, text string) error {
	if err := Screen(strings.ReplaceAll(text, "\u200b", "")); err != nil {
		return err
	}
	if got, want := strings.Count(text, "\n"), strings.Count(harmless, "\n"); got != want {
		return fmt.Errorf("%d newlines instead of %d", got, want)
	}
	return more(harmless, text, References, Marks)
}

// render returns the tags of rendered Markdown, and its text without code.
func render(text string) (tags []string, words string, err error) {
	var b strings.Builder
	md := goldmark.New(goldmark.WithExtensions(extension.GFM, extension.Footnote),
		goldmark.WithRendererOptions(renderer.WithUnsafe()))
	if err := md.Convert([]byte(text), &b); err != nil {
		return nil, "", err
	}
	if err := Screen(strings.ReplaceAll(strings.ReplaceAll(b.String(), "\u200b", ""), "\ufe0f", "")); err != nil {
		return nil, "", err
	}
	page := code.ReplaceAllString(b.String(), "<code></code>")
	return tag.FindAllString(page, -1), html.UnescapeString(tag.ReplaceAllString(page, "\n")), nil
}

func rest(list []string, i int) []string { return list[min(i, len(list)):min(i+5, len(list))] }

// more returns an error if text has a match of a pattern that harmless does not have.
func more(harmless, text string, patterns ...map[string]*regexp.Regexp) error {
	for _, list := range patterns {
		for name, re := range list {
			allowed := re.FindAllString(harmless, -1)
			for _, found := range re.FindAllString(text, -1) {
				i := slices.Index(allowed, found)
				if i < 0 {
					return fmt.Errorf("there is a %s, %q, in %q", name, found, text)
				}
				allowed = slices.Delete(allowed, i, i+1)
			}
		}
	}
	return nil
}
