package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A securityCell is one row of a table of docs/security.md.
type securityCell struct {
	name, answer, why string
	local             bool   // the identity is there on the local forge too
	absent            string // why it is not
}

// readSecurityTable reads docs/security.md, in the page's order. A cell's name is IDENTITY/ACTION.
func readSecurityTable(t *testing.T) []securityCell {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	var cells []securityCell
	answers := map[string]string{} // of the overview, by identity and column
	var columns []string
	identity, sections := "", map[string]bool{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "## "); ok {
			identity = name
		}
		row := strings.Split(strings.Trim(line, "| "), " | ")
		switch {
		case !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---"):
		case identity == "" && columns == nil:
			columns = append(columns, row...)
			columns = slices.Insert(columns[max(0, len(columns)-7):], 0, "")
		case identity == "":
			_, of, _ := strings.Cut(row[0], "](#")
			sections[strings.TrimSuffix(of, ")")] = true
			for i, answer := range row[1:] {
				answers[strings.TrimSuffix(of, ")")+" "+columns[i+1]] = answer
			}
		case !sections[identity]: // a table of something else
		case row[0] == "action":
		case len(row) != 5:
			t.Errorf("below %s: want 5 columns: %s", identity, line)
		default:
			c := securityCell{name: strings.Trim(row[4], "`"), answer: row[1], why: row[2]}
			forges, absent, _ := strings.Cut(row[3], ": ")
			switch forges {
			case "both":
				c.local = true
			case "Gitea":
				c.absent = absent
			default:
				t.Errorf("%s: is it there on both forges, or on Gitea alone and why? %q", c.name, row[3])
			}
			if of, _, _ := strings.Cut(c.name, "/"); of != identity {
				t.Errorf("the cell %s is below %s", c.name, identity)
			}
			if over := answers[identity+" "+row[0]]; over != c.answer {
				t.Errorf("%s is %q in the overview, and %q below", c.name, over, c.answer)
			}
			if !slices.Contains([]string{"no", "limited", "yes"}, c.answer) || !strings.HasSuffix(c.why, ".") ||
				!c.local && !strings.HasPrefix(c.absent, "the local forge has no ") {
				t.Errorf("%s: %+v", c.name, c)
			}
			cells = append(cells, c)
		}
	}
	return cells
}

