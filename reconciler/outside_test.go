package reconciler

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
	"github.com/autonomos/aob/tools/hostile"
)

// A page is a comment whose words come from outside.
type page struct {
	name  string
	write func(text string) string
}

// pages are all comments and descriptions that this package writes.
func pages(t *testing.T) []page {
	list := []page{
		{"the description of an adopted pull request", func(text string) string {
			_, body := words.AdoptedText(delivery.PullRequest{Number: 7, Title: text, Author: text})
			return body
		}},
	}
	for _, outcome := range []delivery.Outcome{delivery.Pass, delivery.Fail, delivery.Unsure, delivery.Ignored,
		delivery.NotApplicable} {
		for _, state := range []delivery.CheckState{delivery.CheckSuccess, delivery.CheckFailure,
			delivery.CheckPending} {
			for _, asks := range [][]string{nil, {"/aob run 0123"}} {
				list = append(list, page{fmt.Sprintf("the comment, %s, %s, asks %v", outcome, state, asks),
					func(text string) string {
						var pr plan.ProposalReport
						hostile.Fill(&pr, text)
						pr.ApprovalCommands = asks // codes are AOB's own
						for i := range pr.Models {
							m := &pr.Models[i]
							m.Model = "shapes" // intent takes letters, digits and dashes
							for j := range m.Links {
								m.Links[j].URL = "https://aob.example.org/pictures/9c87/" // and so are links
							}
							for j := range m.Verdicts {
								m.Verdicts[j].Outcome = outcome
								for k := range m.Verdicts[j].Checks {
									m.Verdicts[j].Checks[k].Outcome = outcome
								}
							}
							for j := range m.Unsure {
								m.Unsure[j].Code = "0123"
								if outcome == delivery.Unsure {
									m.Unsure[j].Accept = nil
								}
							}
						}
						said(reflect.ValueOf(&pr).Elem())
						return words.Comment(pr, []plan.Check{{Context: delivery.ContextRelease, State: state,
							Facts: []delivery.Fact{{Code: code.Plain, Values: delivery.Values{Text: text}}}}})
					}})
			}
		}
	}
	return list
}

// said makes all facts in a value say their text.
func said(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			said(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			said(v.Index(i))
		}
	case reflect.Struct:
		if f, ok := v.Addr().Interface().(*delivery.Fact); ok {
			f.Code, f.Facts = code.Plain, nil
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				said(v.Field(i))
			}
		}
	}
}

// Text from outside, in whatever field it stands, changes words in what AOB writes on a forge, and nothing else.
func TestOutsideTextIsTextInComments(t *testing.T) {
	for i, p := range pages(t) {
		harmless := p.write(hostile.Harmless)
		lots := hostile.Lots(10)
		if strings.HasPrefix(p.name, "the comment") {
			lots = lots[i%10 : i%10+1] // it is long; each lot meets three of them
		}
		for _, text := range lots {
			got := p.write(text)
			if err := hostile.Markdown(harmless, got); err != nil {
				t.Errorf("%s, %.40q: %v", p.name, text, err)
			}
			if delivery.CommandLine(got) != "" {
				t.Errorf("%s, %.40q: it is an order: %s", p.name, text, got)
			}
		}
	}
}

// What stands in a status is one line of text, and is compared as it was said.
func TestStatusesAreText(t *testing.T) {
	for _, text := range hostile.Lots(5) {
		s, _ := begun(t)
		s.runs.fail = map[delivery.RunKind]string{delivery.RunTrain: text}
		s.propose("evil", 8)
		head := s.head("evil")
		s.settle()
		said := s.forge.said
		s.restart() // what stands on the forge is read back
		s.settle()
		if more := s.forge.said - said; more > 0 {
			t.Errorf("%.40q: %d statuses and comments were said again", text, more)
		}
		if !strings.Contains(s.check(head, delivery.ContextTrain).Description,
			strings.Fields(delivery.Terminal(text))[0]) {
			t.Errorf("%.40q: aob/train does not say it: %+v", text, s.check(head, delivery.ContextTrain))
		}
		for context, c := range s.forge.statuses[head] {
			if strings.Contains(c.Description, "\n") {
				t.Errorf("%.40q: %s has more than one line: %q", text, context, c.Description)
			}
			if err := hostile.Screen(c.Description); err != nil {
				t.Errorf("%.40q: %s: %v", text, context, err)
			}
		}
	}
}

// The title of an adopted pull request becomes a commit message.
func TestAdoptedTitleIsNoCommand(t *testing.T) {
	for _, text := range hostile.Texts {
		title, _ := words.AdoptedText(delivery.PullRequest{Title: "x " + text})
		if err := hostile.Commit("x", title); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}
