// Package words writes what AOB says about its decisions. Packages plan, gate and explain return facts: codes and
// values. Package code has the sentence of each code as a template, and here each medium has one writer:
//
//   - template.go: the syntax of templates, and the values that they may name.
//   - terminal.go: aob plan. chain.go: aob explain.
//   - verdict.go, checks.go: a verdict, line by line, as aob pr and aob explain show it.
//   - comment.go, comment_verdict.go: Markdown, for the comment on a pull request.
//
// The API's JSON holds each text with its facts, see web.Sentence.
//
// A sentence puts values in as they are. The writer of a medium escapes the whole text, so that nothing that people,
// devices or trainers wrote is an order to a forge, a terminal or git.
package words

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

var sentences map[delivery.Code]sentence

func init() { // not at the declaration: sentences contain the sentences of other facts
	sentences = map[delivery.Code]sentence{}
	for c, template := range code.Sentences {
		sentences[c] = text(template)
	}
}

// Text writes a fact without escaping it.
func Text(f delivery.Fact) string { return Join([]delivery.Fact{f}) }

// Join writes facts that hold together.
func Join(facts []delivery.Fact) string {
	var texts []string
	for i := range facts {
		if text := write(&facts[i]); text != "" {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, "; ")
}

func write(f *delivery.Fact) string {
	if write, ok := sentences[f.Code]; ok {
		return write(&f.Values)
	}
	if f.IsZero() {
		return ""
	}
	return f.String() // of a newer server
}

// Lines writes each fact by itself.
func Lines(facts []delivery.Fact) []string {
	if len(facts) == 0 {
		return nil // which JSON leaves out
	}
	return delivery.Each(facts, Text)
}

// Markdown writes a fact for a forge. It is text, whatever its values say.
func Markdown(f delivery.Fact) string { return delivery.Markdown(Text(f)) }

// Checks writes checks as forges take them.
func Checks(list []plan.Check) []delivery.Check {
	if list == nil {
		return nil
	}
	return delivery.Each(list, Check)
}

// Check writes one check.
func Check(c plan.Check) delivery.Check {
	return delivery.Check{Context: c.Context, State: c.State, Description: Join(c.Facts)}
}

// Statuses writes checks as forges show them, with what is to be done first: forges cut long texts.
func Statuses(list []plan.Check) []delivery.Check {
	if list == nil {
		return nil
	}
	checks := make([]delivery.Check, len(list))
	for i, c := range list {
		c.Facts = statusFacts(c.Facts)
		checks[i] = Check(c)
	}
	return checks
}

// statusFacts replaces facts that have a form of their own in statuses.
func statusFacts(facts []delivery.Fact) []delivery.Fact {
	facts = slices.Clone(facts)
	for i, f := range facts {
		facts[i].Facts = statusFacts(f.Facts)
		switch {
		case f.Code == code.VerdictUnsure && len(f.Facts) == 2: // the reason, and how an owner accepts
			reason, ask := facts[i].Facts[0], facts[i].Facts[1]
			if ask.Code == code.AcceptByReaction { // an owner has begun to
				facts[i].Facts = []delivery.Fact{ask, reason}
				continue
			}
			facts[i].Code, facts[i].Facts = code.VerdictUnsureStatus, []delivery.Fact{reason}
			if ask.Code == code.AcceptBySocket {
				facts[i].PRs = ask.PRs
			}
		case f.Code == code.Several && len(f.Facts) == 2 && f.Facts[0].Code == code.DataReady &&
			f.Facts[1].Code == code.Finding:
			facts[i] = delivery.Fact{Code: code.DataWarnings, Values: delivery.Values{Count: f.Facts[1].Count + 1,
				Facts: facts[i].Facts[:1]}}
		}
	}
	return facts
}

// Proposed writes a pull request of AOB's own: its title, its description in Markdown, and what its commit says below
// the title.
func Proposed(s plan.Propose) (title, description, message string) {
	escaped := func(escape func(string) string) string {
		f := s.Body
		f.Text = escape(f.Text)
		if len(f.Facts) > 0 {
			f.Facts = []delivery.Fact{{Code: code.Plain, Values: delivery.Values{Text: escape(Join(f.Facts))}}}
		}
		return Text(f)
	}
	return Text(s.Title), escaped(delivery.Markdown), escaped(delivery.CommitText)
}

// PRs are pull requests as people write them; 0 is none.
func PRs(numbers []int) string {
	var list []string
	for _, n := range numbers {
		if n > 0 {
			list = append(list, fmt.Sprintf("#%d", n))
		}
	}
	return strings.Join(list, ", ")
}

// Abort writes the reason of an abort, where it is not written yet. People read it in statements and quarantine files.
func Abort(a delivery.Abort, because delivery.Fact) delivery.Abort {
	if a.Why == "" {
		a.Why = delivery.Terminal(Text(because))
	}
	return a
}
