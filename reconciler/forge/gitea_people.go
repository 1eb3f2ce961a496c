package forge

// This file reads users, permissions, teams and the scopes of the token.

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"code.gitea.io/sdk/gitea"

	"github.com/autonomos/aob/reconciler/delivery"
)

// makeToken is the hint for a token with too few scopes. docs/gitea.md has the same list.
const makeToken = "make a token with the scopes write:repository, write:issue, read:user and, in an organization, " +
	"read:organization (docs/gitea.md, Set the server up)"

// scopes maps Gitea's categories of scopes to the scope of each that AOB's token needs.
var scopes = map[string]string{
	"repository": "write:repository", "issue": "write:issue", "user": "read:user", "organization": "read:organization",
}

var requiredScope = regexp.MustCompile(`required=\[(?:read|write):([a-z]+)`)

// missingScope returns the scope that AOB's token lacks if that is why Gitea refuses a request, else "". Gitea names
// the scope that the one request needs, which may be for reading although AOB also has to write.
func missingScope(err error) string {
	s, ok := errors.AsType[*statusError](err)
	if !ok || s.code != http.StatusForbidden {
		return ""
	}
	m := requiredScope.FindStringSubmatch(s.text)
	if m == nil {
		return ""
	}
	return cmp.Or(scopes[m[1]], "read:"+m[1])
}

// missingScopes returns the scopes for writing that AOB's token lacks. It sends requests that Gitea refuses in any
// case, a pull request and a comment without content, because Gitea checks the scopes first.
func (f *Gitea) missingScopes(ctx context.Context) ([]string, error) {
	var list []string
	for _, path := range []string{"pulls", "issues/0/comments"} {
		err := f.send(ctx, http.MethodPost, path, strings.NewReader("{}"), func(*json.Decoder) error { return nil })
		if scope := missingScope(err); scope != "" {
			list = append(list, scope)
		} else if _, refused := errors.AsType[*statusError](err); err != nil && !refused {
			return nil, err
		}
	}
	return list, nil
}

// Permission returns a user's permission on the repository, as the server says. An unknown user has none.
func (f *Gitea) Permission(ctx context.Context, user string) (_ delivery.Permission, err error) {
	defer f.explain(&err, "read the permission of %s", delivery.Cut(user, 40))
	if user == "" {
		return delivery.PermissionNone, nil
	}
	c := f.client(ctx)
	got, _, err := c.CollaboratorPermission(f.owner, f.repo, user)
	switch {
	case missing(err): // there is no such user, or no such repository
		_, _, err := c.GetRepo(f.owner, f.repo)
		return delivery.PermissionNone, err
	case hasStatus(err, http.StatusForbidden) && missingScope(err) == "":
		if may, ok := f.assignee(c, user); ok {
			return may, nil
		}
		return "", delivery.Blockedf(
			"make aob's user an administrator of the repository: Gitea tells no other what people may do", "%s", err)
	case err != nil || got == nil:
		return "", err
	}
	switch got.Permission {
	case gitea.AccessModeOwner, gitea.AccessModeAdmin, gitea.AccessModeWrite:
		return delivery.PermissionWrite, nil
	}
	if writes, err := f.writesByTeam(c, user); writes || err != nil {
		return delivery.PermissionWrite, err
	}
	if got.Permission == gitea.AccessModeRead {
		return delivery.PermissionRead, nil
	}
	return delivery.PermissionNone, nil
}

// assignee returns a user's permission according to the list of users whom issues can be
// assigned to. Gitea shows that list to everybody, and writers are on it. In an organization's
// repository other users are on it too, so ok is false there.
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

// repoTeams returns the teams of the repository, and whether an organization owns it. Other repositories have no teams.
func (f *Gitea) repoTeams(c *gitea.Client) (teams []*gitea.Team, organization bool, err error) {
	teams, _, err = c.GetRepoTeams(f.owner, f.repo)
	if hasStatus(err, http.StatusMethodNotAllowed) {
		return nil, false, nil
	}
	return slices.DeleteFunc(teams, func(t *gitea.Team) bool { return t == nil }), err == nil, err
}

// writes reports whether a team gives write permission by its rights for single units of a repository, code and pull
// requests. Gitea leaves these rights out of a member's permission. It does count teams with Administrator access.
func writes(t *gitea.Team) bool {
	for _, unit := range []gitea.RepoUnitType{gitea.RepoUnitCode, gitea.RepoUnitPulls} {
		if mode := t.UnitsMap[string(unit)]; mode != "write" && mode != "admin" && mode != "owner" {
			return false
		}
	}
	return t.Permission != gitea.AccessModeAdmin && t.Permission != gitea.AccessModeOwner
}

// writesByTeam reports whether a user is a member of a team that gives write permission. Teams whose members AOB cannot
// see are skipped; Check names them.
func (f *Gitea) writesByTeam(c *gitea.Client, user string) (bool, error) {
	teams, _, err := f.repoTeams(c)
	if err != nil {
		return false, err
	}
	for _, t := range teams {
		if !writes(t) {
			continue
		}
		if in, err := f.isMember(c, t, user); in || err != nil {
			return in, err
		}
	}
	return false, nil
}

