package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/profile"
)

// A Builder builds engines for one profile on this machine.
type Builder struct {
	Cache   string // folder; it is made if it is missing
	Profile profile.Profile
	Machine Machine
	Trtexec string // path; if empty, on PATH or where NVIDIA's packages install it
	// Check refuses a model that TensorRT must not read, because it refers to other files for example.
	Check func(model []byte) error
	// Shape returns the sizes of a model's input, -1 for an open one.
	Shape func(model []byte, input string) ([]int64, error)
	// Verify loads a new engine, and compares its answers with those of the CPU. It returns what was measured.
	Verify func(ctx context.Context, e Entry) (json.RawMessage, error)
	// Progress is told what happens, at least every few seconds during a build.
	Progress func(profile.Progress)
}

// bundleFiles are the files of a bundle that an engine depends on.
var bundleFiles = []string{delivery.ModelFile, delivery.SignatureFile, delivery.GoldenFile}

// Ensure returns the engine of the bundle in a folder. If the cache does not have it, it is built, which takes minutes.
func (b Builder) Ensure(ctx context.Context, bundle string) (Entry, error) {
	files, digests := map[string][]byte{}, map[string]delivery.Digest{}
	for _, name := range bundleFiles {
		data, err := durable.ReadFile(filepath.Join(bundle, name), MaxPlan)
		if err != nil {
			return Entry{}, fmt.Errorf("bundle %s: %w", bundle, err)
		}
		files[name], digests[name] = data, delivery.Sum(data)
	}
	model := files[delivery.ModelFile]
	var sig delivery.Signature
	if err := delivery.ParseJSON(files[delivery.SignatureFile], &sig); err != nil {
		return Entry{}, fmt.Errorf("bundle %s: %s: %w", bundle, delivery.SignatureFile, err)
	}
	if err := b.Check(model); err != nil {
		return Entry{}, fmt.Errorf("model %s: %w", filepath.Join(bundle, delivery.ModelFile), err)
	}
	if err := durable.PrivateFolder(b.Cache); err != nil {
		return Entry{}, fmt.Errorf("cache of engines: %w", err)
	}
	trtexec, err := b.trtexec()
	if err != nil {
		return Entry{}, err
	}
	engine, note, err := b.engine(ctx, trtexec)
	if err != nil {
		return Entry{}, err
	}
	engine.Release, engine.Model = profile.ReleaseOf(digests), digests[delivery.ModelFile]
	folder := filepath.Join(b.Cache, engine.Folder())
	told := profile.Progress{Profile: b.Profile.Name, Key: engine.Key().Short()}
	tell := func(stage string, change func(*profile.Progress)) {
		p := told
		p.Stage = stage
		change(&p)
		b.Progress(p)
	}

	lock, err := durable.WaitLock(ctx, filepath.Join(b.Cache, lockFile))
	if err != nil {
		return Entry{}, fmt.Errorf("wait for another build: %w", err)
	}
	defer lock.Unlock()
	removed, err := prune(b.Cache, engine)
	if err != nil {
		return Entry{}, fmt.Errorf("remove old engines: %w", err)
	}
	if removed > 0 {
		tell(profile.Removed, func(p *profile.Progress) {
			p.Text = fmt.Sprintf("%d engines of another GPU or other software; this is %s", removed,
				engine.Target.Software())
		})
	}
	if e, err := open(folder, engine); err == nil {
		used(folder)
		tell(profile.Cached, func(p *profile.Progress) { p.Size, p.Workspace = int64(len(e.Plan)), e.Workspace })
		return e, nil
	}
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(filepath.Dir(folder), 0o700)); err != nil {
		return Entry{}, err
	}
	shape, err := b.Shape(model, sig.Input)
	if err != nil {
		return Entry{}, fmt.Errorf("model %s: %w", filepath.Join(bundle, delivery.ModelFile), err)
	}
	e := Entry{Engine: engine, Profile: b.Profile.Name}
	err = durable.WriteFolder(folder, func(partial string) error {
		// What is built is what was digested, whatever happens to the bundle's folder meanwhile.
		onnx := filepath.Join(partial, delivery.ModelFile)
		if err := os.WriteFile(onnx, model, 0o600); err != nil {
			return err
		}
		began := time.Now()
		ask := profile.Build{Model: onnx, Engine: filepath.Join(partial, planFile),
			TimingCache: filepath.Join(partial, "timing.bin"), Input: sig.Input, Shape: shape, Options: engine.Options}
		if e.Workspace, err = b.ladder(ctx, trtexec, ask, engine, func(stage string, w delivery.Bytes, text string) {
			tell(stage, func(p *profile.Progress) {
				p.Workspace, p.Seconds, p.Text = w, time.Since(began).Seconds(), joinNotes(note, text)
			})
		}); err != nil {
			return err
		}
		e.Seconds = time.Since(began).Seconds()
		if e.Plan, err = durable.ReadFile(ask.Engine, MaxPlan); err != nil {
			return fmt.Errorf("trtexec has written no engine: %w", err)
		}
		e.Digest, e.Folder = delivery.Sum(e.Plan), partial
		tell(profile.Verifying, func(p *profile.Progress) {
			p.Size, p.Seconds = int64(len(e.Plan)), time.Since(began).Seconds()
		})
		if e.Parity, err = b.Verify(ctx, e); err != nil {
			return err
		}
		return errors.Join(os.Remove(onnx),
			keepTiming(ask.TimingCache, filepath.Join(b.Cache, engine.TimingCache())),
			durable.WriteFile(filepath.Join(partial, entryFile), delivery.Canonical(e), 0o600))
	})
	if err != nil {
		return Entry{}, errors.Join(err, removeEmpty(b.Cache))
	}
	e.Folder = folder
	tell(profile.Built, func(p *profile.Progress) {
		p.Size, p.Seconds, p.Workspace, p.Parity = int64(len(e.Plan)), e.Seconds, e.Workspace, e.Parity
	})
	return e, nil
}

