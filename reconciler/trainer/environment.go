package trainer

// This file makes the Python environments of trainers.

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/intent"
)

// Environments makes the Python environments of trainers, each once, with uv from their lock files. All are in one
// folder, which may be shared by servers of one user, and removed while no training runs:
//
//	environments/LOCK-PYTHON-PLATFORM   an environment, named by its [delivery.Environment]
//	uv-VERSION                          uv, of the version and hashes in uv.txt
//	uv                                  uv's cache; environments share its files as hard links
//
// An environment appears complete or not at all, and works without a network then.
type Environments struct {
	Dir    string // absolute
	Python string // the interpreter that environments are made with
}

// Making is how far an environment is.
type Making struct {
	What  string // what is being done, if it is not known how far it is
	Done  int    // packages
	Total int
}

// A Made is an environment that is there.
type Made struct {
	Environment delivery.Environment `json:"environment"`
	Folder      string               `json:"folder"`
	Python      string               `json:"python"` // the path of its interpreter
	Packages    int                  `json:"packages"`
	Bytes       int64                `json:"bytes"`
}

// madeFile is the file of an environment's folder that describes it, a Made.
const madeFile = "environment.json"

//go:embed uv.txt
var uvLock []byte

// Identify returns the environment that a version of a trainer runs in on this machine. It is nil for a trainer that
// runs with the server's Python.
func (e Environments) Identify(ctx context.Context, t intent.Trainer) (*delivery.Environment, error) {
	if t.Environment == nil {
		return nil, nil
	}
	python, minor, platform, err := e.interpreter(ctx)
	if err != nil {
		return nil, err
	}
	if r := t.Environment.Python; minor < minorOf(r.Min) || minor > minorOf(r.Max) {
		return nil, delivery.Blockedf("install one of these, and name it under python: in the server's configuration",
			"%s is Python 3.%d, and trainer %s needs %s to %s", e.Python, minor, t.Name, r.Min, r.Max)
	}
	return &delivery.Environment{Lock: t.Lock, Python: python, Platform: platform}, nil
}

// Fill identifies the environments of all trainers. A trainer that this machine cannot run says why in Unusable.
func (e Environments) Fill(ctx context.Context, trainers intent.Trainers) {
	for with, t := range trainers {
		runs, err := e.Identify(ctx, t)
		t.Runs = runs
		if err != nil {
			t.Unusable = err.Error()
		}
		trainers[with] = t
	}
}

func minorOf(version string) int {
	n, _ := strconv.Atoi(strings.TrimPrefix(version, "3."))
	return n
}

const describePython = "import sys, sysconfig\n" +
	"print(sys.implementation.name, *sys.version_info[:2], sysconfig.get_platform())"

// interpreter describes the server's Python: as in cpython-3.11, 11, linux-x86_64. The third number of its version is
// left out, because packages are made for the first two, and a security update must not make trainings other trainings.
func (e Environments) interpreter(ctx context.Context) (name string, minor int, platform string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, e.Python, "-I", "-c", describePython).Output()
	f := strings.Fields(string(out))
	if err == nil && (len(f) != 4 || f[1] != "3") {
		err = fmt.Errorf("it is no Python 3")
	}
	if err == nil {
		minor, err = strconv.Atoi(f[2])
	}
	if err != nil {
		return "", 0, "", delivery.Blockedf("install Python 3 (apt-get install python3 python3-venv), or name another "+
			"one under python: in the server's configuration", "%s does not run: %v", e.Python, err)
	}
	return f[0] + "-3." + f[2], minor, f[3], nil
}

func (e Environments) folder(env delivery.Environment) string {
	return filepath.Join(e.Dir, "environments", env.Lock.Hex()+"-"+env.Python+"-"+env.Platform)
}

