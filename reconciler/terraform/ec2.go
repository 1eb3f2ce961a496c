package terraform

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	trainawsec2 "github.com/autonomos/aob/infra/terraform/train-aws-ec2"
)

// EC2 has the values of the module train-aws-ec2: one attempt of a training on one instance. It is written as
// terraform.tfvars.json. variables.tf describes each value and checks it.
type EC2 struct {
	Run        string `json:"run"`
	Name       string `json:"name"` // is in the names of everything that the module makes
	Attempt    int    `json:"attempt"`
	Home       string `json:"home"`
	Controller string `json:"controller"`
	Owner      string `json:"owner"`
	Pull       string `json:"pull"`    // a number, or "none"
	Expires    string `json:"expires"` // RFC 3339, UTC
	Minutes    int    `json:"minutes"`
	Silence    int    `json:"silence_minutes"`

	Account       string `json:"account"`
	Region        string `json:"region"`
	Partition     string `json:"partition"`
	VPC           string `json:"vpc"`
	Subnet        string `json:"subnet"`
	PublicAddress bool   `json:"public_address"`

	InstanceType string `json:"instance_type"`
	Spot         bool   `json:"spot"`
	MaxPrice     string `json:"max_price"` // dollars an hour; "" for an instance that is not a spot instance
	AMI          string `json:"ami"`       // "" for the newest of AMIOwner and AMIName
	AMIOwner     string `json:"ami_owner"`
	AMIName      string `json:"ami_name"`
	DiskGB       int    `json:"disk_gb"`

	Bucket              string `json:"bucket"`
	Inputs              string `json:"inputs"`
	Outputs             string `json:"outputs"`
	Manifest            string `json:"manifest"`
	Image               string `json:"image"`            // by digest; "" for an environment among the inputs
	ImageRepository     string `json:"image_repository"` // ARN of the image's repository in ECR, or ""
	PermissionsBoundary string `json:"permissions_boundary"`
	ScheduleGroup       string `json:"schedule_group"`
}

// awsProvider is the provider of all resources of EC2's module.
const awsProvider = "registry.terraform.io/hashicorp/aws"

// A document is a JSON document inside of a value.
type document = map[string]any

// Tags returns the tags of everything that the module makes.
func (e EC2) Tags() map[string]string {
	return map[string]string{"Name": e.name(), "aob:controller": e.Controller, "aob:run": e.Run, "aob:owner": e.Owner,
		"aob:pull": e.Pull, "aob:expires": e.Expires}
}

func (e EC2) name() string { return fmt.Sprintf("aob-%s-%d", e.schedule(), e.Attempt) }

// schedule returns what the run's schedule is called. Attempts of earlier versions have no name, and were called as
// their run.
func (e EC2) schedule() string { return cmp.Or(e.Name, e.Run) }

// Policy allows what the module may do with these values, and nothing else.
func (e EC2) Policy() Policy {
	const ami = "data.aws_ami.trainer"
	return Policy{
		Resources: []Resource{
			e.group(), e.role(), e.access(), e.profile(), e.template(), e.instance(ami + "[0]"),
			e.endRole(), e.endAccess(), e.end(),
		},
		Data: []Data{{Address: ami, Provider: awsProvider, Values: map[string]any{
			"owners": []string{e.AMIOwner}, "most_recent": true,
			"filter": []document{
				{"name": "architecture", "values": []string{"x86_64"}}, {"name": "name", "values": []string{e.AMIName}},
			},
		}}},
	}
}

