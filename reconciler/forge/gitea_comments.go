package forge

// This file reads and writes comments, and asks people in comments of AOB's own.

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"code.gitea.io/sdk/gitea"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Comment makes the comment with the marker, or changes it to the body. The
// marker is hidden in it. A comment of another user is never taken for ours.
func (f *Gitea) Comment(ctx context.Context, pr int, marker, body string) error {
	doing := fmt.Sprintf("comment on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return f.explain(doing, err)
	}
	text := comment(marker, body)
	old, err := f.marked(ctx, c, pr, marker)
	switch {
	case err != nil:
		return f.explain(doing, err)
	case old != nil && old.Body == text:
		return nil
	case old != nil:
		_, _, err := c.EditIssueComment(f.owner, f.repo, old.ID, gitea.EditIssueCommentOption{Body: text})
		return f.explain(doing, err)
	}
	_, _, err = c.CreateIssueComment(f.owner, f.repo, int64(pr), gitea.CreateIssueCommentOption{Body: text})
	return f.explain(doing, err)
}

// CommentBody returns the text of the comment with the marker as it is now, cut as
// Comment cuts it. A comment of another user is never taken for ours.
func (f *Gitea) CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error) {
	doing := fmt.Sprintf("read aob's comment on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return "", false, f.explain(doing, err)
	}
	old, err := f.marked(ctx, c, pr, marker)
	if err != nil || old == nil {
		return "", false, f.explain(doing, err)
	}
	return strings.TrimPrefix(old.Body, hidden(marker)), true, nil
}

// marked returns the first comment of AOB's own that begins with the marker, or nil.
func (f *Gitea) marked(ctx context.Context, c *gitea.Client, pr int, marker string) (*gitea.Comment, error) {
	me, _, err := f.myself(c)
	if err != nil {
		return nil, err
	}
	var first *gitea.Comment
	err = f.comments(ctx, pr, func(c *gitea.Comment) {
		if c.Poster.ID == me && strings.HasPrefix(c.Body, hidden(marker)) && (first == nil || c.ID < first.ID) {
			first = c
		}
	})
	return first, err
}

// comments calls each with the comments on a pull request. They are read one after
// another, since anybody may write thousands of long ones.
func (f *Gitea) comments(ctx context.Context, pr int, each func(*gitea.Comment)) error {
	ctx = context.WithValue(ctx, responseLimit{}, int64(maxComments))
	return f.get(ctx, fmt.Sprintf("issues/%d/comments", pr), func(d *json.Decoder) error {
		if t, err := d.Token(); err != nil || t != json.Delim('[') {
			return fmt.Errorf("the server's answer is no list of comments")
		}
		for d.More() {
			var c *gitea.Comment
			if err := d.Decode(&c); err != nil {
				return err
			}
			if c != nil && c.Poster != nil {
				each(c)
			}
		}
		_, err := d.Token()
		return err
	})
}

