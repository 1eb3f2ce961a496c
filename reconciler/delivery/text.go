package delivery

// This file is the only place where text from outside is escaped for display. Such text comes from devices, trainers,
// authors of pull requests and datasets. Each function is for one kind of output. Call it once, where the text is
// inserted: escaping is not idempotent.

import (
	"fmt"
	"html"
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// zeroWidthSpace is invisible. Inside a word it keeps forges from recognizing a mention, a
// reference or a link. HTML entities do not: forges search the rendered text.
const zeroWidthSpace = "\u200b"

// maxMarks is how many combining marks one letter may have. More of them would cover the lines above and below.
const maxMarks = 4

// Terminal returns s on one line, without characters that move the cursor, change
// colours, change the writing direction or hide text. A joiner after a letter that is not ASCII is part of its spelling
// and is kept.
func Terminal(s string) string {
	marks, last := 0, rune(0)
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		before := last
		last = r
		switch {
		case strings.ContainsRune(joiners, r) && before > unicode.MaxASCII && !strings.ContainsRune(joiners, before) &&
			!unicode.IsSpace(before) && !hidden(before):
		case unicode.IsSpace(r) || blank(r):
			marks = 0
			return ' '
		case hidden(r):
			return -1
		case unicode.Is(unicode.M, r):
			if marks++; marks > maxMarks {
				return -1
			}
		default:
			marks = 0
		}
		return r
	}, s))
}

// PlainText returns [Terminal] of s with at most n bytes, the last of them an ellipsis where it was longer.
func PlainText(s string, n int) string {
	s = Terminal(s)
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:max(0, n-len("…"))], "") + "…"
}

// Cut returns s with at most n characters, the last of them an ellipsis where it was longer. What is not UTF-8 is
// replaced.
func Cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n <= 0 {
		return ""
	}
	return strings.TrimRight(string([]rune(s)[:n-1]), " ") + "…"
}

// colours are the sequences with which programs set colours and styles.
var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TerminalLines returns s for a terminal with its lines and tabs kept, and without colours.
func TerminalLines(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case unicode.IsSpace(r) && r != '\r':
			return ' '
		case hidden(r):
			return -1
		}
		return r
	}, colours.ReplaceAllString(s, ""))
}

// hidden reports whether r is not visible text: a control character, a change of the
// writing direction, an invisible character, or invalid UTF-8.
func hidden(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// blank reports whether a letter is displayed as a space.
func blank(r rune) bool { return strings.ContainsRune("\u115f\u1160\u2800\u3164\uffa0", r) }

// LogText returns s for a log. Characters that control a terminal or hide text are
// escaped as in JSON, as \u and four digits. Line ends and tabs are kept.
func LogText(s string) string {
	clean := func(r rune) bool { return r == '\n' || r == '\t' || r == ' ' || !hidden(r) }
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if clean(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// A LogWriter writes log records with [LogText]. JSON records stay equivalent. Each call of
// Write must contain whole records.
type LogWriter struct{ W io.Writer }

// Write implements io.Writer.
func (l LogWriter) Write(record []byte) (int, error) {
	if _, err := io.WriteString(l.W, LogText(string(record))); err != nil {
		return 0, err
	}
	return len(record), nil
}

// Mentions, references and links that forges recognize in plain text. A zero-width space
// is inserted after the first group of each match.
var references = []*regexp.Regexp{
	regexp.MustCompile(`(@)[\pL\pN_-]`),                 // @name, name@example.org, owner/repo@commit
	regexp.MustCompile(`([#!])[0-9]`),                   // #12, owner/repo#12; !12 on Gitea
	regexp.MustCompile(`(?i)((?:\b|_)gh-)[0-9]`),        // GH-12
	regexp.MustCompile(`(\b[A-Z]{1,10}-)[0-9]`),         // ABC-12, an issue of another tracker
	regexp.MustCompile(`(:)//`),                         // http://
	regexp.MustCompile(`(?i)(www)\.`),                   // www.example.org
	regexp.MustCompile(`(?i)(mailto|xmpp|javascript):`), // links without slashes
}

// separate breaks all references in s.
func separate(s string) string {
	for _, re := range references {
		s = breakAfter(s, re)
	}
	return s
}

// breakAfter inserts a zero-width space after the first group of each match, until
// nothing matches. It repeats because matches may overlap.
func breakAfter(s string, re *regexp.Regexp) string {
	for {
		found := re.FindAllStringSubmatchIndex(s, -1)
		if found == nil {
			return s
		}
		var b strings.Builder
		last := 0
		for _, m := range found {
			b.WriteString(s[last:m[3]] + zeroWidthSpace)
			last = m[3]
		}
		s = b.String() + s[last:]
	}
}

var (
	emoji      = regexp.MustCompile(`(:)[\w+-]+:`)
	wikiLink   = regexp.MustCompile(`(\[)\[`)
	lineStart  = regexp.MustCompile(`^(?:([-+=:])[-+=:]*(?: |$)|([/>])|[0-9]{1,9}([.)])(?: |$))`)
	markup     = regexp.MustCompile("[\\\\`*_~#&<|$^{}\\[\\]]")
	commitCI   = regexp.MustCompile(`(?i)(\[)[^\[\]\x{200b}]*(?:\bci\b|skip)[^\[\]\x{200b}]*\]`)
	commitNoCI = regexp.MustCompile(`(?i)(\*\*\*)no_ci`)
	// Trailers at the end of a commit message, such as Signed-off-by: or Closes:.
	trailer = regexp.MustCompile(`(?i)^([a-z0-9]+(?:-[a-z0-9]+)+|bug|cc|closes|fixes|link|resolves|see)\s*:`)
)

// Markdown returns s on one line, escaped for Markdown on a forge: in comments,
// descriptions of pull requests and cells of tables. It is displayed as s, at any
// position in a line, and never as markup, link, picture, mention, reference or command.
func Markdown(s string) string {
	s = strings.Join(strings.Fields(Terminal(s)), " ")
	s = breakAfter(breakAfter(separate(s), emoji), wikiLink)
	// In CommonMark a numeric character reference is always text. Forges differ in backslash escapes.
	escape := func(s string) string { return markup.ReplaceAllStringFunc(s, entity) }
	if m := lineStart.FindStringSubmatchIndex(s); m != nil {
		sign := max(m[2], m[4], m[6]) // the group that matched
		return s[:sign] + entity(s[sign:sign+1]) + escape(s[sign+1:])
	}
	return escape(s)
}

func entity(char string) string {
	if escaped := html.EscapeString(char); escaped != char {
		return escaped
	}
	return fmt.Sprintf("&#%d;", char[0])
}

// MarkdownCode returns lines as a fenced code block.
func MarkdownCode(lines ...string) string {
	text, fence := strings.Join(Each(lines, Terminal), "\n"), "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence + "\n" + text + "\n" + fence + "\n"
}

// CommitText returns s on one line, escaped for commit messages and for titles of pull
// requests, which become commit messages. It contains no mentions, references, closing
// keywords, trailers such as Signed-off-by, or instructions to skip CI.
func CommitText(s string) string {
	s = strings.Join(strings.Fields(Terminal(s)), " ")
	s = breakAfter(breakAfter(separate(s), commitCI), commitNoCI)
	return breakAfter(s, trailer)
}

// Count returns a number with a noun: 1 class, 2 classes.
func Count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "ss"):
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
