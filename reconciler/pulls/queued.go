package pulls

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/plan"
)

// Queued returns the commits that a merge queue wants to make main's, sorted by their branches. prefix begins the names
// of these branches: PREFIX MAIN/pr-NUMBER-COMMIT. It must be called after Read.
func (r *Reader) Queued(prefix string) []plan.Proposal {
	var list []plan.Proposal
	begin := git.Branch + prefix + r.branch + "/pr-"
	for _, ref := range slices.Sorted(maps.Keys(r.now.Refs)) {
		rest, ok := strings.CutPrefix(ref, begin)
		if !ok || prefix == "" || r.now.Stale {
			continue
		}
		number, _, _ := strings.Cut(rest, "-")
		n, _ := strconv.Atoi(number)
		p := plan.Proposal{PullRequest: delivery.PullRequest{Number: n, Head: r.now.Refs[ref],
			HeadRef: strings.TrimPrefix(ref, git.Branch), Base: r.branch}, Permission: delivery.PermissionWrite}
		err := r.readProposal(&p, &budget{})
		_, waits := errors.AsType[delivery.Wait](err)
		// The queue makes exactly this commit main's, so no other way of merging counts. Nobody allows runs for it.
		p.BothChanged, p.Undone, p.Moved, p.Permission = nil, nil, nil, delivery.PermissionNone
		switch {
		case err == nil:
		case waits || !isSettled(err):
			p.Pending = plain(err.Error())
			r.turn.In(time.Second, "a commit of the merge queue is still to be read")
		default:
			p.Complaints = []delivery.Complaint{{Text: err.Error()}}
		}
		list = append(list, p)
	}
	return list
}
