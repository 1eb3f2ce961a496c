package forge

// This file checks how a repository on GitHub is set up for AOB.

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-github/v88/github"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Check returns how the repository is set up.
func (f *GitHub) Check(ctx context.Context) (setup delivery.Setup, err error) {
	defer f.explain(&err, "read the repository's settings")
	me, err := f.user(ctx)
	if err != nil {
		return setup, err
	}
	repo, answer, err := f.client.Repositories.Get(ctx, f.owner, f.repo)
	if err != nil {
		return setup, err
	}
	setup.Now, _ = http.ParseTime(answer.Header.Get("Date")) // whole seconds
	const repository, role = "repository", "role"
	if repo.GetArchived() || repo.GetDisabled() {
		setup.Wrong(repository, "%s is archived, so aob can write nothing there", f.name()).To(
			"unarchive it in its settings", f.command(http.MethodPatch, "", "-F", "archived=false"))
		return setup, nil
	}
	if full := repo.GetFullName(); full != "" && !strings.EqualFold(full, f.name()) {
		now := delivery.Terminal(delivery.Cut(full, 200))
		setup.Risky(repository, "%s is called %s now, which aob follows until it is started again", f.name(), now).To(
			"write the new name in forge.github.repo and in repository before that: another repository may take the " +
				"old one")
	} else {
		setup.Right(repository, "%s takes pull requests", f.name())
	}
	if f.app != nil {
		if _, lacks := f.app.present(); len(lacks) > 0 {
			setup.Wrong(role, "the GitHub App may not write %s", strings.Join(lacks, ", ")).To(appNeeds)
		} else {
			setup.Right(role, "the GitHub App may write what aob writes")
		}
	} else if p := repo.GetPermissions(); !p.GetPush() {
		setup.Wrong(role, "aob's user %s may not write to %s, so it can set no status and push no release", me.name,
			f.name()).To("give it the role Write", f.command(http.MethodPut,
			"/collaborators/"+url.PathEscape(me.name), "-f", "permission=push"))
	} else {
		setup.Right(role, "%s may write to %s", me.name, f.name())
	}
	if f.hooks != "" && f.app == nil {
		if err := f.checkHooks(ctx, &setup, repo); err != nil {
			return setup, err
		}
	}
	if f.branch == "" {
		return setup, nil
	}
	branch, _, err := f.client.Repositories.GetBranch(ctx, f.owner, f.repo, f.branch, 1)
	if missing(err) {
		setup.Wrong(repository, "%s has no branch %s", f.name(), f.branch).To("push one with models, gates and fleets")
		return setup, nil
	}
	if err != nil {
		return setup, err
	}
	rules, _, err := f.client.Repositories.ListRulesForBranch(ctx, f.owner, f.repo, f.branch,
		&github.ListOptions{PerPage: perPage})
	if err != nil {
		return setup, err
	}
	f.checkProtection(&setup, branch, rules)
	return setup, nil
}

// checkProtection says whether people can merge what AOB has not passed.
func (f *GitHub) checkProtection(setup *delivery.Setup, branch *github.Branch, rules *github.BranchRules) {
	const check = "required status"
	wanted, sources := requiresRelease(branch, rules)
	switch {
	case !wanted:
		setup.Unsafe(check, "branch %s of %s does not require the status %s, so anybody who may write can merge "+
			"what no gate has passed", f.branch, f.name(), delivery.ContextRelease).To("add a ruleset or a branch "+
			"protection that requires that status (docs/github.md)", f.ruleset())
	case f.app == nil && !slices.Contains(sources, 0):
		setup.Wrong(check, "branch %s of %s takes the status %s from App %d alone, and aob uses a token, so nothing "+
			"can be merged", f.branch, f.name(), delivery.ContextRelease, sources[0]).To(
			"choose any source in the rule, or make aob that App")
	case f.app == nil:
		setup.Right(check, "branch %s requires %s; GitHub takes it from anybody who may write, and aob says so where "+
			"another user has set it", f.branch, delivery.ContextRelease)
	case slices.Contains(sources, f.app.ID):
		setup.Right(check, "branch %s requires %s from App %d, which is aob", f.branch, delivery.ContextRelease,
			f.app.ID)
	case slices.ContainsFunc(sources, isApp):
		setup.Wrong(check, "branch %s of %s takes the check %s from App %d alone, and aob is App %d, so nothing can "+
			"be merged", f.branch, f.name(), delivery.ContextRelease, sources[slices.IndexFunc(sources, isApp)],
			f.app.ID).To("choose aob's App as the source in the rule")
	default:
		setup.Unsafe(check, "branch %s of %s takes the check %s from any source, so anybody who may write can set it",
			f.branch, f.name(), delivery.ContextRelease).To("choose aob's App as the source in the ruleset " +
			"(docs/github.md)")
	}
}

