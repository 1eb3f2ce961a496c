package forge

// This file checks how Gitea is set up for AOB: the repository, the webhook, and the signatures of commits.

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"code.gitea.io/sdk/gitea"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// Check returns how the server and the repository are set up.
func (f *Gitea) Check(ctx context.Context) (setup delivery.Setup, err error) {
	defer f.explain(&err, "read the repository's settings")
	c, me, err := f.session(ctx)
	if err != nil {
		return setup, err
	}
	repo, answer, err := c.GetRepo(f.owner, f.repo)
	if err != nil {
		return setup, err
	}
	setup.Now, _ = http.ParseTime(answer.Header.Get("Date")) // whole seconds
	scopes, err := f.missingScopes(ctx)
	if err != nil {
		return setup, err
	}
	if len(scopes) > 0 {
		setup.Wrong("token", "aob's token has no scope %s", strings.Join(scopes, " and no scope ")).To(makeToken)
	} else {
		setup.Right("token", "it is of the user %s, and has the scopes that aob needs", me.name)
	}
	f.checkRepository(&setup, repo)
	teams, organization, err := f.repoTeams(c)
	if err != nil {
		return setup, err
	}
	admin := repo.Permissions != nil && repo.Permissions.Admin
	f.checkRole(&setup, repo, me, organization)
	if organization && admin {
		if err := f.checkTeams(&setup, c, teams, me); err != nil {
			return setup, err
		}
	}
	if f.hooks != "" {
		if err := f.checkHooks(&setup, c, repo, admin); err != nil {
			return setup, err
		}
	}
	if repo.Empty || repo.Archived || !repo.HasPullRequests {
		return setup, nil
	}
	branch, err := f.target(c)
	if err != nil {
		return setup, err
	}
	rule, err := f.rule(c, branch, admin)
	if err != nil {
		return setup, err
	}
	f.checkProtection(&setup, repo, branch, rule, admin)
	return setup, f.checkSignatures(ctx, &setup, c, me, rule != nil && rule.RequireSignedCommits)
}

// checkRepository says whether the repository takes pull requests.
func (f *Gitea) checkRepository(setup *delivery.Setup, repo *gitea.Repository) {
	const check = "repository"
	renamed := repo.FullName != "" && !strings.EqualFold(repo.FullName, f.name())
	if renamed {
		setup.Wrong(check, "%s is called %s now", f.name(), delivery.Terminal(delivery.Cut(repo.FullName, 200))).To(
			"write the new name in forge.gitea.repo and in repository, and start aob serve again")
	}
	switch {
	case repo.Archived:
		setup.Wrong(check, "%s is archived, so aob can write nothing there", f.name()).To(
			"unarchive it in its settings", f.command(http.MethodPatch, "", `{"archived": false}`))
	case repo.Mirror:
		setup.Wrong(check, "%s is a mirror, and a mirror has no pull requests", f.name()).To(
			"name the repository that it mirrors")
	case repo.Empty:
		setup.Wrong(check, "%s is empty", f.name()).To("push a branch main with models, gates and fleets")
	case !repo.HasPullRequests:
		setup.Wrong(check, "pull requests are switched off in %s", f.name()).To("switch them on in its settings",
			f.command(http.MethodPatch, "", `{"has_pull_requests": true}`))
	case !repo.AllowMerge && !repo.AllowSquash && !repo.AllowRebase && !repo.AllowRebaseMerge &&
		!repo.AllowFastForwardOnlyMerge:
		setup.Risky(check, "%s lets nobody merge with a button", f.name()).To(
			"allow merge commits, squashing or rebasing in its settings; aob follows all of them",
			f.command(http.MethodPatch, "", `{"has_pull_requests": true, "allow_merge_commits": true}`))
	case !renamed:
		setup.Right(check, "%s takes pull requests", f.name())
	}
}

// checkRole says whether AOB's user may do what AOB does.
func (f *Gitea) checkRole(setup *delivery.Setup, repo *gitea.Repository, me account, organization bool) {
	const check = "role"
	give := func(role string) string {
		return f.command(http.MethodPut, "/collaborators/"+url.PathEscape(me.name), `{"permission": "`+role+`"}`)
	}
	switch p := repo.Permissions; {
	case p == nil: // an old server; a missing permission shows where it is needed
		setup.Unknown(check, "this server does not say what aob's user %s may do", me.name)
	case organization && !p.Admin:
		setup.Wrong(check, "%s belongs to an organization, where Gitea tells administrators of the repository alone "+
			"what people may do", f.name()).To("make aob's user "+me.name+" an administrator of it", give("admin"))
	case !p.Pull || !p.Push:
		setup.Wrong(check, "aob's user %s may not write to %s, so it can set no status and push no release", me.name,
			f.name()).To("give it the role Write", give("write"))
	default:
		setup.Right(check, "%s may write to %s", me.name, f.name())
	}
}

