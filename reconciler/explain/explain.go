// Package explain tells how things came to be: why a pull request is green or red, what a commit on main released,
// which versions a model has had, and why a device runs what it runs.
//
// [Report] is what the loop observed and decided at one moment. [Report.Explain] answers with a [Chain]: links in
// order, from what a person asked for to the devices that run it, each naming what it is about by digest and the
// digests that it was made from. The same report gives the same chain.
//
//	commit      content     data        run         bundle
//	scores      verdict     release     acceptance  fleet     device
//
// A chain holds facts: codes and values. Package words writes their sentences.
//
// The package is pure: no clock, file, logger or context.
package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Kind is a kind of thing that can be explained.
type Kind string

// The kinds, with what names one.
const (
	PR     Kind = "pr"     // its number
	Commit Kind = "commit" // its hash, or at least the first four digits of it
	Model  Kind = "model"  // its name
	Device Kind = "device" // its id
)

// A Chain is how one thing came to be. Text, lines and title are empty until package words has written them.
type Chain struct {
	Kind  Kind            `json:"kind"`
	ID    string          `json:"id"`
	Title string          `json:"title"`
	Facts []delivery.Fact `json:"facts,omitempty"` // of the title
	Links []Link          `json:"links"`
	More  int             `json:"more,omitempty"` // links that were asked to be left out
}

// A Link is one step of a chain.
type Link struct {
	What    string            `json:"what"`              // as commit, content, bundle; see the package comment
	ID      string            `json:"id,omitempty"`      // a digest, a commit, a name
	Text    string            `json:"text"`              // one sentence
	Lines   []string          `json:"lines,omitempty"`   // details, as one check of a gate
	Facts   []delivery.Fact   `json:"facts,omitempty"`   // of the text
	Details []delivery.Fact   `json:"details,omitempty"` // of the lines, but for those of the verdict
	Verdict *delivery.Verdict `json:"verdict,omitempty"`
	Inputs  []delivery.Digest `json:"inputs,omitempty"` // what it was made from
	At      time.Time         `json:"at,omitzero"`      // zero if unknown
}

// Unknown is the error for something that AOB does not know.
type Unknown struct {
	Kind Kind
	ID   string
	Do   string // a hint
}

func (u Unknown) Error() string {
	return fmt.Sprintf("nothing is known of %s %s", u.Kind, delivery.Terminal(u.ID))
}

// Hint returns a hint.
func (u Unknown) Hint() string { return u.Do }

func isHash(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}

type values = delivery.Values

func fact(c delivery.Code, v values) delivery.Fact { return delivery.Fact{Code: c, Values: v} }

// facts leaves out the facts that are zero.
func facts(list ...delivery.Fact) []delivery.Fact {
	return slices.DeleteFunc(slices.Clone(list), delivery.Fact.IsZero)
}

// link makes a link. Facts of optional parts may be zero.
func link(what, id string, list ...delivery.Fact) Link {
	return Link{What: what, ID: id, Facts: facts(list...)}
}

// from adds what a link was made from. Empty digests are left out.
func (l Link) from(inputs ...delivery.Digest) Link {
	for _, d := range inputs {
		if d != "" {
			l.Inputs = append(l.Inputs, d)
		}
	}
	return l
}
