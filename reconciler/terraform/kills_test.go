package terraform

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"

	trainawsec2 "github.com/autonomos/aob/infra/terraform/train-aws-ec2"
	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/trainer"
	"github.com/autonomos/aob/tools/moto/front"
	"github.com/autonomos/aob/tools/versitygw/versitytest"
)

// A kill is a moment at which a process gets SIGKILL: a call of a stage, to AWS or to the bucket of runs.
type kill struct {
	stage string // of the runner, as it says it
	call  string // a pattern of its name
	after bool   // its answer does not arrive; else the call does not
	of    string // "runner", whose terraform dies with it, or "terraform" alone

	// fuse ends the instance at its expiry if nobody comes back; "" for a point at which the next turn comes at once.
	fuse string

	lost   bool // the state is lost too
	sample bool // it is tried in CI too; make test-aws-kills tries all
}

func (k kill) String() string {
	when := "before"
	if k.after {
		when = "after"
	}
	call := strings.NewReplacer(" .*", " ", "$", "").Replace(k.call)
	name := fmt.Sprintf("%s at %s, %s %s", k.of, k.stage, when, call)
	if k.lost {
		name += ", and the state is lost"
	}
	if k.fuse != "" {
		name += ", then only " + k.fuse
	}
	return strings.ReplaceAll(name, "/", "-")
}

// The fuses.
const (
	fuseSchedule = "the schedule"
	fuseTimers   = "the timers of the instance"
	fuseSweeper  = "the sweeper"
)

// kills is the table. Calls are those that a training makes, in their order.
var kills = []kill{
	{stage: "upload", call: `GET /runs$`, of: "runner"},
	{stage: "upload", call: `PUT .*/input/run.json`, of: "runner"},
	{stage: "upload", call: `PUT .*/input/trainer/train.py`, after: true, of: "runner"},
	{stage: "upload", call: `PUT .*/input/data.tar.000`, of: "runner"},
	{stage: "upload", call: `PUT .*/input/environment.tar.000`, after: true, of: "runner"},
	{stage: "upload", call: `PUT .*/input/SHA256SUMS`, of: "runner"},
	{stage: "upload", call: `PUT .*/input/SHA256SUMS`, after: true, of: "runner", sample: true},
	{stage: "plan", call: `GET /states`, of: "runner"},
	{stage: "plan", call: `GET /states`, of: "terraform"},
	{stage: "plan", call: `PUT .*tflock`, after: true, of: "runner"},
	{stage: "plan", call: `PUT .*tflock`, of: "terraform"},
	{stage: "plan", call: `DescribeImages`, of: "runner"},
	{stage: "plan", call: `DescribeImages`, after: true, of: "terraform"},
	{stage: "plan", call: `DELETE .*tflock`, of: "runner"},
	{stage: "apply", call: `PUT .*tflock`, after: true, of: "runner"},
	{stage: "apply", call: `CreateSecurityGroup`, of: "runner"},
	{stage: "apply", call: `CreateSecurityGroup`, after: true, of: "runner"},
	{stage: "apply", call: `CreateRole`, after: true, of: "terraform"},
	{stage: "apply", call: `PutRolePolicy`, of: "runner"},
	{stage: "apply", call: `AddRoleToInstanceProfile`, after: true, of: "runner"},
	{stage: "apply", call: `CreateLaunchTemplate`, after: true, of: "terraform"},
	{stage: "apply", call: `RunInstances`, of: "runner"},
	{stage: "apply", call: `RunInstances`, after: true, of: "runner", sample: true},
	{stage: "apply", call: `RunInstances`, of: "terraform"},
	{stage: "apply", call: `RunInstances`, after: true, of: "terraform", sample: true},
	{stage: "apply", call: `RunInstances`, after: true, of: "runner", fuse: fuseTimers},
	{stage: "apply", call: `RunInstances`, after: true, of: "runner", fuse: fuseSweeper},
	{stage: "apply", call: `POST /schedules/`, of: "runner"},
	{stage: "apply", call: `POST /schedules/`, after: true, of: "runner"},
	{stage: "apply", call: `POST /schedules/`, after: true, of: "terraform"},
	{stage: "apply", call: `PUT .*tfstate$`, of: "runner", fuse: fuseSchedule, sample: true},
	{stage: "apply", call: `PUT .*tfstate$`, of: "terraform"},
	{stage: "apply", call: `PUT .*tfstate$`, after: true, of: "runner"},
	{stage: "apply", call: `DELETE .*tflock`, of: "runner"},
	{stage: "training", call: `GET .*/boot/1/exit.json`, of: "runner"},
	{stage: "training", call: `GET .*/boot/1/exit.json`, of: "runner", lost: true, sample: true},
	{stage: "training", call: `GET .*/boot/1/exit.json`, of: "runner", lost: true, fuse: fuseSweeper},
	{stage: "training", call: `DescribeInstances`, of: "runner", fuse: fuseSchedule},
	{stage: "training", call: `DescribeInstances`, after: true, of: "runner", fuse: fuseSweeper},
	{stage: "training", call: `GET .*/boot/1/status.json`, after: true, of: "runner"},
	{stage: "destroy", call: `PUT .*tflock`, after: true, of: "runner"},
	{stage: "destroy", call: `TerminateInstances`, of: "runner"},
	{stage: "destroy", call: `TerminateInstances`, after: true, of: "runner"},
	{stage: "destroy", call: `TerminateInstances`, of: "terraform"},
	{stage: "destroy", call: `DELETE /schedules/`, after: true, of: "runner"},
	{stage: "destroy", call: `DeleteRole$`, after: true, of: "terraform"},
	{stage: "destroy", call: `PUT .*tfstate$`, of: "runner"},
	{stage: "destroy", call: `PUT .*tfstate$`, after: true, of: "terraform"},
	{stage: "destroy", call: `DELETE .*tflock`, of: "runner"},
	{stage: "destroy", call: `DescribeVolumes`, of: "runner"},
	{stage: "download", call: `GET .*/output/model.onnx`, of: "runner"},
	{stage: "download", call: `GET .*/output/model.onnx`, after: true, of: "runner"},
	// The last call before settled.json.
	{stage: "download", call: `GET .*/output/checkpoint`, after: true, of: "runner", sample: true},
}

