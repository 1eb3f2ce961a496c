package terraform

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/autonomos/aob/tools/moto/front"
	"github.com/autonomos/aob/tools/moto/mototest"
	"github.com/autonomos/aob/tools/venvtest"
)

// The longest values fit into what EC2 takes, and shellcheck finds nothing in the script.
func TestUserData(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	v := EC2{Run: long(40), Attempt: 999, Home: "/opt/aob", Expires: "2036-11-30T18:00:00Z",
		Bucket: long(63), Inputs: long(1024), Outputs: long(1024), Manifest: long(64),
		Image: long(280), Region: long(20), Minutes: 10080, Silence: 120}
	data := v.UserData()
	if len(data) > 16384 {
		t.Errorf("the user data has %d bytes, EC2 takes 16384", len(data))
	}
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("no shellcheck on PATH: tools/install.sh installs it")
	}
	cmd := exec.Command(shellcheck, "--shell=sh", "-")
	cmd.Stdin = strings.NewReader(data)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

// A boot is one start of the user data, as a child process in place of an instance. Programs that change a machine
// (shutdown, systemctl, systemd-run, docker) only write down what they are told; aws, tar and curl are the real ones.
type boot struct {
	home, calls string
	env         []string
	data        string // the user data
	client      *s3.Client
	notice      atomic.Bool // whether the spot instance is about to be taken away
}

// trainerScript is the payload: it goes on from a checkpoint, and at SIGTERM it writes one.
const trainerScript = `import json, os, signal, sys, time
run = json.load(open(sys.argv[1]))
start = int(open("checkpoint").read()) if os.path.exists("checkpoint") else 0
def save(epoch):
    open("checkpoint.new", "w").write(str(epoch)); os.replace("checkpoint.new", "checkpoint")
    json.dump({"phase": "training", "epoch": epoch}, open("status.json", "w"))
def end(*_):
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
if run.get("fail"):
    sys.exit(3)
def link(): # makes its heartbeat a link to a file of root's, and once the link is copied, a file
    victim, copy = os.path.abspath("../victim"), "../boot/status.json"
    open(victim, "w").write("root's")
    os.symlink(victim, "status.json")
    while not os.path.islink(copy):
        time.sleep(0.01)
    open("status.new", "w").write("the trainer's"); os.replace("status.new", "status.json")
    while open(victim).read() == "root's" and (os.path.islink(copy) or not os.path.exists(copy)):
        time.sleep(0.01)
if run.get("link"):
    link()
for epoch in range(start + 1, run["epochs"] + 1):
    time.sleep(run["seconds"])
    save(epoch)
json.dump({"started": start}, open("train.json", "w"))
`

func newBoot(t *testing.T, m *mototest.Server, spec map[string]any, change func(inputs map[string][]byte,
	v *EC2)) *boot {
	t.Helper()
	b := &boot{home: filepath.Join(t.TempDir(), "aob"), client: s3.New(s3.Options{Region: testRegion,
		BaseEndpoint: &m.URL, UsePathStyle: true, Credentials: credentials.NewStaticCredentialsProvider("id", "key",
			"")})}
	b.calls = b.home + ".calls"
	m.Bucket(t, "runs-"+filepath.Base(t.Name()))
	v := EC2{Run: "train-1", Attempt: 1, Home: b.home, Expires: "2036-11-30T18:00:00Z", Minutes: 480,
		Silence: 15, Region: testRegion, Bucket: "runs-" + filepath.Base(t.Name()),
		Inputs: "r/input/", Outputs: "r/output/"}
	run, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	inputs := map[string][]byte{"run.json": run, "trainer/train.py": []byte(trainerScript),
		"environment.tar.000": environment(t)}
	var sums bytes.Buffer
	for name, data := range inputs {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), name)
	}
	inputs["SHA256SUMS"] = sums.Bytes()
	v.Manifest = fmt.Sprintf("%x", sha256.Sum256(sums.Bytes()))
	if change != nil {
		change(inputs, &v)
	}
	for name, data := range inputs {
		m.Put(t, v.Bucket, v.Inputs+name, string(data))
	}
	b.data = strings.NewReplacer("AOB_SECONDS='15'", "AOB_SECONDS='1'").Replace(v.UserData())
	bin := b.home + ".bin"
	if err := front.Programs(t, bin, b.home, b.home); err != nil {
		t.Fatal(err)
	}
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		front.Metadata(w, r, b.notice.Load())
	}))
	t.Cleanup(metadata.Close)
	b.env = []string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + b.home, "AWS_ENDPOINT_URL=" + m.URL,
		"AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=key", "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + metadata.URL}
	return b
}

// environment is a tar file with a Python.
func environment(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	python := "#!/bin/sh\nexec /usr/bin/python3 \"$@\"\n"
	if err := w.WriteHeader(&tar.Header{Name: "bin/python", Mode: 0o755, Size: int64(len(python))}); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, python)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// start starts the user data as cloud-init does: as a file.
