package main

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	schedulertypes "github.com/aws/aws-sdk-go-v2/service/scheduler/types"
)

func iamTags(o object) []types.Tag {
	return tagList(o, "tags", func(key, value *string) types.Tag { return types.Tag{Key: key, Value: value} })
}

func iamPair(t types.Tag) (*string, *string) { return t.Key, t.Value }

func createRole(ctx context.Context, c *clients, o object) (string, error) {
	out, err := c.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: optional(o, "name"), Path: optional(o, "path"),
		AssumeRolePolicyDocument: optional(o, "assume_role_policy"), Description: optional(o, "description"),
		MaxSessionDuration: number(o, "max_session_duration"), PermissionsBoundary: optional(o, "permissions_boundary"),
		Tags: iamTags(o)})
	if err != nil {
		return "", err
	}
	return *out.Role.RoleName, nil
}

func readRole(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: optional(was, "id")})
	if err != nil {
		return nil, ignoreGone(err)
	}
	attached, err := c.iam.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: optional(was,
		"id")})
	if err != nil {
		return nil, ignoreGone(err)
	}
	r := got.Role
	out := object{"id": *r.RoleName, "max_session_duration": float64(aws.ToInt32(r.MaxSessionDuration)),
		"managed_policy_arns": list(attached.AttachedPolicies,
			func(p types.AttachedPolicy) any { return *p.PolicyArn })}
	set(out, "name", r.RoleName)
	set(out, "path", r.Path)
	set(out, "arn", r.Arn)
	set(out, "unique_id", r.RoleId)
	set(out, "description", r.Description)
	if r.PermissionsBoundary != nil {
		set(out, "permissions_boundary", r.PermissionsBoundary.PermissionsBoundaryArn)
	}
	document(out, "assume_role_policy", r.AssumeRolePolicyDocument, was)
	tagged(out, was, r.Tags, iamPair)
	return out, nil
}

func deleteRole(ctx context.Context, c *clients, o object) error {
	_, err := c.iam.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: optional(o, "id")})
	return ignoreGone(err)
}

func createRolePolicy(ctx context.Context, c *clients, o object) (string, error) {
	_, err := c.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: optional(o, "role"),
		PolicyName: optional(o, "name"), PolicyDocument: optional(o, "policy")})
	if err != nil {
		return "", err
	}
	return text(o, "role") + ":" + text(o, "name"), nil
}

func readRolePolicy(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: optional(was, "role"),
		PolicyName: optional(was, "name")})
	if err != nil {
		return nil, ignoreGone(err)
	}
	out := object{"id": text(was, "id")}
	document(out, "policy", got.PolicyDocument, was)
	return out, nil
}

func deleteRolePolicy(ctx context.Context, c *clients, o object) error {
	_, err := c.iam.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: optional(o, "role"),
		PolicyName: optional(o, "name")})
	return ignoreGone(err)
}

func createProfile(ctx context.Context, c *clients, o object) (string, error) {
	out, err := c.iam.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: optional(o,
		"name"),
		Path: optional(o, "path"), Tags: iamTags(o)})
	if err != nil {
		return "", err
	}
	_, err = c.iam.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{
		InstanceProfileName: optional(o, "name"), RoleName: optional(o, "role")})
	return *out.InstanceProfile.InstanceProfileName, err
}

func readProfile(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.iam.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: optional(was, "id")})
	if err != nil {
		return nil, ignoreGone(err)
	}
	p := got.InstanceProfile
	out := object{"id": *p.InstanceProfileName, "role": nil}
	if len(p.Roles) > 0 {
		out["role"] = *p.Roles[0].RoleName
	}
	set(out, "name", p.InstanceProfileName)
	set(out, "path", p.Path)
	set(out, "arn", p.Arn)
	set(out, "unique_id", p.InstanceProfileId)
	tagged(out, was, p.Tags, iamPair)
	return out, nil
}

func deleteProfile(ctx context.Context, c *clients, o object) error {
	_, err := c.iam.RemoveRoleFromInstanceProfile(ctx, &iam.RemoveRoleFromInstanceProfileInput{
		InstanceProfileName: optional(o, "id"), RoleName: optional(o, "role")})
	if ignoreGone(err) != nil {
		return err
	}
	_, err = c.iam.DeleteInstanceProfile(ctx, &iam.DeleteInstanceProfileInput{InstanceProfileName: optional(o, "id")})
	return ignoreGone(err)
}

func createOpenID(ctx context.Context, c *clients, o object) (string, error) {
	out, err := c.iam.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: optional(o, "url"),
		ClientIDList: texts(o, "client_id_list"), ThumbprintList: texts(o, "thumbprint_list"), Tags: iamTags(o)})
	if err != nil {
		return "", err
	}
	return *out.OpenIDConnectProviderArn, nil
}

