package forge

// This file asks Gitea who may do what.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"code.gitea.io/sdk/gitea"

	"github.com/autonomos/aob/reconciler/delivery"
)

// makeToken is what to do where the token has too few scopes. docs/gitea.md lists the same.
const makeToken = "make a token with the scopes write:repository, write:issue, read:user and, in an organization, " +
	"read:organization (docs/gitea.md, Set the server up)"

// scopes are the scopes that AOB's token needs, by what Gitea calls their category.
var scopes = map[string]string{
	"repository": "write:repository", "issue": "write:issue", "user": "read:user", "organization": "read:organization",
}

var requiredScope = regexp.MustCompile(`required=\[(?:read|write):([a-z]+)`)

// missingScope returns the scope that AOB's token needs and does not have, where that is why Gitea refuses; else "".
// Gitea names the scope that one request needs. That may be the reading one where AOB has to write as well.
func missingScope(err error) string {
	s, ok := errors.AsType[*statusError](err)
	if !ok || s.code != http.StatusForbidden {
		return ""
	}
	m := requiredScope.FindStringSubmatch(s.text)
	if m == nil {
		return ""
	}
	if scope, ok := scopes[m[1]]; ok {
		return scope
	}
	return "read:" + m[1]
}

// missingScopes returns the writing scopes that AOB's token does not have. Gitea looks at the scopes first, so it is
// sent requests that it refuses in any case: a pull request and a comment without content.
func (f *Gitea) missingScopes(ctx context.Context) ([]string, error) {
	var list []string
	for _, path := range []string{"pulls", "issues/0/comments"} {
		address := fmt.Sprintf("%s/api/v1/repos/%s/%s/%s", f.url, url.PathEscape(f.owner), url.PathEscape(f.repo), path)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader("{}"))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("User-Agent", "aob")
		resp, err := f.http.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		if scope := missingScope(err); scope != "" {
			list = append(list, scope)
		} else if _, refused := errors.AsType[*statusError](err); err != nil && !refused {
			return nil, err
		}
	}
	return list, nil
}

// Permission returns what a user may do in the repository, by the server's own
// word. A user whom it does not know may do nothing.
func (f *Gitea) Permission(ctx context.Context, user string) (delivery.Permission, error) {
	doing := fmt.Sprintf("ask what %s may do", Cut(user, 40))
	if user == "" {
		return delivery.PermissionNone, nil
	}
	c, err := f.client(ctx)
	if err != nil {
		return "", f.explain(doing, err)
	}
	got, _, err := c.CollaboratorPermission(f.owner, f.repo, user)
	if s, ok := errors.AsType[*statusError](err); ok && missingScope(err) == "" {
		switch s.code {
		case http.StatusNotFound:
			return f.unknown(ctx, doing)
		case http.StatusForbidden:
			if may, ok := f.assignee(c, user); ok {
				return may, nil
			}
			return "", delivery.Blockedf(
				"make aob's user an administrator of the repository: Gitea tells no other what people may do", "%s: %s",
				doing, s)
		}
	}
	if err != nil || got == nil {
		return "", f.explain(doing, err)
	}
	switch got.Permission {
	case gitea.AccessModeOwner, gitea.AccessModeAdmin, gitea.AccessModeWrite:
		return delivery.PermissionWrite, nil
	}
	may := delivery.PermissionNone
	if got.Permission == gitea.AccessModeRead {
		may = delivery.PermissionRead
	}
	if writes, err := f.writesByTeam(c, user); writes || err != nil {
		return delivery.PermissionWrite, f.explain(doing, err)
	}
	return may, nil
}

// assignee returns what a user may do by the list of those whom issues can be
// assigned to, which Gitea shows to everybody: who may write is on it. In an
// organization's repository others are on it too, so it says nothing there.
func (f *Gitea) assignee(c *gitea.Client, user string) (may delivery.Permission, ok bool) {
	if _, organization, err := f.repoTeams(c); organization || err != nil {
		return "", false
	}
	list, _, err := c.GetAssignees(f.owner, f.repo)
	if err != nil {
		return "", false
	}
	if slices.ContainsFunc(list, func(u *gitea.User) bool { return u != nil && strings.EqualFold(u.UserName, user) }) {
		return delivery.PermissionWrite, true
	}
	return delivery.PermissionNone, true
}

// repoTeams returns the teams of the repository, and whether an organization owns it. Others have no teams.
func (f *Gitea) repoTeams(c *gitea.Client) (teams []*gitea.Team, organization bool, err error) {
	teams, _, err = c.GetRepoTeams(f.owner, f.repo)
	if s, ok := errors.AsType[*statusError](err); ok && s.code == http.StatusMethodNotAllowed {
		return nil, false, nil
	}
	return slices.DeleteFunc(teams, func(t *gitea.Team) bool { return t == nil }), err == nil, err
}

// writes reports whether a team has the rights for single units of a repository, code and pull requests, that make its
// members writers. Gitea leaves these rights out of a member's permission. It counts teams with Administrator access.
func writes(t *gitea.Team) bool {
	for _, unit := range []gitea.RepoUnitType{gitea.RepoUnitCode, gitea.RepoUnitPulls} {
		if mode := t.UnitsMap[string(unit)]; mode != "write" && mode != "admin" && mode != "owner" {
			return false
		}
	}
	return t.Permission != gitea.AccessModeAdmin && t.Permission != gitea.AccessModeOwner
}

