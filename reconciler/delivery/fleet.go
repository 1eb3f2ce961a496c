package delivery

import "cmp"

// A Fleet is a file fleets/NAME.yaml: which devices run which model, and how a new release is rolled out to them.
type Fleet struct {
	APIVersion string             `json:"apiVersion" check:"oneof=aob/v1"`
	Kind       string             `json:"kind" check:"oneof=Fleet"`
	Name       string             `json:"name" check:"name"`
	Runs       string             `json:"runs" check:"name"`
	Version    int                `json:"version,omitempty" check:"optional,min=1,max=1000000"`
	Variant    string             `json:"variant" default:"fp32" check:"oneof=fp32|fp16|int8"`
	Target     string             `json:"target" default:"cloud" check:"oneof=cloud|jetson"`
	Profiles   map[string]Profile `json:"profiles,omitempty" check:"optional,nonempty,keys=name"`
	Match      map[string]string  `json:"match,omitempty" check:"optional,nonempty,keys=label,label"`
	Bench      *BenchDevices      `json:"bench,omitempty" check:"optional"`
	After      *After             `json:"after,omitempty" check:"optional"`
	Shadow     map[string]any     `json:"shadow,omitempty" check:"optional,later"`
	Waves      []Wave             `json:"waves" default:"[1, 100%]" check:"nonempty"`
	Soak       Duration           `json:"soak" default:"30m" check:"min=0s,max=720h"`
	Advance    string             `json:"advance" default:"all-healthy" check:"oneof=all-healthy,later=auto"`
	Budget     Budget             `json:"budget"`
	Window     *Window            `json:"window,omitempty" check:"optional"`
	Paused     bool               `json:"paused" default:"false"`
	Mine       map[string]any     `json:"mine,omitempty" check:"optional,later"`
	Drift      map[string]any     `json:"drift,omitempty" check:"optional,later"`
}

// Ships returns the variant of the model that the fleet runs.
func (f Fleet) Ships() string { return cmp.Or(f.Variant, FP32) }

// A Profile is a kind of hardware in a fleet.
type Profile struct {
	Board string `json:"board" check:"name"`
}

// After makes a fleet wait for another.
type After struct {
	Fleet   string   `json:"fleet" check:"name"`
	Healthy Duration `json:"healthy" default:"1h" check:"min=0s,max=720h"`
}

// Budget says what a release may do to a device before it counts as failed.
type Budget struct {
	Failures    *Failures `json:"failures,omitempty" check:"optional"`
	LatencyP95  Duration  `json:"latency.p95,omitempty" check:"optional,later"`
	Temperature string    `json:"temperature,omitempty" check:"optional,later"`
}

// Failures are the failure rates of an acceptable and of an unacceptable release.
type Failures struct {
	Tolerable    Share `json:"tolerable" default:"0%"`
	Unacceptable Share `json:"unacceptable" check:"optional,later"`
}

// A Window says when a rollout may advance. From and To are local times in Zone; a window may cross midnight.
type Window struct {
	Days []string `json:"days" default:"[mon, tue, wed, thu, fri, sat, sun]" check:"nonempty,weekday"`
	From string   `json:"from" check:"time"`
	To   string   `json:"to" check:"time"`
	Zone string   `json:"zone" default:"UTC" check:"zone"`
}
