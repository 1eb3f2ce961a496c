package cloud

// This file lists what the server's role must be allowed to do, and asks AWS what it is allowed.

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Place is where instances start, as the server's configuration has it.
type Place struct {
	Account       string
	VPC           string
	Subnet        string
	PublicAddress bool
	AMI           string // "" for the newest of AMIOwner and AMIName
	AMIOwner      string
	AMIName       string
	Instances     []string // types
	Runs          string   // buckets
	States        string
	Boundary      string // ARN of the policy that bounds the roles of runs, or ""
	ScheduleGroup string
}

// A Need is what a role must be allowed on one resource.
type Need struct {
	For      string // what needs it
	Actions  []string
	Resource string            // an ARN, or *
	Context  map[string]string // what the call says of itself, as policies' conditions see it
}

// Partition returns the partition of a region.
func Partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// Needs lists what the server's role must be allowed: what this package calls, and what Terraform's provider calls for
// each resource of the module train-aws-ec2 when it makes, reads and removes it. place is nil where no instance starts.
func Needs(controller string, regions []string, place *Place) []Need {
	arn := "arn:" + Partition(regions[0])
	own := map[string]string{"aws:ResourceTag/" + TagController: controller}
	account := "*"
	if place != nil {
		account = place.Account
	}
	const sweep = "sweeps of what runs leave"
	name := delivery.ThingName(controller, anyRun)
	list := []Need{{For: sweep, Resource: "*", Actions: []string{"ec2:DescribeInstances",
		"ec2:DescribeSpotInstanceRequests", "ec2:DescribeVolumes", "scheduler:ListScheduleGroups",
		"scheduler:ListSchedules"}},
		{For: "prices", Resource: "*", Actions: []string{"ec2:DescribeSpotPriceHistory", "pricing:GetProducts"}}}
	for _, region := range regions {
		ec2 := arn + ":ec2:" + region + ":" + account + ":"
		group := arn + ":scheduler:" + region + ":" + account + ":schedule-group/aob-runs"
		list = append(list,
			Need{sweep, []string{"ec2:TerminateInstances"}, ec2 + "instance/i-0123456789abcdef0", own},
			Need{sweep, []string{"ec2:DeleteVolume"}, ec2 + "volume/vol-0123456789abcdef0", own},
			Need{sweep, []string{"ec2:CancelSpotInstanceRequests"}, ec2 + "spot-instances-request/sir-01234567", own},
			Need{sweep, []string{"scheduler:ListTagsForResource", "scheduler:DeleteScheduleGroup"}, group, own},
			Need{sweep, []string{"scheduler:DeleteSchedule", "scheduler:GetSchedule"}, arn + ":scheduler:" + region +
				":" + account + ":schedule/default/" + name, nil},
			Need{sweep, []string{"iam:GetRole"}, arn + ":iam::" + account + ":role/aob/aob-" + name + "-1-end", nil})
	}
	if place != nil {
		list = append(list, place.needs(controller, arn, regions[0])...)
	}
	return list
}

// anyRun is the name of a run: the folder of a training, whose key has 32 hexadecimal digits there.
const anyRun = "train-0123456789abcdef0123456789abcdef"

