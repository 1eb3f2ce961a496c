package delivery

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Gate is a file gates/NAME.yaml: what a model must reach before it is released.
type Gate struct {
	APIVersion string      `json:"apiVersion" check:"oneof=aob/v1"`
	Kind       string      `json:"kind" check:"oneof=Gate"`
	Name       string      `json:"name" check:"name"`
	Covers     []string    `json:"covers" check:"nonempty,name"`
	Owners     []string    `json:"owners,omitempty" check:"optional,nonempty,label"`
	Evaluate   EvalSet     `json:"evaluate"`
	Classes    []string    `json:"classes" check:"nonempty,class"`
	Labels     Labels      `json:"labels,omitempty" check:"optional,nonempty,keys=class,nonempty,category"`
	Looks      int         `json:"looks,omitempty" check:"optional,min=1,max=100000"`
	Licence    []string    `json:"licence,omitempty" check:"optional,nonempty,licence"`
	Checks     []GateCheck `json:"checks" check:"nonempty"`

	sealed Digest // see Sealed
}

// Digest returns the digest of the gate without its owners, who do not affect measurements.
func (g Gate) Digest() Digest {
	if g.sealed != "" {
		return g.sealed
	}
	g.Owners = nil
	return DigestOf("gate", g)
}

// Sealed returns the gate with its digest stored; see [Model.Sealed].
func (g Gate) Sealed() Gate {
	g.sealed = g.Digest()
	return g
}

