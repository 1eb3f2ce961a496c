package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A folder is one in which commands of the documentation run. Programs are in its folder bin.
type folder struct {
	dir string
	env []string
}

func newFolder(t *testing.T, n needs) *folder {
	t.Helper()
	dir, err := os.MkdirTemp("", "aob-page-") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Symlink(n.bin, filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	return &folder{dir: dir, env: append(os.Environ(), "AOB_ONNXRUNTIME="+n.library)}
}

func (p *folder) path(parts ...string) string {
	return filepath.Join(append([]string{p.dir}, parts...)...)
}

// command is a line of the shell; env is added to the folder's own environment.
func (p *folder) command(line string, env ...string) *exec.Cmd {
	cmd := exec.Command("/bin/bash", "-ec", line)
	cmd.Dir, cmd.Env = p.dir, append(p.env[:len(p.env):len(p.env)], env...)
	return cmd
}

// do runs a line and returns all that it prints.
func (p *folder) do(t *testing.T, line string, env ...string) string {
	t.Helper()
	out, err := p.command(line, env...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// serve starts aob serve for a world, and stops it at the end of the test. It returns when the server answers.
func (p *folder) serve(t *testing.T, line string) {
	t.Helper()
	server := p.command("exec " + line)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		if err := server.Wait(); err != nil {
			t.Error(err)
		}
	})
	until(t, func() error { return p.command("bin/aob status --socket world/state/aob.sock").Run() })
}

// A part of a page is a command, or a file with its text.
type part struct{ command, file, text string }

// parts lists the commands and the files of a page, in its order. A file is a block of YAML whose first line is its
// path, as a comment.
func parts(t *testing.T, page string) (list []part) {
	t.Helper()
	return partsOf(pageText(t, page))
}

// section lists the parts of one section of a page.
func section(t *testing.T, page, heading string) []part {
	t.Helper()
	_, text, ok := strings.Cut(pageText(t, page), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", page, heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return partsOf(text)
}

func pageText(t *testing.T, page string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func partsOf(page string) (list []part) {
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
