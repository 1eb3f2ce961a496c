package main

// This file connects what the server has stored with the packages that list and remove it.

import (
	"path/filepath"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/engine"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/retention"
	"github.com/autonomos/aob/reconciler/shelf"
)

// leftFor is how long the files stay that a killed process has left: a process that lives may still write them.
const leftFor = 24 * time.Hour

// newShelf returns what the server has stored.
func (p *server) newShelf() (*shelf.Shelf, error) {
	environments, err := environmentsOf(p.settings)
	if err != nil {
		return nil, err
	}
	runsIn := map[string]delivery.Environment{}
	for with, t := range p.trainers {
		if t.Runs != nil {
			runsIn[with] = *t.Runs
		}
	}
	return &shelf.Shelf{Loop: p.loop, State: string(p.state), Runs: p.loop.Runs, Bundles: p.bundles,
		Datasets: datasets(p.settings), Environments: environments,
		Engines: engine.Cache(detectorEngines(p.settings)), Ledger: p.ledger, Trainers: runsIn,
		Limits: limitsOf(p.settings.Retention), Log: p.log, Now: time.Now, Removed: p.metrics.Removed,
		Files: map[string]string{"ledger": p.state.ledger(), "devices": p.state.path("devices.db"),
			"index": filepath.Join(p.state.bundles(), "index.json")},
		Folders: map[string]string{"mirror": p.state.mirror(), "verified": p.state.verified(),
			"blobs": filepath.Join(p.state.bundles(), "blobs")}}, nil
}

// limitsOf returns how long things of each kind stay that nothing needs.
func limitsOf(r intent.ServerRetention) retention.Limits {
	runs, bundles := time.Duration(r.Runs), time.Duration(r.Bundles)
	return retention.Limits{
		retention.Run: runs, retention.Pictures: runs, retention.Detections: runs,
		// A run that is younger than its limit may name them in a result that no turn has read yet.
		retention.Bundle: max(bundles, runs), retention.Checkpoint: max(bundles, runs),
		retention.Images:      max(bundles, runs),
		retention.Dataset:     time.Duration(r.Datasets),
		retention.Environment: time.Duration(r.Environments),
		retention.Engine:      runs,
		retention.Said:        time.Duration(r.Posts),
		retention.Clock:       time.Duration(r.Posts),
		retention.Left:        leftFor,
	}
}