func (p *Place) needs(controller, arn, region string) []Need {
	own := map[string]string{"aws:ResourceTag/" + TagController: controller}
	tags := map[string]string{"aws:RequestTag/" + TagController: controller, "aws:RequestTag/" + TagRun: anyRun,
		"aws:RequestTag/" + TagExpires: "2026-11-30T18:00:00Z"}
	ec2, accountIAM := arn+":ec2:"+region+":"+p.Account+":", arn+":iam::"+p.Account+":"
	name := delivery.ThingName(controller, anyRun)
	role := accountIAM + "role/aob/aob-" + name + "-1"
	profile := accountIAM + "instance-profile/aob/aob-" + name + "-1"
	schedule := arn + ":scheduler:" + region + ":" + p.Account + ":schedule/" + p.ScheduleGroup + "/" + name
	const start, roles, files = "the start of instances", "the roles of instances", "the files of runs"
	with := func(base map[string]string, more ...string) map[string]string {
		all := maps.Clone(base)
		for i := 0; i+1 < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	list := []Need{
		{start, []string{"ec2:DescribeImages", "ec2:DescribeInstanceAttribute", "ec2:DescribeInstanceTypeOfferings",
			"ec2:DescribeInstanceTypes",
			"ec2:DescribeLaunchTemplateVersions", "ec2:DescribeLaunchTemplates", "ec2:DescribeNetworkInterfaces",
			"ec2:DescribeRouteTables", "ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeTags",
			"servicequotas:GetServiceQuota"}, "*", nil},
		{start, []string{"ec2:RunInstances"}, ec2 + "volume/vol-0123456789abcdef0",
			with(tags, "ec2:Encrypted", "true")},
		{start, []string{"ec2:RunInstances"}, arn + ":ec2:" + region + "::image/ami-0123456789abcdef0", nil},
		{start, []string{"ec2:RunInstances"}, ec2 + "network-interface/eni-0123456789abcdef0", nil},
		{start, []string{"ec2:RunInstances"}, ec2 + "subnet/" + p.Subnet, nil},
		{start, []string{"ec2:RunInstances"}, ec2 + "spot-instances-request/sir-01234567", tags},
		{start, []string{"ec2:RunInstances"}, ec2 + "launch-template/lt-0123456789abcdef0", own},
		{start, []string{"ec2:RunInstances"}, ec2 + "security-group/sg-0123456789abcdef0", own},
		{start, []string{"ec2:CreateLaunchTemplate"}, ec2 + "launch-template/lt-0123456789abcdef0", tags},
		{start, []string{"ec2:CreateSecurityGroup"}, ec2 + "security-group/sg-0123456789abcdef0", tags},
		{start, []string{"ec2:CreateSecurityGroup"}, ec2 + "vpc/" + p.VPC, nil},
		{start, []string{"ec2:CreateTags"}, ec2 + "launch-template/lt-0123456789abcdef0",
			with(tags, "ec2:CreateAction", "CreateLaunchTemplate")},
		{start, []string{"ec2:CreateTags"}, ec2 + "security-group/sg-0123456789abcdef0",
			with(tags, "ec2:CreateAction", "CreateSecurityGroup")},
		{start, []string{"ec2:CreateTags"}, ec2 + "instance/i-0123456789abcdef0",
			with(tags, "ec2:CreateAction", "RunInstances")},
		{start, []string{"ec2:AuthorizeSecurityGroupEgress", "ec2:DeleteSecurityGroup",
			"ec2:RevokeSecurityGroupEgress"}, ec2 + "security-group/sg-0123456789abcdef0", own},
		{start, []string{"ec2:DeleteLaunchTemplate"}, ec2 + "launch-template/lt-0123456789abcdef0", own},
		{"the first spot instance of an account", []string{"iam:CreateServiceLinkedRole"}, accountIAM +
			"role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot",
			map[string]string{"iam:AWSServiceName": "spot.amazonaws.com"}},
		{roles, []string{"iam:CreateRole", "iam:PutRolePolicy"}, role,
			map[string]string{"iam:PermissionsBoundary": p.Boundary}},
		{roles, []string{"iam:DeleteRole", "iam:DeleteRolePolicy", "iam:GetRole", "iam:GetRolePolicy",
			"iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole", "iam:ListRolePolicies", "iam:TagRole"},
			role, nil},
		{roles, []string{"iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile", "iam:DeleteInstanceProfile",
			"iam:GetInstanceProfile", "iam:RemoveRoleFromInstanceProfile", "iam:TagInstanceProfile"}, profile, nil},
		{roles, []string{"iam:GetRole"}, accountIAM + "role/aob-" + name + "-1", nil}, // one that is gone
		{roles, []string{"iam:GetInstanceProfile"}, accountIAM + "instance-profile/aob-" + name + "-1", nil},
		{roles, []string{"iam:PassRole"}, role, map[string]string{"iam:PassedToService": "ec2.amazonaws.com"}},
		{roles, []string{"iam:PassRole"}, role, map[string]string{"iam:PassedToService": "scheduler.amazonaws.com"}},
		{"the schedules that end instances", []string{"scheduler:CreateSchedule", "scheduler:DeleteSchedule",
			"scheduler:GetSchedule"}, schedule, nil},
	}
	for _, instance := range p.Instances {
		list = append(list, Need{start, []string{"ec2:RunInstances"}, ec2 + "instance/i-0123456789abcdef0",
			with(tags, "ec2:InstanceType", instance, "ec2:MetadataHttpTokens", "required")})
	}
	here := map[string]string{"aws:ResourceAccount": p.Account}
	for _, bucket := range []string{p.Runs, p.States} {
		list = append(list,
			Need{files, []string{"s3:ListBucket", "s3:GetBucketPublicAccessBlock", "s3:GetBucketVersioning",
				"s3:GetEncryptionConfiguration"}, arn + ":s3:::" + bucket, here},
			Need{files, []string{"s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"},
				arn + ":s3:::" + bucket + "/runs/" + anyRun, here})
	}
	return list
}

// A Missing is what is not allowed of a need.
type Missing struct {
	Need
	Denied bool // a policy denies it, so that allowing it elsewhere does not help
}

// String says what is missing.
func (m Missing) String() string {
	is, on := "is not allowed%s: it is", ""
	if len(m.Actions) > 1 {
		is = "are not allowed%s: they are"
	}
	if i := strings.LastIndexByte(m.Resource, '/'); i > 0 {
		on = " on " + m.Resource[:i] + "/*"
	} else if m.Resource != "*" {
		on = " on " + m.Resource
	}
	return strings.Join(m.Actions, ", ") + " " + fmt.Sprintf(is, on) + " for " + m.For
}

// simulate asks AWS what a principal is allowed. It returns what it is not.
func (a *Account) simulate(ctx context.Context, principal string, needs []Need) ([]Missing, error) {
	client := iam.NewFromConfig(a.config)
	var missing []Missing
	for _, n := range needs {
		input := &iam.SimulatePrincipalPolicyInput{PolicySourceArn: &principal, ActionNames: n.Actions,
			ResourceArns: []string{n.Resource}}
		for _, key := range slices.Sorted(maps.Keys(n.Context)) {
			kind := iamtypes.ContextKeyTypeEnumString
			if v := n.Context[key]; v == "true" || v == "false" {
				kind = iamtypes.ContextKeyTypeEnumBoolean
			}
			input.ContextEntries = append(input.ContextEntries, iamtypes.ContextEntry{ContextKeyName: aws.String(key),
				ContextKeyType: kind, ContextKeyValues: []string{n.Context[key]}})
		}
		no := map[bool][]string{} // by whether a policy denies it
		p := iam.NewSimulatePrincipalPolicyPaginator(client, input)
		err := pages(p.HasMorePages, func() error {
			page, err := p.NextPage(ctx)
			if err != nil {
				return err
			}
			for _, r := range page.EvaluationResults {
				if r.EvalDecision != iamtypes.PolicyEvaluationDecisionTypeAllowed {
					denied := r.EvalDecision == iamtypes.PolicyEvaluationDecisionTypeExplicitDeny
					no[denied] = append(no[denied], aws.ToString(r.EvalActionName))
				}
			}
			return nil
		})
		if err != nil {
			return nil, explainCall("all regions", err)
		}
		for _, denied := range []bool{false, true} {
			if len(no[denied]) > 0 {
				missing = append(missing, Missing{Need{For: n.For, Actions: no[denied], Resource: n.Resource}, denied})
			}
		}
	}
	return missing, nil
}

// principal returns the ARN of the role or user behind an identity of STS.
func (a *Account) principal(ctx context.Context, identity string) (string, error) {
	parts := strings.Split(identity, ":")
	if len(parts) != 6 {
		return "", fmt.Errorf("AWS names the credentials %q", delivery.PlainText(identity, 200))
	}
	kind := strings.Split(parts[5], "/")
	if parts[2] != "sts" || kind[0] != "assumed-role" || len(kind) < 2 {
		return identity, nil
	}
	// The identity has no path of the role, and a simulation needs it.
	out, err := iam.NewFromConfig(a.config).GetRole(ctx, &iam.GetRoleInput{RoleName: &kind[1]})
	if err != nil {
		return "", explainCall("all regions", err)
	}
	return aws.ToString(out.Role.Arn), nil
}