// Permissive lists the licences that a gate allows by default.
var Permissive = []string{"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "0BSD", "CC0-1.0", "Unlicense"}

// Licences returns the licences that the gate allows.
func (g Gate) Licences() []string {
	if len(g.Licence) > 0 {
		return g.Licence
	}
	return Permissive
}

// Forbidden returns the first part of a model whose licence the gate does not allow; ok is false if there is none.
func (g Gate) Forbidden(parts []Licensed) (part Licensed, ok bool) {
	return Find(parts, func(p Licensed) bool { return !slices.Contains(g.Licences(), p.Licence) })
}

// Labels are, by class, the names that count as it: labels of an eval set, and classes of models.
type Labels map[string][]string

// String returns the labels as YAML on one line.
func (l Labels) String() string {
	text := func(class string) string { return YAMLScalar(class) + ": " + FlowList(l[class]) }
	return "{" + strings.Join(Each(slices.Sorted(maps.Keys(l)), text), ", ") + "}"
}

// FlowList returns names as a YAML sequence on one line.
func FlowList(names []string) string {
	return "[" + strings.Join(Each(names, YAMLScalar), ", ") + "]"
}

// YAMLScalar returns s as a YAML scalar, also for a flow sequence or mapping. It is in double quotes where YAML of any
// version might read it as something else than text.
func YAMLScalar(s string) string {
	if plainYAML.MatchString(s) && !notText.MatchString(s) {
		return s
	}
	return strconv.Quote(s) // YAML has all escapes of Go
}

var (
	plainYAML = regexp.MustCompile(
		`^[A-Za-z_](?:[A-Za-z0-9_./:-]*[A-Za-z0-9_-])?(?: [A-Za-z0-9_-](?:[A-Za-z0-9_./:-]*[A-Za-z0-9_-])?)*$`)
	notText = regexp.MustCompile(`^(?i:true|false|null|yes|no|on|off|y|n)$`)
)

// LabelMap returns which labels of the eval set, and which classes of models, count as which class. The gate's classes
// come first, each with the names that Labels lists for it, or its own name. A model's other classes follow under their
// own names, so that they can be shown. The labels in a model's file are not used: a pull request could change the
// ground truth with them.
func (g Gate) LabelMap(model Classes) Classes {
	out := make(Classes, 0, len(g.Classes)+len(model))
	used := map[string]bool{}
	for _, class := range g.Classes {
		labels, ok := g.Labels[class]
		if !ok {
			labels = []string{class}
		}
		out = append(out, Class{Name: class, Labels: labels})
		used[class] = true
		for _, label := range labels {
			used[label] = true
		}
	}
	for _, c := range model {
		if !used[c.Name] {
			out = append(out, Class{Name: c.Name, Labels: []string{c.Name}})
		}
	}
	return out
}

// An EvalSet names the images and ground truth that models are measured on.
type EvalSet struct {
	Dataset Dataset `json:"dataset" check:"required"`
	Split   string  `json:"split" default:"test" check:"oneof=train|valid|test"`
	Content Digest  `json:"content,omitempty" check:"optional,digest"`
	Group   string  `json:"group,omitempty" check:"optional,argument"`
}

func (e EvalSet) String() string {
	if e.Group != "" {
		return e.Dataset.String() + " " + e.Split + " by " + e.Group
	}
	return e.Dataset.String() + " " + e.Split
}

// A GateCheck is one condition of a gate. Exactly one of Min, Max and MaxDrop is set.
type GateCheck struct {
	Metric     string    `json:"metric" check:"metricName"`
	Classes    Selection `json:"classes,omitzero" check:"optional"`
	Except     []string  `json:"except,omitempty" check:"optional,nonempty,class"`
	Min        *float64  `json:"min,omitempty" check:"optional,min=0,max=1"`
	Max        *Quantity `json:"max,omitempty" check:"optional"`
	MaxDrop    *float64  `json:"maxDrop,omitempty" check:"optional,min=0,max=1"`
	Against    string    `json:"against,omitempty" check:"optional,against"`
	Confidence Share     `json:"confidence" default:"95%" check:"min=50%,max=99.9%"`
	Support    int       `json:"support" default:"1" check:"min=1,max=1000000"`
	Unsure     string    `json:"unsure" default:"review" check:"oneof=fail|review|ignore"`
	At         string    `json:"at,omitempty" check:"optional,oneof=threshold"`
	Profiles   Selection `json:"profiles,omitzero" check:"optional,name"`
}

// A Selection is all classes or profiles, or those in Names.
type Selection struct {
	All   bool
	Names []string
}

// IsZero reports whether nothing is selected.
func (c Selection) IsZero() bool { return !c.All && len(c.Names) == 0 }

// MarshalJSON implements json.Marshaler: "all", or a list of names.
func (c Selection) MarshalJSON() ([]byte, error) {
	if c.All {
		return json.Marshal("all")
	}
	return json.Marshal(c.Names)
}

// A Quantity is an upper bound in the metric's unit: a size for size, a duration for
// latency, a plain number for a count.
type Quantity string

// UnmarshalText implements encoding.TextUnmarshaler.
func (q *Quantity) UnmarshalText(text []byte) error {
	var b Bytes
	var d Duration
	if b.UnmarshalText(text) != nil && d.UnmarshalText(text) != nil && !plainNumber.Match(text) {
		return fmt.Errorf("want a size as in 120MB, a duration as in 33ms or a number as in 0.5, got %q", text)
	}
	*q = Quantity(text)
	return nil
}

var plainNumber = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,9})?$`)

// Number returns the quantity as a number, or an error if it has a unit.
func (q Quantity) Number() (float64, error) {
	if !plainNumber.MatchString(string(q)) {
		return 0, fmt.Errorf("want a number as in 0.5, got %q", string(q))
	}
	return strconv.ParseFloat(string(q), 64)
}

// Seconds returns the quantity as a duration in seconds, or an error if it is none.
func (q Quantity) Seconds() (float64, error) {
	var d Duration
	err := d.UnmarshalText([]byte(q))
	return time.Duration(d).Seconds(), err
}

// Bytes returns the quantity as a size, or an error if it is none.
func (q Quantity) Bytes() (Bytes, error) {
	var b Bytes
	err := b.UnmarshalText([]byte(q))
	return b, err
}
