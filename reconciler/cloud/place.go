package cloud

// This file checks where instances start: network, buckets, image, quotas.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	"github.com/aws/aws-sdk-go-v2/service/servicequotas"
	"github.com/aws/smithy-go"

	"github.com/autonomos/aob/reconciler/delivery"
)

// placed is a place of an account, in the region where instances start.
type placed struct {
	*Account
	Place
	region string
}

// codeOf returns the code of an error of AWS.
func codeOf(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// subnet checks that instances of all types can start in the subnet, and that it has a way to S3.
func (p placed) subnet(ctx context.Context) []Checked {
	c := Checked{Name: "subnet"}
	out, err := p.ec2(p.region).DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: []string{p.Subnet}})
	switch {
	case codeOf(err) == "InvalidSubnetID.NotFound" || err == nil && len(out.Subnets) == 0:
		c.Err = delivery.Blockedf("correct aws.train.subnet, or the first of aws.regions", "there is no %s in %s",
			p.Subnet, p.region)
	case err != nil:
		c.Err = explainCall(p.region, err)
	case aws.ToString(out.Subnets[0].VpcId) != p.VPC:
		c.Err = delivery.Blockedf("correct aws.train.vpc", "%s is in %s, and aws.train.vpc is %s", p.Subnet,
			aws.ToString(out.Subnets[0].VpcId), p.VPC)
	}
	if c.Err != nil {
		return []Checked{c}
	}
	zone := aws.ToString(out.Subnets[0].AvailabilityZone)
	c.What = fmt.Sprintf("%s is in %s and %s", p.Subnet, p.VPC, zone)
	return append([]Checked{c, p.route(ctx)}, p.offered(ctx, zone)...)
}

// route checks that the subnet's instances reach S3.
func (p placed) route(ctx context.Context) Checked {
	c := Checked{Name: "route"}
	tables := func(name, value string) ([]ec2types.RouteTable, error) {
		out, err := p.ec2(p.region).DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: []ec2types.Filter{
			{Name: aws.String("vpc-id"), Values: []string{p.VPC}}, {Name: &name, Values: []string{value}}}})
		if err != nil {
			return nil, err
		}
		return out.RouteTables, nil
	}
	list, err := tables("association.subnet-id", p.Subnet)
	if err == nil && len(list) == 0 { // it has the VPC's own table
		list, err = tables("association.main", "true")
	}
	if err != nil {
		c.Err = explainCall(p.region, err)
		return c
	}
	endpoint, nat, internet := false, false, false
	for _, table := range list {
		for _, r := range table.Routes {
			switch gateway, all := aws.ToString(r.GatewayId), aws.ToString(r.DestinationCidrBlock) == "0.0.0.0/0"; {
			case r.State == ec2types.RouteStateBlackhole:
			case r.DestinationPrefixListId != nil && strings.HasPrefix(gateway, "vpce-"):
				endpoint = true
			case all && strings.HasPrefix(gateway, "igw-"):
				internet = true
			case all && (r.NatGatewayId != nil || r.TransitGatewayId != nil || r.NetworkInterfaceId != nil):
				nat = true
			}
		}
	}
	switch {
	case nat:
		c.What = p.Subnet + " reaches S3 and registries of images through NAT"
	case internet && p.PublicAddress:
		c.What = p.Subnet + " reaches S3 and registries of images with public addresses"
	case endpoint:
		c.What = p.Subnet + " reaches S3 through an endpoint, and registries of images not"
	case internet:
		c.Err = delivery.Blockedf("set aws.train.publicAddress: true, or use a subnet with NAT or an endpoint for S3",
			"instances in %s need a public address to reach S3, and get none", p.Subnet)
	default:
		c.Err = delivery.Blockedf("add an endpoint for S3 to its route table, which costs nothing, or a route to a "+
			"NAT gateway", "%s has no way to S3", p.Subnet)
	}
	return c
}

