package cloud

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/autonomos/aob/tools/moto/mototest"
)

const restRegion = "eu-west-1"

// leave makes what costs nothing of an attempt.
func (m *motoAccount) leave(name, controller, run string) {
	m.Helper()
	identities := iam.NewFromConfig(m.config, func(o *iam.Options) { o.Region = restRegion })
	vpcs, err := m.ec2(restRegion).DescribeVpcs(m.Context(), &ec2.DescribeVpcsInput{})
	if err != nil {
		m.Fatal(err)
	}
	tags := map[string]string{TagController: controller, TagRun: run, "Name": name}
	var list []iamtypes.Tag
	for key, value := range tags {
		list = append(list, iamtypes.Tag{Key: &key, Value: &value})
	}
	// A call whose answer is lost is made again.
	do := func(_ any, err error) {
		m.Helper()
		for _, code := range []string{"EntityAlreadyExists", "InvalidGroup.Duplicate",
			"InvalidLaunchTemplateName.AlreadyExistsException", "LimitExceeded"} {
			err = unless(err, code)
		}
		if err != nil {
			m.Fatal(err)
		}
	}
	of := func(kind ec2types.ResourceType) []ec2types.TagSpecification {
		return []ec2types.TagSpecification{{ResourceType: kind, Tags: ec2Tags(tags)}}
	}
	do(m.ec2(restRegion).CreateSecurityGroup(m.Context(), &ec2.CreateSecurityGroupInput{GroupName: &name,
		Description: &name, VpcId: vpcs.Vpcs[0].VpcId, TagSpecifications: of(ec2types.ResourceTypeSecurityGroup)}))
	do(m.ec2(restRegion).CreateLaunchTemplate(m.Context(), &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: &name, TagSpecifications: of(ec2types.ResourceTypeLaunchTemplate),
		LaunchTemplateData: &ec2types.RequestLaunchTemplateData{}}))
	for _, role := range []string{name, name + "-end"} {
		do(identities.CreateRole(m.Context(), &iam.CreateRoleInput{RoleName: &role, Tags: list,
			Path: aws.String("/aob/"), AssumeRolePolicyDocument: aws.String("{}")}))
		do(identities.PutRolePolicy(m.Context(), &iam.PutRolePolicyInput{RoleName: &role,
			PolicyName: aws.String("run"), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[` +
				`{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}`)}))
	}
	do(identities.CreateInstanceProfile(m.Context(), &iam.CreateInstanceProfileInput{
		InstanceProfileName: &name, Path: aws.String("/aob/"), Tags: list}))
	do(identities.AddRoleToInstanceProfile(m.Context(), &iam.AddRoleToInstanceProfileInput{
		InstanceProfileName: &name, RoleName: &name}))
}

// left lists what costs nothing.
func (m *motoAccount) left() (names []string) {
	m.Helper()
	identities := iam.NewFromConfig(m.config, func(o *iam.Options) { o.Region = restRegion })
	groups, err := m.ec2(restRegion).DescribeSecurityGroups(m.Context(), &ec2.DescribeSecurityGroupsInput{})
	if err != nil {
		m.Fatal(err)
	}
	for _, g := range groups.SecurityGroups {
		names = append(names, "group "+*g.GroupName)
	}
	templates, err := m.ec2(restRegion).DescribeLaunchTemplates(m.Context(), &ec2.DescribeLaunchTemplatesInput{})
	if err != nil {
		m.Fatal(err)
	}
	for _, l := range templates.LaunchTemplates {
		names = append(names, "template "+*l.LaunchTemplateName)
	}
	roles, err := identities.ListRoles(m.Context(), &iam.ListRolesInput{})
	if err != nil {
		m.Fatal(err)
	}
	for _, r := range roles.Roles {
		names = append(names, "role "+*r.RoleName)
	}
	profiles, err := identities.ListInstanceProfiles(m.Context(), &iam.ListInstanceProfilesInput{})
	if err != nil {
		m.Fatal(err)
	}
	for _, p := range profiles.InstanceProfiles {
		names = append(names, "profile "+*p.InstanceProfileName)
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, " default") })
}

// What costs nothing of one attempt is ended, and nothing of another run or of another server, whatever its name is.
func TestEndRest(t *testing.T) {
	m := newMotoAccount(t, mototest.Start(t).URL)
	m.leave("aob-train-1-1", "aob", "train-1")
	m.leave("aob-train-2-1", "aob", "train-2")
	m.leave("aob-train-3-1", "another", "train-3")
	for range 2 { // it may be repeated
		for i := 1; i <= 3; i += 2 {
			run := fmt.Sprintf("train-%d", i)
			if err := m.EndRest(t.Context(), restRegion, "aob", run, "aob-"+run+"-1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.wantLeft("aob-train-2-1", "aob-train-3-1")
}

// wantLeft checks which attempts still have something, and that they have all of it.
func (m *motoAccount) wantLeft(names ...string) {
	m.Helper()
	var want []string
	for _, name := range names {
		want = append(want, "group "+name, "template "+name, "role "+name, "role "+name+"-end", "profile "+name)
	}
	slices.Sort(want)
	if got := m.left(); !slices.Equal(got, want) {
		m.Errorf("left are\n%q\nwant\n%q", got, want)
	}
}

// A sweep ends what costs nothing of runs that are not known or over, once nothing else of them is there, and nothing
// of a run that goes on, of another server, or with the name of another run.
func TestSweepEndsTheRest(t *testing.T) {
	address := mototest.Start(t).URL
	m := newMotoAccount(t, address)
	for i, name := range []string{"gone", "gone", "over", "alive", "unread", "busy"} {
		m.leave(fmt.Sprintf("aob-%s-%d", name, i), "aob", name)
	}
	m.leave("aob-gone-9", "another", "gone")
	busy := m.start(restRegion, 1, tagsFor("aob", "busy", time.Now().Add(time.Hour)))
	of := map[string]Life{"over": RunOver, "alive": RunAlive, "unread": RunUnread, "busy": RunAlive}
	s, err := sweeperAt(t.Context(), address, of)
	if err != nil {
		t.Fatal(err)
	}
	s.Sweep(t.Context())
	m.wantLeft("aob-alive-3", "aob-unread-4", "aob-busy-5", "aob-gone-9")
	of["busy"] = RunOver
	s.Sweep(t.Context()) // ends the instance
	if !m.ended()[restRegion+" "+busy[0]] {
		t.Error("the instance is left")
	}
	s.Sweep(t.Context())
	m.wantLeft("aob-alive-3", "aob-unread-4", "aob-gone-9")
	s.Runs = nil
	of["alive"] = RunOver
	s.Sweep(t.Context())
	m.wantLeft("aob-alive-3", "aob-unread-4", "aob-gone-9")
}
