package forge

// This file reads and writes comments, and asks people questions in comments.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"code.gitea.io/sdk/gitea"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Comment creates the comment with the marker, or replaces its text. The marker is a line
// of the comment that is not shown. Comments of other users are ignored.
func (f *Gitea) Comment(ctx context.Context, pr int, marker, body string) (err error) {
	defer f.explain(&err, "comment on pull request %d", pr)
	c, me, err := f.session(ctx)
	if err != nil {
		return err
	}
	text := comment(marker, body)
	old, err := f.marked(ctx, me, pr, marker)
	switch {
	case err != nil || old != nil && old.Body == text:
		return err
	case old != nil:
		_, _, err = c.EditIssueComment(f.owner, f.repo, old.ID, gitea.EditIssueCommentOption{Body: text})
	default:
		_, _, err = c.CreateIssueComment(f.owner, f.repo, int64(pr), gitea.CreateIssueCommentOption{Body: text})
	}
	return err
}

// CommentBody returns the current text of the comment with the marker, cut as Comment cuts
// it. Comments of other users are ignored.
func (f *Gitea) CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error) {
	defer f.explain(&err, "read aob's comment on pull request %d", pr)
	_, me, err := f.session(ctx)
	if err != nil {
		return "", false, err
	}
	old, err := f.marked(ctx, me, pr, marker)
	if err != nil || old == nil {
		return "", false, err
	}
	return strings.TrimPrefix(old.Body, hidden(marker)), true, nil
}

// marked returns the first of AOB's own comments that begins with the marker, or nil.
func (f *Gitea) marked(ctx context.Context, me account, pr int, marker string) (*gitea.Comment, error) {
	return f.first(ctx, pr, func(c *gitea.Comment) bool {
		return c.Poster.ID == me.id && strings.HasPrefix(c.Body, hidden(marker))
	})
}

// first returns the oldest comment on a pull request for which ok returns true, or nil.
func (f *Gitea) first(ctx context.Context, pr int, ok func(*gitea.Comment) bool) (first *gitea.Comment, err error) {
	err = f.comments(ctx, pr, func(c *gitea.Comment) {
		if ok(c) && (first == nil || c.ID < first.ID) {
			first = c
		}
	})
	return first, err
}

// comments calls each with every comment on a pull request. It decodes one comment at a
// time, since anybody may write thousands of long ones.
func (f *Gitea) comments(ctx context.Context, pr int, each func(*gitea.Comment)) error {
	ctx = context.WithValue(ctx, responseLimit{}, int64(maxComments))
	path := fmt.Sprintf("issues/%d/comments", pr)
	return f.send(ctx, http.MethodGet, path, nil, func(d *json.Decoder) error {
		if t, err := d.Token(); err != nil || t != json.Delim('[') {
			return errors.New("the response is not a list of comments")
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

// Commands returns the comments on a pull request with a command to AOB, oldest first: comments of other users whose
// first line begins with /aob. Other writers may have edited them without a trace, so none is verified.
func (f *Gitea) Commands(ctx context.Context, pr int) (commands []delivery.Comment, err error) {
	defer f.explain(&err, "read the comments on pull request %d", pr)
	_, me, err := f.session(ctx)
	if err != nil {
		return nil, err
	}
	err = f.comments(ctx, pr, func(c *gitea.Comment) {
		if c.Poster.ID == me.id || delivery.CommandLine(c.Body) == "" {
			return
		}
		commands = append(commands, delivery.Comment{ID: c.ID, Author: c.Poster.UserName, Body: c.Body,
			At: c.Created.UTC()})
		if len(commands) >= 2*MaxCommands {
			commands = newest(commands)
		}
	})
	return newest(commands), err
}

// Ask makes sure that a comment of AOB on a pull request asks the question, and returns
// who has agreed: the users who reacted to that comment with 👍.
//
// Every writer may edit AOB's comments, and Gitea's times are whole seconds. So a comment counts only if its text is
// exactly the question, and if it was not changed after the second in which it was created. A reaction counts only if
// it is younger than that second: then the user has seen the question as it is now. Nobody can react in another user's
// name.
//
// A question that is edited or deleted is asked again after growing pauses, at most maxAsks times.
func (f *Gitea) Ask(ctx context.Context, pr int, question string) (_ []delivery.Consent, err error) {
	text := comment("question", question)
	defer f.explain(&err, "ask a question on pull request %d", pr)
	c, me, err := f.session(ctx)
	if err != nil {
		return nil, err
	}
	intact := func(c *gitea.Comment) bool {
		return c != nil && c.Poster != nil && c.Poster.ID == me.id && c.Body == text && c.Updated.Equal(c.Created)
	}
	asked, err := f.first(ctx, pr, intact)
	if err != nil {
		return nil, err
	}
	if asked == nil {
		if err := f.questions.may(pr, question, time.Now()); err != nil {
			return nil, err
		}
		_, _, err := c.CreateIssueComment(f.owner, f.repo, int64(pr), gitea.CreateIssueCommentOption{Body: text})
		return nil, err
	}
	reactions, _, err := c.GetIssueCommentReactions(f.owner, f.repo, asked.ID)
	if err != nil {
		return nil, err
	}
	var list []delivery.Consent
	for _, r := range reactions {
		if r != nil && r.User != nil && r.Reaction == "+1" && r.Created.After(asked.Created) {
			list = append(list, delivery.Consent{By: r.User.UserName, Comment: asked.ID, At: r.Created.UTC()})
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	// The question may have been edited before the reactions were read.
	again, _, err := c.GetIssueComment(f.owner, f.repo, asked.ID)
	if err != nil || !intact(again) {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b delivery.Consent) int { return a.At.Compare(b.At) })
	return list, nil
}
