package front

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
)

// Advance moves the clock of the account on, by which lists say what time it is and schedules fire.
func (f *Front) Advance(by time.Duration) { f.ahead.Add(int64(by)) }

// Fire fires the schedules of a region that are due and whose names begin with a prefix, as EventBridge does by itself.
// Those of moto never fire. It returns the instances that were terminated.
func (f *Front) Fire(t testing.TB, region, prefix string) (ended []string) {
	t.Helper()
	now := time.Now().Add(time.Duration(f.ahead.Load()))
	address := f.to.String()
	keys := credentials.NewStaticCredentialsProvider("id", "key", "")
	schedules := scheduler.New(scheduler.Options{Region: region, BaseEndpoint: &address, Credentials: keys})
	instances := ec2.New(ec2.Options{Region: region, BaseEndpoint: &address, Credentials: keys})
	ctx := context.Background()
	pages := scheduler.NewListSchedulesPaginator(schedules, &scheduler.ListSchedulesInput{NamePrefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, listed := range page.Schedules {
			s, err := schedules.GetSchedule(ctx, &scheduler.GetScheduleInput{Name: listed.Name,
				GroupName: listed.GroupName})
			if err != nil {
				t.Fatal(err)
			}
			ids, err := due(s, now)
			if err != nil {
				t.Errorf("schedule %s: %v", *listed.Name, err)
			}
			if len(ids) == 0 {
				continue
			}
			// One instance that is not there fails the call, as it does in EC2.
			if _, err := instances.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids}); err != nil {
				t.Errorf("schedule %s: %v", *listed.Name, err)
				continue
			}
			ended = append(ended, ids...)
		}
	}
	return ended
}

// due returns the instances that a schedule terminates now.
func due(s *scheduler.GetScheduleOutput, now time.Time) ([]string, error) {
	text, once := strings.CutPrefix(*s.ScheduleExpression, "at(")
	at, err := time.Parse("2006-01-02T15:04:05", strings.TrimSuffix(text, ")"))
	switch {
	case !once || err != nil:
		return nil, fmt.Errorf("%q is no time", *s.ScheduleExpression)
	case s.ScheduleExpressionTimezone == nil || *s.ScheduleExpressionTimezone != "UTC":
		return nil, errors.New("its time zone is not UTC")
	case s.State != "ENABLED" || now.Before(at):
		return nil, nil
	case !strings.HasSuffix(*s.Target.Arn, ":scheduler:::aws-sdk:ec2:terminateInstances"):
		return nil, fmt.Errorf("it calls %s", *s.Target.Arn)
	}
	var input struct{ InstanceIds []string }
	if err := json.Unmarshal([]byte(*s.Target.Input), &input); err != nil {
		return nil, err
	}
	return input.InstanceIds, nil
}
