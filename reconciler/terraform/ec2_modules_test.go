package terraform

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/autonomos/aob/tools/moto/front"
	"github.com/autonomos/aob/tools/moto/mototest"
	"github.com/autonomos/aob/tools/venvtest"
)

// modulesDir has the modules.
var modulesDir = filepath.Join("..", "..", "infra", "terraform")

// All modules are formatted as Terraform formats.
func TestModulesAreFormatted(t *testing.T) {
	terraform := program(t)
	out, err := exec.Command(terraform, "fmt", "-check", "-diff", "-recursive", modulesDir).CombinedOutput()
	if err != nil {
		t.Errorf("run terraform fmt -recursive infra/terraform:\n%s", out)
	}
}

// checkov finds nothing in the modules but what is explained in them, in lines "checkov:skip".
func TestCheckov(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	cmd := exec.Command(venvtest.Program(t, "checkov", "checkov"), "--directory", modulesDir, "--framework",
		"terraform",
		"--var-file", filepath.Join("testdata", "checkov.tfvars"), "--compact", "--quiet", "--skip-download")
	cmd.Env = append(os.Environ(), "CHECKOV_RUN_CONFIG_SCAN=false", "ANSI_COLORS_DISABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("checkov: %v\n%s", err, out)
	}
}

// onDisk returns the files of a module that no program carries.
func onDisk(t *testing.T, name string) fstest.MapFS {
	t.Helper()
	all := files(t, os.DirFS(filepath.Join(modulesDir, name)))
	for name := range all {
		if !strings.HasSuffix(name, ".tf") {
			delete(all, name)
		}
	}
	return all
}

// A terraformModule is one that people apply.
type terraformModule struct {
	name      string
	values    map[string]any
	policy    Policy
	mutations []mutation
}

var bucketTags = map[string]string{"aob:controller": "aob.example"}

// artifacts is what the module artifacts may make.
func artifacts() terraformModule {
	var all []Resource
	add := func(address string, values map[string]any) {
		all = append(all, Resource{Address: address, Provider: awsProvider, Values: values})
	}
	old := map[string]int{"bundles": 30, "runs": 1, "states": 30} // days that old versions are kept
	for _, bucket := range slices.Sorted(maps.Keys(old)) {
		name, index := "acme-aob-"+bucket, fmt.Sprintf("[%q]", bucket)
		rule := document{"id": "old", "status": "Enabled", "filter": []document{{}},
			"noncurrent_version_expiration":     []document{{"noncurrent_days": old[bucket]}},
			"abort_incomplete_multipart_upload": []document{{"days_after_initiation": 2}}}
		if bucket == "runs" {
			rule["expiration"] = []document{{"days": 30}}
		}
		add("aws_s3_bucket.this"+index, document{"bucket": name, "tags": bucketTags})
		add("aws_s3_bucket_public_access_block.this"+index, document{"bucket": name, "block_public_acls": true,
			"block_public_policy": true, "ignore_public_acls": true, "restrict_public_buckets": true})
		add("aws_s3_bucket_ownership_controls.this"+index, document{"bucket": name,
			"rule": []document{{"object_ownership": "BucketOwnerEnforced"}}})
		add("aws_s3_bucket_server_side_encryption_configuration.this"+index, document{"bucket": name,
			"rule": []document{{"apply_server_side_encryption_by_default": []document{{"sse_algorithm": "AES256"}}}}})
		add("aws_s3_bucket_versioning.this"+index, document{"bucket": name,
			"versioning_configuration": []document{{"status": "Enabled"}}})
		add("aws_s3_bucket_lifecycle_configuration.this"+index, document{"bucket": name, "rule": []document{rule}})
		add("aws_s3_bucket_policy.this"+index, document{"bucket": name, "policy": policyText(document{"Sid": "OnlyTLS",
			"Effect": "Deny", "Principal": "*", "Action": "s3:*",
			"Resource":  []string{"arn:aws:s3:::" + name, "arn:aws:s3:::" + name + "/*"},
			"Condition": document{"Bool": document{"aws:SecureTransport": "false"}}})})
	}
	add(`aws_ecr_repository.this["aob/trainers"]`, document{"name": "aob/trainers", "tags": bucketTags,
		"image_tag_mutability":         "IMMUTABLE",
		"encryption_configuration":     []document{{"encryption_type": "AES256"}},
		"image_scanning_configuration": []document{{"scan_on_push": true}}})
	lifecycle, _ := json.Marshal(document{"rules": []document{{"rulePriority": 1,
		"description": "Images without a tag end after two weeks.", "action": document{"type": "expire"},
		"selection": document{"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days",
			"countNumber": 14}}}})
	add(`aws_ecr_lifecycle_policy.this["aob/trainers"]`, document{"repository": "aob/trainers",
		"policy": string(lifecycle)})
	return terraformModule{"artifacts", map[string]any{"name": "acme-aob", "controller": "aob.example"},
		Policy{Resources: all}, []mutation{
			{"main.tf", `block_public_acls       = true`, ``, `block_public_acls: want true`},
			{"main.tf", `block_public_policy     = true`, ``, `block_public_policy: want true`},
			{"main.tf", `ignore_public_acls      = true`, ``, `ignore_public_acls: want true`},
			{"main.tf", `restrict_public_buckets = true`, ``, `restrict_public_buckets: want true`},
			{"main.tf", `"BucketOwnerEnforced"`, `"ObjectWriter"`, `rule.object_ownership: want "BucketOwnerEnforced"`},
			{"main.tf", `sse_algorithm = "AES256"`, `sse_algorithm = "aws:kms"`, `sse_algorithm: want "AES256"`},
			{"main.tf", `status = "Enabled"` + "\n  }\n}", `status = "Suspended"` + "\n  }\n}",
				`versioning_configuration.status: want "Enabled", got "Suspended"`},
			{"main.tf", `noncurrent_days = local.old[each.key]`, `noncurrent_days = 3000`, `noncurrent_days: want 30`},
			{"main.tf", `    runs    = 1`, `    runs = 30`, `noncurrent_days: want 1, got`},
			{"main.tf", `days_after_initiation = 2`, `days_after_initiation = 200`, `days_after_initiation: want 2`},
			{"main.tf", `"aws:SecureTransport" = "false"`, `"aws:SecureTransport" = "true"`,
				`aws_s3_bucket_policy.this["runs"]: policy: want`},
			{"main.tf", `force_destroy = false`, `force_destroy = true`, `force_destroy: the module must not set it`},
			{"main.tf", `image_tag_mutability = "IMMUTABLE"`, `image_tag_mutability = "MUTABLE"`,
				`image_tag_mutability: want "IMMUTABLE"`},
			{"main.tf", `scan_on_push = true`, `scan_on_push = false`, `scan_on_push: want true`},
			{"main.tf", `tagStatus   = "untagged"`, `tagStatus = "any"`,
				`aws_ecr_lifecycle_policy.this["aob/trainers"]: policy`},
			{"main.tf", `  tags          = local.tags`, ``, `aws_s3_bucket.this["runs"]: tags: want`},
		}}
}

