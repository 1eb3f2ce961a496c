package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/serve"
	"github.com/autonomos/aob/tools/venvtest"
)

// A frontProcess is a running aob-detect serve --listen.
type frontProcess struct {
	cmd    *exec.Cmd
	url    string
	log    *bytes.Buffer // valid after ended
	ended  chan error
	binary string
	bundle string
}

// startFront builds the command, makes a bundle and serves it.
func startFront(t *testing.T, flags ...string) *frontProcess {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	library, err := detect.FindLibrary()
	if err != nil {
		t.Skipf("this test runs real models: %v", err)
	}
	dir := t.TempDir()
	p := &frontProcess{binary: filepath.Join(dir, "aob-detect"), bundle: filepath.Join(dir, "bundle"),
		log: &bytes.Buffer{}, ended: make(chan error, 1)}
	if out, err := exec.Command("go", "build", "-o", p.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	d := detect.Detector{Binary: p.binary, Library: library}
	model := testdata + "detector.onnx"
	sig, golden, err := d.Inspect(t.Context(), model)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := golden.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	weights, err := os.ReadFile(model)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.bundle, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{delivery.ModelFile: weights, delivery.GoldenFile: encoded,
		delivery.SignatureFile: delivery.Canonical(sig), delivery.LabelsFile: []byte(`["red","blue"]`)} {
		if err := os.WriteFile(filepath.Join(p.bundle, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.cmd = exec.Command(p.binary, append([]string{"serve", "--bundle", p.bundle, "--listen", ":0", "--name", "shapes",
		"--model-version", "7", "--threads", "1", "--drain", "0s"}, flags...)...)
	p.cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for p.url == "" && lines.Scan() {
		fmt.Fprintln(p.log, lines.Text())
		if m := regexp.MustCompile(`msg=serving url=(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			p.url = m[1]
		}
	}
	go func() {
		for lines.Scan() {
			fmt.Fprintln(p.log, lines.Text())
		}
		p.ended <- p.cmd.Wait()
	}()
	if p.url == "" {
		t.Fatalf("it does not serve: %v\n%s", <-p.ended, p.log)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	return p
}

// stop ends it with SIGTERM, and checks that nothing of it is left.
func (p *frontProcess) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := <-p.ended; err != nil {
		t.Errorf("%v\n%s", err, p.log)
	}
	p.nothingLeft(t)
}

func (p *frontProcess) nothingLeft(t *testing.T) {
	t.Helper()
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(p.binary), "aob-serve-*")); err != nil || len(left) > 0 {
		t.Errorf("folders are left: %v, %v", left, err)
	}
	if pids := p.children(t); len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
	}
}

// children lists the processes of models that this front has started.
func (p *frontProcess) children(t *testing.T) (pids []string) {
	t.Helper()
	lists, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range lists {
		args, err := os.ReadFile(file)
		if err == nil && bytes.Contains(args, []byte(p.bundle)) && bytes.Contains(args, []byte("--socket")) {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}

// The clients that people have get what a model gives, and the command has a token.
func TestRealClients(t *testing.T) {
	python := venvtest.Python(t, "serveclients")
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret-7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startFront(t, "--token-file", token)
	image := testdata + "picture.jpg"
	cmd := exec.Command(python, "testdata/clients.py", p.url, "shapes", "7", image, "secret-7")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	var got struct {
		Triton struct {
			Shapes  [][]int
			Refused []string
		}
		KServe      struct{ Refused []string }
		Supervision struct {
			XYXY       [][4]float64
			Confidence []float64
			Class      []string
			ClassID    []int `json:"class_id"`
		}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"input input has shape", `unknown name "sequence_id"`, "the body is compressed",
		"has the value NaN at 0"} {
		if i >= len(got.Triton.Refused) || !strings.Contains(got.Triton.Refused[i], want) {
			t.Errorf("tritonclient was refused with %q, want %s", got.Triton.Refused, want)
		}
	}
	if len(got.KServe.Refused) != 1 || !strings.Contains(got.KServe.Refused[0], "inputs is missing or empty") {
		t.Errorf("KServe's client was refused with %q", got.KServe.Refused)
	}

	// The boxes are those that evaluation computes.
	d := detect.Detector{Binary: p.binary, Threads: 1}
	var sig delivery.Signature
	text, err := os.ReadFile(filepath.Join(p.bundle, delivery.SignatureFile))
	if err == nil {
		err = json.Unmarshal(text, &sig)
	}
	if err != nil {
		t.Fatal(err)
	}
	full, err := filepath.Abs(image)
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.Evaluate(t.Context(), detect.Request{Model: filepath.Join(p.bundle, delivery.ModelFile),
		Signature: sig, Images: []detect.ImageFile{{ID: 1, Path: full}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := all[0].Above(0.1)
	if len(want) == 0 || len(got.Supervision.XYXY) != len(want) {
		t.Fatalf("%d boxes, want %d", len(got.Supervision.XYXY), len(want))
	}
	for i, b := range want {
		for k, v := range []float64{b.X, b.Y, b.X + b.W, b.Y + b.H} {
			if math.Abs(got.Supervision.XYXY[i][k]-v) > 1e-9*math.Max(1, math.Abs(v)) {
				t.Errorf("box %d: %v, want %+v", i, got.Supervision.XYXY[i], b)
			}
		}
		if got.Supervision.Confidence[i] != b.Score || got.Supervision.Class[i] != b.Class ||
			got.Supervision.ClassID[i] != map[string]int{"red": 0, "blue": 1}[b.Class] {
			t.Errorf("box %d: %s %v, want %+v", i, got.Supervision.Class[i], got.Supervision.Confidence[i], b)
		}
	}
	p.stop(t)
	if strings.Contains(p.log.String(), "secret-7") {
		t.Errorf("the token is in the log:\n%s", p.log)
	}
}

// schemathesis makes requests out of /openapi.json, and finds no answer that is not in it.
func TestSchemathesis(t *testing.T) {
	program := venvtest.Program(t, "serveclients", "schemathesis")
	p := startFront(t)
	// The check that is left out says that what the document allows is accepted. It cannot say what an image is.
	config := `[parameters]
"path.model" = ["shapes", "other"]
"path.project" = ["shapes", "other"]
"path.version" = ["7", "8"]
`
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "schemathesis.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "run", p.url+"/openapi.json", "--checks", "all", "--exclude-checks",
		"positive_data_acceptance", "--max-examples", "20", "--seed", "1", "--phases", "examples,coverage,fuzzing",
		"--generation-database", "none", "--no-color")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || !regexp.MustCompile(`Tested: +\d\d`).Match(out) {
		t.Errorf("%v\n%s", err, out)
	}
	p.stop(t)
}

// A model whose process ends is started again, and calls wait for it.
func TestFrontRevivesItsModel(t *testing.T) {
	p := startFront(t)
	pids := p.children(t)
	if len(pids) != 1 {
		t.Fatalf("processes of models: %v", pids)
	}
	var pid int
	if _, err := fmt.Sscan(pids[0], &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	for p.children(t) == nil || slices.Equal(p.children(t), pids) { // until the new one is there
		runtime.Gosched()
	}
	if code, body := p.detect(t); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
	p.stop(t)
	if !strings.Contains(p.log.String(), "detector ended") {
		t.Errorf("the log does not say it: %s", p.log)
	}
}

// detect sends a picture.
func (p *frontProcess) detect(t *testing.T) (int, string) {
	t.Helper()
	image, err := os.ReadFile(testdata + "picture.jpg")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(p.url+"/v1/detect?confidence=0", "image/jpeg", bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// Operators change the model and the shadow of a running server, and see both.
func TestFrontControl(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "control")
	p := startFront(t, "--control", socket, "--triton-metrics")
	command := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(p.binary, append(args, "--control", socket)...).CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v", args, err)
		}
		return string(out)
	}
	if out := command("status"); !strings.HasPrefix(out, "main    shapes 7, from "+p.bundle) {
		t.Errorf("status: %s", out)
	}
	if out := command("load", "--model-version", "8", p.bundle); !strings.Contains(out, "shapes 8,") {
		t.Errorf("load: %s", out)
	}
	if code, body := p.detect(t); code != http.StatusOK || !strings.Contains(body, `"version":"8"`) {
		t.Errorf("%d %s", code, body)
	}
	if out := command(
		"shadow",
		"--share",
		"1",
		"--model-version",
		"9",
		p.bundle,
	); !strings.Contains(
		out,
		"shadow  shapes 9,",
	) {
		t.Errorf("shadow: %s", out)
	}
	var s serve.Status
	for p.detect(t); s.Shadow == nil || s.Shadow.Agreement.Images == 0; { // the shadow comes after the answer
		if err := json.Unmarshal([]byte(command("status", "-o", "json")), &s); err != nil {
			t.Fatal(err)
		}
	}
	if s.Shadow.F1 != 1 || s.Shadow.Agreement.Matched == 0 {
		t.Errorf("the same model agrees with itself: %+v", s.Shadow)
	}
	client := &http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}},
	}
	resp, err := client.Get("http://aob-detect/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`aob_detect_calls_total{outcome="ok",release="8",role="main"} 2`,
		`aob_detect_calls_total{outcome="ok",release="9",role="shadow"} 1`,
		`aob_detect_request_seconds_count{api="v1",code="200"} 2`, `nv_inference_count{model="shapes",version="8"} 2`} {
		if !strings.Contains(string(metrics), want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
	if out := command("shadow", "--off"); strings.Contains(out, "shadow") {
		t.Errorf("off: %s", out)
	}
	out, err := exec.Command(p.binary, "load", "--control", socket, t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "model.onnx: no such file") {
		t.Errorf("an empty folder: %v: %s", err, out)
	}
	p.stop(t)
	if out, err := exec.Command(p.binary, "status", "--control", socket).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "no server answers") {
		t.Errorf("without a server: %v: %s", err, out)
	}
}

// The frames of a folder, and of a command, are lines of JSON.
func TestRunFrames(t *testing.T) {
	p := startFront(t)
	defer p.stop(t)
	dir := t.TempDir()
	image, err := os.ReadFile(testdata + "picture.jpg")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"1.jpg": image, "2.jpg": image[:900]} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(p.binary, "run", "--bundle", p.bundle, "--source", dir, "--score", "0").Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 2 || !strings.Contains(lines[0], `"boxes":[{"class":`) ||
		!strings.Contains(lines[1], `"error":"truncated JPEG"`) {
		t.Errorf("%v: %s", err, out)
	}
	cmd := exec.Command(
		p.binary,
		"run",
		"--bundle",
		p.bundle,
		"--source",
		"exec",
		"--",
		"cat",
		filepath.Join(dir, "1.jpg"),
	)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(pipe).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, `{"frame":1,"at":`) {
		t.Errorf("%v: %s", err, line)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// Flags that are wrong are refused before anything starts.
func TestFrontFlags(t *testing.T) {
	bundle := t.TempDir()
	empty := filepath.Join(bundle, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string // in the error
		args []string
	}{
		{"at least one of the flags in the group [listen socket] is required", nil},
		{"[listen socket] were all set", []string{"--listen", ":0", "--socket", "s"}},
		{"--listen: listen tcp", []string{"--listen", "nowhere.invalid:1"}},
		{"contains no token", []string{"--listen", ":0", "--token-file", empty}},
		{"--token-file: open", []string{"--listen", ":0", "--token-file", empty + "x"}},
		{"--tls-cert and --tls-key: open", []string{"--listen", ":0", "--tls-cert", empty + "x"}},
		{"--max-body: want a size", []string{"--listen", ":0", "--max-body", "much"}},
		{"--max-request-memory not below --max-body", []string{"--listen", ":0", "--max-request-memory", "1MiB"}},
		{"--name and --model-version have to be", []string{"--listen", ":0", "--name", "a/b"}},
	} {
		cmd := newCommand()
		cmd.SetArgs(append([]string{"serve", "--bundle", bundle}, c.args...))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %s", c.args, err, c.want)
		}
	}
	for address, want := range map[string]string{"8380": "127.0.0.1:8380", ":8380": "127.0.0.1:8380",
		"0.0.0.0:8380": "0.0.0.0:8380", "[::1]:8380": "[::1]:8380"} {
		if got := onThisMachine(address); got != want {
			t.Errorf("%s: %s", address, got)
		}
	}
}

// With TLS there is no answer without it.
func TestFrontTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, cert, key)
	p := startFront(t, "--tls-cert", cert, "--tls-key", key)
	client := trusting(t, cert)
	resp, err := client.Get(p.url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(p.url, "https://") {
		t.Errorf("%s: %s", p.url, resp.Status)
	}
	if resp, err := http.Get(strings.Replace(p.url, "https", "http", 1) + "/readyz"); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("without TLS: %s", resp.Status)
		}
	}
	client.CloseIdleConnections()
	p.stop(t)
}

// writePair writes a certificate for this machine and its key.
func writePair(t *testing.T, cert, key string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	made, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: made},
		key: {Type: "PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// trusting is a client that trusts the certificate.
func trusting(t *testing.T, cert string) *http.Client {
	t.Helper()
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

// What docs/serving.md says works.
func TestServingPage(t *testing.T) {
	python := venvtest.Python(t, "serveclients")
	page, err := os.ReadFile("../../docs/serving.md")
	if err != nil {
		t.Fatal(err)
	}
	p := startFront(t)
	dir := filepath.Dir(p.binary)
	image, err := os.ReadFile(testdata + "picture.jpg")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "image.jpg"), image, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("127.0.0.1:8380", strings.TrimPrefix(p.url, "http://"), `shapes/2`, `shapes/7`).Replace(
		string(page))
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil || !regexp.MustCompile(`\(1, 6, 4\)|\[\[|"ready"|"detections":\[{|"predictions":\[{`).Match(out) {
			t.Errorf("%q: %v\n%s%s", args, err, out, &errs)
		}
	}
	ran := 0
	block := regexp.MustCompile("(?s)```python\n(.*?)```")
	for _, script := range block.FindAllStringSubmatch(text, -1) {
		run(python, "-c", script[1])
		ran++
	}
	for line := range strings.Lines(block.ReplaceAllString(text, "")) {
		command, indented := strings.CutPrefix(line, "    ")
		switch {
		case !indented || strings.HasPrefix(command, "bin/aob bundle pull"):
		case strings.HasPrefix(command, "bin/aob-detect "):
			// serve runs already, and tests above run the others; here the flags are checked.
			cmd := newCommand()
			found, rest, err := cmd.Find(strings.Fields(command)[1:])
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err != nil {
				t.Errorf("%s: %v", command, err)
			}
			ran++
		default:
			run("/bin/bash", "-ec", command)
			ran++
		}
	}
	if ran != 13 {
		t.Errorf("the page has %d commands", ran)
	}
	p.stop(t)
}
