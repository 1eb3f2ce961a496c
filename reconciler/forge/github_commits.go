package forge

// This file has GitHub make commits, which it signs.

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Commit adds a commit to a branch that is at old: the files replace those of their names. It returns the commit and
// its tree. GitHub makes the commit, with AOB as its author, and signs it. If the branch is elsewhere, the error is a
// [delivery.Wait].
func (f *GitHub) Commit(ctx context.Context, branch, old, message string, files map[string][]byte) (commit, tree string,
	err error) {
	defer f.explain(&err, "commit to %s", branch)
	repo, err := f.where(ctx)
	if err != nil {
		return "", "", err
	}
	type addition struct {
		Path     string `json:"path"`
		Contents []byte `json:"contents"` // which JSON has as base64
	}
	var additions []addition
	for _, path := range slices.Sorted(maps.Keys(files)) {
		additions = append(additions, addition{path, files[path]})
	}
	title, body, _ := strings.Cut(message, "\n")
	const mutation = "mutation($input: CreateCommitOnBranchInput!) { createCommitOnBranch(input: $input) " +
		"{ commit { oid tree { oid } } } }"
	var data struct {
		CreateCommitOnBranch struct {
			Commit *struct {
				OID  string
				Tree struct{ OID string }
			}
		}
	}
	err = f.graphQL(ctx, mutation, map[string]any{"input": map[string]any{
		"branch":          map[string]any{"repositoryNameWithOwner": repo, "branchName": branch},
		"expectedHeadOid": old,
		"message":         map[string]any{"headline": title, "body": strings.TrimSpace(body)},
		"fileChanges":     map[string]any{"additions": additions},
	}}, &data)
	made := data.CreateCommitOnBranch.Commit
	switch refused, ok := errors.AsType[*graphQLError](err); {
	case ok && refused.kind == "STALE_DATA":
		return "", "", delivery.Wait{For: time.Second, What: "the branch has moved meanwhile"}
	case ok && refused.kind == "NOT_FOUND":
		return "", "", delivery.Wait{For: time.Minute, What: fmt.Sprintf("GitHub does not find branch %s (%s)", branch,
			refused)}
	case ok:
		return "", "", delivery.Blockedf("allow aob to push to this branch, or change its rules",
			"GitHub refuses the commit: %s", refused)
	case err == nil && made == nil:
		err = errors.New("GitHub's answer has no commit")
	}
	if err != nil {
		return "", "", err
	}
	return made.OID, made.Tree.OID, nil
}

// A graphQLError is an error in an answer of the GraphQL API, whose status is 200.
type graphQLError struct{ kind, text string }

func (e *graphQLError) Error() string { return cmp.Or(e.text, e.kind, "an error without a text") }

// asksOnly marks the context of a GraphQL query, which creates nothing.
type asksOnly struct{}

// graphQL sends a query to the GraphQL API and reads its data. The error is a *[graphQLError] if the answer has errors;
// the data may be incomplete then.
func (f *GitHub) graphQL(ctx context.Context, query string, variables map[string]any, data any) error {
	address := "graphql"
	if f.url != publicGitHub {
		address = f.url + "/api/graphql"
	}
	if !strings.HasPrefix(query, "mutation") {
		ctx = context.WithValue(ctx, asksOnly{}, true)
	}
	req, err := f.client.NewRequest(ctx, http.MethodPost, address, map[string]any{"query": query,
		"variables": variables})
	if err != nil {
		return err
	}
	var answer struct {
		Data   json.RawMessage
		Errors []struct{ Type, Message string }
	}
	if _, err := f.client.Do(req, &answer); err != nil {
		return err
	}
	if len(answer.Data) > 0 {
		if err := json.Unmarshal(answer.Data, data); err != nil {
			return fmt.Errorf("the answer of GitHub's GraphQL API: %w", err)
		}
	}
	if len(answer.Errors) > 0 {
		first := answer.Errors[0]
		if first.Type == "RATE_LIMITED" {
			return &statusError{code: http.StatusForbidden, text: "GraphQL: " + delivery.PlainText(first.Message, 200),
				limited: true, after: time.Minute}
		}
		return &graphQLError{delivery.PlainText(first.Type, 50), delivery.PlainText(first.Message, 200)}
	}
	return nil
}
