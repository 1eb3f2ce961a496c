package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
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
		"--model-version", "7", "--threads", "1"}, flags...)...)
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

// When the model's process dies so does the front, with an error.
func TestFrontEndsWithItsModel(t *testing.T) {
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
	err := <-p.ended
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 ||
		!strings.Contains(p.log.String(), "aob-detect serve: it ") {
		t.Errorf("%v\n%s", err, p.log)
	}
	p.nothingLeft(t)
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
		case strings.HasPrefix(command, "bin/aob-detect serve"):
			// It runs already, with these flags.
			cmd := newCommand()
			serve, rest, err := cmd.Find(strings.Fields(command)[1:])
			if err == nil {
				err = serve.ParseFlags(rest)
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
	if ran != 7 {
		t.Errorf("the page has %d commands", ran)
	}
	p.stop(t)
}
