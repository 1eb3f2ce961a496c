package cloud

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Checked is one thing that a server needs in an account.
type Checked struct {
	Name  string // in few words
	What  string // that is as it must be
	Err   error  // what is missing, and what to do
	Minor bool   // the server works without it
}

// Check checks what a server needs in an account. It changes nothing. place is nil where no instance starts.
func (a *Account) Check(ctx context.Context, controller string, place *Place) []Checked {
	list, identity := a.checkIdentity(ctx, place)
	if place != nil && list[len(list)-1].Err != nil { // nothing of another account is of use
		return list
	}
	list = append(list, a.checkPermissions(ctx, identity, controller, place)...)
	listing := a.List(ctx, controller)
	for _, region := range a.at.Regions {
		if listing.Whole[region] {
			list = append(list, Checked{Name: "sweep", What: "what runs leave in " + region + " can be listed"})
		}
		for _, err := range parts(listing.Failed[region]) {
			list = append(list, Checked{Name: "sweep", Err: err})
		}
	}
	if place == nil {
		return append(list, a.checkPrice(ctx, "g5.xlarge"))
	}
	p := placed{a, *place, a.at.Regions[0]}
	list = append(list, p.subnet(ctx)...)
	list = append(list, p.bucket(ctx, p.Runs, "runs")...)
	list = append(list, p.bucket(ctx, p.States, "states")...)
	list = append(list, p.image(ctx), p.schedules(ctx, controller))
	list = append(list, p.quotas(ctx)...)
	for _, instance := range place.Instances {
		list = append(list, a.checkPrice(ctx, instance))
	}
	return list
}

// checkIdentity asks whose credentials they are. The answer needs no permission.
func (a *Account) checkIdentity(ctx context.Context, place *Place) ([]Checked, string) {
	out, err := sts.NewFromConfig(a.config).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return []Checked{{Name: "credentials", Err: explainCall(a.at.Regions[0], err)}}, ""
	}
	identity, account := aws.ToString(out.Arn), aws.ToString(out.Account)
	shown := delivery.PlainText(identity, 200)
	list := []Checked{{Name: "credentials", What: "they are those of " + shown}}
	if strings.HasSuffix(identity, ":root") {
		list[0].Minor, list[0].Err = true, delivery.Blockedf("make the role of infra/terraform/github-oidc and use it",
			"they are those of the account's root user, which may do everything")
	}
	if place == nil {
		return list, identity
	}
	c := Checked{Name: "account", What: account + " is aws.train.account"}
	if account != place.Account {
		c.Err = delivery.Blockedf("take credentials of the other account, or correct aws.train.account",
			"the credentials are those of account %s, and aws.train.account is %s", delivery.PlainText(account, 20),
			place.Account)
	}
	return append(list, c), identity
}

// checkPermissions has a line for each action that is not allowed.
func (a *Account) checkPermissions(ctx context.Context, identity, controller string, place *Place) []Checked {
	if identity == "" {
		return nil
	}
	needs := Needs(controller, a.at.Regions, place)
	principal, err := a.principal(ctx, identity)
	var missing []Missing
	if err == nil {
		missing, err = a.simulate(ctx, principal, needs)
	}
	if err != nil {
		return []Checked{{Name: "permissions", Minor: true, Err: delivery.Blockedf("allow the server's role "+
			"iam:GetRole and iam:SimulatePrincipalPolicy on itself, as infra/terraform/github-oidc does",
			"AWS does not say what the role is allowed: %v", err)}}
	}
	if len(missing) == 0 {
		actions := map[string]bool{}
		for _, n := range needs {
			for _, action := range n.Actions {
				actions[action] = true
			}
		}
		return []Checked{{Name: "permissions", What: fmt.Sprintf("%s, all allowed",
			delivery.Count(len(actions), "action"))}}
	}
	var list []Checked
	for _, m := range missing {
		do := "apply infra/terraform/github-oidc, whose policy allows it, or add it to the policy of " +
			delivery.PlainText(principal, 200)
		if m.Denied {
			do = "a policy denies it; ask who keeps the account's or the organisation's policies"
		}
		c := Checked{Name: "permission", Err: delivery.Blockedf(do, "%s", m)}
		if !slices.ContainsFunc(list, func(o Checked) bool { return o.Err.Error() == c.Err.Error() }) {
			list = append(list, c)
		}
	}
	return list
}

// checkPrice asks what an instance costs.
func (a *Account) checkPrice(ctx context.Context, instance string) Checked {
	region := a.at.Regions[0]
	price, err := a.Price(ctx, region, instance)
	if table, tableErr := TablePrice(region, instance); err != nil && tableErr == nil {
		err = delivery.Blockedf("give the server's role pricing:GetProducts and ec2:DescribeSpotPriceHistory",
			"the price of %s in %s is that of %s, as AWS does not say it: %v", instance, region, table.Source, err)
	} else if err != nil {
		return Checked{Name: "price", Err: err} // nothing starts without one
	}
	what := fmt.Sprintf("%s costs %s an hour in %s", instance, price.OnDemand, region)
	if price.Spot > 0 {
		what += fmt.Sprintf(", %s as a spot instance", price.Spot)
	}
	return Checked{Name: "price", What: what, Err: err, Minor: true}
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
