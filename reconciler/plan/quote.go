package plan

// This file decides what may cost money: what a training may cost, who must agree, and what the day and the month
// allow. What is not known is not cheap: without a price nothing starts.

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A Budget is what the server's configuration allows to spend.
type Budget struct {
	Region string         // in which machines are made
	Types  []string       // of instances that may start; none: this server trains on its own machine alone
	AutoGo delivery.Money // a training with at most this ceiling starts without a go
	Day    delivery.Money // of a day in UTC; 0 allows nothing
	Month  delivery.Money
}

// What a training takes besides its epochs, and how many images of 512 pixels a second a GPU of one A10G or L4 trains
// on: a range that holds for no model in particular.
const (
	bootTime           = 6 * time.Minute
	slowest, fastest   = 8.0, 40.0
	pixelsOfSpeed      = 512
	shareLess, andMore = 0.9, 1.25 // of earlier trainings
)

// quote returns what one seed of a model may cost.
func (m *maker) quote(r *progress, spec delivery.RunSpec) (q delivery.Quote, why delivery.Fact) {
	t := r.model.Train
	machine := t.Machine
	switch types := m.w.Server.Budget.Types; {
	case len(types) == 0:
		return q, fact(code.CostNoAccount, values{Model: r.Model, By: machine.Terraform})
	case !slices.Contains(types, machine.Instance):
		return q, fact(code.CostNotListed, values{Model: r.Model, By: machine.Instance, Names: types})
	}
	price, ok := m.w.Prices[machine.Instance]
	if !ok {
		return q, fact(code.CostUnknown, values{By: machine.Instance, Text: m.w.NoPrice[machine.Instance]})
	}
	q = delivery.Quote{Model: r.Model, Pull: max(0, r.proposal.Number), By: r.proposal.Author, Region: price.Region,
		Instance: machine.Instance, Spot: machine.Spot != "" && machine.Spot != delivery.SpotNever, PriceAt: price.At,
		Source: price.Source}
	q.OnDemand = machine.Spot == delivery.SpotPrefer
	q.PerHour = price.PerHour(machine.Spot == delivery.SpotOnly)
	short, long, basis := m.lasts(r, spec)
	limit := time.Duration(machine.Limit)
	q.Shortest, q.Longest = delivery.Duration(min(short, limit).Round(time.Second)),
		delivery.Duration(min(long, limit).Round(time.Second))
	q.Basis = basis
	q.Low, q.High = price.PerHour(q.Spot).For(min(short, limit)), q.PerHour.For(min(long, limit))
	q.Ceiling = ceilingOf(r.model, price)
	return q, delivery.Fact{}
}

// ceilingOf returns what one seed of a model may cost at most: its share of maxCost, or what its limit of time costs on
// demand, in whole dollars, so that a spot price that moves asks nobody again.
func ceilingOf(mdl delivery.Model, price delivery.Price) delivery.Money {
	machine, seeds := mdl.Train.Machine, delivery.Money(max(1, len(mdl.Train.Seeds)))
	if machine.MaxCost > 0 {
		return machine.MaxCost / seeds
	}
	worst := price.OnDemand.For(time.Duration(machine.Limit))
	return (worst + delivery.Dollar - 1) / delivery.Dollar * delivery.Dollar
}

// lasts estimates how long a training takes: from trainings like it on such an instance, else from its epochs and
// images.
func (m *maker) lasts(r *progress, spec delivery.RunSpec) (short, long time.Duration, basis string) {
	t := r.model.Train
	for _, past := range m.w.Runs {
		p, q := past.Spec.Train, past.Spec.Quote
		if past.Phase != delivery.RunDone || p == nil || q == nil || q.Instance != t.Machine.Instance ||
			p.Training != spec.Train.Training || p.Spec.Train.With != t.With || p.Spec.Train.Epochs < 1 ||
			p.Spec.Train.Architecture != t.Architecture || p.Spec.Train.Resolution != t.Resolution {
			continue
		}
		took := time.Duration(float64(past.Worked) * float64(t.Epochs) / float64(p.Spec.Train.Epochs))
		if long = max(long, took); short == 0 || took < short {
			short = took
		}
	}
	if long > 0 {
		return time.Duration(float64(short) * shareLess), time.Duration(float64(long) * andMore),
			delivery.BasisHistory
	}
	images := float64(r.data.Images["train"]) * float64(t.Epochs)
	if images == 0 {
		return 0, time.Duration(t.Machine.Limit), delivery.BasisLimit
	}
	scale := max(1, float64(t.Resolution)/pixelsOfSpeed)
	seconds := func(speed float64) time.Duration {
		return bootTime + time.Duration(images*scale*scale/speed*float64(time.Second))
	}
	return seconds(fastest), seconds(slowest), delivery.BasisImages
}

// quoteFact describes a quote.
func quoteFact(q delivery.Quote) delivery.Fact {
	spot := ""
	if q.Spot {
		spot = " spot"
	}
	v := values{Model: q.Model, By: q.Instance + spot, Lasts: q.Longest, Cost: q.Low, CostHigh: q.High,
		Ceiling: q.Ceiling, Text: "price of " + q.Source}
	return fact(code.CostQuote, v)
}

// GoCode is what a comment must name to let a model's training start that costs money. It is bound to all that
// [ApprovalCode] covers and to the ceiling: a go for a lower one does not count.
func GoCode(approval string, ceiling delivery.Money) string {
	return delivery.DigestOf("go/money", []any{approval, ceiling}).Hex()[:32]
}

