package trainer

// This file runs trainers in containers, in place of an environment of Python packages. An image is named by its digest
// in the server's configuration alone: a pull request chooses a trainer's version, and never an image.

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

// Containers are the containers of a server.
type Containers struct {
	Engine string            // as Container.Engine; "" if there is none
	Images map[string]string // REPOSITORY@sha256:HEX, by NAME@VERSION of the trainer
	Pull   bool              // whether an image that is missing may be pulled
	Limits Limits
}

// Limits are what a container may use.
type Limits struct {
	Memory    delivery.Bytes // without swap; files in /tmp and /dev/shm count
	CPUs      int            // 0 for all
	Processes int            // and threads
	Device    string         // of trainings with a GPU, as nvidia.com/gpu=all; "" for none
}

// A Container is what one training runs in.
type Container struct {
	Engine string // absolute path of podman or docker
	Image  string // REPOSITORY@sha256:HEX
	Limits Limits
}

// FindEngine returns the path of the container engine that the configuration names, or else of podman or docker on
// PATH; "" if there is none.
func FindEngine(configured string) string {
	for _, name := range []string{"podman", "docker"} {
		if configured != "" {
			name = configured
		}
		if path, err := exec.LookPath(name); err == nil {
			if path, err = filepath.Abs(path); err == nil {
				return path
			}
		}
	}
	return ""
}

// DigestOf returns the digest of an image.
func DigestOf(image string) delivery.Digest {
	_, digest, _ := strings.Cut(image, "@")
	return delivery.Digest(digest)
}

// Fill has the trainers that have an image run in it. Its error names an image of no trainer.
func (c Containers) Fill(trainers intent.Trainers) error {
	for _, with := range slices.Sorted(maps.Keys(c.Images)) {
		t, ok := trainers[with]
		if !ok {
			return delivery.Blockedf("use one of: "+strings.Join(slices.Sorted(maps.Keys(trainers)), ", "),
				"containers.images in the server's configuration: there is no trainer %s", with)
		}
		t.Runs = &delivery.Environment{Image: DigestOf(c.Images[with]), Platform: runtime.GOOS + "/" + runtime.GOARCH}
		if t.Unusable = ""; c.Engine == "" {
			t.Unusable = errNoEngine.Error()
		}
		trainers[with] = t
	}
	return nil
}

var errNoEngine = delivery.Blockedf("install one (apt-get install podman), or name it under containers.engine in the "+
	"server's configuration", "the trainer runs in a container, and neither podman nor docker is on PATH")

// enginePatience is how long a container engine may take to answer.
const enginePatience = time.Minute

// Has reports whether the engine has an image.
func (c Containers) Has(ctx context.Context, image string) bool {
	ctx, cancel := context.WithTimeout(ctx, enginePatience)
	defer cancel()
	_, err := run(ctx, "/", os.Environ(), nil, c.Engine, "image", "inspect", image)
	return err == nil
}

// Named returns the container of an image by its digest, which may not be on this machine.
func (c Containers) Named(digest delivery.Digest) (Container, error) {
	for _, with := range slices.Sorted(maps.Keys(c.Images)) {
		if DigestOf(c.Images[with]) == digest {
			return Container{Engine: c.Engine, Image: c.Images[with], Limits: c.Limits}, nil
		}
	}
	return Container{}, delivery.Blockedf("have the server's operator put it back under containers.images in its "+
		"configuration, or push again, so that the server's current image is used",
		"the server no longer has the image with digest %s", digest.Short())
}

// Prepare returns the container of an image, and pulls the image if it is missing. Its errors are [delivery.Blocked] if
// another attempt would fail too.
func (c Containers) Prepare(ctx context.Context, digest delivery.Digest, progress func(Making)) (Container, error) {
	named, err := c.Named(digest)
	image := named.Image
	switch {
	case err != nil:
		return Container{}, err
	case c.Engine == "":
		return Container{}, errNoEngine
	case c.Has(ctx, image):
	case !c.Pull:
		return Container{}, delivery.Blockedf("run "+filepath.Base(c.Engine)+" pull "+image+" on the server, as its "+
			"user", "the image %s is not on the server, which pulls none", image)
	default:
		if err := c.pull(ctx, image, progress); err != nil {
			return Container{}, fmt.Errorf("the image %s cannot be pulled: %w", image, err)
		}
	}
	return named, nil
}

// pull pulls an image. The engine checks its digest.
func (c Containers) pull(ctx context.Context, image string, progress func(Making)) error {
	now := Making{What: "pulling the image"}
	progress(now)
	lines := make(chan string)
	ended := make(chan error, 1)
	go func() {
		_, err := run(ctx, "/", os.Environ(), lines, c.Engine, "pull", image)
		ended <- err
	}()
	layers := 0
	for {
		select {
		case line := <-lines:
			if strings.HasPrefix(line, "Copying blob ") { // podman; docker writes its progress to standard output
				layers++
				now.What = "pulling the image: " + delivery.Count(layers, "layer")
				progress(now)
			}
		case err := <-ended:
			return err
		}
	}
}

// A Place is what one container gets of this machine. Files and folders have the same paths in it.
type Place struct {
	Attempt string   // the attempt's folder, which names the container
	Runs    string   // the folder of all runs
	Program []string // in the image, with its arguments
	Read    []string // files and folders that it may read
	Write   string   // the folder that it may write
	Env     []string // KEY=value
	Secrets []string // names of more variables, whose values are in the engine's environment
	UID     int      // the user who owns what it writes
	GID     int
	Files   uint64 // limits on open files, and on threads of the user; those of this process cannot be exceeded
	Threads uint64
}

