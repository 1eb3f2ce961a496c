package forge

// This file reads users, permissions and groups on GitLab.

import (
	"context"
	"strings"

	gitlab "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/autonomos/aob/reconciler/delivery"
)

// makeGitLabToken is the hint for a token with too few permissions. docs/gitlab.md says the same.
const makeGitLabToken = "make an access token with the role Developer and the scopes api and write_repository, of " +
	"the project, of its group or of a user of aob's own (docs/gitlab.md)"

// userID returns the number of a user, 0 for an unknown one.
func (f *GitLab) userID(ctx context.Context, name string) (int64, error) {
	if name == "" {
		return 0, nil
	}
	list, _, err := f.client.Users.ListUsers(&gitlab.ListUsersOptions{Username: &name}, gitlab.WithContext(ctx))
	if err != nil {
		return 0, err
	}
	u, _ := delivery.Find(list, func(u *gitlab.User) bool {
		return u != nil && strings.EqualFold(u.Username, name) && u.State == "active"
	})
	if u == nil {
		return 0, nil
	}
	return u.ID, nil
}

// Permission returns a user's permission on the project: members write from the role Developer on, and read from
// Reporter on. An unknown or blocked user has none. Everybody else reads a project that is not private.
func (f *GitLab) Permission(ctx context.Context, user string) (_ delivery.Permission, err error) {
	defer f.explain(&err, "read the permission of %s", delivery.Cut(user, 40))
	who, err := f.userID(ctx, user)
	if err != nil || who == 0 {
		return delivery.PermissionNone, err
	}
	id, err := f.project(ctx)
	if err != nil {
		return "", err
	}
	// Of inherited memberships and those of invited groups this is the highest.
	member, _, err := f.client.ProjectMembers.GetInheritedProjectMember(id, who, gitlab.WithContext(ctx))
	if err != nil && !missing(err) {
		return "", err
	}
	if err == nil && member.State == "active" {
		switch {
		case member.AccessLevel >= gitlab.DeveloperPermissions:
			return delivery.PermissionWrite, nil
		case member.AccessLevel >= gitlab.ReporterPermissions:
			return delivery.PermissionRead, nil
		}
	}
	p, _, err := f.client.Projects.GetProject(id, nil, gitlab.WithContext(ctx))
	if err != nil {
		return "", err
	}
	if p.Visibility == gitlab.PublicVisibility || p.Visibility == gitlab.InternalVisibility {
		return delivery.PermissionRead, nil
	}
	return delivery.PermissionNone, nil
}

// A gitLabGroup is a group with access to the project.
type gitLabGroup struct {
	id    int64
	path  string // as vision/leads
	level gitlab.AccessLevelValue
}

// groups returns the groups with access to the project: the one that it is in, and those that were invited. A person's
// project has none of its own.
func (f *GitLab) groups(ctx context.Context) ([]gitLabGroup, error) {
	id, err := f.project(ctx)
	if err != nil {
		return nil, err
	}
	p, _, err := f.client.Projects.GetProject(id, nil, gitlab.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	var list []gitLabGroup
	if n := p.Namespace; n != nil && n.Kind == "group" {
		list = append(list, gitLabGroup{n.ID, n.FullPath, gitlab.OwnerPermissions})
	}
	for _, g := range p.SharedWithGroups {
		list = append(list, gitLabGroup{g.GroupID, g.GroupFullPath, gitlab.AccessLevelValue(g.GroupAccessLevel)})
	}
	return list, nil
}

// Teams returns the full paths of the project's groups, and whether a user is a direct member of each, with the role
// Developer at least: whoever is a member of a parent group only does not count, as in CODEOWNERS. With an error, the
// paths are complete, and the user counts as no member of the groups that could not be read.
func (f *GitLab) Teams(ctx context.Context, user string) (_ map[string]bool, err error) {
	defer f.explain(&err, "read the groups of %s", delivery.Cut(user, 40))
	groups, err := f.groups(ctx)
	if err != nil {
		return nil, err
	}
	in := map[string]bool{}
	for _, g := range groups {
		in[g.path] = false
	}
	who, err := f.userID(ctx, user)
	if err != nil || who == 0 {
		return in, err
	}
	for _, g := range groups {
		member, _, err := f.client.GroupMembers.GetGroupMember(g.id, who, gitlab.WithContext(ctx))
		if err != nil && !missing(err) {
			return in, err
		}
		in[g.path] = err == nil && writesIn(g, member)
	}
	return in, nil
}

// writesIn reports whether a member of a group may write to the project by it.
func writesIn(g gitLabGroup, m *gitlab.GroupMember) bool {
	return m.State == "active" && min(m.AccessLevel, g.level) >= gitlab.DeveloperPermissions
}

// Owner returns why a name cannot own a gate, or "" if it can: it is the full path of a group that may write and has a
// direct member other than AOB who may, or a user with write permission.
func (f *GitLab) Owner(ctx context.Context, name string) (problem string, err error) {
	defer f.explain(&err, "check the gate owner %s", delivery.Cut(name, 40))
	groups, err := f.groups(ctx)
	if err != nil {
		return "", err
	}
	for _, g := range groups {
		if strings.EqualFold(g.path, name) {
			return f.ownerGroup(ctx, g)
		}
	}
	may, err := f.Permission(ctx, name)
	if err != nil || may == delivery.PermissionWrite {
		return "", err
	}
	return "no group of the project, by its full path, and no user who may write here", nil
}

// ownerGroup returns why no member of a group can accept anything, or "".
func (f *GitLab) ownerGroup(ctx context.Context, g gitLabGroup) (problem string, err error) {
	if g.level < gitlab.DeveloperPermissions {
		return "a group that may not write here: invite it with the role Developer", nil
	}
	me, err := f.user(ctx)
	if err != nil {
		return "", err
	}
	problem = "a group without a direct member who may write here; add who may accept verdicts"
	err = gitLabPages(func(page gitlab.ListOptions) ([]*gitlab.GroupMember, *gitlab.Response, error) {
		return f.client.Groups.ListGroupMembers(g.id, &gitlab.ListGroupMembersOptions{ListOptions: page},
			gitlab.WithContext(ctx))
	}, func(m *gitlab.GroupMember) bool {
		if m.ID != me.id && writesIn(g, m) {
			problem = ""
		}
		return problem != ""
	})
	if missing(err) {
		return "a group whose members aob cannot see; add aob's user to it as a Guest", nil
	}
	return problem, err
}
