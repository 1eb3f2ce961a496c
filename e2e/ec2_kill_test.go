package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
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
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"

	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/tools/versitygw/versitytest"
)

// A cut is a call at which processes of AOB's machine get SIGKILL, before it reaches AWS or before its answer arrives.
type cut struct {
	call  string // a pattern of its name
	after bool
}

// serveCuts is the table of TestServeKilledOnEC2: the calls of a training in their order. The training goes on, as its
// runner is a process of its own.
var serveCuts = []cut{
	{`^PUT /acme-runs/.*/input/run.json`, false},
	{`^PUT /acme-runs/.*/input/SHA256SUMS`, true},
	{`^PUT /acme-states/.*tflock`, true},
	{`^CreateSecurityGroup$`, false},
	{`^CreateRole$`, true},
	{`^RunInstances$`, false},
	{`^RunInstances$`, true},
	{`^POST /schedules/`, true},
	{`^PUT /acme-states/.*tfstate$`, false},
	{`^GET /acme-runs/.*/boot/\d+/status.json`, false},
	{`^DELETE /schedules/`, true},
	{`^DeleteRole$`, false},
	{`^DeleteSecurityGroup$`, true},
	{`^PUT /acme-states/.*tfstate$`, true},
	{`^GET /acme-runs/.*/output/model.onnx`, true},
}

// machineCuts is the table of TestMachineKilledOnEC2: all that runs on the machine ends, each time in another attempt.
var machineCuts = []cut{
	{`^PUT /acme-runs/.*/input/SHA256SUMS`, true},
	{`^CreateRole$`, true},
	{`^RunInstances$`, false},
	{`^RunInstances$`, true},
	{`^PUT /acme-states/.*tfstate$`, false},
	{`^GET /acme-runs/.*/boot/\d+/status.json`, true},
	{`^TerminateInstances$`, true},
	{`^GET /acme-runs/.*/output/model.onnx`, true},
}

// However often aob serve is killed, from the go to the release, the training comes to its end once, and nothing of it
// is left in the account.
func TestServeKilledOnEC2(t *testing.T) { testKilledOnEC2(t, "ec2-serve", serveCuts, false) }

// The same with aob serve, the runner and Terraform at once, as in a power cut.
func TestMachineKilledOnEC2(t *testing.T) { testKilledOnEC2(t, "ec2-machine", machineCuts, true) }

// cutPower ends all that runs on the server's machine.
func (w *workshop) cutPower() {
	w.killServer()
	for left := w.inhabitants(); len(left) > 0; left = w.inhabitants() {
		for pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A cutter kills at the calls of a table, at each once.
type cutter struct {
	w     *workshop
	power bool // all of the machine ends

	mu   sync.Mutex
	next []cut
	done []string
	err  error
}

// at is called at each call to the account.
func (c *cutter) at(name string, after bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.next, func(k cut) bool {
		return k.after == after && regexp.MustCompile(k.call).MatchString(name)
	})
	if i < 0 {
		return
	}
	c.next = slices.Delete(slices.Clone(c.next), i, i+1)
	c.done = append(c.done, fmt.Sprintf("%s, after: %t", name, after))
	if c.power {
		c.w.cutPower()
	} else {
		c.w.killServer()
	}
	c.err = errors.Join(c.err, c.w.startServer())
	if c.power { // whoever has made the call is gone
		panic(http.ErrAbortHandler)
	}
}

func (c *cutter) left() []cut {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next
}

func testKilledOnEC2(t *testing.T, name string, table []cut, power bool) {
	if os.Getenv("AOB_KILLS") != "all" {
		t.Skip("takes minutes: make test-aws-kills runs it")
	}
	n := findPrograms(t)
	a := newAccount(t)
	w := newWorkshop(t, n, name, map[string]string{"README.md": "# What our devices run\n"})
	writeFiles(t, w.path("shapes"), colors(t))
	w.env = append(w.env, a.env()...)
	interpreter := environmentIn(t, w.path("environment"))
	w.start(t, func() string {
		return fmt.Sprintf(workshopConfiguration, w.address, w.counters, w.path("shapes"),
			filepath.Join(w.bin, "aob-detect"), w.library, w.terraform, interpreter) + a.configuration()
	})
	c := &cutter{w: w, power: power, next: table}
	a.front.Before = func(name string) { c.at(name, false) }
	a.front.After = func(name string) { c.at(name, true) }
	w.clone.push(t, "first", "cells: a first model", paidFiles(60, ""))
	w.goes(t, "first")
	w.killServer() // the go was taken, and perhaps nothing of it has happened
	if err := w.startServer(); err != nil {
		t.Fatal(err)
	}
	for left := table; len(left) > 0; left = c.left() { // each has its own time
		until(t, func() error {
			if len(c.left()) < len(left) {
				return nil
			}
			pr, err := w.pull(t.Context(), "first")
			if err == nil && pr.State != delivery.CheckPending {
				return fatal{fmt.Errorf("%s before it came to %v: %s", pr.State, left, pr.Text)}
			}
			return fmt.Errorf("it does not come to %v: %w, %s", left, err, pr.Text)
		})
	}
	pr := w.green(t, "first")
	if c.err != nil {
		t.Error(c.err)
	}
	t.Logf("%d instances were run; killed at\n%s", a.front.Count("RunInstances"), strings.Join(c.done, "\n"))
	if len(pr.Models) != 1 || pr.Models[0].Bundle == "" {
		t.Errorf("no bundle on the pull request: %+v", pr.Models)
	}
	if trained := a.trained(t); trained != 1 {
		t.Errorf("trained to its end %d times", trained)
	}
	a.none(t)
	a.wantExpiries(t)
	a.wantNothing(t)
	w.close(t)
}

func (a *account) store() *s3.Client {
	return s3.New(s3.Options{Region: accountRegion, BaseEndpoint: &a.url, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(versitytest.KeyID, versitytest.Key, "")})
}

// objects calls do with each object of a bucket whose key has a suffix.
func (a *account) objects(t *testing.T, bucket, suffix string, do func(key string, data []byte)) {
	t.Helper()
	client := a.store()
	p := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &bucket})
	for p.HasMorePages() {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			if !strings.HasSuffix(*o.Key, suffix) {
				continue
			}
			out, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: o.Key})
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(out.Body)
			out.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			do(*o.Key, data)
		}
	}
}

