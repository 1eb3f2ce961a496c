package cloud

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"

	"github.com/autonomos/aob/reconciler/delivery"
)

// The group of schedules that every account has, and what the names of AOB's schedules in it begin with. The module
// train-aws-ec2 uses it unless it is given another one.
const (
	defaultGroup = "default"
	runPrefix    = "train-"
)

// ungrouped lists the schedules of the default group. Neither they nor the group have tags, but the role of a schedule
// has: whose it is, and of which run. A schedule whose role is gone or is not this server's to read is nobody's.
func (l *Listing) ungrouped(ctx context.Context, a *Account, region, controller string) error {
	client := a.scheduler(region)
	identities := iam.NewFromConfig(a.config, func(o *iam.Options) { o.Region = region })
	p := scheduler.NewListSchedulesPaginator(client, &scheduler.ListSchedulesInput{GroupName: aws.String(defaultGroup),
		NamePrefix: aws.String(runPrefix)})
	return pages(p.HasMorePages, func() error {
		page, err := p.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, listed := range page.Schedules {
			name := aws.ToString(listed.Name)
			run := runOf(controller, name)
			s, err := client.GetSchedule(ctx, &scheduler.GetScheduleInput{GroupName: aws.String(defaultGroup),
				Name: &name})
			if gone(err) || refused(err) {
				continue
			}
			if err != nil {
				return err
			}
			role := roleOf(s, name)
			if role == "" {
				continue
			}
			got, err := identities.GetRole(ctx, &iam.GetRoleInput{RoleName: &role})
			if refused(err) || err != nil && unless(err, noEntity) == nil {
				continue
			}
			if err != nil {
				return err
			}
			if ofRun(got.Role.Tags, controller, run) {
				l.Items = append(l.Items, Item{Kind: delivery.OrphanSchedule, ID: defaultGroup + "/" + name,
					Region: region, State: string(s.State),
					Tags: map[string]string{TagController: controller, TagRun: run}})
			}
		}
		return nil
	})
}

// runOf returns the run that a schedule of a server has in its name. Those of earlier versions have no more in it.
func runOf(controller, name string) string {
	return strings.TrimSuffix(name, delivery.ThingName(controller, ""))
}

// EndSchedule removes the schedule of a run by its name. A missing one is no error, and one that another server
// uses stays.
func (a *Account) EndSchedule(ctx context.Context, region, controller, group, name string) error {
	client, run := a.scheduler(region), runOf(controller, name)
	s, err := client.GetSchedule(ctx, &scheduler.GetScheduleInput{GroupName: &group, Name: &name})
	if gone(err) {
		return nil
	}
	if err != nil {
		return explainCall(region, err)
	}
	role := roleOf(s, name)
	if role == "" {
		return nil
	}
	identities := iam.NewFromConfig(a.config, func(o *iam.Options) { o.Region = region })
	got, err := identities.GetRole(ctx, &iam.GetRoleInput{RoleName: &role})
	if err := unless(err, noEntity); err != nil {
		return explainCall(region, err)
	}
	if err == nil && !ofRun(got.Role.Tags, controller, run) {
		return nil
	}
	_, err = client.DeleteSchedule(ctx, &scheduler.DeleteScheduleInput{GroupName: &group, Name: &name})
	if gone(err) {
		return nil
	}
	return explainCall(region, err)
}

// roleOf returns the role of a schedule with this name that ends the instance of a run; "" of another schedule.
func roleOf(s *scheduler.GetScheduleOutput, name string) string {
	if s.Target == nil || !strings.HasSuffix(aws.ToString(s.Target.Arn), ":aws-sdk:ec2:terminateInstances") {
		return ""
	}
	_, role, ours := strings.Cut(aws.ToString(s.Target.RoleArn), ":role/aob/")
	if !ours || !strings.HasPrefix(role, "aob-"+name+"-") || !strings.HasSuffix(role, "-end") {
		return ""
	}
	return role
}

// refused reports whether an error says that the server's role may not make a call.
func refused(err error) bool {
	_, blocked := errors.AsType[delivery.Blocked](explainCall("", err))
	return blocked
}
