package forge

// This file checks how a repository on GitHub is set up for AOB.

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-github/v88/github"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Check returns the problems in the settings of the repository.
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
	add := func(format string, args ...any) {
		setup.Problems = append(setup.Problems, fmt.Sprintf(format, args...))
	}
	if full := repo.GetFullName(); full != "" && !strings.EqualFold(full, f.name()) {
		add("%s is called %s now; write the new name in forge.github.repo and in repository, and start aob serve again",
			f.name(), delivery.Terminal(delivery.Cut(full, 200)))
	}
	if repo.GetArchived() || repo.GetDisabled() {
		add("%s is archived, so aob can write nothing there; unarchive it in its settings", f.name())
		return setup, nil
	}
	if f.app != nil {
		if _, lacks := f.app.present(); len(lacks) > 0 {
			add("the GitHub App may not write %s; %s", strings.Join(lacks, ", "), appNeeds)
		}
	} else if p := repo.GetPermissions(); !p.GetPush() {
		add("aob's user %s may not write to %s, so it can set no status and push no release; give it the role Write",
			me.name, f.name())
	}
	if f.hooks != "" && f.app == nil {
		problem, err := f.checkHooks(ctx, repo)
		if err != nil {
			return setup, err
		}
		if problem != "" {
			add("%s", problem)
		}
	}
	if f.branch == "" {
		return setup, nil
	}
	branch, _, err := f.client.Repositories.GetBranch(ctx, f.owner, f.repo, f.branch, 1)
	if missing(err) {
		add("%s has no branch %s; push one with models, gates and fleets", f.name(), f.branch)
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
	wanted, sources := requiresRelease(branch, rules)
	switch {
	case f.app == nil && wanted && len(sources) > 0 && !slices.Contains(sources, 0):
		add("branch %s of %s takes the status %s from App %d alone, and aob uses a token, so nothing can be merged; "+
			"choose any source in the rule, or make aob that App", f.branch, f.name(), delivery.ContextRelease,
			sources[0])
	case f.app != nil && wanted && !slices.Contains(sources, f.app.ID) && slices.ContainsFunc(sources, isApp):
		add("branch %s of %s takes the check %s from App %d alone, and aob is App %d, so nothing can be merged; "+
			"choose aob's App as the source in the rule", f.branch, f.name(), delivery.ContextRelease,
			sources[slices.IndexFunc(sources, isApp)], f.app.ID)
	case f.app != nil && wanted && !slices.Contains(sources, f.app.ID):
		setup.Unprotected = fmt.Sprintf("branch %s of %s takes the check %s from any source, so anybody who may write "+
			"can set it; choose aob's App as the source in the ruleset (docs/github.md)", f.branch, f.name(),
			delivery.ContextRelease)
	case !wanted:
		setup.Unprotected = fmt.Sprintf("branch %s of %s does not require the status %s, so anybody who may write can "+
			"merge what no gate has passed; add a ruleset or a branch protection that requires that status "+
			"(docs/github.md)", f.branch, f.name(), delivery.ContextRelease)
	}
	return setup, nil
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

// checkHooks returns the problem with AOB's webhook, or "". GitHub shows webhooks only to administrators of the
// repository.
func (f *GitHub) checkHooks(ctx context.Context, repo *github.Repository) (problem string, err error) {
	arrived, wrongSecret := f.arrived.seen()
	if arrived {
		return "", nil // also if the list of webhooks names another URL
	}
	changed := repo.GetUpdatedAt().After(f.started) || repo.GetPushedAt().After(f.started)
	if wrongSecret {
		return fmt.Sprintf("webhooks arrive at %s with a wrong signature, and none with the right one; give the "+
			"webhook of %s the secret that forge.github.webhookSecretFile or webhookSecretEnv holds", f.hooks,
			f.name()), nil
	}
	found, active := false, false
	err = pages(func(page github.ListOptions) ([]*github.Hook, *github.Response, error) {
		return f.client.Repositories.ListHooks(ctx, f.owner, f.repo, &page)
	}, func(h *github.Hook) bool {
		if strings.TrimRight(h.GetConfig().GetURL(), "/") == strings.TrimRight(f.hooks, "/") {
			found, active = true, active || h.GetActive()
		}
		return true
	})
	switch {
	case hasStatus(err, http.StatusNotFound, http.StatusForbidden): // aob's user is no administrator
	case err != nil:
		return "", err
	case !found:
		return fmt.Sprintf("%s has no webhook to %s, so aob notices changes only when it polls; add one, with the "+
			"secret of the configuration", f.name(), f.hooks), nil
	case !active:
		return fmt.Sprintf("the webhook of %s to %s is switched off; switch it on", f.name(), f.hooks), nil
	}
	if !changed { // nothing has happened that a webhook would report
		return "", nil
	}
	return fmt.Sprintf("%s has changed since aob serve was started, and no webhook has arrived; look at the webhook's "+
		"recent deliveries in the repository's settings: GitHub may not reach %s", f.name(), f.hooks), nil
}
