package detect

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/profile"
)

// Numerics names how pixels become boxes: decoding, resizing, selection, and scaling without clipping.
// It is part of the key of every detection result.
const Numerics = "aob-detect/3"

// Provider is the ONNX Runtime execution provider. It is part of the key of every detection result.
const Provider = "cpu"

// Limits for untrusted input. Larger files are rejected without reading them.
const (
	MaxModelBytes = 2 << 30  // the limit of protobuf
	MaxImageBytes = 64 << 20 // of the file
	MaxPixels     = 64 << 20 // width times height of one image
)

// A Detector starts aob-detect. The zero value uses the paths that Find finds.
type Detector struct {
	Binary      string         // path of aob-detect; if empty, see Find
	Library     string         // path of ONNX Runtime's shared library; if empty, see FindLibrary
	Threads     int            // CPU cores to use; 0: all
	MemoryLimit delivery.Bytes // limit of the child's private memory; 0: 4GiB
	Timeout     time.Duration  // timeout of loading a model, and of one image; 0: 5m
	Background  bool           // servers have only the processor time that other processes leave
	Batch       int            // of servers: the largest number of images of a run, where the model takes batches
	BatchWait   time.Duration  // of servers: how long an image waits for others while the model runs

	// Profile is the name of a hardware profile, if not empty. Then Threads and MemoryLimit are the profile's where
	// they are 0.
	Profile  string
	Profiles string                 // path of a file with more profiles, if not empty
	Engines  string                 // folder of TensorRT engines; if empty, see EngineCache
	Progress func(profile.Progress) // is told by Serve what happens while an engine is built; may be nil
}

// Defaults of Detector.
const (
	defaultMemory  = delivery.Bytes(4 << 30)
	defaultTimeout = 5 * time.Minute
)

func (d Detector) timeout() time.Duration { return cmp.Or(d.Timeout, defaultTimeout) }

// cores returns the number of CPU cores for a setting whose 0 means all.
func cores(threads int) int { return cmp.Or(threads, runtime.NumCPU()) }

// Find fills in the paths that are not set: the aob-detect beside this program or on PATH, and the library that
// FindLibrary finds. The paths become absolute, because the child has another working directory.
func (d Detector) Find() (_ Detector, err error) {
	if d.Binary == "" {
		d.Binary, err = findBinary()
	} else {
		d.Binary, err = filepath.Abs(d.Binary)
	}
	if err != nil {
		return Detector{}, err
	}
	if d.Library == "" {
		d.Library, err = FindLibrary()
	} else {
		d.Library, err = filepath.Abs(d.Library)
	}
	if err == nil && d.Profiles != "" {
		d.Profiles, err = filepath.Abs(d.Profiles)
	}
	if err == nil && d.Profile != "" && d.Engines == "" {
		d.Engines, err = EngineCache()
	} else if err == nil && d.Engines != "" {
		d.Engines, err = filepath.Abs(d.Engines)
	}
	return d, err
}

func findBinary() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "aob-detect")
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	path, err := exec.LookPath("aob-detect")
	if err != nil {
		return "", delivery.Blockedf("build it with: go build ./cmd/aob-detect, and put it beside this program",
			"aob-detect is neither beside this program nor on PATH")
	}
	return filepath.Abs(path)
}

// libraryVersion is the version of ONNX Runtime that AOB is built for.
const libraryVersion = "1.24.3"

// FindLibrary returns the path of ONNX Runtime's library: AOB_ONNXRUNTIME if it is set, else the path
// where tools/onnxruntime/install.sh installs it.
func FindLibrary() (string, error) {
	const hint = "install it with tools/onnxruntime/install.sh, or name the file in AOB_ONNXRUNTIME"
	path, from := os.Getenv("AOB_ONNXRUNTIME"), "AOB_ONNXRUNTIME"
	if path == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", delivery.Blockedf(hint, "ONNX Runtime was not found: there is no cache folder: %v", err)
		}
		path, from = filepath.Join(cache, "aob", "onnxruntime-"+libraryVersion, "libonnxruntime.so.1"),
			"the cache folder"
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", delivery.Blockedf(hint, "ONNX Runtime was not found at %s (from %s)", path, from)
	case err != nil:
		return "", fmt.Errorf("ONNX Runtime's library: %w", err)
	case !info.Mode().IsRegular():
		return "", delivery.Blockedf(hint, "ONNX Runtime: %s (from %s) is not a file", path, from)
	}
	return filepath.Abs(path)
}

// EngineCache returns the folder where TensorRT engines are kept: AOB_ENGINES if it is set, else one in the user's
// cache folder.
func EngineCache() (string, error) {
	if dir := os.Getenv("AOB_ENGINES"); dir != "" {
		return filepath.Abs(dir)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", delivery.Blockedf("name a folder in AOB_ENGINES", "there is no folder for TensorRT engines: %v", err)
	}
	return filepath.Join(cache, "aob", "engines"), nil
}

// A ModelError says that the model is invalid: it does not load, breaks the contract, or returns NaN
// or infinite numbers. A retry does not help.
type ModelError struct {
	Path string // of the ONNX file
	Why  string
}

func (e *ModelError) Error() string { return fmt.Sprintf("model %s: %s", e.Path, e.Why) }

// An ImageError says that an image is invalid: unreadable, truncated, too large, or neither JPEG nor
// PNG. A retry does not help.
type ImageError struct {
	Path string // of the file; empty if the image was not read from a file
	Why  string
}

func (e *ImageError) Error() string {
	if e.Path == "" {
		return "image: " + e.Why
	}
	return fmt.Sprintf("image %s: %s", e.Path, e.Why)
}

// A CrashError says that the child ended without a result: it crashed, was killed, exceeded its memory
// limit, or wrote invalid output.
type CrashError struct {
	Command string // subcommand, such as inspect
	Why     string // how it ended
	Stderr  string // the last lines of its standard error, at most 4 KiB
}

func (e *CrashError) Error() string {
	s := "aob-detect " + e.Command + ": " + e.Why
	if e.Stderr != "" {
		s += "; stderr: " + strings.ReplaceAll(e.Stderr, "\n", " | ")
	}
	return s
}
