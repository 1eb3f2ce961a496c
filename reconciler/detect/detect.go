package detect

import (
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
)

// Numerics names how pixels become boxes: decoding, resizing, selection,
// scaling without clipping. It is part of every detect key.
const Numerics = "aob-detect/1"

// Provider is what models run on: part of every detect key.
const Provider = "cpu"

// A bundle's folder, as a device has it.
const (
	ModelFile     = "model.onnx"
	SignatureFile = "signature.json" // delivery.Signature
	GoldenFile    = "golden.bin"     // Golden
	LabelsFile    = "labels.json"    // the model's classes, a JSON list of names

	// ThresholdsFile maps classes to the score from which a detection is answered;
	// a bundle may have none.
	ThresholdsFile = "thresholds.json"
)

// What is refused unread, since it comes from datasets, devices and pull
// requests.
const (
	MaxModelBytes = 2 << 30  // a protobuf cannot be larger
	MaxImageBytes = 64 << 20 // of the file
	MaxPixels     = 64 << 20 // of one image, width times height
)

// A Detector starts aob-detect. The zero value works where Find does.
type Detector struct {
	Binary      string         // path of aob-detect; "" looks as Find does
	Library     string         // path of ONNX Runtime's shared library; "" looks as FindLibrary does
	Threads     int            // cores to use; 0 is all
	MemoryLimit delivery.Bytes // of the child's private memory; 0 is 4GiB
	Patience    time.Duration  // the longest wait for a model to load or for one image; 0 is 5m
}

// The defaults of Detector.
const (
	defaultMemory   = delivery.Bytes(4 << 30)
	defaultPatience = 5 * time.Minute
)

func (d Detector) threads() int {
	if d.Threads > 0 {
		return d.Threads
	}
	return runtime.NumCPU()
}

func (d Detector) memory() delivery.Bytes {
	if d.MemoryLimit > 0 {
		return d.MemoryLimit
	}
	return defaultMemory
}

func (d Detector) patience() time.Duration {
	if d.Patience > 0 {
		return d.Patience
	}
	return defaultPatience
}

// Find returns a Detector with the aob-detect that lies beside this program or
// on PATH, and the library that FindLibrary finds.
func Find() (Detector, error) { return Detector{}.found() }

// found fills in the two paths, which become absolute: the child works in
// another folder.
func (d Detector) found() (_ Detector, err error) {
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

// libraryVersion is the release of ONNX Runtime that AOB is built for.
const libraryVersion = "1.24.3"

// FindLibrary returns the path of ONNX Runtime's library: AOB_ONNXRUNTIME where
// that is set, else where tools/onnxruntime/install.sh puts it.
func FindLibrary() (string, error) {
	const hint = "install it with tools/onnxruntime/install.sh, or name the file in AOB_ONNXRUNTIME"
	path, from := os.Getenv("AOB_ONNXRUNTIME"), "AOB_ONNXRUNTIME"
	if path == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", delivery.Blockedf(hint, "no cache folder to look for ONNX Runtime in: %v", err)
		}
		path, from = filepath.Join(cache, "aob", "onnxruntime-"+libraryVersion, "libonnxruntime.so.1"),
			"the cache folder"
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", delivery.Blockedf(hint, "ONNX Runtime is not at %s (from %s)", path, from)
	case err != nil:
		return "", fmt.Errorf("ONNX Runtime's library: %w", err)
	case !info.Mode().IsRegular():
		return "", delivery.Blockedf(hint, "ONNX Runtime: %s (from %s) is not a file", path, from)
	}
	return filepath.Abs(path)
}

// A ModelError says that the model itself is wrong: it does not load, breaks
// the contract, or gives numbers that are none. Trying again does not help.
type ModelError struct {
	Path string // of the ONNX file
	Why  string
}

func (e *ModelError) Error() string { return fmt.Sprintf("model %s: %s", e.Path, e.Why) }

// An ImageError says that an image cannot be used: unreadable, truncated, too
// large, neither JPEG nor PNG. Trying again does not help.
type ImageError struct {
	Path string // of the file; "" for one that came without
	Why  string
}

func (e *ImageError) Error() string {
	if e.Path == "" {
		return "image: " + e.Why
	}
	return fmt.Sprintf("image %s: %s", e.Path, e.Why)
}

// A CrashError says that the child ended without an answer: it crashed, was
// killed, ran out of memory, or answered in a way that makes no sense.
type CrashError struct {
	Command string // what was asked of it, as inspect
	Why     string // how it ended
	Stderr  string // the last lines of its standard error, at most 4 KiB
}

func (e *CrashError) Error() string {
	s := "aob-detect " + e.Command + ": " + e.Why
	if e.Stderr != "" {
		s += "; its last words: " + strings.ReplaceAll(e.Stderr, "\n", " | ")
	}
	return s
}
