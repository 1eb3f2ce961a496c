package poll

import (
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// What a command line lacks, it does not stand for.
func TestCommands(t *testing.T) {
	for body, want := range map[string]string{
		"/aob accept 0a1b because the set is small":    "the set is small",
		"  /aob accept 0a1b because  of   this \nBye.": "of this",
		"Well.\n/aob accept 0a1b because of this":      "",
		"```\n/aob accept 0a1b because I show it\n```": "",
		"/aob accept 0a1b because …":                   "",
		"/aob accept 0a1b because ...":                 "",
		"/aob accept 0a1b because":                     "",
		"/aob accept 0a1b":                             "",
		"> /aob accept 0a1b because I quote":           "",
		"please /aob accept 0a1b because I ask":        "",
	} {
		accept, ok := acceptCommand(delivery.Comment{Body: body})
		switch {
		case want == "" && ok:
			t.Errorf("%q accepts because %q", body, accept.Because)
		case want != "" && (!ok || accept.Because != want || accept.Code != "0a1b"):
			t.Errorf("%q: %+v", body, accept)
		}
	}
}

// A price that moves asks nobody again: the question about a go is the same as long as its code is.
func TestQuestionOutlivesAPrice(t *testing.T) {
	ask := func(low, high, ceiling delivery.Money) string {
		w := waits(plan.ProposalReport{ApprovalCommands: []string{"/aob run 3f9c"}, Costs: map[string]delivery.Fact{
			"3f9c": {Code: code.CostQuote, Values: delivery.Values{Model: "cells", By: "g5.xlarge spot", Cost: low,
				CostHigh: high, Ceiling: ceiling}}}})
		return runQuestion(7, "3f9c", w.runs["3f9c"])
	}
	if a, b := ask(1, 2, 3*delivery.Dollar), ask(2, 4, 3*delivery.Dollar); a != b {
		t.Errorf("another price asks again:\n%s\n%s", a, b)
	}
	if ask(1, 2, 3*delivery.Dollar) == ask(1, 2, 4*delivery.Dollar) {
		t.Error("another ceiling does not")
	}
}
