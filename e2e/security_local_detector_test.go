package e2e

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/autonomos/aob/reconciler/delivery"
)

// pageRefused: a server without a token answers programs of its machine, and no pages of others.
func pageRefused(p *place) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.Fatal(err)
	}
	metrics := l.Addr().String()
	l.Close()
	cmd := exec.Command(filepath.Join(p.bin, "aob-detect"), "serve", "--bundle", p.front().bundle, "--listen", ":0",
		"--name", "shapes", "--drain", "0s", "--metrics", metrics)
	cmd.Env = append(os.Environ(), "TMPDIR="+p.TempDir())
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
		_ = cmd.Wait()
	}()
	var url string
	for lines := bufio.NewScanner(out); url == "" && lines.Scan(); {
		if m := regexp.MustCompile(`msg=serving url=(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			url = m[1]
		}
	}
	if url == "" {
		p.Fatal("it does not serve")
	}
	go io.Copy(io.Discard, out)
	ask := func(method, url, host, site string) (int, string) {
		req, err := http.NewRequest(method, url, bytes.NewReader(p.picture()))
		if err != nil {
			p.Fatal(err)
		}
		if req.Host = host; site != "" {
			req.Header.Set("Sec-Fetch-Site", site)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			p.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			p.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, path := range []string{"POST " + url + "/v1/detect", "GET " + url + "/v2",
		"GET http://" + metrics + "/metrics"} {
		method, address, _ := strings.Cut(path, " ")
		if code, body := ask(method, address, "localhost", ""); code != http.StatusOK {
			p.Errorf("%s: %d %.200s", path, code, body)
		}
		for _, page := range [][2]string{{"evil.example", ""}, {"evil.example", "same-origin"},
			{"localhost", "cross-site"}} {
			if code, body := ask(method, address, page[0], page[1]); code != http.StatusForbidden ||
				strings.Contains(body, "shapes") {
				p.Errorf("%s as %v: %d %.200s", path, page, code, body)
			}
		}
	}
}

// folderChanges: files that were changed after they were loaded do not serve because the model's process ends.
func folderChanges(p *place) {
	f := p.front()
	p.serves()
	thresholds := filepath.Join(f.bundle, delivery.ThresholdsFile)
	if err := os.WriteFile(thresholds, []byte(`{"red":0.99}`), 0o600); err != nil {
		p.Fatal(err)
	}
	lists, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.Fatal(err)
	}
	before := strings.Count(f.log(), "have changed since")
	ended := 0
	for _, file := range lists {
		args, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(args, []byte(f.bundle)) || !bytes.Contains(args, []byte("--socket")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			p.Fatal(err)
		}
		ended++
	}
	if ended != 1 {
		p.Errorf("%d processes of models", ended)
	}
	for strings.Count(f.log(), "have changed since") == before { // it takes some tenths of a second
		p.ask("GET", "/healthz", "", nil)
	}
	if code, answer := p.ask("GET", "/readyz", "", nil); code != http.StatusServiceUnavailable {
		p.Errorf("changed files serve: %d %s", code, answer)
	}
	if err := os.Remove(thresholds); err != nil {
		p.Fatal(err)
	}
	if out, err := p.operate("load", f.bundle, "--model-version", "1"); err != nil {
		p.Errorf("as it was: %s", out)
	}
	p.serves()
}

// folderLinks: a link to another file in a bundle's place is refused, and nobody is told its content.
func folderLinks(p *place) {
	f := p.front()
	secret := filepath.Join(f.dir, "token")
	for _, name := range []string{delivery.LabelsFile, delivery.SignatureFile, delivery.ThresholdsFile,
		delivery.GoldenFile, delivery.ModelFile} {
		dir := filepath.Join(p.TempDir(), "bundle")
		p.pack(dir, "detector.onnx", nil)
		file := filepath.Join(dir, name)
		_ = os.Remove(file) // there may be no thresholds
		if err := os.Symlink(secret, file); err != nil {
			p.Fatal(err)
		}
		out, err := p.operate("load", dir)
		if err == nil || strings.Contains(out+f.log(), frontToken) {
			p.Errorf("%s: %v, %s", name, err, out)
		}
		p.serves()
	}
}