// The labels of containers: the attempt's folder, and the folder of all runs.
const (
	LabelAttempt = "dev.aob.training"
	LabelRuns    = "dev.aob.runs"
)

// Name returns the name of the container of an attempt's folder.
func Name(attempt string) string {
	sum := sha256.Sum256([]byte(attempt))
	return "aob-" + hex.EncodeToString(sum[:12])
}

// Argv returns the command that runs a program in a container and waits for its end. It has no network, a read-only
// root, no capabilities, and no more of this machine than the place says. The command is the same for podman and
// docker, but for what docker does not have.
func (c Container) Argv(p Place) ([]string, error) {
	podman := isPodman(c.Engine)
	argv := []string{c.Engine, "run", "--rm", "--name", Name(p.Attempt), "--label", LabelAttempt + "=" + p.Attempt,
		"--label", LabelRuns + "=" + p.Runs, "--pull", "never", "--network", "none", "--read-only", "--cap-drop", "ALL",
		"--security-opt", "no-new-privileges", "--user", fmt.Sprintf("%d:%d", p.UID, p.GID)}
	if podman && p.UID != 0 {
		argv = append(argv, "--userns", "keep-id") // this user is the same one in the container
	}
	memory := strconv.FormatInt(int64(c.Limits.Memory), 10)
	argv = append(argv, "--memory", memory, "--memory-swap", memory, "--pids-limit", strconv.Itoa(c.Limits.Processes))
	if c.Limits.CPUs > 0 {
		argv = append(argv, "--cpus", strconv.Itoa(c.Limits.CPUs))
	}
	argv = append(argv, "--ulimit", fmt.Sprintf("nofile=%d:%[1]d", p.Files),
		"--ulimit", fmt.Sprintf("nproc=%d:%[1]d", p.Threads), "--shm-size", memory,
		"--tmpfs", "/tmp:rw,exec,nosuid,nodev,size="+memory, "--log-driver", "none")
	if c.Limits.Device != "" {
		argv = append(argv, "--device", c.Limits.Device)
	}
	env := append([]string{"HOME=/tmp", "USER=aob", "LANG=C.UTF-8"}, p.Env...)
	if podman {
		argv = append(argv, "--http-proxy=false")
	} else { // docker's own configuration may add these
		for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} {
			env = append(env, name+"=", strings.ToLower(name)+"=")
		}
	}
	for _, variable := range append(env, p.Secrets...) {
		argv = append(argv, "--env", variable)
	}
	for _, path := range p.Read {
		argv = append(argv, "--mount", "type=bind,source="+path+",target="+path+",readonly")
	}
	argv = append(argv, "--mount", "type=bind,source="+p.Write+",target="+p.Write, "--workdir", p.Write)
	for _, path := range append([]string{p.Write, p.Attempt, p.Runs}, p.Read...) {
		if !filepath.IsAbs(path) || strings.ContainsAny(path, ",\"\n\r") {
			return nil, delivery.Blockedf("move it to a folder without comma, quote and line break in its path",
				"%q cannot be given to a container", path)
		}
	}
	argv = append(argv, "--entrypoint", p.Program[0], c.Image)
	return append(argv, p.Program[1:]...), nil
}

func isPodman(engine string) bool { return strings.HasPrefix(filepath.Base(engine), "podman") }

// EngineVariables lists the environment variables that a container engine finds its storage, its configuration and its
// service by.
func EngineVariables() []string {
	return []string{"HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DBUS_SESSION_BUS_ADDRESS",
		"CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINERS_REGISTRIES_CONF", "REGISTRY_AUTH_FILE",
		"CONTAINER_HOST", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"}
}

// EngineEnv returns these variables of this process.
func EngineEnv() (env []string) {
	for _, name := range EngineVariables() {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// TerminateContainer sends SIGTERM to the program in a container.
func TerminateContainer(engine string, env []string, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), enginePatience)
	defer cancel()
	_, err := run(ctx, "/", env, nil, engine, "kill", "--signal", "TERM", name)
	return err
}

// RemoveContainer kills and removes a container by its name. It does nothing if there is none.
func RemoveContainer(engine string, env []string, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), enginePatience)
	defer cancel()
	argv := []string{"rm", "--force"}
	if isPodman(engine) {
		argv = append(argv, "--ignore", "--time", "0") // docker kills at once
	}
	_, err := run(ctx, "/", env, nil, engine, append(argv, name)...)
	if err != nil && strings.Contains(strings.ToLower(err.Error()), "no such container") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove container %s: %w", name, err)
	}
	return nil
}

// RemoveLeft removes the containers of attempts that have ended, which a server that was killed may have left. runs is
// the folder of all runs; other servers' containers are not touched.
func RemoveLeft(engine string, env []string, runs string, ended func(attempt string) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), enginePatience)
	defer cancel()
	label := `{{.Label "` + LabelAttempt + `"}}`
	if isPodman(engine) {
		label = `{{index .Labels "` + LabelAttempt + `"}}`
	}
	out, err := run(ctx, "/", env, nil, engine, "ps", "--all", "--filter", "label="+LabelRuns+"="+runs, "--format",
		"{{.Names}} "+label)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var errs []error
	for line := range strings.Lines(out) {
		name, attempt, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == Name(attempt) && ended(attempt) {
			errs = append(errs, RemoveContainer(engine, env, name))
		}
	}
	return errors.Join(errs...)
}