// checkProtection says whether people can merge what AOB has not passed. rule is nil if AOB may not read it.
func (f *Gitea) checkProtection(setup *delivery.Setup, repo *gitea.Repository, branch *gitea.Branch,
	rule *gitea.BranchProtection, admin bool) {
	if branch == nil {
		return
	}
	const required, around = "required status", "ways around"
	rules, change := "/branch_protections", func(field string) string {
		return f.command(http.MethodPatch, "/branch_protections/"+url.PathEscape(rule.RuleName), field)
	}
	if !f.requiresRelease(branch) {
		fix := f.command(http.MethodPost, rules, asJSON(map[string]any{"rule_name": f.branch,
			"enable_status_check": true, "status_check_contexts": []string{delivery.ContextRelease},
			"block_admin_merge_override": true}))
		if rule != nil {
			fix = change(asJSON(map[string]any{"enable_status_check": true,
				"status_check_contexts": append(slices.Clone(rule.StatusCheckContexts), delivery.ContextRelease)}))
		}
		f := setup.Unsafe(required, "branch %s of %s does not require the status %s, so anybody who may write can "+
			"merge what no gate has passed", f.branch, f.name(), delivery.ContextRelease)
		if f.To("protect the branch in its settings, and require that status (docs/gitea.md)"); admin {
			f.Fix = []string{fix}
		}
		return
	}
	setup.Right(required, "branch %s requires %s; Gitea takes it from anybody who may write, and aob says so where "+
		"another user has set it", f.branch, delivery.ContextRelease)
	switch {
	case rule == nil:
		setup.Unknown(around, "Gitea tells only administrators of %s who may pass the protection of %s by",
			repo.FullName, f.branch)
	case !rule.BlockAdminMergeOverride:
		setup.Risky(around, "administrators can merge into %s although %s is missing or red", f.branch,
			delivery.ContextRelease).To("switch on \"Administrators must follow branch protection rules\" in the rule "+
			"of the branch", change(`{"block_admin_merge_override": true}`))
	case rule.EnablePush && (!rule.EnablePushWhitelist || len(rule.PushWhitelistUsernames) > 0 ||
		len(rule.PushWhitelistTeams) > 0 || rule.PushWhitelistDeployKeys):
		setup.Risky(around, "people can push to %s without a pull request", f.branch).To(
			"disable pushes in the rule of the branch", change(`{"enable_push": false}`))
	default:
		setup.Right(around, "nobody can push to %s, and administrators follow its rule", f.branch)
	}
}

// checkSignatures says whether Gitea takes AOB's commits.
func (f *Gitea) checkSignatures(ctx context.Context, setup *delivery.Setup, c *gitea.Client, me account,
	required bool) error {
	const check = "signatures"
	wrong, err := f.checkSigned(c, me)
	var unsigned delivery.Setting
	if err == nil && wrong.Text == "" && f.signed.Key != "" {
		wrong, unsigned, err = f.checkHeads(ctx, me)
	}
	if err != nil {
		return err
	}
	if required && f.signed.Key == "" {
		wrong = delivery.Setting{Text: "aob does not sign its own", Do: "whoever runs aob sets commits.signingKey in " +
			"its configuration (docs/gitea.md, Required signatures)"}
	}
	switch {
	case required && wrong.Text != "":
		found := setup.Wrong(check, "%s takes only signed commits on %s, and %s", f.name(), f.branch, wrong.Text)
		found.To(wrong.Do)
		setup.MergeRefused = found.Problem()
	case wrong.Text != "":
		setup.Wrong(check, "%s", wrong.Text).To(wrong.Do)
	case unsigned.Text != "":
		setup.Wrong(check, "%s", unsigned.Text).To(unsigned.Do)
	case f.signed.Key != "":
		setup.Right(check, "aob signs its commits with a key of the user %s", me.name)
	default:
		setup.Right(check, "%s needs none", f.branch)
	}
	return nil
}

// command returns a command for a shell that changes a setting. Whoever runs it has the token of an administrator of
// the repository in GITEA_TOKEN.
func (f *Gitea) command(method, path, body string) string {
	return fmt.Sprintf(`curl -fsS -o /dev/null -X %s -H "Authorization: token $GITEA_TOKEN" -H 'Content-Type: `+
		`application/json' %s -d %s`, method, quoted(f.url+"/api/v1/repos/"+url.PathEscape(f.owner)+"/"+
		url.PathEscape(f.repo)+path), quoted(body))
}

