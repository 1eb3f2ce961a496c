package delivery

import "time"

// A Quote is what a run may cost, and for whom it is made. It is stored with the run, and is no part of its key.
type Quote struct {
	Model    string `json:"model"`
	Pull     int    `json:"pull,omitempty"` // 0 for none
	By       string `json:"by"`             // who let it start: who gave the go, or the author of the pull request
	Instance string `json:"instance"`
	Region   string `json:"region"`
	Spot     bool   `json:"spot,omitempty"`
	// OnDemand: an instance on demand may take the place of a spot one, where there is no spot capacity.
	OnDemand bool `json:"onDemand,omitempty"`

	Shortest Duration  `json:"shortest"` // how long it takes by the estimate, and at most
	Longest  Duration  `json:"longest"`
	Basis    string    `json:"basis"`   // what the estimate is from: history, images or limit
	PerHour  Money     `json:"perHour"` // by which the cost so far is computed
	Low      Money     `json:"low"`
	High     Money     `json:"high"`
	Ceiling  Money     `json:"ceiling"` // what somebody agreed to
	PriceAt  time.Time `json:"priceAt"`
	Source   string    `json:"source"` // of the price
}

// The bases of an estimate.
const (
	BasisHistory = "history" // earlier trainings like it
	BasisImages  = "images"  // epochs times images, at a speed that holds for no model in particular
	BasisLimit   = "limit"   // nothing is known; it may take as long as it may
)

// A Spend is what a run has cost. It outlives the run's folder.
type Spend struct {
	Run     Digest    `json:"run"`
	Quote   Quote     `json:"quote"`
	Started time.Time `json:"started"`
	Took    Duration  `json:"took"`
	Cost    Money     `json:"cost"`
	Phase   RunPhase  `json:"phase"`
	// Wasted: it was ended before it had a result, or it failed.
	Wasted bool `json:"wasted,omitempty"`
}

// Busy returns how long a machine has worked for a run until now, over all attempts.
func (r RunState) Busy(now time.Time) time.Duration {
	busy := time.Duration(r.Worked)
	if !r.WorkingSince.IsZero() && now.After(r.WorkingSince) {
		busy += now.Sub(r.WorkingSince)
	}
	return busy
}

// Spend returns what a run has cost until now. It is zero for a run without a quote.
func (r RunState) Spend(now time.Time) (s Spend) {
	if r.Spec.Quote == nil {
		return s
	}
	busy := r.Busy(now).Round(time.Second)
	return Spend{Run: r.Spec.Key, Quote: *r.Spec.Quote, Started: r.Started, Took: Duration(busy), Phase: r.Phase,
		Cost: r.Spec.Quote.PerHour.For(busy), Wasted: r.Phase == RunStopped || r.Phase == RunFailed}
}

// Paid reports whether a machine costs money by the hour.
func (m Machine) Paid() bool { return PaidModule(m.Terraform) }

// PaidModule reports whether a machine of a Terraform module costs money by the hour.
func PaidModule(module string) bool { return module == TrainAWSEC2 }