// Whatever call a runner or its terraform is killed at, no instance outlives its expiry, the next turns end the
// training, it is trained to its end once, and nothing of it is left in the account, nor in a state. The instances are
// played: TestTrainerOnEC2 has the real boot script.
func TestKilledOnAWS(t *testing.T) {
	t.Parallel()
	h := startHouse(t)
	list := kills
	if os.Getenv("AOB_KILLS") == "" {
		list = slices.DeleteFunc(slices.Clone(kills), func(k kill) bool { return !k.sample })
	}
	for _, k := range list {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			h.testKill(t, k)
		})
	}
}

// A house has what all kills share: moto, versitygw, providers and inputs.
type house struct {
	*emulator
	store                   *versitytest.Server
	objects, states         *s3.Client
	iam                     *iam.Client
	python, script, dataset string
}

func startHouse(t *testing.T) *house {
	t.Helper()
	h := &house{emulator: startEmulator(t), store: versitytest.Start(t)}
	h.store.Bucket(t, "runs")
	h.objects, h.states = storeClient(h.store.URL), storeClient(h.URL)
	h.iam = iam.New(iam.Options{Region: testRegion, BaseEndpoint: &h.URL,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", "")})
	dir := t.TempDir()
	h.python = filepath.Join(dir, "environment", "bin", "python")
	h.script, h.dataset = filepath.Join(dir, "files", "train.py"), filepath.Join(dir, "prepared")
	for _, file := range []string{h.python, filepath.Join(dir, "environment", "pyvenv.cfg"), h.script,
		filepath.Join(h.dataset, "a.txt")} {
		err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("x"), 0o700))
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// An awsJob is what a runner process is told.
type awsJob struct {
	Terraform, Dir, Python, Script, Dataset, Store string
	Account                                        Account
}

// stageFile has the stage of a runner, so that it is known at each call.
const stageFile = "stage"

// trainOnAWS is a runner process.
func trainOnAWS(ctx context.Context, file string) error {
	var j awsJob
	if err := durable.ReadJSON(file, &j); err != nil {
		return err
	}
	objects, err := cloud.OpenBucket(ctx, cloud.Address{Bucket: "runs", Endpoint: j.Store, KeyID: versitytest.KeyID,
		Key: versitytest.Key})
	if err != nil {
		return err
	}
	things, err := cloud.OpenAccount(ctx, cloud.AccountAddress{Regions: []string{j.Account.Region},
		Endpoint: j.Account.Endpoint, KeyID: "id", Key: "key"})
	if err != nil {
		return err
	}
	t := &Trainer{Terraform: j.Terraform, Module: trainawsec2.Files, Machine: &AWS{Account: j.Account, Things: things,
		Objects: objects}}
	_, err = t.Train(ctx, trainer.Request{Dir: j.Dir, Python: j.Python, Script: j.Script, Inputs: []string{j.Dataset},
		RunJSON:   func(func(string) string) any { return map[string]any{} },
		Heartbeat: 30 * time.Second, Limit: 8 * time.Hour, Grace: time.Second,
		Quote: &delivery.Quote{By: "ada", Pull: 7, Instance: "g5.xlarge", Region: testRegion, Spot: true,
			PerHour: delivery.Dollars(1.006), Ceiling: 12 * delivery.Dollar},
		Stage: func(s string) error {
			if err := os.WriteFile(filepath.Join(j.Dir, stageFile), []byte(s), 0o600); err != nil {
				return err
			}
			_, err := fmt.Println(s)
			return err
		}})
	return err
}

// A victim is a runner that may be killed at a call.
type victim struct {
	kill   kill
	dir    string
	killed chan struct{} // is closed then

	mu    sync.Mutex
	cmd   *exec.Cmd
	armed bool

	survived []durable.Process // processes of terraform that did not die with their runner
}

// at is called at each call, before it is made or after it was.
func (v *victim) at(name string, after bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.armed || after != v.kill.after || !regexp.MustCompile(v.kill.call).MatchString(name) {
		return
	}
	if stage, _ := os.ReadFile(filepath.Join(v.dir, stageFile)); string(stage) != v.kill.stage {
		return
	}
	v.armed = false
	defer close(v.killed)
	if v.kill.of == "terraform" {
		for _, p := range terraforms(v.dir) {
			_ = p.Signal(syscall.SIGKILL)
		}
	} else {
		_ = v.cmd.Process.Kill()
		v.survived = survivors(v.dir)
	}
	panic(http.ErrAbortHandler)
}

// survivors waits until a run has no terraform, and returns and kills those that are left after a minute.
func survivors(run string) []durable.Process {
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		left := terraforms(run)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			for _, p := range left {
				_ = p.Signal(syscall.SIGKILL)
			}
			return left
		}
	}
}