// isMember reports whether AOB sees a user among a team's members. Gitea shows a team's members only to members and to
// the organization's owners.
func (f *Gitea) isMember(c *gitea.Client, t *gitea.Team, user string) (bool, error) {
	_, _, err := c.GetTeamMember(t.ID, user)
	return err == nil, unlessDenied(err)
}

// seesMembers reports whether AOB's user may see a team's members.
func (f *Gitea) seesMembers(c *gitea.Client, t *gitea.Team) (bool, error) {
	_, _, err := c.GetTeam(t.ID)
	return err == nil, unlessDenied(err)
}

// unlessDenied returns nil for the errors that mean that something does not exist, or that AOB's user may not see it.
func unlessDenied(err error) error {
	if hasStatus(err, http.StatusNotFound, http.StatusForbidden) && missingScope(err) == "" {
		return nil
	}
	return err
}

// Teams returns the names of the repository's teams, and whether a user is a member of
// each. Only repositories of organizations have teams. AOB's user must be a member of the
// teams that own gates, because Gitea shows a team only to its members. With an error, the
// names are complete, and the user counts as no member of the teams that could not be read.
func (f *Gitea) Teams(ctx context.Context, user string) (_ map[string]bool, err error) {
	defer f.explain(&err, "read the teams of %s", delivery.Cut(user, 40))
	c := f.client(ctx)
	teams, _, err := f.repoTeams(c)
	if err != nil {
		return nil, err
	}
	in := map[string]bool{}
	for _, t := range teams {
		in[t.Name] = false
	}
	for _, t := range teams {
		if in[t.Name], err = f.isMember(c, t, user); err != nil {
			return in, err
		}
	}
	return in, nil
}

// maxMembers is how many members of a team are read.
const maxMembers = 50

// Owner returns why a name cannot own a gate, or "" if it can: it is a team with a member who has write permission, or
// a user with write permission.
func (f *Gitea) Owner(ctx context.Context, name string) (problem string, err error) {
	defer f.explain(&err, "check the gate owner %s", delivery.Cut(name, 40))
	c, me, err := f.session(ctx)
	if err != nil {
		return "", err
	}
	teams, _, err := f.repoTeams(c)
	if err != nil {
		return "", err
	}
	for _, t := range teams {
		if strings.EqualFold(t.Name, name) {
			return f.ownerTeam(ctx, c, t, me)
		}
	}
	may, err := f.Permission(ctx, name)
	if err != nil || may == delivery.PermissionWrite {
		return "", err
	}
	return "no team of the repository and no user who may write here", nil
}

// ownerTeam returns why no member of a team can accept anything, or "".
func (f *Gitea) ownerTeam(ctx context.Context, c *gitea.Client, t *gitea.Team, me account) (problem string, err error) {
	visible, err := f.seesMembers(c, t)
	if scope := missingScope(err); scope != "" {
		return fmt.Sprintf("a team whose members aob cannot see: its token has no scope %s", scope), nil
	}
	if err != nil {
		return "", err
	}
	if !visible {
		return fmt.Sprintf("a team whose members aob cannot see: add aob's user %s to it", me.name), nil
	}
	members, _, err := c.ListTeamMembers(t.ID,
		gitea.ListTeamMembersOptions{ListOptions: gitea.ListOptions{PageSize: maxMembers}})
	if err != nil {
		return "", err
	}
	for _, u := range members {
		if u == nil || strings.EqualFold(u.UserName, me.name) {
			continue
		}
		if may, err := f.Permission(ctx, u.UserName); may == delivery.PermissionWrite || err != nil {
			return "", err
		}
	}
	return "a team of which no member may write here: give the team Write for code and pull requests", nil
}

// checkTeams returns the problem that AOB cannot see the members of teams that give write permission, or "".
func (f *Gitea) checkTeams(setup *delivery.Setup, c *gitea.Client, teams []*gitea.Team, me account) error {
	const check = "teams"
	var hidden []string
	for _, t := range teams {
		visible, err := f.seesMembers(c, t)
		if scope := missingScope(err); scope != "" {
			setup.Wrong(check, "aob's token has no scope %s, so it cannot see who is in a team", scope).To(makeToken)
			return nil
		}
		if err != nil {
			return err
		}
		if !visible && writes(t) {
			hidden = append(hidden, delivery.Terminal(t.Name))
		}
	}
	if len(hidden) == 0 {
		setup.Right(check, "aob sees who is in the teams of %s that may write", f.owner)
		return nil
	}
	setup.Wrong(check, "aob cannot see who is in the teams %s of %s, so their members count as readers",
		delivery.Cut(strings.Join(hidden, ", "), 200), f.owner).To(fmt.Sprintf("add aob's user %s to them", me.name))
	return nil
}
