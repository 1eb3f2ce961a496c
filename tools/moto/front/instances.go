package front

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/autonomos/aob/tools/venvtest"
)

// Instances run the user data of instances, each as a child process in place of a machine. Programs that change a
// machine (shutdown, systemctl, systemd-run, docker, chown) only write down what they are told; aws, tar, curl and the
// trainer are the real ones. A new instance finds the folder of its user data's AOB_HOME empty, as a new disk is: a
// folder below /opt is one of its own, in a mount namespace.
type Instances struct {
	// S3 has the environment by which aws on an instance reaches the store, as AWS_ENDPOINT_URL and keys.
	S3 []string
	// Boots says whether an instance boots; nil for always.
	Boots func(id string) bool
	// Log gets what the instances print; nil for nothing.
	Log *os.File

	t      testing.TB
	dir    string
	client *ec2.Client

	mu   sync.Mutex
	all  map[string]*instance
	last map[string]string // by AOB_HOME
}

// An instance is one child process.
type instance struct {
	id       string
	files    string // what the names of its files begin with
	region   string
	command  *exec.Cmd
	ended    chan struct{}
	metadata *httptest.Server
	notice   bool
	called   bool // a call terminates it
}

// Grace is how long an instance may take to end when it is terminated, before it is killed.
const Grace = 20 * time.Second

func (i *Instances) start(t testing.TB, moto string) {
	i.t, i.dir, i.all, i.last = t, t.TempDir(), map[string]*instance{}, map[string]string{}
	i.client = ec2.New(ec2.Options{BaseEndpoint: &moto, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", "")})
	t.Cleanup(func() {
		for id := range i.all {
			i.Kill(id)
		}
	})
}

var homeOf = regexp.MustCompile(`(?m)^export AOB_HOME='([^']*)'$`)

// ran starts the user data of the instances in an answer.
func (i *Instances) ran(form url.Values, region string, answer []byte) {
	var made struct {
		Instances []struct {
			ID string `xml:"instanceId"`
		} `xml:"instancesSet>item"`
	}
	data, err := base64.StdEncoding.DecodeString(form.Get("UserData"))
	if err != nil || xml.Unmarshal(answer, &made) != nil || len(data) == 0 {
		return
	}
	for _, m := range made.Instances {
		if i.Boots != nil && !i.Boots(m.ID) {
			continue
		}
		if err := i.boot(m.ID, region, string(data)); err != nil {
			i.t.Errorf("instance %s: %v", m.ID, err)
		}
	}
}

func (i *Instances) boot(id, region, data string) error {
	home := homeOf.FindStringSubmatch(data)
	if home == nil {
		return fmt.Errorf("its user data has no AOB_HOME")
	}
	n := &instance{id: id, files: filepath.Join(i.dir, id), region: region, ended: make(chan struct{})}
	if err := os.RemoveAll(home[1]); err != nil {
		return err
	}
	bin := n.files + ".bin"
	if err := Programs(i.t, bin, home[1], n.files); err != nil {
		return err
	}
	n.metadata = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		notice := n.notice
		i.mu.Unlock()
		Metadata(w, r, notice)
	}))
	script := n.files + ".part-001" // a file, as cloud-init has it
	data = strings.Replace(data, "AOB_SECONDS='15'", "AOB_SECONDS='3'", 1)
	if err := os.WriteFile(script, []byte(data), 0o700); err != nil {
		return err
	}
	n.command = exec.Command(script)
	if name, is := strings.CutPrefix(home[1], "/opt/"); is {
		disk := n.files + ".disk"
		if err := os.MkdirAll(disk, 0o700); err != nil {
			return err
		}
		n.command = exec.Command("unshare", "--mount", "--map-root-user", "/bin/sh", "-c",
			"mount -t tmpfs tmpfs /opt && mkdir -p /opt/"+name+
				" && mount --bind "+disk+" /opt/"+name+" && exec "+script)
	}
	n.command.Env = append([]string{"PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home[1],
		"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + n.metadata.URL}, i.S3...)
	if i.Log != nil {
		n.command.Stdout, n.command.Stderr = i.Log, i.Log
	}
	n.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // all of the instance
	if err := n.command.Start(); err != nil {
		return err
	}
	i.mu.Lock()
	i.all[id], i.last[home[1]] = n, id
	i.mu.Unlock()
	go func() {
		_ = n.command.Wait() // however it ended
		_ = syscall.Kill(-n.command.Process.Pid, syscall.SIGKILL)
		n.metadata.Close()
		_ = os.RemoveAll(n.files + ".disk") // its volume is deleted with it; a rest goes with the test
		i.mu.Lock()
		called := n.called
		i.mu.Unlock()
		if !called {
			i.terminate(n) // a shutdown terminates an instance
		}
		close(n.ended)
	}()
	return nil
}

func (i *Instances) terminate(n *instance) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// It may be terminated already, and moto may have ended with the test.
	_, _ = i.client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{n.id}},
		func(o *ec2.Options) { o.Region = n.region })
}

