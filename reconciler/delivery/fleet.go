package delivery

// A Fleet says which devices run which model, and how they are brought to a
// new release: fleets/NAME.yaml.
type Fleet struct {
	APIVersion string             `json:"apiVersion" check:"oneof=aob/v1" doc:"The form of this file."`
	Kind       string             `json:"kind" check:"oneof=Fleet" doc:"What this file describes."`
	Name       string             `json:"name" check:"name" doc:"The fleet's name, the same as the file's."`
	Runs       string             `json:"runs" check:"name" doc:"The model. The fleet follows its accepted release."`
	Version    int                `json:"version,omitempty" check:"optional,min=1,max=1000000" doc:"Pins the fleet to this version of the model."`
	Target     string             `json:"target" default:"cloud" check:"oneof=cloud|jetson" doc:"What the devices are."`
	Profiles   map[string]Profile `json:"profiles,omitempty" check:"optional,nonempty,keys=name" doc:"Hardware profiles; the first wave takes at least one device of each."`
	Match      map[string]string  `json:"match,omitempty" check:"optional,nonempty,keys=label,label" doc:"Labels that a device must have to belong."`
	Bench      *Bench             `json:"bench,omitempty" check:"optional,later" doc:"Devices that candidates are measured on."`
	After      *After             `json:"after,omitempty" check:"optional" doc:"A fleet that must run the release healthily before this one starts."`
	Shadow     *Shadow            `json:"shadow,omitempty" check:"optional,later" doc:"Running the candidate beside the release, unseen."`
	Waves      []Wave             `json:"waves" default:"[1, 100%]" check:"nonempty" doc:"How far each step of a rollout goes: devices (1) or shares (25%), growing; the last is 100%."`
	Soak       Duration           `json:"soak" default:"30m" check:"min=0s,max=720h" doc:"How long a wave must be healthy before the next."`
	Advance    string             `json:"advance" default:"all-healthy" check:"oneof=all-healthy,later=auto" doc:"What ends a wave: every device of it healthy after soak. Statistics (auto) come later."`
	Budget     Budget             `json:"budget" doc:"What a release may do to a device."`
	Window     *Window            `json:"window,omitempty" check:"optional" doc:"When a rollout may move on."`
	Paused     bool               `json:"paused" default:"false" doc:"Whether rollouts hold where they are."`
	Mine       map[string]any     `json:"mine,omitempty" check:"optional,later" doc:"Which frames are sent back for labelling."`
	Drift      map[string]any     `json:"drift,omitempty" check:"optional,later" doc:"When a change of the scene is reported."`
}

// A Profile is one kind of hardware in a fleet.
type Profile struct {
	Board string `json:"board" check:"name" doc:"The board, as devices report it in their label board."`
}

// Bench picks the devices that candidates are measured on.
type Bench struct {
	Match map[string]string `json:"match" check:"nonempty,keys=label,label" doc:"Labels of those devices."`
}

// After makes a fleet wait for another.
type After struct {
	Fleet   string   `json:"fleet" check:"name" doc:"The fleet to wait for."`
	Healthy Duration `json:"healthy" default:"1h" check:"min=0s,max=720h" doc:"How long that fleet must have run the release, all of it healthy."`
}

// Shadow runs a candidate unseen.
type Shadow struct {
	Traffic       Share    `json:"traffic" default:"10%" doc:"Part of the frames."`
	Duration      Duration `json:"duration" default:"2h" doc:"For how long."`
	AgreementDrop Share    `json:"agreementDrop" default:"5%" doc:"How far agreement may fall below the eval set's."`
}

// Budget says what a release may do to a device before it counts as failed.
type Budget struct {
	Failures    *Failures `json:"failures,omitempty" check:"optional" doc:"Which share of failed devices a rollout stands; none is the default."`
	LatencyP95  Duration  `json:"latency.p95,omitempty" check:"optional,later" doc:"The slowest that 95 of 100 frames may be."`
	Temperature Celsius   `json:"temperature,omitempty" check:"optional,later" doc:"The hottest that a device may get."`
}

// Failures are the two failure rates that a rollout tells apart.
type Failures struct {
	Tolerable    Share `json:"tolerable" default:"0%" doc:"A release with this rate of failed devices is good."`
	Unacceptable Share `json:"unacceptable" check:"optional,later" doc:"A release with this rate must be stopped, by statistics."`
}

// A Window is when a rollout may move on. From and To are wall-clock times in
// Zone; a window may cross midnight.
type Window struct {
	Days []string `json:"days" default:"[mon, tue, wed, thu, fri, sat, sun]" check:"nonempty,oneof=mon|tue|wed|thu|fri|sat|sun" doc:"On which days it opens."`
	From string   `json:"from" check:"time" doc:"When it opens, as in \"01:00\"."`
	To   string   `json:"to" check:"time" doc:"When it closes, as in \"05:00\"."`
	Zone string   `json:"zone" default:"UTC" check:"zone" doc:"The time zone, as in Europe/Berlin."`
}
