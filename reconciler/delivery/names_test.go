package delivery

import (
	"regexp"
	"strings"
	"testing"
)

// Names are accepted as people write them, and no others.
func TestCheckClass(t *testing.T) {
	for name, want := range map[string]bool{
		"circle": true, "traffic light": true, "a  b": true, "托盘": true, "叉车": true, "نیم\u200cبها": true,
		"क्\u200dष": true, "\U0001f469\u200d\U0001f692": true, "❤️\u200d🔥": true, "naïve (2)": true, "3%": true,
		"éte\u0301": true, "-": true, strings.Repeat("托", MaxClass): true,
		"": false, " a": false, "a ": false, "big\u3000circle": false, "fire\u00a0square": false, "a\u2009b": false,
		"a\nb": false, "a\tb": false, "a\u202eb": false, "a\u200bb": false, "\u200ca": false, "a\u200c": false,
		"a\u200c\u200cb": false, "a\u200c b": false, "\xff": false, "a\x00": false, "a\ue000": false, "\ufeffa": false,
		strings.Repeat("a", MaxClass+1): false,
	} {
		err := CheckClass(name)
		if (err == nil) != want {
			t.Errorf("%q: %v, want accepted: %v", name, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), WantClass) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if !regexp.MustCompile(ClassPattern).MatchString("a b") {
		t.Error("a b does not match")
	}
}

func TestSameButSpaces(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"circle", "circle ", true}, {"fire square", "fire\u00a0square", true}, {"a\u200cb", "ab", true}, {"WBC", "wbc",
		true},
		{"circle", "circle", false}, {"circle", "circles", false}} {
		if got := SameButSpaces(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %v", c.a, c.b, got)
		}
	}
}

// A joiner within a word is kept for people who read it; elsewhere it would only hide.
func TestTerminalJoiners(t *testing.T) {
	for text, want := range map[string]string{"نیم\u200cبها": "نیم\u200cبها", "ad\u200dmin": "admin",
		"ب\u200c\u200cب": "ب\u200cب",
		"\u200cb":        "b"} {
		if got := Terminal(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// A label that cannot be a class gets the nearest name that can.
func TestClassOf(t *testing.T) {
	for label, want := range map[string]string{"circle": "circle", "circle ": "circle", "fire\u00a0square": "fire " +
		"square",
		" a\t\nb ": "a b", "نیم\u200cبها": "نیم\u200cبها", "a\u200b": "a", "\u200b": "class", "": "class",
		strings.Repeat("a", 200): strings.Repeat("a", MaxClass)} {
		if got := ClassOf(label); got != want || CheckClass(got) != nil {
			t.Errorf("%q: %q, want %q", label, got, want)
		}
	}
}

func TestTypos(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abcd", "badc", 2},
		{"größe", "grosse", 3}, {"kitten", "sitting", 3}} {
		if got := Typos(c.a, c.b); got != c.want {
			t.Errorf("from %q to %q it is %d, want %d", c.a, c.b, got, c.want)
		}
		if got := Typos(c.b, c.a); got != c.want {
			t.Errorf("from %q to %q it is %d, want %d", c.b, c.a, got, c.want)
		}
	}
}