// Find returns an environment; ok is false if it must be made first.
func (e Environments) Find(env delivery.Environment) (m Made, ok bool) {
	folder := e.folder(env)
	if err := durable.ReadJSON(filepath.Join(folder, madeFile), &m); err != nil || m.Environment != env {
		return Made{}, false
	}
	m.Folder, m.Python = folder, filepath.Join(folder, "bin", "python") // the cache may have been moved
	_, err := os.Stat(m.Python)                                         // a link to the server's Python
	return m, err == nil
}

// Make returns an environment, and makes it if it is missing. lock is the path of the lock file that it is made from.
// Several processes may call it for the same environment: one makes it, and the others wait. Its errors are
// [delivery.Blocked] if another attempt would fail too.
func (e Environments) Make(ctx context.Context, with, lock string, env delivery.Environment, disk delivery.Bytes,
	progress func(Making)) (Made, error) {
	if m, ok := e.Find(env); ok {
		m.noteUse()
		return m, nil
	}
	m, err := e.make(ctx, with, lock, env, disk, progress)
	if _, blocked := errors.AsType[delivery.Blocked](err); err != nil && !blocked && ctx.Err() == nil {
		err = fmt.Errorf("the environment of trainer %s cannot be made: %w", with, err)
	}
	return m, err
}

func (e Environments) make(ctx context.Context, with, lock string, env delivery.Environment, disk delivery.Bytes,
	progress func(Making)) (m Made, err error) {
	python, _, platform, err := e.interpreter(ctx)
	if err != nil {
		return m, err
	}
	if python != env.Python || platform != env.Platform {
		return m, delivery.Blockedf("restart aob serve, so that it sees the new Python",
			"the environment of trainer %s is for %s on %s, and %s is %s on %s now", with, env.Python, env.Platform,
			e.Python, python, platform)
	}
	if err := checkLock(lock, env.Lock); err != nil {
		return m, err
	}
	folder := e.folder(env)
	if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
		return m, err
	}
	held, err := e.takeLock(ctx, with, progress)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, held.Unlock()) }()
	if m, ok := e.Find(env); ok {
		return m, nil // another process made it meanwhile
	}
	if err := e.removeRests(); err != nil {
		return m, err
	}
	pinned, err := os.ReadFile(lock)
	if err != nil {
		return m, err
	}
	disk = e.Needs(pinned, disk)
	free, err := durable.FreeSpace(e.Dir)
	if err == nil && free < int64(disk) {
		err = delivery.Blockedf("free some space there, then try again",
			"the environment of trainer %s needs %.1f GiB of disk, and %s has %.1f GiB free", with, gib(int64(disk)),
			e.Dir, gib(free))
	}
	if err != nil {
		return m, err
	}
	uv, err := e.UV(ctx, progress)
	if err != nil {
		return m, err
	}
	progress(Making{What: "making the environment"})
	partial := folder + partialSuffix
	if _, err := e.run(ctx, nil, uv, "venv", "--quiet", "--relocatable", "--no-project", "--python", e.Python,
		partial); err != nil {
		return m, err
	}
	m.Environment = env
	if m.Packages, err = e.sync(ctx, uv, partial, lock, progress); err != nil {
		return m, err
	}
	if m.Bytes, err = size(partial); err != nil {
		return m, err
	}
	if err := durable.WriteJSON(filepath.Join(partial, madeFile), m); err != nil {
		return m, err
	}
	if err := syncDisk(partial); err != nil {
		return m, err
	}
	if err := durable.Rename(partial, folder); err != nil {
		return m, err
	}
	m, ok := e.Find(env)
	if !ok {
		return m, fmt.Errorf("%s is not complete", folder)
	}
	return m, nil
}

// partialSuffix is the end of the name of a folder that is being made.
const partialSuffix = ".partial"

// takeLock takes the lock of all environments. The programs that make one inherit it, so that it is held until they
// have ended, also if this process is killed.
func (e Environments) takeLock(ctx context.Context, with string, progress func(Making)) (*durable.Lock, error) {
	path := filepath.Join(e.Dir, "environments", "making.lock")
	lock, err := durable.TryLock(path)
	if errors.Is(err, durable.ErrLocked) {
		progress(Making{What: "waiting for another process that makes an environment"})
		lock, err = durable.WaitLock(ctx, path)
	}
	if err != nil {
		return nil, err
	}
	if err := lock.Inherit(); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return lock, nil
}

