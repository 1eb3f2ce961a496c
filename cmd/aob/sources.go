package main

import (
	"context"
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/cloud"
	"github.com/autonomos/aob/reconciler/dataset"
	"github.com/autonomos/aob/reconciler/intent"
)

// sources are the kinds of storage of datasets, by the names with which references begin. A new one is a line here.
var sources = map[string]dataset.Source{
	"archive":  dataset.Archive{},
	"dir":      dataset.Dir{},
	"roboflow": dataset.Roboflow{},
	"s3": dataset.S3{Connect: func(ctx context.Context, at dataset.BucketAddress) (dataset.Bucket, error) {
		return cloud.OpenBucket(ctx, cloud.Address(at))
	}},
}

// datasets returns the datasets that a server may use.
func datasets(s intent.Server) dataset.Catalog {
	c := dataset.Catalog{Sources: sources, Locations: s.Datasets, Cache: state(s.State).path("datasets"),
		Secret: func(name string) (string, error) { return runSecret(s, name) }}
	if s.Files != "" {
		c.Shared = &dataset.Shared{
			Connect: func(ctx context.Context) (dataset.Objects, string, error) { return bucketOf(ctx, s) },
			Warn:    func(err error) { newLog().Warn(err.Error()) },
		}
	}
	return c
}

// datasetNames returns the names in a server's configuration by source.
func datasetNames(s intent.Server) map[string][]string {
	names := map[string][]string{}
	for source := range sources {
		names[source] = append([]string{}, slices.Sorted(maps.Keys(s.Datasets[source]))...) // nil would allow all
	}
	return names
}
