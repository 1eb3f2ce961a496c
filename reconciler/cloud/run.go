package cloud

// This file is what a run needs of its account: credentials for Terraform, and what has the run's tags.

import (
	"context"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/autonomos/aob/reconciler/delivery"
)

// credentialsLast is how long credentials are good that another program gets, if whoever gives them gives such.
const credentialsLast = 10 * time.Minute

// Variables returns the environment variables by which another program reaches the account, with credentials that do
// not expire at once.
func (a *Account) Variables(ctx context.Context) (map[string]string, error) {
	c, err := a.config.Credentials.Retrieve(ctx)
	// The SDK keeps those of a role until they expire, and Terraform gets no others while it runs.
	if cache, is := a.config.Credentials.(*aws.CredentialsCache); is && err == nil && c.CanExpire &&
		time.Until(c.Expires) < credentialsLast {
		cache.Invalidate()
		c, err = cache.Retrieve(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, delivery.Blockedf("give the server's user a credentials file or its machine a role",
			"there are no credentials of AWS")
	}
	list := map[string]string{"AWS_ACCESS_KEY_ID": c.AccessKeyID, "AWS_SECRET_ACCESS_KEY": c.SecretAccessKey}
	if c.SessionToken != "" {
		list["AWS_SESSION_TOKEN"] = c.SessionToken
	}
	if bundle := os.Getenv("AWS_CA_BUNDLE"); bundle != "" {
		list["AWS_CA_BUNDLE"] = bundle
	}
	if a.at.Endpoint != "" {
		list["AWS_ENDPOINT_URL"] = a.at.Endpoint
	}
	return list, nil
}

// OfRun lists the instances, volumes and spot requests with the tags of a controller and a run, also those that have
// ended shortly before.
func (a *Account) OfRun(ctx context.Context, region, controller, run string) ([]delivery.Thing, error) {
	client := a.ec2(region)
	filters := tagged(controller, equals("tag:"+TagRun, run))
	var list []delivery.Thing
	thing := func(kind delivery.OrphanKind, id *string, state string, why *ec2types.StateReason, tags []ec2types.Tag) {
		t := delivery.Thing{Kind: kind, ID: aws.ToString(id), State: state, Name: tagsOf(tags)["Name"]}
		if why != nil {
			t.Why = aws.ToString(why.Code)
		}
		list = append(list, t)
	}
	requests := ec2.NewDescribeSpotInstanceRequestsPaginator(client, &ec2.DescribeSpotInstanceRequestsInput{
		Filters: filters})
	err := pages(requests.HasMorePages, func() error {
		page, err := requests.NextPage(ctx)
		if err == nil {
			for _, r := range page.SpotInstanceRequests {
				thing(delivery.OrphanRequest, r.SpotInstanceRequestId, string(r.State), nil, r.Tags)
			}
		}
		return err
	})
	if err != nil {
		return nil, explainCall(region, err)
	}
	instances := ec2.NewDescribeInstancesPaginator(client, &ec2.DescribeInstancesInput{Filters: filters})
	err = pages(instances.HasMorePages, func() error {
		page, err := instances.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				state := ""
				if i.State != nil {
					state = string(i.State.Name)
				}
				thing(delivery.OrphanInstance, i.InstanceId, state, i.StateReason, i.Tags)
			}
		}
		return nil
	})
	if err != nil {
		return nil, explainCall(region, err)
	}
	volumes := ec2.NewDescribeVolumesPaginator(client, &ec2.DescribeVolumesInput{Filters: filters})
	err = pages(volumes.HasMorePages, func() error {
		page, err := volumes.NextPage(ctx)
		if err == nil {
			for _, v := range page.Volumes {
				thing(delivery.OrphanVolume, v.VolumeId, string(v.State), nil, v.Tags)
			}
		}
		return err
	})
	return list, explainCall(region, err)
}

// equals selects what has exactly this value. The service reads * and ? as patterns.
func equals(name, value string) ec2types.Filter {
	return ec2types.Filter{Name: &name, Values: []string{patterns.Replace(value)}}
}

// EndThing ends one of them. It may be repeated, and something that is gone is no error.
func (a *Account) EndThing(ctx context.Context, region string, t delivery.Thing) error {
	return a.End(ctx, Item{Kind: t.Kind, ID: t.ID, Region: region})
}
