package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// The checks of the detector: aob-detect serve with a token, a control socket and a secret in its environment, on a
// model of the tests.

const frontToken, frontSecret = "front-token-5b1d", "front-secret-91c2"

// A front is a running aob-detect serve.
type front struct {
	url, dir, bundle, control string
	cmd                       *exec.Cmd
	mu                        sync.Mutex
	said                      bytes.Buffer
}

func (f *front) log() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.said.String()
}

// TestSecurityOfTheDetector walks the rows of the detector, which need no server and no PyTorch.
func TestSecurityOfTheDetector(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the programs: run it without -short")
	}
	if _, err := detect.FindLibrary(); err != nil {
		t.Skipf("ONNX Runtime is missing: %v", err)
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	p := &place{bin: bin}
	defer p.endDetector()
	for _, c := range readSecurityTable(t) {
		switch identity, _, _ := strings.Cut(c.name, "/"); identity {
		case "container", "caller", "holder", "operator", "model", "page", "folder", "camera":
			t.Run(c.name, func(t *testing.T) {
				p.T = t
				securityChecks[c.name](p)
			})
		}
	}
}

// endDetector ends the front of this place; its model's process ends with it.
func (p *place) endDetector() {
	if p.detector != nil {
		p.detector.cmd.Process.Kill() // an error means that it has ended
		p.detector.cmd.Wait()
		os.RemoveAll(p.detector.dir)
	}
}

const detectModels = "../reconciler/detect/testdata/"