// terraforms returns the processes of terraform for a run, without those of its providers.
func terraforms(run string) (list []durable.Process) {
	dirs, _ := filepath.Glob(filepath.Join(run, "attempts", "*", stackFolder))
	for _, dir := range dirs {
		left, err := carrying("TF_DATA_DIR=" + filepath.Join(dir, ".terraform"))
		if err != nil {
			continue
		}
		for _, p := range left {
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.PID))
			if err == nil && !strings.Contains(exe, "terraform-provider") {
				list = append(list, p)
			}
		}
	}
	return list
}

func (h *house) testKill(t *testing.T, k kill) {
	dir := filepath.Join(t.TempDir(), fmt.Sprintf("train-%x", sha256.Sum256([]byte(k.String())))[:38])
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	v := &victim{kill: k, dir: dir, armed: true, killed: make(chan struct{})}
	p := &play{house: h, run: filepath.Base(dir), all: map[string]*player{}, hold: v.killed}
	if k.stage == "destroy" || k.stage == "download" { // which come after the end of the training
		p.hold = make(chan struct{})
		close(p.hold)
	}
	defer p.end()
	account := &front.Front{Tokens: true, Before: func(name string) {
		v.at(name, false)
		p.before(name)
	}, After: func(name string) {
		p.look(name)
		v.at(name, true)
	}}
	store := &front.Front{Before: func(name string) { v.at(name, false) },
		After: func(name string) { v.at(name, true) }}
	address := account.Start(t, h.URL)
	job := awsJob{Terraform: h.terraform, Dir: dir, Python: h.python, Script: h.script, Dataset: h.dataset,
		Store: store.Start(t, h.store.URL), Account: Account{Controller: p.run, ID: testAccount,
			Region: testRegion, VPC: h.vpc, Subnet: h.subnet, AMIName: "amzn2-ami-hvm-2.0.*", Runs: "runs",
			States: "states", Mirror: h.mirror, Endpoint: address, Every: 100 * time.Millisecond}}
	file := filepath.Join(dir, "job.json")
	if err := durable.WriteJSON(file, job); err != nil {
		t.Fatal(err)
	}
	const turns = 5
	for turn := 1; ; turn++ {
		err := v.turn(t.Context(), file)
		if turn == 1 && v.armed {
			t.Fatalf("the call was not made: %v", err)
		}
		if len(v.survived) > 0 {
			t.Fatalf("processes of terraform did not die with their runner: %v", v.survived)
		}
		h.wantExpiry(t, p.run)
		if turn == 1 && k.lost {
			h.lose(t, p.run)
		}
		if turn == 1 && k.fuse != "" {
			h.abandon(t, k.fuse, account, p, address)
		}
		if err == nil && turn > 1 {
			break
		}
		if turn == turns {
			t.Fatalf("not trained after %d turns: %v", turns, err)
		}
	}
	if n := p.completed(); n != 1 {
		t.Errorf("trained to completion %d times", n)
	}
	h.wantNothing(t, dir)
}