// paying returns a runner whose trainings on a machine that costs money start only with an agreed price. Other runs go
// to run. approval is the code of the model's other runs.
func (m *maker) paying(r *progress, run runner, approval string) runner {
	p, machine := r.proposal, r.model.Train.Machine
	if !machine.Paid() {
		return run
	}
	m.isLive() // prices and what others cost change
	return func(spec delivery.RunSpec) (delivery.RunState, Stage) {
		if spec.Train == nil {
			return run(spec)
		}
		state := m.w.Runs[spec.Key]
		switch state.Phase {
		case delivery.RunDone, delivery.RunFailed, delivery.RunRunning:
			return run(spec)
		}
		wait := func(s Stage) (delivery.RunState, Stage) {
			m.needs(spec.Key, p.Number)
			m.uses(spec.Key, p.Number)
			return state, s
		}
		q, why := m.quote(r, spec)
		if !why.IsZero() {
			return wait(pending(why))
		}
		quoted := quoteFact(q)
		if seeds := len(r.model.Train.Seeds); seeds > 1 {
			quoted.Counts = map[string]int{"seeds": seeds}
		}
		if q.High > q.Ceiling && q.Low > q.Ceiling {
			return wait(failed(fact(code.CostOverMax, values{Model: r.Model, Cost: q.Low, Ceiling: q.Ceiling})))
		}
		if why := m.overBudget(q, state.Spend(m.w.At).Cost); !why.IsZero() {
			return wait(pending(several(why, quoted)))
		}
		code := GoCode(approval, q.Ceiling)
		given := slices.Contains(p.Approvals, code)
		free := p.Permission == delivery.PermissionWrite && q.Ceiling <= m.w.Server.Budget.AutoGo
		if !given && !free {
			m.addCost(p.Number, code, quoted)
			return wait(pending(several(quoted, m.ask(p, code))))
		}
		if by := m.w.Goers[p.Number][code]; given && by != "" {
			q.By = by
		}
		spec.Quote, spec.Note = &q, fmt.Sprintf("%s, #%d", r.Model, p.Number)
		_, _ = wait(Stage{})
		before := len(m.plan.Steps)
		state, stage := m.enter(spec, p)
		if len(m.plan.Steps) > before {
			m.agreed += q.Ceiling
		}
		return state, stage
	}
}

// overBudget says why a training must wait for another day or month. had is what the run itself has cost before.
func (m *maker) overBudget(q delivery.Quote, had delivery.Money) delivery.Fact {
	day := m.w.At.UTC().Truncate(24 * time.Hour)
	month := time.Date(day.Year(), day.Month(), 1, 0, 0, 0, 0, time.UTC)
	spentDay, spentMonth := m.agreed, m.agreed
	seen := map[delivery.Digest]bool{}
	add := func(s delivery.Spend) {
		if seen[s.Run] || s.Run == "" {
			return
		}
		seen[s.Run] = true
		cost := s.Cost
		if s.Phase == delivery.RunRunning || s.Phase == delivery.RunDied { // it may use up what was agreed
			cost = max(cost, s.Quote.Ceiling)
		}
		if !s.Started.Before(day) || s.Phase == delivery.RunRunning {
			spentDay += cost
		}
		if !s.Started.Before(month) || s.Phase == delivery.RunRunning {
			spentMonth += cost
		}
	}
	for _, r := range m.w.Runs {
		add(r.Spend(m.w.At))
	}
	for _, s := range m.w.Spent {
		add(s)
	}
	b := m.w.Server.Budget
	if m.w.SpentUnknown {
		return fact(code.CostLedger, values{})
	}
	need := max(0, q.Ceiling-had)
	switch {
	case spentMonth+need > b.Month:
		next := month.AddDate(0, 1, 0)
		m.wake(next)
		return fact(code.CostOverMonth, values{Cost: spentMonth, Ceiling: b.Month, CostHigh: need, At: next})
	case spentDay+need > b.Day:
		next := day.AddDate(0, 0, 1)
		m.wake(next)
		return fact(code.CostOverDay, values{Cost: spentDay, Ceiling: b.Day, CostHigh: need, At: next})
	}
	return delivery.Fact{}
}

// ask records that a pull request waits for a comment with a code, and says so.
func (m *maker) ask(p Proposal, approval string) delivery.Fact {
	command := "/aob run " + approval
	m.effect(func(m *maker) {
		if !slices.Contains(m.approvalCommands[p.Number], command) {
			m.approvalCommands[p.Number] = append(m.approvalCommands[p.Number], command)
		}
	})
	switch {
	case m.w.Server.Socket:
		return fact(code.ApprovalBySocket, values{PRs: []int{p.Number}, Command: command})
	case len(p.Waits[approval]) > 0:
		return fact(code.ApprovalByReaction, values{})
	}
	return fact(code.ApprovalByComment, values{Command: command})
}

// Instances lists the instances whose prices the plan of a world needs.
func Instances(w World) (list []string) {
	for _, p := range w.Proposals {
		for _, name := range changedModels(p) {
			mdl := p.Merged.Models.Of(name)
			if i := mdl.Train.Machine.Instance; mdl.Train.Machine.Paid() && i != "" && !slices.Contains(list, i) {
				list = append(list, i)
			}
		}
	}
	slices.SortFunc(list, strings.Compare)
	return list
}
