package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/archive"
	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/evidence"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/view"
)

// The benchmarks turn the real loop on an intent repository of 500 models, 500
// gates and 500 fleets with 3,000 commits, behind git's smart HTTP on loopback.
// Each measures 21 times, by turns with the git command beside it, and reports
// the medians in milliseconds. Run them with -benchtime 1x.
const (
	benchModels  = 500
	benchCommits = 3000
	benchRounds  = 21
)

func benchModel(i, rev int) string {
	return fmt.Sprintf("# revision %d\n%s", rev, model(fmt.Sprintf("m%03d", i), rev%60+1))
}

// benchRepo makes a repository and returns its folder.
func benchRepo(b *testing.B, models, commits int) string {
	dir := filepath.Join(b.TempDir(), "intent.git")
	benchGit(b, nil, "init", "-q", "--bare", "--initial-branch=main", dir)
	var script strings.Builder
	for n := range commits {
		fmt.Fprintf(&script, "commit refs/heads/main\ncommitter A <a@example.com> %d +0000\ndata 10\nrevision \n\n",
			1_700_000_000+60*n)
		put := func(path, text string) {
			fmt.Fprintf(&script, "M 100644 inline %s\ndata %d\n%s\n", path, len(text), text)
		}
		if n == 0 {
			for i := range models {
				name := fmt.Sprintf("m%03d", i)
				put("gates/g"+name+".yaml", gateFile("g"+name, name, 0.3))
				put("fleets/f"+name+".yaml", strings.NewReplacer("name: demo", "name: f"+name, "runs: shapes", "runs: "+
					name).Replace(fleetFile))
				put("models/"+name+".yaml", benchModel(i, 0))
			}
			continue
		}
		i := n * 7 % models
		put(fmt.Sprintf("models/m%03d.yaml", i), benchModel(i, n))
	}
	benchGit(b, strings.NewReader(script.String()), "-C", dir, "fast-import", "--quiet")
	benchGit(b, nil, "-C", dir, "repack", "-adq")
	return dir
}