// checkHooks says whether AOB's webhook is there and arrives. Gitea shows webhooks only to administrators of the
// repository.
func (f *Gitea) checkHooks(setup *delivery.Setup, c *gitea.Client, repo *gitea.Repository, admin bool) error {
	const check = "webhook"
	arrived, wrongSecret := f.arrived.seen()
	if arrived { // also if the list of webhooks names another URL
		setup.Right(check, "webhooks arrive at %s", f.hooks)
		return nil
	}
	if admin {
		hooks, err := all(func(opt gitea.ListOptions) ([]*gitea.Hook, *gitea.Response, error) {
			return c.ListRepoHooks(f.owner, f.repo, gitea.ListHooksOptions{ListOptions: opt})
		})
		if err != nil {
			return err
		}
		i := slices.IndexFunc(hooks, func(h *gitea.Hook) bool {
			return h != nil && strings.TrimRight(cmp.Or(h.Config["url"], h.URL), "/") == strings.TrimRight(f.hooks, "/")
		})
		switch {
		case i < 0:
			body := asJSON(map[string]any{"type": "gitea", "active": true, "events": hookEvents,
				"config": map[string]string{"url": f.hooks, "content_type": "json", "secret": "SECRET"}})
			// The secret stays out of what is printed.
			fix := strings.Replace(f.command(http.MethodPost, "/hooks", body), "SECRET", `'"$WEBHOOK_SECRET"'`, 1)
			setup.Wrong(check, "%s has no webhook to %s, so aob notices changes only when it polls", f.name(), f.hooks).
				To("add one, with the secret of the configuration, which the command takes from WEBHOOK_SECRET", fix)
			return nil
		case !hooks[i].Active:
			setup.Wrong(check, "the webhook of %s to %s is switched off", f.name(), f.hooks).To("switch it on",
				f.command(http.MethodPatch, fmt.Sprintf("/hooks/%d", hooks[i].ID), `{"active": true}`))
			return nil
		}
	}
	switch {
	case !repo.Updated.After(f.started) && admin: // nothing has happened that a webhook would report
		setup.Right(check, "%s has one to %s", f.name(), f.hooks)
	case !repo.Updated.After(f.started):
		setup.Unknown(check, "Gitea shows webhooks to administrators of %s alone; aob serve notices whether one "+
			"arrives", f.name())
	case wrongSecret:
		setup.Wrong(check, "webhooks arrive at %s with a wrong signature, and none with the right one", f.hooks).To(
			fmt.Sprintf("give the webhook of %s in Gitea the secret that forge.gitea.webhookSecretFile or "+
				"webhookSecretEnv holds", f.name()))
	case !admin:
		setup.Wrong(check, "%s has changed since aob serve was started, and no webhook has arrived", f.name()).To(
			fmt.Sprintf("Gitea shows webhooks to administrators of the repository alone, so check whether %s has one "+
				"to %s, and its recent deliveries: ALLOWED_HOST_LIST may forbid the address", f.name(), f.hooks))
	default:
		setup.Wrong(check, "%s has changed since aob serve was started, and no webhook has arrived", f.name()).To(
			fmt.Sprintf("check its recent deliveries in the repository's settings: Gitea may not reach %s, or "+
				"ALLOWED_HOST_LIST forbids it", f.hooks))
	}
	return nil
}

// hookEvents are the events of which AOB is told. docs/gitea.md has the same list.
var hookEvents = []string{"push", "create", "delete", "pull_request", "pull_request_comment", "issue_comment", "status"}

// target returns the target branch; nil if there is none.
func (f *Gitea) target(c *gitea.Client) (*gitea.Branch, error) {
	if f.branch == "" {
		return nil, nil
	}
	branch, _, err := c.GetRepoBranch(f.owner, f.repo, f.branch)
	if missing(err) {
		return nil, nil
	}
	return branch, err
}

// requiresRelease reports whether a branch requires the status aob/release. Gitea takes patterns of contexts.
func (f *Gitea) requiresRelease(branch *gitea.Branch) bool {
	return branch.Protected && branch.EnableStatusCheck &&
		slices.ContainsFunc(branch.StatusCheckContexts, func(pattern string) bool {
			match, err := path.Match(strings.ReplaceAll(pattern, "**", "*"), delivery.ContextRelease)
			return err == nil && match || pattern == "*" || pattern == "**"
		})
}

// rule returns the rule that protects the target branch; nil for none. Gitea shows it only to administrators of the
// repository.
func (f *Gitea) rule(c *gitea.Client, branch *gitea.Branch, admin bool) (*gitea.BranchProtection, error) {
	if !admin || branch == nil || branch.EffectiveBranchProtectionName == "" {
		return nil, nil
	}
	rule, _, err := c.GetBranchProtection(f.owner, f.repo, branch.EffectiveBranchProtectionName)
	if missing(err) {
		return nil, nil // it was removed meanwhile
	}
	return rule, err
}

