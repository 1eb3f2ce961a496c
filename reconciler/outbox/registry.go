package outbox

// This file derives what a tracker's registry should show about models on main.

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/track"
)

const registryNote = "Delivered by AOB. Git is the record, and this is a copy of it: a version is a release that the " +
	"main branch has accepted, and the alias production is the one that fleets get."

// models returns the models whose record has changed. While something about main is not known, there are none.
func (d deriver) models(b *box) map[string]*modelRecord {
	changed := map[string]*modelRecord{}
	if d.w.Evidence.Stale != "" || !d.w.MainUnknown().IsZero() || d.w.Main.Unread[""] != "" || d.w.Main.Commit == "" {
		return changed
	}
	keep := func(m track.Model) {
		if old := b.models[m.Name]; old == nil || !same(old.Model, m) {
			changed[m.Name] = &modelRecord{Model: m}
			if old != nil {
				changed[m.Name].told = old.told
			}
		}
	}
	for _, mm := range d.p.Main.Models {
		accepted := d.w.Evidence.Accepted[mm.Model]
		if d.w.Main.Intent.Models.Of(mm.Model).Track.Tracker() != b.name || d.w.Main.Unread[mm.Model] != "" ||
			len(accepted) == 0 && mm.Accepted == nil {
			continue
		}
		keep(d.model(b, mm, accepted))
	}
	for name, old := range b.models {
		if _, there := d.w.Main.Intent.Models.Get(name); !there { // main has removed or renamed it
			gone := old.Model
			gone.Production = nil
			keep(gone)
		}
	}
	return changed
}

func (d deriver) model(b *box, mm plan.MainModel, accepted []delivery.Acceptance) track.Model {
	m := track.Model{Name: mm.Model, Note: registryNote}
	for _, a := range accepted {
		m.Versions = append(m.Versions, d.release(b, mm.Model, a))
	}
	slices.SortStableFunc(m.Versions, func(a, b track.Version) int { return a.Number - b.Number })
	if r := mm.Accepted; r != nil {
		is := func(v track.Version) bool { return v.Number == r.Version && v.Bundle == r.Bundle }
		v, ok := delivery.Find(m.Versions, is)
		if !ok { // of the model's former name
			v = d.release(b, r.Name, delivery.Acceptance{Model: r.Name, Version: r.Version, Bundle: r.Bundle,
				Spec: r.Spec})
		}
		m.Production = &v
	}
	return m
}

// release returns the version of a release. model is its name at that time.
func (d deriver) release(b *box, model string, a delivery.Acceptance) track.Version {
	v := track.Version{Number: a.Version, Bundle: a.Bundle, Source: d.bundles + "@" + string(a.Bundle),
		Tags: map[string]string{"aob.spec": string(a.Spec), "mlflow.source.git.commit": a.Commit}}
	lines := []string{fmt.Sprintf("Version %d of %s.", a.Version, model)}
	if t, ok := d.w.Evidence.Training(a.Bundle); ok {
		v.Run, v.Experiment = t.Training.Run, model
		v.Tags[track.RunTag] = string(v.Run)
		// The record says which pull request asked for the training.
		if r := b.runs[v.Run]; r != nil {
			v.Experiment = r.Run.Experiment
			for _, key := range []string{"aob.pull_request", "aob.pull_request.url"} {
				v.Tags[key] = r.Run.Tags[key]
			}
		}
	}
	statement, ok := delivery.Find(d.w.Evidence.Releases, func(s delivery.ReleaseStatement) bool {
		return s.Model == model && s.Version == a.Version && s.Bundle == a.Bundle
	})
	if ok {
		var verdicts []delivery.Verdict
		for _, g := range statement.Gates {
			verdicts = append(verdicts, g.Verdict)
			if g.Accept != nil {
				v.Tags["aob.accepted_by"] = delivery.PlainText(g.Accept.By, 200)
			}
		}
		maps.Copy(v.Tags, verdictTags(verdicts))
		for _, measured := range statement.File.Measured {
			lines = append(lines, figures(measured))
		}
	}
	maps.DeleteFunc(v.Tags, func(_, value string) bool { return value == "" })
	v.Note = strings.Join(lines, "\n\n")
	return v
}

// figures writes the figures of a gate for people, in Markdown, as they are in the release file.
func figures(m delivery.Measured) string {
	var list []string
	for _, metric := range slices.Sorted(maps.Keys(m.Metrics)) {
		f := m.Metrics[metric]
		text := fmt.Sprintf("%s %.4f", delivery.Markdown(metric), f.Value)
		if f.Low != nil && f.High != nil {
			text += fmt.Sprintf(" (%.4f to %.4f)", *f.Low, *f.High)
		}
		list = append(list, text)
	}
	return fmt.Sprintf("Gate %s, on %s: %s", delivery.Markdown(m.Gate), delivery.Count(m.Images, "image"),
		strings.Join(list, ", "))
}