// turn starts the runner and waits for its end.
func (v *victim) turn(ctx context.Context, file string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	// A runner that hangs says where.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "train-on-aws", file)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	v.mu.Lock()
	err = cmd.Start()
	v.cmd = cmd
	v.mu.Unlock()
	if err != nil {
		return err
	}
	var stages []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		stages = append(stages, lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w after %v: %s", err, stages, errs.String())
	}
	return nil
}

// wantExpiry checks that each instance of a run will be ended: it has the tags, and sets its own timers first of all.
func (h *house) wantExpiry(t *testing.T, run string) {
	t.Helper()
	for _, i := range h.instancesOf(t, run) {
		tags := map[string]string{}
		for _, tag := range i.Tags {
			tags[*tag.Key] = *tag.Value
		}
		expires, err := time.Parse(time.RFC3339, tags[cloud.TagExpires])
		if err != nil || time.Until(expires) > 9*time.Hour || tags[cloud.TagController] != run {
			t.Errorf("instance %s has the tags %v", *i.InstanceId, tags)
		}
		data, err := h.userData(t.Context(), *i.InstanceId)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(data, "export AOB_EXPIRES='"+tags[cloud.TagExpires]+"'\n") {
			t.Errorf("the user data of instance %s has another expiry", *i.InstanceId)
		}
	}
}

// lose removes the states of a run.
func (h *house) lose(t *testing.T, run string) {
	t.Helper()
	for _, key := range []string{"1.tfstate", "1.tfstate.tflock"} {
		if _, err := h.states.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("states"),
			Key: aws.String(run + "/" + run + "/" + key)}); err != nil {
			t.Fatal(err)
		}
	}
}

