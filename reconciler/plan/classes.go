package plan

// This file follows a model's classes from its release to what is proposed. A pull
// request drops no class that a gate holds the model to, and changes nothing of
// what an eval set's truths are: the gate alone reads its labels.

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
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

// A lineage follows a model's classes from release to release, each from the one that
// it was judged against, as was: said then; so also past what main has gone back from.
type lineage struct {
	releases []delivery.ReleaseStatement              // that main accepted, lowest version first
	classes  map[delivery.Digest]map[string]classOnce // by bundle and name
	now      map[string]classOnce                     // of what is proposed, by name
}

// A classOnce is a class by the first bundle and name that it had.
type classOnce struct {
	bundle delivery.Digest // empty for what is proposed
	name   string
}

func (m *maker) lineage(names []string, mdl delivery.Model) lineage {
	key := string(mdl.SpecDigest()) + strings.Join(names, " ")
	if l, ok := m.lineages[key]; ok {
		return l
	}
	l := lineage{classes: map[delivery.Digest]map[string]classOnce{}}
	for _, s := range m.w.Evidence.Releases {
		if slices.Contains(names, s.Model) && m.w.Evidence.accepted(s.File) &&
			!slices.ContainsFunc(l.releases, func(o delivery.ReleaseStatement) bool { return o.Version == s.Version }) {
			l.releases = append(l.releases, s)
		}
	}
	slices.SortFunc(l.releases, func(a, b delivery.ReleaseStatement) int { return a.Version - b.Version })
	follow := func(of delivery.Digest, classes delivery.Classes, was map[string]string,
		from delivery.Digest) map[string]classOnce {
		ids := map[string]classOnce{}
		for _, c := range classes {
			ids[c.Name] = classOnce{of, c.Name}
			for _, old := range []string{c.Name, was[c.Name]} {
				if id, ok := l.classes[from][old]; ok {
					ids[c.Name] = id
				}
			}
		}
		return ids
	}
	for i, s := range l.releases {
		if s.Baseline == "" && i > 0 { // all before it were in quarantine, and their classes the model's
			l.releases[i].Baseline = l.releases[i-1].Bundle
		}
		if _, done := l.classes[s.Bundle]; done {
			continue
		}
		spec := m.w.Evidence.BySpec[s.Spec].Training.Input.Spec
		l.classes[s.Bundle] = follow(s.Bundle, spec.Classes, spec.Was, l.releases[i].Baseline)
	}
	var from delivery.Digest
	if r := m.latest(names); r != nil {
		from = r.Bundle
	}
	l.now = follow("", mdl.Classes, mdl.Was, from)
	if m.lineages == nil {
		m.lineages = map[string]lineage{}
	}
	m.lineages[key] = l
	return l
}

// wasOf tells which classes of what is proposed a released bundle knows by other
// names, and by none where its own of that name is another class by now.
func (l lineage) wasOf(bundle delivery.Digest) map[string]string {
	was := map[string]string{}
	for name := range l.now {
		for other, id := range l.classes[bundle] {
			for now, same := range l.now {
				switch {
				case same != id:
				case now == name && other != name:
					was[name] = other
				case now != name && other == name && was[name] == "":
					was[name] = ""
				}
			}
		}
	}
	if len(was) == 0 {
		return nil
	}
	return was
}

// asked lists the classes of what is proposed that a gate has asked for since it is
// what it is: those that it names, and those that the release had when it first
// judged, or else has now. A class that came later lifts a mean without anybody
// having asked for it. Nil is all, as of a first model.
func (m *maker) asked(names []string, mdl delivery.Model, g delivery.Gate) []string {
	l := m.lineage(names, mdl)
	var of delivery.Digest
	if r := m.latest(names); r != nil {
		of = r.Bundle
	}
	for _, s := range l.releases {
		if slices.ContainsFunc(s.Gates, func(j delivery.GateJudged) bool { return j.Spec == g.Digest() }) {
			if of = s.Baseline; of == "" {
				of = s.Bundle
			}
			break
		}
	}
	if len(l.classes[of]) == 0 {
		return nil
	}
	there := slices.Collect(maps.Values(l.classes[of]))
	var classes []string // none where it has let all of them go
	byName := slices.Collect(maps.Keys(g.Labels))
	for _, c := range g.Checks {
		byName = append(byName, c.Classes.Names...)
	}
	for _, name := range mdl.Classes.Names() {
		if slices.Contains(there, l.now[name]) || slices.Contains(byName, name) {
			classes = append(classes, name)
		}
	}
	return classes
}

