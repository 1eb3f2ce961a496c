package coco_test

// This file tells by simulation whether intervals hold what they promise. A
// population of images with two detectors is made up, test sets are drawn from it,
// and each is compared as a real one is. What the truth is, the mean over many more
// test sets of that size says.
//
// make bench-intervals runs it at full length and prints the table of
// BENCHMARKS.md; CI runs a shorter one.

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

var full = flag.Bool("intervals", false, "simulate intervals at full length, and print what comes out")

// A population is images and what two models find on them.
type population struct {
	images  int
	groups  int // of images that are alike; 0 is none
	classes int
	skill   [2]float64 // of the models
	seed    uint64
}

// pool makes a population up. Every object has a difficulty, which its image, its
// class and its group share in, and which both models meet; each finds it and
// places its box by its skill and its luck.
func (p population) pool(t testing.TB) (*coco.Pool, []int) {
	r := rand.New(rand.NewPCG(p.seed, 1))
	truth := &coco.Truth{}
	var found [2][]coco.Detection
	for k := range p.classes {
		truth.Categories = append(truth.Categories, coco.Category{ID: int64(k + 1), Name: fmt.Sprintf("c%02d", k)})
	}
	groups := make([]int, p.images)
	shared := make([]float64, max(p.groups, 1))
	for i := range shared {
		shared[i] = 0.9 * r.NormFloat64()
	}
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	const cell = 100.0
	for i := range p.images {
		hard := 0.6 * r.NormFloat64()
		if p.groups > 0 {
			groups[i] = i * p.groups / p.images
			hard = 0.3*r.NormFloat64() + shared[groups[i]]
		}
		truth.Images = append(truth.Images, coco.Image{ID: int64(i + 1), Width: 2000, Height: 2000})
		place := 0
		next := func() coco.Box { // cells of a grid: objects do not overlap
			b := coco.Box{X: float64(place%20) * cell, Y: float64(place/20) * cell, W: 60, H: 60}
			place++
			return b
		}
		for k := range p.classes {
			often := 0.25 + 1.5/float64(k+1) // the first are frequent, the last rare
			for n := poisson(r, often); n > 0; n-- {
				box := next()
				truth.Annotations = append(truth.Annotations, coco.Annotation{ID: int64(len(truth.Annotations) + 1),
					Image: int64(i + 1), Category: int64(k + 1), Box: box, Area: box.W * box.H})
				d := hard + 0.2*float64(k%3) + 0.8*r.NormFloat64()
				for m := range found {
					ease := p.skill[m] - d + 0.5*r.NormFloat64()
					if r.Float64() > sigmoid(2*ease+1) {
						continue
					}
					iou := 0.4 + 0.6*sigmoid(ease+0.6*r.NormFloat64())
					shift := box.W * (1 - iou) / (1 + iou)
					found[m] = append(found[m], coco.Detection{Image: int64(i + 1), Category: int64(k + 1),
						Box:   coco.Box{X: box.X + shift, Y: box.Y, W: box.W, H: box.H},
						Score: sigmoid(ease + 0.7*r.NormFloat64())})
				}
			}
			for n := poisson(r, 0.4); n > 0; n-- { // what looks like an object
				box, look := next(), -0.8+hard*0.3+r.NormFloat64()
				for m := range found {
					if s := look - 0.5*p.skill[m] + 0.6*r.NormFloat64(); s > -1.5 {
						found[m] = append(found[m], coco.Detection{Image: int64(i + 1), Category: int64(k + 1),
							Box: box, Score: sigmoid(s)})
					}
				}
			}
		}
	}
	var matched [2]*coco.Matched
	for m := range found {
		var err error
		if matched[m], err = coco.Match(truth, found[m], coco.Params{}); err != nil {
			t.Fatal(err)
		}
	}
	return coco.NewPool(matched[0], matched[1]), groups
}

func poisson(r *rand.Rand, mean float64) int {
	limit, n, product := math.Exp(-mean), 0, r.Float64()
	for product > limit {
		n, product = n+1, product*r.Float64()
	}
	return n
}

// draw makes one test set: of images, or of groups of them.
func (p population) draw(r *rand.Rand, size int, groups []int) (images, of []int) {
	if p.groups == 0 {
		for range size {
			images = append(images, r.IntN(p.images))
		}
		return images, nil
	}
	each := p.images / p.groups
	for g := range size {
		from := r.IntN(p.groups) * each
		for i := range each {
			images, of = append(images, from+i), append(of, g)
		}
	}
	return images, of
}

