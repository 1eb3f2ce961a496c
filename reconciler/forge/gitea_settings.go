package forge

// This file looks at how Gitea is set up for AOB: the repository, the webhook, and signatures of commits.

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"code.gitea.io/sdk/gitea"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// Heard is told that a webhook has arrived.
func (f *Gitea) Heard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = true
}

// Misheard is told that a webhook has arrived whose signature is wrong.
func (f *Gitea) Misheard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.misheard = true
}

// Check returns what is wrong with how the server and the repository are set up.
func (f *Gitea) Check(ctx context.Context) (delivery.Setup, error) {
	const doing = "look at the repository's settings"
	c, err := f.client(ctx)
	if err != nil {
		return delivery.Setup{}, f.explain(doing, err)
	}
	_, name, err := f.myself(c)
	if err != nil {
		return delivery.Setup{}, f.explain(doing, err)
	}
	repo, _, err := c.GetRepo(f.owner, f.repo)
	if err != nil {
		return delivery.Setup{}, f.explain(doing, err)
	}
	called := f.owner + "/" + f.repo
	var setup delivery.Setup
	if missing, err := f.missingScopes(ctx); err != nil {
		return setup, f.explain(doing, err)
	} else if len(missing) > 0 {
		setup.Problems = append(setup.Problems, fmt.Sprintf("aob's token has no scope %s; %s",
			strings.Join(missing, " and no scope "), makeToken))
	}
	say := func(format string, args ...any) {
		setup.Problems = append(setup.Problems, fmt.Sprintf(format, args...))
	}
	if repo.FullName != "" && !strings.EqualFold(repo.FullName, called) {
		say("%s is called %s now; write the new name in forge.gitea.repo and in repository, and start aob serve again",
			called, delivery.Terminal(Cut(repo.FullName, 200)))
	}
	switch {
	case repo.Archived:
		say("%s is archived: aob cannot say or push anything there; take it out of the archive", called)
	case repo.Mirror:
		say("%s is a mirror, and a mirror has no pull requests; name the repository that it mirrors", called)
	case repo.Empty:
		say("%s is empty; push a branch main with models, gates and fleets", called)
	case !repo.HasPullRequests:
		say("pull requests are switched off in %s; switch them on in its settings", called)
	}
	teams, organization, err := f.repoTeams(c)
	if err != nil {
		return setup, f.explain(doing, err)
	}
	admin := repo.Permissions != nil && repo.Permissions.Admin
	switch p := repo.Permissions; {
	case p == nil: // an old server; what is missing shows where it is needed
	case organization && !admin:
		say("%s belongs to an organization, where Gitea tells administrators of the repository alone what people may "+
			"do; make aob's user %s an administrator of it", called, name)
	case !p.Pull || !p.Push:
		say("aob's user %s may not write to %s, so it can set no status and push no release; give it the role Write",
			name, called)
	}
	if organization && admin {
		more, err := f.checkTeams(c, teams, name)
		if err != nil {
			return setup, f.explain(doing, err)
		}
		setup.Problems = append(setup.Problems, more...)
	}
	if f.hooks != "" {
		more, err := f.checkHooks(c, repo, admin)
		if err != nil {
			return setup, f.explain(doing, err)
		}
		setup.Problems = append(setup.Problems, more...)
	}
	if repo.Empty || repo.Archived || !repo.HasPullRequests {
		return setup, nil
	}
	required, err := f.requiresSigned(c, admin)
	if err != nil {
		return setup, f.explain(doing, err)
	}
	wrong, err := f.checkSigned(c, name)
	var unsigned string
	if err == nil && wrong == "" && f.signed.Key != "" {
		wrong, unsigned, err = f.checkHeads(ctx, name)
	}
	if err != nil {
		return setup, f.explain(doing, err)
	}
	switch {
	case required && f.signed.Key == "":
		setup.MergeRefused = fmt.Sprintf("%s takes only signed commits on %s, and aob does not sign its own; "+
			"whoever runs aob sets commits.signingKey in its configuration (docs/gitea.md, Required signatures)",
			called, f.branch)
	case required && wrong != "":
		setup.MergeRefused = fmt.Sprintf("%s takes only signed commits on %s, and %s", called, f.branch, wrong)
	}
	if wrong = cmp.Or(setup.MergeRefused, wrong, unsigned); wrong != "" {
		say("%s", wrong)
	}
	return setup, nil
}

