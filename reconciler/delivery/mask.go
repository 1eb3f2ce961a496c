package delivery

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/url"
	"slices"
	"strings"
)

// A Mask replaces secrets in text by ***. The zero Mask replaces nothing. Text must be masked before it is shortened: a
// secret of which a part is missing is not found.
//
// It is for mistakes, as an error that quotes an address with a token. A program that wants to print a secret can
// encode it.
type Mask struct {
	secrets []string // longest first
	text    *strings.Replacer
}

// NewMask returns a mask of secrets. Of a secret with several lines it also masks each line of more than 7 bytes. It
// finds all of them as they are and as programs write them in a URL.
func NewMask(values iter.Seq[string]) Mask {
	var list []string
	add := func(secret string) {
		query := url.QueryEscape(secret)
		list = append(list, secret, query, url.PathEscape(secret), strings.ReplaceAll(query, "%2F", "/"))
	}
	for value := range values {
		if value = strings.TrimSpace(value); value != "" {
			add(value)
		}
		for line := range strings.Lines(value) {
			if line = strings.TrimSpace(line); len(line) > 7 {
				add(line)
			}
		}
	}
	slices.SortFunc(list, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	m := Mask{secrets: slices.Compact(list)}
	var pairs []string
	for _, s := range m.secrets {
		pairs = append(pairs, s, "***")
	}
	m.text = strings.NewReplacer(pairs...)
	return m
}

// Longest returns the length in bytes of the longest text that m replaces.
func (m Mask) Longest() int {
	if len(m.secrets) == 0 {
		return 0
	}
	return len(m.secrets[0])
}

// Text masks a text.
func (m Mask) Text(text string) string {
	if m.text == nil {
		return text
	}
	return m.text.Replace(text)
}

// JSON masks the keys and the strings of a JSON document. What is not JSON stays as it is.
func (m Mask) JSON(data json.RawMessage) json.RawMessage {
	if len(m.secrets) == 0 || !json.Valid(data) {
		return data
	}
	numbers := json.NewDecoder(bytes.NewReader(data))
	numbers.UseNumber()
	var v any
	if numbers.Decode(&v) != nil {
		return nil
	}
	masked, err := json.Marshal(m.value(v))
	if err != nil {
		return nil
	}
	return masked
}

func (m Mask) value(v any) any {
	switch v := v.(type) {
	case string:
		return m.Text(v)
	case []any:
		for i := range v {
			v[i] = m.value(v[i])
		}
	case map[string]any:
		masked := make(map[string]any, len(v))
		for key, value := range v {
			masked[m.Text(key)] = m.value(value)
		}
		return masked
	}
	return v
}

// Error masks the text of an error, and that of a Blocked in it. errors.Is works as before.
func (m Mask) Error(err error) error {
	if err == nil || len(m.secrets) == 0 {
		return err
	}
	return maskedError{err, m}
}

type maskedError struct {
	err  error
	mask Mask
}

func (e maskedError) Error() string { return e.mask.Text(e.err.Error()) }
func (e maskedError) Unwrap() error { return e.err }

// As is called by errors.As and errors.AsType.
func (e maskedError) As(target any) bool {
	b, ok := target.(*Blocked)
	if !ok || !errors.As(e.err, b) {
		return false
	}
	b.What, b.Do = e.mask.Text(b.What), e.mask.Text(b.Do)
	return true
}

// ReadFrom returns the content of a file from an offset, in which each byte of a secret is *: offsets stay the same. A
// secret that is written in part at the end of the file is left out; it is masked once the rest of it is there.
func (m Mask) ReadFrom(f io.ReadSeeker, offset int64) (io.Reader, error) {
	before := min(offset, int64(m.Longest())) // a secret may begin before the offset
	if _, err := f.Seek(offset-before, io.SeekStart); err != nil || len(m.secrets) == 0 {
		return f, err
	}
	r := &maskedReader{from: bufio.NewReaderSize(f, max(64<<10, m.Longest())), mask: m}
	if _, err := io.CopyN(io.Discard, r, before); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return r, nil
}

type maskedReader struct {
	from *bufio.Reader
	mask Mask
	left int // bytes of the current secret that are still to be written
}

func (r *maskedReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.left > 0 {
			p[n] = '*'
			n, r.left = n+1, r.left-1
			continue
		}
		var ahead []byte
		ahead, err = r.from.Peek(r.mask.Longest())
		found, part := r.mask.at(ahead)
		if len(ahead) == 0 || found == 0 && part && err != nil {
			break
		}
		if r.left = found; found == 0 {
			p[n] = ahead[0]
			n, found = n+1, 1
		}
		if _, err := r.from.Discard(found); err != nil {
			return n, err
		}
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, cmp.Or(err, io.EOF)
}

// at returns the length of the secret at the beginning of text, or 0, and whether all of the text is the beginning of a
// secret. Fewer than 4 bytes do not count as one.
func (m Mask) at(text []byte) (length int, part bool) {
	for _, s := range m.secrets {
		if len(text) >= len(s) && string(text[:len(s)]) == s {
			return len(s), false
		}
		part = part || len(text) >= 4 && strings.HasPrefix(s, string(text))
	}
	return 0, part
}
