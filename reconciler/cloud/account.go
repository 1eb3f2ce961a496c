package cloud

// This file lists and ends what AOB made in an account.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	"github.com/aws/smithy-go"
	smithymiddleware "github.com/aws/smithy-go/middleware"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An AccountAddress says which account is used, and how.
type AccountAddress struct {
	Regions  []string // where AOB may have made something
	Endpoint string   // of a server in place of Amazon's; "" for Amazon's
	KeyID    string   // "" for the credentials that the SDK finds: files, a role of the machine
	Key      string
}

// An Account is an account at Amazon.
type Account struct {
	at     AccountAddress
	config aws.Config
}

// Limits of calls.
const (
	maxTries = 10               // of one call; Amazon refuses calls that come too fast
	maxPause = 10 * time.Second // between two tries
	maxPages = 10_000           // of one list
)

// OpenAccount returns an account, once there are credentials. Nothing is asked yet.
func OpenAccount(ctx context.Context, at AccountAddress) (*Account, error) {
	if len(at.Regions) == 0 {
		return nil, delivery.Blockedf("list the regions in which it may train", "no region of AWS is configured")
	}
	options := []func(*config.LoadOptions) error{config.WithRegion(at.Regions[0]),
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts, o.MaxBackoff = maxTries, maxPause
			})
		})}
	if at.KeyID != "" {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(at.KeyID, at.Key, "")))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("the configuration of AWS on this machine: %w", err)
	}
	if _, err := c.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, delivery.Blockedf("give the server's user a credentials file or its machine a role",
			"there are no credentials of AWS: %s", delivery.PlainText(err.Error(), 300))
	}
	c.HTTPClient = guarded(c.HTTPClient, at.Endpoint)
	if at.Endpoint != "" {
		c.BaseEndpoint = aws.String(at.Endpoint)
	}
	return &Account{at: at, config: c}, nil
}

func (a *Account) ec2(region string) *ec2.Client {
	return ec2.NewFromConfig(a.config, func(o *ec2.Options) { o.Region = region })
}

func (a *Account) scheduler(region string) *scheduler.Client {
	return scheduler.NewFromConfig(a.config, func(o *scheduler.Options) { o.Region = region })
}

// A Listing is what an account has with a controller's tag.
type Listing struct {
	At     time.Time // by the account's clock, the earliest of all answers; zero if it did not answer
	Items  []Item
	Rests  []Rest
	Whole  map[string]bool  // the regions that were listed to the end
	Failed map[string]error // by region: why it was not
}

// List lists what has the tag of a controller. A region that cannot be listed does not hide the others, and what was
// read of it before the error counts.
func (a *Account) List(ctx context.Context, controller string) Listing {
	l := Listing{Whole: map[string]bool{}, Failed: map[string]error{}}
	for _, region := range a.at.Regions {
		lists := []func(context.Context, string, string) error{l.requests(a), l.instances(a), l.volumes(a),
			l.schedules(a), l.rests(a)}
		var failed []error
		for _, list := range lists {
			if err := list(ctx, region, controller); err != nil {
				failed = append(failed, explainCall(region, err))
			}
		}
		if err := errors.Join(failed...); err != nil {
			l.Failed[region] = err
		} else {
			l.Whole[region] = true
		}
	}
	return l
}

// seen notes the account's clock. The earliest counts: what a clock that goes ahead calls expired is not.
func (l *Listing) seen(answer smithymiddleware.Metadata) {
	if at, ok := middleware.GetServerTime(answer); ok && (l.At.IsZero() || at.Before(l.At)) {
		l.At = at
	}
}

// tagged selects what has a controller's tag.
func tagged(controller string, more ...ec2types.Filter) []ec2types.Filter {
	return append(more, equals("tag:"+TagController, controller))
}

