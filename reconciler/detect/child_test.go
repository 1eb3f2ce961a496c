package detect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// script is a Detector whose aob-detect is a shell script.
func script(t *testing.T, body string) Detector {
	path := filepath.Join(t.TempDir(), "aob-detect")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return Detector{Binary: path, Library: "/lib.so", Timeout: time.Minute}
}

const sayHello = `printf '{"hello":{"protocol":4,"numerics":"` + Numerics + `"}}\n'` + "\n"

func TestCommand(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
	t.Setenv("LD_LIBRARY_PATH", "/opt/cuda")
	cmd := Detector{Binary: "/bin/aob-detect", Library: "/lib.so", Threads: 3, MemoryLimit: 64e6}.command("inspect",
		"--", "/m.onnx")
	if want := []string{"/bin/aob-detect", "inspect", "--library", "/lib.so", "--threads", "3", "--memory", "64MB",
		"--", "/m.onnx"}; !slices.Equal(cmd.Args, want) {
		t.Errorf("arguments %q, want %q", cmd.Args, want)
	}
	if want := []string{"LD_LIBRARY_PATH=/opt/cuda"}; !slices.Equal(cmd.Env, want) {
		t.Errorf("environment %q, want %q", cmd.Env, want)
	}
	var limit delivery.Bytes
	if err := limit.UnmarshalText([]byte(defaultMemory.String())); err != nil || limit != 4<<30 {
		t.Errorf("default memory reads as %v, %v", limit, err)
	}
}

// Whatever a failing child does, the caller gets an error that describes it.
func TestBadChildren(t *testing.T) {
	request := Request{Model: "/m.onnx", Signature: testSignature(), Images: []ImageFile{{1, "/1.jpg"}, {2, "/2.jpg"}}}
	for _, c := range []struct {
		name, script string
		want         []string // in the error of evaluate
		crash        bool
	}{
		{"writes nothing", ``, []string{"aob-detect evaluate: it ended without a result (exit status 0)"}, true},
		{"fails with a message", "echo one >&2\necho the reason >&2\nexit 3", []string{"exit status 3", "the reason"},
			true},
		{"crashes", sayHello + "kill -SEGV $$", []string{"it crashed (segmentation fault)"}, true},
		{"aborts with a message", sayHello + "echo 'terminate called after throwing std::bad_alloc' >&2\nkill -ABRT $$",
			[]string{"crashed (aborted)", "bad_alloc"}, true},
		{"is killed", sayHello + "kill -KILL $$", []string{"it was killed", "ran out of memory"}, true},
		{"Go runs out of memory", sayHello + "echo 'fatal error: runtime: out of memory' >&2\nexit 2",
			[]string{"it exceeded its memory limit"}, true},
		{"garbage instead of a hello", "echo Hello", []string{"its output is invalid: invalid character"}, true},
		{"another version", `echo '{"hello":{"protocol":1,"numerics":"aob-detect/0"}}'`, []string{"aob-detect/0",
			"different versions"}, false},
		{"no hello", `echo '{"done":2}'`, []string{"its output is invalid: the first message is not a hello"}, true},
		{"garbage after it", sayHello + "printf '\\0\\0\\n'", []string{"its output is invalid"}, true},
		{"a line without end", sayHello + "exec /usr/bin/tr '\\0' x </dev/zero",
			[]string{"its output is invalid: bufio.Scanner: token too long"}, true},
		{"done too early", sayHello + `echo '{"done":2}'`, []string{"unexpected message"}, true},
		{"done with another number", sayHello + `echo '{"image":{"id":1,"width":1,"height":1,"boxes":[]}}
			{"image":{"id":2,"width":1,"height":1,"boxes":[]}}
			{"done":3}'`, []string{"unexpected message"}, true},
		{"another image", sayHello + `echo '{"image":{"id":2,"width":1,"height":1,"boxes":[]}}'`,
			[]string{"got image 2, want image 1"}, true},
		{"one image too many", sayHello + `echo '{"image":{"id":1,"width":1,"height":1,"boxes":[]}}
			{"image":{"id":2,"width":1,"height":1,"boxes":[]}}
			{"image":{"id":3,"width":1,"height":1,"boxes":[]}}'`, []string{"unexpected message"}, true},
		{"ready", sayHello + `echo '{"ready":true}'`, []string{"unexpected message"}, true},
		{"a failure", sayHello + `echo '{"failure":{"about":"image","path":"/2.jpg","why":"truncated"}}'; exit 1`,
			[]string{"image /2.jpg: truncated"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := script(t, c.script)
			_, err := d.Evaluate(t.Context(), request, nil)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
			if _, ok := errors.AsType[*CrashError](err); ok != c.crash {
				t.Errorf("%T, want a crash: %v", err, c.crash)
			}
			// Inspect and Serve return an error too.
			if _, _, err := d.Inspect(t.Context(), "/m.onnx"); err == nil {
				t.Error("inspect: no error")
			}
			if strings.Contains(c.script, "ready") {
				return
			}
			if _, err := d.Serve(t.Context(), "/bundle", filepath.Join(t.TempDir(), "s")); err == nil {
				t.Error("serve: no error")
			}
		})
	}
}

