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

// Check returns the problems in the settings of the server and the repository.
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
	add := func(format string, args ...any) {
		setup.Problems = append(setup.Problems, fmt.Sprintf(format, args...))
	}
	scopes, err := f.missingScopes(ctx)
	if err != nil {
		return setup, err
	}
	if len(scopes) > 0 {
		add("aob's token has no scope %s; %s", strings.Join(scopes, " and no scope "), makeToken)
	}
	if repo.FullName != "" && !strings.EqualFold(repo.FullName, f.name()) {
		add("%s is called %s now; write the new name in forge.gitea.repo and in repository, and start aob serve again",
			f.name(), delivery.Terminal(delivery.Cut(repo.FullName, 200)))
	}
	switch {
	case repo.Archived:
		add("%s is archived, so aob can write nothing there; unarchive it in its settings", f.name())
	case repo.Mirror:
		add("%s is a mirror, and a mirror has no pull requests; name the repository that it mirrors", f.name())
	case repo.Empty:
		add("%s is empty; push a branch main with models, gates and fleets", f.name())
	case !repo.HasPullRequests:
		add("pull requests are switched off in %s; switch them on in its settings", f.name())
	}
	teams, organization, err := f.repoTeams(c)
	if err != nil {
		return setup, err
	}
	admin := repo.Permissions != nil && repo.Permissions.Admin
	switch p := repo.Permissions; {
	case p == nil: // an old server; a missing permission shows where it is needed
	case organization && !admin:
		add("%s belongs to an organization, where Gitea tells administrators of the repository alone what people may "+
			"do; make aob's user %s an administrator of it", f.name(), me.name)
	case !p.Pull || !p.Push:
		add("aob's user %s may not write to %s, so it can set no status and push no release; give it the role Write",
			me.name, f.name())
	}
	if organization && admin {
		problem, err := f.checkTeams(c, teams, me)
		if err != nil {
			return setup, err
		}
		if problem != "" {
			add("%s", problem)
		}
	}
	if f.hooks != "" {
		problem, err := f.checkHooks(c, repo, admin)
		if err != nil {
			return setup, err
		}
		if problem != "" {
			add("%s", problem)
		}
	}
	if repo.Empty || repo.Archived || !repo.HasPullRequests {
		return setup, nil
	}
	branch, err := f.target(c)
	if err != nil {
		return setup, err
	}
	if branch != nil && !f.requiresRelease(branch) {
		setup.Unprotected = fmt.Sprintf("branch %s of %s does not require the status %s, so anybody who may write can "+
			"merge what no gate has passed; protect the branch in its settings, and require that status "+
			"(docs/gitea.md)",
			f.branch, f.name(), delivery.ContextRelease)
	}
	required, err := f.requiresSigned(c, branch, admin)
	if err != nil {
		return setup, err
	}
	wrong, err := f.checkSigned(c, me)
	unsigned := ""
	if err == nil && wrong == "" && f.signed.Key != "" {
		wrong, unsigned, err = f.checkHeads(ctx, me)
	}
	if err != nil {
		return setup, err
	}
	switch {
	case required && f.signed.Key == "":
		setup.MergeRefused = fmt.Sprintf("%s takes only signed commits on %s, and aob does not sign its own; "+
			"whoever runs aob sets commits.signingKey in its configuration (docs/gitea.md, Required signatures)",
			f.name(), f.branch)
	case required && wrong != "":
		setup.MergeRefused = fmt.Sprintf("%s takes only signed commits on %s, and %s", f.name(), f.branch, wrong)
	}
	if problem := cmp.Or(setup.MergeRefused, wrong, unsigned); problem != "" {
		add("%s", problem)
	}
	return setup, nil
}

// checkHooks returns the problem with AOB's webhook, or "". Gitea shows webhooks only to administrators of the
// repository.
func (f *Gitea) checkHooks(c *gitea.Client, repo *gitea.Repository, admin bool) (problem string, err error) {
	arrived, wrongSecret := f.arrived.seen()
	if arrived {
		return "", nil // also if the list of webhooks names another URL
	}
	if admin {
		hooks, err := all(func(opt gitea.ListOptions) ([]*gitea.Hook, *gitea.Response, error) {
			return c.ListRepoHooks(f.owner, f.repo, gitea.ListHooksOptions{ListOptions: opt})
		})
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(hooks, func(h *gitea.Hook) bool {
			return h != nil && strings.TrimRight(cmp.Or(h.Config["url"], h.URL), "/") == strings.TrimRight(f.hooks, "/")
		})
		switch {
		case i < 0:
			return fmt.Sprintf("%s has no webhook to %s, so aob notices changes only when it polls; add one, with the "+
				"secret of the configuration", f.name(), f.hooks), nil
		case !hooks[i].Active:
			return fmt.Sprintf("the webhook of %s to %s is switched off; switch it on", f.name(), f.hooks), nil
		}
	}
	switch {
	case !repo.Updated.After(f.started): // nothing has happened that a webhook would report
		return "", nil
	case wrongSecret:
		return fmt.Sprintf("webhooks arrive at %s with a wrong signature, and none with the right one; give "+
			"the webhook of %s in Gitea the secret that forge.gitea.webhookSecretFile or webhookSecretEnv holds",
			f.hooks, f.name()), nil
	case !admin:
		return fmt.Sprintf("%s has changed since aob serve was started, and no webhook has arrived; Gitea "+
			"shows webhooks to administrators of the repository alone, so check whether %s has one to %s, and its "+
			"recent deliveries: ALLOWED_HOST_LIST may forbid the address", f.name(), f.name(), f.hooks), nil
	}
	return fmt.Sprintf("%s has changed since aob serve was started, and no webhook has arrived; check its "+
		"recent deliveries in the repository's settings: Gitea may not reach %s, or ALLOWED_HOST_LIST forbids it",
		f.name(), f.hooks), nil
}

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