// Commands returns the comments on a pull request that ask something of AOB,
// oldest first: those whose first line begins with /aob, and not AOB's own. Other
// writers may have edited them, and nothing shows it: none is vouched for.
func (f *Gitea) Commands(ctx context.Context, pr int) ([]delivery.Comment, error) {
	doing := fmt.Sprintf("read the comments on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	me, _, err := f.myself(c)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	var asked []delivery.Comment
	err = f.comments(ctx, pr, func(said *gitea.Comment) {
		if said.Poster.ID == me || delivery.CommandLine(said.Body) == "" {
			return
		}
		asked = append(asked, delivery.Comment{ID: said.ID, Author: said.Poster.UserName, Body: said.Body,
			At: said.Created.UTC()})
		if len(asked) >= 2*MaxCommands {
			asked = newest(asked)
		}
	})
	return newest(asked), f.explain(doing, err)
}

// Ask makes sure that AOB's question stands on a pull request as a comment of its
// own, and returns who has agreed to it: those who reacted to that comment with 👍.
//
// Every writer may edit AOB's comments, and Gitea's times are whole seconds. So a
// comment counts only if its text is the question, letter by letter, and it was not
// changed after the second in which it was made; and a reaction counts only if it
// is younger than that second. Whoever reacted has then seen the question as it
// stands. Only the user who reacts can make that reaction.
//
// Where no such comment is there, it is made. One that is edited or deleted again
// and again is made again with growing pauses, and then no more.
func (f *Gitea) Ask(ctx context.Context, pr int, question string) ([]delivery.Consent, error) {
	doing := fmt.Sprintf("ask back on pull request %d", pr)
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	me, _, err := f.myself(c)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	text := comment("question", question)
	intact := func(c *gitea.Comment) bool {
		return c != nil && c.Poster != nil && c.Poster.ID == me && c.Body == text && c.Updated.Equal(c.Created)
	}
	var stands *gitea.Comment
	err = f.comments(ctx, pr, func(c *gitea.Comment) {
		if intact(c) && (stands == nil || c.ID < stands.ID) {
			stands = c
		}
	})
	if err != nil {
		return nil, f.explain(doing, err)
	}
	if stands == nil {
		if err := f.mayAsk(pr, question, time.Now()); err != nil {
			return nil, err
		}
		_, _, err := c.CreateIssueComment(f.owner, f.repo, int64(pr), gitea.CreateIssueCommentOption{Body: text})
		return nil, f.explain(doing, err)
	}
	reactions, _, err := c.GetIssueCommentReactions(f.owner, f.repo, stands.ID)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	var list []delivery.Consent
	for _, r := range reactions {
		if r != nil && r.User != nil && r.Reaction == "+1" && r.Created.After(stands.Created) {
			list = append(list, delivery.Consent{By: r.User.UserName, Comment: stands.ID, At: r.Created.UTC()})
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	// It may have been edited between the first look and the reactions.
	again, _, err := c.GetIssueComment(f.owner, f.repo, stands.ID)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	if !intact(again) {
		return nil, nil
	}
	slices.SortStableFunc(list, func(a, b delivery.Consent) int { return a.At.Compare(b.At) })
	return list, nil
}

const (
	// maxAsks is how often one question is asked as long as a server runs.
	maxAsks = 5
	// maxQuestions is how many questions a pull request gets without a pause. After
	// them it gets one each questionPause, so that a writer who puts orders into
	// other people's comments fills no pull request, and silences no owner for good.
	maxQuestions  = 20
	questionPause = 10 * time.Minute
)

// mayAsk counts how often a question was asked, and the questions of a pull request.
// The pause after each time that the same one is asked grows.
func (f *Gitea) mayAsk(pr int, question string, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	of := strconv.Itoa(pr)
	question = of + " " + question
	a, all := f.asks[question], f.asks[of]
	if all.count >= maxQuestions && now.Before(all.next) {
		return delivery.Wait{For: all.next.Sub(now),
			What: fmt.Sprintf("aob has asked %d questions on pull request %d, and asks the next one later", all.count,
				pr)}
	}
	if a.count >= maxAsks {
		return delivery.Blockedf("find out who edits or deletes aob's comments there",
			"a question of aob's was changed or removed %d times, and is not asked again", a.count)
	}
	if now.Before(a.next) {
		return delivery.Wait{For: a.next.Sub(now),
			What: "a question of aob's was changed or removed, and is asked again later"}
	}
	if f.asks == nil || len(f.asks) > 10_000 {
		f.asks = map[string]asks{}
	}
	a.next = now.Add(time.Second << (3 * a.count)) // 1 s, 8 s, about a minute, and so on
	a.count++
	all.count, all.next = all.count+1, now.Add(questionPause)
	f.asks[question], f.asks[of] = a, all
	return nil
}

// asks is how often a question was asked, and when it may be asked again.
type asks struct {
	count int
	next  time.Time
}
