package e2e

import (
	"archive/zip"
	"bytes"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/tools/roboflow/roboflowtest"
)

// TestTrainPage does what docs/train.md says, in its order, with a stand-in for Roboflow. RF-DETR takes minutes on a
// CPU, so it is installed and trained where AOB_RFDETR=1 (make test-rfdetr), and planned elsewhere.
func TestTrainPage(t *testing.T) {
	n := findPrograms(t)
	p := newFolder(t, n)
	made := filepath.Join(t.TempDir(), "shapes")
	if out, err := exec.Command(python, "../trainers/tiny/shapes.py", made, "--train", "24", "--valid", "8", "--test",
		"20").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	roboflow := roboflowtest.New("acme", "the-key")
	roboflow.Put("pallets", 14, zipped(t, made))
	stand := httptest.NewServer(roboflow)
	t.Cleanup(stand.Close)

	train := os.Getenv("AOB_RFDETR") != ""
	p.env = append(p.env, "ROBOFLOW_API_KEY=the-key", "GIT_AUTHOR_NAME=ada", "GIT_AUTHOR_EMAIL=ada@example.com",
		"GIT_COMMITTER_NAME=ada", "GIT_COMMITTER_EMAIL=ada@example.com")
	planned := ""
	for _, step := range parts(t, "train.md") {
		switch word, rest, _ := strings.Cut(step.command, " "); {
		case step.file != "":
			// The page's sizes are for a GPU, and its address is the real one.
			text := strings.NewReplacer("https://api.roboflow.com", stand.URL, "resolution: 512", "resolution: 64",
				"epochs: 50", "epochs: 1", "effective: 16, step: 8", "effective: 8, step: 8", "rf-detr-small ",
				"rf-detr-nano ", "{file: key}", "{file: \""+p.path("roboflow", "key")+"\"}",
				"state: state", "state: \""+p.path("roboflow", "state")+"\"").Replace(step.text)
			if err := os.WriteFile(p.path(step.file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		case word == "make", strings.HasPrefix(step.command, "weights:"): // make runs this; weights are the reader's
		case strings.HasPrefix(step.command, "bin/aob trainer install") && !train:
		case strings.HasPrefix(step.command, "bin/aob plan"):
			planned = p.do(t, step.command)
		case word == "export":
			p.env = append(p.env, rest)
		case strings.HasPrefix(step.command, "bin/aob doctor"):
			if out, err := p.command(step.command).CombinedOutput(); err != nil && train {
				t.Fatalf("%v: %s", err, out)
			}
		case strings.HasPrefix(step.command, "bin/aob serve"):
			if !train {
				if !strings.Contains(planned, "data") {
					t.Errorf("the plan is %s", planned)
				}
				return
			}
			p.serve(t, step.command)
		case strings.HasPrefix(step.command, "bin/aob pr show"):
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for began := time.Now(); ; <-tick.C {
				said := p.do(t, step.command)
				if regexp.MustCompile(`pass +size <= `).MatchString(said) { // of the gate that aob init wrote
					break
				}
				bad := regexp.MustCompile(`failure +aob/train|fail +size`).MatchString(said)
				if bad || time.Since(began) > 30*time.Minute {
					t.Fatalf("RF-DETR is not trained, or too large:\n%s", said)
				}
			}
		default:
			p.do(t, step.command)
			if strings.HasPrefix(step.command, "bin/aob init") {
				freePort(t, p.path("world", "aob.yaml"))
			}
		}
	}
}

// zipped returns a folder as a zip, as Roboflow exports a version.
func zipped(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	err := w.AddFS(os.DirFS(dir))
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