// ruleset returns a command that makes a ruleset for the target branch, which requires AOB's status.
func (f *GitHub) ruleset() string {
	status := map[string]any{"context": delivery.ContextRelease}
	if f.app != nil {
		status["integration_id"] = f.app.ID
	}
	body := asJSON(map[string]any{"name": "aob", "target": "branch", "enforcement": "active",
		"conditions": map[string]any{"ref_name": map[string]any{"include": []string{"refs/heads/" + f.branch},
			"exclude": []string{}}},
		"rules": []any{map[string]any{"type": "pull_request", "parameters": map[string]any{
			"required_approving_review_count": 0, "dismiss_stale_reviews_on_push": false,
			"require_code_owner_review": false, "require_last_push_approval": false,
			"required_review_thread_resolution": false}},
			map[string]any{"type": "required_status_checks", "parameters": map[string]any{
				"strict_required_status_checks_policy": false, "required_status_checks": []any{status}}}}})
	return fmt.Sprintf("printf %%s %s | %s --input -", quoted(body), f.command(http.MethodPost, "/rulesets"))
}

func isApp(source int64) bool { return source > 0 }

// requiresRelease reports whether a branch requires the status aob/release, by a ruleset or by its protection, and from
// which Apps the rules take it; 0 is any source.
func requiresRelease(branch *github.Branch, rules *github.BranchRules) (wanted bool, sources []int64) {
	for _, rule := range rules.RequiredStatusChecks {
		for _, check := range rule.Parameters.RequiredStatusChecks {
			if strings.EqualFold(check.Context, delivery.ContextRelease) {
				sources = append(sources, check.GetIntegrationID())
			}
		}
	}
	if protection := branch.GetProtection().GetRequiredStatusChecks(); branch.GetProtected() {
		named := false
		for _, check := range protection.GetChecks() {
			if strings.EqualFold(check.Context, delivery.ContextRelease) {
				named, sources = true, append(sources, max(check.GetAppID(), 0))
			}
		}
		if !named && slices.ContainsFunc(protection.GetContexts(), func(c string) bool {
			return strings.EqualFold(c, delivery.ContextRelease)
		}) {
			sources = append(sources, 0)
		}
	}
	return len(sources) > 0, sources
}

// checkHooks says whether AOB's webhook is there and arrives. GitHub shows webhooks only to administrators of the
// repository.
func (f *GitHub) checkHooks(ctx context.Context, setup *delivery.Setup, repo *github.Repository) error {
	const check = "webhook"
	arrived, wrongSecret := f.arrived.seen()
	if arrived { // also if the list of webhooks names another URL
		setup.Right(check, "webhooks arrive at %s", f.hooks)
		return nil
	}
	if wrongSecret {
		setup.Wrong(check, "webhooks arrive at %s with a wrong signature, and none with the right one", f.hooks).To(
			fmt.Sprintf("give the webhook of %s the secret that forge.github.webhookSecretFile or webhookSecretEnv "+
				"holds", f.name()))
		return nil
	}
	var hook *github.Hook
	err := pages(func(page github.ListOptions) ([]*github.Hook, *github.Response, error) {
		return f.client.Repositories.ListHooks(ctx, f.owner, f.repo, &page)
	}, func(h *github.Hook) bool {
		if strings.TrimRight(h.GetConfig().GetURL(), "/") == strings.TrimRight(f.hooks, "/") && !hook.GetActive() {
			hook = h
		}
		return true
	})
	changed := repo.GetUpdatedAt().After(f.started) || repo.GetPushedAt().After(f.started)
	hidden := hasStatus(err, http.StatusNotFound, http.StatusForbidden) // aob's user is no administrator
	switch {
	case err != nil && !hidden:
		return err
	case !hidden && hook == nil:
		// The secret stays out of what is printed.
		setup.Wrong(check, "%s has no webhook to %s, so aob notices changes only when it polls", f.name(), f.hooks).To(
			"add one, with the secret of the configuration, which the command takes from WEBHOOK_SECRET",
			f.command(http.MethodPost, "/hooks", "-f", "config[url]="+f.hooks, "-f", "config[content_type]=json",
				"-f", "events[]=push", "-f", "events[]=pull_request", "-f", "events[]=issue_comment", "-f",
				"events[]=status")+` -f "config[secret]=$WEBHOOK_SECRET"`)
	case !hidden && !hook.GetActive():
		setup.Wrong(check, "the webhook of %s to %s is switched off", f.name(), f.hooks).To("switch it on",
			f.command(http.MethodPatch, fmt.Sprintf("/hooks/%d", hook.GetID()), "-F", "active=true"))
	case changed:
		setup.Wrong(check, "%s has changed since aob serve was started, and no webhook has arrived", f.name()).To(
			"look at the webhook's recent deliveries in the repository's settings: GitHub may not reach " + f.hooks)
	case hidden:
		setup.Unknown(check, "GitHub shows webhooks to administrators of %s alone; aob serve notices whether one "+
			"arrives", f.name())
	default:
		setup.Right(check, "%s has one to %s", f.name(), f.hooks)
	}
	return nil
}

// command returns a command for a shell that changes a setting, with GitHub's own command gh. Whoever runs it is an
// administrator of the repository.
func (f *GitHub) command(method, path string, fields ...string) string {
	line := fmt.Sprintf("gh api --silent -X %s %s", method, quoted("repos/"+f.name()+path))
	for i, field := range fields {
		if line += " "; i%2 == 0 {
			line += field // -f or -F
		} else {
			line += quoted(field)
		}
	}
	return line
}