func readOpenID(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.iam.GetOpenIDConnectProvider(ctx, &iam.GetOpenIDConnectProviderInput{
		OpenIDConnectProviderArn: optional(was, "id")})
	if err != nil {
		return nil, ignoreGone(err)
	}
	asText := func(s string) any { return s }
	out := object{"id": text(was, "id"), "arn": text(was, "id"), "client_id_list": list(got.ClientIDList, asText),
		"thumbprint_list": list(got.ThumbprintList, asText),
		"url":             "https://" + strings.TrimPrefix(aws.ToString(got.Url), "https://")}
	tagged(out, was, got.Tags, iamPair)
	return out, nil
}

func deleteOpenID(ctx context.Context, c *clients, o object) error {
	_, err := c.iam.DeleteOpenIDConnectProvider(ctx, &iam.DeleteOpenIDConnectProviderInput{
		OpenIDConnectProviderArn: optional(o, "id")})
	return ignoreGone(err)
}

func createSchedule(ctx context.Context, c *clients, o object) (string, error) {
	target, window := first(o, "target"), first(o, "flexible_time_window")
	in := &scheduler.CreateScheduleInput{Name: optional(o, "name"), GroupName: optional(o, "group_name"),
		Description: optional(o, "description"), ScheduleExpression: optional(o, "schedule_expression"),
		ScheduleExpressionTimezone: optional(o, "schedule_expression_timezone"),
		State:                      schedulertypes.ScheduleState(text(o, "state")),
		FlexibleTimeWindow: &schedulertypes.FlexibleTimeWindow{
			Mode: schedulertypes.FlexibleTimeWindowMode(text(window, "mode"))},
		Target: &schedulertypes.Target{Arn: optional(target, "arn"), RoleArn: optional(target, "role_arn"),
			Input: optional(target, "input")}}
	if retry := first(target, "retry_policy"); retry != nil {
		in.Target.RetryPolicy = &schedulertypes.RetryPolicy{MaximumRetryAttempts: number(retry,
			"maximum_retry_attempts"),
			MaximumEventAgeInSeconds: number(retry, "maximum_event_age_in_seconds")}
	}
	if _, err := c.scheduler.CreateSchedule(ctx, in); err != nil {
		return "", err
	}
	return text(o, "group_name") + "/" + text(o, "name"), nil
}

func readSchedule(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.scheduler.GetSchedule(ctx, &scheduler.GetScheduleInput{Name: optional(was, "name"),
		GroupName: optional(was, "group_name")})
	if err != nil {
		return nil, ignoreGone(err)
	}
	target := object{"arn": *got.Target.Arn, "role_arn": *got.Target.RoleArn}
	document(target, "input", got.Target.Input, first(was, "target"))
	if r := got.Target.RetryPolicy; r != nil {
		target["retry_policy"] = []any{object{"maximum_retry_attempts": float64(aws.ToInt32(r.MaximumRetryAttempts)),
			"maximum_event_age_in_seconds": float64(aws.ToInt32(r.MaximumEventAgeInSeconds))}}
	}
	out := object{"id": text(was, "id"), "state": string(got.State), "target": []any{target},
		"flexible_time_window": []any{object{"mode": string(got.FlexibleTimeWindow.Mode)}}}
	set(out, "arn", got.Arn)
	set(out, "schedule_expression", got.ScheduleExpression)
	set(out, "schedule_expression_timezone", got.ScheduleExpressionTimezone)
	return out, nil
}

func deleteSchedule(ctx context.Context, c *clients, o object) error {
	_, err := c.scheduler.DeleteSchedule(ctx, &scheduler.DeleteScheduleInput{Name: optional(o, "name"),
		GroupName: optional(o, "group_name")})
	return ignoreGone(err)
}

func createPolicy(ctx context.Context, c *clients, o object) (string, error) {
	out, err := c.iam.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: optional(o, "name"), Path: optional(o,
		"path"),
		Description: optional(o, "description"), PolicyDocument: optional(o, "policy"), Tags: iamTags(o)})
	if err != nil {
		return "", err
	}
	return *out.Policy.Arn, nil
}

func readPolicy(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.iam.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: optional(was, "id")})
	if err != nil {
		return nil, ignoreGone(err)
	}
	p := got.Policy
	version, err := c.iam.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: p.Arn,
		VersionId: p.DefaultVersionId})
	if err != nil {
		return nil, ignoreGone(err)
	}
	out := object{"id": *p.Arn, "arn": *p.Arn}
	set(out, "name", p.PolicyName)
	set(out, "path", p.Path)
	set(out, "policy_id", p.PolicyId)
	set(out, "description", p.Description)
	document(out, "policy", version.PolicyVersion.Document, was)
	tagged(out, was, p.Tags, iamPair)
	return out, nil
}

func deletePolicy(ctx context.Context, c *clients, o object) error {
	_, err := c.iam.DeletePolicy(ctx, &iam.DeletePolicyInput{PolicyArn: optional(o, "id")})
	return ignoreGone(err)
}
