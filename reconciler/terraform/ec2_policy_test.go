package terraform

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	trainawsec2 "github.com/autonomos/aob/infra/terraform/train-aws-ec2"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A mutation takes a property away from a module.
type mutation struct {
	file, old, new string
	want           string // in the error
}

// mutations of train-aws-ec2, in groups that are planned together: each is refused for its own reason.
var mutations = [][]mutation{
	{ // one setting after another
		{"main.tf", `http_tokens                 = "required"`, `http_tokens = "optional"`,
			`aws_instance.trainer: metadata_options.http_tokens: want "required", got "optional"`},
		{"main.tf", `http_put_response_hop_limit = 1`, `http_put_response_hop_limit = 2`,
			`aws_instance.trainer: metadata_options.http_put_response_hop_limit: want 1, got 2`},
		{"main.tf", `encrypted             = true`, `encrypted = false`,
			`aws_instance.trainer: root_block_device.encrypted: want true, got false`},
		{"main.tf", `delete_on_termination = true`, `delete_on_termination = false`,
			`aws_instance.trainer: root_block_device.delete_on_termination: want true, got false`},
		{"main.tf", `= var.public_address`, `= true`,
			`aws_instance.trainer: associate_public_ip_address: want false, got true`},
		{"main.tf", `"one-time"`, `"persistent"`,
			`spot_options.spot_instance_type: want "one-time", got "persistent"`},
		{"main.tf", `instance_interruption_behavior = "terminate"`, `instance_interruption_behavior = "stop"`,
			`spot_options.instance_interruption_behavior: want "terminate", got "stop"`},
		{"main.tf", `= instance_market_options.value`, `= "99.0"`, `spot_options.max_price: want "1.006", got "99.0"`},
		{"main.tf", `instance_initiated_shutdown_behavior = "terminate"`,
			`instance_initiated_shutdown_behavior = "stop"`,
			`aws_instance.trainer: instance_initiated_shutdown_behavior: want "terminate", got "stop"`},
		{"main.tf", `disable_api_termination              = false`, `disable_api_termination = true`,
			`aws_instance.trainer: disable_api_termination: want false, got true`},
		{"main.tf", `= var.instance_type`, `= "p5.48xlarge"`,
			`aws_instance.trainer: instance_type: want "g5.xlarge", got "p5.48xlarge"`},
		{"main.tf", `"aob:expires"    = var.expires`, ``, `aws_instance.trainer: tags: want {"Name":`},
		{"main.tf", `  volume_tags                          = local.tags`, ``,
			`aws_instance.trainer: volume_tags: want {"Name":`},
		{"main.tf", `"network-interface"], var.spot ? ["spot-instances-request"] : []`, `"network-interface"], []`,
			`aws_launch_template.tags: tag_specifications: want 4 blocks, got 3`},
		{"main.tf", `ingress     = []`, openIngress, `aws_security_group.trainer: ingress: want [], got`},
		{"main.tf", `to_port          = 443`, `to_port = 65535`,
			`aws_security_group.trainer: egress.to_port: want 443`},
		{"main.tf", `ebs_optimized                        = true`, "ebs_optimized = true\n key_name = \"mine\"",
			`aws_instance.trainer: key_name: the module must not set it, got "mine"`},
		{"main.tf", `values = [var.ami_name]`, `values = ["*"]`, `data.aws_ami.trainer[0]: filter: want [`},
		{"main.tf", `"${local.bucket}/${var.outputs}*"]` + "\n      },\n      ], var",
			`"*"]` + "\n      },\n      ], var",
			`aws_iam_role_policy.trainer: policy: want`},
		{"main.tf", `Principal = { Service = "ec2.amazonaws.com" }`, `Principal = { AWS = "*" }`,
			`aws_iam_role.trainer: assume_role_policy: want`},
		{"main.tf", `"aws:ResourceTag/aob:run"        = var.run`, ``, `aws_iam_role_policy.end: policy: want`},
		{"main.tf", `{ StringEquals = { "aws:SourceAccount" = var.account } }`, `{}`,
			`aws_iam_role.end: assume_role_policy: want`},
		{"main.tf", `state                        = "ENABLED"`, `state = "DISABLED"`,
			`aws_scheduler_schedule.end: state: want "ENABLED", got "DISABLED"`},
		{"main.tf", `at(${trimsuffix(var.expires, "Z")})`, `at(2099-01-01T00:00:00)`,
			`aws_scheduler_schedule.end: schedule_expression: want "at(2036-11-30T18:00:00)"`},
		{"main.tf", `input    = jsonencode({ InstanceIds = [aws_instance.trainer.id] })`,
			`input = jsonencode({ InstanceIds = ["i-1"] })`,
			`aws_scheduler_schedule.end: target.input: want a reference to aws_instance.trainer.id, got one to `},
		{"boot.sh", `	shutdown -P "+$AOB_MINUTES"`, ``, `aws_instance.trainer: user_data_base64: want`},
	},
	{ // whole blocks, and what a module may not have
		{"main.tf", `  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }`, ``, `aws_instance.trainer: metadata_options: want 1 blocks, got 0`},
		{"main.tf", `  root_block_device {`,
			"  ebs_block_device {\n device_name = \"/dev/sdb\"\n }\n  root_block_device {",
			`aws_instance.trainer: ebs_block_device: the module must not set it`},
		{"main.tf", `for_each = var.spot ? [var.max_price] : []`, `for_each = []`,
			`aws_instance.trainer: instance_market_options: want 1 blocks, got 0`},
		{"main.tf", `  tags                                 = local.tags`, ``,
			`aws_instance.trainer: tags: want {"Name":`},
		{"main.tf", `ingress     = []`, ``,
			`aws_security_group.trainer: ingress: want [], got a value that is known after`},
		{"main.tf", `cidr_blocks      = ["0.0.0.0/0"]`, `cidr_blocks = ["10.0.0.0/8"]`,
			`aws_security_group.trainer: egress.cidr_blocks: want ["0.0.0.0/0"]`},
		{"main.tf", `  tags        = local.tags

  dynamic "tag_specifications"`, `  tags        = local.tags
  instance_type = "g5.xlarge"
  dynamic "tag_specifications"`,
			`aws_launch_template.tags: instance_type: the module must not set it, got "g5.xlarge"`},
		{"main.tf", `vpc_security_group_ids               = [aws_security_group.trainer.id]`,
			`vpc_security_group_ids = ["sg-1"]`,
			`aws_instance.trainer: vpc_security_group_ids: want a reference to aws_security_group.trainer.id, got`},
		{"main.tf", `owners      = [var.ami_owner]`, `owners = ["self", "amazon"]`,
			`data.aws_ami.trainer[0]: owners: want ["amazon"]`},
		{"main.tf", `  description          = "AOB: the instance of a training."`,
			`  description = "AOB: the instance of a training."
  managed_policy_arns = ["arn:aws:iam::aws:policy/AdministratorAccess"]`,
			`aws_iam_role.trainer: managed_policy_arns: the module must not set it`},
		{"main.tf", `retry_policy {
      maximum_retry_attempts       = 185`, `retry_policy {
      maximum_retry_attempts       = 0`, `target.retry_policy.maximum_retry_attempts: want 185, got 0`},
		{"boot.sh", `	unit watchdog watch "OnBootSec=1min" "OnUnitActiveSec=1min"`, ``,
			`aws_instance.trainer: user_data_base64: want`},
		{"more.tf", ``, `resource "aws_iam_role_policy" "more" {
  name   = "more"
  role   = aws_iam_role.trainer.name
  policy = "{}"
}
provider "aws" {
  region = "us-east-1"
}`, `aws_iam_role_policy.more: no such resource is allowed`},
		{"outputs.tf", ``, ``, `/hashicorp/aws is configured in the module`},
	},
	{ // how many there are
		{"main.tf", "  ebs_optimized                        = true\n", "  ebs_optimized = true\n  count = 2\n",
			`aws_instance.trainer[1]: no such resource is allowed`},
		{"main.tf", `[aws_instance.trainer.id]`, `aws_instance.trainer[*].id`,
			`aws_instance.trainer: the plan does not create it`},
		{"outputs.tf", `aws_instance.trainer.`, `aws_instance.trainer[0].`,
			`aws_instance.trainer[0]: no such resource`},
		{"main.tf", "  group_name                   = var.schedule_group\n",
			"  group_name = var.schedule_group\n  count = 0\n",
			`aws_scheduler_schedule.end: the plan does not create it`},
		{"more.tf", ``, `resource "aws_instance" "more" {
  ami           = "ami-04681163a08179f28"
  instance_type = "p5.48xlarge"
}`, `aws_instance.more: no such resource is allowed`},
	},
}

