package poll

import (
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/tools/hostile"
)

// Text from outside changes words in a question, and nothing else. A question is no order to AOB.
func TestOutsideTextIsTextInQuestions(t *testing.T) {
	for name, write := range map[string]func(text string) string{
		"a question about a run": func(text string) string { return runQuestion(7, "0123", text) },
		"a question about an accept": func(text string) string {
			d := openVerdict{model: text, UnsureVerdict: plan.UnsureVerdict{Gate: text}}
			return acceptQuestion(d, plan.AcceptComment{Code: "0123", By: "ann",
				Because: text}) // users' names are checked before
		},
	} {
		harmless := write(hostile.Harmless)
		for _, text := range hostile.Lots(10) {
			got := write(text)
			if err := hostile.Markdown(harmless, got); err != nil {
				t.Errorf("%s, %.40q: %v", name, text, err)
			}
			if delivery.CommandLine(got) != "" {
				t.Errorf("%s, %.40q: it is an order: %s", name, text, got)
			}
		}
	}
}
