package reconciler

// Stories of what may not start an instance that costs money: each ends with nothing started and a status that says
// why.

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
)

// paidModel is a model that trains on an instance, for at most $11 on demand, with more keys of its machine.
func paidModel(epochs int, more string) string {
	return model("shapes", epochs) + "  machine: {terraform: train-aws-ec2, instance: g5.xlarge, spot: prefer" + more +
		"}\n"
}

// paying is a world whose server may start instances, at AOB's price of them.
func paying(t *testing.T) *sim {
	s, _ := begun(t)
	s.server.Budget = plan.Budget{Region: "eu-central-1", Types: []string{"g5.xlarge", "g6.xlarge"},
		Day: 50 * delivery.Dollar, Month: 500 * delivery.Dollar}
	s.pays(func(instance string) (delivery.Price, error) {
		if instance != "g5.xlarge" {
			return delivery.Price{}, errors.New("AOB's table has no " + instance)
		}
		return delivery.Price{Region: "eu-central-1", Instance: instance, OnDemand: 1_258_000, Spot: 651_000, At: s.now,
			Source: "AWS"}, nil
	})
	s.forge.permission["stranger"] = delivery.PermissionRead
	return s
}

// pays starts the server again, with prices.
func (s *sim) pays(prices func(string) (delivery.Price, error)) {
	s.restart(func(r *Reconciler) { r.Prices = prices })
}

// offer opens a pull request of dev and returns its commit, when all is checked that costs nothing.
func (s *sim) offer(files map[string]string) string {
	s.helper()
	commit := s.repo.commit("first", s.main(), s.now, files)
	s.forge.open("first", "dev")
	s.settle()
	return commit
}

// paid returns the runs on instances that were started.
func (s *sim) paid() (list []delivery.RunState) {
	for _, key := range s.runs.keys() {
		r := s.runs.states[key]
		if train := r.Spec.Training(); train != nil && delivery.PaidModule(train.Machine) {
			list = append(list, *r)
		}
	}
	return list
}

// A go for the very thing that was asked for starts it once: the other stories fail for their reasons alone. Variants
// are made of it on the server's own machine.
func TestGoStartsAnInstance(t *testing.T) {
	s := paying(t)
	commit := s.offer(map[string]string{"models/shapes.yaml": paidModel(8, "") + "variants: [fp32, fp16]\n"})
	s.want("first", delivery.CheckPending, code.CostQuote, "g5.xlarge spot", "never more than $11")
	s.forge.comment(1, "maintainer", "/aob run "+s.asked(commit))
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	list := s.paid()
	if len(list) != 1 || list[0].Attempt != 1 || list[0].Spec.Quote.By != "maintainer" ||
		list[0].Spec.Quote.Ceiling != 11*delivery.Dollar {
		t.Errorf("started %+v", list)
	}
	if s.started(delivery.RunVariant) != 1 {
		t.Errorf("%d variants were made", s.started(delivery.RunVariant))
	}
}

