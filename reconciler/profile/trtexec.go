package profile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Build is one run of trtexec that builds an engine.
type Build struct {
	Model       string // path of the ONNX file
	Engine      string // path of the engine that it writes
	TimingCache string // path; it is read and written
	Input       string // name of the model's input
	Shape       []int64
	Workspace   delivery.Bytes
	Options     []string // of Options
}

// Options returns the builder's options, which are part of an engine's key. version is of TensorRT.
func (p Profile) Options(version string) (options []string, note string, err error) {
	major, minor, err := parseVersion(version)
	if err != nil {
		return nil, "", err
	}
	b := p.Engine
	switch {
	case b == nil:
		return nil, "", fmt.Errorf("profile %s has provider %s, which has no engines", p.Name, p.Provider)
	case major < 10:
		return nil, "", delivery.Blockedf("install TensorRT 10 or a later one", "TensorRT %s is too old", version)
	case b.Typing == Weak && major >= 11:
		return nil, "", delivery.Blockedf("set typing: strong, and take a bundle of the variant "+p.Precision,
			"profile %s has typing: weak, which TensorRT %s does not have any more", p.Name, version)
	case b.Typing == Strong && major == 10: // from 11 on there is nothing else
		options = append(options, "--stronglyTyped")
	case b.Typing == Weak && p.Precision == "fp16":
		options = append(options, "--fp16")
	}
	if p.Precision == "fp32" {
		options = append(options, "--noTF32") // TF32 has the 10 bits of FP16
	}
	options = append(options, "--builderOptimizationLevel="+strconv.Itoa(b.Level))
	if b.DLA != nil {
		if major == 10 && minor > 7 || major == 11 && minor < 4 {
			note = fmt.Sprintf("TensorRT %s has no DLA, so the GPU computes all", version)
		} else {
			options = append(options, "--useDLACore="+strconv.Itoa(*b.DLA), "--allowGPUFallback")
		}
	}
	return options, note, nil
}

// Args returns the command line of trtexec without the program. batch is the largest one; it counts only for a model
// that leaves its batch open, because trtexec refuses shapes for the others.
func (b Build) Args(device, batch int) ([]string, error) {
	args := []string{"--onnx=" + b.Model, "--saveEngine=" + b.Engine}
	args = append(args, b.Options...)
	// Without a unit it is MiB, in all versions.
	args = append(args, "--memPoolSize=workspace:"+strconv.FormatInt(int64(b.Workspace)>>20, 10),
		"--timingCacheFile="+b.TimingCache, "--device="+strconv.Itoa(device), "--skipInference")
	if len(b.Shape) > 0 && b.Shape[0] < 0 {
		if strings.ContainsAny(b.Input, ":,=*") || b.Input == "" {
			return nil, fmt.Errorf("trtexec cannot name the input %.100q", b.Input)
		}
		for _, n := range b.Shape[1:] {
			if n < 1 {
				return nil, fmt.Errorf("the input has shape %v; only the batch may be open", b.Shape)
			}
		}
		args = append(args, "--minShapes="+b.shape(1), "--optShapes="+b.shape(1), "--maxShapes="+b.shape(batch))
	}
	return args, nil
}

func (b Build) shape(batch int) string {
	sizes := []string{strconv.Itoa(batch)}
	for _, n := range b.Shape[1:] {
		sizes = append(sizes, strconv.FormatInt(n, 10))
	}
	return b.Input + ":" + strings.Join(sizes, "x")
}

// parseVersion returns the first two numbers of a version such as 10.3.0.
func parseVersion(version string) (major, minor int, err error) {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	major, err = strconv.Atoi(first)
	if err == nil {
		minor, err = strconv.Atoi(second)
	}
	if err != nil || major < 1 || minor < 0 {
		return 0, 0, fmt.Errorf("the version of TensorRT is %.40q, want one as 10.3.0", version)
	}
	return major, minor, nil
}

// A Log is what a run of trtexec has printed.
type Log struct {
	Version string   `json:"version,omitempty"` // of TensorRT
	Passed  bool     `json:"passed"`            // it says that it has done its work
	Seconds float64  `json:"seconds,omitempty"` // of the build
	Errors  []string `json:"errors,omitempty"`  // the first ones
	Memory  bool     `json:"memory"`            // an error says that memory was too small
}

// Limits of a log, which is text of another program.
const (
	maxErrors    = 5
	maxErrorText = 300
)

// memoryErrors are parts of what TensorRT prints where a build needs more memory than there is. It says that no
// implementation was found where each one needs more than the workspace.
var memoryErrors = []string{"out of memory", "could not find any implementation", "insufficient memory",
	"cudaerrormemoryallocation", "cannot allocate memory", "std::bad_alloc", "outofmemory",
	"requested amount of gpu memory"}

// ParseLog reads the output of trtexec. Lines that it does not know are skipped.
func ParseLog(output []byte) Log {
	var l Log
	for line := range strings.Lines(string(output)) {
		line = strings.TrimSpace(line)
		lower := strings.ToLower(line)
		if strings.HasPrefix(line, "&&&& ") {
			l.banner(line)
			continue
		}
		level, text := splitLine(line)
		out := slices.ContainsFunc(memoryErrors, func(s string) bool { return strings.Contains(lower, s) })
		if out && level != "V" && level != "I" {
			l.Memory = true
		}
		switch {
		case level == "E" || level == "" && out:
			if len(l.Errors) < maxErrors {
				l.Errors = append(l.Errors, delivery.PlainText(text, maxErrorText))
			}
		case level != "I":
		case strings.HasPrefix(text, "Engine built in "):
			l.Seconds = numberAfter(text, "Engine built in ")
		}
	}
	return l
}

// banner reads the lines that begin with &&&&, as in &&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --help.
func (l *Log) banner(line string) {
	rest := strings.TrimPrefix(line, "&&&& ")
	l.Passed = strings.HasPrefix(rest, "PASSED TensorRT.trtexec")
	_, after, ok := strings.Cut(rest, "[TensorRT v")
	digits, _, closed := strings.Cut(after, "]")
	n, err := strconv.Atoi(digits)
	if !ok || !closed || err != nil || n < 1000 || n > 999999 {
		return
	}
	hundred := 10_000 // 100300 is 10.3.0; before version 10 it was 8502 for 8.5.2
	if n < hundred {
		hundred = 1000
	}
	l.Version = fmt.Sprintf("%d.%d.%d", n/hundred, n%hundred/100, n%100)
}

// splitLine cuts the time and the level off a line, as in [11/30/2026-07:00:00] [E] Error[1]: ... The level is E, W, I
// or V, or "" if there is none.
func splitLine(line string) (level, text string) {
	text = line
	for range 3 {
		inside, rest, ok := strings.Cut(text, "]")
		if !ok || !strings.HasPrefix(inside, "[") {
			break
		}
		name := inside[1:]
		switch {
		case len(name) == 1 && strings.Contains("EWIV", name):
			level = name
		case name == "F":
			level = "E"
		case name == "TRT" || strings.Count(name, "/") == 2 && strings.Count(name, ":") == 2:
		default:
			return level, text
		}
		text = strings.TrimSpace(rest)
	}
	return level, text
}

// numberAfter returns the positive number that follows a text; 0 if there is none.
func numberAfter(text, before string) float64 {
	_, rest, ok := strings.Cut(text, before)
	if !ok {
		return 0
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return !strings.ContainsRune("0123456789.e+-", r) })
	if end < 0 {
		end = len(rest)
	}
	v, err := strconv.ParseFloat(rest[:end], 64)
	if err != nil || !(v > 0 && v < 1e12) {
		return 0
	}
	return v
}
