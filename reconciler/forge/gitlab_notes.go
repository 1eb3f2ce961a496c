package forge

// This file reads and writes comments on GitLab, which calls them notes, and asks people questions in them.

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	gitlab "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/autonomos/aob/reconciler/delivery"
)

// quickAction is a line that GitLab may take for a command to itself, such as /close or /approve, and would carry out
// with AOB's permission. /aob is none.
var quickAction = regexp.MustCompile(`(?m)^([ \t]*)/([a-zA-Z_]+)([ \t]|$)`)

// escapedAction is what inert makes of one.
var escapedAction = regexp.MustCompile(`(?m)^([ \t]*)\\/([a-zA-Z_]+)([ \t]|$)`)

// inert returns a text as GitLab keeps it, without trailing space, and in which it finds no command to itself.
func inert(text string) string {
	text = strings.TrimRight(strings.ReplaceAll(text, "\r", ""), " \t\n")
	return quickAction.ReplaceAllStringFunc(text, func(line string) string {
		if word := strings.Fields(line)[0]; word == "/aob" {
			return line
		}
		return strings.Replace(line, "/", `\/`, 1)
	})
}

// plain is the reverse of inert.
func plain(text string) string { return escapedAction.ReplaceAllString(text, `$1/$2$3`) }

// Comment creates the note with the marker, or replaces its text. The marker is a line of the note that is not shown.
// Notes of other users are ignored.
func (f *GitLab) Comment(ctx context.Context, pr int, marker, body string) (err error) {
	defer f.explain(&err, "comment on merge request %d", pr)
	text := inert(comment(marker, body))
	id, old, err := f.marked(ctx, pr, marker)
	switch {
	case err != nil || old != nil && old.Body == text:
		return err
	case old != nil:
		_, _, err = f.client.Notes.UpdateMergeRequestNote(id, int64(pr), old.ID,
			&gitlab.UpdateMergeRequestNoteOptions{Body: &text}, gitlab.WithContext(ctx))
	default:
		err = f.say(ctx, id, pr, text)
	}
	return err
}

func (f *GitLab) say(ctx context.Context, id int64, pr int, text string) error {
	_, _, err := f.client.Notes.CreateMergeRequestNote(id, int64(pr), &gitlab.CreateMergeRequestNoteOptions{
		Body: &text}, gitlab.WithContext(ctx))
	return err
}

// CommentBody returns the current text of the note with the marker, cut as Comment cuts it. Notes of other users are
// ignored.
func (f *GitLab) CommentBody(ctx context.Context, pr int, marker string) (body string, found bool, err error) {
	defer f.explain(&err, "read aob's comment on merge request %d", pr)
	_, old, err := f.marked(ctx, pr, marker)
	if err != nil || old == nil {
		return "", false, err
	}
	return plain(strings.TrimPrefix(old.Body, hidden(marker))), true, nil
}

// marked returns the project's number, and the first of AOB's own notes that begins with the marker, or nil.
func (f *GitLab) marked(ctx context.Context, pr int, marker string) (id int64, note *gitlab.Note, err error) {
	me, err := f.user(ctx)
	if err != nil {
		return 0, nil, err
	}
	if id, err = f.project(ctx); err != nil {
		return 0, nil, err
	}
	note, err = f.first(ctx, id, pr, func(n *gitlab.Note) bool {
		return n.Author.ID == me.id && strings.HasPrefix(n.Body+"\n", hidden(marker))
	})
	return id, note, err
}

// first returns the oldest note on a merge request for which ok returns true, or nil.
func (f *GitLab) first(ctx context.Context, id int64, pr int, ok func(*gitlab.Note) bool) (first *gitlab.Note,
	err error) {
	err = f.notes(ctx, id, pr, func(n *gitlab.Note) bool {
		if ok(n) {
			first = n
		}
		return first == nil
	})
	return first, err
}

// notes calls each with every note that people wrote on a merge request, oldest first, until it returns false.
func (f *GitLab) notes(ctx context.Context, id int64, pr int, each func(*gitlab.Note) bool) error {
	return gitLabPages(func(page gitlab.ListOptions) ([]*gitlab.Note, *gitlab.Response, error) {
		return f.client.Notes.ListMergeRequestNotes(id, int64(pr), &gitlab.ListMergeRequestNotesOptions{
			ListOptions: page, OrderBy: new("created_at"), Sort: new("asc")}, gitlab.WithContext(ctx))
	}, func(n *gitlab.Note) bool { return n == nil || n.System || each(n) })
}