// TestSecurityTableIsWhole checks that each identity has each action once, and that each cell has a check and each
// check a cell.
func TestSecurityTableIsWhole(t *testing.T) {
	names, identities, actions := map[string]bool{}, map[string]bool{}, map[string]bool{}
	cells := readSecurityTable(t)
	for _, c := range cells {
		identity, action, _ := strings.Cut(c.name, "/")
		if names[c.name] {
			t.Errorf("the cell %s is there twice", c.name)
		}
		names[c.name], identities[identity], actions[action] = true, true, true
		if securityChecks[c.name] == nil {
			t.Errorf("the cell %s has no check", c.name)
		}
	}
	if len(identities) < 21 || len(actions) < 7 || len(names) != len(identities)*len(actions) {
		t.Errorf("%d identities by %d actions, and %d cells", len(identities), len(actions), len(names))
	}
	for name := range securityChecks {
		if !names[name] {
			t.Errorf("the check %s has no cell", name)
		}
	}
	page, err := os.ReadFile(filepath.Join("..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	for _, found := range regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllSubmatch(page, -1) {
		if !tests[string(found[1])] {
			t.Errorf("the page names %s, and there is no such test", found[1])
		}
	}
}

// testNames are the names of all tests of the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names, head := map[string]bool{}, regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, top := range []string{"cmd", "reconciler", "e2e"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile(path)
			for _, found := range head.FindAllSubmatch(data, -1) {
				names[string(found[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// TestSecurityTable walks the table: each check does what its cell is about, as that identity, against running
// programs, and asserts the cell's answer. All checks on a forge share one server.
func TestSecurityTable(t *testing.T) {
	if os.Getenv("AOB_SECURITY") == "" {
		t.Skip("it walks for minutes: make test-security")
	}
	n := findPrograms(t)
	cells := readSecurityTable(t)
	// What takes AOB's rights away on the forge comes last.
	slices.SortStableFunc(cells, func(a, b securityCell) int {
		return map[bool]int{true: 1}[a.name == "admin/stop"] - map[bool]int{true: 1}[b.name == "admin/stop"]
	})
	for _, forge := range []struct {
		name string
		make func(*testing.T, needs) *place
	}{{"Gitea", newGiteaPlace}, {"local forge", newLocalPlace}} {
		t.Run(forge.name, func(t *testing.T) {
			p := forge.make(t, n)
			defer p.endDetector()
			for _, c := range cells {
				t.Run(c.name, func(t *testing.T) {
					if p.m == nil && !c.local {
						t.Skipf("nobody is this here: %s", c.absent)
					}
					began := time.Now()
					p.T = t
					securityChecks[c.name](p)
					t.Logf("%s: %s (%s)", c.answer, c.why, round(time.Since(began)))
				})
			}
		})
	}
}

// securityChecks are the checks of the table's cells.
var securityChecks = map[string]func(*place){
	"network/bar": networkBar, "network/spend": networkSpend, "network/stop": networkStop,
	"network/models": networkModels, "network/speak": networkSpeak,
	"network/secrets": networkSecrets, "network/disk": networkDisk,

	"reader/bar": readerBar, "reader/spend": readerSpend, "reader/stop": readerStop, "reader/models": readerModels,
	"reader/speak": readerSpeak, "reader/secrets": readerSecrets, "reader/disk": readerDisk,

	"fork/bar": forkBar, "fork/spend": forkSpend, "fork/stop": forkStop, "fork/models": readerModels,
	"fork/speak": forkSpeak, "fork/secrets": forkSecrets, "fork/disk": forkDisk,

	"writer/bar": writerBar, "writer/spend": writerSpend, "writer/stop": writerStop, "writer/models": writerModels,
	"writer/speak": writerSpeak, "writer/secrets": writerSecrets, "writer/disk": writerDisk,

	"owner/bar": ownerBar, "owner/spend": ownerSpend, "owner/stop": ownerStop, "owner/models": writerModels,
	"owner/speak": ownerSpeak, "owner/secrets": writerSecrets, "owner/disk": ownerDisk,

	"admin/bar": adminBar, "admin/spend": adminSpend, "admin/stop": adminStop, "admin/models": writerModels,
	"admin/speak": adminSpeak, "admin/secrets": adminSecrets, "admin/disk": adminDisk,

	"device/bar": deviceBar, "device/spend": deviceSpend, "device/stop": deviceStop, "device/models": deviceModels,
	"device/speak": deviceSpeak, "device/secrets": deviceSecrets, "device/disk": deviceDisk,

	"untokened/bar": untokenedBar, "untokened/spend": networkSpend, "untokened/stop": networkSlow,
	"untokened/models": networkModels, "untokened/speak": untokenedBar, "untokened/secrets": networkSecrets,
	"untokened/disk": networkDisk,

	"local/bar": localBar, "local/spend": localBar, "local/stop": localStop, "local/models": localModels,
	"local/speak": localBar, "local/secrets": localModels, "local/disk": localDisk,

	"trainer/bar": trainerBar, "trainer/spend": trainerSpend, "trainer/stop": trainerStop, "trainer/models": trainerBar,
	"trainer/speak": trainerSpeak, "trainer/secrets": trainerSecrets, "trainer/disk": trainerDisk,

	"dataset/bar": datasetBar, "dataset/spend": datasetSpend, "dataset/stop": datasetStop,
	"dataset/models": datasetModels, "dataset/speak": datasetSpeak,
	"dataset/secrets": datasetSecrets, "dataset/disk": datasetDisk,

	"source/bar": sourceBar, "source/spend": sourceSpend, "source/stop": sourceStop, "source/models": sourceModels,
	"source/speak": sourceSpeak, "source/secrets": sourceSecrets, "source/disk": sourceDisk,

	"tracker/bar": trackerBar, "tracker/spend": trackerSpend, "tracker/stop": trackerStop,
	"tracker/models": trackerModels, "tracker/speak": trackerSpeak, "tracker/secrets": trackerSecrets,
	"tracker/disk": trackerDisk,

	"container/bar": containerSees, "container/spend": has("--network none", "--memory 1073741824", "--pids-limit 64"),
	"container/stop": has("--memory-swap 1073741824", "--ulimit nofile=64:64", "--ulimit nproc=64:64",
		"--cap-drop ALL"),
	"container/models":  containerSees,
	"container/speak":   has("--network none", "--security-opt no-new-privileges", "--log-driver none"),
	"container/secrets": containerSecrets,
	"container/disk":    has("--read-only", "--shm-size 1073741824", "--rm"),

	"caller/bar": callerClosed, "caller/spend": callerClosed, "caller/stop": callerSlow, "caller/models": callerReads,
	"caller/speak": callerControl, "caller/secrets": holderSecrets, "caller/disk": holderDisk,

	"holder/bar": holderHostile, "holder/spend": callerControl, "holder/stop": holderHostile,
	"holder/models": callerControl, "holder/speak": callerControl, "holder/secrets": holderSecrets,
	"holder/disk": holderDisk,

	"operator/bar": operatorLoads, "operator/spend": operatorSocket, "operator/stop": operatorLoads,
	"operator/models": operatorReads, "operator/speak": operatorSocket, "operator/secrets": operatorReads,
	"operator/disk": operatorReads,

	"model/bar": modelRefused, "model/spend": modelConfined, "model/stop": modelRefused, "model/models": modelConfined,
	"model/speak": modelRefused, "model/secrets": modelConfined, "model/disk": modelConfined,

	"page/bar": pageRefused, "page/spend": pageRefused, "page/stop": pageRefused, "page/models": pageRefused,
	"page/speak": operatorSocket, "page/secrets": pageRefused, "page/disk": pageRefused,

	"folder/bar": folderChanges, "folder/spend": folderChanges, "folder/stop": folderChanges,
	"folder/models": folderLinks, "folder/speak": folderChanges, "folder/secrets": folderLinks,
	"folder/disk": folderLinks,

	"camera/bar": cameraFrames, "camera/spend": cameraFrames, "camera/stop": cameraFrames,
	"camera/models": cameraFrames, "camera/speak": cameraFrames, "camera/secrets": cameraFrames,
	"camera/disk": cameraFrames,
}
