package detect

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/profile"
)

// told is a script that writes its arguments to a file, and then does as a child.
func told(t *testing.T, body string) (d Detector, args func() string) {
	file := filepath.Join(t.TempDir(), "args")
	d = script(t, "echo \"$@\" >"+file+"\n"+sayHello+body)
	d.Profile, d.Profiles, d.Engines = "line", "/profiles.yaml", "/engines"
	return d, func() string {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
}

const profiled = "--library /lib.so --profile line --cache /engines --profiles /profiles.yaml"

func TestProvider(t *testing.T) {
	if got, err := (Detector{Binary: "/none"}).Provider(t.Context()); got != "cpu" || err != nil {
		t.Errorf("without a profile: %q, %v", got, err)
	}
	d, args := told(t, `echo '{"provider":"cuda/0123456789ab"}'`)
	if got, err := d.Provider(t.Context()); got != "cuda/0123456789ab" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got := args(); got != "provider "+profiled {
		t.Errorf("arguments %s", got)
	}
	for name, c := range map[string]struct{ body, want string }{
		"a reason":      {`echo '{"failure":{"about":"request","why":"no GPU"}}'; exit 1`, "no GPU"},
		"another line":  {`echo '{"done":1}'`, "unexpected message"},
		"a path":        {`echo '{"provider":"../../x"}'`, "unexpected message"},
		"nothing":       {"", "without a result"},
		"control codes": {`echo '{"provider":"cpu\u001b[2J"}'`, "unexpected message"},
	} {
		d, _ := told(t, c.body)
		if got, err := d.Provider(t.Context()); got != "" || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// With a bundle the profile computes, and its engine is built first. A model that has none yet is for the CPU: its
// golden is made there.
func TestWhatTheProfileComputes(t *testing.T) {
	one := Request{Model: "/m.onnx", Signature: testSignature(), Images: []ImageFile{{1, "/1.jpg"}}}
	answer := `echo '{"image":{"id":1,"width":1,"height":1,"boxes":[]}}
		{"done":1}'`
	d, args := told(t, answer)
	if _, err := d.Evaluate(t.Context(), one, nil); err != nil {
		t.Fatal(err)
	}
	if got := args(); strings.Contains(got, "profile") || !strings.HasSuffix(got, "--memory 4GiB") {
		t.Errorf("without a bundle: %s", got)
	}
	d, args = told(t, `echo '{"building":{"stage":"building","seconds":5}}'`+"\n"+answer)
	var stages []string
	one.Bundle, one.Building = "/bundle", func(p profile.Progress) { stages = append(stages, p.Stage) }
	if _, err := d.Evaluate(t.Context(), one, nil); err != nil || strings.Join(stages, " ") != "building" {
		t.Errorf("stages %q, %v", stages, err)
	}
	if got := args(); got != "evaluate "+profiled+" --bundle /bundle" {
		t.Errorf("with a bundle: %s", got)
	}
	d, args = told(t, "exit 1")
	if _, _, err := d.Inspect(t.Context(), "/m.onnx"); err == nil || strings.Contains(args(), "profile") {
		t.Errorf("inspect: %s, %v", args(), err)
	}
}

func TestBuild(t *testing.T) {
	d, args := told(t, `echo '{"building":{"stage":"building"}}
		{"building":{"stage":"built"}}
		{"ready":true}'`)
	var stages []string
	d.Progress = func(p profile.Progress) { stages = append(stages, p.Stage) }
	if err := d.Build(t.Context(), "/bundle"); err != nil || strings.Join(stages, " ") != "building built" {
		t.Errorf("stages %q, %v", stages, err)
	}
	if got := args(); got != "build "+profiled+" --bundle /bundle" {
		t.Errorf("arguments %s", got)
	}
	for body, want := range map[string]string{
		`echo '{"failure":{"about":"request","why":"there is no trtexec"}}'; exit 1`: "there is no trtexec",
		"":                          "without a result",
		`echo '{"provider":"cpu"}'`: "unexpected message",
	} {
		d, _ := told(t, body)
		if err := d.Build(t.Context(), "/bundle"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
}

// An evaluation is a load as any other: another model's golden or signature is refused before an image is computed.
func TestEvaluateReplaysTheGolden(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		sig    func(*delivery.Signature)
		want   string
	}{
		"as it was": {},
		"another model's golden": {change: func(t *testing.T, dir string) {
			golden := testGolden(t)
			golden.Boxes[0] += 0.1
			golden.Best[0].X += 3.2
			data, err := golden.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			writeBundle(t, dir, testSignature(), data)
		}, want: "golden replay: output dets has 4 numbers, want 8"},
		"no golden": {change: func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, delivery.GoldenFile)); err != nil {
				t.Fatal(err)
			}
		}, want: "golden.bin: no such file"},
		"another signature": {sig: func(s *delivery.Signature) { s.Means[0] = 0 }, want: "means is"},
	} {
		dir := pureBundle(t)
		if c.change != nil {
			c.change(t, dir)
		}
		r := Request{Model: filepath.Join(dir, delivery.ModelFile), Signature: testSignature(),
			Images: []ImageFile{{1, filepath.Join("testdata", "small.png")}}}
		if c.sig != nil {
			c.sig(&r.Signature)
		}
		var in, out bytes.Buffer
		if err := r.write(&in); err != nil {
			t.Fatal(err)
		}
		err := Worker{Runtime: pureRuntime{}, JPEG: decoder, Threads: 1}.Evaluate(t.Context(), dir, &in, &out)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if c.want != "" && out.Len() > 0 {
			t.Errorf("%s: %s", name, out.String())
		}
		if _, model := errors.AsType[*ModelError](err); model != strings.HasPrefix(name, "another") {
			t.Errorf("%s: blamed on the model: %v", name, model)
		}
	}
}
