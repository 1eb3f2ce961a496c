package forge

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/delivery"
)

// MaxDescription is the longest description of a status, in characters. GitHub
// takes no more, and what fits there is short enough everywhere.
const MaxDescription = 140

// MaxComment is the longest comment, in bytes.
const MaxComment = 65_000

// maxAction is the longest end of a description that is kept whole, in characters.
const maxAction = 80

// Describe returns a status's description with at most MaxDescription characters. Messages end with what to do, behind
// the last semicolon: that is kept, and what stands before it is cut.
func Describe(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if utf8.RuneCountInString(s) <= MaxDescription {
		return s
	}
	i := strings.LastIndex(s, "; ")
	if i < 0 || utf8.RuneCountInString(s[i:]) > maxAction {
		return delivery.Cut(s, MaxDescription)
	}
	return delivery.Cut(s[:i], MaxDescription-utf8.RuneCountInString(s[i:])) + s[i:]
}

// hidden is the first line of a comment, which is not shown.
func hidden(marker string) string { return "<!-- aob:" + marker + " -->\n" }

// comment is the whole text of a comment.
func comment(marker, body string) string { return hidden(marker) + CutComment(body) }

// CutComment cuts a comment at the end of a line, so that it fits with its marker. What was cut is not cut again.
func CutComment(body string) string {
	const note = "\n\n*The rest does not fit here: see `aob explain`.*"
	body = strings.ToValidUTF8(body, "\uFFFD")
	const room = MaxComment - 1000 // for the marker
	if len(body) <= room {
		return body
	}
	end := strings.LastIndexByte(body[:room-len(note)], '\n')
	if end < room/2 {
		for end = room - len(note); !utf8.RuneStart(body[end]); end-- {
		}
	}
	return body[:end] + note
}

// MaxCommands is how many comments of one pull request are looked at.
const MaxCommands = 200

// newest returns the comments that are looked at, oldest first: the newest of each author, then the second newest of
// each, and so on. So whoever writes many comments hides nobody else's.
func newest(list []delivery.Comment) []delivery.Comment {
	type ranked struct {
		delivery.Comment
		rank int // how many newer ones its author wrote
	}
	byID := func(a, b delivery.Comment) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortStableFunc(list, byID)
	if len(list) <= MaxCommands {
		return list
	}
	of := map[string]int{}
	all := make([]ranked, 0, len(list))
	for _, c := range slices.Backward(list) {
		author := strings.ToLower(c.Author)
		all = append(all, ranked{c, of[author]})
		of[author]++
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return cmp.Compare(a.rank, b.rank) })
	kept := delivery.Each(all[:MaxCommands], func(c ranked) delivery.Comment { return c.Comment })
	slices.SortStableFunc(kept, byID)
	return kept
}

// draft says whether a title marks a draft, as Gitea's own prefixes do.
func draft(title string) bool {
	title = strings.ToUpper(strings.TrimSpace(title))
	return slices.ContainsFunc([]string{"WIP:", "[WIP]", "DRAFT:", "[DRAFT]"}, func(prefix string) bool {
		return strings.HasPrefix(title, prefix)
	})
}

// quoted returns a text as one word of a shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// asJSON returns a value of strings, booleans and their lists and maps as JSON.
func asJSON(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // it has no other types
	}
	return string(data)
}
