package cloud

// This file finds what costs nothing and was left by a run of which the server knows nothing more, as after a loss of
// its disk. What a run leaves that the server knows, the run itself ends.

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Rest is an attempt of a run that still has a security group or a launch template. Its roles have its name.
type Rest struct{ Region, Run, Name string }

// rests lists the security groups and launch templates with a controller's tag.
func (l *Listing) rests(a *Account) func(context.Context, string, string) error {
	return func(ctx context.Context, region, controller string) error {
		add := func(list []ec2types.Tag) {
			tags := tagsOf(list)
			r := Rest{region, tags[TagRun], tags["Name"]}
			if r.Run != "" && strings.HasPrefix(r.Name, "aob-"+r.Run+"-") && !slices.Contains(l.Rests, r) {
				l.Rests = append(l.Rests, r)
			}
		}
		groups := ec2.NewDescribeSecurityGroupsPaginator(a.ec2(region), &ec2.DescribeSecurityGroupsInput{
			Filters: tagged(controller), MaxResults: aws.Int32(500)})
		if err := pages(groups.HasMorePages, func() error {
			page, err := groups.NextPage(ctx)
			if err == nil {
				for _, g := range page.SecurityGroups {
					add(g.Tags)
				}
			}
			return err
		}); err != nil {
			return err
		}
		templates := ec2.NewDescribeLaunchTemplatesPaginator(a.ec2(region), &ec2.DescribeLaunchTemplatesInput{
			Filters: tagged(controller), MaxResults: aws.Int32(200)})
		return pages(templates.HasMorePages, func() error {
			page, err := templates.NextPage(ctx)
			if err == nil {
				for _, t := range page.LaunchTemplates {
					add(t.Tags)
				}
			}
			return err
		})
	}
}

// Left decides which of the rests are ended: those of runs that are over or not known, once the run has nothing else in
// the region that the list has. Without knowledge of runs it is none.
func Left(w World) (list []Rest) {
	if w.Controller == "" || w.Life == nil {
		return nil
	}
	for _, r := range w.Rests {
		life := w.Life(r.Run)
		if w.Whole[r.Region] && (life == RunGone || life == RunOver) &&
			!slices.ContainsFunc(w.Items, func(i Item) bool {
				return i.Region == r.Region && i.Tags[TagRun] == r.Run &&
					(i.costs() || i.Kind == delivery.OrphanInstance)
			}) {
			list = append(list, r)
		}
	}
	return list
}
