package forge

import (
	"strings"
	"testing"
	"unicode/utf8"
)

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

func TestComment(t *testing.T) {
	for _, body := range []string{"", "short", strings.Repeat("line\n", 20_000), strings.Repeat("é", 60_000), strings.Repeat("x", MaxComment) + "\xff"} {
		got := comment("report", body)
		if len(got) > MaxComment || !utf8.ValidString(got) || !strings.HasPrefix(got, "<!-- aob:report -->\n") {
			t.Errorf("%d bytes became %d", len(body), len(got))
		}
	}
}

func TestCommand(t *testing.T) {
	for body, want := range map[string]bool{
		"/aob run 3f9c2a": true, "hi\r\n  /aob run 1\r\n": true, "/aob": true, "/aobrun": false, "see /aob run": false, "> /aob run 1": false, "": false,
	} {
		if command(body) != want {
			t.Errorf("%q: got %v", body, !want)
		}
	}
}
