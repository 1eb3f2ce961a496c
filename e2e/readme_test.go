package e2e

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReadme runs every command that the README shows, in its order.
func TestReadme(t *testing.T) {
	n := findPrograms(t)
	data, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source, err := filepath.Abs(filepath.Join("..", "reconciler"))
	if err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"bin": n.bin, "reconciler": source} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	env := os.Environ()
	shell := func(line string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-ec", line)
		cmd.Dir, cmd.Env = dir, env
		return cmd
	}
	do := func(t *testing.T, line string) string {
		t.Helper()
		out, err := shell(line).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}
	whole := t
	start := func(t *testing.T, command string) {
		t.Helper()
		cmd := exec.Command("/bin/sh", "-ec", "exec "+command)
		cmd.Dir, cmd.Env = dir, env
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		whole.Cleanup(func() { // later commands need it
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				whole.Errorf("%s: %v", command, err)
			}
		})
	}
	address := ""
	run := func(t *testing.T, command string) {
		word, rest, _ := strings.Cut(command, " ")
		switch {
		case word == "make":
			// make itself is running this, or the demo's own job; the target must be there.
			if out, err := exec.Command("make", append([]string{"-C", "..", "-n"},
				strings.Fields(rest)...)...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		case word == "export":
			name, value, _ := strings.Cut(rest, "=")
			env = append(env, name+"="+filepath.Join(dir, value))
		case strings.HasPrefix(command, "bin/aob doctor"):
			address = freePort(t, filepath.Join(dir, "world", "aob.yaml"))
			do(t, command)
		case strings.HasPrefix(command, "bin/aob serve"):
			start(t, command)
			// A typo in the model is judged at once, and trains nothing.
			do(t, `cd world/intent && git checkout -q -b change &&
				sed -i 's/epochs: 12/epochs: twelve/' models/shapes.yaml &&
				git -c user.name=a -c user.email=a@example.com commit -qam "shapes: train longer" &&
				git push -q origin change`)
			waitFor(t, func() bool {
				out, err := shell("AOB_SOCKET=world/state/aob.sock bin/aob pr show 1").CombinedOutput()
				return err == nil && strings.Contains(string(out), "epochs")
			})
		case strings.HasPrefix(command, "bin/aob-agent run"):
			start(t, strings.Replace(command, defaultAddress, address, 1))
			waitFor(t, func() bool {
				out, err := shell("bin/aob-agent status --state world/dock-1").CombinedOutput()
				return err == nil && strings.Contains(string(out), "idle")
			})
		case strings.HasPrefix(command, "bin/aob pr ask"), strings.HasPrefix(command, "bin/aob pr merge"):
			// The typo is neither unsure nor ready: the commands are understood, and refused for that.
			if out, err := shell(command).CombinedOutput(); err == nil ||
				!strings.Contains(string(out), "no verdict there is unsure") &&
					!strings.Contains(string(out), "aob/release is failure") {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		case strings.HasPrefix(word, "bin/"):
			if out := do(t, command); strings.TrimSpace(out) == "" && !strings.Contains(command, "validate") {
				t.Errorf("%s prints nothing", command)
			}
		}
	}
	ran := 0
	for line := range strings.Lines(string(data)) {
		command, indented := strings.CutPrefix(line, "    ")
		command, _, _ = strings.Cut(command, " #")
		command = strings.TrimSpace(command)
		word, _, _ := strings.Cut(command, " ")
		if indented && (word == "make" || word == "export" || strings.HasPrefix(word, "bin/")) {
			t.Run(command, func(t *testing.T) { run(t, command) })
			ran++
		}
	}
	if ran < 10 {
		t.Errorf("only %d commands were found in the README", ran)
	}
}

const defaultAddress = "127.0.0.1:8370"

// freePort puts a free port into a configuration, and returns its address.
func freePort(t *testing.T, config string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), defaultAddress, l.Addr().String(), 1)
	text = strings.Replace(text, `, metrics: "127.0.0.1:8371"`, "", 1) // nothing here reads them
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// waitFor asks until it is so.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("waited a minute in vain")
		case <-tick.C:
		}
	}
}
