package fleet

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// An offer lists the bundles that a ring was offered so far: DIR/desired/RING.offered. Reports about
// other bundles do not count.
type offer struct {
	Version int64             `json:"version"` // of the last document
	Bundles []delivery.Digest `json:"bundles"` // named by its documents, newest last
}

const (
	maxOffered  = 256
	offeredFile = ".offered"
)

// withDocument returns o with the bundles of a document added.
func (o offer) withDocument(d delivery.Desired) offer {
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
	return durable.WriteJSON(filepath.Join(s.desiredDir(), ring+offeredFile), o)
}

// loadOffers reads the stored offers. A file that cannot be read is skipped: the bundles of the
// current document count as offered.
func (s *Server) loadOffers() error {
	files, err := filepath.Glob(filepath.Join(s.desiredDir(), "*"+offeredFile))
	if err != nil {
		return err
	}
	for _, path := range files {
		var o offer
		if err := durable.ReadJSON(path, &o); err != nil {
			s.Log.Warn("stored offers of a ring cannot be read; only its current document counts", "file", path, "err",
				err)
			continue
		}
		s.offered[strings.TrimSuffix(filepath.Base(path), offeredFile)] = o
	}
	return nil
}

// ignoredReason returns why a report's statement about a bundle does not count; empty if it does. The caller
// holds s.mu.
func (s *Server) ignoredReason(r delivery.Report) string {
	o := s.offered[r.Ring]
	switch {
	case r.Phase == delivery.DeviceHealthy && !o.contains(r.Bundle):
		return fmt.Sprintf("it reports bundle %s as healthy, but this ring was never offered that bundle",
			r.Bundle.Short())
	case r.Phase == delivery.DeviceFailed && !o.contains(r.Failed):
		return fmt.Sprintf("it reports that bundle %s failed, but this ring was never offered that bundle",
			r.Failed.Short())
	}
	return ""
}
