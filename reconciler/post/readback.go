package post

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/forge"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/turn"
)

// sameContent reports whether the content on the forge is what AOB posted. Forges cut long content and change line
// ends. Any other difference means that somebody has edited it.
func sameContent(key, there, posted string) bool {
	plain := func(s string) string { return strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n")) }
	there = plain(there)
	return there == plain(posted) || there == plain(asKept(key, posted))
}

// asKept returns the part of a post that a forge stores.
func asKept(key, content string) string {
	if strings.HasPrefix(key, statusKeys) {
		content, details, found := strings.Cut(content, detailsMark)
		state, description, _ := strings.Cut(content, " ")
		content = state + " " + forge.Describe(description)
		if found {
			content += detailsMark + details
		}
		return content
	}
	return forge.CutComment(content)
}

// ReadBack compares the content on the forge with what was posted. If content was removed, edited or posted by somebody
// else, its record is changed, so that AOB posts it again. open are the open pull requests.
func (b *Board) ReadBack(ctx context.Context, statuses map[string]poll.StatusRead, bodies map[int]poll.BodyRead,
	open []delivery.PullRequest) {
	for commit, read := range statuses {
		prefix := b.statusKey(commit, "")
		there := map[string]bool{}
		for _, s := range read.List {
			key := prefix + s.Context
			there[key] = true
			content := statusContent(delivery.Check{State: s.State, Description: s.Description})
			if s.Details != "" {
				content += detailsMark + string(s.Details)
			}
			if !s.Mine {
				last, err := b.posted(ctx, key)
				if err == nil && last.Content != "" && sameContent(key, content, last.Content) {
					continue // AOB has posted it with another account
				}
				if last.Content != "" && !last.At.After(read.At) && !b.posts.Has(key) {
					b.dispute(key, commit, s)
				}
				forged := b.forgedKey(commit, s.Context)
				if by, _ := b.posted(ctx, forged); by.Content != s.By && s.By != "" {
					b.turn.Log.Warn("somebody else has set a status of AOB; setting it again", "commit", commit,
						"context", s.Context, "user", s.By, "state", string(s.State))
					b.remember(forged, ledger.Record{Content: s.By, At: read.At, Count: 1})
					b.turn.Note(turn.LedgerWrites, b.Ledger.PutRecord(ctx, forged, s.By, read.At))
				}
				content = ""
			}
			b.record(ctx, key, content, read.At)
		}
		if _, err := b.posted(ctx, prefix+contextPrefix); err != nil {
			continue
		}
		for _, key := range b.byCommit[prefix] {
			if !there[key] {
				b.record(ctx, key, "", read.At)
			}
		}
	}
	for _, pr := range open {
		if read, ok := bodies[pr.Number]; ok {
			b.record(ctx, b.commentKey(pr), read.Body, read.At)
		}
	}
}

// A dispute is a status that AOB and somebody else set alternately. The pause grows each time, because forges store all
// statuses and accept a limited number for one context. If theirs is a success and AOB's is not, there is no pause,
// because people could merge meanwhile.
type dispute struct {
	by, commit, context string

	green bool      // theirs is a success
	times int       // how often somebody else has set it
	last  time.Time // when that was last found
	next  time.Time // when AOB sets it again
}

// Limits of disputes, and the name of their trouble.
const (
	MaxDisputePause = 10 * time.Minute
	DisputeEnds     = 2 * MaxDisputePause // after the last time
	DisputeTrouble  = "somebody else sets statuses of AOB again and again; AOB sets each again, " +
		"after a pause that grows to 10 minutes if theirs is not a success"
)

// dispute counts a status that somebody else has set after AOB. The first time, AOB sets it again at once.
func (b *Board) dispute(key, commit string, s delivery.Status) {
	now := b.turn.Now()
	d := b.disputes[key]
	if now.Sub(d.last) >= DisputeEnds {
		d = dispute{}
	}
	d.by, d.commit, d.context, d.last, d.next = s.By, commit, s.Context, now, now
	d.green = s.State == delivery.CheckSuccess
	if d.times > 0 {
		d.next = now.Add(min(time.Second<<min(d.times-1, 20), MaxDisputePause))
	}
	d.times++
	b.disputes[key] = d
}

// EndDisputes drops the disputes that are over, and notes a trouble for the others.
func (b *Board) EndDisputes() {
	now := b.turn.Now()
	maps.DeleteFunc(b.disputes, func(_ string, d dispute) bool { return now.Sub(d.last) >= DisputeEnds })
	errs := map[string]error{}
	for key, d := range b.disputes {
		if d.times > 1 {
			errs[key] = delivery.Blockedf("find out what sets it, such as a script or a CI job, and stop it",
				"the user %s sets %s of commit %.10s", delivery.Terminal(d.by), d.context, d.commit)
			b.turn.At(d.last.Add(DisputeEnds), "a dispute about a status may be over")
		}
	}
	b.turn.Note(DisputeTrouble, turn.First(errs, "statuses"))
}

// contextPrefix is the prefix of AOB's contexts.
const contextPrefix = "aob/"

// record replaces the record of a key by the content that was read on the forge; "" means that there is none, or that
// it is somebody else's. Content that was posted after the reading remains.
func (b *Board) record(ctx context.Context, key, content string, at time.Time) {
	last, err := b.posted(ctx, key)
	if err != nil || b.posts.Has(key) || last.At.After(at) ||
		content != "" && sameContent(key, content, last.Content) || content == last.Content {
		return
	}
	if last.Count > 0 && last.Content != "" {
		b.turn.Log.Warn("the forge does not show what AOB posted; posting it again", "what", key, "posted",
			last.Content, "stands", content)
	}
	last.Content = content
	b.remember(key, last)
	b.turn.Soon("the forge does not show what was posted")
	b.turn.Note(turn.LedgerWrites, b.Ledger.PutRecord(ctx, key, content, last.At))
}

// maxForged is how many statuses of other people a comment lists.
const maxForged = 20

// ForgedNote returns the part of the comment about statuses that other people have set, or "". checks are those of AOB.
func (b *Board) ForgedNote(ctx context.Context, commit string, checks []delivery.Check) (string, error) {
	forged, err := b.forged(ctx, commit)
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
		if b.disputes[b.statusKey(commit, name)].times > 1 {
			sets, again = "sets", " again and again"
			answer = "AOB answers after a pause that grows to 10 minutes"
		}
		lines = append(lines, fmt.Sprintf("\n- The user %s %s the status %s of this commit%s. %s: only AOB's own "+
			"statuses count.", delivery.Markdown(forged[name]), sets, delivery.Markdown(delivery.Cut(name, 100)), again,
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
