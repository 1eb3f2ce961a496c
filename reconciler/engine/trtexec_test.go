package engine_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/onnx"
)

// No machine of the tests has a GPU. A stand-in for trtexec takes its place: it knows the flags of the real one,
// refuses what the real one refuses, and its engine is the model with a line before it. It is this test's own program,
// started under the name trtexec.

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "trtexec" {
		os.Exit(standIn(os.Args))
	}
	os.Exit(m.Run())
}

// A behaviour is how the stand-in is to behave. It lies beside the program, because trtexec gets no environment.
type behaviour struct {
	Version string // of TensorRT, as 100300
	Needs   int    // MiB of workspace that the model needs
	Memory  int    // MiB of workspace that the machine has; larger builds fail
	Fails   string // an error that every build ends with
	Killed  bool   // builds over Memory are killed as the kernel does, in place of an error
	Hangs   bool   // a build never ends
	Nothing bool   // a build says that it passed, and writes no engine
}

// The flags of trtexec that AOB may use, by the version that has them; from NVIDIA's sources of 10.3 and 11.1.
var (
	commonFlags = []string{"--onnx", "--saveEngine", "--loadEngine", "--stronglyTyped", "--noTF32",
		"--builderOptimizationLevel", "--memPoolSize", "--timingCacheFile", "--device", "--skipInference",
		"--minShapes", "--optShapes", "--maxShapes", "--shapes", "--useDLACore", "--allowGPUFallback", "--warmUp",
		"--duration", "--percentile", "--help", "--verbose", "--avgRuns"}
	flagsOf10 = []string{"--fp16", "--int8", "--bf16", "--best", "--calib"}
)

const enginePrefix = "stand-in engine of TensorRT "

func standIn(args []string) int {
	dir := filepath.Dir(args[0])
	var b behaviour
	data, err := os.ReadFile(filepath.Join(dir, "behaviour.json"))
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err != nil {
		fmt.Println(err)
		return 9
	}
	log, _ := os.OpenFile(filepath.Join(dir, "calls.txt"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	fmt.Fprintln(log, strings.Join(args[1:], " "))
	log.Close()

	name := "TensorRT.trtexec [TensorRT v" + b.Version + "] # " + strings.Join(args, " ")
	say := func(level, text string, args ...any) {
		fmt.Printf("[11/30/2026-07:00:01] [%s] %s\n", level, fmt.Sprintf(text, args...))
	}
	fail := func(text string, args ...any) int {
		say("E", text, args...)
		fmt.Println("&&&& FAILED " + name)
		return 1
	}
	fmt.Println("&&&& RUNNING " + name)
	given := map[string]string{}
	for _, a := range args[1:] {
		flag, value, _ := strings.Cut(a, "=")
		if _, twice := given[flag]; twice {
			return fail("%s is given twice", flag)
		}
		given[flag] = value
		known := slices.Contains(commonFlags, flag) || b.Version < "110000" && slices.Contains(flagsOf10, flag)
		if !known {
			fmt.Println("=== Model Options ===")
			return fail("Unknown option: %s %s", flag, value)
		}
	}
	if _, help := given["--help"]; help {
		fmt.Println("=== Model Options ===")
		return 0
	}
	if _, fp16 := given["--fp16"]; fp16 {
		if _, strong := given["--stronglyTyped"]; strong {
			say("W", "Invalid usage, setting fp16 mode is not allowed if the network is strongly typed.")
		}
	}
	model, err := os.ReadFile(given["--onnx"])
	if err != nil {
		return fail("Could not open file %s", given["--onnx"])
	}
	shape, err := onnx.InputShape(model, "input")
	if err != nil {
		return fail("Failed to parse onnx file")
	}
	_, shapes := given["--optShapes"]
	switch {
	case shape[0] > 0 && shapes:
		return fail("Static model does not take explicit shapes since the shape of inference tensors will be " +
			"determined by the model itself")
	case shape[0] < 0 && given["--optShapes"] != "input:1x3x24x32":
		return fail("Dynamic dimensions required for input: input, but no shapes were provided.")
	}
	workspace, err := strconv.Atoi(strings.TrimPrefix(given["--memPoolSize"], "workspace:"))
	if err != nil {
		return fail("Unknown memory pool: %s", given["--memPoolSize"])
	}
	switch {
	case b.Hangs:
		select {}
	case b.Fails != "":
		return fail("%s", b.Fails)
	case workspace > b.Memory && b.Killed:
		os.WriteFile(given["--saveEngine"], []byte("half"), 0o600)
		self, _ := os.FindProcess(os.Getpid())
		self.Kill()
		select {}
	case workspace > b.Memory:
		return fail("[TRT] Requested amount of GPU memory (%d bytes) could not be allocated.", workspace<<20)
	case workspace < b.Needs:
		return fail("Error[10]: Error Code: 10: Internal Error (Could not find any implementation for node {Conv}.)")
	}
	say("I", "TensorRT version: %s", b.Version)
	if timing := given["--timingCacheFile"]; timing != "" {
		before, _ := os.ReadFile(timing)
		os.WriteFile(timing, append(before, "build\n"...), 0o600)
	}
	if !b.Nothing {
		engine := append([]byte(enginePrefix+b.Version+"\n"), model...)
		if err := os.WriteFile(given["--saveEngine"], engine, 0o600); err != nil {
			return fail("%v", err)
		}
	}
	say("I", "Engine built in 0.5 sec.")
	fmt.Println("&&&& PASSED " + name)
	return 0
}

// install puts a stand-in into a folder and returns its path.
func install(t *testing.T, b behaviour) string {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "trtexec")
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	behave(t, path, b)
	return path
}

// behave changes how a stand-in behaves.
func behave(t *testing.T, trtexec string, b behaviour) {
	data, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(trtexec), "behaviour.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// builds returns the command lines of a stand-in's builds so far.
func builds(t *testing.T, trtexec string) (lines []string) {
	data, err := os.ReadFile(filepath.Join(filepath.Dir(trtexec), "calls.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if text := strings.TrimSpace(string(line)); text != "--help" {
			lines = append(lines, text)
		}
	}
	return lines
}