func joinNotes(notes ...string) string {
	var list []string
	for _, n := range notes {
		if n != "" {
			list = append(list, n)
		}
	}
	return strings.Join(list, "; ")
}

// keepTiming moves the timing cache of a build to its place. There may be none.
func keepTiming(from, to string) error {
	if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (b Builder) trtexec() (string, error) {
	const hint = "install TensorRT with trtexec, name the program in AOB_TRTEXEC, or take a profile with provider cuda"
	if b.Trtexec != "" {
		path, err := exec.LookPath(b.Trtexec)
		if err != nil {
			return "", delivery.Blockedf(hint, "trtexec at %s cannot be run: %v", b.Trtexec, err)
		}
		return path, nil
	}
	path, err := find("trtexec", "/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec")
	if err != nil {
		return "", delivery.Blockedf(hint, "there is no trtexec, which builds the engines of profile %s",
			b.Profile.Name)
	}
	return path, nil
}

// Target returns the machine and its software, as what a profile with a GPU computes depends on them.
func (b Builder) Target(ctx context.Context) (profile.Target, error) {
	if b.Profile.Engine != nil {
		trtexec, err := b.trtexec()
		if err != nil {
			return profile.Target{}, err
		}
		e, _, err := b.engine(ctx, trtexec)
		return e.Target, err
	}
	target := b.Machine.Target(ctx, b.Profile.Device)
	if target.Compute == "" {
		return profile.Target{}, delivery.Blockedf("install NVIDIA's driver with nvidia-smi, or take a profile with "+
			"provider cpu", "profile %s needs a GPU, and this machine does not tell which one it has", b.Profile.Name)
	}
	return target, nil
}

// engine returns all of an engine but its bundle.
func (b Builder) engine(ctx context.Context, trtexec string) (profile.Engine, string, error) {
	fail := func(err error) (profile.Engine, string, error) { return profile.Engine{}, "", err }
	// The first line of its output has the version.
	help, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := run(help, trtexec, []string{"--help"})
	version := profile.ParseLog(out).Version
	if version == "" {
		return fail(delivery.Blockedf("check that it is NVIDIA's trtexec, and that it starts: "+trtexec+" --help",
			"%s does not tell its version: %v: %s", trtexec, err, delivery.PlainText(string(out), 300)))
	}
	target := b.Machine.Target(ctx, b.Profile.Device)
	target.TensorRT = version
	switch want := b.Profile.Compute; {
	case target.Compute == "" && want == "":
		return fail(delivery.Blockedf("install nvidia-smi, or set compute: in a profile of your own",
			"this machine does not tell the compute capability of its GPU, which engines are bound to"))
	case target.Compute == "":
		target.Compute = want
	case want != "" && target.Compute != want:
		return fail(delivery.Blockedf("take the profile of this GPU",
			"profile %s is for GPUs of compute capability %s, and this one (%s) has %s", b.Profile.Name, want,
			strings.TrimSpace(target.Module+" "+target.GPU), target.Compute))
	}
	options, note, err := b.Profile.Options(version)
	if err != nil {
		return fail(err)
	}
	return profile.Engine{Target: target, Device: b.Profile.Device, Options: options}, note, nil
}

// every is how often the progress of a build is told.
const every = 5 * time.Second

// ladder builds with one workspace after the other until memory suffices.
func (b Builder) ladder(ctx context.Context, trtexec string, ask profile.Build, engine profile.Engine,
	tell func(stage string, workspace delivery.Bytes, text string)) (delivery.Bytes, error) {
	builder := b.Profile.Engine
	if free, ok := b.Machine.available(); ok && free < int64(builder.Memory) {
		return 0, delivery.Blockedf("stop other programs, or lower tensorrt.memory in a profile of your own",
			"a build needs %s of memory, and %s are available", builder.Memory, delivery.Bytes(free>>20<<20))
	}
	var last error
	for i, workspace := range builder.Workspace {
		if i > 0 {
			tell(profile.Retry, workspace, last.Error())
		}
		ask.Workspace = workspace
		args, err := ask.Args(b.Profile.Device, builder.Batch)
		if err != nil {
			return 0, err
		}
		// A build that was killed may have left half a file.
		err = errors.Join(os.RemoveAll(ask.Engine), os.RemoveAll(ask.TimingCache))
		if kept := filepath.Join(b.Cache, engine.TimingCache()); err == nil {
			if err = copyFile(kept, ask.TimingCache); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		if err != nil {
			return 0, err
		}
		tell(profile.Building, workspace, "")
		stop := repeat(every, func() { tell(profile.Building, workspace, "") })
		limited, cancel := context.WithTimeoutCause(ctx, time.Duration(builder.Timeout),
			fmt.Errorf("trtexec had no engine after %s; raise tensorrt.timeout in a profile of your own, or lower "+
				"tensorrt.level", builder.Timeout))
		out, err := run(limited, trtexec, args)
		ended := context.Cause(limited)
		cancel()
		stop()
		log := profile.ParseLog(out)
		switch {
		case ended != nil:
			return 0, ended
		case err == nil && log.Passed:
			return workspace, nil
		case log.Memory || killed(err):
			last = fmt.Errorf("memory is too small for a workspace of %s: %s", workspace, why(log, err))
		default:
			return 0, fmt.Errorf("trtexec: %s; to see all of its output, run: %s", why(log, err),
				delivery.PlainText(strings.Join(append([]string{trtexec}, args...), " "), 2000))
		}
	}
	return 0, fmt.Errorf("%w; that was the smallest workspace of profile %s: stop other programs, or take a smaller "+
		"model", last, b.Profile.Name)
}

// why says in one line how trtexec has failed.
func why(log profile.Log, err error) string {
	switch {
	case len(log.Errors) > 0:
		return log.Errors[0]
	case err != nil:
		return err.Error()
	}
	return "it does not say that it has passed"
}

// killed reports whether the kernel has killed a program, as it does where memory is too small.
func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// repeat calls do again and again until stop is called, which waits for the last call.
func repeat(every time.Duration, do func()) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				do()
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
	}
}

func copyFile(from, to string) error {
	data, err := durable.ReadFile(from, MaxPlan)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}