// A tally is how often intervals held what they promise.
type tally struct {
	sets, held, above, below, passed int
	width                            float64
}

// An interval gives the two-sided bounds of a difference, and the one-sided lower
// one, all at 95 %.
type interval func(d coco.Difference, a, b coco.Estimate) (low, high, lower float64)

func ours(d coco.Difference, _, _ coco.Estimate) (low, high, lower float64) {
	low, high = d.Bounds(0.975)
	lower, _ = d.Bounds(0.95)
	return low, high, lower
}

// simulate draws test sets and compares them.
func simulate(t testing.TB, populations []population, size, sets, truthDraws, resamples int, how ...interval) []tally {
	tallies := make([]tally, len(how))
	for _, p := range populations {
		pool, groups := p.pool(t)
		truth := inChunks(truthDraws, p.seed, func(r *rand.Rand) float64 {
			images, of := p.draw(r, size, groups)
			a, b := pool.Draw(images, of, nil)
			return a.MeanAP() - b.MeanAP()
		})
		r := rand.New(rand.NewPCG(p.seed, 3))
		for range sets / len(populations) {
			images, of := p.draw(r, size, groups)
			a, b := pool.Draw(images, of, nil)
			c, err := coco.Compare(a, b, coco.CompareParams{Resamples: resamples, Seed: r.Uint64(),
				ByGroup: p.groups > 0})
			if err != nil {
				t.Fatal(err)
			}
			for i, h := range how {
				v := &tallies[i]
				low, high, lower := h(c.MAP, coco.MeanEstimate(a, c.TableA, c.Sampling),
					coco.MeanEstimate(b, c.TableB, c.Sampling))
				v.sets++
				v.width += high - low
				switch {
				case truth < low:
					v.below++
				case truth > high:
					v.above++
				default:
					v.held++
				}
				if lower >= truth { // of a drop of exactly that much the gate would be content
					v.passed++
				}
			}
		}
	}
	return tallies
}

// inChunks is the mean of many draws, by as many streams of numbers on any machine.
func inChunks(n int, seed uint64, draw func(*rand.Rand) float64) float64 {
	const chunks = 50
	sums := make([]float64, chunks)
	var wait sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for c := range chunks {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			r := rand.New(rand.NewPCG(seed, uint64(100+c)))
			for range n / chunks {
				sums[c] += draw(r)
			}
		})
	}
	wait.Wait()
	total := 0.0
	for _, s := range sums {
		total += s
	}
	return total / float64(n/chunks*chunks)
}

// pairs are pairs of models: equal ones, and some of which one is better.
func pairs(groups int) []population {
	base := population{images: 4000, classes: 5, groups: groups}
	var list []population
	for i, skill := range [][2]float64{{0.5, 0.5}, {0.4, 0.5}, {0.65, 0.5}, {0.2, 0.5}} {
		p := base
		p.skill, p.seed = skill, uint64(11+i)
		list = append(list, p)
	}
	return list
}

// equal lets a gate judge models of twenty classes that are equally good, and says
// how often it fails one.
func equal(t testing.TB, size, sets, resamples int) (failed int) {
	p := population{images: 4000, classes: 20, skill: [2]float64{0.5, 0.5}, seed: 21}
	pool, _ := p.pool(t)
	whole, each := 0.01, 0.05
	g := delivery.Gate{Checks: []delivery.GateCheck{
		{Metric: "mAP", MaxDrop: &whole, Against: "release", Confidence: 0.95, Support: 1, Unsure: "review"},
		{Metric: "AP", Classes: delivery.Selection{All: true}, MaxDrop: &each, Against: "release", Confidence: 0.95,
			Support: 1, Unsure: "review"},
	}}
	r := rand.New(rand.NewPCG(p.seed, 3))
	for range sets {
		images, _ := p.draw(r, size, nil)
		a, b := pool.Draw(images, nil, func(int) bool { return r.IntN(2) == 0 }) // which of the two is new, is luck
		c, err := coco.Compare(a, b, coco.CompareParams{Resamples: resamples, Seed: r.Uint64()})
		if err != nil {
			t.Fatal(err)
		}
		result := compared(c)
		g.Classes = result.Candidate.Classes
		v := gate.Judge("g", g, gate.Input{Candidate: gate.Measured{Scores: delivery.ScoreSet{Images: size}},
			Classes: g.Classes, Baseline: &gate.Measured{Scores: delivery.ScoreSet{Truths: result.Truths}},
			Compare: result})
		if v.Outcome == delivery.Fail {
			failed++
		}
	}
	return failed
}

