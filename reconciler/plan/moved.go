package plan

// This file finds which defaults of a trainer change where a model goes to another version of it.

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
)

// maxMoved is how many changed defaults are listed.
const maxMoved = 60

// movedDefaults says which defaults of a trainer differ between main's version of it and a pull request's. What the
// model sets itself does not move. It is zero for the same version, or another trainer.
func (m *maker) movedDefaults(main, pull delivery.Train) delivery.Fact {
	if main.With == pull.With || nameOf(main.With) != nameOf(pull.With) {
		return delivery.Fact{}
	}
	old, known := m.w.Server.Trainers[main.With]
	now, there := m.w.Server.Trainers[pull.With]
	v := values{FromModel: main.With, Model: pull.With}
	switch {
	case !there: // which is an error elsewhere
		return delivery.Fact{}
	case !known:
		return fact(code.DefaultsUnknown, v)
	}
	names := maps.Clone(old.Values)
	maps.Copy(names, now.Values)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		before, had := old.Values[name]
		after, has := now.Values[name]
		_, set := pull.Args[name]
		switch {
		case set || had && has && reflect.DeepEqual(before, after):
		case !had:
			v.Names = append(v.Names, fmt.Sprintf("%s is new: %s", name, short(after)))
		case !has:
			v.Names = append(v.Names, fmt.Sprintf("%s is gone: it was %s", name, short(before)))
		default:
			v.Names = append(v.Names, fmt.Sprintf("%s %s -> %s", name, short(before), short(after)))
		}
	}
	if more := len(v.Names) - maxMoved; more > 0 {
		v.Names = append(v.Names[:maxMoved], fmt.Sprintf("and %d more", more))
	}
	return fact(code.DefaultsMoved, v)
}

// short writes a value as JSON, cut to what fits a line.
func short(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return "?"
	}
	return delivery.PlainText(string(text), 80)
}
