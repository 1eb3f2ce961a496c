package e2e

import (
	"regexp"
	"strings"

	trainers "github.com/autonomos/aob/reconciler/trainer"
)

// The checks of a trainer in a container look at the command that its engine gets, for each engine. TestContained runs
// it, where podman is installed.

// contained gives the command to a check, without its head.
func contained(p *place, check func(engine, command string)) {
	p.Helper()
	for _, engine := range []string{"/usr/bin/podman", "/usr/bin/docker"} {
		argv, err := trainers.Container{Engine: engine, Image: "localhost/t@sha256:" + strings.Repeat("a", 64),
			Limits: trainers.Limits{Memory: 1 << 30, Processes: 64}}.Argv(trainers.Place{
			Attempt: "/state/runs/1/attempts/1", Runs: "/state/runs", Program: []string{"python3", "/trainer/train.py"},
			Read: []string{"/trainer", "/state/runs/1/run.json", "/data/train"}, Write: "/state/runs/1/output",
			Env: []string{"OMP_NUM_THREADS=1"}, Secrets: []string{"HF_TOKEN"}, UID: 1000, GID: 1000, Files: 64,
			Threads: 64})
		if err != nil {
			p.Fatal(err)
		}
		check(engine, strings.Join(argv, " ")+" ")
	}
}

// has checks that the command has each of these words.
func has(words ...string) func(*place) {
	return func(p *place) {
		contained(p, func(engine, command string) {
			for _, word := range words {
				if !strings.Contains(command, " "+word+" ") {
					p.Errorf("%s gets no %q: %s", engine, word, command)
				}
			}
			for _, never := range []string{"--privileged", "--cap-add", "host", "docker.sock", "aob.sock", " --pid "} {
				if strings.Contains(strings.ReplaceAll(command, "localhost/", ""), never) {
					p.Errorf("%s gets %q: %s", engine, never, command)
				}
			}
		})
	}
}

// containerSees: the program sees what its training was given, and of the state folder only its own run.
func containerSees(p *place) {
	contained(p, func(engine, command string) {
		var mounts []string
		for _, found := range regexp.MustCompile(`source=([^, ]+),target=([^, ]+)(,readonly)? `).FindAllStringSubmatch(
			command, -1) {
			if found[1] != found[2] {
				p.Errorf("%s: %s is seen as %s", engine, found[1], found[2])
			}
			mounts = append(mounts, found[1]+found[3])
		}
		want := "/trainer,readonly /state/runs/1/run.json,readonly /data/train,readonly /state/runs/1/output"
		if got := strings.Join(mounts, " "); got != want || strings.Contains(command, "--volume") {
			p.Errorf("%s: it sees %s, want %s", engine, got, want)
		}
	})
}

// containerSecrets: the secrets that its trainer.yaml names, and their values not on the command line.
func containerSecrets(p *place) {
	has("--env HF_TOKEN", "--env HOME=/tmp")(p)
	contained(p, func(engine, command string) {
		for _, found := range regexp.MustCompile(`--env ([A-Za-z_]+)(=\S*)? `).FindAllStringSubmatch(command, -1) {
			known := regexp.MustCompile(`^(HOME|USER|LANG|OMP_NUM_THREADS|HF_TOKEN|(?i:[a-z]+_proxy))$`)
			if !known.MatchString(found[1]) || found[1] == "HF_TOKEN" && found[2] != "" {
				p.Errorf("%s: it gets %s%s", engine, found[1], found[2])
			}
		}
	})
	containerSees(p)
}
