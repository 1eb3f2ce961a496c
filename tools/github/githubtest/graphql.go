package githubtest

// This file answers the GraphQL API.

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/validator"
	"github.com/vektah/gqlparser/v2/validator/rules"
)

//go:embed schema.graphql
var graphqlSchema string

// parsedGraphQL is the parsed schema, which is the same for all servers.
var parsedGraphQL = sync.OnceValues(func() (*ast.Schema, error) {
	return gqlparser.LoadSchema(&ast.Source{Name: "schema.graphql", Input: graphqlSchema})
})

// graphql answers a query for comments by their ids. A query that does not fit the schema fails the test.
func (s *Server) graphql(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var in struct {
		Query     string
		Variables struct {
			IDs   []string
			Input commitInput
		}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	schema, wrong := parsedGraphQL()
	if err != nil || wrong != nil {
		s.t.Errorf("a GraphQL query: %v, %v: %s", err, wrong, body)
		return
	}
	if s.refusal != nil {
		if code, _, text := s.refusal(r); code != 0 {
			write(w, code, message(text))
			return
		}
	}
	if s.answer != nil {
		if text := s.answer(r); text != "" {
			write(w, http.StatusOK, json.RawMessage(text))
			return
		}
	}
	me, app, _ := s.bearer(r)
	if me == nil {
		write(w, http.StatusUnauthorized, message("Bad credentials"))
		return
	}
	var variables struct{ Variables map[string]any }
	_ = json.Unmarshal(body, &variables)
	doc, list := gqlparser.LoadQueryWithRules(schema, in.Query, rules.NewDefaultRules())
	if len(list) == 0 {
		if _, err := validator.VariableValues(schema, doc.Operations[0], variables.Variables); err != nil {
			list = append(list, gqlerror.Wrap(err))
		}
	}
	if len(list) > 0 {
		s.t.Errorf("a GraphQL query does not fit GitHub's schema: %v\n%s", list, in.Query)
		write(w, http.StatusOK, object{"errors": []any{object{"message": list.Error()}}})
		return
	}
	if doc.Operations[0].Operation == ast.Mutation {
		write(w, http.StatusOK, s.commitOnBranch(me, app, in.Variables.Input))
		return
	}
	if len(in.Variables.IDs) > 100 {
		s.t.Errorf("%d ids, and GitHub takes 100", len(in.Variables.IDs))
	}
	nodes := []any{}
	for _, id := range in.Variables.IDs {
		c := s.commentNode(me, id)
		if c == nil {
			nodes = append(nodes, nil)
			continue
		}
		var edited any
		if c.edited {
			edited = stamp(c.updated)
		}
		nodes = append(nodes, object{"id": id, "body": c.body, "updatedAt": stamp(c.updated),
			"lastEditedAt": edited})
	}
	write(w, http.StatusOK, object{"data": object{"nodes": nodes}})
}

// node is the id of a comment in the GraphQL API.
func (c *comment) node() string { return fmt.Sprintf("IC_%d", c.id) }

// commentNode finds a comment that a user may read.
func (s *Server) commentNode(me *User, id string) *comment {
	for _, r := range s.repos {
		for _, c := range r.comments {
			if c.node() == id && s.permission(r, me.Login) != "none" {
				return c
			}
		}
	}
	return nil
}

// bearer returns the user of a request's token, or nil; and the App, if the token is of an App's installation.
func (s *Server) bearer(r *http.Request) (*User, *App, appToken) {
	token := r.Header.Get("Authorization")
	for _, scheme := range []string{"token ", "Bearer "} {
		token = strings.TrimPrefix(token, scheme)
	}
	for _, u := range s.users {
		if u.Token == token && token != "" {
			return u, nil, appToken{}
		}
	}
	if a, t := s.asInstallation(token); a != nil {
		return a.User, a, t
	}
	return nil, nil, appToken{}
}
