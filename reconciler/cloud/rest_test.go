package cloud

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/autonomos/aob/tools/moto/mototest"
)

// What costs nothing of one attempt is ended, and nothing of another run or of another server, whatever its name is.
func TestEndRest(t *testing.T) {
	const region = "eu-west-1"
	a := newMotoAccount(t, mototest.Start(t).URL)
	vpcs, err := a.ec2(region).DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
	if err != nil {
		t.Fatal(err)
	}
	identities := iam.NewFromConfig(a.config, func(o *iam.Options) { o.Region = region })
	made := func(name, controller, run string) {
		t.Helper()
		tags := map[string]string{TagController: controller, TagRun: run}
		var list []iamtypes.Tag
		for key, value := range tags {
			list = append(list, iamtypes.Tag{Key: &key, Value: &value})
		}
		of := func(kind ec2types.ResourceType) []ec2types.TagSpecification {
			return []ec2types.TagSpecification{{ResourceType: kind, Tags: ec2Tags(tags)}}
		}
		_, err := a.ec2(region).CreateSecurityGroup(t.Context(), &ec2.CreateSecurityGroupInput{GroupName: &name,
			Description: &name, VpcId: vpcs.Vpcs[0].VpcId, TagSpecifications: of(ec2types.ResourceTypeSecurityGroup)})
		if err == nil {
			_, err = a.ec2(region).CreateLaunchTemplate(t.Context(), &ec2.CreateLaunchTemplateInput{
				LaunchTemplateName: &name, TagSpecifications: of(ec2types.ResourceTypeLaunchTemplate),
				LaunchTemplateData: &ec2types.RequestLaunchTemplateData{}})
		}
		for _, role := range []string{name, name + "-end"} {
			if err == nil {
				_, err = identities.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &role, Tags: list,
					Path: aws.String("/aob/"), AssumeRolePolicyDocument: aws.String("{}")})
			}
			if err == nil {
				_, err = identities.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &role,
					PolicyName: aws.String("run"), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[` +
						`{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}`)})
			}
		}
		if err == nil {
			_, err = identities.CreateInstanceProfile(t.Context(), &iam.CreateInstanceProfileInput{
				InstanceProfileName: &name, Path: aws.String("/aob/"), Tags: list})
		}
		if err == nil {
			_, err = identities.AddRoleToInstanceProfile(t.Context(), &iam.AddRoleToInstanceProfileInput{
				InstanceProfileName: &name, RoleName: &name})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	there := func() (names []string) {
		t.Helper()
		groups, err := a.ec2(region).DescribeSecurityGroups(t.Context(), &ec2.DescribeSecurityGroupsInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups.SecurityGroups {
			names = append(names, "group "+*g.GroupName)
		}
		templates, err := a.ec2(region).DescribeLaunchTemplates(t.Context(), &ec2.DescribeLaunchTemplatesInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range templates.LaunchTemplates {
			names = append(names, "template "+*l.LaunchTemplateName)
		}
		roles, err := identities.ListRoles(t.Context(), &iam.ListRolesInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range roles.Roles {
			names = append(names, "role "+*r.RoleName)
		}
		profiles, err := identities.ListInstanceProfiles(t.Context(), &iam.ListInstanceProfilesInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range profiles.InstanceProfiles {
			names = append(names, "profile "+*p.InstanceProfileName)
		}
		return slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, " default") })
	}
	made("aob-train-1-1", "aob", "train-1")
	made("aob-train-2-1", "aob", "train-2")
	made("aob-train-3-1", "another", "train-3")
	for range 2 { // it may be repeated
		for i := 1; i <= 3; i += 2 {
			run := fmt.Sprintf("train-%d", i)
			if err := a.EndRest(t.Context(), region, "aob", run, "aob-"+run+"-1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	var want []string
	for _, name := range []string{"aob-train-2-1", "aob-train-3-1"} {
		want = append(want, "group "+name, "template "+name, "role "+name, "role "+name+"-end", "profile "+name)
	}
	got := there()
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("left are\n%q\nwant\n%q", got, want)
	}
}
