"""Uses the stand-in as users of python-gitlab use GitLab, and prints what it sees as JSON."""
import json
import sys

import gitlab

url, token, path, other = sys.argv[1:]
gl = gitlab.Gitlab(url, private_token=token)
gl.auth()
seen = {"user": gl.user.username}
project = gl.projects.get(path)
seen["project"] = [project.path_with_namespace, project.archived, project.only_allow_merge_if_pipeline_succeeds]
seen["same"] = gl.projects.get(project.id).path_with_namespace == path
merges = project.mergerequests.list(state="opened", order_by="created_at", sort="asc", get_all=True)
seen["merges"] = [[m.iid, m.title, m.source_branch, m.target_branch, m.draft, m.author["username"]] for m in merges]
merge = project.mergerequests.get(merges[0].iid)

commit = project.commits.get(merge.sha, lazy=True)
made = commit.statuses.create({"state": "pending", "name": "ci/other", "description": "waits",
                               "ref": merge.source_branch})
seen["made"] = [made.name, made.status, made.description]
refused = []
for values in ({"state": "pending", "name": "ci/other", "ref": merge.source_branch},
               {"state": "success", "name": "ci/other", "ref": merge.source_branch, "description": "x" * 256},
               {"state": "success", "name": "ci/other", "ref": merge.source_branch, "pipeline_id": 99999}):
    try:
        commit.statuses.create(values)
    except gitlab.exceptions.GitlabCreateError as e:
        refused.append([e.response_code, str(e.error_message)])
seen["refused"] = refused
commit.statuses.create({"state": "success", "name": "ci/other", "ref": merge.source_branch})
seen["statuses"] = sorted([s.name, s.status, s.author["username"]] for s in commit.statuses.list(get_all=True))
seen["pipelines"] = [[p.source, p.ref, p.status] for p in project.pipelines.list(sha=merge.sha, get_all=True)]

note = merge.notes.create({"body": "hello\n/approve\n"})
note.body = "hello again"
note.save()
note.awardemojis.create({"name": "thumbsup"})
notes = merge.notes.list(sort="asc", order_by="created_at", get_all=True)
seen["notes"] = [[n.author["username"], n.body] for n in notes]
seen["awards"] = [[a.name, a.user["username"]] for a in note.awardemojis.list(get_all=True)]
seen["edited"] = merge.notes.get(note.id).updated_at > note.created_at
member = project.members_all.get(gl.users.list(username=other)[0].id)
seen["member"] = [member.username, member.access_level]
seen["branch"] = [project.branches.get("main").protected]
seen["token"] = gl.personal_access_tokens.get("self").scopes
try:
    gl.projects.get("no/such")
except gitlab.exceptions.GitlabGetError as e:
    seen["missing"] = [e.response_code, str(e.error_message)]
try:
    gitlab.Gitlab(url, private_token="glpat-wrong").auth()
except gitlab.exceptions.GitlabAuthenticationError as e:
    seen["wrong"] = e.response_code
json.dump(seen, sys.stdout)
