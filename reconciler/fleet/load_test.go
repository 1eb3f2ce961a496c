package fleet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/fleet"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/trust"
)

// BenchmarkReportsAtOnce has 10,000 devices report within 15 and 2 seconds, as after an outage, over HTTP and into the
// ledger, while the loop writes every 20 ms what it has posted. It measures how long reports and the loop's writes
// take.
func BenchmarkReportsAtOnce(b *testing.B) {
	for _, within := range []time.Duration{15 * time.Second, 2 * time.Second} {
		b.Run(within.String(), func(b *testing.B) { reportAtOnce(b, within) })
	}
}

func reportAtOnce(b *testing.B, within time.Duration) {
	const devices = 10_000
	for range b.N {
		dir := b.TempDir()
		book, err := ledger.Open(b.Context(), filepath.Join(dir, "ledger.db"))
		if err != nil {
			b.Fatal(err)
		}
		key, err := trust.Create(filepath.Join(dir, "desired.key"))
		if err != nil {
			b.Fatal(err)
		}
		s, err := fleet.Open(b.Context(), fleet.Config{Dir: dir, Key: key, Secret: secret, Registry: book,
			Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		server := httptest.NewServer(s.Handler())
		transport := &http.Transport{MaxIdleConnsPerHost: 1000}
		client := &http.Client{Timeout: 30 * time.Second, Transport: transport}
		report := func(device string) error {
			body, err := json.Marshal(delivery.Report{Device: device, Ring: "north", Sequence: 1,
				Phase: delivery.DeviceHealthy, Bundle: delivery.Sum(nil), Release: 3, Desired: 2})
			if err != nil {
				return err
			}
			r, err := http.NewRequestWithContext(b.Context(), "POST", server.URL+"/fleet/v1/reports",
				bytes.NewReader(body))
			if err != nil {
				return err
			}
			r.Header.Set("Authorization", "Bearer "+fleet.DeviceToken(secret, "north", device))
			answer, err := client.Do(r)
			if err != nil {
				return err
			}
			defer answer.Body.Close()
			if _, err := io.Copy(io.Discard, answer.Body); err != nil {
				return err
			}
			if answer.StatusCode != http.StatusOK {
				return fmt.Errorf("%s", answer.Status)
			}
			return nil
		}
		took, refused := make([]time.Duration, devices), make([]error, devices)
		var all sync.WaitGroup
		start := time.Now()
		for i := range devices {
			all.Go(func() {
				// Devices do not wait for each other, so a slow server gets no fewer of them.
				begin := start.Add(within * time.Duration(i) / devices)
				time.Sleep(time.Until(begin))
				refused[i] = report(fmt.Sprint("robot-", i))
				took[i] = time.Since(begin)
			})
		}
		var writes []time.Duration
		for n := 0; time.Since(start) < within; n++ {
			begin := time.Now()
			if err := book.PutRecord(b.Context(), fmt.Sprint("status/", n), "pending", begin); err != nil {
				b.Fatal(err)
			}
			writes = append(writes, time.Since(begin))
			time.Sleep(20 * time.Millisecond)
		}
		all.Wait()
		server.Close()
		if err := book.Close(); err != nil {
			b.Fatal(err)
		}
		slices.Sort(took)
		slices.Sort(writes)
		lost := len(slices.DeleteFunc(refused, func(err error) bool { return err == nil }))
		b.ReportMetric(float64(lost), "refused")
		b.ReportMetric(took[len(took)/2].Seconds()*1e3, "p50-ms")
		b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
		b.ReportMetric(writes[len(writes)*99/100].Seconds()*1e3, "loop-p99-ms")
		b.ReportMetric(0, "ns/op")
	}
}