// checkHooks says whether a webhook is there that points to AOB, and works. Gitea shows webhooks to administrators of
// the repository alone.
func (f *Gitea) checkHooks(c *gitea.Client, repo *gitea.Repository, admin bool) ([]string, error) {
	f.mu.Lock()
	heard, misheard := f.heard, f.misheard
	f.mu.Unlock()
	if heard {
		return nil, nil // by whichever way it comes
	}
	called := f.owner + "/" + f.repo
	if admin {
		var hooks []*gitea.Hook
		err := pages(func(opt gitea.ListOptions) (int, *gitea.Response, error) {
			page, resp, err := c.ListRepoHooks(f.owner, f.repo, gitea.ListHooksOptions{ListOptions: opt})
			hooks = append(hooks, page...)
			return len(page), resp, err
		})
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(hooks, func(h *gitea.Hook) bool {
			return h != nil && strings.TrimRight(cmp.Or(h.Config["url"], h.URL), "/") == strings.TrimRight(f.hooks, "/")
		})
		switch {
		case i < 0:
			return []string{fmt.Sprintf("%s has no webhook to %s, so aob sees what happens only when it looks; add "+
				"one, with the secret of the configuration", called, f.hooks)}, nil
		case !hooks[i].Active:
			return []string{fmt.Sprintf("the webhook of %s to %s is switched off; switch it on", called, f.hooks)}, nil
		}
	}
	switch {
	case !repo.Updated.After(f.started): // nothing has happened that a webhook would tell
		return nil, nil
	case misheard:
		return []string{fmt.Sprintf("webhooks arrive at %s with a wrong signature, and none with the right one; give "+
			"the webhook of %s in Gitea the secret that forge.gitea.webhookSecretFile or webhookSecretEnv holds",
			f.hooks, called)}, nil
	case !admin:
		return []string{fmt.Sprintf("%s has changed since aob serve was started, and no webhook has arrived; Gitea "+
			"shows webhooks to administrators of the repository alone, so look whether %s has one to %s, and at its "+
			"recent deliveries: ALLOWED_HOST_LIST may forbid the address", called, called, f.hooks)}, nil
	}
	return []string{fmt.Sprintf("%s has changed since aob serve was started, and no webhook has arrived; look at its "+
		"recent deliveries in the repository's settings: Gitea may not reach %s, or ALLOWED_HOST_LIST forbids it",
		called, f.hooks)}, nil
}

