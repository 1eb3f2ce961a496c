package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/tools/moto/front"
	"github.com/autonomos/aob/tools/moto/mototest"
	"github.com/autonomos/aob/tools/versitygw/versitytest"
)

// TestDemoOnAWS tells the demo's story of a model that trains on an instance in an account of AWS: quote, go, training,
// an interruption, a release. The account is moto with versitygw for S3, and its instances are processes of this
// machine that run their user data; all else is as with Amazon.
//
//	make demo-aws
func TestDemoOnAWS(t *testing.T) {
	if os.Getenv("AOB_DEMO_AWS") == "" {
		t.Skip("takes minutes: make demo-aws")
	}
	if out, err := exec.Command("unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "tmpfs",
		"/opt").CombinedOutput(); err != nil {
		t.Fatalf("instances need mount namespaces, which this machine does not allow: %v: %s", err, out)
	}
	bin, err := filepath.Abs(filepath.Join("..", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.Abs(filepath.Join("..", ".demo-aws"))
	if err != nil {
		t.Fatal(err)
	}
	s := newStory(os.Stdout, bin, dir)
	defer func() {
		if err := s.end(); err != nil {
			t.Error(err)
		}
	}()
	if err := s.onAWS(t); err != nil {
		t.Fatal(err)
	}
}

// A demoAccount is an account in which models train.
type demoAccount struct {
	instances *front.Instances
	front     *front.Front
	ec2       *ec2.Client
}

const demoRegion = "eu-central-1"

// open makes the account, and adds it to the server's configuration.
func (a *demoAccount) open(t *testing.T, s *story) (string, error) {
	moto, store := mototest.Start(t), versitytest.StartIn(t, demoRegion)
	a.instances = &front.Instances{S3: []string{"AWS_ACCESS_KEY_ID=" + versitytest.KeyID,
		"AWS_SECRET_ACCESS_KEY=" + versitytest.Key, "AWS_ENDPOINT_URL=" + store.URL}}
	a.front = &front.Front{Instances: a.instances, S3: store.URL,
		Prices: map[string][]float64{demoRegion + " g5.xlarge": {1.258, 0.612, 0.65}}}
	address := a.front.Start(t, moto.URL)
	for _, bucket := range []string{"acme-runs", "acme-states"} {
		store.Bucket(t, bucket)
	}
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": address, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ACCESS_KEY_ID": versitytest.KeyID, "AWS_SECRET_ACCESS_KEY": versitytest.Key} {
		t.Setenv(name, value)
	}
	a.ec2 = ec2.New(ec2.Options{Region: demoRegion, BaseEndpoint: &address,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", "")})
	subnets, err := a.ec2.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		return "", err
	}
	program := filepath.Join(s.dir, "providers", "registry.terraform.io", "hashicorp", "aws", "5.32.0",
		runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-aws_v5.32.0")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, ".")
	build.Dir = filepath.Join("..", "tools", "awsprovider")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the provider: %w: %s", err, out)
	}
	// What an instance gets is a Python environment of its own.
	environment := filepath.Join(s.dir, "environment")
	if out, err := exec.Command("/usr/bin/python3", "-m", "venv", "--without-pip", "--system-site-packages",
		environment).CombinedOutput(); err != nil {
		return "", fmt.Errorf("make a Python environment: %w: %s", err, out)
	}
	text, err := os.ReadFile(s.config())
	if err != nil {
		return "", err
	}
	python := "python: " + filepath.Join(environment, "bin", "python")
	config := regexp.MustCompile(`(?m)^python: .*$`).ReplaceAllString(string(text), python) + fmt.Sprintf(`aws:
  controller: acme
  regions: [%s]
  train: {account: "123456789012", vpc: %s, subnet: %s, amiName: "amzn2-ami-hvm-2.0.*", runs: acme-runs,
    states: acme-states, providers: %s}
`, demoRegion, *subnets.Subnets[0].VpcId, *subnets.Subnets[0].SubnetId, filepath.Join(s.dir, "providers"))
	return "aws: in aob.yaml names the account, a subnet and two buckets",
		os.WriteFile(s.config(), []byte(config), 0o644)
}

// left returns how many instances the account has.
func (a *demoAccount) left(ctx context.Context) (n int, err error) {
	out, err := a.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
	if err != nil {
		return 0, err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != "terminated" {
				n++
			}
		}
	}
	return n, nil
}

// onAWS runs all chapters.
func (s *story) onAWS(t *testing.T) error {
	ctx, a := t.Context(), &demoAccount{}
	if err := s.prepare(ctx, func() (string, error) { return a.open(t, s) }); err != nil {
		return err
	}
	s.chapter("PR 1: a model that trains on a GPU instance")
	p, err := s.propose(ctx, "first-model", "shapes: train on an instance", replace(initialEpochs, "epochs: 16",
		"machine: {limit: 30m}", "machine: {terraform: train-aws-ec2, instance: g5.xlarge, spot: only, limit: 2h, "+
			"maxCost: $3}"))
	if err != nil {
		return err
	}
	if err := s.goes(ctx, a, p); err != nil {
		return err
	}
	if err := s.interrupt(ctx, a, p); err != nil {
		return err
	}
	if err := s.watch(ctx, p, delivery.CheckSuccess); err != nil {
		return err
	}
	if err := s.step("the account", func() (string, error) {
		n, err := a.left(ctx)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d instances are left", n)
		}
		return fmt.Sprintf("%d instances were started, and none is left", a.front.Count("RunInstances")), err
	}); err != nil {
		return err
	}
	cost, err := s.aob(ctx, "cost")
	if err != nil {
		return err
	}
	s.printLines("aob cost", strings.Split(strings.TrimSpace(cost), "\n"), 12)
	if err := s.merge(ctx, p); err != nil {
		return err
	}
	if err := s.fleet(ctx, 1); err != nil {
		return err
	}
	return s.ending(ctx)
}

