package reconciler

// This file compares what stands on the forge with what AOB said there, and has it said again where they differ.

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/forge"
	"github.com/autonomos/aob/reconciler/plan"
)

// sameWords reports whether what stands on the forge under a key is what AOB said there. Forges cut what is too long,
// and change the ends of lines. Everything else is a difference: anybody may have edited it.
func sameWords(key, there, said string) bool {
	plain := func(s string) string { return strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n")) }
	there = plain(there)
	return there == plain(said) || there == plain(asKept(key, said))
}

// asKept returns what a forge keeps of the words that are said under a key.
func asKept(key, words string) string {
	if strings.HasPrefix(key, statusKeys) {
		state, description, _ := strings.Cut(words, " ")
		return state + " " + forge.Describe(description)
	}
	return forge.CutComment(words)
}

// readBack compares what stands on the forge with what was said, and forgets what is lost, edited or somebody else's:
// it is said again.
func (r *Reconciler) readBack(ctx context.Context) {
	statuses, bodies := r.forgeNow.readNews()
	for commit, read := range statuses {
		prefix := r.statusKey(commit, "")
		there := map[string]bool{}
		for _, s := range read.list {
			key := prefix + s.Context
			there[key] = true
			words := string(s.State) + " " + s.Description
			if !s.Mine {
				said, err := r.said(ctx, key)
				if err == nil && said.Content != "" && sameWords(key, words, said.Content) {
					continue // AOB said it, and had another account then
				}
				if said.Content != "" && !said.At.After(read.at) && !r.outbox.has(key) {
					r.dispute(key, commit, s)
				}
				forged := r.forgedKey(commit, s.Context)
				if by, _ := r.said(ctx, forged); by.Content != s.By && s.By != "" {
					r.Log.Warn("somebody else set a status of AOB's; setting it again", "commit", commit, "context",
						s.Context, "user", s.By, "state", string(s.State))
					r.remember(forged, Record{Content: s.By, At: read.at, Count: 1})
					r.troubles.note(ledgerWrites, r.Ledger.PutRecord(ctx, forged, s.By, read.at))
				}
				words = ""
			}
			r.stands(ctx, key, words, read.at)
		}
		if _, err := r.said(ctx, prefix+contextPrefix); err != nil {
			continue
		}
		for _, key := range r.saidOn[prefix] {
			if !there[key] {
				r.stands(ctx, key, "", read.at)
			}
		}
	}
	for n, read := range bodies {
		for _, pr := range r.forgeNow.list().prs {
			if pr.Number == n {
				r.stands(ctx, r.commentKey(pr), read.body, read.at)
			}
		}
	}
}

// A dispute is a status that AOB and somebody else set by turns. Each turn makes the next pause longer: forges keep
// every status for ever, and take only so many of one context. Where theirs is success and AOB's is not there is no
// pause, as people could merge meanwhile.
type dispute struct {
	by, commit, context string

	green bool // theirs is success

	times int       // that somebody else has set it
	last  time.Time // when that was seen last
	next  time.Time // AOB sets it again
}

const (
	maxDisputePause = 10 * time.Minute
	disputeEnds     = 2 * maxDisputePause // after the last time
	disputeTrouble  = "somebody else sets statuses of AOB's again and again; AOB sets each again, " +
		"after a pause that grows to 10 minutes where theirs is no success"
)

// dispute counts a status that somebody else set after AOB had set it. The first time AOB sets it again at once.
func (r *Reconciler) dispute(key, commit string, s delivery.Status) {
	now := r.Now()
	d := r.disputes[key]
	if now.Sub(d.last) >= disputeEnds {
		d = dispute{}
	}
	d.by, d.commit, d.context, d.last, d.next = s.By, commit, s.Context, now, now
	d.green = s.State == delivery.CheckSuccess
	if d.times > 0 {
		d.next = now.Add(min(time.Second<<min(d.times-1, 20), maxDisputePause))
	}
	d.times++
	r.disputes[key] = d
}

// endDisputes drops the disputes that are over, and shows the others in the status.
func (r *Reconciler) endDisputes() {
	now := r.Now()
	maps.DeleteFunc(r.disputes, func(_ string, d dispute) bool { return now.Sub(d.last) >= disputeEnds })
	errs := map[string]error{}
	for key, d := range r.disputes {
		if d.times > 1 {
			errs[key] = delivery.Blockedf("find out what sets it, such as a script or a CI job, and stop it",
				"the user %s sets %s of commit %.10s",
				delivery.Terminal(d.by), d.context, d.commit)
			r.wakeAt(d.last.Add(disputeEnds))
		}
	}
	r.troubles.note(disputeTrouble, firstOf(errs, "statuses"))
}

// contextPrefix is what all of AOB's contexts begin with.
const contextPrefix = "aob/"

// stands takes what was read under a key for what was said there; "" is nothing, or somebody else's. What was said
// since it was read stays as it is.
func (r *Reconciler) stands(ctx context.Context, key, words string, at time.Time) {
	said, err := r.said(ctx, key)
	if err != nil || r.outbox.has(key) || said.At.After(at) || words != "" && sameWords(key, words, said.Content) ||
		words == said.Content {
		return
	}
	if said.Count > 0 && said.Content != "" {
		r.Log.Warn("what AOB said is not what stands on the forge; saying it again", "what", key, "said", said.Content,
			"stands", words)
	}
	said.Content = words
	r.remember(key, said)
	r.seen.woken = true
	r.troubles.note(ledgerWrites, r.Ledger.PutRecord(ctx, key, words, said.At))
}

// maxForged is how many statuses of somebody else's a comment names.
const maxForged = 20

// forgedNote names who set statuses that AOB did not set; "" where nobody did. checks are those that AOB sets.
func (r *Reconciler) forgedNote(ctx context.Context, commit string, checks []delivery.Check) (string, error) {
	forged, err := r.forgedOn(ctx, commit)
	if err != nil {
		return "", err
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(forged)) {
		sets, answer := "set", "AOB set it again"
		if !slices.ContainsFunc(checks, func(c delivery.Check) bool { return c.Context == name }) {
			answer = "AOB asks for no such status here now, and set one that says so"
		}
		again := ""
		if r.disputes[r.statusKey(commit, name)].times > 1 {
			sets, again = "sets", " again and again"
			answer = "AOB answers after a pause that grows to 10 minutes"
		}
		lines = append(lines, fmt.Sprintf("\n- The user %s %s the status %s of this commit%s. %s: only AOB's own "+
			"statuses count.", delivery.Markdown(forged[name]), sets, delivery.Markdown(forge.Cut(name, 100)), again,
			answer))
	}
	if len(lines) == 0 {
		return "", nil
	}
	if more := len(lines) - maxForged; more > 0 {
		lines = append(lines[:maxForged], fmt.Sprintf("\n- The same holds for %d more.", more))
	}
	return "\n\n**Somebody else set a status of AOB's**\n" + strings.Join(lines, ""), nil
}

// readBackToo names the commits besides the heads of pull requests whose statuses are read back.
func (r *Reconciler) readBackToo(p plan.Plan) []string {
	list := []string{p.Main.Commit}
	for _, f := range p.Fleets {
		commit, _, _ := strings.Cut(r.saidCache[owedKey+f.Fleet].Content, " ")
		if commit != "" && !slices.Contains(list, commit) {
			list = append(list, commit)
		}
	}
	return list
}