const openIngress = `ingress = [{
    description      = "ssh"
    protocol         = "tcp"
    from_port        = 22
    to_port          = 22
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = []
    prefix_list_ids  = []
    security_groups  = []
    self             = false
  }]`

// Whatever is taken from the module, its plan is refused with the reason.
func (e *emulator) testEC2PolicyRefuses(t *testing.T) {
	v := e.values()
	dir := filepath.Join(t.TempDir(), "stack")
	s, err := e.module(trainawsec2.Files, "mutations.tfstate").Create(dir, v, v.Policy(), e.env())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Plan(t.Context()); err != nil {
		t.Fatalf("the module as it is: %v", err)
	}
	for _, group := range mutations {
		e.wantRefused(t, s, dir, files(t, trainawsec2.Files), group)
	}
	for _, test := range []struct {
		name   string
		change func(*EC2)
		want   string
	}{
		{"another image", func(v *EC2) { v.AMI = "ami-1" }, `aws_instance.trainer: ami: want "ami-1"`},
		{"no spot instance", func(v *EC2) { v.Spot = false }, `instance_market_options: the module must not set it`},
		{"another bucket", func(v *EC2) { v.Bucket = "mine" }, `aws_iam_role_policy.trainer: policy: want`},
	} {
		t.Run(test.name, func(t *testing.T) {
			other := v
			test.change(&other)
			s.policy = other.Policy()
			if err := s.plan(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want it to hold %s", err, test.want)
			}
		})
	}
	if len(e.instances(t)) != 0 {
		t.Error("something was applied")
	}
}

// wantRefused plans a module with mutations, and puts it back.
func (e *emulator) wantRefused(t *testing.T, s *Stack, dir string, module fstest.MapFS, group []mutation) {
	t.Helper()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	changed := map[string]string{}
	for _, m := range group {
		text, ok := changed[m.file]
		if f := module[m.file]; !ok && f != nil {
			text = string(f.Data)
		}
		if !strings.Contains(text, m.old) {
			t.Fatalf("%s does not hold %q", m.file, m.old)
		}
		if m.old == "" {
			text += m.new
		} else {
			text = strings.ReplaceAll(text, m.old, m.new)
		}
		changed[m.file] = text
	}
	for name, text := range changed {
		write(name, []byte(text))
	}
	err := s.plan(t.Context())
	if _, ok := errors.AsType[delivery.Blocked](err); !ok {
		t.Errorf("error %v, want a Blocked one", err)
	}
	for _, m := range group {
		if err == nil || !strings.Contains(err.Error(), m.want) {
			t.Errorf("with %q in place of %q: the error does not hold %s", m.new, m.old, m.want)
		}
	}
	if t.Failed() {
		t.Logf("the error: %v", err)
	}
	for name := range changed {
		if f := module[name]; f != nil {
			write(name, f.Data)
		} else if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}
