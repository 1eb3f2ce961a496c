package main

// This file connects the server with an account of AWS.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	trainawsec2 "github.com/autonomos/aob/infra/terraform/train-aws-ec2"
	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/run"
	"github.com/autonomos/aob/reconciler/terraform"
	"github.com/autonomos/aob/reconciler/trainer"
)

// openCloud opens the account of AWS, if the configuration names one.
func (p *server) openCloud(ctx context.Context) error {
	aws := p.settings.AWS
	if aws == nil || p.watchOnly != nil { // the account is the original server's
		return nil
	}
	account, err := cloud.OpenAccount(ctx, accountOf(p.settings))
	if err != nil {
		return err
	}
	p.sweeper = &cloud.Sweeper{Account: account, Controller: aws.Controller, Log: p.log,
		Runs: func(context.Context) (func(string) cloud.Life, error) {
			states, err := p.loop.Runs.Observe()
			return lives(states, err), nil
		},
		Report: func(s cloud.Swept) {
			err := errors.Join(slices.Collect(maps.Values(s.Failed))...)
			p.metrics.Swept(s.New, err)
			p.loop.Swept(err)
		}}
	p.loop.Orphans = p.sweeper.Found
	prices := &cloud.Prices{Account: account, Wake: p.loop.Wake, Log: p.log}
	p.loop.Prices = func(instance string) (delivery.Price, error) { return prices.Of(aws.Regions[0], instance) }
	return nil
}

// accountOf returns the account of a server that has one. AWS_ENDPOINT_URL names another server than Amazon's, as it
// does for all programs that use the SDK.
func accountOf(s intent.Server) cloud.AccountAddress {
	return cloud.AccountAddress{Regions: s.AWS.Regions, Endpoint: os.Getenv(awsEndpoint)}
}

const awsEndpoint = "AWS_ENDPOINT_URL"

// instancesOf lists the types of instances that a server starts; none without a place for them.
func instancesOf(s intent.Server) []string {
	if s.AWS == nil || s.AWS.Train == nil {
		return nil
	}
	return s.AWS.Instances
}

// An awsTrainer trains on instances. It opens the account when it is used: other runs need no credentials.
type awsTrainer struct {
	settings  intent.Server
	terraform string // the program
	aob       string // this program
}

// Train implements [work.Trainer].
func (t awsTrainer) Train(ctx context.Context, req trainer.Request) (trainer.Trained, error) {
	s, place := t.settings, t.settings.AWS.Train
	account, err := cloud.OpenAccount(ctx, accountOf(s))
	if err != nil {
		return trainer.Trained{}, err
	}
	region := s.AWS.Regions[0]
	bucket, err := cloud.OpenBucket(ctx, cloud.Address{Bucket: place.Runs, Region: region,
		Endpoint: os.Getenv(awsEndpoint)})
	if err != nil {
		return trainer.Trained{}, err
	}
	machine := &terraform.AWS{Things: account, Objects: bucket, Account: terraform.Account{Controller: s.AWS.Controller,
		ID: place.Account, Region: region, Partition: cloud.Partition(region), VPC: place.VPC, Subnet: place.Subnet,
		PublicAddress: place.PublicAddress, AMI: place.AMI, AMIOwner: place.AMIOwner, AMIName: place.AMIName,
		DiskGB: int(place.Disk / (1 << 30)), Runs: place.Runs, States: place.States,
		Repositories: repositoriesOf(s.Containers.Images), PermissionsBoundary: place.PermissionsBoundary,
		ScheduleGroup: place.ScheduleGroup, Mirror: place.Providers, Endpoint: os.Getenv(awsEndpoint)}}
	return (&terraform.Trainer{Terraform: t.terraform, Module: trainawsec2.Files, AOB: t.aob, Machine: machine}).Train(
		ctx, req)
}

var inECR = regexp.MustCompile(`^([0-9]{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([a-z0-9./_-]+)$`)

// repositoriesOf returns the ARNs of the images' repositories in ECR, by the names of the images.
func repositoriesOf(images map[string]string) map[string]string {
	list := map[string]string{}
	for _, image := range images {
		name, _, _ := strings.Cut(image, "@")
		if at := inECR.FindStringSubmatch(name); at != nil {
			list[name] = fmt.Sprintf("arn:%s:ecr:%s:%s:repository/%s", cloud.Partition(at[2]), at[2], at[1], at[3])
		}
	}
	return list
}

// lives says what a sweep may know of runs. If some cannot be read, no run counts as gone.
func lives(states []delivery.RunState, unread error) func(run string) cloud.Life {
	known := map[string]cloud.Life{}
	for _, s := range states {
		life := cloud.RunAlive
		if s.Phase == delivery.RunDone || s.Phase == delivery.RunFailed || s.Phase == delivery.RunStopped {
			life = cloud.RunOver
		}
		known[filepath.Base(run.Folder("", s.Spec.Kind, s.Spec.Key))] = life
	}
	return func(run string) cloud.Life {
		life, ok := known[run]
		if !ok && unread != nil {
			return cloud.RunUnread
		}
		return life
	}
}

// placeOf returns where a server's instances start; nil if none do.
func placeOf(s intent.Server) *cloud.Place {
	if s.AWS == nil || s.AWS.Train == nil {
		return nil
	}
	t := s.AWS.Train
	return &cloud.Place{Account: t.Account, VPC: t.VPC, Subnet: t.Subnet, PublicAddress: t.PublicAddress, AMI: t.AMI,
		AMIOwner: t.AMIOwner, AMIName: t.AMIName, Instances: s.AWS.Instances, Runs: t.Runs, States: t.States,
		Boundary: t.PermissionsBoundary, ScheduleGroup: t.ScheduleGroup}
}

// awsPatience is how long AWS may take to answer all questions.
const awsPatience = 3 * time.Minute

// diagnoseAWS checks what the server needs in its account of AWS.
func diagnoseAWS(ctx context.Context, s intent.Server) []diagnosis {
	if s.AWS == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, awsPatience)
	defer cancel()
	var list []diagnosis
	if s.AWS.Train != nil {
		list = append(list, diagnoseProvider(ctx, s))
	}
	account, err := cloud.OpenAccount(ctx, accountOf(s))
	if err != nil {
		return append(list, diagnosed("aws credentials", "", err))
	}
	for _, c := range account.Check(ctx, s.AWS.Controller, placeOf(s)) {
		d := diagnosed("aws "+c.Name, c.What, c.Err)
		if c.Err != nil && c.Minor {
			d.State = diagnosisWarning
		}
		list = append(list, d)
	}
	return list
}

// diagnoseProvider checks that Terraform can use the module train-aws-ec2 without downloading anything.
func diagnoseProvider(ctx context.Context, s intent.Server) diagnosis {
	program, err := findTerraform(s)
	if err == nil {
		err = terraform.Module{Exec: program, Files: trainawsec2.Files, Mirror: s.AWS.Train.Providers}.Validate(ctx)
	}
	return diagnosed("aws provider", "Terraform has all that train-aws-ec2 needs", err)
}
