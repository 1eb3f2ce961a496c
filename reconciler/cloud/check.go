package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Checked is one thing that a server needs in an account.
type Checked struct {
	What  string
	Err   error // what is missing, and what to do
	Minor bool  // the server works without it
}

// nothing is the id of an instance that nobody has.
const nothing = "i-00000000000000000"

// Check checks what a server needs in an account. It changes nothing: what it would end is nobody's, and AWS is asked
// only whether it may.
func (a *Account) Check(ctx context.Context, controller string) []Checked {
	var list []Checked
	listing := a.List(ctx, controller)
	for _, region := range a.at.Regions {
		if listing.Whole[region] {
			list = append(list, Checked{What: "sweeps of " + region + " can list what runs leave"})
		}
		for _, err := range parts(listing.Failed[region]) {
			list = append(list, Checked{What: "sweeps of " + region, Err: err})
		}
		dry := true
		_, err := a.ec2(region).TerminateInstances(ctx, &ec2.TerminateInstancesInput{DryRun: &dry,
			InstanceIds: []string{nothing}})
		api, _ := errors.AsType[smithy.APIError](err)
		// A role may be allowed to end what has this controller's tag alone, and this instance has none.
		if api != nil && slices.Contains([]string{"DryRunOperation", "InvalidInstanceID.NotFound",
			"InvalidInstanceID.Malformed", "UnauthorizedOperation"}, api.ErrorCode()) {
			err = nil
		}
		list = append(list, Checked{What: "AWS answers about instances in " + region,
			Err: explainCall(region, err)})
	}
	region := a.at.Regions[0]
	price, err := a.Price(ctx, region, "g5.xlarge")
	if table, tableErr := TablePrice(region, "g5.xlarge"); err != nil && tableErr == nil {
		err = delivery.Blockedf("give the server's role pricing:GetProducts and ec2:DescribeSpotPriceHistory",
			"prices are those of %s, as AWS does not say them: %v", table.Source, err)
	}
	what := fmt.Sprintf("AWS says prices: g5.xlarge costs %s an hour in %s", price.OnDemand, region)
	return append(list, Checked{What: what, Err: err, Minor: true})
}

// parts returns the errors that are joined in one.
func parts(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
