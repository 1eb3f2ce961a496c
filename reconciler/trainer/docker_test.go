package trainer

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// dockerd answers docker's command as its service does, and keeps the container that it is asked to make. It starts
// none.
type dockerd struct {
	mu    sync.Mutex
	asked []string
	made  map[string]any
}

func (d *dockerd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/") // after the version of the API
	d.asked = append(d.asked, r.Method+" /"+path+"?"+r.URL.RawQuery)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Api-Version", "1.43")
	switch {
	case strings.HasSuffix(r.URL.Path, "/_ping"):
		fmt.Fprint(w, "OK")
	case path == "containers/json":
		fmt.Fprintf(w, `[{"Id": "1", "Names": ["/%s"], "Labels": {%q: "/runs/1/attempts/1"}},
			{"Id": "2", "Names": ["/other"], "Labels": {%q: "/runs/2/attempts/1"}}]`, Name("/runs/1/attempts/1"),
			LabelAttempt, LabelAttempt)
	case path == "containers/create":
		if err := json.NewDecoder(r.Body).Decode(&d.made); err != nil {
			http.Error(w, `{"message": "no JSON"}`, http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"message": "this one starts nothing"}`)
	case r.Method == http.MethodDelete || strings.HasSuffix(path, "/kill"):
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message": "No such container: gone"}`)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message": "No such image"}`)
	}
}

// docker starts a service for docker's command, which reads its address from DOCKER_HOST.
func docker(t *testing.T) (engine string, d *dockerd) {
	t.Helper()
	engine, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("docker is not installed: apt-get install docker.io, to run this test")
	}
	dir, err := os.MkdirTemp("", "aob-docker-") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	d = &dockerd{}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: d}}
	server.Start()
	t.Cleanup(server.Close)
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	t.Setenv("DOCKER_CONFIG", dir)
	return engine, d
}

// What docker asks its service for is the container that the page about trainers promises. No service runs here, so its
// own command is the judge of the arguments, and the container is what the command sends.
func TestDockerMakesTheContainer(t *testing.T) {
	engine, d := docker(t)
	t.Setenv("HF_TOKEN", "s3cr3t")
	argv, err := Container{Engine: engine, Image: "ghcr.io/a/t@sha256:" + strings.Repeat("a", 64),
		Limits: Limits{Memory: 1 << 30, CPUs: 2, Processes: 64}}.Argv(Place{Attempt: "/runs/1/attempts/1",
		Runs: "/runs", Program: []string{"python3", "/trainer/train.py", "/runs/1/run.json"},
		Read: []string{"/trainer", "/data/train"}, Write: "/runs/1/output", Env: []string{"OMP_NUM_THREADS=1"},
		Secrets: []string{"HF_TOKEN"}, UID: 1000, GID: 1001, Files: 128, Threads: 96})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.made == nil {
		t.Fatalf("docker asks for no container: %v: %s; it asked %q", err, out, d.asked)
	}
	host := d.made["HostConfig"].(map[string]any)
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"the image", d.made["Image"], "ghcr.io/a/t@sha256:" + strings.Repeat("a", 64)},
		{"the user", d.made["User"], "1000:1001"},
		{"the program", fmt.Sprint(d.made["Entrypoint"], d.made["Cmd"]),
			"[python3] [/trainer/train.py /runs/1/run.json]"},
		{"the folder", d.made["WorkingDir"], "/runs/1/output"},
		{"the network", host["NetworkMode"], "none"},
		{"the root", host["ReadonlyRootfs"], true},
		{"privileges", fmt.Sprint(host["Privileged"], host["CapAdd"], host["CapDrop"], host["SecurityOpt"]),
			"false <nil> [ALL] [no-new-privileges]"},
		{"memory and swap", fmt.Sprint(host["Memory"], host["MemorySwap"], host["ShmSize"]),
			"1.073741824e+09 1.073741824e+09 1.073741824e+09"},
		{"processes and processors", fmt.Sprint(host["PidsLimit"], host["NanoCpus"]), "64 2e+09"},
		{"limits", fmt.Sprint(host["Ulimits"]),
			"[map[Hard:128 Name:nofile Soft:128] map[Hard:96 Name:nproc Soft:96]]"},
		{"its removal", host["AutoRemove"], true},
		{"devices", fmt.Sprint(host["Devices"], host["Binds"]), "[] <nil>"},
		{"other names", fmt.Sprintf("%v,%v,%v,%v", host["PidMode"], host["IpcMode"], host["UTSMode"],
			host["UsernsMode"]), ",,,"},
		{"the log", fmt.Sprint(host["LogConfig"].(map[string]any)["Type"]), "none"},
		{"mounts", fmt.Sprint(host["Mounts"]), "[map[ReadOnly:true Source:/trainer Target:/trainer Type:bind] " +
			"map[ReadOnly:true Source:/data/train Target:/data/train Type:bind] " +
			"map[Source:/runs/1/output Target:/runs/1/output Type:bind]]"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
	var env []string
	for _, v := range d.made["Env"].([]any) {
		env = append(env, v.(string))
	}
	for _, want := range []string{"HF_TOKEN=s3cr3t", "OMP_NUM_THREADS=1", "HOME=/tmp", "https_proxy="} {
		if !slices.Contains(env, want) {
			t.Errorf("the container has no %s: %q", want, env)
		}
	}
	if strings.Contains(strings.Join(argv, " "), "s3cr3t") {
		t.Error("the secret is on the command line")
	}
}

// Containers that were left are found by docker's command, and what is gone is no error.
func TestDockerRemovesLeftContainers(t *testing.T) {
	engine, d := docker(t)
	if (Containers{Engine: engine}).Has(t.Context(), "a/b@sha256:"+strings.Repeat("a", 64)) {
		t.Error("an image is there that is not")
	}
	var ended []string
	err := RemoveLeft(engine, os.Environ(), "/runs", func(attempt string) bool {
		ended = append(ended, attempt)
		return true
	})
	if err != nil || !slices.Equal(ended, []string{"/runs/1/attempts/1"}) {
		t.Errorf("asked whether %q have ended, %v", ended, err)
	}
	if err := RemoveContainer(engine, os.Environ(), "gone"); err != nil {
		t.Errorf("of a container that is gone: %v", err)
	}
	if err := TerminateContainer(engine, os.Environ(), "gone"); err == nil {
		t.Error("a container that is gone was told to end")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.ContainsFunc(d.asked, func(ask string) bool {
		return strings.HasPrefix(ask, "DELETE /containers/"+Name("/runs/1/attempts/1")+"?") &&
			strings.Contains(ask, "force=1")
	}) {
		t.Errorf("it was asked %q", d.asked)
	}
}
