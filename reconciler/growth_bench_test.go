package reconciler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkGrowth shows how the cost of a turn grows with the number of models, open pull requests and releases. The
// world is the simulated one: the repository, the forge and the evidence are in memory, so the figures are those of the
// loop and of its plans alone. Run it with -benchtime 1x. Each figure is the median of 9, in milliseconds:
//
//	noop-ms   a turn when nothing has changed
//	turn-ms   a turn that observes everything, as each look at a running training does
//	pull-ms   a push to a pull request, until its new statuses are in the queue
//	main-ms   a push to main, likewise
func BenchmarkGrowth(b *testing.B) {
	for _, size := range []struct{ models, pulls, rounds int }{
		{10, 1, 1}, {100, 1, 1}, {100, 10, 1}, {100, 100, 1}, {100, 100, 5}, {200, 100, 1},
		{500, 300, 2}, {2000, 1000, 5},
	} {
		b.Run(fmt.Sprintf("models=%d/pulls=%d/releases=%d", size.models, size.pulls, size.models*size.rounds),
			func(b *testing.B) {
				s := grown(b, size.models, size.pulls, size.rounds)
				for b.Loop() {
					benchGrown(b, s)
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

// grown is a world of models that have each been released some times, with open pull requests: seven of ten change a
// model to a spec that was trained before, two change the README, and one pauses a fleet.
func grown(t testing.TB, models, pulls, rounds int) *sim {
	s := newSim(t)
	s.large = true
	files := map[string]string{}
	for i := range models {
		name := grownName(i)
		files["gates/g"+name+".yaml"] = gateFile("g"+name, name, 0.3)
		if i%10 == 0 {
			files["fleets/f"+name+".yaml"] = fleet("f"+name, name, "")
			s.fleet.add("f"+name, "d"+name)
		}
	}
	s.repo.commit("main", "", s.now, files)
	for round := range rounds + 1 { // the last is not merged: its content is known
		branch, change := fmt.Sprint("round", round), map[string]string{}
		s.quality[100+round] = 0.7
		for i := range models {
			change["models/"+grownName(i)+".yaml"] = grownModel(i, 100+round)
		}
		if round == rounds && pulls == 1 {
			break
		}
		s.change(branch, "dev", change)
		s.settle()
		if round == rounds {
			delete(s.repo.refs, "refs/heads/"+branch)
			continue
		}
		s.merge(branch)
		s.settle()
	}
	for i := range pulls {
		m, change := i*7%models, map[string]string{}
		switch {
		case i%10 < 7:
			change["models/"+grownName(m)+".yaml"] = grownModel(m, 100+rounds)
		case i%10 < 9:
			change["README.md"] = fmt.Sprint("change ", i)
		default:
			m -= m % 10
			change["fleets/f"+grownName(m)+".yaml"] = fleet("f"+grownName(m), grownName(m), "paused: true\n")
		}
		s.change(fmt.Sprint("p", i), "dev", change)
	}
	s.settle()
	return s
}

func benchGrown(b *testing.B, s *sim) {
	pushes := 0
	median := func(name string, before, do func()) {
		var took []time.Duration
		for range 9 {
			before()
			start := time.Now()
			do()
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1e3, name)
	}
	turn := func() {
		if _, err := s.loop.Reconcile(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	settled := func() {
		s.settle()
		s.now = s.now.Add(time.Second)
		s.loop.look(b.Context())
	}
	median("turn-ms", func() { settled(); s.loop.turn.Soon("a run is running") }, turn)
	median("noop-ms", func() { settled(); turn() }, turn)
	median("pull-ms", func() {
		settled()
		pushes++
		s.repo.commit("p0", s.head("p0"), s.now, map[string]string{"README.md": fmt.Sprint(pushes)})
		s.now = s.now.Add(time.Second)
		s.loop.look(b.Context())
	}, turn)
	median("main-ms", func() {
		settled()
		pushes++
		s.pushMain(map[string]string{"gates/g" + grownName(1) + ".yaml": fmt.Sprintf("# %d\n", pushes) +
			gateFile("g"+grownName(1), grownName(1), 0.3)})
		s.now = s.now.Add(time.Second)
		s.loop.look(b.Context())
	}, turn)
}