var goCode = regexp.MustCompile(`/aob run [0-9a-f]{32}`)

// goes shows the quote, and gives the go.
func (s *story) goes(ctx context.Context, a *demoAccount, p proposal) error {
	ask := ""
	if err := s.step("quote", func() (string, error) {
		quote := ""
		err := s.until(ctx, 5*time.Minute, "the status has a quote", func() (bool, error) {
			var pr web.PR
			if err := s.query(ctx, &pr, "pr", "show", fmt.Sprint(p.number)); err != nil {
				return false, nil
			}
			for _, c := range pr.Checks {
				if c.State == delivery.CheckFailure {
					return false, fmt.Errorf("%s: %s", c.Context, c.Description)
				}
				if strings.Contains(c.Description, "trains on ") {
					_, quote, _ = strings.Cut(c.Description, "trains on ")
					quote = "trains on " + quote
				}
			}
			out, err := s.aob(ctx, "pr", "show", fmt.Sprint(p.number))
			ask = goCode.FindString(out)
			return err == nil && ask != "" && quote != "", nil
		})
		if err == nil && a.front.Count("RunInstances") > 0 {
			err = fmt.Errorf("an instance was started before anybody agreed")
		}
		return delivery.Cut(quote, 200), err
	}); err != nil {
		return err
	}
	return s.step("go", func() (string, error) {
		_, err := s.aob(ctx, "pr", "ask", fmt.Sprint(p.number), ask)
		return fmt.Sprintf("aob pr ask %d '%s'", p.number, ask), err
	})
}

// interrupt takes the instance away once it has trained for a while, as AWS may take a spot instance.
func (s *story) interrupt(ctx context.Context, a *demoAccount, p proposal) error {
	epoch := func(id string) func() (bool, error) {
		return func() (bool, error) {
			var pr web.PR
			if err := s.query(ctx, &pr, "pr", "show", fmt.Sprint(p.number)); err != nil {
				return false, nil
			}
			s.progress("training", progress(pr))
			if pr.State == delivery.CheckFailure || pr.State == delivery.CheckSuccess {
				return false, fmt.Errorf("it is over too soon: %s", pr.Text)
			}
			for _, r := range pr.Runs {
				if r.Kind == delivery.RunTrain && r.Epoch > 1 && a.instances.Last("/opt/aob") != id {
					return true, nil
				}
			}
			return false, nil
		}
	}
	first := ""
	if err := s.step("terraform apply", func() (string, error) {
		err := s.until(ctx, 5*time.Minute, "an instance trains", epoch(""))
		first = a.instances.Last("/opt/aob")
		return "a spot instance has booted and trains: " + first, err
	}); err != nil {
		return err
	}
	a.instances.Interrupt(first)
	s.printStep("AWS", "takes the spot instance away, and says so two minutes before", 0)
	return s.step("terraform apply", func() (string, error) {
		err := s.until(ctx, 5*time.Minute, "another instance trains", func() (bool, error) {
			var pr web.PR
			if s.query(ctx, &pr, "pr", "show", fmt.Sprint(p.number)) == nil {
				s.progress("training", progress(pr))
			}
			return a.instances.Last("/opt/aob") != first, nil
		})
		return "another one goes on from the last checkpoint in S3: " + a.instances.Last("/opt/aob"), err
	})
}
