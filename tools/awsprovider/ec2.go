package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func ec2Tags(o object, name string) []types.Tag {
	return tagList(o, name, func(key, value *string) types.Tag { return types.Tag{Key: key, Value: value} })
}

func ec2Pair(t types.Tag) (*string, *string) { return t.Key, t.Value }

func specification(t types.ResourceType, tags []types.Tag) []types.TagSpecification {
	if len(tags) == 0 {
		return nil
	}
	return []types.TagSpecification{{ResourceType: t, Tags: tags}}
}

// runInstance passes what the real provider passes in the call.
func runInstance(ctx context.Context, c *clients, o object) (string, error) {
	in := &ec2.RunInstancesInput{
		MinCount: aws.Int32(1), MaxCount: aws.Int32(1), ImageId: optional(o, "ami"),
		InstanceType: types.InstanceType(text(o, "instance_type")), KeyName: optional(o, "key_name"),
		EbsOptimized: boolean(o, "ebs_optimized"), UserData: optional(o, "user_data_base64"),
		InstanceInitiatedShutdownBehavior: types.ShutdownBehavior(text(o, "instance_initiated_shutdown_behavior")),
		DisableApiTermination:             boolean(o, "disable_api_termination"),
		TagSpecifications: append(specification(types.ResourceTypeInstance, ec2Tags(o, "tags")),
			specification(types.ResourceTypeVolume, ec2Tags(o, "volume_tags"))...),
	}
	if data := text(o, "user_data"); data != "" {
		in.UserData = aws.String(base64.StdEncoding.EncodeToString([]byte(data)))
	}
	if monitoring := boolean(o, "monitoring"); monitoring != nil {
		in.Monitoring = &types.RunInstancesMonitoringEnabled{Enabled: monitoring}
	}
	if profile := optional(o, "iam_instance_profile"); profile != nil {
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: profile}
	}
	if public := boolean(o, "associate_public_ip_address"); public != nil {
		in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0),
			AssociatePublicIpAddress: public, SubnetId: optional(o, "subnet_id"),
			Groups: texts(o, "vpc_security_group_ids"), DeleteOnTermination: aws.Bool(true)}}
	} else {
		in.SubnetId, in.SecurityGroupIds = optional(o, "subnet_id"), texts(o, "vpc_security_group_ids")
	}
	if m := first(o, "metadata_options"); m != nil {
		in.MetadataOptions = &types.InstanceMetadataOptionsRequest{
			HttpEndpoint:            types.InstanceMetadataEndpointState(text(m, "http_endpoint")),
			HttpTokens:              types.HttpTokensState(text(m, "http_tokens")),
			HttpPutResponseHopLimit: number(m, "http_put_response_hop_limit"),
			InstanceMetadataTags:    types.InstanceMetadataTagsState(text(m, "instance_metadata_tags")),
		}
	}
	if m := first(o, "instance_market_options"); m != nil {
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: types.MarketType(text(m,
			"market_type"))}
		if s := first(m, "spot_options"); s != nil {
			in.InstanceMarketOptions.SpotOptions = &types.SpotMarketOptions{MaxPrice: optional(s, "max_price"),
				SpotInstanceType: types.SpotInstanceType(text(s, "spot_instance_type")),
				InstanceInterruptionBehavior: types.InstanceInterruptionBehavior(
					text(s, "instance_interruption_behavior"))}
		}
	}
	if l := first(o, "launch_template"); l != nil {
		in.LaunchTemplate = &types.LaunchTemplateSpecification{LaunchTemplateId: optional(l, "id"),
			Version: optional(l, "version")}
	}
	if err := rootDevice(ctx, c, o, in); err != nil {
		return "", err
	}
	out, err := c.ec2.RunInstances(ctx, in)
	if err != nil {
		return "", err
	}
	id := *out.Instances[0].InstanceId
	return id, until(ctx, "the instance does not run", func() (bool, error) {
		i, err := describeInstance(ctx, c, id)
		return err == nil && i != nil && i.State.Name == types.InstanceStateNameRunning, err
	})
}