// maxVerified is how many pull requests are checked for commits whose signature Gitea does not verify.
const maxVerified = 20

// checkSigned returns why Gitea cannot verify the signatures of AOB's commits, and what to do. It has no text if
// nothing is known to be wrong, or if AOB does not sign. Gitea verifies a signature if the committer's e-mail address
// is a confirmed one of an account, and the key is one that this account has verified.
func (f *Gitea) checkSigned(c *gitea.Client, me account) (wrong delivery.Setting, err error) {
	if f.signed.Key == "" {
		return wrong, nil
	}
	keys, err := all(func(opt gitea.ListOptions) ([]*gitea.PublicKey, *gitea.Response, error) {
		return c.ListMyPublicKeys(gitea.ListPublicKeysOptions{ListOptions: opt})
	})
	if err != nil {
		return wrong, err
	}
	if !slices.ContainsFunc(keys, func(k *gitea.PublicKey) bool { return k != nil && sameKey(k.Key, f.signed.Key) }) {
		return delivery.Setting{Text: fmt.Sprintf("the key that signs aob's commits is not among the SSH keys of the "+
			"user %s", me.name), Do: "add it in that user's settings, and verify it there: " + f.signed.Key}, nil
	}
	emails, err := all(func(opt gitea.ListOptions) ([]*gitea.Email, *gitea.Response, error) {
		return c.ListEmails(gitea.ListEmailsOptions{ListOptions: opt})
	})
	if err != nil {
		return wrong, err
	}
	confirmed := slices.ContainsFunc(emails, func(e *gitea.Email) bool {
		return e != nil && e.Verified && strings.EqualFold(e.Email, f.signed.Email)
	})
	// An address that Gitea derives from the user's name counts too, and is not in the list.
	user, _, _ := strings.Cut(f.signed.Email, "@")
	if !confirmed && (f.signed.Email == delivery.CommitEmail || !strings.EqualFold(user, me.name)) {
		return delivery.Setting{Text: fmt.Sprintf("the address %s of aob's commits is no confirmed e-mail address of "+
			"the user %s", f.signed.Email, me.name), Do: "set commits.email to one that is"}, nil
	}
	return wrong, nil
}

// checkHeads checks whether Gitea verifies the heads of AOB's own branches. Everybody can write AOB's address into a
// commit, so wrong, which concerns all pull requests, is only about a commit that AOB's key has signed. unsigned names
// a commit without signature: AOB may have made it before it had a key, or somebody else did.
func (f *Gitea) checkHeads(ctx context.Context, me account) (wrong, unsigned delivery.Setting, err error) {
	prs, err := f.PullRequests(ctx)
	if err != nil {
		return wrong, unsigned, err
	}
	prs = slices.DeleteFunc(prs, func(pr delivery.PullRequest) bool { return pr.Fork })
	for _, pr := range prs[max(0, len(prs)-maxVerified):] {
		wrong, one, err := f.unverified(ctx, pr, me)
		if wrong.Text != "" || err != nil {
			return wrong, delivery.Setting{}, err
		}
		if unsigned.Text == "" {
			unsigned = one
		}
	}
	return wrong, unsigned, nil
}

// unverified returns why Gitea does not verify a pull request's head that has AOB's address; see checkHeads.
func (f *Gitea) unverified(ctx context.Context, pr delivery.PullRequest, me account) (wrong, unsigned delivery.Setting,
	err error) {
	var got gitea.Commit
	err = f.get(ctx, fmt.Sprintf("git/commits/%s?stat=false&files=false", url.PathEscape(pr.Head)), &got)
	v := got.RepoCommit
	switch {
	case missing(err) || err == nil && (v == nil || v.Committer == nil || v.Verification == nil):
		return wrong, unsigned, nil // the head has moved, or the server is an old one
	case err != nil:
		return wrong, unsigned, err
	case !strings.EqualFold(v.Committer.Email, f.signed.Email) || v.Verification.Verified:
	case v.Verification.Signature == "":
		unsigned.Text = fmt.Sprintf("commit %.10s of pull request %d has the address of aob's commits and no signature",
			pr.Head, pr.Number)
		unsigned.Do = "if aob made it while it had no key, push the branch without it, and aob makes it again"
	case trust.SSHSigned(f.signed.Key, "git", []byte(v.Verification.Payload), []byte(v.Verification.Signature)):
		wrong.Text = fmt.Sprintf("Gitea does not take aob's signature on %.10s of pull request %d for verified",
			pr.Head, pr.Number)
		wrong.Do = "press Verify beside the key in the settings of the user " + me.name
	}
	return wrong, unsigned, nil
}

// sameKey compares two lines of authorized_keys files without their comments.
func sameKey(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	return len(x) >= 2 && len(y) >= 2 && x[0] == y[0] && x[1] == y[1]
}