// asWritten reports whether nobody has changed a note since its author wrote it. GitLab's times have milliseconds, and
// a change sets the second one. So does a reaction: of such a note, GitLab's GraphQL API says who has edited it. If it
// does not say, that is an error: a question that nobody has edited must not be asked twice.
func (f *GitLab) asWritten(ctx context.Context, n *gitlab.Note) (bool, error) {
	if n.CreatedAt == nil || n.UpdatedAt == nil {
		return false, nil
	}
	if n.UpdatedAt.Equal(*n.CreatedAt) {
		return true, nil
	}
	id, version := fmt.Sprintf("gid://gitlab/Note/%d", n.ID), versionOf(n.Body, n.UpdatedAt.UTC())
	if own, unknown := f.edits.known(id, version); !unknown {
		return own, nil
	}
	var got struct {
		Data struct {
			Note *struct {
				Body         string
				LastEditedBy *struct{ ID string }
			}
		}
		Errors []struct{ Message string }
	}
	_, err := f.client.GraphQL.Do(gitlab.GraphQLQuery{Query: "query($id: NoteID!) { note(id: $id) { body " +
		"lastEditedBy { id } } }", Variables: map[string]any{"id": id}}, &got,
		gitlab.WithContext(ctx))
	switch {
	case err != nil:
		return false, err
	case len(got.Errors) > 0:
		return false, fmt.Errorf("GitLab's GraphQL API does not say who has edited note %d: %s", n.ID,
			delivery.PlainText(got.Errors[0].Message, 200))
	case got.Data.Note == nil:
		return false, fmt.Errorf("GitLab's GraphQL API does not show note %d to aob's token", n.ID)
	}
	if got.Data.Note.Body != n.Body {
		return false, nil // it was edited meanwhile
	}
	own := got.Data.Note.LastEditedBy == nil
	f.edits.note(id, version, !own)
	return own, nil
}

// Commands returns the notes on a merge request with a command to AOB, oldest first: notes of other users whose first
// line begins with /aob. Those that nobody has edited are verified: Maintainers may edit the notes of others.
func (f *GitLab) Commands(ctx context.Context, pr int) (commands []delivery.Comment, err error) {
	defer f.explain(&err, "read the comments on merge request %d", pr)
	me, err := f.user(ctx)
	if err != nil {
		return nil, err
	}
	id, err := f.project(ctx)
	if err != nil {
		return nil, err
	}
	all := map[int64]*gitlab.Note{}
	err = f.notes(ctx, id, pr, func(n *gitlab.Note) bool {
		if n.Author.ID == me.id || delivery.CommandLine(n.Body) == "" {
			return true
		}
		c := delivery.Comment{ID: n.ID, Author: n.Author.Username, Body: n.Body}
		if n.CreatedAt != nil {
			c.At = n.CreatedAt.UTC()
		}
		all[n.ID] = n
		if commands = append(commands, c); len(commands) >= 2*MaxCommands {
			commands = newest(commands)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	commands = newest(commands)
	for i, c := range commands {
		own, err := f.asWritten(ctx, all[c.ID])
		if err != nil {
			return commands, err
		}
		if own {
			commands[i].VerifiedBy = gitLabNotEdited
		}
	}
	return commands, nil
}

// gitLabNotEdited is the proof of a command on GitLab.
const gitLabNotEdited = "in a note that nobody has edited, as GitLab says"

// Ask makes sure that a note of AOB on a merge request asks the question, and returns who has agreed: the users who
// reacted to that note with 👍.
//
// Maintainers may edit AOB's notes. So a note counts only if its text is exactly the question and nobody has changed
// it, and a reaction only if it is younger. Nobody can react in another user's name.
//
// A question that is edited or deleted is asked again after growing pauses, at most maxAsks times.
func (f *GitLab) Ask(ctx context.Context, pr int, question string) (_ []delivery.Consent, err error) {
	text := inert(comment("question", question))
	defer f.explain(&err, "ask a question on merge request %d", pr)
	me, err := f.user(ctx)
	if err != nil {
		return nil, err
	}
	id, err := f.project(ctx)
	if err != nil {
		return nil, err
	}
	var failed error
	intact := func(n *gitlab.Note) bool {
		if n.Author.ID != me.id || n.Body != text || failed != nil {
			return false
		}
		var own bool
		own, failed = f.asWritten(ctx, n)
		return own
	}
	asked, err := f.first(ctx, id, pr, intact)
	if err = cmp.Or(err, failed); err != nil {
		return nil, err
	}
	if asked == nil {
		if err := f.questions.may(pr, question, time.Now()); err != nil {
			return nil, err
		}
		return nil, f.say(ctx, id, pr, text)
	}
	var list []delivery.Consent
	err = gitLabPages(func(page gitlab.ListOptions) ([]*gitlab.AwardEmoji, *gitlab.Response, error) {
		return f.client.AwardEmoji.ListMergeRequestAwardEmojiOnNote(id, int64(pr), asked.ID,
			&gitlab.ListAwardEmojiOptions{ListOptions: page}, gitlab.WithContext(ctx))
	}, func(a *gitlab.AwardEmoji) bool {
		if a.Name == "thumbsup" && a.CreatedAt != nil && a.CreatedAt.After(*asked.CreatedAt) {
			list = append(list, delivery.Consent{By: a.User.Username, Comment: asked.ID, At: a.CreatedAt.UTC()})
		}
		return true
	})
	if err != nil || len(list) == 0 {
		return nil, err
	}
	// The question may have been edited before the reactions were read.
	again, _, err := f.client.Notes.GetMergeRequestNote(id, int64(pr), asked.ID, gitlab.WithContext(ctx))
	if err != nil || !intact(again) {
		return nil, cmp.Or(err, failed)
	}
	slices.SortStableFunc(list, func(a, b delivery.Consent) int { return a.At.Compare(b.At) })
	return list, nil
}
