package forge

// This file reads and writes comments on GitHub, and asks people questions in comments.

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/go-github/v88/github"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Comment creates the comment with the marker, or replaces its text. The marker is a line of the comment that is not
// shown. Comments of other users are ignored.
func (f *GitHub) Comment(ctx context.Context, pr int, marker, body string) (err error) {
	defer f.explain(&err, "comment on pull request %d", pr)
	text := comment(marker, body)
	old, err := f.marked(ctx, pr, marker)
	switch {
	case err != nil || old != nil && old.GetBody() == text:
		return err
	case old != nil:
		_, _, err = f.client.Issues.EditComment(ctx, f.owner, f.repo, old.GetID(), &github.IssueComment{Body: &text})
	default:
		_, _, err = f.client.Issues.CreateComment(ctx, f.owner, f.repo, pr, &github.IssueComment{Body: &text})
	}
	return err
}

// CommentBody returns the current text of the comment with the marker, cut as Comment cuts it. Comments of other users
// are ignored.
func (f *GitHub) CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error) {
	defer f.explain(&err, "read aob's comment on pull request %d", pr)
	old, err := f.marked(ctx, pr, marker)
	if err != nil || old == nil {
		return "", false, err
	}
	return strings.TrimPrefix(old.GetBody(), hidden(marker)), true, nil
}

// marked returns the first of AOB's own comments that begins with the marker, or nil.
func (f *GitHub) marked(ctx context.Context, pr int, marker string) (*github.IssueComment, error) {
	me, err := f.user(ctx)
	if err != nil {
		return nil, err
	}
	return f.first(ctx, pr, func(c *github.IssueComment) bool {
		return c.GetUser().GetID() == me.id && strings.HasPrefix(c.GetBody(), hidden(marker))
	})
}

// first returns the oldest comment on a pull request for which ok returns true, or nil. GitHub lists the oldest first.
func (f *GitHub) first(ctx context.Context, pr int, ok func(*github.IssueComment) bool) (first *github.IssueComment,
	err error) {
	err = f.comments(ctx, pr, func(c *github.IssueComment) bool {
		if ok(c) {
			first = c
		}
		return first == nil
	})
	return first, err
}

// comments calls each with every comment on a pull request, oldest first, until it returns false.
func (f *GitHub) comments(ctx context.Context, pr int, each func(*github.IssueComment) bool) error {
	return pages(func(page github.ListOptions) ([]*github.IssueComment, *github.Response, error) {
		return f.client.Issues.ListComments(ctx, f.owner, f.repo, pr, &github.IssueListCommentsOptions{
			ListOptions: page})
	}, each)
}

// Commands returns the comments on a pull request with a command to AOB, oldest first: comments of other users whose
// first line begins with /aob. Those that nobody has edited are verified. The buttons that people have pressed on check
// runs follow.
func (f *GitHub) Commands(ctx context.Context, pr int) (commands []delivery.Comment, err error) {
	defer f.explain(&err, "read the comments on pull request %d", pr)
	me, err := f.user(ctx)
	if err != nil {
		return nil, err
	}
	nodes := map[int64]node{}
	err = f.comments(ctx, pr, func(c *github.IssueComment) bool {
		if c.GetUser().GetID() != me.id && delivery.CommandLine(c.GetBody()) != "" {
			commands = append(commands, delivery.Comment{ID: c.GetID(), Author: c.GetUser().GetLogin(),
				Body: c.GetBody(), At: c.GetCreatedAt().UTC()})
			nodes[c.GetID()] = node{c.GetNodeID(), versionOf(c.GetBody(), c.GetUpdatedAt().UTC())}
		}
		if len(commands) >= 2*MaxCommands {
			commands = newest(commands)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	commands = newest(commands)
	if err := f.verify(ctx, commands, nodes); err != nil {
		return commands, err
	}
	pressed, err := f.presses(ctx, pr)
	return append(commands, pressed...), err
}

// Ask makes sure that a comment of AOB on a pull request asks the question, and returns who has agreed: the users who
// reacted to that comment with 👍.
//
// Every writer may edit AOB's comments, and GitHub's times are whole seconds. So a comment counts only if its text is
// exactly the question, and if it was not changed after the second in which it was created. A reaction counts only if
// it is younger than that second: then the user has seen the question as it is now. Nobody can react in another user's
// name.
//
// A question that is edited or deleted is asked again after growing pauses, at most maxAsks times.
func (f *GitHub) Ask(ctx context.Context, pr int, question string) (_ []delivery.Consent, err error) {
	text := comment("question", question)
	defer f.explain(&err, "ask a question on pull request %d", pr)
	me, err := f.user(ctx)
	if err != nil {
		return nil, err
	}
	intact := func(c *github.IssueComment) bool {
		return c.GetUser().GetID() == me.id && c.GetBody() == text && c.GetUpdatedAt().Equal(c.GetCreatedAt())
	}
	asked, err := f.first(ctx, pr, intact)
	if err != nil {
		return nil, err
	}
	if asked == nil {
		if err := f.questions.may(pr, question, time.Now()); err != nil {
			return nil, err
		}
		_, _, err := f.client.Issues.CreateComment(ctx, f.owner, f.repo, pr, &github.IssueComment{Body: &text})
		return nil, err
	}
	var list []delivery.Consent
	err = pages(func(page github.ListOptions) ([]*github.Reaction, *github.Response, error) {
		return f.client.Reactions.ListIssueCommentReactions(ctx, f.owner, f.repo, asked.GetID(),
			&github.ListReactionOptions{Content: "+1", ListOptions: page})
	}, func(r *github.Reaction) bool {
		if r.GetContent() == "+1" && r.GetCreatedAt().After(asked.GetCreatedAt().Time) {
			list = append(list, delivery.Consent{By: r.GetUser().GetLogin(), Comment: asked.GetID(),
				At: r.GetCreatedAt().UTC()})
		}
		return true
	})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	// The question may have been edited before the reactions were read.
	again, _, err := f.client.Issues.GetComment(ctx, f.owner, f.repo, asked.GetID())
	if err != nil || !intact(again) {
		return nil, err
	}
	slices.SortStableFunc(list, func(a, b delivery.Consent) int { return a.At.Compare(b.At) })
	return list, nil
}
