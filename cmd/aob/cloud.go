package main

// This file connects the server with an account of AWS.

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"

	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/run"
)

// openCloud opens the account of AWS, if the configuration names one.
func (p *server) openCloud(ctx context.Context) error {
	aws := p.settings.AWS
	if aws == nil || p.watchOnly != nil { // the account is the original server's
		return nil
	}
	account, err := cloud.OpenAccount(ctx, cloud.AccountAddress{Regions: aws.Regions})
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

// instancesOf lists the types of instances that a server starts: none as long as it has no machine for them.
func instancesOf(intent.Server) []string { return nil }

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

// diagnoseAWS checks what the server needs in its account of AWS.
func diagnoseAWS(ctx context.Context, s intent.Server) []diagnosis {
	if s.AWS == nil {
		return nil
	}
	account, err := cloud.OpenAccount(ctx, cloud.AccountAddress{Regions: s.AWS.Regions})
	if err != nil {
		return []diagnosis{diagnosed("aws", "", err)}
	}
	var list []diagnosis
	for _, c := range account.Check(ctx, s.AWS.Controller) {
		d := diagnosed("aws", c.What, c.Err)
		if c.Err != nil && c.Minor {
			d.State = diagnosisWarning
		}
		list = append(list, d)
	}
	return list
}
