package e2e

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	awsfront "github.com/autonomos/aob/tools/moto/front"
	"github.com/autonomos/aob/tools/moto/mototest"
	"github.com/autonomos/aob/tools/venvtest"
)

// TestAWSPage does what docs/aws.md says before the first pull request, in its order, on moto: the real Terraform
// applies the modules, the server takes the role that they make, and aob doctor --aws finds nothing missing. Where
// something is missing, it says what.
func TestAWSPage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute: run it without -short")
	}
	n := findPrograms(t)
	p := newFolder(t, n)
	moto := mototest.Start(t)
	f := &awsfront.Front{Quotas: map[string]float64{"L-DB2E81BA": 4, "L-3819A6DF": 4},
		Prices: map[string][]float64{"eu-central-1 g5.xlarge": {1.258, 0.65}}}
	_, address, certificate := f.StartTLS(t, moto.URL) // the buckets refuse plain http
	p.prepareForAWS(t, address)
	p.env = append(p.env, "AWS_CA_BUNDLE="+certificate)
	subnet, vpc := p.subnetAsAWSMakesIt(t, moto.URL)
	for _, step := range parts(t, "aws.md") {
		switch word, rest, _ := strings.Cut(step.command, " "); {
		case step.file == "aws.yaml":
			// The page has one of many subnets. The image is one that moto has.
			text := strings.NewReplacer("vpc-0123456789abcdef0", vpc, "subnet-0123456789abcdef0", subnet,
				"    providers:", "    amiName: amzn2-ami-hvm-2.0.*\n    providers:").Replace(step.text)
			text = "repository: intent.git\n" + text
			if err := os.WriteFile(p.path("aob.yaml"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		case step.file == "machine.yaml":
			p.wantValidModel(t, step.text)
		case step.file != "":
			t.Errorf("the page has a file %s", step.file)
		case step.command == "export AWS_PROFILE=aob":
			p.takeRole(t)
		case word == "export":
			p.env = append(p.env, rest)
		case strings.Contains(step.command, "providers mirror"): // there is no network, so the provider is built
		case strings.HasPrefix(step.command, "bin/aob doctor"):
			f.Policy = rolePolicy(t, moto.URL)
			p.wantDoctor(t, step.command)
		case strings.HasPrefix(step.command, "bin/aob cost"): // of a running server
		default:
			p.do(t, step.command)
		}
	}
}

// prepareForAWS makes the folder a clone of the repository, on a machine with Terraform, the AWS CLI and credentials.
func (p *folder) prepareForAWS(t *testing.T, address string) {
	t.Helper()
	if err := os.CopyFS(p.path("infra"), os.DirFS(filepath.Join("..", "infra"))); err != nil {
		t.Fatal(err)
	}
	program := p.path("providers", "registry.terraform.io", "hashicorp", "aws", "5.32.0",
		runtime.GOOS+"_"+runtime.GOARCH, "terraform-provider-aws_v5.32.0")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, ".")
	build.Dir = filepath.Join("..", "tools", "awsprovider")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the provider: %v\n%s", err, out)
	}
	for name, text := range map[string]string{
		"cli.tfrc": fmt.Sprintf("disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n"+
			"    path = %q\n  }\n}\n", p.path("providers")),
		filepath.Join("home", ".aws", "config"): "[default]\n",
		filepath.Join("home", ".aws", "credentials"): "[default]\naws_access_key_id = id\n" +
			"aws_secret_access_key = key\n",
	} {
		if err := os.MkdirAll(filepath.Dir(p.path(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cli := filepath.Dir(venvtest.Program(t, "awscli", "aws"))
	p.env = append(p.env, "HOME="+p.path("home"), "AWS_ENDPOINT_URL="+address, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_DEFAULT_REGION=eu-central-1", // which version 1 of the CLI reads in place of AWS_REGION
		"TF_CLI_CONFIG_FILE="+p.path("cli.tfrc"), "TF_CLI_ARGS_apply=-auto-approve", "TF_CLI_ARGS_init=-force-copy",
		"PATH="+os.Getenv("PATH")+":"+cli)
}

// takeRole takes the role of the page's profile. The CLI reads the profile; the SDK asks Amazon for it and not moto, so
// programs get the keys.
func (p *folder) takeRole(t *testing.T) {
	t.Helper()
	if said := p.do(t, "aws --profile aob sts get-caller-identity"); !strings.Contains(said, "assumed-role/aob-acme") {
		t.Fatalf("the profile is that of %s", said)
	}
	keys := strings.Fields(p.do(t, "aws sts assume-role --role-arn arn:aws:iam::123456789012:role/aob/aob-acme "+
		"--role-session-name serve --query 'Credentials.[AccessKeyId,SecretAccessKey,SessionToken]' --output text"))
	p.env = append(p.env, "AWS_ACCESS_KEY_ID="+keys[0], "AWS_SECRET_ACCESS_KEY="+keys[1], "AWS_SESSION_TOKEN="+keys[2])
}

// subnetAsAWSMakesIt gives moto's subnet a way to the internet, as that of a VPC has which AWS made.
func (p *folder) subnetAsAWSMakesIt(t *testing.T, moto string) (subnet, vpc string) {
	t.Helper()
	client := ec2.New(ec2.Options{Region: "eu-central-1", BaseEndpoint: &moto,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", "")})
	subnets, err := client.DescribeSubnets(t.Context(), &ec2.DescribeSubnetsInput{})
	if err != nil {
		t.Fatal(err)
	}
	subnet, vpc = *subnets.Subnets[0].SubnetId, *subnets.Subnets[0].VpcId
	gateway, err := client.CreateInternetGateway(t.Context(), &ec2.CreateInternetGatewayInput{})
	if err != nil {
		t.Fatal(err)
	}
	id := gateway.InternetGateway.InternetGatewayId
	if _, err := client.AttachInternetGateway(t.Context(), &ec2.AttachInternetGatewayInput{InternetGatewayId: id,
		VpcId: &vpc}); err != nil {
		t.Fatal(err)
	}
	tables, err := client.DescribeRouteTables(t.Context(), &ec2.DescribeRouteTablesInput{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateRoute(t.Context(), &ec2.CreateRouteInput{GatewayId: id,
		RouteTableId: tables.RouteTables[0].RouteTableId, DestinationCidrBlock: aws.String("0.0.0.0/0")}); err != nil {
		t.Fatal(err)
	}
	return subnet, vpc
}

// rolePolicy is the policy that the server's role has in the account.
func rolePolicy(t *testing.T, moto string) string {
	t.Helper()
	client := iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: &moto,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", "")})
	out, err := client.GetRolePolicy(t.Context(), &iam.GetRolePolicyInput{RoleName: aws.String("aob-acme"),
		PolicyName: aws.String("controller")})
	if err != nil {
		t.Fatal(err)
	}
	text, err := url.QueryUnescape(*out.PolicyDocument)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// wantDoctor runs aob doctor --aws on the account of the page, and on ones that lack something.
func (p *folder) wantDoctor(t *testing.T, line string) {
	t.Helper()
	said := p.do(t, line)
	for _, want := range []string{"assumed-role/aob-acme/", "actions, all allowed", "with public addresses",
		"bucket acme-aob-states: it keeps old versions", "g5.xlarge costs $1.26 an hour in eu-central-1"} {
		if !strings.Contains(strings.Join(strings.Fields(said), " "), want) {
			t.Errorf("aob doctor --aws does not say %q:\n%s", want, said)
		}
	}
	if strings.Contains(said, "warning") || strings.Contains(said, "failed") {
		t.Errorf("something is missing in the account of docs/aws.md:\n%s", said)
	}
	whole, err := os.ReadFile(p.path("aob.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"publicAddress: true", "publicAddress: false", "need a public address"},
		{"runs: acme-aob-runs", "runs: acme-aob-images", "there is no bucket"},
		{"instances: [g5.xlarge]", "instances: [p4d.24xlarge]", "ec2:RunInstances is not allowed"},
		{"123456789012", "999999999999", "aws.train.account is 999999999999"},
	} {
		text := strings.ReplaceAll(string(whole), c.old, c.new)
		if err := os.WriteFile(p.path("less.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := p.command(strings.Replace(line, "aob.yaml", "less.yaml", 1)).CombinedOutput()
		if err == nil || !strings.Contains(strings.Join(strings.Fields(string(out)), " "), c.want) {
			t.Errorf("with %s: %v, want %q:\n%s", c.new, err, c.want, out)
		}
	}
}

// wantValidModel checks that a model may have the training of the page.
func (p *folder) wantValidModel(t *testing.T, train string) {
	t.Helper()
	text := "apiVersion: aob/v1\nkind: Model\nname: cells\ndataset: {dir: cells}\nclasses: [cell]\n" + train
	if err := os.MkdirAll(p.path("intent", "models"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path("intent", "models", "cells.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p.do(t, "bin/aob validate intent")
}
