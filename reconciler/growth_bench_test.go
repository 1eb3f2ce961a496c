package reconciler

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkGrowth shows how the cost of a turn grows with the number of models, open pull requests and releases, beside
// that of the smallest world. Git, the signed statements and the ledger are real; the forge and the runs are simulated.
// Run it with -benchtime 1x. The figures of turns are medians of 9 in milliseconds of CPU time, with what git takes:
//
//	noop-ms     a turn when nothing has changed, without git
//	pull-ms     a push to a pull request that takes a model back, until its new statuses are in the queue
//	main-ms     a push to main, until all pull requests are judged beside it
//	restart-s   the first turns of a new process, until all pull requests are judged; restart-cpu-s is CPU time
//	restart-MB  what the loop holds after it
func BenchmarkGrowth(b *testing.B) {
	first := map[string]float64{}
	for _, size := range []struct{ models, pulls, releases int }{
		{10, 1, 100}, {100, 100, 1000}, {500, 100, 1000}, {2000, 1000, 10_000},
	} {
		b.Run(fmt.Sprintf("models=%d/pulls=%d/releases=%d", size.models, size.pulls, size.releases),
			func(b *testing.B) {
				w := newLargeWorld(b, size.models, size.pulls, size.releases)
				for b.Loop() {
					benchGrown(b, w, func(name string, value float64) {
						b.ReportMetric(value, name)
						if first[name] == 0 {
							first[name] = value
						}
						if name != "noop-ms" { // it is too short
							b.ReportMetric(value/first[name], name+"-ratio")
						}
					})
				}
				b.ReportMetric(0, "ns/op")
			})
	}
}

// grownName is the name of a model.
func grownName(i int) string { return fmt.Sprintf("m%04d", i) }

// grownModel is a model whose dataset has its name, so that no two are trained alike.
func grownModel(i, epochs int) string {
	return strings.Replace(model(grownName(i), epochs), "dir: shapes", "dir: "+grownName(i), 1)
}

func benchGrown(b *testing.B, w *largeWorld, report func(name string, value float64)) {
	w.start()
	w.judged()
	w.settle()
	pushes := 0
	median := func(name string, before func(), do func() time.Duration) {
		var took []time.Duration
		for range 9 {
			before()
			took = append(took, do())
			w.settle()
		}
		slices.Sort(took)
		report(name, float64(took[len(took)/2].Microseconds())/1e3)
	}
	median("noop-ms", func() {}, func() time.Duration {
		start := time.Now()
		if _, err := w.sim.loop.Reconcile(b.Context()); err != nil {
			b.Fatal(err)
		}
		return time.Since(start)
	})
	median("pull-ms", func() {
		pushes++
		w.push("", "models/"+grownName(0)+".yaml", fmt.Sprintf("# %d\n%s", pushes, grownModel(0, 100+w.rounds-2)), "p0")
	}, w.judged)
	median("main-ms", func() {
		pushes++
		w.push("", "gates/g"+grownName(1)+".yaml", fmt.Sprintf("# %d\n%s", pushes,
			gateFile("g"+grownName(1), grownName(1), 0.3)), "main")
	}, w.judged)
	w.close()
	var before, after runtime.MemStats
	w.sim.loop, w.archive = nil, nil
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	w.start()
	took := w.judged()
	b.ReportMetric(time.Since(start).Seconds(), "restart-s")
	report("restart-cpu-s", took.Seconds())
	runtime.GC()
	runtime.ReadMemStats(&after)
	report("restart-MB", float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/1e6)
	w.close()
}

// BenchmarkTogether shows what 200 pull requests that arrive together cost beside the sum of each alone, and when a
// pull request that arrives while they are read gets its first status. Run it with -benchtime 1x.
func BenchmarkTogether(b *testing.B) {
	const pulls = 200
	w := newLargeWorld(b, 100, 1, 1000)
	for b.Loop() {
		w.start()
		w.judged()
		w.settle()
		arrive := func(name string, i int) {
			m := grownName(i % 100)
			w.push("main", "models/"+m+".yaml", fmt.Sprintf("# %s\n%s", name, grownModel(i%100, 100+w.rounds-1)), name)
			w.sim.forge.open(name, "dev")
		}
		var alone time.Duration
		for i := range pulls {
			arrive(fmt.Sprint("alone", i), i)
			alone += w.judged()
			w.settle()
		}
		for i := range pulls {
			delete(w.sim.repo.refs, fmt.Sprint("refs/heads/alone", i))
			benchGit(b, nil, "-C", w.dir+"/intent.git", "update-ref", "-d", fmt.Sprint("refs/heads/alone", i))
		}
		w.settle()
		for i := range pulls {
			arrive(fmt.Sprint("together", i), i)
		}
		together := w.turn() // it reads some of them
		arrive("last", 1)
		start := time.Now()
		for w.sim.forge.statuses[w.sim.repo.refs["refs/heads/last"]] == nil {
			together += w.turn()
		}
		b.ReportMetric(time.Since(start).Seconds(), "first-status-s")
		together += w.judged()
		b.ReportMetric(together.Seconds()/alone.Seconds(), "together/alone")
		b.ReportMetric(float64(alone.Milliseconds())/pulls, "alone-ms")
		w.close()
	}
	b.ReportMetric(0, "ns/op")
}