// compared is a comparison as gates read it.
func compared(c *coco.Comparison) *delivery.CompareResult {
	result := &delivery.CompareResult{Images: c.Sampling.Images, Truths: map[string]int{},
		Candidate: c.TableA.Values(), Baseline: c.TableB.Values(), Difference: c.TableA.Minus(c.TableB)}
	for _, d := range c.Classes {
		result.Classes = append(result.Classes, d.Class)
		result.Truths[d.Class] = d.Truths
	}
	return result
}

// narrowed and unpaired are intervals that promise too much, and too little.
func narrowed(d coco.Difference, a, b coco.Estimate) (low, high, lower float64) {
	low, high, lower = ours(d, a, b)
	return d.Diff + 0.7*(low-d.Diff), d.Diff + 0.7*(high-d.Diff), d.Diff + 0.7*(lower-d.Diff)
}

func unpaired(d coco.Difference, a, b coco.Estimate) (low, high, lower float64) {
	se := math.Hypot(a.StdErr, b.StdErr)
	return d.Diff - 1.96*se, d.Diff + 1.96*se, d.Diff - 1.645*se
}

// within reports whether a count of n is one that a chance of p gives, but for one
// time in ten thousand.
func within(count, n int, low, high float64) bool {
	spread := func(p float64) float64 { return 3.9 * math.Sqrt(p*(1-p)*float64(n)) }
	return float64(count) >= low*float64(n)-spread(low) && float64(count) <= high*float64(n)+spread(high)
}

// The short version: fewer test sets, so that limits are wider by what chance does
// to so few. Broken intervals do not come through it.
func TestIntervalsHold(t *testing.T) {
	if testing.Short() && !*full {
		t.Skip("takes some seconds")
	}
	const sets = 500
	some := pairs(0)[1:3]
	for i := range some {
		some[i].classes, some[i].images = 2, 2000
	}
	v := simulate(t, some, 200, sets, 3000, 200, ours, narrowed, unpaired)
	if got := v[0]; !within(got.held, got.sets, .935, .965) || !within(got.passed, got.sets, 0, .06) {
		t.Errorf("of %d intervals %d hold the truth, and %d pass a drop of just too much", got.sets, got.held,
			got.passed)
	}
	for name, got := range map[string]tally{"narrowed": v[1], "unpaired": v[2]} {
		if within(got.held, got.sets, .935, .965) {
			t.Errorf("%s intervals, of which %d of %d hold the truth, are not noticed", name, got.held, got.sets)
		}
	}
}

// The full version, which is printed.
func TestIntervals(t *testing.T) {
	if !*full {
		t.Skip("make bench-intervals runs it")
	}
	const sets, draws, resamples = 2000, 50_000, 1000
	var out strings.Builder
	fmt.Fprintf(&out, "\n| test set | two-sided 95 %% holds | truth below, above | passes a drop of exactly maxDrop "+
		"| mean width |\n| --- | --- | --- | --- | --- |\n")
	row := func(name string, v tally) {
		n := float64(v.sets)
		fmt.Fprintf(&out, "| %s | %.1f %% | %.1f %%, %.1f %% | %.1f %% | %.4f |\n", name, 100*float64(v.held)/n,
			100*float64(v.below)/n, 100*float64(v.above)/n, 100*float64(v.passed)/n, v.width/n)
		fmt.Println(out.String())
	}
	for _, size := range []int{72, 200, 1000} {
		v := simulate(t, pairs(0), size, sets, draws, resamples, ours)
		row(fmt.Sprintf("%d images", size), v[0])
	}
	v := simulate(t, pairs(200), 60, sets, draws, resamples, ours)
	row("60 groups of 20 frames", v[0])
	for _, size := range []int{200, 1000} {
		fmt.Fprintf(&out, "\nof %d equal models of 20 classes on %d images the gate fails %.1f %%\n", sets/2, size,
			100*float64(equal(t, size, sets/2, resamples))/float64(sets/2))
	}
	t.Log(out.String())
}