// requiresSigned reports whether the protection of the target branch requires signed commits. Gitea shows it only to
// administrators of the repository.
func (f *Gitea) requiresSigned(c *gitea.Client, branch *gitea.Branch, admin bool) (bool, error) {
	if !admin || branch == nil || branch.EffectiveBranchProtectionName == "" {
		return false, nil
	}
	rule, _, err := c.GetBranchProtection(f.owner, f.repo, branch.EffectiveBranchProtectionName)
	if missing(err) {
		return false, nil // it was removed meanwhile
	}
	return err == nil && rule.RequireSignedCommits, err
}

// maxVerified is how many pull requests are checked for commits whose signature Gitea does not verify.
const maxVerified = 20

// checkSigned returns why Gitea cannot verify the signatures of AOB's commits, and what to do. It returns "" if nothing
// is known to be wrong, or if AOB does not sign. Gitea verifies a signature if the committer's e-mail address is a
// confirmed one of an account, and the key is one that this account has verified.
func (f *Gitea) checkSigned(c *gitea.Client, me account) (string, error) {
	if f.signed.Key == "" {
		return "", nil
	}
	keys, err := all(func(opt gitea.ListOptions) ([]*gitea.PublicKey, *gitea.Response, error) {
		return c.ListMyPublicKeys(gitea.ListPublicKeysOptions{ListOptions: opt})
	})
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(keys, func(k *gitea.PublicKey) bool { return k != nil && sameKey(k.Key, f.signed.Key) }) {
		return fmt.Sprintf("the key that signs aob's commits is not among the SSH keys of the user %s: "+
			"add it in that user's settings, and verify it there: %s", me.name, f.signed.Key), nil
	}
	emails, err := all(func(opt gitea.ListOptions) ([]*gitea.Email, *gitea.Response, error) {
		return c.ListEmails(gitea.ListEmailsOptions{ListOptions: opt})
	})
	if err != nil {
		return "", err
	}
	confirmed := slices.ContainsFunc(emails, func(e *gitea.Email) bool {
		return e != nil && e.Verified && strings.EqualFold(e.Email, f.signed.Email)
	})
	// An address that Gitea derives from the user's name counts too, and is not in the list.
	user, _, _ := strings.Cut(f.signed.Email, "@")
	if !confirmed && (f.signed.Email == delivery.CommitEmail || !strings.EqualFold(user, me.name)) {
		return fmt.Sprintf("the address %s of aob's commits is no confirmed e-mail address of the user %s: "+
			"set commits.email to one that is", f.signed.Email, me.name), nil
	}
	return "", nil
}

// checkHeads checks whether Gitea verifies the heads of AOB's own branches. Everybody can write AOB's address into a
// commit, so wrong, which concerns all pull requests, is only about a commit that AOB's key has signed. unsigned names
// a commit without signature: AOB may have made it before it had a key, or somebody else did.
func (f *Gitea) checkHeads(ctx context.Context, me account) (wrong, unsigned string, err error) {
	prs, err := f.PullRequests(ctx)
	if err != nil {
		return "", "", err
	}
	prs = slices.DeleteFunc(prs, func(pr delivery.PullRequest) bool { return pr.Fork })
	for _, pr := range prs[max(0, len(prs)-maxVerified):] {
		wrong, one, err := f.unverified(ctx, pr, me)
		if wrong != "" || err != nil {
			return wrong, "", err
		}
		unsigned = cmp.Or(unsigned, one)
	}
	return "", unsigned, nil
}

// unverified returns why Gitea does not verify a pull request's head that has AOB's address; see checkHeads.
func (f *Gitea) unverified(ctx context.Context, pr delivery.PullRequest, me account) (wrong, unsigned string,
	err error) {
	var got gitea.Commit
	err = f.get(ctx, fmt.Sprintf("git/commits/%s?stat=false&files=false", url.PathEscape(pr.Head)), &got)
	v := got.RepoCommit
	switch {
	case missing(err) || err == nil && (v == nil || v.Committer == nil || v.Verification == nil):
		return "", "", nil // the head has moved, or the server is an old one
	case err != nil:
		return "", "", err
	case !strings.EqualFold(v.Committer.Email, f.signed.Email) || v.Verification.Verified:
		return "", "", nil
	case v.Verification.Signature == "":
		return "", fmt.Sprintf("commit %.10s of pull request %d has the address of aob's commits and no signature; "+
			"if aob made it while it had no key, push the branch without it, and aob makes it again", pr.Head,
			pr.Number), nil
	case !trust.SSHSigned(f.signed.Key, "git", []byte(v.Verification.Payload), []byte(v.Verification.Signature)):
		return "", "", nil // somebody else signed it
	}
	return fmt.Sprintf("Gitea does not take aob's signature on %.10s of pull request %d for verified: "+
		"press Verify beside the key in the settings of the user %s", pr.Head, pr.Number, me.name), "", nil
}

// sameKey compares two lines of authorized_keys files without their comments.
func sameKey(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	return len(x) >= 2 && len(y) >= 2 && x[0] == y[0] && x[1] == y[1]
}
