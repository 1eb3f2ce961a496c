package history

import (
	"maps"
	"slices"

	"github.com/autonomos/aob/reconciler/commits"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// Moves returns the commits of main that changed which model a fleet runs, back to the commit that introduced the
// model of plan.NeedsRepoints, with the gates of the model that the fleet ran before.
func (h *History) Moves(w plan.World) map[string][]plan.Repoint {
	if h.movesAt != w.Main.Commit {
		h.moves, h.movesAt = map[string][]plan.Repoint{}, w.Main.Commit
	}
	all := map[string][]plan.Repoint{}
	var bad delivery.Unreadable
	needs := plan.NeedsRepoints(w)
	for _, fleet := range slices.Sorted(maps.Keys(needs)) {
		key := fleet + " " + needs[fleet]
		list, ok := h.moves[key]
		if !ok {
			var err error
			if list, err = h.movesOf(w.Main.Commit, fleet, needs[fleet]); err != nil {
				w.Main.UnreadFleets[fleet] = err.Error()
				bad = append(bad, delivery.Unread{What: fleet, Why: err.Error()})
				continue
			}
			h.moves[key] = list
		}
		all[fleet] = list
	}
	if h.noteUnread(fleetsTrouble, bad); len(bad) > 0 {
		h.turn.In(retryAfter, "the history of a fleet is read again")
	}
	return all
}

func (h *History) movesOf(main, fleet, model string) ([]plan.Repoint, error) {
	path := "fleets/" + fleet + ".yaml"
	versions, err := h.repo.History(main, path)
	if err != nil {
		return nil, err
	}
	runs := func(commit string) (string, error) {
		data, err := h.commits.File(commit, path)
		if err != nil || data == nil {
			return "", err
		}
		f, _ := commits.Document(path, data).Value.(delivery.Fleet)
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
		before, err := runs(v.Parent)
		if err != nil {
			return nil, err
		}
		if before == "" || before == now {
			continue
		}
		tree, err := h.commits.Tree(v.Parent)
		if err != nil {
			return nil, err
		}
		step := plan.Repoint{Commit: v.Commit, From: before}
		for _, name := range tree.Intent.Covering(before) {
			step.Gates = append(step.Gates, tree.Intent.Gates.Of(name))
		}
		list = append(list, step)
	}
	return list, nil
}