// trained counts the attempts whose trainer came to its end.
func (a *account) trained(t *testing.T) (n int) {
	t.Helper()
	a.objects(t, "acme-runs", "/status.json", func(key string, data []byte) {
		var status delivery.RunStatus
		if err := json.Unmarshal(data, &status); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if strings.Contains(key, "/boot/") && status.Phase == "done" {
			n++
		}
	})
	return n
}

// wantExpiries checks that every instance that there was would have ended by itself.
func (a *account) wantExpiries(t *testing.T) {
	t.Helper()
	out, err := a.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			tags := map[string]string{}
			for _, tag := range i.Tags {
				tags[*tag.Key] = *tag.Value
			}
			expires, err := time.Parse(time.RFC3339, tags[cloud.TagExpires])
			if err != nil || time.Until(expires) > 3*time.Hour || tags[cloud.TagController] != "acme" {
				t.Errorf("instance %s has the tags %v", *i.InstanceId, tags)
			}
		}
	}
}

// wantNothing checks that nothing of a training is left in the account, and that no state of Terraform has anything.
func (a *account) wantNothing(t *testing.T) {
	t.Helper()
	keys := credentials.NewStaticCredentialsProvider("id", "key", "")
	var left []string
	schedules, err := scheduler.New(scheduler.Options{Region: accountRegion, BaseEndpoint: &a.url,
		Credentials: keys}).ListSchedules(t.Context(), &scheduler.ListSchedulesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range schedules.Schedules {
		left = append(left, "schedule "+*s.Name)
	}
	groups, err := a.ec2.DescribeSecurityGroups(t.Context(), &ec2.DescribeSecurityGroupsInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups.SecurityGroups {
		if *g.GroupName != "default" {
			left = append(left, "group "+*g.GroupName)
		}
	}
	templates, err := a.ec2.DescribeLaunchTemplates(t.Context(), &ec2.DescribeLaunchTemplatesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range templates.LaunchTemplates {
		left = append(left, "template "+*l.LaunchTemplateName)
	}
	volumes, err := a.ec2.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes.Volumes {
		left = append(left, "volume "+*v.VolumeId)
	}
	roles, err := iam.New(iam.Options{Region: accountRegion, BaseEndpoint: &a.url, Credentials: keys}).ListRoles(
		t.Context(), &iam.ListRolesInput{PathPrefix: aws.String("/aob/")})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roles.Roles {
		left = append(left, "role "+*r.RoleName)
	}
	a.objects(t, "acme-states", ".tfstate", func(key string, data []byte) {
		var state struct{ Resources []any }
		if err := json.Unmarshal(data, &state); err != nil || len(state.Resources) > 0 {
			left = append(left, fmt.Sprintf("%d resources in the state %s", len(state.Resources), key))
		}
	})
	if len(left) > 0 {
		t.Errorf("left in the account: %v", left)
	}
}