// removeRests removes what processes that were killed have left. The lock is held.
func (e Environments) removeRests() error {
	rests, err := filepath.Glob(filepath.Join(e.Dir, "environments", "*"+partialSuffix))
	for _, rest := range rests {
		err = errors.Join(err, os.RemoveAll(rest))
	}
	return err
}

// checkLock checks that the lock file is the one that the environment is named by.
func checkLock(path string, want delivery.Digest) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return delivery.Blockedf("push again, so that the server's current trainer is used",
			"the lock file of the trainer's packages is not on this server")
	}
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != want.Hex() {
		return delivery.Blockedf("remove the folder trainers in the server's state and restart aob serve, which "+
			"installs it again", "the lock file %s was changed after it was installed", path)
	}
	return nil
}

// UV returns the path of uv, and installs it if it is missing.
func (e Environments) UV(ctx context.Context, progress func(Making)) (string, error) {
	version, _, _ := strings.Cut(strings.TrimPrefix(string(uvLock), "uv=="), " ")
	folder := filepath.Join(e.Dir, "uv-"+version)
	uv := filepath.Join(folder, "bin", "uv")
	if _, err := os.Stat(uv); err == nil {
		return uv, nil
	}
	progress(Making{What: "installing uv"})
	return uv, durable.WriteFolder(folder, func(partial string) error {
		if _, err := e.run(ctx, nil, e.Python, "-m", "venv", partial); err != nil {
			if strings.Contains(err.Error(), "ensurepip") {
				err = delivery.Blockedf("install it: apt-get install python3-venv",
					"%s has no module venv, which makes environments", e.Python)
			}
			return err
		}
		lock := filepath.Join(partial, "uv.txt")
		if err := os.WriteFile(lock, uvLock, 0o600); err != nil {
			return err
		}
		_, err := e.run(ctx, nil, filepath.Join(partial, "bin", "python"), "-m", "pip", "--quiet",
			"--disable-pip-version-check", "install", "--no-deps", "--only-binary", ":all:", "--require-hashes",
			"--requirement", lock)
		return err
	})
}

var resolved = regexp.MustCompile(`^Resolved ([0-9]+) packages? in `)

// sync installs the packages of a lock file, and returns their number. Nothing is built here: a build would fetch what
// no hash pins, and run it.
func (e Environments) sync(ctx context.Context, uv, folder, lock string, progress func(Making)) (int, error) {
	now := Making{What: "reading the package index"}
	progress(now)
	before := e.unpacked()
	lines := make(chan string)
	ended := make(chan error, 1)
	go func() {
		_, err := e.run(ctx, lines, uv, "pip", "sync", "--python", filepath.Join(folder, "bin", "python"),
			"--no-build", "--require-hashes", "--compile-bytecode", lock)
		ended <- err
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case line := <-lines:
			if m := resolved.FindStringSubmatch(line); m != nil {
				now.What = ""
				now.Total, _ = strconv.Atoi(m[1])
				progress(now)
			}
		case <-tick.C:
			if now.Total > 0 {
				now.Done = min(max(0, e.unpacked()-before), now.Total)
				progress(now)
			}
		case err := <-ended:
			if err == nil {
				now.Done = now.Total
				progress(now)
			}
			return now.Total, err
		}
	}
}

// unpacked counts the packages in uv's cache. uv's version is pinned, so the layout of its cache is known; another one
// would cost the progress alone.
func (e Environments) unpacked() int {
	entries, _ := os.ReadDir(filepath.Join(e.cache(), "archive-v0"))
	return len(entries)
}

func (e Environments) cache() string { return filepath.Join(e.Dir, "uv") }