// rootDevice asks for the name of the image's root device, and passes the settings of the volume.
func rootDevice(ctx context.Context, c *clients, o object, in *ec2.RunInstancesInput) error {
	r := first(o, "root_block_device")
	if r == nil {
		return nil
	}
	images, err := c.ec2.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{text(o, "ami")}})
	if err != nil {
		return err
	}
	if len(images.Images) != 1 {
		return fmt.Errorf("there are %d images %s", len(images.Images), text(o, "ami"))
	}
	in.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: images.Images[0].RootDeviceName,
		Ebs: &types.EbsBlockDevice{Encrypted: boolean(r, "encrypted"), DeleteOnTermination: boolean(r,
			"delete_on_termination"),
			VolumeSize: number(r, "volume_size"), VolumeType: types.VolumeType(text(r, "volume_type")),
			KmsKeyId: optional(r, "kms_key_id")}}}
	return nil
}

// describeInstance returns nil for one that is gone or terminated.
func describeInstance(ctx context.Context, c *clients, id string) (*types.Instance, error) {
	out, err := c.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		return nil, ignoreGone(err)
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if i.State.Name != types.InstanceStateNameTerminated {
				return &i, nil
			}
		}
	}
	return nil, nil
}

func readInstance(ctx context.Context, c *clients, was object) (object, error) {
	id := text(was, "id")
	i, err := describeInstance(ctx, c, id)
	if err != nil || i == nil {
		return nil, err
	}
	out := object{"id": id, "instance_type": string(i.InstanceType), "instance_state": string(i.State.Name),
		"instance_lifecycle": string(i.InstanceLifecycle), "ebs_optimized": aws.ToBool(i.EbsOptimized),
		"arn":                    fmt.Sprintf("arn:aws:ec2:%s:%s:instance/%s", c.region, account(i), id),
		"vpc_security_group_ids": list(groupsOf(i), func(g types.GroupIdentifier) any { return *g.GroupId }),
		"metadata_options": []any{object{"http_endpoint": string(i.MetadataOptions.HttpEndpoint),
			"http_tokens":                 string(i.MetadataOptions.HttpTokens),
			"http_put_response_hop_limit": float64(aws.ToInt32(i.MetadataOptions.HttpPutResponseHopLimit))}}}
	set(out, "ami", i.ImageId)
	set(out, "subnet_id", i.SubnetId)
	set(out, "public_ip", i.PublicIpAddress)
	set(out, "private_ip", i.PrivateIpAddress)
	set(out, "spot_instance_request_id", i.SpotInstanceRequestId)
	if i.IamInstanceProfile != nil {
		arn := aws.ToString(i.IamInstanceProfile.Arn)
		out["iam_instance_profile"] = arn[strings.LastIndexByte(arn, '/')+1:]
	}
	tagged(out, was, i.Tags, ec2Pair)
	for _, d := range i.BlockDeviceMappings {
		if aws.ToString(d.DeviceName) != aws.ToString(i.RootDeviceName) || d.Ebs == nil {
			continue
		}
		volumes, err := c.ec2.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{*d.Ebs.VolumeId}})
		if err != nil {
			return nil, err
		}
		v := volumes.Volumes[0]
		out["root_block_device"] = []any{object{"device_name": *d.DeviceName, "volume_id": *v.VolumeId,
			"encrypted": aws.ToBool(v.Encrypted), "volume_size": float64(aws.ToInt32(v.Size)),
			"volume_type": string(v.VolumeType), "delete_on_termination": aws.ToBool(d.Ebs.DeleteOnTermination)}}
		tags := object{}
		tagged(tags, was, v.Tags, ec2Pair)
		if was["volume_tags"] != nil {
			out["volume_tags"] = tags["tags_all"]
		}
	}
	return out, instanceAttributes(ctx, c, id, was, out)
}

// groupsOf returns the security groups of the instance's first interface, which Amazon shows for the instance too. Moto
// shows those of the call there.
func groupsOf(i *types.Instance) []types.GroupIdentifier {
	if len(i.NetworkInterfaces) > 0 {
		return i.NetworkInterfaces[0].Groups
	}
	return i.SecurityGroups
}

// account is the number of the account of an instance: its profile names it.
func account(i *types.Instance) string {
	if i.IamInstanceProfile != nil {
		if parts := strings.Split(aws.ToString(i.IamInstanceProfile.Arn), ":"); len(parts) > 4 {
			return parts[4]
		}
	}
	return ""
}

