"""Cuts GitHub's OpenAPI description to what AOB uses.

    npm pack @octokit/openapi@23.0.2 && tar xzf octokit-openapi-23.0.2.tgz
    python3 tools/github/cut.py package/generated/api.github.com.json tools/github/githubtest/openapi.json

The whole has 13 MB. The description is MIT-licensed (github/rest-api-description).
"""

import json
import sys

PATHS = {
    "/app": ["get"],
    "/app/installations/{installation_id}/access_tokens": ["post"],
    "/user": ["get"],
    "/users/{username}": ["get"],
    "/orgs/{org}/teams/{team_slug}/members": ["get"],
    "/orgs/{org}/teams/{team_slug}/memberships/{username}": ["get"],
    "/repos/{owner}/{repo}": ["get"],
    "/repos/{owner}/{repo}/branches/{branch}": ["get"],
    "/repos/{owner}/{repo}/check-runs": ["post"],
    "/repos/{owner}/{repo}/check-runs/{check_run_id}": ["patch"],
    "/repos/{owner}/{repo}/collaborators/{username}/permission": ["get"],
    "/repos/{owner}/{repo}/commits/{ref}/check-runs": ["get"],
    "/repos/{owner}/{repo}/commits/{ref}/statuses": ["get"],
    "/repos/{owner}/{repo}/deployments": ["get", "post"],
    "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses": ["get", "post"],
    "/repos/{owner}/{repo}/hooks": ["get"],
    "/repos/{owner}/{repo}/installation": ["get"],
    "/repos/{owner}/{repo}/issues/comments/{comment_id}": ["get", "patch"],
    "/repos/{owner}/{repo}/issues/comments/{comment_id}/reactions": ["get"],
    "/repos/{owner}/{repo}/issues/{issue_number}/comments": ["get", "post"],
    "/repos/{owner}/{repo}/pulls": ["get", "post"],
    "/repos/{owner}/{repo}/pulls/{pull_number}": ["get"],
    "/repos/{owner}/{repo}/rules/branches/{branch}": ["get"],
    "/repos/{owner}/{repo}/statuses/{sha}": ["post"],
    "/repos/{owner}/{repo}/teams": ["get"],
}


def bare(node, properties=False):
    """Removes what no validation and no example needs. Properties may have any name."""
    if isinstance(node, list):
        return [bare(n) for n in node]
    if not isinstance(node, dict):
        return node
    drop = () if properties else ("description", "externalDocs", "x-github", "summary", "tags", "operationId")
    return {k: v if k in ("example", "examples", "value") and not properties and not refers(v) else
            bare(v, k in ("properties", "examples", "schemas", "parameters", "headers")) for k, v in node.items()
            if k not in drop}


def refers(node):
    if isinstance(node, dict):
        return "$ref" in node or any(refers(v) for v in node.values())
    return isinstance(node, list) and any(refers(v) for v in node)


def refs(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for v in node.values():
            yield from refs(v)
    elif isinstance(node, list):
        for v in node:
            yield from refs(v)


def main(source, target):
    with open(source, encoding="utf-8") as f:
        whole = json.load(f)
    out = {"openapi": whole["openapi"], "info": {"title": "a cut of GitHub v3 REST API", "version":
           whole["info"]["version"], "license": whole["info"]["license"]}, "paths": {}, "components": {}}
    for path, methods in PATHS.items():
        item = whole["paths"][path]
        out["paths"][path] = bare({m: item[m] for m in methods} | {k: v for k, v in item.items() if k == "parameters"})
    queue = set(refs(out["paths"]))
    seen = set()
    while queue:
        ref = queue.pop()
        if ref in seen:
            continue
        seen.add(ref)
        _, _, kind, name = ref.split("/")
        part = bare(whole["components"][kind][name])
        out["components"].setdefault(kind, {})[name] = part
        queue |= set(refs(part))
    with open(target, "w", encoding="utf-8") as f:
        json.dump(out, f, indent=1, sort_keys=True)
        f.write("\n")


main(*sys.argv[1:])
