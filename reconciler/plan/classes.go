package plan

// This file follows a model's classes from its release to what is proposed. A pull
// request drops no class that a gate holds the model to, and changes nothing of
// what an eval set's truths are: the gate alone reads its labels.

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// released is what a release was judged with: its classes, and what it calls them
// that were called otherwise.
func (m *maker) released(r delivery.Release) (delivery.Classes, map[string]string) {
	if t, ok := m.w.Evidence.BySpec[r.Spec]; ok {
		return t.Training.Input.Spec.Classes, t.Training.Input.Spec.Was
	}
	var classes delivery.Classes
	for _, name := range m.w.Evidence.Bundles[r.Bundle].Classes {
		classes = append(classes, delivery.Class{Name: name, Labels: []string{name}})
	}
	return classes, nil
}

// goesOn says what a model calls a class of its release; empty where it has none.
func goesOn(class string, mdl delivery.Model) string {
	if slices.Contains(mdl.Classes.Names(), class) {
		return class
	}
	for name, old := range mdl.Was {
		if old == class {
			return name
		}
	}
	return ""
}

// removedClasses refuses a model that drops a class of its release which a gate
// holds it to, or that calls one by another's name. One that is renamed goes
// on.
func (m *maker) removedClasses(mdl delivery.Model, releases []delivery.Release, gates []judged) string {
	if len(releases) == 0 {
		return ""
	}
	classes, _ := m.released(releases[0])
	for _, class := range classes.Names() {
		now := goesOn(class, mdl)
		if now != class && slices.Contains(classes.Names(), now) {
			return fmt.Sprintf("was: {%s: %s}, and version %d has both; a class that goes into another is removed", now, class, releases[0].Version)
		}
		if now != "" {
			continue
		}
		for _, j := range gates {
			if gate.Requires(j.gate, class) {
				return fmt.Sprintf("class %s is removed, and gate %s holds the model to it; drop it there%s, from classes: or by except: [%s], or say what it is called now: was: {NEW: %s}", class, j.name, j.earlier(), class, class)
			}
		}
	}
	return ""
}

// changedTruths refuses a model whose classes do not fit the labels of the gates'
// eval sets, or would make other truths of them than the release was judged by.
func (m *maker) changedTruths(mdl delivery.Model, releases []delivery.Release, gates []judged, content func(delivery.EvalSet) (delivery.EvalSetContent, bool)) string {
	for _, j := range gates {
		set, ok := content(j.gate.Evaluate)
		if !ok {
			continue // what keeps it from being read is said elsewhere
		}
		counts := labelsIn(set, j.gate.Reads(mdl.Classes, mdl.Was))
		if why := misread(mdl, j, set, counts); why != "" {
			return why
		}
		if len(releases) == 0 {
			continue
		}
		classes, was := m.released(releases[0])
		before := labelsIn(set, j.gate.Reads(classes, was))
		for _, class := range classes.Names() {
			now := goesOn(class, mdl)
			if now == "" || len(before[class]) == 0 || slices.Equal(before[class], counts[now]) {
				continue
			}
			return fmt.Sprintf("truths of gate %s that are labelled %s count as class %s, and here %s would; a model does not change what truths are. Leave was: as it is, or say it in gates/%s.yaml%s: labels: {%s: [%s]}",
				j.name, strings.Join(before[class], " and "), class, orNothing(counts[now]), j.name, j.earlier(), now, strings.Join(before[class], ", "))
		}
	}
	return ""
}

// lostClasses is both of one gate whose eval set is known.
func (m *maker) lostClasses(mdl delivery.Model, releases []delivery.Release, j judged, set delivery.EvalSetContent) string {
	list := []judged{j}
	if why := m.removedClasses(mdl, releases, list); why != "" {
		return why
	}
	return m.changedTruths(mdl, releases, list, func(delivery.EvalSet) (delivery.EvalSetContent, bool) { return set, true })
}

// labelsIn keeps of what a gate reads the labels that its eval set has, by class.
func labelsIn(set delivery.EvalSetContent, classes delivery.Classes) map[string][]string {
	found := map[string][]string{}
	for _, c := range classes {
		for _, label := range c.Labels {
			if slices.Contains(set.Labels, label) {
				found[c.Name] = append(found[c.Name], label)
			}
		}
	}
	return found
}

// misread says where a model takes a label for one class and the gate does not: its
// figures would be about something else than it was trained for.
func misread(mdl delivery.Model, j judged, set delivery.EvalSetContent, counts map[string][]string) string {
	any := false
	for _, c := range mdl.Classes.Renamed(mdl.Was) {
		any = any || len(counts[c.Name]) > 0
		for _, label := range c.Labels {
			if !slices.Contains(set.Labels, label) || slices.Contains(counts[c.Name], label) {
				continue
			}
			return fmt.Sprintf("models/%s.yaml takes label %s for class %s, and gate %s, whose eval set has it, does not; say so in gates/%s.yaml%s: labels: {%s: [%s]}",
				mdl.Name, label, c.Name, j.name, j.name, j.earlier(), c.Name, strings.Join(append(slices.Clone(counts[c.Name]), label), ", "))
		}
	}
	if !any {
		return fmt.Sprintf("the eval set of gate %s has no truth of the model's classes; its labels are %s", j.name, strings.Join(set.Labels, ", "))
	}
	return ""
}

// earlier says when a gate must be changed for it to count.
func (j judged) earlier() string {
	if j.proposed {
		return ""
	}
	return " in an earlier pull request"
}

func orNothing(labels []string) string {
	if len(labels) == 0 {
		return "nothing"
	}
	return strings.Join(labels, " and ")
}
