package delivery

// This file is the only place where text from outside is made safe to show.
// Devices, trainers, authors of pull requests and datasets write text that AOB
// repeats in its own name. Each function is for one target. Call it where the
// text is put in, and call it once: escaped text is not escaped again.

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// zeroWidthSpace is invisible. It keeps forges from seeing a mention, a
// reference or a link in a word, while people see the same word. A forge looks
// for those in the text that Markdown yields, so that an HTML entity is not
// enough.
const zeroWidthSpace = "\u200b"

// maxMarks is how many combining marks one letter may carry. More of them draw
// over the lines above and below.
const maxMarks = 4

// Terminal returns s on one line, without characters that move the cursor,
// change colours, turn the direction of writing or hide other text.
func Terminal(s string) string {
	marks := 0
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
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

// TerminalLines returns s for a terminal with its lines and tabs kept.
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
	}, s)
}

// hidden reports whether a character is no text: a control character, a change
// of the direction of writing, an invisible one, or not UTF-8.
func hidden(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// blank reports whether a letter shows as a space.
func blank(r rune) bool {
	switch r {
	case '\u115f', '\u1160', '\u2800', '\u3164', '\uffa0':
		return true
	}
	return false
}

// LogText returns s for a log. Characters that a terminal would obey or that
// hide other text are written as JSON writes them, \u and four digits, so that
// the log still shows what was said. Line ends and tabs are left as they are.
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

// A LogWriter writes a log's records with [LogText]. A record in JSON keeps its
// meaning. Each call of Write must hold whole records.
type LogWriter struct{ W io.Writer }

// Write implements io.Writer.
func (l LogWriter) Write(record []byte) (int, error) {
	if _, err := io.WriteString(l.W, LogText(string(record))); err != nil {
		return 0, err
	}
	return len(record), nil
}

// What forges read in plain text: mentions, references and links. Each match is
// broken after its first group.
var references = []*regexp.Regexp{
	regexp.MustCompile(`(@)[\pL\pN_-]`),                 // @name, name@example.org, owner/repo@commit
	regexp.MustCompile(`([#!])[0-9]`),                   // #12, owner/repo#12; !12 on Gitea
	regexp.MustCompile(`(?i)((?:\b|_)gh-)[0-9]`),        // GH-12
	regexp.MustCompile(`(\b[A-Z]{1,10}-)[0-9]`),         // ABC-12, an issue of another tracker
	regexp.MustCompile(`(:)//`),                         // http://
	regexp.MustCompile(`(?i)(www)\.`),                   // www.example.org
	regexp.MustCompile(`(?i)(mailto|xmpp|javascript):`), // links without slashes
}

// separate puts an invisible space into all that a forge would act on.
func separate(s string) string {
	for _, re := range references {
		s = breakAfter(s, re)
	}
	return s
}

// breakAfter puts an invisible space after the first group of each match, until
// nothing matches: matches may overlap.
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
	// A line "Key: value" at the end of a commit message says who signed off,
	// reviewed or wrote it, or closes something.
	trailer = regexp.MustCompile(`(?i)^([a-z0-9]+(?:-[a-z0-9]+)+|bug|cc|closes|fixes|link|resolves|see)\s*:`)
)

// Markdown returns s on one line for Markdown on a forge: in a comment, in the
// description of a pull request, in a cell of a table. It shows the characters
// of s and is no markup, link, picture, mention, reference or command, wherever
// in a line it stands.
func Markdown(s string) string {
	s = strings.Join(strings.Fields(Terminal(s)), " ")
	s = breakAfter(breakAfter(separate(s), emoji), wikiLink)
	// A character written as a number is text and never markup, by the rules of
	// CommonMark; a backslash means different things on different forges.
	escape := func(s string) string { return markup.ReplaceAllStringFunc(s, entity) }
	if m := lineStart.FindStringSubmatchIndex(s); m != nil {
		sign := max(m[2], m[4], m[6]) // the one that is there
		return s[:sign] + entity(s[sign:sign+1]) + escape(s[sign+1:])
	}
	return escape(s)
}

func entity(char string) string {
	switch char {
	case "<":
		return "&lt;"
	case ">":
		return "&gt;"
	case "&":
		return "&amp;"
	}
	return fmt.Sprintf("&#%d;", char[0])
}

// MarkdownCode returns lines as a block of code, in which nothing is markup, a
// mention or a reference.
func MarkdownCode(lines ...string) string {
	lines = slices.Clone(lines)
	longest, run := 2, 0
	for i, line := range lines {
		lines[i] = Terminal(line)
		for _, r := range lines[i] + "\n" {
			if r != '`' {
				run = 0
				continue
			}
			run++
			longest = max(longest, run)
		}
	}
	fence := strings.Repeat("`", longest+1)
	return fence + "\n" + strings.Join(lines, "\n") + "\n" + fence + "\n"
}

// CommitText returns s on one line for a commit message, and for the title of a
// pull request, which becomes one. It mentions nobody, refers to and closes
// nothing, is no trailer such as Signed-off-by, and keeps no CI from running.
func CommitText(s string) string {
	s = strings.Join(strings.Fields(Terminal(s)), " ")
	s = breakAfter(breakAfter(separate(s), commitCI), commitNoCI)
	return breakAfter(s, trailer)
}

// Count says how many things there are: 1 class, 2 classes.
func Count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "ss"):
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
