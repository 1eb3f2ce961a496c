package forge

// This file checks how a project on GitLab is set up for AOB.

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	gitlab "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Check returns how the project is set up.
func (f *GitLab) Check(ctx context.Context) (setup delivery.Setup, err error) {
	defer f.explain(&err, "read the project's settings")
	me, err := f.user(ctx)
	if err != nil {
		return setup, err
	}
	id, err := f.project(ctx)
	if err != nil {
		return setup, err
	}
	p, answer, err := f.client.Projects.GetProject(id, nil, gitlab.WithContext(ctx))
	if err != nil {
		return setup, err
	}
	setup.Now, _ = http.ParseTime(answer.Header.Get("Date")) // whole seconds
	if !f.checkProject(&setup, p) {
		return setup, nil
	}
	if err := f.checkToken(ctx, &setup); err != nil {
		return setup, err
	}
	f.checkRole(&setup, p, me)
	if f.hooks != "" {
		if err := f.checkHooks(ctx, &setup, p); err != nil {
			return setup, err
		}
	}
	f.checkPipelines(&setup, p)
	if f.branch == "" {
		return setup, nil
	}
	branch, _, err := f.client.Branches.GetBranch(id, f.branch, gitlab.WithContext(ctx))
	if missing(err) {
		setup.Wrong("repository", "%s has no branch %s", f.name(), f.branch).To(
			"push one with models, gates and fleets")
		return setup, nil
	}
	if err != nil {
		return setup, err
	}
	f.checkBranch(&setup, branch)
	return setup, nil
}

// checkProject says whether the project takes merge requests. It returns false if nothing can be written there.
func (f *GitLab) checkProject(setup *delivery.Setup, p *gitlab.Project) bool {
	const check = "repository"
	switch renamed := strings.Contains(f.path, "/") && !strings.EqualFold(p.PathWithNamespace, f.path); {
	case p.Archived:
		setup.Wrong(check, "%s is archived, so aob can write nothing there", f.name()).To(
			"unarchive it in its settings", f.command(http.MethodPost, p.ID, "/unarchive"))
		return false
	case p.MarkedForDeletionOn != nil:
		setup.Wrong(check, "%s is going to be deleted", f.name()).To("restore it in its settings",
			f.command(http.MethodPost, p.ID, "/restore"))
		return false
	case renamed:
		setup.Wrong(check, "%s is called %s now", f.name(), delivery.Terminal(delivery.Cut(p.PathWithNamespace,
			200))).To("write the new path in forge.gitlab.project and in repository, and start aob serve again")
	case p.EmptyRepo:
		setup.Wrong(check, "%s is empty", f.name()).To("push a branch main with models, gates and fleets")
	case p.MergeRequestsAccessLevel == gitlab.DisabledAccessControl:
		setup.Wrong(check, "merge requests are switched off in %s", f.name()).To("switch them on in its settings",
			f.command(http.MethodPut, p.ID, "", "merge_requests_access_level=enabled"))
	case p.BuildsAccessLevel == gitlab.DisabledAccessControl:
		setup.Wrong(check, "CI/CD is switched off in %s, and statuses are jobs of pipelines", f.name()).To(
			"switch it on in its settings", f.command(http.MethodPut, p.ID, "", "builds_access_level=enabled"))
	default:
		setup.Right(check, "%s takes merge requests", f.name())
	}
	return true
}

// expiresSoon is how long before its end a token is reported.
const expiresSoon = 14 * 24 * time.Hour