func benchGit(b *testing.B, in *strings.Reader, args ...string) {
	b.Helper()
	cmd := exec.Command("git", args...)
	if in != nil {
		cmd.Stdin = in
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// serveGit serves a folder of repositories by git's own smart HTTP.
func serveGit(b *testing.B, root string) string {
	path, err := exec.LookPath("git")
	if err != nil {
		b.Skip("git is not on PATH")
	}
	s := httptest.NewServer(&cgi.Handler{Path: path, Args: []string{"http-backend"}, Env: []string{"GIT_PROJECT_ROOT=" +
		root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + root}, Stderr: os.Stderr})
	b.Cleanup(s.Close)
	return s.URL + "/intent.git"
}

type countedConn struct {
	net.Conn
	read *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// benchLoop makes the loop with all real parts but the forge, which has no pull
// request: its polls are no part of a turn here.
func benchLoop(b *testing.B, url string) (*Reconciler, *atomic.Int64) {
	dir := b.TempDir()
	var read atomic.Int64
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return countedConn{c, &read}, err
	}}
	mirror, err := git.Open(filepath.Join(dir, "mirror"), git.Remote{URL: url, Transport: transport})
	if err != nil {
		b.Fatal(err)
	}
	book, err := ledger.Open(b.Context(), filepath.Join(dir, "ledger.db"))
	if err != nil {
		b.Fatal(err)
	}
	bundles, err := artifact.Open(filepath.Join(dir, "bundles"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { mirror.Close(); book.Close() })
	s := &sim{}
	r := &Reconciler{Repo: mirror, Forge: noForge{}, Runs: &simRuns{sim: s},
		Evidence: &archive.Archive{Bundles: bundles,
			Statements: evidence.New(bundles, nil, nil), Log: slog.New(slog.DiscardHandler)},
		Fleet: &simFleet{sim: s}, Ledger: book, Metrics: noMetrics{}, Parser: intent.NewCache(intent.Options{}),
		Main: "main", GitPoll: time.Hour, Poll: time.Hour,
		Server: plan.Server{Expiry: delivery.Duration(time.Hour)}, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Requests: view.NewRequests(book, slog.New(slog.DiscardHandler))}
	return r.Init(), &read
}

// noForge has no pull request and keeps nothing.
type noForge struct{}

func (noForge) Address() string                                                { return "" }
func (noForge) Statuses(context.Context, string) ([]delivery.Status, error)    { return nil, nil }
func (noForge) CommentBody(context.Context, int, string) (string, bool, error) { return "", false, nil }
func (noForge) PullRequests(context.Context) ([]delivery.PullRequest, error)   { return nil, nil }
func (noForge) Ended(_ context.Context, pr delivery.PullRequest) (delivery.PullRequest, bool, error) {
	return pr, true, nil
}
func (noForge) SetStatus(context.Context, string, delivery.Check) error             { return nil }
func (noForge) Comment(context.Context, int, string, string) error                  { return nil }
func (noForge) Commands(context.Context, int) ([]delivery.Comment, error)           { return nil, nil }
func (noForge) Teams(context.Context, string) (map[string]bool, error)              { return nil, nil }
func (noForge) Ask(context.Context, int, string) ([]delivery.Consent, error)        { return nil, nil }
func (noForge) Owner(context.Context, string) (string, error)                       { return "", nil }
func (noForge) Check(context.Context) (delivery.Setup, error)                       { return delivery.Setup{}, nil }
func (noForge) Permission(context.Context, string) (delivery.Permission, error)     { return "", nil }
func (noForge) OpenPR(context.Context, string, string, string, string) (int, error) { return 0, nil }
func (noForge) Knows(context.Context, int, string) (bool, error)                    { return true, nil }

// byTurns measures two things by turns and returns the medians.
func byTurns(before, ours, theirs func()) (a, b time.Duration) {
	var as, bs []time.Duration
	measure := func(f func()) time.Duration {
		start := time.Now()
		f()
		return time.Since(start)
	}
	for i := range benchRounds {
		before()
		if i%2 == 0 {
			as, bs = append(as, measure(ours)), append(bs, measure(theirs))
		} else {
			bs, as = append(bs, measure(theirs)), append(as, measure(ours))
		}
	}
	slices.Sort(as)
	slices.Sort(bs)
	return as[len(as)/2], bs[len(bs)/2]
}

func reportTurns(b *testing.B, ours, theirs time.Duration) {
	b.ReportMetric(ours.Seconds()*1e3, "aob-ms")
	b.ReportMetric(theirs.Seconds()*1e3, "git-ms")
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "aob/git")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkTurnNothingNew is a turn with nothing changed and no run active,
// beside git ls-remote.
func BenchmarkTurnNothingNew(b *testing.B) {
	dir := benchRepo(b, benchModels, benchCommits)
	url := serveGit(b, filepath.Dir(dir))
	r, read := benchLoop(b, url)
	for range 3 {
		r.look(b.Context())
		if _, err := r.Reconcile(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	var ours, theirs time.Duration
	var most int64
	for b.Loop() {
		ours, theirs = byTurns(func() {}, func() {
			before := read.Load()
			r.look(b.Context())
			if _, changed, err := r.observe(b.Context()); err != nil || changed {
				b.Fatal("changed", err)
			}
			most = max(most, read.Load()-before)
		}, func() { benchGit(b, nil, "ls-remote", url) })
	}
	reportTurns(b, ours, theirs)
	b.ReportMetric(float64(most), "bytes-read")
}

// BenchmarkTurnOnePush is a push of one file to its new plan, beside git fetch
// alone.
func BenchmarkTurnOnePush(b *testing.B) {
	dir := benchRepo(b, benchModels, benchCommits)
	url := serveGit(b, filepath.Dir(dir))
	r, _ := benchLoop(b, url)
	for range 3 {
		r.look(b.Context())
		if _, err := r.Reconcile(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	clone := filepath.Join(b.TempDir(), "clone")
	benchGit(b, nil, "clone", "-q", "--mirror", url, clone)
	rev := benchCommits
	var ours, theirs time.Duration
	for b.Loop() {
		ours, theirs = byTurns(func() {
			rev++
			i := rev * 7 % benchModels
			text := benchModel(i, rev)
			script := fmt.Sprintf("commit refs/heads/main\ncommitter A <a@example.com> %d +0000\ndata 10\nrevision "+
				"\nfrom refs/heads/main^0\nM 100644 inline models/m%03d.yaml\ndata %d\n%s\n", 1_700_000_000+60*rev, i,
				len(text), text)
			benchGit(b, strings.NewReader(script), "-C", dir, "fast-import", "--quiet")
		}, func() {
			r.look(b.Context())
			w, changed, err := r.observe(b.Context())
			if err != nil || !changed {
				b.Fatal("unchanged", err)
			}
			if p := r.plan(b.Context(), &w); len(p.Main.Models) != benchModels {
				b.Fatal("no plan", len(p.Main.Models), w.Main.Complaints)
			}
		}, func() { benchGit(b, nil, "-C", clone, "fetch", "-q") })
	}
	reportTurns(b, ours, theirs)
}

// BenchmarkColdStart is from an empty folder to the first plan, beside git clone.
func BenchmarkColdStart(b *testing.B) {
	dir := benchRepo(b, benchModels, benchCommits)
	url := serveGit(b, filepath.Dir(dir))
	var ours, theirs time.Duration
	for b.Loop() {
		var r *Reconciler
		n := 0
		ours, theirs = byTurns(func() {
			r, _ = benchLoop(b, url)
			n++
		}, func() {
			r.look(b.Context())
			w, _, err := r.observe(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if p := r.plan(b.Context(), &w); len(p.Main.Models) != benchModels {
				b.Fatal("no plan")
			}
		}, func() { benchGit(b, nil, "clone", "-q", "--mirror", url, filepath.Join(b.TempDir(), fmt.Sprint(n))) })
	}
	reportTurns(b, ours, theirs)
}

// benchPulls is how many pull requests are open in BenchmarkTurnManyPulls.
const benchPulls = 3000

// manyPulls is a forge with many pull requests that ask for nothing.
type manyPulls struct {
	noForge
	prs []delivery.PullRequest
}

func (f manyPulls) PullRequests(context.Context) ([]delivery.PullRequest, error) { return f.prs, nil }
func (manyPulls) Permission(context.Context, string) (delivery.Permission, error) {
	return delivery.PermissionWrite, nil
}

// BenchmarkTurnManyPulls is a whole turn with 3,000 open pull requests, none of which has changed: what each look at a
// running training costs. first-ms is from nothing until all of their statuses and comments were sent.
func BenchmarkTurnManyPulls(b *testing.B) {
	dir := benchRepo(b, 1, 100)
	var script strings.Builder
	for i := range benchPulls {
		text := fmt.Sprintf("change %d\n", i)
		fmt.Fprintf(&script, "commit refs/heads/p%d\ncommitter B <b@example.com> %d +0000\ndata %d\n%sfrom "+
			"refs/heads/main^0\n"+
			"M 100644 inline README.md\ndata %d\n%s\n", i, 1_800_000_000+i, len(text), text, len(text), text)
	}
	benchGit(b, strings.NewReader(script.String()), "-C", dir, "fast-import", "--quiet")
	url := serveGit(b, filepath.Dir(dir))
	r, _ := benchLoop(b, url)
	forge := manyPulls{}
	out, err := exec.Command("git", "-C", dir, "for-each-ref", "--format=%(refname:short) %(objectname)",
		"refs/heads/p*").Output()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		branch, commit, _ := strings.Cut(strings.TrimSpace(line), " ")
		forge.prs = append(forge.prs, delivery.PullRequest{Number: len(forge.prs) + 1, HeadRef: branch, Head: commit,
			Base:   "main",
			Author: "ben"})
	}
	r.useForge(forge)
	turn := func() {
		r.Wake()
		if _, err := r.Reconcile(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		start := time.Now()
		for n := 0; n < 3; {
			r.look(b.Context())
			turn()
			if jobs, _ := r.board.Oldest(); jobs == 0 && r.turn.Why() == "" {
				n++
			}
			r.send(b.Context())
		}
		b.ReportMetric(time.Since(start).Seconds()*1e3, "first-ms")
		var took []time.Duration
		for range benchRounds {
			start := time.Now()
			turn()
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		b.ReportMetric(took[len(took)/2].Seconds()*1e3, "turn-ms")
		b.ReportMetric(0, "ns/op")
	}
}