func (b *boot) start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	script := b.home + ".part-001"
	if err := os.WriteFile(script, []byte(b.data), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(script, args...)
	cmd.Env = b.env
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

// told returns what the programs were told, line by line.
func (b *boot) told(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(b.calls)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(strings.ReplaceAll(string(data), b.home, "HOME")), "\n")
}

// output returns an object below the run's outputs; "" if there is none.
func (b *boot) output(t *testing.T, name string) string {
	t.Helper()
	got, err := b.client.GetObject(t.Context(),
		&s3.GetObjectInput{Bucket: aws.String("runs-" + filepath.Base(t.Name())),
			Key: aws.String("r/output/" + name)})
	if err != nil {
		return ""
	}
	defer got.Body.Close()
	data, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// until waits for a file of the boot's home, which a script writes. A script that is stuck fails the test.
func (b *boot) until(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !exists(filepath.Join(b.home, name)) {
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("%s does not appear", name)
		}
	}
}

// The user data is run for real: it trains, copies, resumes, and ends the instance whatever happens.
func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	m := mototest.Start(t)
	venvtest.Program(t, "awscli", "aws")
	t.Run("trained", func(t *testing.T) {
		t.Parallel()
		b := newBoot(t, m, map[string]any{"epochs": 4, "seconds": 0.01}, nil)
		m.Put(t, "runs-trained", "r/output/checkpoint", "2")
		m.Put(t, "runs-trained", "r/output/status.json", "old")
		_ = b.start(t).Wait()
		want := []string{"shutdown -P +480",
			"systemctl link HOME/aob-expiry.service", "systemctl link HOME/aob-watchdog.service",
			"systemctl daemon-reload", "systemctl enable --now HOME/aob-expiry.timer HOME/aob-watchdog.timer",
			"chown -R nobody HOME/output",
			"systemd-run --quiet --pipe --wait --collect --unit aob-trainer --uid nobody" +
				" --property PrivateNetwork=yes --property NoNewPrivileges=yes --property ProtectSystem=strict" +
				" --property PrivateTmp=yes --setenv HOME=/tmp --setenv USER=aob --setenv LANG=C.UTF-8" +
				" --property ReadWritePaths=HOME/output --property WorkingDirectory=HOME/output" +
				" HOME/environment/bin/python HOME/input/trainer/train.py HOME/input/run.json",
			"shutdown -P now"}
		if got := b.told(t); !slices.Equal(got, want) {
			t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		wantText(t, "exit.json", b.output(t, "boot/1/exit.json"), `{"code":0,"reason":"the trainer ended"}`+"\n")
		wantText(t, "train.json", b.output(t, "train.json"), `{"started": 2}`)
		if log := b.output(t, "boot/1/boot.log"); !strings.Contains(log, "fetch the inputs") {
			t.Errorf("boot.log: %s", log)
		}
		timer, err := os.ReadFile(filepath.Join(b.home, "aob-expiry.timer"))
		if err != nil || !strings.Contains(string(timer), "OnCalendar=2036-11-30 18:00:00 UTC\nPersistent=true\n") {
			t.Errorf("the timer of the expiry: %v\n%s", err, timer)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		b := newBoot(t, m, map[string]any{"epochs": 100000, "seconds": 0.05}, nil)
		cmd := b.start(t)
		b.until(t, "output/checkpoint")
		b.notice.Store(true)
		_ = cmd.Wait()
		wantText(t, "exit.json", b.output(t, "boot/1/exit.json"),
			`{"code":143,"reason":"the spot instance was interrupted"}`+"\n")
		last, err := os.ReadFile(filepath.Join(b.home, "output", "checkpoint"))
		if err != nil || b.output(t, "checkpoint") != string(last) {
			t.Errorf("checkpoint %q in S3, %q on the instance, %v", b.output(t, "checkpoint"), last, err)
		}
		if got := b.told(t); got[len(got)-1] != "shutdown -P now" || !slices.Contains(got,
			"systemctl stop aob-trainer") {
			t.Errorf("told %s", strings.Join(got, "\n"))
		}
	})
	for _, test := range []struct {
		name, want string
		change     func(map[string][]byte, *EC2)
	}{
		{"another-manifest", `{"code":1,"reason":"input/SHA256SUMS is not the list that the run was started with"}`,
			func(_ map[string][]byte, v *EC2) { v.Manifest = strings.Repeat("0", 64) }},
		{"another-input", `{"code":1,"reason":"an input differs from input/SHA256SUMS"}`,
			func(inputs map[string][]byte, _ *EC2) { inputs["trainer/train.py"] = []byte("import evil") }},
		{"one-more-input", `{"code":1,"reason":"there are inputs that input/SHA256SUMS does not list"}`,
			func(inputs map[string][]byte, _ *EC2) { inputs["trainer/json.py"] = []byte("import evil") }},
		{"no-inputs", ``, func(_ map[string][]byte, v *EC2) { v.Bucket = "no-such-bucket" }},
		{"failed", `{"code":3,"reason":"the trainer ended"}`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBoot(t, m, map[string]any{"fail": true}, func(inputs map[string][]byte, v *EC2) {
				if test.change != nil {
					test.change(inputs, v)
				}
				if v.Bucket == "no-such-bucket" {
					clear(inputs)
				}
			})
			_ = b.start(t).Wait()
			wantText(t, "exit.json", strings.TrimSpace(b.output(t, "boot/1/exit.json")), test.want)
			got := b.told(t)
			if got[0] != "shutdown -P +480" || got[len(got)-1] != "shutdown -P now" {
				t.Errorf("told %s", strings.Join(got, "\n"))
			}
			ran := slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "systemd-run") })
			if ran != (test.name == "failed") {
				t.Errorf("the trainer was started: %t", ran)
			}
		})
	}
	t.Run("linked", func(t *testing.T) {
		t.Parallel()
		b := newBoot(t, m, map[string]any{"epochs": 1, "seconds": 0.01, "link": true}, nil)
		_ = b.start(t).Wait()
		victim, err := os.ReadFile(filepath.Join(b.home, "victim"))
		if err != nil || string(victim) != "root's" {
			t.Errorf("the trainer wrote %q into a file of root's, %v", victim, err)
		}
		wantText(t, "train.json", b.output(t, "train.json"), `{"started": 0}`)
	})
	t.Run("image", func(t *testing.T) {
		t.Parallel()
		const image = "1.dkr.ecr.eu-central-1.amazonaws.com/rfdetr@sha256:0123"
		b := newBoot(t, m, map[string]any{"epochs": 1, "seconds": 0.01}, func(_ map[string][]byte,
			v *EC2) {
			v.Image = image
		})
		_ = b.start(t).Wait()
		wantText(t, "train.json", b.output(t, "train.json"), `{"started": 0}`)
		got := strings.Join(b.told(t), "\n")
		registry, _, _ := strings.Cut(image, "/")
		for _, want := range []string{"docker login --username AWS --password-stdin " + registry +
			"\ndocker pull --quiet " + image + "\ndocker logout " + registry + "\n", "docker run --rm --name " +
			"aob-trainer --gpus all --network none --cap-drop ALL --security-opt no-new-privileges",
			"--volume HOME/input:HOME/input:ro", "--env HOME=/tmp --env USER=aob --env LANG=C.UTF-8",
			"--entrypoint python3 " + image + " HOME/input/trainer/train.py HOME/input/run.json"} {
			if !strings.Contains(got, want) {
				t.Errorf("told\n%s\nwithout %s", got, want)
			}
		}
	})
}

