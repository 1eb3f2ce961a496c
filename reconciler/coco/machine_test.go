package coco

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// fused matches the instructions of arm64 and amd64 that multiply and add with
// one rounding. Go's compiler makes them of x*y + z unless a conversion stands
// between, and they change the last bit.
var fused = regexp.MustCompile(`\b(V?FN?M(ADD|SUB)[0-9A-Z]*|FML[AS])\b`)

// disassemble compiles a package for arm64 and reads the object file. For amd64
// it takes the compiler's own listing, as the disassembler knows no VEX
// instructions.
func disassemble(t *testing.T, env, dir string) []byte {
	t.Helper()
	object := filepath.Join(t.TempDir(), "object.a")
	args := []string{"build", "-o", object}
	if env != "GOARCH=arm64" {
		args = append(args, "-gcflags=-S")
	}
	build := exec.Command("go", append(args, ".")...)
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", env)
	listing, err := build.CombinedOutput()
	if err != nil {
		t.Fatalf("%s go build: %v\n%s", env, err, listing)
	}
	if env != "GOARCH=arm64" {
		return listing
	}
	text, err := exec.Command("go", "tool", "objdump", object).Output()
	if err != nil {
		t.Fatalf("go tool objdump: %v", err)
	}
	return text
}

// TestNothingIsFused looks at every instruction of the package, compiled for
// the machines whose compiler would fuse.
func TestNothingIsFused(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for other machines")
	}
	control := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":     "module control\n\ngo 1.24\n",
		"control.go": "package control\n\nfunc F(x, y, z float64) float64 { return x*y + z }\n",
	} {
		if err := os.WriteFile(filepath.Join(control, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, machine := range []struct{ env, multiply string }{{"GOARCH=arm64", "FMULD"}, {"GOAMD64=v3", "MULSD"}} {
		t.Run(machine.env, func(t *testing.T) {
			env := machine.env
			if env == "GOAMD64=v3" && runtime.GOARCH != "amd64" {
				t.Skip("this machine is no amd64")
			}
			if !fused.Match(disassemble(t, env, control)) {
				t.Fatal("x*y + z is not fused here either: the check sees nothing")
			}
			text := disassemble(t, env, ".")
			if !bytes.Contains(text, []byte(machine.multiply)) {
				t.Fatalf("no %s in the package: the check sees nothing", machine.multiply)
			}
			for line := range bytes.Lines(text) {
				if fused.Match(line) {
					t.Errorf("%s", bytes.TrimSpace(line))
				}
			}
		})
	}
}

// TestOtherMachines runs what must give the same bits everywhere, compiled for
// other machines, where this one can run that.
func TestOtherMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for other machines")
	}
	for _, machine := range []struct{ env, emulator, refusal string }{
		{"GOAMD64=v1", "", ""},
		{"GOAMD64=v3", "", "can only be run on AMD64 processors with v3"},
		{"GOARCH=arm64", "qemu-aarch64", ""},
	} {
		t.Run(machine.env, func(t *testing.T) {
			name, value, _ := strings.Cut(machine.env, "=")
			switch {
			case name == "GOAMD64" && runtime.GOARCH != "amd64":
				t.Skip("this machine is no amd64")
			case name == "GOAMD64" && goamd64(t) == value:
				t.Skip("the other tests were compiled so")
			}
			emulator := ""
			if machine.emulator != "" {
				var err error
				if emulator, err = exec.LookPath(machine.emulator); err != nil || os.Getenv("AOB_QEMU") == "" {
					t.Skip("set AOB_QEMU=1 to run it in qemu-aarch64, which Debian's package qemu-user has: it takes " +
						"minutes")
				}
			}
			program := filepath.Join(t.TempDir(), "coco.test")
			build := exec.Command("go", "test", "-c", "-o", program, ".")
			build.Env = append(os.Environ(), "CGO_ENABLED=0", machine.env)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("go test -c: %v\n%s", err, out)
			}
			args := []string{program, "-test.run",
				"^(TestStrictEqualsReference|TestDiagnoseEqualsTIDE|TestNumbersAreFixed|TestDrawIsFixed)$"}
			if emulator != "" {
				args = append([]string{emulator}, args...)
			}
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			if machine.refusal != "" && bytes.Contains(out, []byte(machine.refusal)) {
				t.Skipf("%s", bytes.TrimSpace(out))
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// goamd64 is the level that tests are compiled for.
func goamd64(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOAMD64").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(out))
}

// Every number of a comparison and a diagnosis is the same on every machine, to
// the last bit; it changes with evaluator's version alone.
func TestNumbersAreFixed(t *testing.T) {
	truth, detections := readCase(t, filepath.Join("testdata", "tide"))
	m := match(t, truth, detections)
	c := compare(t, m, match(t, truth, worse(detections)), CompareParams{Resamples: 200})
	text, err := json.Marshal([]any{whole(m, c), c.Judge(10), diagnose(t, truth, detections),
		match(t, truth, detections).Curves()})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	const want = "cb640940999d4306474ee09b2ff14c9818b9bf20efaabaa82d5d5b6029edad60"
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
