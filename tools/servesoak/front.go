package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A front is a running aob-detect serve --listen, with a folder of its own for everything that it leaves.
type front struct {
	cmd     *exec.Cmd
	url     string
	dir     string // its TMPDIR; its control socket is in it
	control *http.Client
	ended   chan struct{}
	err     error // of its end

	mu  sync.Mutex
	log bytes.Buffer
}

const modelName = "soak"

// startFront serves a bundle with version 1.
func startFront(binary, bundle string, flags ...string) (*front, error) {
	dir, err := os.MkdirTemp("", "soak") // a socket's path is short
	if err != nil {
		return nil, err
	}
	f := &front{dir: dir, ended: make(chan struct{})}
	socket := filepath.Join(dir, "control")
	f.control = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn,
		error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}, DisableKeepAlives: true}} // so that it holds none of the server's descriptors
	f.cmd = exec.Command(binary, append([]string{"serve", "--bundle", bundle, "--listen", ":0", "--name", modelName,
		"--model-version", "1", "--control", socket}, flags...)...)
	f.cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	stderr, err := f.cmd.StderrPipe()
	if err == nil {
		err = f.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	serving := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			f.mu.Lock()
			if f.log.Len() < 16<<20 {
				f.log.WriteString(lines.Text() + "\n")
			}
			f.mu.Unlock()
			if m := regexp.MustCompile(`msg=serving url=(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
				serving <- m[1]
			}
		}
		f.err = f.cmd.Wait()
		close(f.ended)
	}()
	select {
	case f.url = <-serving:
		return f, nil
	case <-f.ended:
		return nil, errors.Join(fmt.Errorf("it does not serve: %v\n%s", f.err, f.said()), os.RemoveAll(dir))
	}
}

func (f *front) said() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

func (f *front) alive() bool {
	select {
	case <-f.ended:
		return false
	default:
		return true
	}
}

// stop ends it and says what it leaves: processes and files. maxRSS is the most memory of one of its processes, in
// bytes.
func (f *front) stop() (maxRSS int64, err error) {
	before := f.children()
	if err := f.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("the front has ended before: %w\n%s", err, tail(f.said()))
	}
	select {
	case <-f.ended:
	case <-time.After(time.Minute):
		return 0, errors.New("the front does not end")
	}
	if f.err != nil {
		err = fmt.Errorf("the front ended with %w\n%s", f.err, tail(f.said()))
	}
	for _, pid := range before {
		if _, gone := os.Stat(fmt.Sprintf("/proc/%d", pid)); gone == nil && f.ours(pid) {
			err = errors.Join(err, fmt.Errorf("process %d is left", pid))
		}
	}
	if left := f.files(); left != 0 {
		err = errors.Join(err, fmt.Errorf("%d files are left", left))
	}
	usage, _ := f.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if usage != nil {
		maxRSS = usage.Maxrss << 10
	}
	return maxRSS, errors.Join(err, os.RemoveAll(f.dir))
}

func tail(log string) string { return log[max(0, len(log)-4000):] }

// ours says whether a process runs a model on one of the front's sockets.
func (f *front) ours(pid int) bool {
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(args, []byte(f.dir))
}

// children are the processes that the front has started and not waited for, and theirs.
func (f *front) children() []int { return descendants(f.cmd.Process.Pid) }

func descendants(pid int) (list []int) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for _, text := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(text); err == nil {
				list = append(append(list, child), descendants(child)...)
			}
		}
	}
	return list
}

// files counts what lies in the front's folder, the control socket left out.
func (f *front) files() int {
	n := 0
	_ = filepath.WalkDir(f.dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != f.dir && filepath.Base(path) != "control" {
			n++
		}
		return nil
	})
	return n
}

// operate sends a request to the control socket. The error says what the server answers.
func (f *front) operate(method, path string, body any, patience time.Duration) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://front"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	resp, err := f.control.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		return refusal(answer)
	}
	return err
}

// A refusal is what the server answers to an operator.
type refusal string

func (r refusal) Error() string { return string(r) }

// load makes a bundle the one that serves.
func (f *front) load(bundle, version string, patience time.Duration) error {
	return f.operate(http.MethodPut, "/bundle", map[string]string{"bundle": bundle, "version": version}, patience)
}

// metrics reads GET /metrics: the value of each series, by its name with labels.
func (f *front) metrics() (map[string]float64, error) {
	resp, err := f.control.Get("http://front/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	all := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if at := strings.LastIndexByte(lines.Text(), ' '); at > 0 && lines.Text()[0] != '#' {
			if v, err := strconv.ParseFloat(lines.Text()[at+1:], 64); err == nil {
				all[lines.Text()[:at]] = v
			}
		}
	}
	return all, lines.Err()
}

// A footprint is what the front and its models take.
type footprint struct {
	front, child process // child: all of them together
	children     int
	files        int
}

// A process is what a process takes; memory in bytes.
type process struct {
	rss, anonymous       int64
	descriptors, threads int
}

func (f *front) footprint() footprint {
	p := footprint{front: processOf(f.cmd.Process.Pid), files: f.files()}
	for _, pid := range f.children() {
		c := processOf(pid)
		p.children++
		p.child.rss += c.rss
		p.child.anonymous += c.anonymous
		p.child.descriptors += c.descriptors
		p.child.threads += c.threads
	}
	return p
}

func processOf(pid int) (p process) {
	at := func(name string) string { return fmt.Sprintf("/proc/%d/%s", pid, name) }
	if list, err := os.ReadDir(at("fd")); err == nil {
		p.descriptors = len(list)
	}
	if list, err := os.ReadDir(at("task")); err == nil {
		p.threads = len(list)
	}
	text, err := os.ReadFile(at("smaps_rollup"))
	if err != nil {
		return p
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 3 {
			kb, _ := strconv.ParseInt(fields[1], 10, 64)
			switch fields[0] {
			case "Rss:":
				p.rss = kb << 10
			case "Anonymous:":
				p.anonymous = kb << 10
			}
		}
	}
	return p
}

func (p footprint) String() string {
	one := func(p process) string {
		return fmt.Sprintf("%5.1f MiB (%5.1f anonymous), %d descriptors, %d threads", mib(p.rss), mib(p.anonymous),
			p.descriptors, p.threads)
	}
	return fmt.Sprintf("front %s; %d models %s; %d files", one(p.front), p.children, one(p.child), p.files)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// settle waits until Go's collector has run twice in the front without work: it then has returned what it can. The
// runtime does so every two minutes. The children do the same beside it.
func (f *front) settle(ctx context.Context) (footprint, error) {
	const series = "go_gc_duration_seconds_count"
	first, err := f.metrics()
	if err != nil {
		return footprint{}, err
	}
	for {
		select {
		case <-ctx.Done():
			return footprint{}, ctx.Err()
		case <-f.ended:
			return footprint{}, errors.New("the front has ended")
		case <-time.After(5 * time.Second):
		}
		now, err := f.metrics()
		if err != nil {
			return footprint{}, err
		}
		if now[series] >= first[series]+2 {
			return f.footprint(), nil
		}
	}
}
