package githubtest

// This file makes webhooks from GitHub's published examples (npm @octokit/webhooks-examples 7.6.1, MIT).

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
)

//go:embed webhooks/*.json
var webhookExamples embed.FS

// webhook returns a signed webhook: an example with other values.
func (s *Server) webhook(secret, event, action string, change func(object)) *http.Request {
	text, err := webhookExamples.ReadFile("webhooks/" + event + "." + action + ".json")
	var o object
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	change(o)
	body, err := json.Marshal(o)
	if err != nil {
		s.t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	req := httptest.NewRequest(http.MethodPost, "/webhook", bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	req.Header.Set("X-GitHub-Event", event)
	req.Header.Set("X-GitHub-Delivery", fmt.Sprintf("00000000-0000-0000-0000-%012d", s.id()))
	return req
}

// Press presses the button with an identifier on a check run, and returns the webhook about it.
func (s *Server) Press(r *Repo, by *User, run int64, identifier, secret string) *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.webhook(secret, "check_run", "requested_action", func(o object) {
		s.about(r, by, run, o)
		o["requested_action"] = object{"identifier": identifier}
	})
}

// Rerun presses Re-run on a check run, and returns the webhook about it.
func (s *Server) Rerun(r *Repo, by *User, run int64, secret string) *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range r.runs {
		if c.id == run {
			c.status, c.conclusion, c.ended = "queued", "", ""
		}
	}
	return s.webhook(secret, "check_run", "rerequested", func(o object) { s.about(r, by, run, o) })
}

func (s *Server) about(r *Repo, by *User, run int64, o object) {
	var all []*checkRun
	for _, of := range s.repos { // a test may say that a run is of another repository
		all = append(all, of.runs...)
	}
	for _, c := range all {
		if c.id == run {
			shown := o["check_run"].(object)
			o["check_run"] = over(shown, object{"id": c.id, "name": c.name, "head_sha": c.sha,
				"app": over(shown["app"], object{"id": c.app.ID, "slug": c.app.slug})})
		}
	}
	o["repository"] = over(o["repository"], object{"id": r.id, "name": r.Name, "full_name": r.Owner + "/" + r.Name})
	o["sender"] = over(o["sender"], s.account(by))
}

// MergeGroup returns the webhook that asks for checks on a commit of the merge queue.
func (s *Server) MergeGroup(r *Repo, ref, commit, secret string) *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.webhook(secret, "merge_group", "checks_requested", func(o object) {
		o["merge_group"] = over(o["merge_group"], object{"head_ref": ref, "head_sha": commit})
		o["repository"] = over(o["repository"], object{"id": r.id, "name": r.Name, "full_name": r.Owner + "/" + r.Name})
	})
}

// RerunAll presses Re-run all on a commit, and returns the webhook about it.
func (s *Server) RerunAll(r *Repo, by *User, app *App, commit, secret string) *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.webhook(secret, "check_suite", "rerequested", func(o object) {
		suite := o["check_suite"].(object)
		o["check_suite"] = over(suite, object{"head_sha": commit,
			"app": over(suite["app"], object{"id": app.ID, "slug": app.slug})})
		o["repository"] = over(o["repository"], object{"id": r.id, "name": r.Name, "full_name": r.Owner + "/" + r.Name})
		o["sender"] = over(over(o["sender"], s.account(by)), object{"type": "User"})
	})
}
