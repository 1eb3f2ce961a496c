package reconciler

// This file reads from main's history when fleets were made to run another model, and
// which gates covered what they ran until then.

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
	"github.com/autonomos/aob/reconciler/plan"
)

// repointed reads the commits that made fleets run another model than they were told
// to last, back to the one that named that model. A fleet whose history cannot be read is named in the world.
func (r *Reconciler) repointed(w plan.World) map[string][]plan.Repoint {
	known := r.seen.repoints[w.Main.Commit]
	if known == nil {
		known = map[string][]plan.Repoint{}
		r.seen.repoints = map[string]map[string][]plan.Repoint{w.Main.Commit: known}
	}
	all := map[string][]plan.Repoint{}
	var bad delivery.Unreadable
	needs := plan.NeedsRepoints(w)
	for _, fleet := range slices.Sorted(maps.Keys(needs)) {
		model := needs[fleet]
		list, ok := known[fleet+" "+model]
		if !ok {
			var err error
			if list, err = r.repointsOf(w.Main.Commit, fleet, model); err != nil {
				w.Main.UnreadFleets[fleet] = err.Error()
				bad = append(bad, delivery.Unread{What: fleet, Why: err.Error()})
				continue
			}
			known[fleet+" "+model] = list
		}
		all[fleet] = list
	}
	if len(bad) == 0 {
		r.troubles.note(fleetsTrouble, nil)
		return all
	}
	r.troubles.note(fleetsTrouble, bad)
	r.wakeAt(r.Now().Add(pastLasts))
	return all
}

func (r *Reconciler) repointsOf(main, fleet, model string) ([]plan.Repoint, error) {
	path := "fleets/" + fleet + ".yaml"
	versions, err := r.Repo.History(main, path)
	if err != nil {
		return nil, err
	}
	runs := func(commit string) (string, error) {
		data, err := r.fileAt(commit, path)
		if err != nil || data == nil {
			return "", err
		}
		f, _ := intent.ParseFile(intent.File{Path: path, Size: int64(len(data)), Data: data}, intent.Options{}).Fleet()
		return f.Runs, nil
	}
	var list []plan.Repoint
	for _, v := range versions {
		if v.Side || v.Parent == "" {
			continue
		}
		now, err := runs(v.Commit)
		if err != nil {
			return nil, err
		}
		if now == model {
			break
		}
		was, err := runs(v.Parent)
		if err != nil {
			return nil, err
		}
		if was == "" || was == now {
			continue
		}
		before, err := r.tree(v.Parent)
		if err != nil {
			return nil, err
		}
		step := plan.Repoint{Commit: v.Commit, From: was}
		for _, name := range before.intent.Covering(was) {
			step.Gates = append(step.Gates, before.intent.Gates[name])
		}
		list = append(list, step)
	}
	return list, nil
}