// checkToken says whether AOB's token may do what AOB does, and for how long.
func (f *GitLab) checkToken(ctx context.Context, setup *delivery.Setup) error {
	const check = "token"
	token, _, err := f.client.PersonalAccessTokens.GetSinglePersonalAccessToken(gitlab.WithContext(ctx))
	if hasStatus(err, http.StatusNotFound, http.StatusForbidden, http.StatusBadRequest) {
		setup.Unknown(check, "%s does not say what aob's token may do", f.url)
		return nil
	}
	if err != nil {
		return err
	}
	const long = "2006-01-02"
	switch {
	case !slices.Contains(token.Scopes, "api"):
		setup.Wrong(check, "aob's token has no scope api, so it can set no status").To(makeGitLabToken)
	case !slices.Contains(token.Scopes, "write_repository"):
		// Whether api lets it push depends on the server's version.
		setup.Risky(check, "aob's token has no scope write_repository, with which it pushes releases").To(
			makeGitLabToken)
	case token.ExpiresAt != nil && time.Until(time.Time(*token.ExpiresAt)) < expiresSoon:
		setup.Risky(check, "aob's token ends on %s", time.Time(*token.ExpiresAt).Format(long)).To(
			"renew it, and write the new one into the same place; aob reads a file before each request")
	case token.ExpiresAt != nil:
		setup.Right(check, "it may do what aob does, until %s", time.Time(*token.ExpiresAt).Format(long))
	default:
		setup.Right(check, "it may do what aob does")
	}
	return nil
}

// checkRole says whether AOB's user may do what AOB does.
func (f *GitLab) checkRole(setup *delivery.Setup, p *gitlab.Project, me account) {
	const check = "role"
	var level gitlab.AccessLevelValue
	if all := p.Permissions; all != nil {
		if all.ProjectAccess != nil {
			level = all.ProjectAccess.AccessLevel
		}
		if all.GroupAccess != nil {
			level = max(level, all.GroupAccess.AccessLevel)
		}
	}
	if level >= gitlab.DeveloperPermissions {
		setup.Right(check, "%s may write to %s", me.name, f.name())
		return
	}
	setup.Wrong(check, "aob's user %s may not write to %s, so it can set no status and push no release", me.name,
		f.name()).To("give it the role Developer", f.command(http.MethodPost, p.ID, "/members",
		fmt.Sprintf("user_id=%d", me.id), "access_level=30"))
}

// checkPipelines says whether people can merge what AOB has not passed. Below Ultimate, GitLab requires no status by
// its name, but that the pipeline which the statuses are jobs of has succeeded.
func (f *GitLab) checkPipelines(setup *delivery.Setup, p *gitlab.Project) {
	const check = "required status"
	switch {
	case !p.OnlyAllowMergeIfPipelineSucceeds:
		setup.Unsafe(check, "%s does not require that pipelines succeed, so anybody who may merge can merge what no "+
			"gate has passed", f.name()).To("switch on \"Pipelines must succeed\" in its settings (docs/gitlab.md)",
			f.command(http.MethodPut, p.ID, "", "only_allow_merge_if_pipeline_succeeds=true"))
	case p.AllowMergeOnSkippedPipeline:
		setup.Unsafe(check, "in %s skipped pipelines count as successful, so whoever writes [skip ci] can merge what "+
			"no gate has passed", f.name()).To("switch off \"Skipped pipelines are considered successful\" in its "+
			"settings", f.command(http.MethodPut, p.ID, "", "allow_merge_on_skipped_pipeline=false"))
	case p.MergePipelinesEnabled || p.MergeTrainsEnabled:
		setup.Unsafe(check, "%s runs pipelines on merged results, which aob's statuses are no part of, so what no "+
			"gate has passed can be merged", f.name()).To("switch off \"Enable merged results pipelines\" in its "+
			"settings", f.command(http.MethodPut, p.ID, "", "merge_pipelines_enabled=false",
			"merge_trains_enabled=false"))
	default:
		setup.Right(check, "%s requires pipelines to succeed, and %s is a job of each; GitLab takes it from anybody "+
			"who may write, and aob says so where another user has set it", f.name(), delivery.ContextRelease)
	}
}

// checkBranch says whether people can push to the target branch.
func (f *GitLab) checkBranch(setup *delivery.Setup, b *gitlab.Branch) {
	const check = "ways around"
	switch {
	case !b.Protected:
		setup.Unsafe(check, "branch %s of %s is not protected, so everybody who may write can push to it", f.branch,
			f.name()).To("protect it in the project's settings (docs/gitlab.md)", f.protect())
	case b.DevelopersCanPush:
		setup.Risky(check, "Developers can push to %s without a merge request", f.branch).To(
			"let nobody push in its protection")
	default:
		setup.Right(check, "%s is protected, and Developers cannot push to it", f.branch)
	}
}

