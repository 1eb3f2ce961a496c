package trainer

import (
	"errors"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

const someImage = "ghcr.io/acme/rfdetr@sha256:11af3427fcfee59e0e3ac28b527bfe1d20bcdf370d68f0b7b7bfa676626abb9b"

func place() Place {
	return Place{Attempt: "/s/runs/train-1/attempts/1", Runs: "/s/runs",
		Program: []string{"python3", "/s/trainers/1/tiny/train.py", "/s/runs/train-1/run.json"},
		Read:    []string{"/s/trainers/1/tiny", "/s/runs/train-1/run.json", "/s/data"},
		Write:   "/s/runs/train-1/output", Env: []string{"OMP_NUM_THREADS=1"}, Secrets: []string{"HF_TOKEN"}, UID: 1000,
		GID: 100, Files: 1024, Threads: 32768}
}

// The whole command, word by word: what it leaves out is as much of the promise as what it has.
func TestArgv(t *testing.T) {
	head := "run --rm --name aob-801b2a06969efc11d1b27be4 --label dev.aob.training=/s/runs/train-1/attempts/1 " +
		"--label dev.aob.runs=/s/runs --pull never --network none --read-only --cap-drop ALL " +
		"--security-opt no-new-privileges "
	limits := "--memory 17179869184 --memory-swap 17179869184 --pids-limit 4096 "
	rest := "--ulimit nofile=1024:1024 --ulimit nproc=32768:32768 --shm-size 17179869184 " +
		"--tmpfs /tmp:rw,exec,nosuid,nodev,size=17179869184 --log-driver none "
	env := "--env HOME=/tmp --env USER=aob --env LANG=C.UTF-8 --env OMP_NUM_THREADS=1 "
	mounts := "--mount type=bind,source=/s/trainers/1/tiny,target=/s/trainers/1/tiny,readonly " +
		"--mount type=bind,source=/s/runs/train-1/run.json,target=/s/runs/train-1/run.json,readonly " +
		"--mount type=bind,source=/s/data,target=/s/data,readonly " +
		"--mount type=bind,source=/s/runs/train-1/output,target=/s/runs/train-1/output " +
		"--workdir /s/runs/train-1/output --entrypoint python3 " + someImage +
		" /s/trainers/1/tiny/train.py /s/runs/train-1/run.json"
	noProxies := ""
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
		noProxies += "--env " + name + "= --env " + strings.ToLower(name) + "= "
	}
	for name, c := range map[string]struct {
		change func(*Container, *Place)
		want   string
	}{
		"podman": {func(*Container, *Place) {}, "/usr/bin/podman " + head + "--user 1000:100 --userns keep-id " +
			limits + rest + "--http-proxy=false " + env + "--env HF_TOKEN " + mounts},
		"podman of root, a GPU and two processors": {func(c *Container, p *Place) {
			p.UID, p.GID, c.Limits.CPUs, c.Limits.Device = 0, 0, 2, "nvidia.com/gpu=all"
		}, "/usr/bin/podman " + head + "--user 0:0 " + limits + "--cpus 2 " + rest +
			"--device nvidia.com/gpu=all --http-proxy=false " + env + "--env HF_TOKEN " + mounts},
		"docker": {func(c *Container, p *Place) { c.Engine, p.Threads = "/usr/bin/docker", 500 },
			"/usr/bin/docker " + head + "--user 1000:100 " + limits +
				strings.Replace(rest, "32768:32768", "500:500", 1) + env + noProxies + "--env HF_TOKEN " + mounts},
	} {
		t.Run(name, func(t *testing.T) {
			run, p := Container{Engine: "/usr/bin/podman", Image: someImage,
				Limits: Limits{Memory: 16 << 30, Processes: 4096}}, place()
			c.change(&run, &p)
			got, err := run.Argv(p)
			if err != nil || strings.Join(got, " ") != c.want {
				t.Errorf("got  %s\nwant %s\n%v", strings.Join(got, " "), c.want, err)
			}
			knownFlags(t, run.Engine, got)
		})
	}
	for _, path := range []string{"/s/a,readonly=false", "/s/a\"b", "/s/a\nb", "data"} {
		p := place()
		p.Read = append(p.Read, path)
		_, err := (Container{Engine: "/usr/bin/podman", Image: someImage}).Argv(p)
		if _, blocked := errors.AsType[delivery.Blocked](err); !blocked {
			t.Errorf("%q: %v", path, err)
		}
	}
}

// knownFlags checks the flags against the engine's own help, where it is installed.
func knownFlags(t *testing.T, engine string, argv []string) {
	t.Helper()
	help, err := exec.Command(engine, "run", "--help").Output()
	if err != nil {
		t.Logf("%s is not here, so its flags are not compared", engine)
		return
	}
	for _, word := range argv[:slices.Index(argv, someImage)] {
		flag, _, _ := strings.Cut(word, "=")
		if strings.HasPrefix(flag, "--") && !regexp.MustCompile(`(?m)^ +(-., )?`+flag+`\b`).Match(help) {
			t.Errorf("%s has no flag %s", engine, flag)
		}
	}
}

func TestFillContainers(t *testing.T) {
	trainers := func() intent.Trainers {
		return intent.Trainers{"rfdetr@1": {Trainer: delivery.Trainer{Name: "rfdetr", Unusable: "no Python 3.11",
			Runs: &delivery.Environment{Lock: "sha256:1"}}}, "tiny@1": {}}
	}
	c := Containers{Engine: "/usr/bin/podman", Images: map[string]string{"rfdetr@1": someImage}}
	list := trainers()
	if err := c.Fill(list); err != nil {
		t.Fatal(err)
	}
	got := list["rfdetr@1"]
	if got.Runs.Image != DigestOf(someImage) || got.Runs.Lock != "" || got.Runs.Platform == "" || got.Unusable != "" ||
		list["tiny@1"].Runs != nil {
		t.Errorf("got %+v", list)
	}
	c.Engine = ""
	if err := c.Fill(list); err != nil || !strings.Contains(list["rfdetr@1"].Unusable, "neither podman nor docker") {
		t.Errorf("without an engine: %v, %+v", err, list["rfdetr@1"])
	}
	c.Images = map[string]string{"rfdetr@2": someImage}
	if err := c.Fill(trainers()); err == nil || !strings.Contains(err.Error(), "there is no trainer rfdetr@2") {
		t.Errorf("an image of no trainer: %v", err)
	}
}
