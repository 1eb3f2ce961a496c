package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/profile"
)

const testdata = "../../reconciler/detect/testdata/"

// aobDetect builds the command and returns a function that runs it.
func aobDetect(t *testing.T) func(args ...string) (stdout, stderr string, err error) {
	binary := filepath.Join(t.TempDir(), "aob-detect")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return func(args ...string) (string, string, error) {
		cmd := exec.Command(binary, args...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		return out.String(), errs.String(), err
	}
}

func TestHelp(t *testing.T) {
	root := newCommand()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			continue
		}
		if cmd.Short == "" || cmd.Long == "" || !strings.Contains(cmd.Example, "aob-detect "+cmd.Name()) {
			t.Errorf("%s: its help has no Short, Long or Example", cmd.Name())
		}
	}
}

func TestCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	if _, err := detect.FindLibrary(); err != nil {
		t.Skipf("this test runs real models: %v", err)
	}
	run := aobDetect(t)

	// Makes a bundle's folder from a model, as in the example of inspect.
	stdout, stderr, err := run("inspect", testdata+"detector.onnx")
	if err != nil || stderr != "" {
		t.Fatalf("inspect: %v\n%s", err, stderr)
	}
	var answer struct{ Inspected detect.Inspection }
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &answer); err != nil {
		t.Fatal(err)
	}
	bundle := t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(bundle, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	model, err := os.ReadFile(testdata + "detector.onnx")
	if err != nil {
		t.Fatal(err)
	}
	write(delivery.ModelFile, model)
	write(delivery.SignatureFile, delivery.Canonical(answer.Inspected.Signature))
	write(delivery.LabelsFile, []byte(`["red","blue"]`))
	write(delivery.GoldenFile, answer.Inspected.Golden)

	stdout, stderr, err = run("infer", "--bundle", bundle, "--score", "0.9", testdata+"picture.png", testdata+
		"small.png")
	if err != nil || stderr != "" {
		t.Fatalf("infer: %v\n%s", err, stderr)
	}
	dec := json.NewDecoder(strings.NewReader(stdout))
	for _, want := range []string{"picture.png", "small.png"} {
		var got struct {
			Image         string
			Width, Height int
			Boxes         []delivery.Box
		}
		if err := dec.Decode(&got); err != nil || filepath.Base(got.Image) != want || got.Width == 0 ||
			len(got.Boxes) == 8 {
			t.Errorf("%s: %+v, %v", want, got, err)
		}
		for _, b := range got.Boxes {
			if b.Score < 0.9 {
				t.Errorf("%s: a box of score %v", want, b.Score)
			}
		}
	}

	// A profile of the CPU is the same computation.
	profiles := filepath.Join(t.TempDir(), "profiles.yaml")
	if err := os.WriteFile(profiles, []byte("apiVersion: aob/v1\nkind: Profiles\nprofiles:\n  small: {from: cpu-fp32, "+
		"threads: 1, memory: 2GiB}\n  wrong-gpu: {from: cuda-fp32, device: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, stderr, err := run("infer", "--bundle", bundle, "--score", "0.9", "--profile", "small", "--profiles",
		profiles, testdata+"picture.png", testdata+"small.png")
	if err != nil || again != stdout {
		t.Errorf("with a profile: %v, %s\n%s\nwant\n%s", err, stderr, again, stdout)
	}
	listed, stderr, err := run("profiles", "--profiles", profiles, "-o", "json")
	var list []profile.Profile
	if err == nil {
		err = json.Unmarshal([]byte(listed), &list)
	}
	if err != nil || len(list) != len(profile.Builtin())+2 || list[len(list)-1].Name != "wrong-gpu" {
		t.Errorf("profiles: %v, %s\n%s", err, stderr, listed)
	}
	stdout, stderr, err = run("describe", testdata+"no_metadata.onnx")
	if err != nil || stderr != "" || !strings.Contains(stdout, `"slots":4,"metadata":false}`) {
		t.Errorf("describe: %v, %s%s", err, stdout, stderr)
	}

	for _, c := range []struct {
		args []string
		want string // on standard error
	}{
		{[]string{"describe", "--slots", testdata + "no_metadata.onnx"}, "--slots: "}, // standard input is empty
		// This library has no GPU.
		{[]string{"infer", "--bundle", bundle, "--profile", "wrong-gpu", "--profiles", profiles,
			testdata + "small.png"},
			"cannot compute as the profile says: CUDAExecutionProvider: "},
		{[]string{"serve", "--bundle", bundle, "--profile", "t4-fp16", "--socket", filepath.Join(t.TempDir(), "s")},
			"cannot compute as the profile says: TensorrtExecutionProvider: "},
		{[]string{"build", "--bundle", bundle, "--profile", "orin-nano-fp16"},
			"or take a profile with provider cpu\n"},
		{[]string{"build", "--bundle", bundle}, "profile cpu-fp32 has provider cpu, which needs no engine"},
		{[]string{"infer", "--bundle", bundle, "--profile", "t5", testdata + "small.png"},
			`there is no hardware profile "t5"; take one of these`},
		{[]string{"profiles", "--profiles", testdata + "make_models.py"}, "make_models.py:"},
		{[]string{"infer", "--bundle", bundle, testdata + "make_models.py"},
			"aob-detect: image ../../reconciler/detect/testdata/make_models.py: neither JPEG nor PNG\n"},
		{[]string{"infer", "--bundle", testdata, testdata + "small.png"},
			"signature.json: no such file or directory\n"},
		{[]string{"infer", testdata + "small.png"}, `required flag(s) "bundle" not set`},
		{[]string{"inspect", testdata + "wrong_slots.onnx"}, "num_classes is 7"},
		{[]string{"inspect", "--memory", "much", testdata + "detector.onnx"}, "--memory: want a size"},
		{[]string{"inspect", "--library", testdata + "picture.png", testdata + "detector.onnx"},
			"load ONNX Runtime from"},
	} {
		_, stderr, err := run(c.args...)
		if err == nil || !strings.HasPrefix(stderr, "aob-detect: ") || !strings.Contains(stderr, c.want) {
			t.Errorf("%q: %v, %s", c.args, err, stderr)
		}
	}
}
