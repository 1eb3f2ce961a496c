package cloud

// This file ends what costs nothing: the security group, the launch template, the roles and the profile of an attempt.
// Terraform destroys them, unless it was killed before it had recorded them.

import (
	"context"
	"errors"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/smithy-go"
)

// EndRest ends what an attempt of a run has in an account besides things that cost money, which must be gone before.
// name is the attempt's. Nothing that lacks the tags of the controller and the run is touched.
func (a *Account) EndRest(ctx context.Context, region, controller, run, name string) error {
	identities := iam.NewFromConfig(a.config, func(o *iam.Options) { o.Region = region })
	err := endProfile(ctx, identities, controller, run, name)
	for _, role := range []string{name, name + "-end"} {
		err = errors.Join(err, endRole(ctx, identities, controller, run, role))
	}
	if err != nil {
		return explainCall(region, err) // a sweep finds the roles by the tags of what is left
	}
	client := a.ec2(region)
	filters := tagged(controller, equals("tag:"+TagRun, run))
	templates, failed := client.DescribeLaunchTemplates(ctx, &ec2.DescribeLaunchTemplatesInput{Filters: filters})
	if failed != nil {
		return explainCall(region, failed)
	}
	for _, t := range templates.LaunchTemplates {
		_, failed := client.DeleteLaunchTemplate(ctx, &ec2.DeleteLaunchTemplateInput{
			LaunchTemplateId: t.LaunchTemplateId})
		err = errors.Join(err, unless(failed, "InvalidLaunchTemplateId.NotFound"))
	}
	groups, failed := client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: filters})
	if failed != nil {
		return explainCall(region, errors.Join(err, failed))
	}
	for _, g := range groups.SecurityGroups {
		_, failed := client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: g.GroupId})
		err = errors.Join(err, unless(failed, "InvalidGroup.NotFound"))
	}
	return explainCall(region, err)
}

// unless returns an error, but nil for one with a code.
func unless(err error, code string) error {
	if api, ok := errors.AsType[smithy.APIError](err); ok && api.ErrorCode() == code {
		return nil
	}
	return err
}

const noEntity = "NoSuchEntity" // what IAM says of something that is not there

func endProfile(ctx context.Context, client *iam.Client, controller, run, name string) error {
	got, err := client.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: &name})
	if err != nil || !ofRun(got.InstanceProfile.Tags, controller, run) {
		return unless(err, noEntity)
	}
	for _, role := range got.InstanceProfile.Roles {
		_, failed := client.RemoveRoleFromInstanceProfile(ctx, &iam.RemoveRoleFromInstanceProfileInput{
			InstanceProfileName: &name, RoleName: role.RoleName})
		err = errors.Join(err, unless(failed, noEntity))
	}
	_, failed := client.DeleteInstanceProfile(ctx, &iam.DeleteInstanceProfileInput{InstanceProfileName: &name})
	return errors.Join(err, unless(failed, noEntity))
}

func endRole(ctx context.Context, client *iam.Client, controller, run, name string) error {
	got, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil || !ofRun(got.Role.Tags, controller, run) {
		return unless(err, noEntity)
	}
	policies, err := client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: &name})
	if err != nil {
		return unless(err, noEntity)
	}
	for _, policy := range policies.PolicyNames {
		_, failed := client.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &name, PolicyName: &policy})
		err = errors.Join(err, unless(failed, noEntity))
	}
	_, failed := client.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: &name})
	return errors.Join(err, unless(failed, noEntity))
}

// ofRun reports whether tags are those of a controller and a run.
func ofRun(tags []iamtypes.Tag, controller, run string) bool {
	has := func(key, value string) bool {
		return slices.ContainsFunc(tags, func(t iamtypes.Tag) bool {
			return aws.ToString(t.Key) == key && aws.ToString(t.Value) == value
		})
	}
	return has(TagController, controller) && has(TagRun, run)
}