func instanceAttributes(ctx context.Context, c *clients, id string, was, out object) error {
	shutdown, err := c.ec2.DescribeInstanceAttribute(ctx, &ec2.DescribeInstanceAttributeInput{InstanceId: &id,
		Attribute: types.InstanceAttributeNameInstanceInitiatedShutdownBehavior})
	if err != nil {
		return err
	}
	set(out, "instance_initiated_shutdown_behavior", shutdown.InstanceInitiatedShutdownBehavior.Value)
	data, err := c.ec2.DescribeInstanceAttribute(ctx, &ec2.DescribeInstanceAttributeInput{InstanceId: &id,
		Attribute: types.InstanceAttributeNameUserData})
	if err != nil {
		return err
	}
	if text(was, "user_data_base64") != "" {
		set(out, "user_data_base64", data.UserData.Value)
	}
	return nil
}

func terminateInstance(ctx context.Context, c *clients, o object) error {
	id := text(o, "id")
	_, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		return ignoreGone(err)
	}
	return until(ctx, "the instance does not end", func() (bool, error) {
		i, err := describeInstance(ctx, c, id)
		return err == nil && i == nil, err
	})
}

func createTemplate(ctx context.Context, c *clients, o object) (string, error) {
	data := &types.RequestLaunchTemplateData{}
	for _, s := range elements(o["tag_specifications"]) {
		data.TagSpecifications = append(data.TagSpecifications, types.LaunchTemplateTagSpecificationRequest{
			ResourceType: types.ResourceType(text(s, "resource_type")), Tags: ec2Tags(s, "tags")})
	}
	out, err := c.ec2.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: optional(o, "name"),
		LaunchTemplateData: data, VersionDescription: optional(o, "description"),
		TagSpecifications: specification(types.ResourceTypeLaunchTemplate, ec2Tags(o, "tags"))})
	if err != nil {
		return "", err
	}
	return *out.LaunchTemplate.LaunchTemplateId, nil
}

func readTemplate(ctx context.Context, c *clients, was object) (object, error) {
	id := text(was, "id")
	all, err := c.ec2.DescribeLaunchTemplates(ctx, &ec2.DescribeLaunchTemplatesInput{LaunchTemplateIds: []string{id}})
	if err != nil || len(all.LaunchTemplates) == 0 {
		return nil, ignoreGone(err)
	}
	versions, err := c.ec2.DescribeLaunchTemplateVersions(ctx, &ec2.DescribeLaunchTemplateVersionsInput{
		LaunchTemplateId: &id, Versions: []string{"$Latest"}})
	if err != nil || len(versions.LaunchTemplateVersions) == 0 {
		return nil, ignoreGone(err)
	}
	t := all.LaunchTemplates[0]
	out := object{"id": id, "latest_version": float64(aws.ToInt64(t.LatestVersionNumber)),
		"default_version":    float64(aws.ToInt64(t.DefaultVersionNumber)),
		"tag_specifications": templateTags(versions.LaunchTemplateVersions[0].LaunchTemplateData)}
	set(out, "name", t.LaunchTemplateName)
	tagged(out, was, t.Tags, ec2Pair)
	return out, nil
}

// templateTags leaves out the tags of the template itself, which moto adds.
func templateTags(data *types.ResponseLaunchTemplateData) []any {
	out := []any{}
	for _, s := range data.TagSpecifications {
		if s.ResourceType != types.ResourceTypeLaunchTemplate {
			tags := object{}
			tagged(tags, nil, s.Tags, ec2Pair)
			out = append(out, object{"resource_type": string(s.ResourceType), "tags": tags["tags_all"]})
		}
	}
	return out
}

func deleteTemplate(ctx context.Context, c *clients, o object) error {
	_, err := c.ec2.DeleteLaunchTemplate(ctx, &ec2.DeleteLaunchTemplateInput{LaunchTemplateId: optional(o, "id")})
	return ignoreGone(err)
}

func createGroup(ctx context.Context, c *clients, o object) (string, error) {
	out, err := c.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: optional(o, "name"),
		Description: optional(o, "description"), VpcId: optional(o, "vpc_id"),
		TagSpecifications: specification(types.ResourceTypeSecurityGroup, ec2Tags(o, "tags"))})
	if err != nil {
		return "", err
	}
	g, err := describeGroup(ctx, c, *out.GroupId)
	if err != nil {
		return *out.GroupId, err
	}
	// AWS allows everything outwards at first. The real provider takes that away.
	if len(g.IpPermissionsEgress) > 0 {
		_, err = c.ec2.RevokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: out.GroupId,
			IpPermissions: g.IpPermissionsEgress})
	}
	if rules := permissions(o, "egress"); err == nil && len(rules) > 0 {
		_, err = c.ec2.AuthorizeSecurityGroupEgress(ctx, &ec2.AuthorizeSecurityGroupEgressInput{GroupId: out.GroupId,
			IpPermissions: rules})
	}
	if rules := permissions(o, "ingress"); err == nil && len(rules) > 0 {
		_, err = c.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: out.GroupId,
			IpPermissions: rules})
	}
	return *out.GroupId, err
}