// UserData is what the instance gets: values, then boot.sh.
func (e EC2) UserData() string {
	values := map[string]string{"AOB_HOME": e.Home, "AOB_USER": "nobody", "AOB_SECONDS": "15",
		"AOB_ATTEMPT": fmt.Sprint(e.Attempt), "AOB_MINUTES": fmt.Sprint(e.Minutes),
		"AOB_EXPIRES": e.Expires, "AOB_SILENCE": fmt.Sprint(e.Silence),
		"AOB_BUCKET": e.Bucket, "AOB_INPUTS": e.Inputs, "AOB_OUTPUTS": e.Outputs, "AOB_MANIFEST": e.Manifest,
		"AOB_IMAGE": e.Image, "AWS_REGION": e.Region}
	var lines []string
	for name, value := range values {
		lines = append(lines, fmt.Sprintf("export %s='%s'\n", name, value))
	}
	slices.Sort(lines)
	return "#!/bin/sh\n" + strings.Join(lines, "") + trainawsec2.Boot
}

// group lets nothing in, and HTTPS out.
func (e EC2) group() Resource {
	return Resource{Address: "aws_security_group.trainer", Provider: awsProvider, Values: map[string]any{
		"name": e.name(), "description": "AOB: a training. Nothing comes in.", "vpc_id": e.VPC, "tags": e.Tags(),
		"ingress": []document{}, "egress": []document{{"description": "HTTPS to S3 and registries", "protocol": "tcp",
			"from_port": 443,
			"to_port":   443, "cidr_blocks": []string{"0.0.0.0/0"}}},
	}}
}

func (e EC2) roleOf(address, name, description string, trust document) Resource {
	trust["Effect"], trust["Action"] = "Allow", "sts:AssumeRole"
	return Resource{Address: address, Provider: awsProvider, Values: map[string]any{"name": name, "path": "/aob/",
		"description": description, "max_session_duration": 3600, "permissions_boundary": e.PermissionsBoundary,
		"tags": e.Tags(), "assume_role_policy": policyText(trust)}}
}

func (e EC2) role() Resource {
	return e.roleOf("aws_iam_role.trainer", e.name(), "AOB: the instance of a training.",
		document{"Principal": document{"Service": "ec2.amazonaws.com"}})
}

