package gitlabtest

// This file answers the one question of the GraphQL API that AOB asks: who has edited a note. A reaction sets a note's
// second time, too, so the REST API does not tell.

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// award reacts to a note. GitLab sets its second time then.
func (s *Server) award(n *note, by *User, name string) *award {
	a := &award{s.id(), by, name, s.tick()}
	n.awards, n.updated = append(n.awards, a), a.at
	return a
}

const noteQuery = "query($id: NoteID!) { note(id: $id) { body lastEditedBy { id } } }"

func (s *Server) graphql(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spent++
	var q struct {
		Query     string
		Variables struct{ ID string }
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Query != noteQuery {
		s.t.Errorf("the stand-in knows no GraphQL query %q, %v", q.Query, err)
	}
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	t := s.tokens[bearer]
	if t == nil || !t.valid() {
		write(w, http.StatusUnauthorized, object{"errors": []object{{"message": "Invalid token"}}})
		return
	}
	var shown any // null where there is no such note, or the user may not read it
	for _, p := range s.projects {
		for _, n := range p.notes {
			if q.Variables.ID != fmt.Sprintf("gid://gitlab/Note/%d", n.id) || s.level(p, t.user) < Reporter &&
				p.visibility != "public" {
				continue
			}
			var editor any
			if n.editor != nil {
				editor = object{"id": fmt.Sprintf("gid://gitlab/User/%d", n.editor.ID)}
			}
			shown = object{"body": n.body, "lastEditedBy": editor}
		}
	}
	write(w, http.StatusOK, object{"data": object{"note": shown}})
}
