package delivery

// A Fleet is a file fleets/NAME.yaml: which devices run which model, and how a new
// release is rolled out to them.
type Fleet struct {
	APIVersion string             `json:"apiVersion" check:"oneof=aob/v1"`
	Kind       string             `json:"kind" check:"oneof=Fleet"`
	Name       string             `json:"name" check:"name"`
	Runs       string             `json:"runs" check:"name"`
	Version    int                `json:"version,omitempty" check:"optional,min=1,max=1000000"`
	Target     string             `json:"target" default:"cloud" check:"oneof=cloud|jetson"`
	Profiles   map[string]Profile `json:"profiles,omitempty" check:"optional,nonempty,keys=name"`
	Match      map[string]string  `json:"match,omitempty" check:"optional,nonempty,keys=label,label"`
	Bench      *Bench             `json:"bench,omitempty" check:"optional,later"`
	After      *After             `json:"after,omitempty" check:"optional"`
	Shadow     *Shadow            `json:"shadow,omitempty" check:"optional,later"`
	Waves      []Wave             `json:"waves" default:"[1, 100%]" check:"nonempty"`
	Soak       Duration           `json:"soak" default:"30m" check:"min=0s,max=720h"`
	Advance    string             `json:"advance" default:"all-healthy" check:"oneof=all-healthy,later=auto"`
	Budget     Budget             `json:"budget"`
	Window     *Window            `json:"window,omitempty" check:"optional"`
	Paused     bool               `json:"paused" default:"false"`
	Mine       map[string]any     `json:"mine,omitempty" check:"optional,later"`
	Drift      map[string]any     `json:"drift,omitempty" check:"optional,later"`
}

// Docs says what each key is for.
func (Fleet) Docs() map[string]string {
	return map[string]string{
		"apiVersion": "The version of this file's format.",
		"kind":       "What this file describes.",
		"name":       "The fleet's name, the same as the file's.",
		"runs":       "The model. The fleet follows its accepted release.",
		"version":    "Pins the fleet to this version of the model.",
		"target":     "What the devices are.",
		"profiles":   "Hardware profiles; the first wave takes at least one device of each.",
		"match":      "Labels that a device must have to be in the fleet.",
		"bench":      "Devices that candidates are measured on.",
		"after":      "A fleet that must run the release healthily before this one starts.",
		"shadow":     "Runs the candidate beside the release without showing its results.",
		"waves":      "The size of each step of a rollout: devices (1) or shares (25%), increasing; the last is 100%.",
		"soak":       "How long a wave must be healthy before the next.",
		"advance":    "What ends a wave: every device of it healthy after soak. Statistics (auto) come later.",
		"budget":     "What a release may do to a device.",
		"window":     "When a rollout may advance.",
		"paused":     "Whether rollouts stop where they are.",
		"mine":       "Which frames are sent back for labelling.",
		"drift":      "When a change of the scene is reported.",
	}
}

// A Profile is a kind of hardware in a fleet.
type Profile struct {
	Board string `json:"board" check:"name"`
}

// Docs says what each key is for.
func (Profile) Docs() map[string]string {
	return map[string]string{
		"board": "The board, as devices report it in their label board.",
	}
}

// Bench selects the devices that candidates are measured on.
type Bench struct {
	Match map[string]string `json:"match" check:"nonempty,keys=label,label"`
}

// Docs says what each key is for.
func (Bench) Docs() map[string]string {
	return map[string]string{
		"match": "Labels of those devices.",
	}
}

// After makes a fleet wait for another.
type After struct {
	Fleet   string   `json:"fleet" check:"name"`
	Healthy Duration `json:"healthy" default:"1h" check:"min=0s,max=720h"`
}

// Docs says what each key is for.
func (After) Docs() map[string]string {
	return map[string]string{
		"fleet":   "The fleet to wait for.",
		"healthy": "How long that fleet must have run the release, all of it healthy.",
	}
}

// Shadow runs a candidate beside the release without showing its results.
type Shadow struct {
	Traffic       Share    `json:"traffic" default:"10%"`
	Duration      Duration `json:"duration" default:"2h"`
	AgreementDrop Share    `json:"agreementDrop" default:"5%"`
}

// Docs says what each key is for.
func (Shadow) Docs() map[string]string {
	return map[string]string{
		"traffic":       "The share of frames.",
		"duration":      "For how long.",
		"agreementDrop": "How far agreement may fall below the eval set's.",
	}
}

// Budget says what a release may do to a device before it counts as failed.
type Budget struct {
	Failures    *Failures `json:"failures,omitempty" check:"optional"`
	LatencyP95  Duration  `json:"latency.p95,omitempty" check:"optional,later"`
	Temperature Celsius   `json:"temperature,omitempty" check:"optional,later"`
}

// Docs says what each key is for.
func (Budget) Docs() map[string]string {
	return map[string]string{
		"failures":    "The share of failed devices at which a rollout still continues; 0% by default.",
		"latency.p95": "The highest 95th percentile of the time for a frame.",
		"temperature": "The highest temperature of a device.",
	}
}

// Failures are the failure rates of an acceptable and of an unacceptable release.
type Failures struct {
	Tolerable    Share `json:"tolerable" default:"0%"`
	Unacceptable Share `json:"unacceptable" check:"optional,later"`
}

// Docs says what each key is for.
func (Failures) Docs() map[string]string {
	return map[string]string{
		"tolerable":    "A release with this rate of failed devices is good.",
		"unacceptable": "A release with this rate must be stopped, by statistics.",
	}
}

// A Window says when a rollout may advance. From and To are local times in Zone; a
// window may cross midnight.
type Window struct {
	Days []string `json:"days" default:"[mon, tue, wed, thu, fri, sat, sun]" check:"nonempty,weekday"`
	From string   `json:"from" check:"time"`
	To   string   `json:"to" check:"time"`
	Zone string   `json:"zone" default:"UTC" check:"zone"`
}

// Docs says what each key is for.
func (Window) Docs() map[string]string {
	return map[string]string{
		"days": "On which days it opens.",
		"from": "When it opens, as in \"01:00\".",
		"to":   "When it closes, as in \"05:00\".",
		"zone": "The time zone, as in Europe/Berlin.",
	}
}