// The watchdog ends an instance without a heartbeat, whatever the boot script does.
func TestWatchdog(t *testing.T) {
	old := time.Now().Add(-16 * time.Minute)
	for _, test := range []struct {
		name   string
		files  map[string]time.Time
		verb   string
		ending bool
	}{
		{"booting", map[string]time.Time{"heartbeat": time.Now()}, "watch", false},
		{"training", map[string]time.Time{"heartbeat": old, "output/status.json": time.Now()}, "watch", false},
		{"stuck boot", map[string]time.Time{"heartbeat": old}, "watch", true},
		{"dead trainer", map[string]time.Time{"heartbeat": old, "output/status.json": old}, "watch", true},
		{"nothing", nil, "watch", true},
		{"expired", map[string]time.Time{"heartbeat": time.Now()}, "expire", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			home := t.TempDir()
			b := &boot{home: home, calls: home + ".calls"}
			b.data = EC2{Silence: 15, Home: home}.UserData()
			bin := home + ".bin"
			if err := os.MkdirAll(filepath.Join(home, "output"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(bin, 0o700); err != nil {
				t.Fatal(err)
			}
			err := os.WriteFile(filepath.Join(bin, "shutdown"),
				[]byte("#!/bin/sh\necho \"shutdown $*\" >>"+b.calls+"\n"), 0o700)
			if err != nil {
				t.Fatal(err)
			}
			for name, at := range test.files {
				if err := os.WriteFile(filepath.Join(home, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(filepath.Join(home, name), at, at); err != nil {
					t.Fatal(err)
				}
			}
			b.env = []string{"PATH=" + bin + ":/usr/bin:/bin"}
			if err := b.start(t, test.verb).Wait(); err != nil {
				t.Fatal(err)
			}
			if got := b.told(t); slices.Equal(got, []string{"shutdown -P now"}) != test.ending {
				t.Errorf("told %q, want the instance ended: %t", got, test.ending)
			}
		})
	}
}

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}
