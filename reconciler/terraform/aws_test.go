package terraform

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	trainawsec2 "github.com/autonomos/aob/infra/terraform/train-aws-ec2"
	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trainer"
	"github.com/autonomos/aob/tools/moto/front"
	"github.com/autonomos/aob/tools/versitygw/versitytest"
)

// A region is an account in which instances do what their user data says: moto behind the front, and versitygw for the
// objects of runs.
type region struct {
	*emulator
	front     *front.Front
	instances *front.Instances
	objects   *cloud.Bucket
	account   Account
	things    *cloud.Account
	store     *s3.Client
	python    string
}

// startRegion starts an account. change may change the front before it starts.
func startRegion(t *testing.T, change func(*front.Front)) *region {
	t.Helper()
	r := &region{emulator: startEmulator(t)}
	s := versitytest.StartIn(t, testRegion)
	r.instances = &front.Instances{S3: []string{"AWS_ENDPOINT_URL=" + s.URL, "AWS_ACCESS_KEY_ID=" + versitytest.KeyID,
		"AWS_SECRET_ACCESS_KEY=" + versitytest.Key}}
	r.front = &front.Front{Instances: r.instances}
	if change != nil {
		change(r.front)
	}
	r.URL = r.front.Start(t, r.URL)
	s.Bucket(t, "runs")
	r.store = s3.New(s3.Options{Region: testRegion, BaseEndpoint: &s.URL, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(versitytest.KeyID, versitytest.Key, "")})
	var err error
	if r.objects, err = cloud.OpenBucket(t.Context(), cloud.Address{Bucket: "runs", Region: testRegion, Endpoint: s.URL,
		KeyID: versitytest.KeyID, Key: versitytest.Key}); err != nil {
		t.Fatal(err)
	}
	if r.things, err = cloud.OpenAccount(t.Context(), cloud.AccountAddress{Regions: []string{testRegion},
		Endpoint: r.URL, KeyID: "id", Key: "key"}); err != nil {
		t.Fatal(err)
	}
	r.account = Account{Controller: "aob.example", ID: testAccount, Region: testRegion, VPC: r.vpc, Subnet: r.subnet,
		AMIName: "amzn2-ami-hvm-2.0.*", Runs: "runs", States: "states", Mirror: r.mirror, Endpoint: r.URL,
		Every: 200 * time.Millisecond}
	folder := filepath.Join(t.TempDir(), "environment")
	if out, err := exec.Command("python3", "-m", "venv", "--without-pip", folder).CombinedOutput(); err != nil {
		t.Skipf("no python3 with venv: install it to run this test: %v: %s", err, out)
	}
	r.python = filepath.Join(folder, "bin", "python")
	return r
}

