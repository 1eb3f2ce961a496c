package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/outbox"
	"github.com/autonomos/aob/reconciler/track"
)

// maxMetrics is the size of a metrics.jsonl up to which it is read.
const maxMetrics = 16 << 20

// mlflowOf returns the client of an MLflow server. Its secrets are read for each request.
func mlflowOf(s intent.Server, t intent.ServerTracker) *track.MLflow {
	read := func(name string) func() (string, error) {
		if name == "" {
			return nil
		}
		return func() (string, error) { return readSecret(s, name) }
	}
	return track.New(track.Settings{URL: t.URL, Bearer: read(t.Bearer), Basic: read(t.Basic), Now: time.Now})
}

// trackers returns the trackers of a server, by KIND/NAME.
func trackers(s intent.Server) map[string]outbox.Tracker {
	list := map[string]outbox.Tracker{}
	for name, t := range s.Track["mlflow"] {
		list["mlflow/"+name] = mlflowOf(s, t)
	}
	return list
}

// bundlesAddress returns the address of the server's bundles, as in oci://aob.example.com/bundles.
func bundlesAddress(s intent.Server) string {
	host := strings.TrimRight(s.Listen.URL, "/")
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	if host == "" {
		host = s.Listen.Address
		name, port, err := net.SplitHostPort(host)
		if err == nil && slices.Contains([]string{"", "0.0.0.0", "::"}, name) {
			host = net.JoinHostPort("localhost", port)
		}
	}
	return "oci://" + host + "/" + artifact.Repository
}

// diagnoseTrackers checks whether the trackers answer. They are no reason to fail: nothing waits for them.
func diagnoseTrackers(ctx context.Context, s intent.Server) (list []diagnosis) {
	ctx, cancel := context.WithTimeout(ctx, trackerPatience)
	defer cancel()
	for _, name := range s.Track.Trackers() {
		kind, short, _ := strings.Cut(name, "/")
		t := s.Track[kind][short]
		d := diagnosed(fmt.Sprintf("tracker %s", name), t.URL+" answers", mlflowOf(s, t).Check(ctx))
		if d.State == diagnosisFailed {
			d.State = diagnosisWarning
			d.Text = delivery.PlainText(d.Text, 500)
		}
		list = append(list, d)
	}
	return list
}

// trackerPatience is how long all trackers may take to answer.
const trackerPatience = 20 * time.Second