// terminating ends the instances that a call terminates, as their systems do: the services first.
func (i *Instances) terminating(form url.Values) {
	for k := 1; form.Has("InstanceId." + strconv.Itoa(k)); k++ {
		n := i.get(form.Get("InstanceId." + strconv.Itoa(k)))
		if n == nil {
			continue
		}
		i.mu.Lock()
		n.called = true
		i.mu.Unlock()
		if pid := i.Trainer(n.id); pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
		_ = n.command.Process.Signal(syscall.SIGTERM)
		select {
		case <-n.ended:
		case <-time.After(Grace):
			i.Kill(n.id)
		}
	}
}

func (i *Instances) get(id string) *instance {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.all[id]
}

// Last returns the instance with an AOB_HOME that was booted last; "" before the first.
func (i *Instances) Last(home string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.last[home]
}

// Interrupt tells a spot instance that it is taken away, as the metadata service does two minutes before.
func (i *Instances) Interrupt(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all[id].notice = true
}

// Kill takes an instance away at once, with no chance to say anything.
func (i *Instances) Kill(id string) {
	n := i.get(id)
	if n == nil {
		return
	}
	_ = syscall.Kill(-n.command.Process.Pid, syscall.SIGKILL)
	<-n.ended
}

// Trainer returns the process of the trainer on an instance; 0 before it has started.
func (i *Instances) Trainer(id string) int {
	n := i.get(id)
	if n == nil {
		return 0
	}
	text, err := os.ReadFile(n.files + ".trainer")
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return pid
}

// Running reports whether an instance runs.
func (i *Instances) Running(id string) bool {
	n := i.get(id)
	if n == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

// Programs makes the folder of programs of an instance. What they are told is added to the file FILES.calls, and
// FILES.trainer gets the process of the trainer.
func Programs(t testing.TB, bin, home, files string) error {
	if err := os.MkdirAll(bin, 0o700); err != nil {
		return err
	}
	note := "#!/bin/sh\necho \"${0##*/} $*\" >>" + files + ".calls\n"
	trainer := "for last; do case $last in */environment/bin/python | python3) run=1 ;;\n" +
		"*@sha256:*) shift; continue ;; esac\n" + // the image stands between the program and its arguments
		"[ -z \"$run\" ] || set -- \"$@\" \"$last\"; shift; done\n" + // drops the options before the program
		"echo $$ >" + files + ".trainer\ncd " + home + "/output && exec \"$@\"\n"
	for name, text := range map[string]string{
		"shutdown":    "",
		"chown":       "",
		"systemctl":   "[ \"$1\" != stop ] || kill -TERM \"$(cat " + files + ".trainer)\"\n",
		"systemd-run": trainer,
		"docker": "[ \"$1\" != login ] || cat >/dev/null\n" +
			"[ \"$1\" != stop ] || kill -TERM \"$(cat " + files + ".trainer)\"\n[ \"$1\" != run ] || {\n" + trainer +
			"}\n",
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(note+text), 0o700); err != nil {
			return err
		}
	}
	aws := filepath.Join(bin, "aws")
	if err := os.Remove(aws); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.Symlink(venvtest.Program(t, "awscli", "aws"), aws)
}

// Metadata answers as the instance metadata service, version 2. notice says whether the spot instance is about to be
// taken away.
func Metadata(w http.ResponseWriter, r *http.Request, notice bool) {
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		fmt.Fprint(w, "token")
	case r.Header.Get("X-aws-ec2-metadata-token") != "token":
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == "/latest/meta-data/spot/instance-action" && notice:
		fmt.Fprint(w, `{"action":"terminate","time":"2036-11-30T18:00:00Z"}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}