var patterns = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`)

func tagsOf(list []ec2types.Tag) map[string]string {
	tags := map[string]string{}
	for _, t := range list {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return tags
}

// pages reads a list to its end.
func pages(more func() bool, next func() error) error {
	for range maxPages {
		if !more() {
			return nil
		}
		if err := next(); err != nil {
			return err
		}
	}
	return fmt.Errorf("a list has over %d pages", maxPages)
}

func (l *Listing) instances(a *Account) func(context.Context, string, string) error {
	return func(ctx context.Context, region, controller string) error {
		p := ec2.NewDescribeInstancesPaginator(a.ec2(region), &ec2.DescribeInstancesInput{
			Filters: tagged(controller, ec2types.Filter{Name: aws.String("instance-state-name"),
				Values: delivery.Costly(delivery.OrphanInstance)}), MaxResults: aws.Int32(1000)})
		return pages(p.HasMorePages, func() error {
			page, err := p.NextPage(ctx)
			if err != nil {
				return err
			}
			l.seen(page.ResultMetadata)
			for _, r := range page.Reservations {
				for _, i := range r.Instances {
					item := Item{Kind: delivery.OrphanInstance, ID: aws.ToString(i.InstanceId), Region: region,
						Tags: tagsOf(i.Tags)}
					if i.State != nil {
						item.State = string(i.State.Name)
					}
					l.Items = append(l.Items, item)
				}
			}
			return nil
		})
	}
}

func (l *Listing) volumes(a *Account) func(context.Context, string, string) error {
	return func(ctx context.Context, region, controller string) error {
		p := ec2.NewDescribeVolumesPaginator(a.ec2(region), &ec2.DescribeVolumesInput{
			Filters: tagged(controller), MaxResults: aws.Int32(500)})
		return pages(p.HasMorePages, func() error {
			page, err := p.NextPage(ctx)
			if err != nil {
				return err
			}
			l.seen(page.ResultMetadata)
			for _, v := range page.Volumes {
				l.Items = append(l.Items, Item{Kind: delivery.OrphanVolume, ID: aws.ToString(v.VolumeId),
					Region: region, State: string(v.State), Tags: tagsOf(v.Tags)})
			}
			return nil
		})
	}
}

func (l *Listing) requests(a *Account) func(context.Context, string, string) error {
	return func(ctx context.Context, region, controller string) error {
		p := ec2.NewDescribeSpotInstanceRequestsPaginator(a.ec2(region), &ec2.DescribeSpotInstanceRequestsInput{
			Filters: tagged(controller), MaxResults: aws.Int32(1000)})
		return pages(p.HasMorePages, func() error {
			page, err := p.NextPage(ctx)
			if err != nil {
				return err
			}
			l.seen(page.ResultMetadata)
			for _, r := range page.SpotInstanceRequests {
				l.Items = append(l.Items, Item{Kind: delivery.OrphanRequest,
					ID: aws.ToString(r.SpotInstanceRequestId), Region: region, State: string(r.State),
					Tags: tagsOf(r.Tags)})
			}
			return nil
		})
	}
}

// groupPrefix is what the names of AOB's groups of schedules begin with. A group has tags, and a schedule has none.
const groupPrefix = "aob-"

// schedules lists groups of schedules with the tag of a run, the schedules of those without it, whose names are
// those of runs, and those of the default group.
func (l *Listing) schedules(a *Account) func(context.Context, string, string) error {
	return func(ctx context.Context, region, controller string) error {
		client := a.scheduler(region)
		groups := scheduler.NewListScheduleGroupsPaginator(client, &scheduler.ListScheduleGroupsInput{
			NamePrefix: aws.String(groupPrefix)})
		err := pages(groups.HasMorePages, func() error {
			page, err := groups.NextPage(ctx)
			if err != nil {
				return err
			}
			for _, g := range page.ScheduleGroups {
				answer, err := client.ListTagsForResource(ctx, &scheduler.ListTagsForResourceInput{ResourceArn: g.Arn})
				if gone(err) {
					continue
				} else if err != nil {
					return err
				}
				item := Item{Kind: delivery.OrphanSchedule, ID: aws.ToString(g.Name), Region: region,
					State: string(g.State), Tags: map[string]string{}}
				for _, t := range answer.Tags {
					item.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
				}
				switch {
				case item.Tags[TagController] != controller:
				case item.Tags[TagRun] != "":
					l.Items = append(l.Items, item)
				default:
					if err := l.schedulesOf(ctx, client, item, controller); err != nil {
						return err
					}
				}
			}
			return nil
		})
		return errors.Join(err, l.ungrouped(ctx, a, region, controller))
	}
}

func (l *Listing) schedulesOf(ctx context.Context, client *scheduler.Client, group Item,
	controller string) error {
	p := scheduler.NewListSchedulesPaginator(client, &scheduler.ListSchedulesInput{GroupName: &group.ID})
	return pages(p.HasMorePages, func() error {
		page, err := p.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, s := range page.Schedules {
			item := group
			item.ID, item.State, item.Tags = group.ID+"/"+aws.ToString(s.Name), string(s.State), maps.Clone(group.Tags)
			item.Tags[TagRun] = runOf(controller, aws.ToString(s.Name))
			l.Items = append(l.Items, item)
		}
		return nil
	})
}

// End ends one item, or reports that it is being ended. It may be repeated, and something that is gone is no error.
func (a *Account) End(ctx context.Context, i Item) error {
	var err error
	switch i.Kind {
	case delivery.OrphanRequest:
		_, err = a.ec2(i.Region).CancelSpotInstanceRequests(ctx, &ec2.CancelSpotInstanceRequestsInput{
			SpotInstanceRequestIds: []string{i.ID}})
	case delivery.OrphanInstance: // one a call: a wrong one among several would keep all of them alive
		_, err = a.ec2(i.Region).TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{i.ID}})
	case delivery.OrphanVolume:
		_, err = a.ec2(i.Region).DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &i.ID})
	case delivery.OrphanSchedule:
		if group, name, is := strings.Cut(i.ID, "/"); is {
			_, err = a.scheduler(i.Region).DeleteSchedule(ctx, &scheduler.DeleteScheduleInput{GroupName: &group,
				Name: &name})
		} else {
			_, err = a.scheduler(i.Region).DeleteScheduleGroup(ctx, &scheduler.DeleteScheduleGroupInput{Name: &i.ID})
		}
	default:
		return fmt.Errorf("no way to end a %s", i.Kind)
	}
	if gone(err) {
		return nil
	}
	return explainCall(i.Region, err)
}

// gone reports whether an error says that something is not there.
func gone(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && slices.Contains([]string{"InvalidInstanceID.NotFound", "InvalidVolume.NotFound",
		"InvalidSpotInstanceRequestID.NotFound", "ResourceNotFoundException"}, api.ErrorCode())
}

// explainCall returns the error of a call in a region for people.
func explainCall(region string, err error) error {
	if err == nil {
		return nil
	}
	what := "AWS in " + region
	if op, ok := errors.AsType[*smithy.OperationError](err); ok {
		what = fmt.Sprintf("AWS in %s: %s:%s", region, strings.ToLower(op.Service()), op.Operation())
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	said := api.ErrorCode()
	if text := delivery.PlainText(api.ErrorMessage(), 200); text != "" {
		said += ": " + text
	}
	status := 0
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		status = r.HTTPStatusCode()
	}
	switch code := api.ErrorCode(); {
	case code == "OperationNotPermitted":
		return delivery.Blockedf("if nobody needs it, remove its termination protection (aws ec2 "+
			"modify-instance-attribute --no-disable-api-termination --instance-id ID --region "+region+")",
			"%s is refused (%s)", what, said)
	case code == "AuthFailure" || code == "InvalidClientTokenId" || code == "SignatureDoesNotMatch" ||
		code == "UnrecognizedClientException" || code == "ExpiredToken" || code == "RequestExpired":
		return delivery.Blockedf("check the server's credentials and its clock", "%s refuses the credentials (%s)",
			what, said)
	case code == "OptInRequired":
		return delivery.Blockedf("enable the region in the account, or take it out of the configuration",
			"%s is not enabled (%s)", what, said)
	case status == http.StatusForbidden || strings.Contains(code, "UnauthorizedOperation") ||
		strings.Contains(code, "AccessDenied"):
		return delivery.Blockedf("give the server's role this permission; aob doctor --aws lists what is missing",
			"%s is not permitted (%s)", what, said)
	}
	return fmt.Errorf("%s: status %d, %s", what, status, said)
}
