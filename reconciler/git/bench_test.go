package git

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The benchmarks use an intent repository of 500 models: 1,500 files, 3,000 commits, served
// by git-http-backend on loopback. Each takes 21 measurements, alternating with the
// equivalent git command, and reports the medians in milliseconds. Run them with -benchtime
// 1x.
const (
	benchModels  = 500
	benchCommits = 3000
	benchRounds  = 21
)

func benchRepo(b *testing.B) *repo {
	b.Helper()
	r := newRepo(b)
	r.git("config", "gc.auto", "0")
	var script strings.Builder
	text := func(kind string, i, rev int) string {
		return fmt.Sprintf(`apiVersion: aob/v1
kind: %s
name: m%03d
# revision %d
dataset: {dir: pallets/%d}
classes: [pallet, forklift, person]
train:
  with: tiny@1
  epochs: %d
  batch: {effective: 16, step: 4}
  optimizer: {name: adamw, lr: 1e-4, warmup: 3, schedule: cosine}
  earlyStopping: {patience: 8}
`, kind, i, rev, rev*i, rev%60+1)
	}
	for n := range benchCommits {
		fmt.Fprintf(&script, "commit refs/heads/main\ncommitter A <a@example.com> %d +0000\ndata 10\nrevision \n\n",
			1_700_000_000+60*n)
		for k, folder := range folders {
			for i := range benchModels {
				if n == 0 || i == n*7%benchModels && k == n%len(folders) {
					file := text(folder, i, n)
					fmt.Fprintf(&script, "M 100644 inline %s/m%03d.yaml\ndata %d\n%s\n", folder, i, len(file), file)
				}
			}
		}
	}
	r.gitIn(strings.NewReader(script.String()), "fast-import", "--quiet")
	r.git("repack", "-adq")
	clock.Store(1_700_000_000 + 60*benchCommits)
	return r
}

// A meter is a transport that counts the received bytes.
type meter struct {
	*http.Transport
	read atomic.Int64
}

func newMeter() *meter {
	m := &meter{Transport: &http.Transport{}}
	m.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return metered{c, &m.read}, err
	}
	return m
}

type metered struct {
	net.Conn
	read *atomic.Int64
}

func (m metered) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.read.Add(int64(n))
	return n, err
}

// alternate measures two functions alternately and returns the medians.
func alternate(before func(), ours, theirs func()) (a, b time.Duration) {
	var as, bs []time.Duration
	measure := func(f func()) time.Duration {
		start := time.Now()
		f()
		return time.Since(start)
	}
	for i := range benchRounds {
		before()
		if i%2 == 0 {
			as = append(as, measure(ours))
			bs = append(bs, measure(theirs))
		} else {
			bs = append(bs, measure(theirs))
			as = append(as, measure(ours))
		}
	}
	slices.Sort(as)
	slices.Sort(bs)
	return as[len(as)/2], bs[len(bs)/2]
}

func report(b *testing.B, ours, theirs time.Duration) {
	b.ReportMetric(ours.Seconds()*1e3, "aob-ms")
	b.ReportMetric(theirs.Seconds()*1e3, "git-ms")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "aob/git")
	b.ReportMetric(0, "ns/op")
}

func run(b *testing.B, args ...string) {
	b.Helper()
	if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
		b.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// readAll reads every intent file of main.
func readAll(b *testing.B, m *Mirror) int {
	b.Helper()
	files, err := m.Files(m.Refs()["refs/heads/main"])
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		if _, err := m.Blob(f.Hash, MaxBlob); err != nil {
			b.Fatal(err)
		}
	}
	return len(files)
}

