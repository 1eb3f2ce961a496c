package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// An offer is what a ring was told so far: DIR/desired/RING.offered. What devices
// say of other bundles does not count.
type offer struct {
	Version int64             `json:"version"` // of the last document
	Bundles []delivery.Digest `json:"bundles"` // that its documents named, newest last
}

const (
	maxOffered  = 256
	offeredFile = ".offered"
)

// with adds the bundles of a document.
func (o offer) with(d delivery.Desired) offer {
	named := []delivery.Digest{}
	if d.Previous != nil {
		named = append(named, d.Previous.Bundle)
	}
	if d.Share > 0 {
		named = append(named, d.Release.Bundle)
	}
	o.Version = max(o.Version, d.Version)
	o.Bundles = slices.DeleteFunc(slices.Clone(o.Bundles), func(b delivery.Digest) bool {
		return slices.Contains(named, b)
	})
	o.Bundles = append(o.Bundles, named...)
	o.Bundles = o.Bundles[max(0, len(o.Bundles)-maxOffered):]
	return o
}

func (o offer) contains(b delivery.Digest) bool { return slices.Contains(o.Bundles, b) }

func (s *Server) saveOffer(ring string, o offer) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(s.desiredDir(), ring+offeredFile), append(data, '\n'), 0o600)
}

// loadOffers reads what rings were told. A file that cannot be read is as good as
// none: what is published now counts as offered.
func (s *Server) loadOffers() error {
	files, err := filepath.Glob(filepath.Join(s.desiredDir(), "*"+offeredFile))
	if err != nil {
		return err
	}
	for _, path := range files {
		var o offer
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &o)
		}
		if err != nil {
			s.Log.Warn("what a ring was offered cannot be read", "file", path, "err", err)
			continue
		}
		s.offers[strings.TrimSuffix(filepath.Base(path), offeredFile)] = o
	}
	return nil
}

// ignored says why what a report says of a bundle does not count; empty: it
// counts. The caller holds s.mu.
func (s *Server) ignored(r delivery.Report) string {
	o := s.offers[r.Ring]
	switch {
	case r.Phase == delivery.DeviceHealthy && !o.contains(r.Bundle):
		return fmt.Sprintf("it calls bundle %s healthy, which this ring was never offered", r.Bundle.Short())
	case r.Phase == delivery.DeviceFailed && !o.contains(r.Failed):
		return fmt.Sprintf("it says that bundle %s failed, which this ring was never offered", r.Failed.Short())
	}
	return ""
}