func TestNothingStartsThatNobodyAgreedTo(t *testing.T) {
	first := map[string]string{"models/shapes.yaml": paidModel(8, "")}
	push := func(s *sim, files map[string]string) string {
		commit := s.repo.commit("first", s.head("first"), s.now, files)
		s.settle()
		return commit
	}
	for _, c := range []struct {
		name  string
		do    func(s *sim) (commit string)
		state delivery.CheckState
		want  []any // codes of facts, and texts
	}{
		{"an unapproved push", func(s *sim) string { return s.offer(first) }, delivery.CheckPending,
			[]any{code.CostQuote, code.ApprovalByComment, "never more than $11"}},
		{"a fork of a stranger", func(s *sim) string {
			n := s.fork("theirs", "stranger", s.main(), first)
			s.settle()
			return s.repo.refs[fmt.Sprintf("%s%d/head", git.Pull, n)]
		}, delivery.CheckPending, []any{code.ApprovalByComment, "/aob run"}},
		{"a fork of a stranger whose checks were approved, and not its cost", func(s *sim) string {
			n := s.fork("theirs", "stranger", s.main(), first)
			s.settle()
			commit := s.repo.refs[fmt.Sprintf("%s%d/head", git.Pull, n)]
			s.forge.comment(n, "maintainer", "/aob run "+s.asked(commit))
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostQuote, code.ApprovalByComment}},
		{"a go of a stranger", func(s *sim) string {
			commit := s.offer(first)
			s.forge.comment(1, "stranger", "/aob run "+s.asked(commit))
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostQuote, code.ApprovalByComment}},
		{"a go in a comment that others may edit", func(s *sim) string {
			s.forge.unvouched = true
			commit := s.offer(first)
			s.forge.comment(1, "maintainer", "/aob run "+s.asked(commit))
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostQuote, code.ApprovalByReaction}},
		{"a go in an edited comment", func(s *sim) string {
			commit := s.offer(first)
			s.forge.comment(1, "maintainer", "looks good")
			edited := &s.forge.commands[len(s.forge.commands)-1]
			edited.Body, edited.edited = "/aob run "+s.asked(commit), true
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostQuote, code.ApprovalByReaction}},
		{"a go with a code that is cut short", func(s *sim) string {
			commit := s.offer(first)
			s.forge.comment(1, "maintainer", "/aob run "+s.asked(commit)[:31])
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostQuote}},
		{"a go in another pull request", func(s *sim) string {
			commit := s.offer(first)
			s.forge.open("second", "dev")
			s.repo.commit("second", s.main(), s.now, map[string]string{"models/other.yaml": model("other", 1)})
			s.settle()
			s.forge.comment(2, "maintainer", "/aob run "+s.asked(commit))
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostQuote}},
		{"a go for other content", func(s *sim) string {
			code := s.asked(s.offer(first))
			s.forge.comment(1, "maintainer", "/aob run "+code)
			return push(s, map[string]string{"models/shapes.yaml": paidModel(14, "")})
		}, delivery.CheckPending, []any{code.CostQuote}},
		{"a go for a lower ceiling", func(s *sim) string {
			code := s.asked(s.offer(map[string]string{"models/shapes.yaml": paidModel(8, ", maxCost: $4")}))
			s.forge.comment(1, "maintainer", "/aob run "+code)
			return push(s, map[string]string{"models/shapes.yaml": paidModel(8, ", maxCost: $40")})
		}, delivery.CheckPending, []any{code.CostQuote, "never more than $40"}},
		{"a go before the price has risen", func(s *sim) string {
			commit := s.offer(first)
			s.forge.comment(1, "maintainer", "/aob run "+s.asked(commit))
			s.pays(func(instance string) (delivery.Price, error) {
				return delivery.Price{Region: "eu-central-1", Instance: instance, OnDemand: 2_500_000, At: s.now}, nil
			})
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostQuote, "never more than $20"}},
		{"a go for fewer hours", func(s *sim) string {
			code := s.asked(s.offer(map[string]string{"models/shapes.yaml": paidModel(8, ", limit: 1h")}))
			s.forge.comment(1, "maintainer", "/aob run "+code)
			return push(s, map[string]string{"models/shapes.yaml": paidModel(8, ", limit: 20h")})
		}, delivery.CheckPending, []any{code.CostQuote, "never more than $26"}},
		{"a go for fewer seeds", func(s *sim) string {
			code := s.asked(s.offer(first))
			s.forge.comment(1, "maintainer", "/aob run "+code)
			return push(s, map[string]string{"models/shapes.yaml": strings.Replace(paidModel(8, ""), "  machine:",
				"  seeds: [1, 2, 3]\n  machine:", 1)})
		}, delivery.CheckPending, []any{code.CostQuote, "each of 3 seeds"}},
		{"a go before a gate is changed", func(s *sim) string {
			code := s.asked(s.offer(first))
			s.forge.comment(1, "maintainer", "/aob run "+code)
			return push(s, map[string]string{"gates/own.yaml": strings.Replace(gateFile("own", "shapes", 0.1),
				"dir: shapes", "dir: gold", 1)})
		}, delivery.CheckPending, []any{code.CostQuote}},
		{"a go before the trainer is changed", func(s *sim) string {
			code := s.asked(s.offer(first))
			s.forge.comment(1, "maintainer", "/aob run "+code)
			return push(s, map[string]string{"models/shapes.yaml": strings.Replace(paidModel(8, ""), "tiny@1",
				"import@1\n  from: base", 1)})
		}, delivery.CheckFailure, []any{"this server has no trainer import@1"}},
		{"a trainer of the pull request's own", func(s *sim) string {
			return s.offer(map[string]string{"trainers/tiny/train.py": "import os\n",
				"infra/terraform/train-aws-ec2/main.tf": "resource \"aws_instance\" \"x\" {}\n"})
		}, delivery.CheckFailure, []any{"is not in a folder that AOB reads"}},
		{"a go that somebody gave who may not write any more", func(s *sim) string {
			s.forge.permission["former"] = delivery.PermissionRead
			commit := s.offer(first)
			s.forge.comment(1, "former", "/aob run "+s.asked(commit))
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostQuote}},
		{"a go of 7 days ago", func(s *sim) string {
			commit := s.offer(first)
			s.server.Budget.Day = delivery.Dollar // so that it waits
			s.pays(s.loop.Prices)
			s.forge.comment(1, "maintainer", "/aob run "+s.asked(commit))
			s.settle()
			s.want("first", delivery.CheckPending, code.CostOverDay)
			s.server.Budget.Day = 50 * delivery.Dollar
			s.now = s.now.Add(poll.ApprovalLasts)
			s.pays(s.loop.Prices)
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostQuote, code.ApprovalByComment}},
		{"a dataset of an address", func(s *sim) string {
			return s.offer(map[string]string{"models/shapes.yaml": strings.Replace(paidModel(8, ""), "dir: shapes",
				"dir: \"http://169.254.169.254/latest\"", 1)})
		}, delivery.CheckFailure, []any{"it must be a name, not an address"}},
		{"a dataset of a path", func(s *sim) string {
			return s.offer(map[string]string{"models/shapes.yaml": strings.Replace(paidModel(8, ""), "dir: shapes",
				"dir: ../../../root/.aws", 1)})
		}, delivery.CheckFailure, []any{"it must not contain . or .. as a part"}},
		{"a tracker of an address", func(s *sim) string {
			return s.offer(map[string]string{"models/shapes.yaml": paidModel(8, "") +
				"track: {mlflow: \"http://169.254.169.254/\"}\n"})
		}, delivery.CheckFailure, []any{"want a name of letters, digits and ._-"}},
		{"an instance with more than a name", func(s *sim) string {
			return s.offer(map[string]string{"models/shapes.yaml": strings.Replace(paidModel(8, ""), "g5.xlarge",
				`"g5.xlarge\"} resource"`, 1)})
		}, delivery.CheckFailure, []any{"want a type of instance of AWS"}},
		{"an instance that the server does not start", func(s *sim) string {
			return s.offer(map[string]string{"models/shapes.yaml": strings.Replace(paidModel(8, ""), "g5.xlarge",
				"p5.48xlarge", 1)})
		}, delivery.CheckPending, []any{code.CostNotListed, "p5.48xlarge"}},
		{"a server without an account", func(s *sim) string {
			s.server.Budget = plan.Budget{}
			s.pays(nil)
			return s.offer(first)
		}, delivery.CheckPending, []any{code.CostNoAccount}},
		{"an instance without a price", func(s *sim) string {
			return s.offer(map[string]string{"models/shapes.yaml": strings.Replace(paidModel(8, ""), "g5.xlarge",
				"g6.xlarge", 1)})
		}, delivery.CheckPending, []any{code.CostUnknown, "g6.xlarge"}},
		{"a price above the ceiling", func(s *sim) string {
			return s.offer(map[string]string{"models/shapes.yaml": paidModel(8, ", maxCost: $0.01")})
		}, delivery.CheckFailure, []any{code.CostOverMax, "train.machine.maxCost"}},
		{"a day that has cost enough", func(s *sim) string {
			commit := s.offer(first)
			asked := s.asked(commit)
			s.ledger.spends = []delivery.Spend{{Run: delivery.Sum([]byte("x")), Cost: 45 * delivery.Dollar,
				Started: s.now, Phase: delivery.RunDone}}
			s.pays(s.loop.Prices)
			s.forge.comment(1, "maintainer", "/aob run "+asked)
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostOverDay}},
		{"a month that has cost enough", func(s *sim) string {
			commit := s.offer(first)
			asked := s.asked(commit)
			s.ledger.spends = []delivery.Spend{{Run: delivery.Sum([]byte("x")), Cost: 495 * delivery.Dollar,
				Started: s.now.AddDate(0, 0, -20), Phase: delivery.RunDone}}
			s.pays(s.loop.Prices)
			s.forge.comment(1, "maintainer", "/aob run "+asked)
			s.settle()
			return commit
		}, delivery.CheckPending, []any{code.CostOverMonth}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := paying(t)
			s.fail = t.Fatalf
			commit := c.do(s)
			if list := s.paid(); len(list) > 0 {
				t.Errorf("started %+v", list)
			}
			check := s.check(commit, delivery.ContextRelease)
			if check.State != c.state {
				t.Errorf("it is %q: %s", check.State, check.Description)
			}
			facts := s.facts(commit, delivery.ContextRelease)
			for _, want := range c.want {
				switch want := want.(type) {
				case delivery.Code:
					if !has(facts, want) {
						t.Errorf("it does not say %s: %s", want, check.Description)
					}
				case string:
					intent := s.check(commit, delivery.ContextIntent).Description
					if !strings.Contains(check.Description, want) && !strings.Contains(intent, want) {
						t.Errorf("it does not say %q: %s; %s", want, check.Description, intent)
					}
				}
			}
		})
	}
}
