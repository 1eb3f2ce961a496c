package trainer

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/intent"
)

const python = "/usr/bin/python3"

// TestMain makes an environment in a process of its own, for tests that kill it.
func TestMain(m *testing.M) {
	if dir := os.Getenv("AOB_TEST_MAKE"); dir != "" {
		e := Environments{Dir: dir, Python: python}
		env, lock, err := e.ofLock(filepath.Join(dir, "lock.txt"))
		if err == nil {
			_, err = e.Make(context.Background(), "x@1", lock, env, 1, func(m Making) {
				if m.Total > 0 {
					fmt.Println("installing")
					select {}
				}
			})
		}
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func (e Environments) ofLock(path string) (delivery.Environment, string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return delivery.Environment{}, "", err
	}
	lock, complaints := intent.ParseLock(path, data)
	if len(complaints) > 0 {
		return delivery.Environment{}, "", delivery.Complaints(complaints)
	}
	name, _, platform, err := e.interpreter(context.Background())
	return delivery.Environment{Lock: lock, Python: name, Platform: platform}, path, err
}

// newEnvironments returns an empty folder of environments, with the user's uv, and a lock file of two packages that are
// in a folder: nothing of a network is needed.
func newEnvironments(t *testing.T) (e Environments, env delivery.Environment, lock string) {
	t.Helper()
	if testing.Short() {
		t.Skip("makes Python environments")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	uv, err := Environments{Dir: filepath.Join(cache, "aob"), Python: python}.UV(t.Context(), func(Making) {})
	if err != nil {
		t.Skipf("uv cannot be installed here: %v", err)
	}
	e = Environments{Dir: t.TempDir(), Python: python}
	folder := filepath.Dir(filepath.Dir(uv))
	wheels := t.TempDir()
	t.Setenv("UV_OFFLINE", "1")
	t.Setenv("UV_FIND_LINKS", wheels)
	lock = filepath.Join(e.Dir, "lock.txt")
	text := wheel(t, wheels, "alpha") + wheel(t, wheels, "beta")
	if err := errors.Join(os.Symlink(folder, filepath.Join(e.Dir, filepath.Base(folder))),
		os.WriteFile(lock, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	if env, lock, err = e.ofLock(lock); err != nil {
		t.Fatal(err)
	}
	return e, env, lock
}

// wheel writes a package of one module, and returns its line in a lock file.
func wheel(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name+"-1.0-py3-none-any.whl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	info := name + "-1.0.dist-info/"
	for _, file := range [][2]string{
		{name + ".py", "version = 1\n"},
		{info + "METADATA", "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{info + "RECORD", name + ".py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n"},
	} {
		w, err := z.Create(file[0])
		if err == nil {
			_, err = w.Write([]byte(file[1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s==1.0 \\\n    --hash=sha256:%x\n", name, sha256.Sum256(data))
}

func imports(t *testing.T, m Made, modules string) error {
	t.Helper()
	out, err := exec.Command(m.Python, "-I", "-c", "import "+modules).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// However many ask for an environment at once, it is made once, and then nothing is needed to use it.
func TestMakeOnce(t *testing.T) {
	e, env, lock := newEnvironments(t)
	if m, ok := e.Find(env); ok {
		t.Fatalf("found before it was made: %+v", m)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var made []Made
	syncs := 0
	for range 4 {
		wg.Go(func() {
			m, err := e.Make(t.Context(), "x@1", lock, env, 1<<20, func(m Making) {
				if m.What == "making the environment" {
					mu.Lock()
					syncs++
					mu.Unlock()
				}
			})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			made = append(made, m)
			mu.Unlock()
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if syncs != 1 || len(slices.Compact(made)) != 1 || made[0].Packages != 2 || made[0].Bytes == 0 {
		t.Errorf("made %d times: %+v", syncs, made)
	}
	if err := imports(t, made[0], "alpha, beta"); err != nil {
		t.Error(err)
	}
	if err := imports(t, made[0], "yaml"); err == nil {
		t.Error("the environment has the packages of the server's Python")
	}
	t.Setenv("UV_FIND_LINKS", "/nowhere")
	if m, err := e.Make(t.Context(), "x@1", lock, env, 1<<60, nil); err != nil || m != made[0] {
		t.Errorf("an environment that is there: %+v, %v", m, err)
	}
	// A moved cache still works, and no other environment is taken for this one.
	moved := Environments{Dir: filepath.Join(t.TempDir(), "moved"), Python: python}
	if err := os.Rename(e.Dir, moved.Dir); err != nil {
		t.Fatal(err)
	}
	if m, ok := moved.Find(env); !ok || imports(t, m, "alpha") != nil {
		t.Errorf("after a move: %+v, %t", m, ok)
	}
	env.Python = "cpython-3.99"
	if m, ok := moved.Find(env); ok {
		t.Errorf("another Python has %+v", m)
	}
}

// A process that is killed while it makes an environment leaves nothing that counts, and the next one makes it.
func TestMakeAfterKill(t *testing.T) {
	e, env, lock := newEnvironments(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "AOB_TEST_MAKE="+e.Dir)
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 100)
	n, _ := out.Read(said)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if string(said[:n]) != "installing\n" {
		t.Fatalf("the child said %q", said[:n])
	}
	if m, ok := e.Find(env); ok {
		t.Fatalf("found half made: %+v", m)
	}
	m, err := e.Make(t.Context(), "x@1", lock, env, 1, func(Making) {})
	if err != nil || imports(t, m, "alpha, beta") != nil {
		t.Errorf("made %+v, %v", m, err)
	}
	if rests, _ := filepath.Glob(filepath.Join(e.Dir, "environments", "*"+partialSuffix)); len(rests) > 0 {
		t.Errorf("left %q", rests)
	}
}

// What cannot be made says why, and what to do, in plain words and without secrets.
func TestMakeRefuses(t *testing.T) {
	e, env, lock := newEnvironments(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "hunter2", http.StatusUnauthorized)
	}))
	defer server.Close()
	wheels := os.Getenv("UV_FIND_LINKS")
	for name, c := range map[string]struct {
		change  func(t *testing.T, env *delivery.Environment, disk *delivery.Bytes)
		want    string
		blocked bool
	}{
		"a full disk": {func(_ *testing.T, _ *delivery.Environment, disk *delivery.Bytes) { *disk = 1 << 52 },
			"the environment of trainer x@1 needs 4194304.0 GiB of disk, and " + e.Dir + " has ", true},
		"another Python": {func(_ *testing.T, env *delivery.Environment, _ *delivery.Bytes) {
			env.Python = "cpython-3.9"
		}, "is for cpython-3.9 on " + env.Platform, true},
		"a changed lock file": {func(_ *testing.T, env *delivery.Environment, _ *delivery.Bytes) {
			env.Lock = delivery.Digest("sha256:" + strings.Repeat("0", 64))
		}, "was changed after it was installed", true},
		"a package that is missing": {func(t *testing.T, _ *delivery.Environment, _ *delivery.Bytes) {
			t.Setenv("UV_FIND_LINKS", t.TempDir())
		}, "the packages of the lock file cannot be installed: ", true},
		"another file": {func(t *testing.T, _ *delivery.Environment, _ *delivery.Bytes) {
			dir := t.TempDir()
			wheel(t, dir, "beta")
			if err := os.Rename(filepath.Join(dir, "beta-1.0-py3-none-any.whl"),
				filepath.Join(dir, "alpha-1.0-py3-none-any.whl")); err != nil {
				t.Fatal(err)
			}
			wheel(t, dir, "beta")
			t.Setenv("UV_FIND_LINKS", dir)
		}, "has another file than the lock file names", true},
		"an index that wants a password": {func(t *testing.T, _ *delivery.Environment, _ *delivery.Bytes) {
			t.Setenv("UV_OFFLINE", "0")
			t.Setenv("UV_FIND_LINKS", t.TempDir())
			t.Setenv("UV_DEFAULT_INDEX", strings.Replace(server.URL, "//", "//me:hunter2@", 1)+"/simple")
		}, "cannot be", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("UV_FIND_LINKS", wheels)
			env, disk := env, delivery.Bytes(1)
			c.change(t, &env, &disk)
			_, err := e.Make(t.Context(), "x@1", lock, env, disk, func(Making) {})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("got %v, want %s", err, c.want)
			}
			if _, blocked := errors.AsType[delivery.Blocked](err); c.blocked && !blocked {
				t.Errorf("another attempt would fail too: %v", err)
			}
			t.Log(err)
			if m, ok := e.Find(env); ok {
				t.Errorf("left %+v", m)
			}
		})
	}
}

// Somebody waits for an environment that another process makes, and may give up.
func TestMakeWaits(t *testing.T) {
	e, env, lock := newEnvironments(t)
	if err := os.MkdirAll(filepath.Join(e.Dir, "environments"), 0o700); err != nil {
		t.Fatal(err)
	}
	other, err := durable.TryLock(filepath.Join(e.Dir, "environments", "making.lock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = e.Make(ctx, "x@1", lock, env, 1, func(m Making) {
		if strings.Contains(m.What, "waiting") {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := other.Unlock(); err != nil {
		t.Fatal(err)
	}
}

// A trainer that this machine cannot run says so before anything is trained.
func TestIdentify(t *testing.T) {
	e := Environments{Dir: t.TempDir(), Python: python}
	of := func(low, high string) intent.Trainer {
		return intent.Trainer{Trainer: delivery.Trainer{Name: "x", Lock: "sha256:1", Environment: &delivery.
			TrainerEnvironment{Python: delivery.TrainerPython{Min: low, Max: high}}}}
	}
	trainers := intent.Trainers{"x@1": of("3.0", "3.99"), "x@2": of("3.98", "3.99"), "plain@1": {}}
	e.Fill(t.Context(), trainers)
	if one := trainers["x@1"]; one.Runs == nil || one.Runs.Lock != "sha256:1" || one.Unusable != "" ||
		!strings.HasPrefix(one.Runs.Python, "cpython-3.") {
		t.Errorf("x@1: %+v, %s", one.Runs, one.Unusable)
	}
	if two := trainers["x@2"]; two.Runs != nil || !strings.Contains(two.Unusable, "needs 3.98 to 3.99") {
		t.Errorf("x@2: %+v, %s", two.Runs, two.Unusable)
	}
	if plain := trainers["plain@1"]; plain.Runs != nil || plain.Unusable != "" {
		t.Errorf("plain@1: %+v, %s", plain.Runs, plain.Unusable)
	}
	e.Python = "/nowhere/python3"
	e.Fill(t.Context(), trainers)
	if one := trainers["x@1"]; one.Runs != nil || !strings.Contains(one.Unusable, "does not run") {
		t.Errorf("without Python: %+v, %s", one.Runs, one.Unusable)
	}
}
