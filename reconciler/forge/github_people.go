package forge

// This file reads users, permissions and teams on GitHub.

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-github/v88/github"

	"github.com/autonomos/aob/reconciler/delivery"
)

// makeGitHubToken is the hint for a token with too few permissions. docs/github.md has the same list.
const makeGitHubToken = "make a fine-grained token for this repository that may write Contents, Pull requests, " +
	"Issues, Deployments and Commit statuses, or a classic one with the scopes repo and read:org (docs/github.md)"

// Permission returns a user's permission on the repository, as GitHub says: maintain counts as write, and triage as
// read. An unknown user has none.
func (f *GitHub) Permission(ctx context.Context, user string) (_ delivery.Permission, err error) {
	defer f.explain(&err, "read the permission of %s", delivery.Cut(user, 40))
	if user == "" {
		return delivery.PermissionNone, nil
	}
	if me, err := f.appUser(ctx); err != nil || me != "" && strings.EqualFold(user, me) {
		return delivery.PermissionWrite, err // GitHub says nothing about an App's user
	}
	got, _, err := f.client.Repositories.GetPermissionLevel(ctx, f.owner, f.repo, user)
	if missing(err) { // there is no such user, or no such repository
		_, _, err := f.client.Repositories.Get(ctx, f.owner, f.repo)
		return delivery.PermissionNone, err
	}
	if err != nil {
		return "", err
	}
	switch got.GetPermission() {
	case "admin", "write":
		return delivery.PermissionWrite, nil
	case "read":
		return delivery.PermissionRead, nil
	}
	return delivery.PermissionNone, nil
}

// teams returns the teams that have access to the repository. A person's repository has none.
func (f *GitHub) teams(ctx context.Context) (teams []*github.Team, err error) {
	err = pages(func(page github.ListOptions) ([]*github.Team, *github.Response, error) {
		return f.client.Repositories.ListTeams(ctx, f.owner, f.repo, &page)
	}, func(t *github.Team) bool {
		teams = append(teams, t)
		return true
	})
	if missing(err) || f.app != nil && hasStatus(err, http.StatusForbidden) { // see teamsHint
		_, _, err := f.client.Repositories.Get(ctx, f.owner, f.repo)
		return nil, err
	}
	return teams, err
}

// appUser returns the name of the App's user; "" with a token.
func (f *GitHub) appUser(ctx context.Context) (string, error) {
	if f.app == nil {
		return "", nil
	}
	me, err := f.user(ctx)
	return me.name, err
}

// teamsHint says what an App needs to see the teams of a repository.
const teamsHint = "; as a GitHub App, aob sees teams with the permissions Administration and Members to read"

// Teams returns the slugs of the repository's teams, and whether a user is a member of each. With an error, the slugs
// are complete, and the user counts as no member of the teams that could not be read.
func (f *GitHub) Teams(ctx context.Context, user string) (_ map[string]bool, err error) {
	defer f.explain(&err, "read the teams of %s", delivery.Cut(user, 40))
	teams, err := f.teams(ctx)
	if err != nil {
		return nil, err
	}
	in := map[string]bool{}
	for _, t := range teams {
		in[t.GetSlug()] = false
	}
	if user == "" {
		return in, nil
	}
	for _, t := range teams {
		m, _, err := f.client.Teams.GetTeamMembershipBySlug(ctx, f.owner, t.GetSlug(), user)
		if err != nil && !missing(err) {
			return in, err
		}
		in[t.GetSlug()] = err == nil && m.GetState() == "active" // pending: the user was invited
	}
	return in, nil
}

// writesOf reports whether a team may write to the repository.
func writesOf(t *github.Team) bool {
	return slices.Contains([]string{"push", "maintain", "admin"}, t.GetPermission())
}

// Owner returns why a name cannot own a gate, or "" if it can: it is the slug of a team that may write and has a member
// other than AOB, or a user with write permission.
func (f *GitHub) Owner(ctx context.Context, name string) (problem string, err error) {
	defer f.explain(&err, "check the gate owner %s", delivery.Cut(name, 40))
	teams, err := f.teams(ctx)
	if err != nil {
		return "", err
	}
	for _, t := range teams {
		if strings.EqualFold(t.GetSlug(), name) {
			return f.ownerTeam(ctx, t)
		}
	}
	may, err := f.Permission(ctx, name)
	if err != nil || may == delivery.PermissionWrite {
		return "", err
	}
	problem = "no team of the repository and no user who may write here"
	if f.app != nil && len(teams) == 0 {
		problem += teamsHint
	}
	return problem, nil
}

// ownerTeam returns why no member of a team can accept anything, or "".
func (f *GitHub) ownerTeam(ctx context.Context, t *github.Team) (problem string, err error) {
	if !writesOf(t) {
		return "a team that may not write here: give it the role Write", nil
	}
	me, err := f.user(ctx)
	if err != nil {
		return "", err
	}
	members, _, err := f.client.Teams.ListTeamMembersBySlug(ctx, f.owner, t.GetSlug(),
		&github.TeamListTeamMembersOptions{ListOptions: github.ListOptions{PerPage: maxMembers}})
	if hasStatus(err, http.StatusNotFound, http.StatusForbidden) {
		if f.app != nil {
			return "a team whose members aob cannot see" + teamsHint, nil
		}
		return "a team whose members aob cannot see; " + makeGitHubToken, nil
	}
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(members, func(u *github.User) bool { return u.GetID() != me.id }) {
		return "a team without a member; add who may accept verdicts", nil
	}
	return "", nil
}
