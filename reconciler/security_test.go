package reconciler

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A securityCell is one row of a table of docs/security.md.
type securityCell struct{ action, answer, why string }

// securityCells reads docs/security.md, by the tests' names: IDENTITY/ACTION.
func securityCells(t *testing.T) map[string]securityCell {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	cells := map[string]securityCell{}
	identity := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "## "); ok {
			identity = name
		}
		row := strings.Split(strings.Trim(line, "|"), " | ")
		if identity == "" || len(row) != 4 || !strings.Contains(row[3], "`") {
			continue
		}
		test := strings.Trim(row[3], "` ")
		if of, _, _ := strings.Cut(test, "/"); of != identity || cells[test].action != "" {
			t.Errorf("the cell %s is there twice, or below %s", test, identity)
		}
		cells[test] = securityCell{strings.TrimSpace(row[0]), row[1], row[2]}
	}
	return cells
}

// Each identity has each action once, with an answer and a reason.
func TestSecurityTableIsWhole(t *testing.T) {
	cells := securityCells(t)
	identities, actions := map[string]bool{}, map[string]bool{}
	for test, c := range cells {
		identity, action, _ := strings.Cut(test, "/")
		identities[identity], actions[action] = true, true
		if !slices.Contains([]string{"no", "limited", "yes"}, c.answer) || !strings.HasSuffix(c.why, ".") {
			t.Errorf("%s: %q, %q", test, c.answer, c.why)
		}
	}
	if len(identities) < 11 || len(actions) < 7 || len(cells) != len(identities)*len(actions) {
		t.Errorf("%d identities by %d actions, and %d cells", len(identities), len(actions), len(cells))
	}
}
