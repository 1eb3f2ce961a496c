package plan

// This file has short names for making facts. Package words writes the sentences.

import (
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

type values = delivery.Values

func fact(c delivery.Code, v values) delivery.Fact { return delivery.Fact{Code: c, Values: v} }

// several joins facts. Zero facts are left out, and a single fact stays as it is.
func several(facts ...delivery.Fact) delivery.Fact {
	list := slices.DeleteFunc(slices.Clone(facts), delivery.Fact.IsZero)
	switch len(list) {
	case 0:
		return delivery.Fact{}
	case 1:
		return list[0]
	}
	return fact(code.Several, values{Facts: list})
}

func pending(f delivery.Fact) Stage { return Stage{State: delivery.CheckPending, Fact: f} }
func failed(f delivery.Fact) Stage  { return Stage{State: delivery.CheckFailure, Fact: f} }

// A Check is one commit status with facts in place of its text.
type Check struct {
	Context string
	State   delivery.CheckState
	Facts   []delivery.Fact
}

func check(context string, state delivery.CheckState, facts ...delivery.Fact) Check {
	return Check{Context: context, State: state, Facts: facts}
}