// abandon lets the clock go on to the expiry, with nobody there but one fuse.
func (h *house) abandon(t *testing.T, fuse string, account *front.Front, p *play, address string) {
	t.Helper()
	before := len(h.instancesOf(t, p.run))
	if before != 1 {
		t.Fatalf("%d instances run, want one that is abandoned", before)
	}
	account.Advance(9 * time.Hour)
	switch fuse {
	case fuseSchedule:
		if ended := account.Fire(t, testRegion, p.run); len(ended) != 1 {
			t.Errorf("the schedule has ended %v", ended)
		}
	case fuseTimers:
		p.expire()
	case fuseSweeper:
		things, err := cloud.OpenAccount(t.Context(), cloud.AccountAddress{Regions: []string{testRegion},
			Endpoint: address, KeyID: "id", Key: "key"})
		if err != nil {
			t.Fatal(err)
		}
		sweeper := cloud.Sweeper{Account: things, Controller: p.run, Log: slog.New(slog.DiscardHandler)}
		if swept := sweeper.Sweep(t.Context()); len(swept.Orphans) == 0 || len(swept.Failed) > 0 {
			t.Errorf("the sweep: %+v", swept)
		}
	}
	p.look("TerminateInstances")
	if left := h.instancesOf(t, p.run); len(left) > 0 {
		t.Errorf("%d instances have outlived their expiry", len(left))
	}
}

// wantNothing checks that nothing of a run is left, and that the states of its attempts say so.
func (h *house) wantNothing(t *testing.T, dir string) {
	t.Helper()
	run := filepath.Base(dir)
	for _, i := range h.instancesOf(t, run) {
		t.Errorf("instance %s runs", *i.InstanceId)
	}
	schedules, err := h.scheduler.ListSchedules(t.Context(), &scheduler.ListSchedulesInput{NamePrefix: &run})
	if err != nil || len(schedules.Schedules) > 0 {
		t.Errorf("schedules are left: %v, %v", schedules, err)
	}
	of := []types.Filter{{Name: aws.String("tag:" + cloud.TagRun), Values: []string{run}}}
	groups, err := h.ec2.DescribeSecurityGroups(t.Context(), &ec2.DescribeSecurityGroupsInput{Filters: of})
	if err != nil || len(groups.SecurityGroups) > 0 {
		t.Errorf("security groups are left: %v, %v", groups, err)
	}
	templates, err := h.ec2.DescribeLaunchTemplates(t.Context(), &ec2.DescribeLaunchTemplatesInput{Filters: of})
	if err != nil || len(templates.LaunchTemplates) > 0 {
		t.Errorf("launch templates are left: %v, %v", templates, err)
	}
	volumes, err := h.ec2.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{Filters: of})
	if err != nil || len(volumes.Volumes) > 0 {
		t.Errorf("volumes are left: %v, %v", volumes, err)
	}
	roles, err := h.iam.ListRoles(t.Context(), &iam.ListRolesInput{PathPrefix: aws.String("/aob/")})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roles.Roles {
		if strings.HasPrefix(*r.RoleName, "aob-"+run) {
			t.Errorf("role %s is left", *r.RoleName)
		}
	}
	list, err := attempts(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if !a.settled {
			t.Errorf("attempt %d is not settled", a.number)
		}
		key := fmt.Sprintf("%s/%s/%d.tfstate", run, run, a.number)
		data, err := objectOf(t.Context(), h.states, "states", key)
		var state struct{ Resources []any }
		if err == nil && (json.Unmarshal(data, &state) != nil || len(state.Resources) > 0) {
			t.Errorf("the state of attempt %d has %d resources", a.number, len(state.Resources))
		}
	}
	if !exists(filepath.Join(dir, outputDir, "model.onnx")) {
		t.Error("there is no model")
	}
	if left := terraforms(dir); len(left) > 0 {
		t.Errorf("processes of terraform are left: %v", left)
	}
}
