package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/provenance"
)

// Papers writes and signs the documents about releases, beside the loop: nothing waits for them. A release that main
// has accepted gets each document once, also releases of the time before there were documents.
type Papers struct {
	Bundles    *artifact.Store
	Statements *evidence.Store
	Server     string // the address of the server; empty for none
	Log        *slog.Logger

	last    *evidence.Snapshot // all of whose releases have their documents, except waiting
	waiting []delivery.Acceptance
}

// papersPoll is how often Papers looks for new releases.
const papersPoll = 5 * time.Second

// Run writes documents until ctx ends.
func (p *Papers) Run(ctx context.Context) {
	tick := time.NewTicker(papersPoll)
	defer tick.Stop()
	for {
		if err := p.Step(ctx); err != nil && ctx.Err() == nil {
			p.Log.Warn("the documents about a release cannot be written, and are tried again", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Step writes the documents that are missing. If one fails, the others are written all the same.
func (p *Papers) Step(ctx context.Context) error {
	s, err := p.Statements.Load(ctx)
	if err != nil || s == p.last {
		return err
	}
	list := slices.Clip(p.waiting)
	if added, ok := p.Statements.Added(p.last, s); ok {
		for _, st := range added {
			if a, ok := st.Value.(*delivery.Acceptance); ok {
				list = append(list, *a)
			}
		}
	} else if list, err = p.without(ctx, s); err != nil {
		return err
	}
	var errs []error
	var waiting []delivery.Acceptance
	for _, a := range list {
		ok, err := p.write(ctx, s, a)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s@%d: %w", a.Model, a.Version, err))
		} else if !ok {
			waiting = append(waiting, a)
		}
	}
	if len(errs) == 0 {
		p.last, p.waiting = s, waiting
	}
	return errors.Join(errs...)
}

// without lists the acceptances of bundles to which fewer documents are attached than there are acceptances.
func (p *Papers) without(ctx context.Context, s *evidence.Snapshot) (list []delivery.Acceptance, err error) {
	accepted := map[delivery.Digest]int{}
	for _, of := range s.AcceptancesOf {
		for _, a := range of {
			accepted[a.Bundle]++
		}
	}
	for _, model := range slices.Sorted(maps.Keys(s.AcceptancesOf)) {
		for _, a := range s.AcceptancesOf[model] {
			for _, kind := range delivery.PaperTypes {
				attached, err := p.Bundles.Attached(ctx, a.Bundle, evidence.ArtifactType(kind))
				if err != nil {
					return nil, err
				}
				if len(attached) < accepted[a.Bundle] {
					list = append(list, a)
					break
				}
			}
		}
	}
	return list, nil
}

// write writes the documents about one release that are missing. It reports false if something that they tell is not
// there yet.
func (p *Papers) write(ctx context.Context, s *evidence.Snapshot, a delivery.Acceptance) (ok bool, err error) {
	papers, err := p.Statements.Papers(ctx, a.Bundle)
	if err != nil {
		return false, err
	}
	missing := slices.DeleteFunc(slices.Clone(delivery.PaperTypes), func(kind string) bool {
		return slices.ContainsFunc(papers, func(p delivery.Paper) bool {
			return p.Type == kind && p.Model == a.Model && p.Version == a.Version
		})
	})
	if len(missing) == 0 {
		return true, nil
	}
	r, ok, err := p.record(ctx, s, a)
	if err != nil || !ok {
		return false, err
	}
	documents, err := provenance.Documents(r)
	if err != nil {
		return false, err
	}
	for _, kind := range missing {
		if err := p.Statements.Sign(ctx, a.Bundle, kind, documents[kind]); err != nil {
			return false, err
		}
	}
	return true, nil
}

// record collects what is known about a release. It reports false if its bundle or a statement about it is not there.
func (p *Papers) record(ctx context.Context, s *evidence.Snapshot, a delivery.Acceptance) (r provenance.Record, ok bool,
	err error) {
	list, err := p.Bundles.Bundles(ctx)
	if err != nil || !slices.Contains(list, a.Bundle) {
		return r, false, err
	}
	r.Accepted, r.Server = a, p.Server
	r.Release, ok = delivery.Find(s.ReleasesOf[a.Bundle], func(s delivery.ReleaseStatement) bool {
		return s.Model == a.Model && s.Version == a.Version
	})
	if !ok {
		return r, false, nil
	}
	trained := a.Bundle
	for _, key := range slices.Sorted(maps.Keys(s.Resolved)) {
		if t := s.Resolved[key]; t.Result.Bundle == a.Bundle {
			r.Resolved, trained = &t, t.Input.Valid.Bundle
			break
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.Trainings)) {
		if t := s.Trainings[key]; t.Result.Bundle == trained {
			r.Training = *t
			break
		}
	}
	if r.Training.Run == "" {
		return r, false, nil
	}
	info, err := p.Bundles.Describe(ctx, a.Bundle)
	r.Model, r.Size, r.Signature, r.Labels = info.Model, info.Size, info.Signature, info.Labels
	return r, err == nil, err
}