func TestNoChild(t *testing.T) {
	d := Detector{Binary: filepath.Join(t.TempDir(), "none"), Library: "/lib.so"}
	if _, _, err := d.Inspect(t.Context(), "m"); err == nil || !strings.Contains(err.Error(), "start aob-detect") {
		t.Errorf("got %v", err)
	}
}

// A stopped child does not react to SIGTERM; it must be killed when its context is done.
func TestHangingChildren(t *testing.T) {
	request := Request{Model: "/m.onnx", Signature: testSignature(), Images: []ImageFile{{1, "/1.jpg"}}}
	for name, body := range map[string]string{
		"stopped":         sayHello + "kill -STOP $$",
		"stopped at once": "kill -STOP $$",
		"busy":            sayHello + "while :; do :; done",
		"with a child":    sayHello + "(trap '' TERM; while :; do :; done) & wait",
	} {
		t.Run(name, func(t *testing.T) {
			d := script(t, body)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := d.Evaluate(ctx, request, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("evaluate: %v", err)
			}
			if _, _, err := d.Inspect(ctx, "/m.onnx"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("inspect: %v", err)
			}
			if _, err := d.Serve(ctx, "/bundle", "/s"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("serve: %v", err)
			}
			d.Timeout = 100 * time.Millisecond
			_, err := d.Evaluate(t.Context(), request, nil)
			if crash, ok := errors.AsType[*CrashError](err); !ok ||
				!strings.Contains(crash.Why, "gave no result for 100ms") {
				t.Errorf("after the timeout: %v", err)
			}
		})
	}
}

// The timeout is for each image, not for all of them.
func TestTimeoutIsPerImage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	d := script(t, sayHello+`
		i=0
		while [ $i -lt 40 ]; do
			/bin/sleep 0.05
			i=$((i+1))
			printf '{"image":{"id":%d,"width":1,"height":1,"boxes":[]}}\n' $i
		done
		echo '{"done":40}'`)
	d.Timeout = 1500 * time.Millisecond
	request := Request{Model: "/m.onnx", Signature: testSignature()}
	for i := range 40 {
		request.Images = append(request.Images, ImageFile{int64(i + 1), "/x"})
	}
	reported := 0
	found, err := d.Evaluate(t.Context(), request, func(done, total int) {
		if reported++; done != reported || total != 40 {
			t.Errorf("%d of %d, want %d of 40", done, total, reported)
		}
	})
	if err != nil || len(found) != 40 || reported != 40 {
		t.Errorf("%d images, progress %d, %v", len(found), reported, err)
	}
}

func TestFindLibrary(t *testing.T) {
	dir := t.TempDir()
	lib := filepath.Join(dir, "lib.so")
	t.Setenv("AOB_ONNXRUNTIME", lib)
	blocked := func() string {
		_, err := FindLibrary()
		b, ok := errors.AsType[delivery.Blocked](err)
		if !ok || !strings.Contains(b.Do, "install.sh") {
			t.Errorf("got %v, want what to do", err)
		}
		return b.What
	}
	if what := blocked(); !strings.Contains(what, "from AOB_ONNXRUNTIME") {
		t.Error(what)
	}
	if err := os.WriteFile(lib, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := FindLibrary(); got != lib || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
	t.Setenv("AOB_ONNXRUNTIME", dir)
	blocked()
	t.Setenv("AOB_ONNXRUNTIME", "")
	t.Setenv("XDG_CACHE_HOME", dir)
	if what := blocked(); !strings.Contains(what, filepath.Join(dir, "aob")) {
		t.Error(what)
	}
}

// An aob-detect of another version gives a VersionError, even if its hello has more fields.
func TestVersionError(t *testing.T) {
	for name, c := range map[string]struct {
		hello string
		mixed bool
	}{
		"other numerics":         {`{"protocol":4,"numerics":"aob-detect/0"}`, true},
		"an older protocol":      {`{"protocol":1,"numerics":"` + Numerics + `"}`, true},
		"a later protocol":       {`{"protocol":9,"numerics":"` + Numerics + `"}`, true},
		"a later one, with more": {`{"protocol":9,"numerics":"` + Numerics + `","bundles":{"most":3}}`, true},
		"the same, with more":    {`{"protocol":4,"numerics":"` + Numerics + `","more":true}`, false},
	} {
		d := script(t, `echo '{"hello":`+c.hello+`}'`+"\n"+`echo '{"failure":{"about":"model","why":"bad"}}'`+"\n")
		_, err := d.Serve(t.Context(), "/bundle", filepath.Join(t.TempDir(), "s"))
		if _, mixed := errors.AsType[*VersionError](err); err == nil || mixed != c.mixed {
			t.Errorf("%s: of another version: %v, want %v: %v", name, mixed, c.mixed, err)
		}
	}
}
