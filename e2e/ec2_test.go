package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/autonomos/aob/reconciler/delivery"
	awsfront "github.com/autonomos/aob/tools/moto/front"
	"github.com/autonomos/aob/tools/moto/mototest"
	"github.com/autonomos/aob/tools/versitygw/versitytest"
)

// An account is an account of AWS: moto behind the front, with versitygw for S3. Its instances do what their user data
// says.
type account struct {
	url, vpc, subnet, providers string
	instances                   *awsfront.Instances
	front                       *awsfront.Front
	ec2                         *ec2.Client
}

const (
	accountRegion = "eu-central-1"
	accountNumber = "123456789012" // moto's
)

func newAccount(t *testing.T) *account {
	t.Helper()
	if out, err := exec.Command("unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "tmpfs",
		"/opt").CombinedOutput(); err != nil {
		t.Skipf("no mount namespaces for instances: %v: %s", err, lastLine(out))
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	moto, store := mototest.Start(t), versitytest.StartIn(t, accountRegion)
	keys := []string{"AWS_ACCESS_KEY_ID=" + versitytest.KeyID, "AWS_SECRET_ACCESS_KEY=" + versitytest.Key}
	a := &account{providers: filepath.Join(cache, "aob", "awsprovider"),
		instances: &awsfront.Instances{S3: append(keys, "AWS_ENDPOINT_URL="+store.URL)}}
	a.front = &awsfront.Front{Instances: a.instances, S3: store.URL,
		Prices: map[string][]float64{accountRegion + " g5.xlarge": {1.258, 0.612, 0.65}}}
	a.url = a.front.Start(t, moto.URL)
	store.Bucket(t, "acme-runs")
	store.Bucket(t, "acme-states")
	a.ec2 = ec2.New(ec2.Options{Region: accountRegion, BaseEndpoint: &a.url,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", "")})
	subnets, err := a.ec2.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	a.subnet, a.vpc = *subnets.Subnets[0].SubnetId, *subnets.Subnets[0].VpcId
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(a.providers, "registry.terraform.io",
		"hashicorp", "aws", "5.32.0", runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-aws_v5.32.0"), ".")
	build.Dir = filepath.Join("..", "tools", "awsprovider")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the provider: %v\n%s", err, out)
	}
	return a
}

// configuration is what the server's configuration says of the account.
func (a *account) configuration() string {
	return fmt.Sprintf(`aws:
  controller: acme
  regions: [%s]
  train: {account: "%s", vpc: %s, subnet: %s, amiName: "amzn2-ami-hvm-2.0.*", runs: acme-runs, states: acme-states,
    providers: %s}
`, accountRegion, accountNumber, a.vpc, a.subnet, a.providers)
}

// env is how the server reaches the account.
func (a *account) env() []string {
	return append([]string{"AWS_ENDPOINT_URL=" + a.url, "AWS_EC2_METADATA_DISABLED=true"}, a.instances.S3[:2]...)
}

// none checks that the account has no instance any more.
func (a *account) none(t *testing.T) {
	t.Helper()
	out, err := a.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != "terminated" {
				t.Errorf("instance %s is %s", *i.InstanceId, i.State.Name)
			}
		}
	}
}

// A pull request trains the tiny model on a spot instance.
func TestEC2(t *testing.T) {
	if os.Getenv("AOB_AWS") == "" {
		t.Skip("takes minutes: make test-aws runs it")
	}
	n := findPrograms(t)
	a := newAccount(t)
	w := newWorkshop(t, n, "ec2", map[string]string{"README.md": "# What our devices run\n"})
	writeFiles(t, w.path("shapes"), colors(t))
	w.promoteOn(t, a, w.path("shapes"), environmentIn(t, w.path("environment")), `apiVersion: aob/v1
kind: Model
name: cells
dataset: {dir: shapes}
classes: [red, blue]
train:
  with: tiny@1
  resolution: 128
  epochs: 600
  batch: {effective: 2}
  args: {channels: 4}
`)
}

// environmentIn makes an environment that can go through S3, and returns its interpreter.
func environmentIn(t *testing.T, folder string) string {
	t.Helper()
	if out, err := exec.Command(python, "-m", "venv", "--without-pip", "--system-site-packages",
		folder).CombinedOutput(); err != nil {
		t.Skipf("%s has no venv: %v: %s", python, err, lastLine(out))
	}
	return filepath.Join(folder, "bin", "python")
}

// The same with RF-DETR on the real package, whose environment goes through S3.
func TestEC2RFDETR(t *testing.T) {
	if os.Getenv("AOB_AWS") == "" || os.Getenv("AOB_RFDETR") == "" {
		t.Skip("takes minutes and 30 GB of disk: make test-aws-rfdetr runs it")
	}
	n := find(t)
	a := newAccount(t)
	w := newWorkshop(t, n, "ec2-rfdetr", map[string]string{"README.md": "# What our devices run\n"})
	w.usersPackages(t)
	w.promoteOn(t, a, n.bccd, python, smallRFDETR(3))
}

// promoteOn opens a pull request with a model, whose training starts on a spot instance once somebody agrees to the
// price. The instance is taken away in the middle, another one goes on from the checkpoint, and the model is judged and
// released as any other. Nothing is left in the account.
func (w *workshop) promoteOn(t *testing.T, a *account, dataset, interpreter, model string) {
	t.Helper()
	w.env = append(w.env, a.env()...)
	w.start(t, func() string {
		return fmt.Sprintf(workshopConfiguration, w.address, w.counters, dataset, filepath.Join(w.bin, "aob-detect"),
			w.library, w.terraform, interpreter) + a.configuration()
	})
	_, classes, _ := strings.Cut(model, "classes: ")
	classes, _, _ = strings.Cut(classes, "\n")
	w.clone.push(t, "first", "cells: a first model", map[string]string{"models/cells.yaml": model +
		"  machine: {terraform: train-aws-ec2, instance: g5.xlarge, spot: only, limit: 2h, maxCost: $3}\n",
		"gates/any.yaml": `apiVersion: aob/v1
kind: Gate
name: any
covers: [cells]
classes: ` + classes + `
evaluate: {dataset: {dir: shapes}, split: test}
checks:
  - {metric: size, max: 150MB}
`})
	number := w.goes(t, "first")
	if a.front.Count("RunInstances") > 0 {
		t.Error("an instance was run before anybody agreed to it")
	}
	a.trains(t, "")
	until(t, func() error {
		pr, err := w.pull(t.Context(), "first")
		if err == nil && pr.State == delivery.CheckFailure {
			return fatal{errors.New(pr.Text)}
		}
		for _, r := range pr.Runs {
			if r.Kind == delivery.RunTrain && r.Epoch > 0 {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("the training has finished no epoch: %s", pr.Text))
	})
	first := a.instances.Last("/opt/aob")
	a.instances.Interrupt(first)
	a.trains(t, first)
	until(t, func() error {
		if id := a.instances.Last("/opt/aob"); a.instances.Running(id) {
			return fmt.Errorf("instance %s still runs", id)
		}
		return nil
	})
	pr := w.green(t, "first")
	if a.instances.Last("/opt/aob") == first || a.front.Count("RunInstances") != 2 {
		t.Errorf("%d instances were run, the last is %s", a.front.Count("RunInstances"), a.instances.Last("/opt/aob"))
	}
	if len(pr.Models) != 1 || pr.Models[0].Bundle == "" {
		t.Errorf("no bundle on the pull request: %+v", pr.Models)
	}
	a.none(t)
	if out := w.aob(t, "cost"); !strings.Contains(out, "cells") || !strings.Contains(out, "$") {
		t.Errorf("aob cost says\n%s", out)
	}
	w.aob(t, "explain", "pr", fmt.Sprint(number))
	w.merge(t, pr)
	until(t, func() error {
		if out := w.quiet("status"); !strings.Contains(out, "cells") || !strings.Contains(out, "version 1") {
			return fmt.Errorf("aob status says\n%s", out)
		}
		return nil
	})
	w.close(t)
}

// trains waits for an instance after another one, and then until it has started its trainer. An environment
// of gigabytes takes minutes for each.
func (a *account) trains(t *testing.T, after string) {
	t.Helper()
	until(t, func() error {
		if a.instances.Last("/opt/aob") == after {
			return fmt.Errorf("there is no instance after %q", after)
		}
		return nil
	})
	until(t, func() error {
		if id := a.instances.Last("/opt/aob"); a.instances.Trainer(id) == 0 {
			return fmt.Errorf("instance %s has started no trainer", id)
		}
		return nil
	})
}

// goFor finds the code of a go. What people see is broken into lines.
var goFor = regexp.MustCompile(`/aob run\s+([0-9a-f]+)`)

// goes waits until a branch's pull request asks for a go, checks that nothing has started, and gives it.
func (w *workshop) goes(t *testing.T, branch string) (number int) {
	t.Helper()
	var ask []string
	until(t, func() error {
		pr, err := w.pull(t.Context(), branch)
		if err != nil {
			return err
		}
		number = pr.Number
		if pr.State == delivery.CheckFailure {
			return fatal{errors.New(pr.Text)}
		}
		out := w.quiet("pr", "show", fmt.Sprint(number))
		if ask = goFor.FindStringSubmatch(out); ask == nil {
			return fmt.Errorf("it asks for nothing:\n%s", out)
		}
		t.Logf("aob pr show %d\n%s", number, out)
		return nil
	})
	w.aob(t, "pr", "ask", fmt.Sprint(number), "/aob run "+ask[1])
	return number
}

// quiet runs a command of people, and returns what it prints.
func (w *workshop) quiet(args ...string) string {
	cmd := exec.Command(filepath.Join(w.bin, "aob"), args...)
	cmd.Env = append(w.environment(), "AOB_SOCKET="+w.path("state", "aob.sock"))
	out, _ := cmd.CombinedOutput() // an error is text too
	return string(out)
}
