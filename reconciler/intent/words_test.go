package intent

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"mAP", "AP", "AP50", "size", "pallets", "forklifts", "optimizer"}
	for word, want := range map[string]string{
		"map": "mAP", "AP57": "AP50", "sise": "size", "szie": "size", "palets": "pallets", "forklift": "forklifts",
		"optimiser": "optimizer", "OPTIMIZER": "optimizer", "": "", "latency": "", "x": "", "palletsandmore": "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abcd", "badc", 2},
		{"größe", "grosse", 3}, {"kitten", "sitting", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("from %q to %q it is %d, want %d", c.a, c.b, got, c.want)
		}
		if got := distance(c.b, c.a); got != c.want {
			t.Errorf("from %q to %q it is %d, want %d", c.b, c.a, got, c.want)
		}
	}
}