// offered checks which types of instances the zone has.
func (p placed) offered(ctx context.Context, zone string) (list []Checked) {
	out, err := p.ec2(p.region).DescribeInstanceTypeOfferings(ctx, &ec2.DescribeInstanceTypeOfferingsInput{
		LocationType: ec2types.LocationTypeAvailabilityZone, Filters: []ec2types.Filter{
			{Name: aws.String("location"), Values: []string{zone}},
			{Name: aws.String("instance-type"), Values: p.Instances}}})
	if err != nil {
		return []Checked{{Name: "instances", Err: explainCall(p.region, err)}}
	}
	var has []string
	for _, o := range out.InstanceTypeOfferings {
		has = append(has, string(o.InstanceType))
	}
	for _, instance := range p.Instances {
		if !slices.Contains(has, instance) {
			list = append(list, Checked{Name: "instances", Err: delivery.Blockedf("use a subnet of another zone, or "+
				"take it out of aws.instances", "%s has no %s", zone, instance)})
		}
	}
	if len(list) == 0 {
		list = []Checked{{Name: "instances", What: zone + " has " + strings.Join(p.Instances, ", ")}}
	}
	return list
}

// bucket checks that a bucket is there, and that nobody else can read what is in it.
func (p placed) bucket(ctx context.Context, bucket, key string) []Checked {
	client := s3.NewFromConfig(p.config, func(o *s3.Options) { o.UsePathStyle = p.at.Endpoint != "" })
	name := "bucket " + bucket
	const apply = "apply infra/terraform/artifacts, which makes the bucket as it must be"
	versions, err := client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: &bucket})
	switch code := codeOf(err); {
	case code == "NoSuchBucket":
		return []Checked{{Name: name, Err: delivery.Blockedf(apply+", or correct aws.train."+key,
			"there is no bucket")}}
	case code == "PermanentRedirect" || code == "AuthorizationHeaderMalformed" || code == "301":
		return []Checked{{Name: name, Err: delivery.Blockedf("use a bucket of "+p.region,
			"it is in another region, so each byte costs money, and a training is slow")}}
	case err != nil:
		return []Checked{{Name: name, Err: explainCall(p.region, err)}}
	}
	list := []Checked{{Name: name, What: "it keeps old versions", Minor: key == "runs"}}
	if versions.Status != s3types.BucketVersioningStatusEnabled {
		list[0].Err = delivery.Blockedf(apply, "it keeps no old versions, so what is overwritten is lost")
	}
	public, err := client.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &bucket})
	c := Checked{Name: name, What: "it blocks public access"}
	if err == nil {
		b := public.PublicAccessBlockConfiguration
		for _, on := range []*bool{b.BlockPublicAcls, b.BlockPublicPolicy, b.IgnorePublicAcls,
			b.RestrictPublicBuckets} {
			if !aws.ToBool(on) {
				c.Err = delivery.Blockedf(apply, "it does not block all public access")
			}
		}
	} else if codeOf(err) == "NoSuchPublicAccessBlockConfiguration" {
		c.Err = delivery.Blockedf(apply, "it does not block public access")
	} else {
		c.Err = explainCall(p.region, err)
	}
	list = append(list, c)
	_, err = client.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: &bucket})
	c = Checked{Name: name, What: "it is encrypted", Minor: true}
	if codeOf(err) == "ServerSideEncryptionConfigurationNotFoundError" {
		c.Err = delivery.Blockedf(apply, "it has no encryption of its own")
	} else {
		c.Err = explainCall(p.region, err)
	}
	return append(list, c)
}

// image checks that there is an image to boot.
func (p placed) image(ctx context.Context) Checked {
	c, input, named := Checked{Name: "image"}, &ec2.DescribeImagesInput{}, p.AMI
	if p.AMI != "" {
		input.ImageIds = []string{p.AMI}
	} else {
		named = fmt.Sprintf("%q of %s", p.AMIName, p.AMIOwner)
		input.Owners = []string{p.AMIOwner}
		input.Filters = []ec2types.Filter{{Name: aws.String("name"), Values: []string{p.AMIName}},
			{Name: aws.String("architecture"), Values: []string{"x86_64"}}}
	}
	out, err := p.ec2(p.region).DescribeImages(ctx, input)
	switch {
	case strings.HasPrefix(codeOf(err), "InvalidAMIID") || err == nil && len(out.Images) == 0:
		c.Err = delivery.Blockedf("correct aws.train.ami, or aws.train.amiOwner and aws.train.amiName",
			"%s has no image %s", p.region, named)
		return c
	case err != nil:
		c.Err = explainCall(p.region, err)
		return c
	}
	newest := slices.MaxFunc(out.Images, func(a, b ec2types.Image) int {
		return strings.Compare(aws.ToString(a.CreationDate), aws.ToString(b.CreationDate))
	})
	c.What = fmt.Sprintf("instances boot %s, %s", aws.ToString(newest.ImageId),
		delivery.PlainText(aws.ToString(newest.Name), 100))
	return c
}