// writesByTeam reports whether a user belongs to a team that may write. A team whose members AOB may not see counts for
// nobody; Check says which those are.
func (f *Gitea) writesByTeam(c *gitea.Client, user string) (bool, error) {
	teams, _, err := f.repoTeams(c)
	if err != nil {
		return false, err
	}
	for _, t := range teams {
		if !writes(t) {
			continue
		}
		if in, err := f.member(c, t, user); in || err != nil {
			return in, err
		}
	}
	return false, nil
}

// member reports whether a user is seen in a team. Gitea tells of a team its own members and the organization's owners
// alone.
func (f *Gitea) member(c *gitea.Client, t *gitea.Team, user string) (bool, error) {
	_, _, err := c.GetTeamMember(t.ID, user)
	return err == nil, unlessDenied(err)
}

// sees reports whether AOB's user may see who is in a team.
func (f *Gitea) sees(c *gitea.Client, t *gitea.Team) (bool, error) {
	_, _, err := c.GetTeam(t.ID)
	return err == nil, unlessDenied(err)
}

// unlessDenied drops the error by which Gitea says that something is not there, or not for AOB's user to see.
func unlessDenied(err error) error {
	s, ok := errors.AsType[*statusError](err)
	if ok && (s.code == http.StatusNotFound || s.code == http.StatusForbidden) && missingScope(err) == "" {
		return nil
	}
	return err
}

// Teams returns the names of the repository's teams, and whether a user belongs to
// each. A repository that no organization owns has none. Gitea tells of a team its own
// members alone: aob's user has to be in those that own gates. With an error, the names
// are right and nobody belongs to those that could not be asked for.
func (f *Gitea) Teams(ctx context.Context, user string) (map[string]bool, error) {
	doing := fmt.Sprintf("ask for the teams of %s", Cut(user, 40))
	c, err := f.client(ctx)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	teams, _, err := f.repoTeams(c)
	if err != nil {
		return nil, f.explain(doing, err)
	}
	in := map[string]bool{}
	for _, t := range teams {
		in[t.Name] = false
	}
	for _, t := range teams {
		if in[t.Name], err = f.member(c, t, user); err != nil {
			return in, f.explain(doing, err)
		}
	}
	return in, nil
}

// maxMembers is how many members of a team are asked for.
const maxMembers = 50

// Owner returns why a name can own no gate, or "" where it can: it is a team of which somebody may write to the
// repository, or a user who may.
func (f *Gitea) Owner(ctx context.Context, name string) (problem string, err error) {
	doing := fmt.Sprintf("ask whether %s can own a gate", Cut(name, 40))
	c, err := f.client(ctx)
	if err != nil {
		return "", f.explain(doing, err)
	}
	teams, _, err := f.repoTeams(c)
	if err != nil {
		return "", f.explain(doing, err)
	}
	for _, t := range teams {
		if strings.EqualFold(t.Name, name) {
			problem, err := f.ownerTeam(ctx, c, t)
			return problem, f.explain(doing, err)
		}
	}
	may, err := f.Permission(ctx, name)
	if err != nil || may == delivery.PermissionWrite {
		return "", err
	}
	return "no team of the repository and no user who may write here", nil
}

// ownerTeam returns why nobody in a team can accept anything, or "".
func (f *Gitea) ownerTeam(ctx context.Context, c *gitea.Client, t *gitea.Team) (problem string, err error) {
	_, me, err := f.myself(c)
	if err != nil {
		return "", err
	}
	seen, err := f.sees(c, t)
	if scope := missingScope(err); scope != "" {
		return fmt.Sprintf("a team whose members aob cannot see: its token has no scope %s", scope), nil
	}
	if err != nil {
		return "", err
	}
	if !seen {
		return fmt.Sprintf("a team whose members aob cannot see: add aob's user %s to it", me), nil
	}
	members, _, err := c.ListTeamMembers(t.ID,
		gitea.ListTeamMembersOptions{ListOptions: gitea.ListOptions{PageSize: maxMembers}})
	if err != nil {
		return "", err
	}
	for _, u := range members {
		if u == nil || strings.EqualFold(u.UserName, me) {
			continue
		}
		if may, err := f.Permission(ctx, u.UserName); may == delivery.PermissionWrite || err != nil {
			return "", err
		}
	}
	return "a team of which no member may write here: give the team Write for code and pull requests", nil
}

// checkTeams says of which teams AOB cannot see who writes.
func (f *Gitea) checkTeams(c *gitea.Client, teams []*gitea.Team, me string) ([]string, error) {
	var hidden []string
	for _, t := range teams {
		seen, err := f.sees(c, t)
		if scope := missingScope(err); scope != "" {
			return []string{fmt.Sprintf("aob's token has no scope %s, so it cannot see who is in a team; %s", scope,
				makeToken)}, nil
		}
		if err != nil {
			return nil, err
		}
		if !seen && writes(t) {
			hidden = append(hidden, delivery.Terminal(t.Name))
		}
	}
	if len(hidden) == 0 {
		return nil, nil
	}
	return []string{fmt.Sprintf("aob cannot see who is in the teams %s of %s, so their members count as readers; add "+
		"aob's user %s to them", Cut(strings.Join(hidden, ", "), 200), f.owner, me)}, nil
}

// unknown tells a user who is not there from a repository that is not.
func (f *Gitea) unknown(ctx context.Context, doing string) (delivery.Permission, error) {
	c, err := f.client(ctx)
	if err == nil {
		_, _, err = c.GetRepo(f.owner, f.repo)
	}
	if err != nil {
		return "", f.explain(doing, err)
	}
	return delivery.PermissionNone, nil
}