// trainer returns a trainer in the account, and a request for the trainer of testdata in a new folder.
func (r *region) trainer(t *testing.T, run map[string]any) (*Trainer, trainer.Request) {
	t.Helper()
	name := fmt.Sprintf("train-%x", sha256.Sum256([]byte(t.Name())))[:38]
	dir := filepath.Join(t.TempDir(), name)
	account := r.account
	account.Home = filepath.Join(t.TempDir(), "aob")
	script := filepath.Join(t.TempDir(), "files", "train.py")
	dataset := filepath.Join(t.TempDir(), "prepared")
	for path, from := range map[string]string{script: "testdata/train.py",
		filepath.Join(dataset, "train", "a b.txt"): ""} {
		data := []byte("an image")
		if from != "" {
			var err error
			if data, err = os.ReadFile(from); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if run["epochs"] == nil {
		run["epochs"] = 5
	}
	run["output"] = filepath.Join(dir, outputDir)
	t.Cleanup(func() {
		if id := r.instances.Last(account.Home); r.instances.Running(id) {
			t.Errorf("instance %s runs at the end", id)
		}
		for _, i := range r.emulator.instances(t) {
			for _, tag := range i.Tags {
				if *tag.Key == cloud.TagRun && *tag.Value == name {
					t.Errorf("the account has instance %s at the end", *i.InstanceId)
				}
			}
		}
	})
	return &Trainer{Terraform: r.terraform, Module: trainawsec2.Files, Machine: &AWS{Account: account, Things: r.things,
			Objects: r.objects}}, trainer.Request{Dir: dir, Python: r.python, Script: script, Inputs: []string{dataset},
			RunJSON: func(place func(string) string) any {
				run["dataset"] = place(dataset)
				return task(run)(place)
			},
			Heartbeat: 30 * time.Second, Limit: 8 * time.Hour, Grace: 10 * time.Second,
			Quote: &delivery.Quote{By: "ada", Pull: 7, Instance: "g5.xlarge", Region: testRegion, Spot: true,
				PerHour: delivery.Dollars(1.006), Ceiling: 12 * delivery.Dollar}}
}

// home is AOB's folder on the instances of a trainer, by which the instances are told apart.
func home(t *Trainer) string { return t.Machine.(*AWS).Account.Home }

// put writes an object of a run's output, as its instance would.
func (r *region) put(t *testing.T, req trainer.Request, name, data string) {
	t.Helper()
	_, err := r.store.PutObject(context.Background(), &s3.PutObjectInput{Bucket: aws.String("runs"),
		Key:  aws.String("aob.example/" + filepath.Base(req.Dir) + "/output/" + name),
		Body: strings.NewReader(data)})
	if err != nil {
		t.Fatal(err)
	}
}

// A spot instance is taken away in the middle of a training, and another one goes on from the checkpoint.
func TestTrainerOnEC2(t *testing.T) {
	t.Parallel()
	r := startRegion(t, nil)
	local, req := r.trainer(t, map[string]any{"epochs": endless})
	var stages []string
	began := time.Now()
	req.Stage = func(s string) error {
		stages = append(stages, s)
		t.Logf("%s at %.1f s", s, time.Since(began).Seconds())
		return nil
	}
	interrupted := false
	var said []string
	req.Progress = func(s delivery.RunStatus) error {
		if s.Message != "" {
			said = append(said, s.Message)
		}
		if s.Epoch > 2 && !interrupted {
			interrupted = true
			r.instances.Interrupt(r.instances.Last(home(local)))
		}
		return nil
	}
	_, err := local.Train(t.Context(), req)
	lost, is := errors.AsType[lostError](err)
	if !is || lost.why != LostSpot {
		t.Fatalf("interrupted: %v", err)
	}
	if got := strings.Join(stages, " "); got != "upload plan apply training destroy" {
		t.Errorf("stages %s", got)
	}
	for _, want := range []string{"uploads the inputs", "aws_instance.trainer: Creating...", " boots"} {
		if !strings.Contains(strings.Join(said, "\n"), want) {
			t.Errorf("said\n%s\nwithout %s", strings.Join(said, "\n"), want)
		}
	}
	first := 0
	req.Progress = func(s delivery.RunStatus) error {
		if s.Epoch > 0 && first == 0 {
			first = s.Epoch
		}
		return nil
	}
	uploads := r.front.Count("RunInstances")
	r.put(t, req, "enough", "")
	trained, err := local.Train(t.Context(), req)
	if err != nil || trained.Attempts != 2 || trained.Status.Phase != "done" || first < 3 {
		t.Fatalf("%+v, %v, beginning at epoch %d; want a second attempt that goes on", trained, err, first)
	}
	for name, want := range map[string]string{"model.onnx": "weights", "train.json": "{}"} {
		if data, err := os.ReadFile(filepath.Join(trained.Output, name)); string(data) != want {
			t.Errorf("%s is %q, %v", name, data, err)
		}
	}
	if exists(filepath.Join(trained.Output, "enough")) {
		t.Error("a file that is none of the contract was copied")
	}
	if n := len(lines(t, filepath.Join(trained.Output, "metrics.jsonl"))); n < 3 {
		t.Errorf("metrics.jsonl has %d lines", n)
	}
	if n := r.front.Count("RunInstances"); n != uploads+1 {
		t.Errorf("%d instances were run", n)
	}
	again, err := local.Train(t.Context(), req)
	if err != nil || again.Attempts != 2 || r.front.Count("RunInstances") != uploads+1 {
		t.Errorf("once more: %+v, %v", again, err)
	}
}

// slow skips a test that make test-aws runs.
func slow(t *testing.T) {
	t.Helper()
	if os.Getenv("AOB_AWS") == "" {
		t.Skip("takes minutes: make test-aws runs it")
	}
}

// ec2Bench trains on instances.
func ec2Bench(r *region) func(t *testing.T, run map[string]any) bench {
	return func(t *testing.T, run map[string]any) bench {
		local, req := r.trainer(t, run)
		return bench{trainer: local, req: req,
			enough: func() error { r.put(t, req, "enough", ""); return nil },
			kill: func(t *testing.T) {
				trainer := r.instances.Trainer(r.instances.Last(home(local)))
				if err := syscall.Kill(trainer, syscall.SIGKILL); err != nil {
					t.Error(err)
				}
			}}
	}
}

// What AWS does to an attempt is told apart from what the training is to blame for.
func TestLostInstances(t *testing.T) {
	slow(t)
	var answer atomic.Pointer[func(http.ResponseWriter, string) bool]
	boots := true
	r := startRegion(t, func(f *front.Front) {
		f.Instances.Boots = func(string) bool { return boots }
		f.Answer = func(w http.ResponseWriter, name string) bool {
			how := answer.Load()
			return how != nil && (*how)(w, name)
		}
	})
	refuse := func(code, message string) {
		how := func(w http.ResponseWriter, name string) bool {
			if name != "RunInstances" {
				return false
			}
			front.Refuse(w, http.StatusInternalServerError, code, message)
			return true
		}
		answer.Store(&how)
		t.Cleanup(func() { answer.Store(nil) })
	}
	t.Run("no capacity", func(t *testing.T) {
		local, req := r.trainer(t, map[string]any{})
		refuse("InsufficientInstanceCapacity", "We currently do not have sufficient g5.xlarge capacity.")
		local.Machine.(*AWS).Account.Tries = 1
		_, err := local.Train(t.Context(), req)
		if lost, is := errors.AsType[lostError](err); !is || lost.why != LostCapacity {
			t.Fatalf("%v, want a lack of capacity", err)
		}
		_, err = local.Train(t.Context(), req)
		if blocked, is := errors.AsType[delivery.Blocked](err); !is || !strings.Contains(blocked.What,
			"AWS has no such instance to give, 1 times") {
			t.Fatalf("%v, want that a person acts", err)
		}
		answer.Store(nil)
		if _, err := local.Train(t.Context(), req); err != nil { // a person let it go on
			t.Fatal(err)
		}
	})
	t.Run("no quota", func(t *testing.T) {
		local, req := r.trainer(t, map[string]any{})
		refuse("VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of 0 allows.")
		_, err := local.Train(t.Context(), req)
		if blocked, is := errors.AsType[delivery.Blocked](err); !is || !strings.Contains(blocked.Do, "Service Quotas") {
			t.Errorf("%v, want that a person acts", err)
		}
		answer.Store(nil)
	})
	t.Run("no boot", func(t *testing.T) {
		local, req := r.trainer(t, map[string]any{})
		boots = false
		defer func() { boots = true }()
		local.Machine.(*AWS).Account.Boot = time.Second
		_, err := local.Train(t.Context(), req)
		if lost, is := errors.AsType[lostError](err); !is || lost.why != LostBoot {
			t.Errorf("%v, want a stuck boot", err)
		}
	})
	t.Run("killed", func(t *testing.T) {
		local, req := r.trainer(t, map[string]any{"mode": "hang"})
		req.Progress = func(s delivery.RunStatus) error {
			if s.Phase == "training" {
				r.instances.Kill(r.instances.Last(home(local)))
			}
			return nil
		}
		_, err := local.Train(t.Context(), req)
		if lost, is := errors.AsType[lostError](err); !is || lost.why != LostEnded {
			t.Errorf("%v, want that the instance was ended", err)
		}
	})
}