// schedules checks that sweeps find the schedules that end instances.
func (p placed) schedules(ctx context.Context, controller string) Checked {
	c := Checked{Name: "schedules", What: "they are in the group " + p.ScheduleGroup}
	if p.ScheduleGroup == "default" {
		return c // sweeps know whose they are by the roles that they use
	}
	client := p.scheduler(p.region)
	create := fmt.Sprintf("aws scheduler create-schedule-group --region %s --name %s --tags Key=%s,Value=%s", p.region,
		p.ScheduleGroup, TagController, controller)
	groups, err := client.ListScheduleGroups(ctx, &scheduler.ListScheduleGroupsInput{NamePrefix: &p.ScheduleGroup})
	if err != nil {
		c.Err = explainCall(p.region, err)
		return c
	}
	for _, g := range groups.ScheduleGroups {
		if aws.ToString(g.Name) != p.ScheduleGroup {
			continue
		}
		tags, err := client.ListTagsForResource(ctx, &scheduler.ListTagsForResourceInput{ResourceArn: g.Arn})
		if err != nil {
			c.Err = explainCall(p.region, err)
			return c
		}
		for _, t := range tags.Tags {
			if aws.ToString(t.Key) == TagController && aws.ToString(t.Value) == controller {
				return c
			}
		}
		c.Err = delivery.Blockedf(fmt.Sprintf("aws scheduler tag-resource --region %s --resource-arn %s --tags "+
			"Key=%s,Value=%s", p.region, aws.ToString(g.Arn), TagController, controller),
			"the group %s has no tag %s with the value %s, so no sweep looks into it", p.ScheduleGroup, TagController,
			controller)
		return c
	}
	c.Err = delivery.Blockedf(create, "there is no group %s in %s", p.ScheduleGroup, p.region)
	return c
}

// quotaOf returns the quotas of EC2 for a type of instance, in processors: on demand and spot.
func quotaOf(instance string) (codes [2]string, known bool) {
	family := instance[:len(instance)-len(strings.TrimLeft(instance, "abcdefghijklmnopqrstuvwxyz"))]
	switch {
	case slices.Contains([]string{"g", "gr", "vt"}, family):
		return [2]string{"L-DB2E81BA", "L-3819A6DF"}, true
	case family == "p":
		return [2]string{"L-417A185B", "L-7212CCBC"}, true
	case len(family) == 1 && strings.Contains("acdhimrtz", family):
		return [2]string{"L-1216C47A", "L-34B43A08"}, true
	}
	return codes, false
}

// quotas checks that the account may have an instance of each type. A new account may have none with a GPU.
func (p placed) quotas(ctx context.Context) (list []Checked) {
	var types []ec2types.InstanceType
	for _, i := range p.Instances {
		types = append(types, ec2types.InstanceType(i))
	}
	out, err := p.ec2(p.region).DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: types})
	if err != nil {
		return []Checked{{Name: "quota", Err: explainCall(p.region, err)}}
	}
	client, may := servicequotas.NewFromConfig(p.config), map[string]float64{}
	for market, how := range []string{"on demand", "as spot instances"} {
		for _, t := range out.InstanceTypes {
			codes, known := quotaOf(string(t.InstanceType))
			code := codes[market]
			if _, failed := may["!"+code]; !known || failed || t.VCpuInfo == nil {
				continue
			}
			most, asked := may[code]
			if !asked {
				q, err := client.GetServiceQuota(ctx, &servicequotas.GetServiceQuotaInput{
					ServiceCode: aws.String("ec2"), QuotaCode: &code})
				if err != nil {
					list = append(list, Checked{Name: "quota", Minor: true, Err: explainCall(p.region, err)})
					may["!"+code] = 0
					continue
				}
				most = aws.ToFloat64(q.Quota.Value)
				may[code] = most
			}
			needs := aws.ToInt32(t.VCpuInfo.DefaultVCpus)
			c := Checked{Name: "quota", Minor: market == 1, What: fmt.Sprintf("%g processors of such instances %s; %s "+
				"has %d", most, how, t.InstanceType, needs)}
			if most < float64(needs) {
				c.Err = delivery.Blockedf(fmt.Sprintf("aws service-quotas request-service-quota-increase --region %s "+
					"--service-code ec2 --quota-code %s --desired-value %d; AWS answers within days", p.region, code,
					needs), "the account may have %g processors of such instances %s, and %s has %d", most, how,
					t.InstanceType, needs)
			}
			list = append(list, c)
		}
	}
	return list
}
