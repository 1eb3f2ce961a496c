package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
	"golang.org/x/text/width"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A terminal writes text for people to a terminal, or without colour to a file or pipe.
type terminal struct {
	out   *bufio.Writer
	tty   bool
	color bool
	width int  // columns
	whole bool // tables are not cut to width
	lines int  // of the screen; 0 is no limit
}

// newTerminal returns a terminal on w. Colour is for terminals; NO_COLOR turns it off.
func newTerminal(w io.Writer) *terminal {
	t := &terminal{out: bufio.NewWriter(w), width: 80}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return t
	}
	t.tty = os.Getenv("TERM") != "dumb"
	t.color = t.tty && os.Getenv("NO_COLOR") == ""
	if width, lines, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		t.width, t.lines = max(width, 40), lines
	}
	return t
}

func (t *terminal) flush() error { return t.out.Flush() }

// safeText is text that may go to a terminal as it is: it was made safe before, or is the program's own.
type safeText string

// printf formats as package fmt does. Text arguments may come from outside, so they are
// filtered by [delivery.Terminal], except for shown text.
func (t *terminal) printf(format string, args ...any) {
	fmt.Fprintf(t.out, format, delivery.Each(args, safely)...)
}

// safely returns what printf shows for an argument.
func safely(a any) any {
	switch a := a.(type) {
	case safeText:
		return string(a)
	case string:
		return printable(a)
	case error:
		return printable(a.Error())
	case fmt.Stringer:
		return printable(a.String())
	}
	switch v := reflect.ValueOf(a); v.Kind() {
	case reflect.String:
		return printable(v.String())
	case reflect.Bool, reflect.Int, reflect.Int64, reflect.Float64:
		return a
	}
	return printable(fmt.Sprint(a))
}

// printable is [delivery.Terminal] that keeps leading and trailing spaces.
func printable(s string) string {
	text := strings.Trim(s, " ")
	before := strings.Index(s, text)
	return s[:before] + delivery.Terminal(text) + s[before+len(text):]
}

// printMessage prints a message besides a command's result.
func printMessage(w io.Writer, format string, args ...any) {
	t := newTerminal(w)
	t.printf(format+"\n", args...)
	_ = t.flush() // the result does not depend on it
}

// A style is a text style, where colour is used.
type style string

// The styles, as SGR parameters.
const (
	plainStyle style = ""
	bold       style = "1"
	faint      style = "2"
	red        style = "31"
	green      style = "32"
	yellow     style = "33"
)

func (t *terminal) styled(s style, text string) safeText {
	text = printable(text)
	if !t.color || s == plainStyle || text == "" {
		return safeText(text)
	}
	return safeText("\x1b[" + string(s) + "m" + text + "\x1b[0m")
}

// A cell is one entry of a table.
type cell struct {
	text  string
	style style
}

// cells makes a row of plain text.
func cells(words ...string) []cell {
	return delivery.Each(words, func(w string) cell { return cell{text: w} })
}

// heading makes a table's first row.
func heading(words ...string) []cell {
	row := cells(words...)
	for i := range row {
		row[i].style = faint
	}
	return row
}

// table prints rows in columns. Where they do not fit, the last column is cut, and where that would leave it less than
// a third of the screen, the widest one is cut first.
func (t *terminal) table(indent string, rows [][]cell) {
	widths := widthsOf(rows)
	if len(widths) == 0 {
		return
	}
	last := len(widths) - 1
	room := func() int {
		left := t.width - columns(indent)
		for _, w := range widths[:last] {
			left -= w + gap
		}
		return left
	}
	least := min(widths[last], t.width/3)
	for !t.whole && room() < least {
		widest := -1
		for i, w := range widths[:last] {
			id := i == 0 && w <= 12 // people copy it
			if !id && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 || widths[widest] <= 8 {
			break
		}
		widths[widest] = max(8, widths[widest]-(least-room()))
	}
	if !t.whole {
		widths[last] = max(8, min(widths[last], room()))
	}
	for _, row := range rows {
		line := indent
		for i, c := range row {
			text := cut(delivery.Terminal(c.text), widths[i])
			line += string(t.styled(c.style, text))
			if i < len(row)-1 {
				line += strings.Repeat(" ", widths[i]-columns(text)+gap)
			}
		}
		t.printf("%s\n", safeText(strings.TrimRight(line, " ")))
	}
}

// tableWithTexts prints rows whose last column is a text. A text that does not fit stands below its row: cut to one
// line, or whole.
func (t *terminal) tableWithTexts(rows [][]cell, whole bool) {
	last := len(rows[0]) - 1
	room := t.width
	for _, w := range widthsOf(rows)[:last] {
		room -= w + gap
	}
	below := make([]string, len(rows))
	rows = slices.Clone(rows)
	for i, row := range rows {
		if text := delivery.Terminal(row[last].text); !t.whole && columns(text) > room {
			rows[i], below[i] = row[:last], text
		}
	}
	var b strings.Builder
	above := newTerminal(&b)
	above.tty, above.color, above.width, above.whole = t.tty, t.color, t.width, t.whole
	above.table("", rows)
	_ = above.flush() // into memory
	for i, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		t.printf("%s\n", safeText(line))
		switch {
		case below[i] == "":
		case whole:
			t.paragraph("    ", below[i])
		default:
			t.printf("    %s\n", cut(below[i], t.width-4))
		}
	}
}