// InstallVariables lists the environment variables that make an environment: where the package index is, how it is
// reached, and which certificates count. Their values may be secrets.
func InstallVariables() []string {
	return []string{"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS",
		"UV_HTTP_TIMEOUT", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_OFFLINE", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL",
		"PIP_CERT", "PIP_DEFAULT_TIMEOUT", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY",
		"HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"}
}

// environ returns the environment of the programs that make an environment.
func (e Environments) environ() []string {
	env := []string{"UV_CACHE_DIR=" + e.cache(), "UV_PYTHON_DOWNLOADS=never", "UV_NO_PROGRESS=1", "LANG=C.UTF-8"}
	for _, name := range append(InstallVariables(), "PATH", "HOME", "TMPDIR") {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	// uv does not read what is configured for pip.
	for from, to := range map[string]string{"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_CERT": "SSL_CERT_FILE"} {
		if v := os.Getenv(from); v != "" && os.Getenv(to) == "" {
			env = append(env, to+"="+v)
		}
	}
	return env
}

func (e Environments) run(ctx context.Context, lines chan<- string, name string, args ...string) (string, error) {
	return run(ctx, e.Dir, e.environ(), lines, name, args...)
}

// run runs a program, and sends the lines of its standard error. It returns the standard output. Its error says what
// the program complained about.
func run(ctx context.Context, dir string, env []string, lines chan<- string, name string, args ...string) (string,
	error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, env
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out, text bytes.Buffer
	cmd.Stdout = &out
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	scan := bufio.NewScanner(pipe)
	scan.Buffer(nil, maxComplaint)
	for scan.Scan() {
		if text.Len() < maxComplaint {
			text.WriteString(scan.Text() + "\n")
		}
		if lines != nil {
			lines <- scan.Text()
		}
	}
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", complaint(filepath.Base(name), text.String()+out.String(), err)
	}
	return out.String(), nil
}

// maxComplaint bounds how much of a program's output is kept for an error, in bytes.
const maxComplaint = 256 << 10

var (
	credentials = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@]*@`)
	query       = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://[^\s?#]*)[?#][^\s)]*`)
)

// complaint returns the error of a program that failed: what it says, without lists of hashes, and without what may be
// secret in addresses.
func complaint(name, text string, err error) error {
	text = query.ReplaceAllString(credentials.ReplaceAllString(text, "$1"), "$1")
	var said []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		for _, prefix := range []string{"error:", "ERROR:", "cause:", "Error:"} {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				said = append(said, strings.TrimSpace(rest))
			}
		}
	}
	if len(said) == 0 {
		if said = strings.Split(strings.TrimSpace(text), "\n"); len(said) > 3 {
			said = said[len(said)-3:]
		}
	}
	what := delivery.PlainText(strings.Join(slices.DeleteFunc(said, func(s string) bool { return s == "" }), ": "), 600)
	what = cmp.Or(what, err.Error())
	switch {
	case strings.Contains(text, "No space left on device"):
		return delivery.Blockedf("free some, then try again", "the disk is full: %s", what)
	case strings.Contains(text, "Hash mismatch") || strings.Contains(text, "DO NOT MATCH THE HASHES"):
		return delivery.Blockedf("do not use that package index; UV_DEFAULT_INDEX in the environment of aob serve "+
			"names another", "the package index has another file than the lock file names: %s", what)
	case strings.Contains(text, "No solution found"):
		return delivery.Blockedf("make the lock file again (uv pip compile --universal --generate-hashes), or name an "+
			"index that has all packages in UV_DEFAULT_INDEX", "the packages of the lock file cannot be installed: %s",
			what)
	}
	return fmt.Errorf("%s: %s", name, what)
}

// syncDisk makes all files of a folder's disk durable. An environment has tens of thousands.
func syncDisk(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// size returns the size of all files below a folder, in bytes.
func size(folder string) (total int64, err error) {
	return total, filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
}

func gib(bytes int64) float64 { return float64(bytes) / (1 << 30) }