func describeGroup(ctx context.Context, c *clients, id string) (types.SecurityGroup, error) {
	out, err := c.ec2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{id}})
	if err != nil {
		return types.SecurityGroup{}, err
	}
	return out.SecurityGroups[0], nil
}

// permissions converts rules. Only rules with addresses are supported.
func permissions(o object, name string) []types.IpPermission {
	var out []types.IpPermission
	for _, r := range elements(o[name]) {
		p := types.IpPermission{IpProtocol: optional(r, "protocol"), FromPort: number(r, "from_port"),
			ToPort: number(r, "to_port")}
		for _, cidr := range texts(r, "cidr_blocks") {
			p.IpRanges = append(p.IpRanges, types.IpRange{CidrIp: &cidr, Description: optional(r, "description")})
		}
		for _, cidr := range texts(r, "ipv6_cidr_blocks") {
			p.Ipv6Ranges = append(p.Ipv6Ranges, types.Ipv6Range{CidrIpv6: &cidr, Description: optional(r,
				"description")})
		}
		out = append(out, p)
	}
	return out
}

func readGroup(ctx context.Context, c *clients, was object) (object, error) {
	g, err := describeGroup(ctx, c, text(was, "id"))
	if err != nil {
		return nil, ignoreGone(err)
	}
	out := object{"id": *g.GroupId, "ingress": rules(g.IpPermissions), "egress": rules(g.IpPermissionsEgress),
		"arn": fmt.Sprintf("arn:aws:ec2:%s:%s:security-group/%s", c.region, *g.OwnerId, *g.GroupId)}
	set(out, "name", g.GroupName)
	set(out, "description", g.Description)
	set(out, "vpc_id", g.VpcId)
	set(out, "owner_id", g.OwnerId)
	tagged(out, was, g.Tags, ec2Pair)
	return out, nil
}

func rules(list []types.IpPermission) []any {
	out := []any{}
	for _, p := range list {
		r := object{"protocol": aws.ToString(p.IpProtocol), "from_port": float64(aws.ToInt32(p.FromPort)),
			"to_port": float64(aws.ToInt32(p.ToPort)), "description": "", "self": false, "cidr_blocks": []any{},
			"ipv6_cidr_blocks": []any{}, "prefix_list_ids": []any{}, "security_groups": []any{}}
		for _, a := range p.IpRanges {
			r["cidr_blocks"] = append(r["cidr_blocks"].([]any), aws.ToString(a.CidrIp))
			r["description"] = aws.ToString(a.Description)
		}
		for _, a := range p.Ipv6Ranges {
			r["ipv6_cidr_blocks"] = append(r["ipv6_cidr_blocks"].([]any), aws.ToString(a.CidrIpv6))
		}
		out = append(out, r)
	}
	return out
}

func deleteGroup(ctx context.Context, c *clients, o object) error {
	_, err := c.ec2.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: optional(o, "id")})
	return ignoreGone(err)
}

func findImage(ctx context.Context, c *clients, o object) (object, error) {
	in := &ec2.DescribeImagesInput{Owners: texts(o, "owners")}
	for _, f := range elements(o["filter"]) {
		in.Filters = append(in.Filters, types.Filter{Name: optional(f, "name"), Values: texts(f, "values")})
	}
	out, err := c.ec2.DescribeImages(ctx, in)
	if err != nil {
		return nil, err
	}
	images := out.Images
	if len(images) == 0 {
		return nil, errors.New("no image fits")
	}
	if len(images) > 1 && !aws.ToBool(boolean(o, "most_recent")) {
		return nil, fmt.Errorf("%d images fit", len(images))
	}
	slices.SortFunc(images, func(a, b types.Image) int {
		return strings.Compare(aws.ToString(b.CreationDate), aws.ToString(a.CreationDate))
	})
	i := images[0]
	found := object{"id": *i.ImageId, "architecture": string(i.Architecture)}
	set(found, "image_id", i.ImageId)
	set(found, "name", i.Name)
	set(found, "owner_id", i.OwnerId)
	set(found, "image_owner_alias", i.ImageOwnerAlias)
	set(found, "root_device_name", i.RootDeviceName)
	set(found, "creation_date", i.CreationDate)
	return found, nil
}