// falselyNamed refuses what a model says of its classes' former names where its
// release knows nothing of it: a name decides what gates hold a class to.
func (m *maker) falselyNamed(mdl delivery.Model, release *delivery.Release) string {
	var classes delivery.Classes
	var was map[string]string
	of := "there is no release"
	if release != nil {
		classes, was = m.released(*release)
		of = fmt.Sprintf("version %d has no such class", release.Version)
	}
	there := classes.Names()
	for _, now := range slices.Sorted(maps.Keys(was)) { // a gate may go on to name it so
		if old := was[now]; slices.Contains(mdl.Classes.Names(), old) && !slices.Contains(there, old) &&
			mdl.Was[old] != now {
			return fmt.Sprintf(
				"class %s is what class %s of version %d was called, and gates may still call it so; take another name",
				old, now, release.Version)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(mdl.Was)) {
		old := mdl.Was[name]
		switch {
		case slices.Contains(there, old) && slices.Contains(there, name):
			return fmt.Sprintf("was: {%s: %s}, and version %d has both; a class that goes into another is removed",
				name, old, release.Version)
		case slices.Contains(there, old):
		case slices.Contains(there, name) && was[name] == old:
		default:
			return fmt.Sprintf("was: {%s: %s}, and %s; it is for classes of the release that get another name", name,
				old, of)
		}
	}
	return ""
}

// removedClasses refuses a model that drops a class of its release which a gate
// holds it to, or never had one that a gate names. One that is renamed goes on.
func (m *maker) removedClasses(mdl delivery.Model, release *delivery.Release, gates []judged) string {
	if why := m.falselyNamed(mdl, release); why != "" {
		return why
	}
	if release != nil {
		if why := m.goneClasses(mdl, *release, gates); why != "" {
			return why
		}
	}
	return namedClasses(mdl, gates)
}

// namedClasses refuses a model that never had a class which a gate names.
func namedClasses(mdl delivery.Model, gates []judged) string {
	for _, j := range gates {
		for _, c := range j.gate.Checks {
			for _, class := range c.Classes.Names {
				if goesOn(class, mdl) == "" {
					return fmt.Sprintf(
						"gate %s asks for class %s, which models/%s.yaml does not have; its classes are %s", j.name,
						class, mdl.Name, strings.Join(mdl.Classes.Names(), ", "))
				}
			}
		}
	}
	return ""
}

// requires reports whether a gate holds a model to having a class.
func requires(g delivery.Gate, class string) bool {
	return slices.ContainsFunc(g.Checks, func(c delivery.GateCheck) bool {
		switch {
		case delivery.MetricOfFigure(c.Metric).Of == delivery.OfModel || slices.Contains(c.Except, class):
			return false
		case c.Classes.IsZero() || c.Classes.All:
			return true
		}
		return slices.Contains(c.Classes.Names, class)
	})
}

func (m *maker) goneClasses(mdl delivery.Model, release delivery.Release, gates []judged) string {
	classes, was := m.released(release)
	for _, class := range classes.Names() {
		if goesOn(class, mdl) != "" {
			continue
		}
		for _, j := range gates {
			var by []string
			for _, c := range j.gate.Checks {
				one := delivery.Gate{Checks: []delivery.GateCheck{c}}
				if requires(one, class) || was[class] != "" && requires(one, was[class]) {
					by = append(by, c.Metric)
				}
			}
			if len(by) > 0 {
				return fmt.Sprintf("class %s is removed, and gate %s holds the model to it by %s; drop it from each "+
					"of these checks%s, out of classes: or by except: [%s], or say what it is called now: "+
					"was: {NEW: %s}",
					class, j.name, strings.Join(by, ", "), j.earlier(), class, class)
			}
		}
	}
	return ""
}

// changedTruths refuses a model whose classes do not fit the labels of the gates'
// eval sets, or would make other truths of them than the release was judged by.
func (m *maker) changedTruths(mdl delivery.Model, release *delivery.Release, gates []judged,
	content func(delivery.EvalSet) (delivery.EvalSetContent, bool)) string {
	for _, j := range gates {
		set, ok := content(j.gate.Evaluate)
		if !ok {
			continue // what keeps it from being read is said elsewhere
		}
		counts := labelsIn(set, j.gate.Reads(mdl.Classes, mdl.Was))
		if why := misread(mdl, j, set, counts); why != "" {
			return why
		}
		if release == nil {
			continue
		}
		classes, was := m.released(*release)
		before := labelsIn(set, j.gate.Reads(classes, was))
		for _, class := range classes.Names() {
			now := goesOn(class, mdl)
			switch {
			case now == "" || slices.Equal(before[class], counts[now]):
				continue
			case len(before[class]) == 0:
				return fmt.Sprintf("gate %s has no truths of class %s, and of %s, which is said to be the same, it "+
					"has what is labelled %s; say what %s is: labels: %s in gates/%s.yaml%s, or add %s as a class of "+
					"its own, without was:",
					j.name, class, now, strings.Join(counts[now], " and "), class, delivery.Labels{class: counts[now]},
					j.name, j.earlier(), now)
			}
			return fmt.Sprintf("truths of gate %s that are labelled %s count as class %s, and here %s would; a model "+
				"does not change what truths are. Leave was: as it is, or say what %s is: labels: %s in "+
				"gates/%s.yaml%s, and the model's own labels in its classes:",
				j.name, strings.Join(before[class], " and "), class, orNothing(counts[now]), now,
				delivery.Labels{now: before[class]}, j.name, j.earlier())
		}
	}
	return ""
}

// lostClasses is both of one gate whose eval set is known.
func (m *maker) lostClasses(mdl delivery.Model, release *delivery.Release, j judged,
	set delivery.EvalSetContent) string {
	list := []judged{j}
	if why := m.removedClasses(mdl, release, list); why != "" {
		return why
	}
	return m.changedTruths(mdl, release, list, func(delivery.EvalSet) (delivery.EvalSetContent, bool) {
		return set, true
	})
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
	for _, c := range slices.Sorted(maps.Keys(counts)) {
		for _, l := range counts[c] {
			for other := range counts {
				if other != c && slices.Contains(counts[other], l) {
					return fmt.Sprintf("gate %s takes label %s for both %s and %s, which models/%s.yaml has both of; "+
						"mend labels: in gates/%s.yaml%s", j.name, l, min(c, other), max(c, other), mdl.Name, j.name,
						j.earlier())
				}
			}
		}
	}
	var label, class string // the first
	more := 0
	labels := maps.Clone(j.gate.Labels)
	any := false
	for _, c := range mdl.Classes.Renamed(mdl.Was) {
		any = any || len(counts[c.Name]) > 0
		for _, l := range c.Labels {
			if !slices.Contains(set.Labels, l) || slices.Contains(counts[c.Name], l) {
				continue
			}
			for other := range counts {
				if slices.Contains(counts[other], l) {
					return fmt.Sprintf("models/%s.yaml takes label %s for class %s, and gate %s for class %s; call "+
						"classes what they were, or rename them with was:", mdl.Name, l, c.Name, j.name, other)
				}
			}
			if label == "" {
				label, class = l, c.Name
			} else {
				more++
			}
			if labels == nil {
				labels = delivery.Labels{}
			}
			if labels[c.Name] == nil {
				labels[c.Name] = counts[c.Name]
			}
			labels[c.Name] = append(slices.Clone(labels[c.Name]), l)
		}
	}
	switch {
	case label != "":
		also := ""
		if more > 0 {
			also = fmt.Sprintf(" (and %d more)", more)
		}
		return fmt.Sprintf("models/%s.yaml takes label %s for class %s%s, and gate %s, whose eval set has it, does "+
			"not; say so in gates/%s.yaml%s: labels: %s",
			mdl.Name, label, class, also, j.name, j.name, j.earlier(), labels)
	case !any:
		return fmt.Sprintf("the eval set of gate %s has no truth of the model's classes; its labels are %s", j.name,
			strings.Join(set.Labels, ", "))
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