// BenchmarkNothingNew observes an unchanged remote, compared with git ls-remote.
func BenchmarkNothingNew(b *testing.B) {
	r := benchRepo(b)
	s := serve(b, r)
	remote := s.remote()
	meter := newMeter()
	remote.Transport = meter
	m := open(b, b.TempDir(), remote)
	observe(b, m)
	for b.Loop() {
		var most int64
		ours, theirs := alternate(func() {}, func() {
			before := meter.read.Load()
			if _, changed := observe(b, m); changed {
				b.Fatal("changed")
			}
			most = max(most, meter.read.Load()-before)
		}, func() { run(b, "ls-remote", remote.URL) })
		report(b, ours, theirs)
		b.ReportMetric(float64(most), "bytes-read")
	}
}

// BenchmarkOnePush fetches one commit that changes one file and reads that file, compared
// with git fetch alone.
func BenchmarkOnePush(b *testing.B) {
	r := benchRepo(b)
	remote := serve(b, r).remote()
	m := open(b, b.TempDir(), remote)
	observe(b, m)
	readAll(b, m)
	clone := b.TempDir()
	run(b, "clone", "-q", "--mirror", remote.URL, clone)
	rev := 0
	for b.Loop() {
		ours, theirs := alternate(func() {
			rev++
			r.commit("refs/heads/main", map[string]string{fmt.Sprintf("models/m%03d.yaml", rev%benchModels): fmt.Sprint(
				"changed ", rev)})
		}, func() {
			old := m.Refs()["refs/heads/main"]
			refs, changed := observe(b, m)
			if !changed {
				b.Fatal("unchanged")
			}
			before, err := m.Files(old)
			if err != nil {
				b.Fatal(err)
			}
			after, err := m.Files(refs["refs/heads/main"])
			if err != nil {
				b.Fatal(err)
			}
			read := 0
			for i := range after {
				if after[i].Hash != before[i].Hash {
					if _, err := m.Blob(after[i].Hash, MaxBlob); err != nil {
						b.Fatal(err)
					}
					read++
				}
			}
			if read != 1 {
				b.Fatalf("%d files changed", read)
			}
		}, func() { run(b, "-C", clone, "fetch", "-q") })
		report(b, ours, theirs)
	}
}

// BenchmarkCold clones and reads all 1,500 files, compared with git clone --mirror.
func BenchmarkCold(b *testing.B) {
	r := benchRepo(b)
	remote := serve(b, r).remote()
	for b.Loop() {
		var ourDir, gitDir string
		ours, theirs := alternate(func() { ourDir, gitDir = b.TempDir(), b.TempDir() }, func() {
			m, err := Open(ourDir, remote)
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			observe(b, m)
			if n := readAll(b, m); n != benchModels*len(folders) {
				b.Fatalf("%d files", n)
			}
		}, func() { run(b, "clone", "-q", "--mirror", remote.URL, gitDir) })
		report(b, ours, theirs)
	}
}

// BenchmarkHistory reads the history of one file in 3,000 commits, compared with git log.
// Each measurement begins with empty caches.
func BenchmarkHistory(b *testing.B) {
	r := benchRepo(b)
	m := open(b, b.TempDir(), serve(b, r).remote())
	refs, _ := observe(b, m)
	head := refs["refs/heads/main"]
	for b.Loop() {
		ours, theirs := alternate(func() {
			if err := m.load(); err != nil {
				b.Fatal(err)
			}
		}, func() {
			if list, err := m.History(head, "models/m007.yaml"); err != nil || len(list) < 2 {
				b.Fatal(list, err)
			}
		}, func() { run(b, "-C", r.dir, "log", "--format=%H", "main", "--", "models/m007.yaml") })
		report(b, ours, theirs)
	}
}

// BenchmarkFiles lists 1,500 files, one of which has changed.
func BenchmarkFiles(b *testing.B) {
	r := benchRepo(b)
	m := open(b, b.TempDir(), serve(b, r).remote())
	refs, _ := observe(b, m)
	line, err := m.FirstParents(refs["refs/heads/main"], benchCommits)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := m.Files(line[0]); err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		i++
		if _, err := m.Files(line[i%len(line)]); err != nil {
			b.Fatal(err)
		}
	}
}
