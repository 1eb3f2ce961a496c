// Package mlflowtest runs a real MLflow server for tests.
//
// tools/venv.sh installs it once, in the user's cache folder. If it is missing, [Start] skips the test. Each server has
// its own folder, SQLite database and loopback port, and is stopped at the end of the test.
//
// Only tests import it.
package mlflowtest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/tools/venvtest"
)

// A Server is an MLflow server that can be stopped and started again.
type Server struct {
	URL string // for example http://127.0.0.1:40123, without a slash at the end
	Dir string // with the database and the log

	bin     string // the folder of MLflow's programs
	port    int
	args    []string
	process *exec.Cmd // nil while it is stopped
	ended   chan struct{}
	python  *client // nil until it is used
}

// Prepare returns a server that is not started, and skips the test if MLflow is not installed. args are added to the
// arguments of mlflow server.
func Prepare(t testing.TB, args ...string) *Server {
	t.Helper()
	program := venvtest.Program(t, "mlflow", "mlflow")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	s := &Server{URL: fmt.Sprintf("http://127.0.0.1:%d", port), Dir: t.TempDir(), bin: filepath.Dir(program),
		port: port, args: args}
	t.Cleanup(func() {
		s.Kill()
		if s.python != nil {
			s.python.end()
		}
	})
	return s
}

// Start starts a server and waits until it answers.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := Prepare(t, args...)
	s.Start(t)
	return s
}

// startLimit is how long a server may take to start. It takes ten seconds on two idle cores.
const startLimit = 3 * time.Minute

// Start starts the server with the data that it had before, and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(s.Dir, "log.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// #nosec G204 -- the program and its arguments are those of this package and its callers
	c := exec.Command(filepath.Join(s.bin, "mlflow"), append([]string{"server", "--host", "127.0.0.1", "--port",
		fmt.Sprint(s.port), "--workers", "1", "--backend-store-uri", "sqlite:///" + filepath.Join(s.Dir, "mlflow.db"),
		"--artifacts-destination", filepath.Join(s.Dir, "artifacts")}, s.args...)...)
	c.Dir, c.Stdout, c.Stderr = s.Dir, log, log
	c.Env = []string{"PATH=" + s.bin + ":" + os.Getenv("PATH"), "HOME=" + s.Dir,
		"MLFLOW_DISABLE_TELEMETRY=true", "DO_NOT_TRACK=true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false"}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	s.process, s.ended = c, make(chan struct{})
	go func() { _ = c.Wait(); close(s.ended) }()
	deadline := time.NewTimer(startLimit)
	defer deadline.Stop()
	for pause := 20 * time.Millisecond; ; {
		if resp, err := http.Get(s.URL + "/health"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		again := time.NewTimer(pause)
		select {
		case <-s.ended:
			t.Fatalf("mlflow server has ended: %s", s.tail())
		case <-deadline.C:
			t.Fatalf("mlflow server does not answer: %s", s.tail())
		case <-again.C:
		}
	}
}

// Kill kills the server and all its processes, as kill -9 does. It does nothing if it is stopped.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	_ = syscall.Kill(-s.process.Process.Pid, syscall.SIGKILL)
	<-s.ended
	s.process = nil
}

// loop is a Python program that runs those that it is sent, each a line of JSON, and answers with what they print.
const loop = `
import contextlib, io, json, sys, traceback
answer = sys.stdout
for line in sys.stdin:
    out, error = io.StringIO(), ""
    with contextlib.redirect_stdout(out):
        try:
            exec(json.loads(line), {})
        except Exception:
            error = traceback.format_exc()
    print(json.dumps({"Out": out.getvalue(), "Error": error}), file=answer, flush=True)
`

// Python runs a program with MLflow's own client, which is connected to the server, and returns what it prints. All
// programs of a server run in one process, because importing MLflow takes seconds.
func (s *Server) Python(t testing.TB, program string) string {
	t.Helper()
	if s.python == nil {
		// #nosec G204 -- the program is that of this package
		c := exec.Command(filepath.Join(s.bin, "python"), "-c", loop)
		c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir, "MLFLOW_TRACKING_URI=" + s.URL,
			"MLFLOW_DISABLE_TELEMETRY=true", "DO_NOT_TRACK=true"}
		c.Dir, c.Stderr = s.Dir, os.Stderr
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		s.python = &client{to: json.NewEncoder(in), from: json.NewDecoder(out),
			end: func() { in.Close(); _ = c.Wait() }}
	}
	var answer struct{ Out, Error string }
	if err := s.python.to.Encode(program); err != nil {
		t.Fatal(err)
	}
	if err := s.python.from.Decode(&answer); err != nil || answer.Error != "" {
		t.Fatalf("python: %v\n%s", err, answer.Error)
	}
	return answer.Out
}

// A client is the process of Python.
type client struct {
	to   *json.Encoder
	from *json.Decoder
	end  func()
}

// tail returns the end of the server's log.
func (s *Server) tail() string {
	data, err := os.ReadFile(filepath.Join(s.Dir, "log.txt"))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2000):])
}