const gap = 2 // between columns

// widthsOf is how wide a table's columns are, with nothing cut.
func widthsOf(rows [][]cell) []int {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], columns(delivery.Terminal(c.text)))
		}
	}
	return widths
}

// fits reports whether a table can be printed uncut.
func (t *terminal) fits(indent string, rows [][]cell) bool {
	need := columns(indent) - gap
	for _, w := range widthsOf(rows) {
		need += w + gap
	}
	return t.whole || need <= t.width
}

// paragraph prints text wrapped between words, each line after indent.
func (t *terminal) paragraph(indent, text string) { t.item(safeText(indent), indent, text) }

// item prints text wrapped between words: the first line after lead, the others after indent. Both are equally wide.
func (t *terminal) item(lead safeText, indent, text string) {
	line := ""
	end := func() {
		t.printf("%s%s\n", lead, line)
		lead, line = safeText(indent), ""
	}
	for _, word := range strings.Fields(delivery.Terminal(text)) {
		if line != "" && columns(indent)+columns(line)+1+columns(word) > t.width {
			end()
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		end()
	}
}

// columns is how wide text is on a screen.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	if unicode.Is(unicode.M, r) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// cut shortens text to n columns, the last of them an ellipsis.
func cut(s string, n int) string {
	if columns(s) <= n {
		return s
	}
	room := n - 1
	end := len(s)
	for i, r := range s {
		if room -= runeColumns(r); room < 0 {
			end = i
			break
		}
	}
	return strings.TrimRight(s[:end], " ") + "…"
}

// A printableWriter lets only text through, line ends included.
type printableWriter struct {
	w    io.Writer
	rest []byte // the beginning of a character or of a colour whose end comes with the next write
}

// begun is the beginning of a sequence that sets a colour, at the end of a text.
var begun = regexp.MustCompile(`\x1b(\[[0-9;]{0,20})?$`)

// Write implements io.Writer.
func (p *printableWriter) Write(data []byte) (int, error) {
	all := append(p.rest, data...)
	end := len(all)
	for i := 1; i < utf8.UTFMax && i <= len(all); i++ {
		if first := all[len(all)-i]; utf8.RuneStart(first) {
			if !utf8.FullRune(all[len(all)-i:]) {
				end -= i
			}
			break
		}
	}
	if at := begun.FindIndex(all[:end]); at != nil {
		end = at[0]
	}
	p.rest = bytes.Clone(all[end:])
	if _, err := io.WriteString(p.w, delivery.TerminalLines(string(all[:end]))); err != nil {
		return 0, err
	}
	return len(data), nil
}

// stateStyle returns the colour of a state.
func stateStyle(s delivery.CheckState) style {
	switch s {
	case delivery.CheckSuccess:
		return green
	case delivery.CheckPending:
		return yellow
	}
	return red
}

// bar draws a share between 0 and 1.
func bar(share float64, width int) string {
	share = max(0, min(share, 1))
	full := int(share*float64(width) + 1e-9)
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "]"
}

// span formats a duration in its two largest units.
func span(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// ago formats how long ago a time is.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return span(now.Sub(t)) + " ago"
}