// front returns the front of this place, which starts with the first check that asks.
func (p *place) front() *front {
	p.Helper()
	if p.detector != nil {
		return p.detector
	}
	dir, err := os.MkdirTemp("", "aob-front-")
	if err != nil {
		p.Fatal(err)
	}
	f := &front{dir: dir, bundle: filepath.Join(dir, "bundle"), control: filepath.Join(dir, "control.sock")}
	p.pack(f.bundle, "detector.onnx", nil)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			p.Fatal(err)
		}
	}
	write("token", frontToken)
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		p.Fatal(err)
	}
	f.cmd = exec.Command(filepath.Join(p.bin, "aob-detect"), "serve", "--bundle", f.bundle, "--listen", ":0", "--name",
		"shapes", "--model-version", "1", "--token-file", filepath.Join(dir, "token"), "--control", f.control,
		"--max-body", "1MiB", "--max-request-memory", "64MiB", "--max-requests", "4")
	f.cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Join(dir, "tmp"), "FRONT_SECRET="+frontSecret)
	out, err := f.cmd.StderrPipe()
	if err == nil {
		err = f.cmd.Start()
	}
	if err != nil {
		p.Fatal(err)
	}
	ready := make(chan string)
	go func() {
		defer close(ready)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			f.mu.Lock()
			fmt.Fprintln(&f.said, lines.Text())
			f.mu.Unlock()
			if m := regexp.MustCompile(`msg=serving url=(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
				ready <- m[1]
			}
		}
	}()
	if f.url = <-ready; f.url == "" {
		p.Fatalf("the front does not serve: %s", f.log())
	}
	p.detector = f
	return f
}

// pack writes the bundle of a model of the tests. change may spoil it.
func (p *place) pack(dir, model string, change func(*delivery.Signature, *detect.Golden)) {
	p.Helper()
	data, err := os.ReadFile(detectModels + "detector.onnx")
	if err != nil {
		p.Fatal(err)
	}
	d := detect.Detector{Binary: filepath.Join(p.bin, "aob-detect")}
	sig, golden, err := d.Inspect(context.Background(), detectModels+"detector.onnx")
	if err != nil {
		p.Fatal(err)
	}
	if change != nil {
		change(&sig, &golden)
	}
	encoded, err := golden.MarshalBinary()
	if err == nil && model != "detector.onnx" {
		data, err = os.ReadFile(detectModels + model)
	}
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	for name, content := range map[string][]byte{delivery.ModelFile: data, delivery.GoldenFile: encoded,
		delivery.SignatureFile: delivery.Canonical(sig), delivery.LabelsFile: []byte(`["red","blue"]`)} {
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o600)
		}
	}
	if err != nil {
		p.Fatal(err)
	}
}

// ask sends a request to the front, and checks that no answer has a secret.
func (p *place) ask(method, path, token string, body []byte) (int, string) {
	p.Helper()
	f := p.front()
	r, err := http.NewRequest(method, f.url+path, bytes.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		p.Fatal(err)
	}
	for _, secret := range []string{frontToken, frontSecret, f.dir} {
		if strings.Contains(string(answer)+fmt.Sprint(resp.Header), secret) {
			p.Errorf("%s %s answers with %s: %s", method, path, secret, answer)
		}
	}
	return resp.StatusCode, string(answer)
}

func (p *place) picture() []byte {
	p.Helper()
	data, err := os.ReadFile(detectModels + "picture.jpg")
	if err != nil {
		p.Fatal(err)
	}
	return data
}

// serves checks that a caller with the token gets boxes, of the first model.
func (p *place) serves() {
	p.Helper()
	if code, answer := p.ask("POST", "/v1/detect?confidence=0", frontToken, p.picture()); code != 200 ||
		!strings.Contains(answer, `"version":"1"`) || !strings.Contains(answer, `"class"`) {
		p.Errorf("the detector answers %d %.300s\n%s", code, answer, p.front().log())
	}
}

// callerClosed: without the token, no route asks the model or tells of it.
func callerClosed(p *place) {
	picture := p.picture()
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/detect", string(picture)}, {"GET", "/v2", ""}, {"GET", "/v2/models/shapes", ""},
		{"POST", "/v2/models/shapes/infer", "{}"}, {"POST", "/shapes/1?api_key=guess", string(picture)},
		{"POST", "/infer/object_detection", `{"api_key":"guess"}`},
		{"POST", "/model/add", `{"model_id":"shapes/1","api_key":"guess"}`},
		{"POST", "/model/remove", `{"model_id":"shapes/1"}`}, {"POST", "/model/clear", ""},
	} {
		for _, token := range []string{"", "guess"} {
			if code, answer := p.ask(c.method, c.path, token, []byte(c.body)); code != 401 {
				p.Errorf("%s %s with the token %q: %d %s", c.method, c.path, token, code, answer)
			}
		}
	}
	p.serves()
}

// callerControl: what operators do over their socket, the front does not have.
func callerControl(p *place) {
	for _, token := range []string{"", frontToken} {
		for _, c := range [][2]string{{"PUT", "/bundle"}, {"PUT", "/shadow"}, {"DELETE", "/shadow"}, {"GET", "/status"},
			{"GET", "/metrics"}} {
			if code, answer := p.ask(c[0], c[1], token, []byte(`{}`)); code != 404 {
				p.Errorf("%s %s: %d %s", c[0], c[1], code, answer)
			}
		}
	}
	callerClosed(p)
}

// callerSlow: connections that begin a request and do not go on hold up nobody.
func callerSlow(p *place) {
	f := p.front()
	for i := range 100 {
		c, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
		if err != nil {
			p.Fatal(err)
		}
		defer c.Close()
		key := ""
		if i%2 == 1 { // also with the token
			key = "Authorization: Bearer " + frontToken + "\r\n"
		}
		fmt.Fprintf(c, "POST /infer/object_detection HTTP/1.1\r\nHost: x\r\n%sContent-Length: 1000000\r\n\r\n{", key)
	}
	for range 3 {
		p.serves()
	}
}

// callerReads: without the token, name, version and input size, as Roboflow's clients need them.
func callerReads(p *place) {
	for path, want := range map[string]string{
		"/healthz": `{"status":"healthy"}`, "/readyz": `{"status":"ready"}`,
		"/model/registry": `{"models":[{"model_id":"shapes/1","task_type":"object-detection","batch_size":1,` +
			`"input_height":24,"input_width":32}]}`,
	} {
		if code, answer := p.ask("GET", path, "", nil); code != 200 || strings.TrimSpace(answer) != want {
			p.Errorf("GET %s: %d %s", path, code, answer)
		}
	}
	if _, answer := p.ask("GET", "/info", "", nil); strings.Contains(answer, "red") {
		p.Errorf("/info tells classes: %s", answer)
	}
	callerClosed(p)
}

// holderSecrets: whatever a caller sends, neither answers nor the log have the token, the environment or a path.
func holderSecrets(p *place) {
	p.ask("POST", "/shapes/1?api_key="+frontToken, "", []byte("x"))
	p.ask("POST", "/infer/object_detection", "", []byte(`{"api_key":"`+frontToken+`"}`))
	holderHostile(p) // ask looks at each answer
	for _, secret := range []string{frontToken, frontSecret} {
		if strings.Contains(p.front().log(), secret) {
			p.Errorf("the log has %s", secret)
		}
	}
}

// holderDisk: nothing that callers send is kept.
func holderDisk(p *place) {
	f := p.front()
	files := func() (names []string) {
		err := filepath.WalkDir(f.dir, func(path string, _ fs.DirEntry, err error) error {
			names = append(names, path)
			return err
		})
		if err != nil {
			p.Fatal(err)
		}
		return names
	}
	p.serves()
	before := strings.Join(files(), "\n")
	lines := strings.Count(f.log(), "\n")
	holderHostile(p)
	if after := strings.Join(files(), "\n"); after != before {
		p.Errorf("files are left: %s, before: %s", after, before)
	}
	if more := strings.Count(f.log(), "\n") - lines; more > 0 {
		p.Errorf("%d lines of the log for what callers did wrong", more)
	}
}

// holderHostile: images and tensors that are no such thing get an error, and the model goes on.
func holderHostile(p *place) {
	bomb := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x01\x86\xa0\x00\x01\x86\xa0\x08\x02\x00\x00\x00")
	good := p.picture()
	for name, image := range map[string][]byte{"a bomb": bomb, "nothing": {}, "text": []byte("x"),
		"half": good[:len(good)/2], "only its head": good[:20]} {
		if code, answer := p.ask("POST", "/v1/detect", frontToken, image); code != 400 {
			p.Errorf("%s: %d %s", name, code, answer)
		}
		value := base64.StdEncoding.EncodeToString(image)
		body := `{"model_id":"shapes/1","image":{"type":"base64","value":"` + value + `"}}`
		if code, answer := p.ask("POST", "/infer/object_detection", frontToken, []byte(body)); code != 400 {
			p.Errorf("%s as base64: %d %s", name, code, answer)
		}
	}
	if code, answer := p.ask("POST", "/infer/object_detection", frontToken, []byte(
		`{"image":{"type":"url","value":"http://169.254.169.254/latest"}}`)); code != 400 {
		p.Errorf("an image by URL: %d %s", code, answer)
	}
	for name, tensor := range map[string]string{
		"a huge shape":      `{"name":"input","datatype":"FP32","shape":[1000000000,3,24,32],"data":[0]}`,
		"a negative shape":  `{"name":"input","datatype":"FP32","shape":[-1,3,24,32],"data":[0]}`,
		"too few numbers":   `{"name":"input","datatype":"FP32","shape":[1,3,24,32],"data":[0]}`,
		"another type":      `{"name":"input","datatype":"INT64","shape":[1,3,24,32],"data":[0]}`,
		"numbers too large": `{"name":"input","datatype":"FP32","shape":[1,3,24,32],"data":[1e99]}`,
		"nested too deep":   strings.Repeat("[", 100000),
	} {
		if code, answer := p.ask("POST", "/v2/models/shapes/infer", frontToken, []byte(`{"inputs":[`+tensor+
			`]}`)); code != 400 {
			p.Errorf("%s: %d %s", name, code, answer)
		}
	}
	if code, answer := p.ask("POST", "/v1/detect", frontToken, make([]byte, 2<<20)); code != 413 {
		p.Errorf("too large: %d %s", code, answer)
	}
	p.serves()
}

// operate does what an operator does over the control socket.
func (p *place) operate(args ...string) (string, error) {
	p.Helper()
	out, err := exec.Command(filepath.Join(p.bin, "aob-detect"), append(args, "--control",
		p.front().control)...).CombinedOutput()
	return string(out), err
}

// operatorSocket: only the front's own user reaches the socket.
func operatorSocket(p *place) {
	info, err := os.Stat(p.front().control)
	if err != nil || info.Mode().Perm() != 0o600 {
		p.Errorf("the control socket: %v, %v", info, err)
	}
	if os.Getuid() == 0 {
		if err := os.Chmod(p.front().dir, 0o755); err != nil { // the folder is not what closes it
			p.Fatal(err)
		}
		got := p.nobody(`
import socket, sys
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    print("connected")
except PermissionError:
    print("refused")`, p.front().control)
		if got != "refused" {
			p.Errorf("another user and the control socket: %s", got)
		}
	}
	p.serves()
}

// operatorLoads: who reaches the socket changes the model. A bundle that does not do what it says is refused.
func operatorLoads(p *place) {
	f := p.front()
	for name, change := range map[string]func(*delivery.Signature, *detect.Golden){
		"another golden": func(_ *delivery.Signature, g *detect.Golden) { g.Boxes[0] += 0.5 },
		"another mean":   func(s *delivery.Signature, _ *detect.Golden) { s.Means[0] = 0 },
	} {
		dir := filepath.Join(p.TempDir(), "bundle")
		p.pack(dir, "detector.onnx", change)
		if out, err := p.operate("load", dir); err == nil {
			p.Errorf("%s: loaded: %s", name, out)
		}
		p.serves()
	}
	if out, err := p.operate("load", f.bundle, "--model-version", "1"); err != nil {
		p.Errorf("the right one: %s", out)
	}
	p.serves()
}

// operatorReads: the status names the bundle, and no secret.
func operatorReads(p *place) {
	out, err := p.operate("status", "-o", "json")
	if err != nil || !json.Valid([]byte(out)) || strings.Contains(out, frontToken) ||
		strings.Contains(out, frontSecret) {
		p.Errorf("%v: %s", err, out)
	}
}

// modelRefused: a model that is none, hangs, or is another one does not serve, and the one before goes on.
func modelRefused(p *place) {
	for _, model := range []string{"malformed.onnx", "external.onnx", "same_graph.onnx", "large.onnx", "nan.onnx"} {
		dir := filepath.Join(p.TempDir(), "bundle")
		p.pack(dir, model, nil)
		if out, err := p.operate("load", dir); err == nil {
			p.Errorf("%s: loaded: %s", model, out)
		}
		p.serves()
	}
}

// modelConfined: the process of a model has no secret in its environment, and ends with the front.
func modelConfined(p *place) {
	f := p.front()
	p.serves()
	lists, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.Fatal(err)
	}
	found := 0
	for _, file := range lists {
		args, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(args, []byte(f.bundle)) || !bytes.Contains(args, []byte("--socket")) {
			continue
		}
		found++
		environ, err := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if err != nil || bytes.Contains(environ, []byte("SECRET")) || bytes.Contains(environ, []byte(frontSecret)) ||
			bytes.Contains(args, []byte(frontToken)) {
			p.Errorf("a model's process has %q and %q, %v", args, environ, err)
		}
		limits, err := os.ReadFile(filepath.Join(filepath.Dir(file), "limits"))
		if err != nil || regexp.MustCompile(`Max data size +unlimited`).Match(limits) {
			p.Errorf("a model's process has no limit of memory: %s, %v", limits, err)
		}
	}
	if found == 0 {
		p.Error("there is no process of a model")
	}
}

// cameraFrames: what a camera's command gives is data. Frames that are none are told, and the others are detected.
func cameraFrames(p *place) {
	dir := p.TempDir()
	good := p.picture()
	hostile := append([]byte("\x1b[2J$(touch owned)"), good[:len(good)/2]...)
	for name, data := range map[string][]byte{"1.jpg": hostile, "2.jpg": good, "3.png": []byte("\x89PNG\r\n\x1a\nx")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			p.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(p.bin, "aob-detect"), "run", "--bundle", p.front().bundle, "--source", dir)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if !bytes.Contains(out, []byte(`"boxes"`)) || bytes.ContainsAny(append(out, errs.Bytes()...), "\x1b") {
		p.Errorf("%v: %s\n%s", err, out, &errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "owned")); err == nil {
		p.Error("a frame was run")
	}
	p.serves()
}
