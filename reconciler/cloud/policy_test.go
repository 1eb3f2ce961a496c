package cloud

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// What the server needs is not allowed any more once one condition of it is another: another server's things, another
// kind of instance, another bucket.
func TestPolicyAllowsNothingElse(t *testing.T) {
	p := prepare(t)
	identity := "arn:aws:iam::" + doctorAccount + ":role/aob/aob-" + doctorName
	needs := Needs(doctorName, []string{doctorRegion}, &p.place)
	other := func(key, value string) func(*Need) bool {
		return func(n *Need) bool {
			if _, has := n.Context[key]; !has {
				return false
			}
			n.Context = maps.Clone(n.Context)
			if n.Context[key] = value; value == "" {
				delete(n.Context, key)
			}
			return true
		}
	}
	on := func(old, resource string) func(*Need) bool {
		return func(n *Need) bool {
			was := n.Resource
			n.Resource = strings.Replace(was, old, resource, 1)
			return n.Resource != was
		}
	}
	for _, c := range []struct {
		name, action string
		change       func(*Need) bool // false for a need that has no such condition
	}{
		{"an instance of another server", "ec2:TerminateInstances", other("aws:ResourceTag/"+TagController, "other")},
		{"an instance without tags", "ec2:TerminateInstances", other("aws:ResourceTag/"+TagController, "")},
		{"a volume of another server", "ec2:DeleteVolume", other("aws:ResourceTag/"+TagController, "other")},
		{"a request of another server", "ec2:CancelSpotInstanceRequests", other("aws:ResourceTag/"+TagController, "x")},
		{"a security group of another server", "ec2:DeleteSecurityGroup", other("aws:ResourceTag/"+TagController, "x")},
		{"a start with another's tag", "ec2:RunInstances", other("aws:RequestTag/"+TagController, "other")},
		{"a start without an expiry", "ec2:RunInstances", other("aws:RequestTag/"+TagExpires, "")},
		{"a start of another type", "ec2:RunInstances", other("ec2:InstanceType", "p5.48xlarge")},
		{"a start without IMDSv2", "ec2:RunInstances", other("ec2:MetadataHttpTokens", "optional")},
		{"a start without encryption", "ec2:RunInstances", other("ec2:Encrypted", "false")},
		{"a tag on what is there", "ec2:CreateTags", other("ec2:CreateAction", "")},
		{"a role without the boundary", "iam:CreateRole", other("iam:PermissionsBoundary", "")},
		{"a policy within another boundary", "iam:PutRolePolicy", other("iam:PermissionsBoundary", "arn:aws:iam::1:x")},
		{"a role for another service", "iam:PassRole", other("iam:PassedToService", "lambda.amazonaws.com")},
		{"a role of another name", "iam:PassRole", on("/aob-train-", "/admin-")},
		{"a role of another name", "iam:DeleteRole", on("/aob-train-", "/admin-")},
		{"another bucket", "s3:GetObject", on("s3:::", "s3:::other-")},
		{"another bucket", "s3:DeleteObject", on("s3:::", "s3:::other-")},
		{"a bucket that somebody else has made", "s3:PutObject", other("aws:ResourceAccount", "999999999999")},
		{"a bucket that somebody else has made", "s3:ListBucket", other("aws:ResourceAccount", "999999999999")},
		{"another account", "ec2:TerminateInstances", on(doctorAccount, "999999999999")},
		{"another's schedule", "scheduler:DeleteSchedule", on("/train-", "/backup-")},
		{"a role of another server's run", "iam:PassRole", on(delivery.ThingName(doctorName, ""), "-01234567")},
		{"a role of another server's run", "iam:PutRolePolicy", on(delivery.ThingName(doctorName, ""), "-01234567")},
		{"a schedule of another server's run", "scheduler:DeleteSchedule", on(delivery.ThingName(doctorName, ""),
			"-01234567")},
	} {
		tried := 0
		for _, n := range needs {
			// A request of a spot instance is always one of the same call as an instance.
			if !slices.Contains(n.Actions, c.action) || strings.Contains(n.Resource, ":spot-instances-request/") &&
				c.action == "ec2:RunInstances" {
				continue
			}
			if n.Actions = []string{c.action}; !c.change(&n) {
				continue
			}
			tried++
			missing, err := p.simulate(t.Context(), identity, []Need{n})
			if err != nil {
				t.Fatal(err)
			}
			if len(missing) == 0 {
				t.Errorf("%s: %s is allowed on %s with %v", c.name, c.action, n.Resource, n.Context)
			}
		}
		if tried == 0 {
			t.Errorf("%s: nothing needs %s with this condition", c.name, c.action)
		}
	}
}