// githubOIDC is what the module github-oidc may make. What its policies allow is compared with a file, so that a change
// is seen.
func githubOIDC(t *testing.T) terraformModule {
	t.Helper()
	const iam = "arn:aws:iam::" + testAccount
	server := []string{iam + ":user/server"}
	trust := policyText(document{"Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
		"Principal": document{"Federated": iam + ":oidc-provider/token.actions.githubusercontent.com"},
		"Condition": document{"StringEquals": document{"token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
			"token.actions.githubusercontent.com:sub": "repo:acme/models:environment:aob"}}},
		document{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": document{"AWS": server}})
	text := func(name string) string {
		data, err := os.ReadFile(filepath.Join("testdata", "policies", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	role := func(name, description string, seconds int) document {
		return document{"name": name, "path": "/aob/", "description": description, "max_session_duration": seconds,
			"assume_role_policy": trust, "tags": bucketTags}
	}
	all := []Resource{
		{Address: "aws_iam_openid_connect_provider.github",
			Values: document{"client_id_list": []string{"sts.amazonaws.com"},
				"url":             "https://token.actions.githubusercontent.com",
				"thumbprint_list": []string{"6938fd4d98bab03faadb97b34396831e3780aea1"}, "tags": bucketTags}},
		{Address: "aws_iam_policy.boundary", Values: document{"name": "aob-aob.example-boundary", "path": "/aob/",
			"description": "AOB: the bounds of the roles of trainings.", "policy": text("boundary"),
			"tags": bucketTags}},
		{Address: "aws_iam_role.controller", Values: role("aob-aob.example", "AOB: the server.", 43200)},
		{Address: "aws_iam_role_policy.controller", Values: document{"name": "controller", "role": "aob-aob.example",
			"policy": text("controller")}},
		{Address: "aws_iam_role.images", Values: role("aob-aob.example-images",
			"AOB: pushes the images of trainers, from GitHub Actions.", 3600)},
		{Address: "aws_iam_role_policy.images", Values: document{"name": "images", "role": "aob-aob.example-images",
			"policy": text("images")}},
	}
	for i := range all {
		all[i].Provider = awsProvider
	}
	return terraformModule{"github-oidc", map[string]any{"repository": "acme/models", "principals": server,
		"controller": "aob.example",
		"account":    testAccount, "region": testRegion, "runs_bucket": "acme-aob-runs",
		"states_bucket":  "acme-aob-states",
		"bundles_bucket": "acme-aob-bundles"}, Policy{Resources: all}, []mutation{
		{"main.tf", `"repo:${repository}:environment:${var.environment}"`, `"repo:${repository}:*"`,
			`aws_iam_role.controller: assume_role_policy: want`},
		{"main.tf", `  client_id_list  = ["sts.amazonaws.com"]`, `  client_id_list = ["x"]`, `client_id_list: want`},
		{"controller.tf", `"ec2:MetadataHttpTokens"        = "required"`, ``,
			`aws_iam_role_policy.controller: policy: want`},
		{"main.tf", "        Resource  = [\"${local.ec2}:instance/*\"]\n        Condition = local.own\n",
			"        Resource = [\"*\"]\n        Condition = local.own\n", `aws_iam_policy.boundary: policy: want`},
		{"main.tf", "        Resource = local.images\n      },\n      {\n        Sid      = \"Login\"",
			"        Resource = [\"*\"]\n      },\n      {\n        Sid      = \"Login\"",
			`aws_iam_role_policy.images: policy: want`},
		{"main.tf", `  max_session_duration = 3600`, `  max_session_duration = 43200`,
			`max_session_duration: want 3600`},
	}}
}

// A module that people apply is planned, refused with each mutation, applied and destroyed.
func (e *emulator) testModuleOfPeople(t *testing.T, m terraformModule) {
	module := onDisk(t, m.name)
	dir := filepath.Join(t.TempDir(), "stack")
	plain, secure, certificate := (&front.Front{}).StartTLS(t, e.URL) // the buckets are reached by https alone
	env := e.env()
	env["AWS_ENDPOINT_URL"], env["AWS_CA_BUNDLE"] = secure, certificate
	s, err := e.module(module, m.name+".tfstate").Create(dir, m.values, m.policy, env)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Plan(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.wantRefused(t, s, dir, module, m.mutations)
	if err := s.plan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := e.terraformOutput(t, s, "plan", "-detailed-exitcode"); !strings.Contains(out, "No changes") {
		t.Errorf("what was applied is not as planned:\n%s", out)
	}
	if m.name == "artifacts" {
		wantOnlyTLS(t, plain, secure, certificate)
	}
	if err := s.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := e.terraformOutput(t, s, "state", "list"); out != "" {
		t.Errorf("after destroying, the state has\n%s", out)
	}
}

// wantOnlyTLS checks that the buckets of artifacts answer https, and refuse http.
func wantOnlyTLS(t *testing.T, plain, secure, certificate string) {
	t.Helper()
	text, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	for _, bucket := range []string{"acme-aob-bundles", "acme-aob-runs", "acme-aob-states"} {
		for address, want := range map[string]string{secure: "NoSuchKey", plain: "AccessDenied"} {
			store := s3.New(s3.Options{Region: testRegion, BaseEndpoint: &address, UsePathStyle: true,
				HTTPClient: client, Credentials: credentials.NewStaticCredentialsProvider("id", "key", "")})
			_, err := store.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("x")})
			if api, ok := errors.AsType[smithy.APIError](err); !ok || api.ErrorCode() != want {
				t.Errorf("%s at %s: %v, want %s", bucket, address, err, want)
			}
		}
	}
}

// terraformOutput runs a command in a stack's folder.
func (e *emulator) terraformOutput(t *testing.T, s *Stack, args ...string) string {
	t.Helper()
	cmd := exec.Command(e.terraform, args...)
	cmd.Dir = s.dir
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("terraform %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// What the real schema refuses is refused.
func TestSchemaIsTheRealOne(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	terraform := program(t)
	const head = "terraform {\n  required_providers {\n    aws = { source = \"hashicorp/aws\" }\n  }\n}\n"
	dir := filepath.Join(t.TempDir(), "stack")
	s, err := Module{Exec: terraform, Mirror: providers(t),
		Files: fstest.MapFS{"main.tf": {Data: []byte(head)}}}.Create(dir,
		struct{}{}, Policy{}, (&emulator{Server: &mototest.Server{}}).env())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.step(t.Context(), "init", s.initialise); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, text, want string }{
		{"an unknown attribute", "resource \"aws_ecr_repository\" \"x\" {\n  name = \"x\"\n  public = true\n}",
			`An argument named "public" is not expected here`},
		{"an unknown block", "resource \"aws_ecr_repository\" \"x\" {\n  name = \"x\"\n  lock {}\n}",
			`Blocks of type "lock" are not expected here`},
		{"a missing attribute", "resource \"aws_ecr_repository\" \"x\" {}", `The argument "name" is required`},
		{"a missing block", "resource \"aws_scheduler_schedule\" \"x\" {\n  schedule_expression = \"rate(1 day)\"\n}",
			`At least 1 "target" blocks are required`},
		{"a computed attribute", "resource \"aws_ecr_repository\" \"x\" {\n  name = \"x\"\n  arn = \"y\"\n}",
			`its value will be decided automatically`},
		{"a wrong type", "resource \"aws_instance\" \"x\" {\n  monitoring = \"perhaps\"\n}", `a bool is required`},
		{"a type that it does not have", "resource \"aws_sagemaker_model\" \"x\" {}", `does not support resource type`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "main.tf"), []byte(head+test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := s.plan(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want it to hold %s", err, test.want)
			}
		})
	}
}
