package githubtest

// This file has check runs, which only Apps write.

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A checkRun is a check run.
type checkRun struct {
	id                                int64
	app                               *App
	name, sha, status, conclusion     string
	details, external, title, summary string
	annotations                       []annotation
	actions                           []action
	started, ended                    string
}

type annotation struct {
	Path    string
	Start   int `json:"start_line"`
	Message string
}

type action struct{ Label, Description, Identifier string }

// checkRuns answers requests about check runs.
func (c *call) checkRuns() (int, any) {
	if strings.HasPrefix(c.pattern, "GET ") {
		query := c.r.URL.Query()
		var list []*checkRun
		seen := map[string]bool{}
		for _, r := range slices.Backward(c.repo.runs) {
			key := r.name + string(rune(r.app.ID))
			if r.sha == c.params["ref"] && (query.Get("filter") == "all" || !seen[key]) {
				list = append(list, r)
			}
			seen[key] = seen[key] || r.sha == c.params["ref"]
		}
		return http.StatusOK, object{"total_count": len(list), "check_runs": page(c, list, c.checkRun)}
	}
	if c.app == nil {
		return http.StatusForbidden, message("You must authenticate via a GitHub App.")
	}
	var in struct {
		Name, Status, Conclusion string
		SHA                      string  `json:"head_sha"`
		Details                  string  `json:"details_url"`
		External                 *string `json:"external_id"`
		Output                   struct {
			Title, Summary string
			Annotations    []annotation
		}
		Actions []action
	}
	_ = json.Unmarshal(c.body, &in)
	var run *checkRun
	if c.r.Method == http.MethodPatch {
		i := slices.IndexFunc(c.repo.runs, func(r *checkRun) bool { return r.id == int64(c.number("check_run_id")) })
		if i < 0 {
			return http.StatusNotFound, message("Not Found")
		}
		if run = c.repo.runs[i]; run.app != c.app {
			return http.StatusForbidden, message("Invalid app_id `" + c.app.slug + "` - check run can only be " +
				"modified by the GitHub App that created it.")
		}
	} else {
		if !c.has(in.SHA) {
			return http.StatusUnprocessableEntity, message("No commit found for SHA: " + in.SHA)
		}
		run = &checkRun{id: c.id(), app: c.app, name: in.Name, sha: in.SHA, status: "queued", started: stamp(c.tick())}
	}
	switch {
	case len(in.Output.Annotations) > 50:
		return invalid("CheckRun", "annotations", "exceeds a maximum quantity of 50")
	case utf8.RuneCountInString(in.Output.Summary) > 65_535:
		return invalid("CheckRun", "summary", "exceeds a maximum bytesize of 65535")
	case in.Output.Title == "" || in.Output.Summary == "":
		return invalid("CheckRun", "output", "title and summary are required")
	case len(in.Actions) > 3:
		return invalid("CheckRun", "actions", "exceeds a maximum quantity of 3")
	case in.Status == "completed" && in.Conclusion == "":
		return invalid("CheckRun", "conclusion", "is required")
	case c.r.Method == http.MethodPatch && run.status == "completed" && in.Status != "completed":
		return invalid("CheckRun", "status", "a completed check run does not begin again; create a new one")
	}
	for _, a := range in.Actions {
		if utf8.RuneCountInString(a.Label) > 20 || utf8.RuneCountInString(a.Description) > 40 ||
			utf8.RuneCountInString(a.Identifier) > 20 || a.Label == "" || a.Identifier == "" {
			return invalid("CheckRun", "actions", "a text is too long or missing")
		}
	}
	run.status, run.conclusion, run.details = in.Status, in.Conclusion, in.Details
	run.title, run.summary, run.actions = in.Output.Title, in.Output.Summary, in.Actions
	run.annotations = append(run.annotations, in.Output.Annotations...) // GitHub adds them to those that are there
	if in.External != nil {
		run.external = *in.External
	}
	if run.ended = ""; run.status == "completed" {
		run.ended = stamp(c.tick())
	}
	if c.r.Method == http.MethodPatch {
		return http.StatusOK, c.checkRun(run)
	}
	c.repo.runs = append(c.repo.runs, run)
	return http.StatusCreated, c.checkRun(run)
}

func (c *call) checkRun(r *checkRun) any {
	o := c.example("check-run")
	orNull := func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	maps.Copy(o, object{"id": r.id, "name": r.name, "head_sha": r.sha, "status": r.status, "external_id": r.external,
		"conclusion": orNull(r.conclusion), "details_url": orNull(r.details), "started_at": r.started,
		"completed_at": orNull(r.ended), "pull_requests": []any{},
		"app": over(o["app"], object{"id": r.app.ID, "slug": r.app.slug}),
		"output": over(o["output"], object{"title": r.title, "summary": r.summary, "text": nil,
			"annotations_count": len(r.annotations)})})
	return o
}

// A CheckRun is a check run.
type CheckRun struct {
	ID                                       int64
	Name, Status, Conclusion, Title, Summary string
	Annotations                              []string          // as models/a.yaml:3 unknown key
	Buttons                                  map[string]string // identifiers by labels
	Details                                  string
}

// CheckRuns returns the check runs of a commit, oldest first.
func (s *Server) CheckRuns(r *Repo, commit string) (list []CheckRun) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, run := range r.runs {
		if run.sha != commit {
			continue
		}
		shown := CheckRun{ID: run.id, Name: run.name, Status: run.status, Conclusion: run.conclusion, Title: run.title,
			Summary: run.summary, Details: run.details, Buttons: map[string]string{}}
		for _, a := range run.annotations {
			shown.Annotations = append(shown.Annotations, a.Path+":"+strconv.Itoa(a.Start)+" "+a.Message)
		}
		for _, a := range run.actions {
			shown.Buttons[a.Label] = a.Identifier
		}
		list = append(list, shown)
	}
	return list
}

// SetCheckRun sets a check run as another App.
func (s *Server) SetCheckRun(r *Repo, by *App, commit, name, conclusion string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.runs = append(r.runs, &checkRun{id: s.id(), app: by, name: name, sha: commit, status: "completed",
		conclusion: conclusion, title: "forged", summary: "forged", started: stamp(s.tick()), ended: stamp(s.now)})
}

// green reports whether a required check of a commit has succeeded: the newest run of each App and the newest status of
// that name.
func (r *Repo) green(commit, context string) bool {
	newest := map[*App]*checkRun{}
	for _, run := range r.runs {
		if run.sha == commit && strings.EqualFold(run.name, context) {
			newest[run.app] = run
		}
	}
	st := r.newest(commit, context)
	for _, run := range newest {
		if !slices.Contains([]string{"success", "neutral", "skipped"}, run.conclusion) {
			return false
		}
	}
	return st != nil && st.state == "success" || st == nil && len(newest) > 0
}
