package plan

import (
	"strings"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

var moneyAt = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// A bid is one training that costs money, and what is known when it may start.
type bid struct {
	w       World
	p       Proposal
	machine delivery.Machine
	seeds   []int64
	images  int
}

// usual is a training by somebody with write permission: 8 hours at $1.258 on demand, so at most $11.
func usual() bid {
	return bid{
		w: World{At: moneyAt, Prices: map[string]delivery.Price{"g5.xlarge": {Region: "eu-central-1",
			Instance: "g5.xlarge", OnDemand: 1_258_000, Spot: 650_000, At: moneyAt, Source: "AWS"}},
			Server: Server{Budget: Budget{Region: "eu-central-1", Types: []string{"g5.xlarge"},
				Day: 50 * delivery.Dollar, Month: 500 * delivery.Dollar}},
			Runs: map[delivery.Digest]delivery.RunState{}},
		p: Proposal{PullRequest: delivery.PullRequest{Number: 7, Author: "dev"},
			Permission: delivery.PermissionWrite},
		machine: delivery.Machine{Terraform: "train-aws-ec2", Instance: "g5.xlarge", Spot: "prefer",
			Limit: delivery.Duration(8 * time.Hour)},
		seeds: []int64{7}, images: 1000,
	}
}

var moneyKey = delivery.Sum([]byte("training"))

// ask asks for the start of the training.
func (b bid) ask() (m *maker, stage Stage) {
	mdl := delivery.Model{Name: "shapes", Train: delivery.Train{With: "rfdetr@1", Architecture: "small",
		Resolution: 512, Epochs: 60, Seeds: b.seeds, Machine: b.machine}}
	m = &maker{w: b.w, queue: newQueue(b.w, false), trains: newQueue(b.w, true), needed: map[delivery.Digest]bool{},
		needers: map[delivery.Digest][]int{}, planned: map[string]bool{}, runs: map[int][]delivery.Digest{},
		approvalCommands: map[int][]string{}, costs: map[int]map[string]delivery.Fact{}}
	r := &progress{ModelReport: ModelReport{Model: "shapes"}, model: mdl, proposal: b.p,
		data: delivery.DataResult{Images: map[string]int{"train": b.images}}}
	run := m.paying(r, m.runner(b.p, "approval", "note"), "approval")
	_, stage = run(delivery.RunSpec{Key: moneyKey, Kind: delivery.RunTrain, Train: &delivery.TrainRun{
		Training: delivery.Sum([]byte("data")), Machine: b.machine.Terraform, Spec: delivery.Spec{Train: mdl.Train}}})
	return m, stage
}

// spent is what another run has cost.
func spent(cost, ceiling delivery.Money, phase delivery.RunPhase, at time.Time) delivery.Spend {
	return delivery.Spend{Run: delivery.DigestOf("run", at), Cost: cost, Phase: phase, Started: at,
		Quote: delivery.Quote{Ceiling: ceiling}}
}

func TestWhatMayCostMoney(t *testing.T) {
	const most = 11 * delivery.Dollar
	given := func(b *bid) { b.p.Approvals = []string{GoCode("approval", most)} }
	for _, c := range []struct {
		name   string
		change func(*bid)
		starts bool
		want   delivery.Code
	}{
		{"without a go", func(*bid) {}, false, code.CostQuote},
		{"with a go", given, true, code.RunStarting},
		{"with a go for the checks alone", func(b *bid) { b.p.Approvals = []string{"approval"} }, false,
			code.CostQuote},
		{"with a go for a lower ceiling", func(b *bid) {
			b.p.Approvals = []string{GoCode("approval", 10*delivery.Dollar)}
		}, false, code.CostQuote},
		{"with a go for another model", func(b *bid) { b.p.Approvals = []string{GoCode("other", most)} }, false,
			code.CostQuote},
		{"cheap enough for autoGo", func(b *bid) { b.w.Server.Budget.AutoGo = most }, true, code.RunStarting},
		{"a cent above autoGo", func(b *bid) { b.w.Server.Budget.AutoGo = most - 1 }, false, code.CostQuote},
		{"cheap, and by a stranger", func(b *bid) {
			b.w.Server.Budget.AutoGo, b.p.Permission = most, delivery.PermissionRead
		}, false, code.CostQuote},
		{"by a stranger, with a go", func(b *bid) { given(b); b.p.Permission = delivery.PermissionRead }, true,
			code.RunStarting},
		{"without a price", func(b *bid) { given(b); b.w.Prices = nil }, false, code.CostUnknown},
		{"above maxCost", func(b *bid) {
			b.machine.MaxCost = 50_000
			b.p.Approvals = []string{GoCode("approval", 50_000)}
		}, false, code.CostOverMax},
		{"below maxCost", func(b *bid) {
			b.machine.MaxCost = 4 * delivery.Dollar
			b.p.Approvals = []string{GoCode("approval", 4*delivery.Dollar)}
		}, true, code.RunStarting},
		{"a go for maxCost, which another push has raised", func(b *bid) {
			b.machine.MaxCost = 5 * delivery.Dollar
			b.p.Approvals = []string{GoCode("approval", 4*delivery.Dollar)}
		}, false, code.CostQuote},
		{"above the day's ceiling", func(b *bid) {
			given(b)
			b.w.Spent = []delivery.Spend{spent(40*delivery.Dollar, 0, delivery.RunDone, moneyAt.Add(-time.Hour))}
		}, false, code.CostOverDay},
		{"after a day that cost much", func(b *bid) {
			given(b)
			b.w.Spent = []delivery.Spend{spent(40*delivery.Dollar, 0, delivery.RunDone, moneyAt.Add(-13*time.Hour))}
		}, true, code.RunStarting},
		{"beside one that may still cost much", func(b *bid) {
			given(b)
			b.w.Spent = []delivery.Spend{spent(delivery.Dollar, 45*delivery.Dollar, delivery.RunRunning,
				moneyAt.Add(-30*time.Hour))}
		}, false, code.CostOverDay},
		{"above the month's ceiling", func(b *bid) {
			given(b)
			b.w.Spent = []delivery.Spend{spent(495*delivery.Dollar, 0, delivery.RunDone, moneyAt.AddDate(0, 0, -20))}
		}, false, code.CostOverMonth},
		{"after a month that cost much", func(b *bid) {
			given(b)
			b.w.Spent = []delivery.Spend{spent(495*delivery.Dollar, 0, delivery.RunDone, moneyAt.AddDate(0, 0, -30))}
		}, true, code.RunStarting},
		{"while the ledger cannot be read", func(b *bid) { given(b); b.w.SpentUnknown = true }, false, code.CostLedger},
		{"without a budget", func(b *bid) { given(b); b.w.Server.Budget.Day, b.w.Server.Budget.Month = 0, 0 }, false,
			code.CostOverMonth},
		{"on a server without an account", func(b *bid) { given(b); b.w.Server.Budget = Budget{} }, false,
			code.CostNoAccount},
		{"on an instance that the server does not start", func(b *bid) { given(b); b.machine.Instance = "p5.48xlarge" },
			false, code.CostNotListed},
		{"that goes on after an interruption", func(b *bid) {
			given(b)
			b.w.Runs[moneyKey] = delivery.RunState{Phase: delivery.RunDied, Attempt: 1}
		}, true, code.RunRestarting},
		{"on this machine", func(b *bid) { b.machine = delivery.Machine{Terraform: "train-local"} }, true,
			code.RunStarting},
	} {
		b := usual()
		c.change(&b)
		m, stage := b.ask()
		if starts := len(m.plan.Steps) == 1; starts != c.starts || !stage.Fact.Has(c.want) {
			t.Errorf("%s: starts %t: %s; want %t and %s", c.name, starts, stage.Fact, c.starts, c.want)
			continue
		}
		if !m.needed[moneyKey] {
			t.Errorf("%s: it is not needed, so that it would be ended", c.name)
		}
		if !c.starts || !b.machine.Paid() {
			continue
		}
		q := m.plan.Steps[0].(StartRun).Spec.Quote
		if q == nil || q.Model != "shapes" || q.Pull != 7 || q.By != "dev" || q.PerHour != 1_258_000 || q.Low > q.High {
			t.Errorf("%s: the quote is %+v", c.name, q)
		}
	}
}

// Nothing but a pull request's own runner starts what costs money: not experiments, and not main.
func TestNothingElseCostsMoney(t *testing.T) {
	b := usual()
	m, _ := b.ask()
	_, stage := m.run(delivery.RunSpec{Key: moneyKey, Kind: delivery.RunTrain, Train: &delivery.TrainRun{
		Machine: "train-aws-ec2"}}, Proposal{Permission: delivery.PermissionWrite}, "")
	if len(m.plan.Steps) > 0 || stage.State != delivery.CheckFailure || !stage.Fact.Has(code.CostNoQuote) {
		t.Errorf("%s, steps %v", stage.Fact, m.plan.Steps)
	}
}

// Two trainings of one turn together stay below the day's ceiling.
func TestOneTurnAgreesToOneCeiling(t *testing.T) {
	b := usual()
	b.w.Server.Budget.AutoGo, b.w.Server.Budget.Day = 11*delivery.Dollar, 20*delivery.Dollar
	m, _ := b.ask()
	if m.agreed != 11*delivery.Dollar {
		t.Errorf("agreed to %s", m.agreed)
	}
	if why := m.overBudget(delivery.Quote{Ceiling: 9 * delivery.Dollar}, 0); !why.IsZero() {
		t.Errorf("$9 more: %s", why)
	}
	if why := m.overBudget(delivery.Quote{Ceiling: 10 * delivery.Dollar}, 0); !why.Has(code.CostOverDay) {
		t.Errorf("$10 more: %s", why)
	}
}

func TestHowLongTrainingsLast(t *testing.T) {
	past := func(epochs int, worked time.Duration) delivery.RunState {
		return delivery.RunState{Phase: delivery.RunDone, Worked: delivery.Duration(worked), Spec: delivery.RunSpec{
			Key: delivery.DigestOf("past", epochs), Quote: &delivery.Quote{Instance: "g5.xlarge"},
			Train: &delivery.TrainRun{Training: delivery.Sum([]byte("data")), Spec: delivery.Spec{Train: delivery.Train{
				With: "rfdetr@1", Architecture: "small", Resolution: 512, Epochs: epochs}}}}}
	}
	for _, c := range []struct {
		name        string
		change      func(*bid)
		basis       string
		short, long time.Duration
	}{
		{"epochs times images", func(*bid) {}, delivery.BasisImages, 31 * time.Minute, 131 * time.Minute},
		{"no images known", func(b *bid) { b.images = 0 }, delivery.BasisLimit, 0, 8 * time.Hour},
		{"a limit", func(b *bid) { b.machine.Limit = delivery.Duration(time.Hour) }, delivery.BasisImages,
			31 * time.Minute, time.Hour},
		{"earlier trainings", func(b *bid) {
			for _, r := range []delivery.RunState{past(60, time.Hour), past(30, time.Hour)} {
				b.w.Runs[r.Spec.Key] = r
			}
		}, delivery.BasisHistory, 54 * time.Minute, 150 * time.Minute},
		{"on another instance", func(b *bid) {
			r := past(60, time.Hour)
			r.Spec.Quote = &delivery.Quote{Instance: "p5.48xlarge"}
			b.w.Runs[r.Spec.Key] = r
		}, delivery.BasisImages, 31 * time.Minute, 131 * time.Minute},
	} {
		b := usual()
		b.w.Server.Budget.AutoGo = 100 * delivery.Dollar
		c.change(&b)
		m, stage := b.ask()
		if len(m.plan.Steps) != 1 {
			t.Errorf("%s: %s", c.name, stage.Fact)
			continue
		}
		q := m.plan.Steps[0].(StartRun).Spec.Quote
		if q.Basis != c.basis || time.Duration(q.Shortest) != c.short || time.Duration(q.Longest) != c.long {
			t.Errorf("%s: %s to %s by %s, want %s to %s by %s", c.name, q.Shortest, q.Longest, q.Basis, c.short, c.long,
				c.basis)
		}
		if want := delivery.Money(650_000).For(c.short); q.Low != want {
			t.Errorf("%s: from %s, want %s", c.name, q.Low, want)
		}
		if want := delivery.Money(1_258_000).For(c.long); q.High != want {
			t.Errorf("%s: to %s, want %s", c.name, q.High, want)
		}
	}
}

// The status of a training that goes on has its cost and its ceiling.
func TestStatusHasTheCost(t *testing.T) {
	r := delivery.RunState{Phase: delivery.RunRunning, Worked: delivery.Duration(time.Hour),
		WorkingSince: moneyAt.Add(-time.Hour), Spec: delivery.RunSpec{Key: moneyKey, Kind: delivery.RunTrain,
			Quote: &delivery.Quote{PerHour: 1_500_000, Ceiling: 8 * delivery.Dollar}}}
	if f := runs(r, moneyAt); f.Cost != 3*delivery.Dollar || f.Ceiling != 8*delivery.Dollar {
		t.Errorf("%s", f)
	}
	if !strings.Contains(code.Sentences[code.RunTraining], "{cost} of {ceiling}") {
		t.Error("the sentence of a training has no cost")
	}
}