// access is what the instance may do: read its inputs, and read and write its output.
func (e EC2) access() Resource {
	bucket := "arn:" + e.Partition + ":s3:::" + e.Bucket
	statements := []document{
		{"Sid": "List", "Effect": "Allow", "Action": []string{"s3:ListBucket"}, "Resource": []string{bucket},
			"Condition": document{"StringLike": document{"s3:prefix": []string{e.Inputs + "*", e.Outputs + "*"}}}},
		{"Sid": "Read", "Effect": "Allow", "Action": []string{"s3:GetObject"},
			"Resource": []string{bucket + "/" + e.Inputs + "*", bucket + "/" + e.Outputs + "*"}},
		{"Sid": "Write", "Effect": "Allow", "Action": []string{"s3:PutObject", "s3:AbortMultipartUpload"},
			"Resource": []string{bucket + "/" + e.Outputs + "*"}},
	}
	if e.ImageRepository != "" {
		statements = append(statements,
			document{"Sid": "Pull", "Effect": "Allow", "Resource": []string{e.ImageRepository},
				"Action": []string{"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}},
			document{"Sid": "Login", "Effect": "Allow", "Resource": []string{"*"},
				"Action": []string{"ecr:GetAuthorizationToken"}})
	}
	return Resource{Address: "aws_iam_role_policy.trainer", Provider: awsProvider, Values: map[string]any{"name": "run",
		"role": e.name(), "policy": policyText(statements...)}}
}

func (e EC2) profile() Resource {
	return Resource{Address: "aws_iam_instance_profile.trainer", Provider: awsProvider, Values: map[string]any{
		"name": e.name(), "path": "/aob/", "role": e.name(), "tags": e.Tags()}}
}

// template has tags and nothing else.
func (e EC2) template() Resource {
	types := []string{"instance", "network-interface", "spot-instances-request", "volume"}
	if !e.Spot {
		types = slices.DeleteFunc(types, func(t string) bool { return t == "spot-instances-request" })
	}
	var tagged []document
	for _, t := range types {
		tagged = append(tagged, document{"resource_type": t, "tags": e.Tags()})
	}
	return Resource{Address: "aws_launch_template.tags", Provider: awsProvider, Values: map[string]any{"name": e.name(),
		"description": "AOB: tags of a training.", "tags": e.Tags(), "tag_specifications": tagged}}
}

func (e EC2) instance(newest string) Resource {
	values := map[string]any{
		"ami": FromData{Address: newest, Attribute: "id"}, "instance_type": e.InstanceType, "subnet_id": e.Subnet,
		"associate_public_ip_address": e.PublicAddress, "iam_instance_profile": e.name(),
		"instance_initiated_shutdown_behavior": "terminate", "disable_api_termination": false, "ebs_optimized": true,
		"source_dest_check": true, "tags": e.Tags(), "volume_tags": e.Tags(),
		"user_data_base64": base64.StdEncoding.EncodeToString([]byte(e.UserData())),
		"launch_template":  []document{{"version": "$Latest"}},
		"metadata_options": []document{{"http_endpoint": "enabled", "http_tokens": "required",
			"http_put_response_hop_limit": 1, "instance_metadata_tags": "disabled"}},
		"root_block_device": []document{{"encrypted": true, "delete_on_termination": true, "volume_type": "gp3",
			"volume_size": e.DiskGB}},
	}
	if e.AMI != "" {
		values["ami"] = e.AMI
	}
	if e.Spot {
		values["instance_market_options"] = []document{{"market_type": "spot", "spot_options": []document{{
			"spot_instance_type": "one-time", "instance_interruption_behavior": "terminate", "max_price": e.MaxPrice}}}}
	}
	return Resource{Address: "aws_instance.trainer", Provider: awsProvider, Values: values, Refers: map[string][]string{
		"vpc_security_group_ids": {"aws_security_group.trainer.id"},
		"launch_template.id":     {"aws_launch_template.tags.id"},
	}}
}

func (e EC2) endRole() Resource {
	return e.roleOf("aws_iam_role.end", e.name()+"-end", "AOB: ends the instance of a training at its expiry.",
		document{"Principal": document{"Service": "scheduler.amazonaws.com"},
			"Condition": document{"StringEquals": document{"aws:SourceAccount": e.Account}}})
}

// endAccess lets the scheduler end the instances of this run alone.
func (e EC2) endAccess() Resource {
	return Resource{Address: "aws_iam_role_policy.end", Provider: awsProvider, Values: map[string]any{"name": "end",
		"role": e.name() + "-end", "policy": policyText(document{"Sid": "End", "Effect": "Allow",
			"Action":   []string{"ec2:TerminateInstances"},
			"Resource": []string{"arn:" + e.Partition + ":ec2:" + e.Region + ":" + e.Account + ":instance/*"},
			"Condition": document{"StringEquals": document{"aws:ResourceTag/aob:controller": e.Controller,
				"aws:ResourceTag/aob:run": e.Run}}})}}
}

// end ends the instance at its expiry.
func (e EC2) end() Resource {
	return Resource{Address: "aws_scheduler_schedule.end", Provider: awsProvider,
		Values: map[string]any{
			"name": e.schedule(), "group_name": e.ScheduleGroup, "state": "ENABLED",
			"schedule_expression_timezone": "UTC",
			"description":                  "AOB: ends the instance of a training at its expiry.",
			"schedule_expression":          "at(" + strings.TrimSuffix(e.Expires, "Z") + ")",
			"flexible_time_window":         []document{{"mode": "OFF"}},
			"target": []document{{"arn": "arn:" + e.Partition + ":scheduler:::aws-sdk:ec2:terminateInstances",
				"retry_policy": []document{{"maximum_retry_attempts": 185, "maximum_event_age_in_seconds": 86400}}}},
		},
		Refers: map[string][]string{
			"target.role_arn": {"aws_iam_role.end.arn"},
			"target.input":    {"aws_instance.trainer.id"},
		}}
}

// policyText is a policy of IAM with these statements.
func policyText(statements ...document) string {
	data, err := json.Marshal(document{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		panic(err) // statements have only texts
	}
	return string(data)
}
