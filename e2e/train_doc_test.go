package e2e

import (
	"archive/zip"
	"bytes"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/tools/roboflow/roboflowtest"
)

// TestTrainPage does what docs/train.md says, in its order, with a stand-in for Roboflow. RF-DETR takes minutes on a
// CPU, so it is installed and trained where AOB_RFDETR=1 (make test-rfdetr), and planned elsewhere.
func TestTrainPage(t *testing.T) {
	n := findPrograms(t)
	dir, err := os.MkdirTemp("", "aob-train-") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Symlink(n.bin, filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(t.TempDir(), "shapes")
	if out, err := exec.Command(python, "../trainers/tiny/shapes.py", made, "--train", "24", "--valid", "8", "--test",
		"20").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	roboflow := roboflowtest.New("acme", "the-key")
	roboflow.Put("pallets", 14, zipped(t, made))
	stand := httptest.NewServer(roboflow)
	t.Cleanup(stand.Close)

	page, err := os.ReadFile(filepath.Join("..", "docs", "train.md"))
	if err != nil {
		t.Fatal(err)
	}
	train := os.Getenv("AOB_RFDETR") != ""
	env := append(os.Environ(), "AOB_ONNXRUNTIME="+n.library, "ROBOFLOW_API_KEY=the-key", "GIT_AUTHOR_NAME=ada",
		"GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=ada", "GIT_COMMITTER_EMAIL=ada@example.com")
	shell := func(line string) *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-ec", line)
		cmd.Dir, cmd.Env = dir, env
		return cmd
	}
	do := func(line string) string {
		t.Helper()
		out, err := shell(line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}
	planned := ""
	for _, step := range parts(string(page)) {
		switch word, rest, _ := strings.Cut(step.command, " "); {
		case step.file != "":
			// The page's sizes are for a GPU, and its address is the real one.
			text := strings.NewReplacer("https://api.roboflow.com", stand.URL, "resolution: 512", "resolution: 64",
				"epochs: 50", "epochs: 1", "effective: 16, step: 8", "effective: 8, step: 8", "rf-detr-small ",
				"rf-detr-nano ", "{file: key}", "{file: \""+filepath.Join(dir, "roboflow", "key")+"\"}",
				"state: state", "state: \""+filepath.Join(dir, "roboflow", "state")+"\"").Replace(step.text)
			if err := os.WriteFile(filepath.Join(dir, step.file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		case word == "make", strings.HasPrefix(step.command, "weights:"): // make runs this; weights are the reader's
		case strings.HasPrefix(step.command, "bin/aob trainer install") && !train:
		case strings.HasPrefix(step.command, "bin/aob plan"):
			planned = do(step.command)
		case word == "export":
			env = append(env, rest)
		case strings.HasPrefix(step.command, "bin/aob doctor"):
			if out, err := shell(step.command).CombinedOutput(); err != nil && train {
				t.Fatalf("%v: %s", err, out)
			}
		case strings.HasPrefix(step.command, "bin/aob serve"):
			if !train {
				if !strings.Contains(planned, "data") {
					t.Errorf("the plan is %s", planned)
				}
				return
			}
			server := shell("exec " + step.command)
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = server.Process.Signal(syscall.SIGTERM)
				_ = server.Wait()
			})
			waitFor(t, func() bool { return shell("bin/aob status --socket world/state/aob.sock").Run() == nil })
		case strings.HasPrefix(step.command, "bin/aob pr show"):
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for began := time.Now(); ; <-tick.C {
				said := do(step.command)
				if strings.Contains(said, "success  aob/train") {
					break
				}
				if strings.Contains(said, "failure  aob/train") || time.Since(began) > 30*time.Minute {
					t.Fatalf("RF-DETR is not trained:\n%s", said)
				}
			}
		default:
			do(step.command)
			if strings.HasPrefix(step.command, "bin/aob init") {
				freePort(t, filepath.Join(dir, "world", "aob.yaml"))
			}
		}
	}
}

// A part of a page is a command, or a file with its text.
type part struct{ command, file, text string }

// parts lists the commands and the files of a page, in its order. A file is a block of YAML whose first line is its
// path, as a comment.
func parts(page string) (list []part) {
	var file *part
	for line := range strings.Lines(page) {
		switch command, indented := strings.CutPrefix(line, "    "); {
		case strings.HasPrefix(line, "```yaml"):
			file = &part{}
		case strings.HasPrefix(line, "```"):
			list, file = append(list, *file), nil
		case file != nil && file.file == "":
			file.file = strings.TrimSpace(strings.TrimPrefix(line, "#"))
		case file != nil:
			file.text += line
		case indented:
			command, _, _ = strings.Cut(command, " #")
			list = append(list, part{command: strings.TrimSpace(command)})
		}
	}
	return list
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