// requiresSigned reports whether the protection of the target branch asks for signed commits. Gitea shows it to
// administrators of the repository alone.
func (f *Gitea) requiresSigned(c *gitea.Client, admin bool) (bool, error) {
	if !admin || f.branch == "" {
		return false, nil
	}
	branch, _, err := c.GetRepoBranch(f.owner, f.repo, f.branch)
	if missing(err) || err == nil && branch.EffectiveBranchProtectionName == "" {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	rule, _, err := c.GetBranchProtection(f.owner, f.repo, branch.EffectiveBranchProtectionName)
	if missing(err) {
		return false, nil // it was removed meanwhile
	}
	return err == nil && rule.RequireSignedCommits, err
}

func missing(err error) bool {
	s, ok := errors.AsType[*statusError](err)
	return ok && s.code == http.StatusNotFound
}

// maxVerified is how many pull requests are looked at for commits that Gitea does not take for signed.
const maxVerified = 20

// checkSigned says why Gitea does not take AOB's commits for signed, and what to do; empty where nothing is known to be
// wrong, or where they are not signed. Gitea verifies a signature if the committer's e-mail address is a confirmed one
// of an account, and the key one that this account has proved to own.
func (f *Gitea) checkSigned(c *gitea.Client, name string) (string, error) {
	if f.signed.Key == "" {
		return "", nil
	}
	var keys []*gitea.PublicKey
	err := pages(func(opt gitea.ListOptions) (int, *gitea.Response, error) {
		page, resp, err := c.ListMyPublicKeys(gitea.ListPublicKeysOptions{ListOptions: opt})
		keys = append(keys, page...)
		return len(page), resp, err
	})
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(keys, func(k *gitea.PublicKey) bool { return k != nil && sameKey(k.Key, f.signed.Key) }) {
		return fmt.Sprintf("the key that signs aob's commits is not among the SSH keys of the user %s: "+
			"add it in that user's settings, and verify it there: %s", name, f.signed.Key), nil
	}
	var emails []*gitea.Email
	err = pages(func(opt gitea.ListOptions) (int, *gitea.Response, error) {
		page, resp, err := c.ListEmails(gitea.ListEmailsOptions{ListOptions: opt})
		emails = append(emails, page...)
		return len(page), resp, err
	})
	if err != nil {
		return "", err
	}
	known := slices.ContainsFunc(emails, func(e *gitea.Email) bool {
		return e != nil && e.Verified && strings.EqualFold(e.Email, f.signed.Email)
	})
	// An address that Gitea makes of the user's name counts too, and is not in the list.
	made, _, _ := strings.Cut(f.signed.Email, "@")
	if !known && (f.signed.Email == delivery.CommitEmail || !strings.EqualFold(made, name)) {
		return fmt.Sprintf("the address %s of aob's commits is no confirmed e-mail address of the user %s: "+
			"set commits.email to one that is", f.signed.Email, name), nil
	}
	return "", nil
}

// checkHeads looks for heads of AOB's own branches that Gitea does not take for signed. Everybody can write AOB's
// address into a commit. So wrong, which is said of all pull requests, is only of a commit that AOB's key has signed.
// unsigned names one that has no signature: AOB may have made it before it had a key, or somebody else did.
func (f *Gitea) checkHeads(ctx context.Context, name string) (wrong, unsigned string, err error) {
	prs, err := f.PullRequests(ctx)
	if err != nil {
		return "", "", err
	}
	prs = slices.DeleteFunc(slices.Clone(prs), func(pr delivery.PullRequest) bool { return pr.Fork })
	for _, pr := range prs[max(0, len(prs)-maxVerified):] {
		wrong, one, err := f.unverified(ctx, pr, name)
		if wrong != "" || err != nil {
			return wrong, "", err
		}
		unsigned = cmp.Or(unsigned, one)
	}
	return "", unsigned, nil
}

// unverified says why Gitea does not take a pull request's head for signed, where it has AOB's address; see checkHeads.
func (f *Gitea) unverified(ctx context.Context, pr delivery.PullRequest, name string) (wrong, unsigned string,
	err error) {
	var got gitea.Commit
	path := fmt.Sprintf("git/commits/%s?stat=false&files=false", url.PathEscape(pr.Head))
	err = f.get(ctx, path, func(d *json.Decoder) error { return d.Decode(&got) })
	v := got.RepoCommit
	if missing(err) || err == nil && (v == nil || v.Committer == nil || v.Verification == nil) {
		return "", "", nil // the head has moved, or the server is an old one
	}
	switch {
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
		"press Verify beside the key in the settings of the user %s", pr.Head, pr.Number, name), "", nil
}

// sameKey compares two lines of authorized_keys files without their comments.
func sameKey(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	return len(x) >= 2 && len(y) >= 2 && x[0] == y[0] && x[1] == y[1]
}
