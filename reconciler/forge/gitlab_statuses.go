package forge

// This file reads and sets commit statuses on GitLab, which shows them as jobs of the stage external in a pipeline.

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	gitlab "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/autonomos/aob/reconciler/delivery"
)

// gitLabStates are the states of statuses in GitLab. It has no state for an error: the description begins with
// gitLabError then.
var gitLabStates = map[delivery.CheckState]gitlab.BuildStateValue{delivery.CheckPending: gitlab.Pending,
	delivery.CheckSuccess: gitlab.Success, delivery.CheckFailure: gitlab.Failed, delivery.CheckError: gitlab.Failed}

// gitLabError begins the description of a failed status that is an error.
const gitLabError = "Error: "

// gitLabDescription is the description of a check's status.
func gitLabDescription(check delivery.Check) string {
	if check.State == delivery.CheckError {
		return Describe(strings.TrimSpace(gitLabError + check.Description))
	}
	return Describe(check.Description)
}

// readGitLab returns AOB's form of a status.
func readGitLab(s *gitlab.CommitStatus) (delivery.CheckState, string) {
	switch s.Status {
	case "success":
		return delivery.CheckSuccess, s.Description
	case "failed", "canceled", "skipped":
		if text, is := strings.CutPrefix(s.Description+" ", gitLabError); is {
			return delivery.CheckError, strings.TrimSpace(text)
		}
		return delivery.CheckFailure, s.Description
	}
	return delivery.CheckPending, s.Description
}

// Statuses returns the newest status of each context under aob/ that a commit has, sorted by context, whoever set it. A
// job of GitLab CI with such a name counts as one.
func (f *GitLab) Statuses(ctx context.Context, commit string) (_ []delivery.Status, err error) {
	defer f.explain(&err, "read the statuses of %.10s", commit)
	me, err := f.user(ctx)
	if err != nil {
		return nil, err
	}
	id, err := f.project(ctx)
	if err != nil {
		return nil, err
	}
	newest := map[string]*gitlab.CommitStatus{}
	err = gitLabPages(func(page gitlab.ListOptions) ([]*gitlab.CommitStatus, *gitlab.Response, error) {
		return f.client.Commits.GetCommitStatuses(id, commit, &gitlab.GetCommitStatusesOptions{ListOptions: page},
			gitlab.WithContext(ctx))
	}, func(s *gitlab.CommitStatus) bool {
		if old := newest[s.Name]; strings.HasPrefix(s.Name, "aob/") && (old == nil || old.ID < s.ID) {
			newest[s.Name] = s
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	list := []delivery.Status{}
	for name, s := range newest {
		state, description := readGitLab(s)
		check := delivery.Check{Context: name, State: state, Description: description, URL: s.TargetURL}
		f.mu.Lock()
		wanted, kept := f.texts[commit+" "+name]
		f.mu.Unlock()
		if mine := s.Author.ID == me.id; kept && mine && wanted.State == state {
			check.Description, check.URL = wanted.Description, wanted.URL
		}
		list = append(list, delivery.Status{By: s.Author.Username, Mine: s.Author.ID == me.id, Check: check})
	}
	slices.SortFunc(list, func(a, b delivery.Status) int { return strings.Compare(a.Context, b.Context) })
	return list, nil
}

// SetStatus sets one status check on a commit, in the pipeline that decides whether its merge request can be merged.
func (f *GitLab) SetStatus(ctx context.Context, commit string, check delivery.Check) (err error) {
	defer f.explain(&err, "set %s on %.10s", check.Context, commit)
	id, err := f.project(ctx)
	if err != nil {
		return err
	}
	option := &gitlab.SetCommitStatusOptions{State: gitLabStates[check.State], Name: &check.Context,
		Description: new(gitLabDescription(check))}
	if check.URL != "" {
		option.TargetURL = &check.URL
	}
	ref, pipeline, err := f.place(ctx, id, commit)
	if err != nil {
		return err
	}
	if ref != "" {
		option.Ref = &ref
	}
	if pipeline > 0 {
		option.PipelineID = &pipeline
	}
	_, _, err = f.client.Commits.SetCommitStatus(id, commit, option, gitlab.WithContext(ctx))
	if sameState(err) && option.State == gitlab.Pending {
		option.State = gitlab.Running // which takes a new text once more
		_, _, err = f.client.Commits.SetCommitStatus(id, commit, option, gitlab.WithContext(ctx))
	}
	if same := sameState(err); err == nil || same {
		f.keepText(commit, check, same)
		return nil
	}
	if s, refused := refusal(err); refused && s.code == http.StatusConflict {
		return delivery.Wait{What: "GitLab changes the pipeline at this moment"}
	}
	return err
}

// sameState reports whether GitLab refuses a status because it has that state already. Its text stays as it was then.
func sameState(err error) bool {
	s, refused := refusal(err)
	return refused && s.code == http.StatusBadRequest && strings.Contains(s.text, "Cannot transition status")
}

// maxTexts is how many texts are remembered that GitLab has not taken.
const maxTexts = 10_000

// keepText remembers the text of a status that GitLab has not taken, so that it counts as shown, and is not set again
// and again until the state changes.
func (f *GitLab) keepText(commit string, check delivery.Check, refused bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !refused {
		delete(f.texts, commit+" "+check.Context)
		return
	}
	if f.texts == nil || len(f.texts) >= maxTexts {
		f.texts = map[string]delivery.Check{}
	}
	check.Description = gitLabDescription(check)
	f.texts[commit+" "+check.Context] = check
}

// place returns the ref and the number of the pipeline in which a commit's statuses belong. The number is 0 if there is
// none yet: GitLab makes one then.
//
// GitLab lets a merge request wait for its newest pipeline: of those of the merge request, else of its source branch.
// Several branches can have one commit, so GitLab's own choice of a pipeline may be another branch's.
func (f *GitLab) place(ctx context.Context, id int64, commit string) (ref string, pipeline int64, err error) {
	f.mu.Lock()
	of, open := f.heads[commit]
	f.mu.Unlock()
	ref = cmp.Or(of.branch, f.branch)
	list, _, err := f.client.Pipelines.ListProjectPipelines(id, &gitlab.ListProjectPipelinesOptions{SHA: &commit,
		OrderBy: new("id"), Sort: new("desc"), ListOptions: gitlab.ListOptions{PerPage: perPage}},
		gitlab.WithContext(ctx))
	if err != nil {
		return "", 0, err
	}
	if open {
		of := fmt.Sprintf("refs/merge-requests/%d/head", of.number)
		if p, found := delivery.Find(list, func(p *gitlab.PipelineInfo) bool { return p.Ref == of }); found {
			return of, p.ID, nil
		}
	}
	p, found := delivery.Find(list, func(p *gitlab.PipelineInfo) bool { return p.Ref == ref })
	if !found {
		return ref, 0, nil
	}
	return ref, p.ID, nil
}

// A source is the merge request of a head, and its source branch.
type source struct {
	number int
	branch string
}
