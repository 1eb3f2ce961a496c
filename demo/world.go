package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

type story struct {
	out            io.Writer
	bin, dir       string
	terminal       bool
	began          time.Time
	processes      []*process
	rows           []row
	address        string // address of the server
	metricsAddress string // address of its metrics
}

// A row is one line of the summary.
type row struct{ what, result string }

type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
}

func newStory(out *os.File, bin, dir string) *story {
	info, err := out.Stat()
	return &story{out: out, bin: bin, dir: dir, began: time.Now(), terminal: err == nil &&
		info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""}
}

func (s *story) worldDir() string { return filepath.Join(s.dir, "world") }
func (s *story) cloneDir() string { return filepath.Join(s.worldDir(), "intent") }
func (s *story) config() string   { return filepath.Join(s.worldDir(), "aob.yaml") }
func (s *story) socket() string   { return filepath.Join(s.worldDir(), "state", "aob.sock") }

// aob runs an aob command and returns its output.
func (s *story) aob(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "aob"), args...)
	cmd.Env = append(os.Environ(), "AOB_SOCKET="+s.socket(), "NO_COLOR=1")
	return output(cmd)
}

func (s *story) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", s.cloneDir(), "-c", "user.name=demo", "-c",
		"user.email=demo@localhost"}, args...)...)
	return output(cmd)
}

// gits runs git commands, whose arguments contain no spaces.
func (s *story) gits(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		if _, err := s.git(ctx, strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err,
			strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// tools checks that all tools are installed, before the demo spends minutes.
func (s *story) tools(ctx context.Context) (string, error) {
	var missing []string
	for _, name := range []string{"aob", "aob-agent", "aob-detect"} {
		if _, err := os.Stat(filepath.Join(s.bin, name)); err != nil {
			missing = append(missing, name)
		}
	}
	for _, name := range []string{"git", "terraform"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("missing programs: %s; run make demo, which builds or installs them",
			strings.Join(missing, ", "))
	}
	if out, err := output(exec.CommandContext(ctx, "/usr/bin/python3", "-c",
		"import torch, onnx; print(torch.__version__)")); err != nil {
		return "", fmt.Errorf("PyTorch or onnx is missing for /usr/bin/python3: %w", err)
	} else {
		return "git, Terraform, ONNX Runtime, PyTorch " + strings.TrimSpace(out), nil
	}
}

// start starts a program in the background, with its own log file.
func (s *story) start(name string, args ...string) error {
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.done) }()
	s.processes = append(s.processes, p)
	return nil
}

// startServer starts aob serve on a free port and waits until it is ready.
func (s *story) startServer(ctx context.Context) error {
	for _, address := range []*string{&s.address, &s.metricsAddress} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*address = l.Addr().String()
		l.Close()
	}
	config, err := os.ReadFile(s.config())
	if err != nil {
		return err
	}
	config = bytes.Replace(config, []byte("127.0.0.1:8370"), []byte(s.address), 1)
	config = bytes.Replace(config, []byte("127.0.0.1:8371"), []byte(s.metricsAddress), 1)
	if err := os.WriteFile(s.config(), config, 0o644); err != nil {
		return err
	}
	if err := s.start("serve", filepath.Join(s.bin, "aob"), "serve", "--config", s.config()); err != nil {
		return err
	}
	return s.until(ctx, 30*time.Second, "aob serve is ready", func() (bool, error) {
		_, err := s.aob(ctx, "status", "-o", "json")
		return err == nil, nil
	})
}

func (s *story) startAgent(name string) error {
	state := filepath.Join(s.worldDir(), "state")
	token := filepath.Join(s.dir, name+".token")
	text, err := exec.Command(filepath.Join(s.bin, "aob"), "device", "token", "demo", name, "--config",
		s.config()).Output()
	if err == nil {
		err = os.WriteFile(token, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("token of device %s: %w", name, err)
	}
	return s.start(name, filepath.Join(s.bin, "aob-agent"), "run", "--server", "http://"+s.address, "--fleet", "demo",
		"--device", name, "--label", "site=demo", "--state", filepath.Join(s.dir, "devices", name), "--trust",
		filepath.Join(state, "keys", "desired.key.pub"), "--token-file", token)
}

// end ends all started programs, the last one first.
func (s *story) end() error {
	var errs []error
	for i := len(s.processes) - 1; i >= 0; i-- {
		p := s.processes[i]
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(20 * time.Second):
			errs = append(errs, fmt.Errorf("%s did not end within 20 s after SIGTERM", p.name), p.cmd.Process.Kill())
		}
	}
	return errors.Join(errs...)
}

// until calls ok every 200 ms until it returns true or an error, for at most limit.
func (s *story) until(ctx context.Context, limit time.Duration, what string, ok func() (bool, error)) error {
	late := time.NewTimer(limit)
	defer late.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if yes, err := ok(); yes || err != nil {
			return err
		}
		for _, p := range s.processes {
			select {
			case <-p.done:
				return fmt.Errorf("%s has ended; see %s", p.name, filepath.Join(s.dir, p.name+".log"))
			default:
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return fmt.Errorf("timeout after %s waiting until %s; see %s", limit, what,
				filepath.Join(s.dir, "serve.log"))
		case <-tick.C:
		}
	}
}

// query runs an aob command with -o json and decodes its output.
func (s *story) query(ctx context.Context, into any, args ...string) error {
	out, err := s.aob(ctx, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// metrics returns the server's metrics.
func (s *story) metrics(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.metricsAddress+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
