package reconciler

import (
	"fmt"
	"time"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/history"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/words"
)

// Notices says what does not work, since when, and what to do about it.
func (r *Reconciler) Notices() []string {
	var list []string
	if r.watchOnly != nil {
		list = append(list, r.watchOnly.Error())
	}
	pulls := r.answers.List()
	known := r.last.Load() != nil
	if !known {
		list = append(list, words.Text(delivery.Fact{Code: code.ServerReading}))
	}
	if slow := r.git.Slow(); slow != "" {
		list = append(list, slow)
	}
	list = append(list, r.Fleet.Unreadable()...)
	for _, t := range r.turn.Troubles() {
		line := t.String()
		if t.What == poll.ListTrouble {
			if line += fmt.Sprintf("; it is of %s", pulls.At.UTC().Format("2006-01-02 15:04:05 UTC")); !pulls.Ever {
				line = t.String() + "; it has not been read since the start"
			}
		}
		list = append(list, line)
	}
	posts, postedAt := r.board.Oldest()
	pushes, pushedAt := r.pushes.Oldest()
	since := postedAt
	if posts == 0 || pushes > 0 && pushedAt.Before(since) {
		since = pushedAt
	}
	if n := posts + pushes; n > 0 && r.Now().Sub(since) > sendSlow {
		list = append(list, words.Text(delivery.Fact{Code: code.SendingSlow,
			Values: delivery.Values{Count: n, At: since}}))
	}
	return list
}

// Unknown says why there is no snapshot yet.
func (r *Reconciler) Unknown() error {
	for _, t := range r.turn.Troubles() {
		if t.What == poll.GitTrouble || t.What == history.MainTrouble || t.What == turnTrouble {
			return delivery.Wait{For: time.Second, What: "nothing is known yet: " + t.String()}
		}
	}
	if slow := r.git.Slow(); slow != "" {
		return delivery.Wait{For: time.Second, What: "nothing is known yet: " + slow}
	}
	return delivery.Wait{For: time.Second, What: "aob serve has only just started"}
}