// protect returns a command that protects the target branch: nobody pushes, and Developers may merge.
func (f *GitLab) protect() string {
	return f.command(http.MethodPost, f.known(), "/protected_branches", "name="+f.branch, "push_access_level=0",
		"merge_access_level=30")
}

// known returns the project's number, once it is known.
func (f *GitLab) known() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.id
}

// checkHooks says whether AOB's webhook is there and arrives. GitLab shows webhooks only to Maintainers.
func (f *GitLab) checkHooks(ctx context.Context, setup *delivery.Setup, p *gitlab.Project) error {
	const check = "webhook"
	arrived, wrongSecret := f.arrived.seen()
	if arrived { // also if the list of webhooks names another URL
		setup.Right(check, "webhooks arrive at %s", f.hooks)
		return nil
	}
	if wrongSecret {
		setup.Wrong(check, "webhooks arrive at %s with a wrong secret token, and none with the right one", f.hooks).To(
			fmt.Sprintf("give the webhook of %s the secret token that forge.gitlab.webhookSecretFile or "+
				"webhookSecretEnv holds", f.name()))
		return nil
	}
	var hook *gitlab.ProjectHook
	err := gitLabPages(func(page gitlab.ListOptions) ([]*gitlab.ProjectHook, *gitlab.Response, error) {
		return f.client.Projects.ListProjectHooks(p.ID, &gitlab.ListProjectHooksOptions{ListOptions: page},
			gitlab.WithContext(ctx))
	}, func(h *gitlab.ProjectHook) bool {
		if strings.TrimRight(h.URL, "/") == strings.TrimRight(f.hooks, "/") {
			hook = h
		}
		return hook == nil
	})
	changed := p.LastActivityAt != nil && p.LastActivityAt.After(f.started)
	hidden := hasStatus(err, http.StatusNotFound, http.StatusForbidden) // AOB's user is no Maintainer
	switch {
	case err != nil && !hidden:
		return err
	case !hidden && hook == nil:
		// The secret stays out of what is printed.
		setup.Wrong(check, "%s has no webhook to %s, so aob notices changes only when it polls", f.name(), f.hooks).To(
			"add one, with the secret token of the configuration, which the command takes from WEBHOOK_SECRET",
			f.command(http.MethodPost, p.ID, "/hooks", "url="+f.hooks, "push_events=true",
				"merge_requests_events=true", "note_events=true", "pipeline_events=true")+
				` --data-urlencode "token=$WEBHOOK_SECRET"`)
	case !hidden && hook.AlertStatus == "disabled":
		setup.Wrong(check, "GitLab has switched the webhook of %s to %s off, since it failed too often", f.name(),
			f.hooks).To("make the address reachable for GitLab, and press Test beside the webhook")
	case !hidden && !(hook.PushEvents && hook.MergeRequestsEvents && hook.NoteEvents):
		setup.Wrong(check, "the webhook of %s to %s leaves pushes, merge requests or comments out", f.name(),
			f.hooks).To("add them", f.command(http.MethodPut, p.ID, fmt.Sprintf("/hooks/%d", hook.ID), "url="+f.hooks,
			"push_events=true", "merge_requests_events=true", "note_events=true", "pipeline_events=true"))
	case changed:
		setup.Wrong(check, "%s has changed since aob serve was started, and no webhook has arrived", f.name()).To(
			"look at the webhook's recent events in the project's settings: GitLab may not reach " + f.hooks)
	case hidden:
		setup.Unknown(check, "GitLab shows webhooks to Maintainers of %s alone; aob serve notices whether one arrives",
			f.name())
	default:
		setup.Right(check, "%s has one to %s", f.name(), f.hooks)
	}
	return nil
}

// command returns a command for a shell that changes a setting. Whoever runs it has the token of a Maintainer of the
// project in GITLAB_TOKEN.
func (f *GitLab) command(method string, project int64, path string, fields ...string) string {
	line := fmt.Sprintf(`curl -fsS -o /dev/null -X %s -H "PRIVATE-TOKEN: $GITLAB_TOKEN" %s`, method,
		quoted(fmt.Sprintf("%s/api/v4/projects/%d%s", f.url, project, path)))
	for _, field := range fields {
		name, value, _ := strings.Cut(field, "=")
		line += " -d " + quoted(name+"="+url.QueryEscape(value))
	}
	return line
}
