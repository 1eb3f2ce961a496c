package forge

// This file shows checks as check runs, which only a GitHub App may write.

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/go-github/v88/github"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Limits of check runs on GitHub.
const (
	maxSummary     = 65_535 // characters
	maxAnnotations = 50     // in one request
	maxNote        = 10_000
	maxNotes       = 200 // annotations of a check run
)

// A checkRun is a check run of AOB.
type checkRun struct {
	id      int64
	name    string
	ended   bool
	details string // see externalID
}

// checkRuns remembers the newest check runs of commits, by commit and context in small letters. Its owner guards it.
type checkRuns map[string]map[string]checkRun

// maxKnownRuns is for how many commits check runs are remembered.
const maxKnownRuns = 5_000

// conclusions are the states of checks as GitHub shows them. Neutral and skipped runs would satisfy a branch that
// requires them, so they are not used.
var conclusions = map[delivery.CheckState]string{delivery.CheckSuccess: "success", delivery.CheckFailure: "failure",
	delivery.CheckError: "cancelled"}

// stateOfRun returns the state of a check run, as AOB names it.
func stateOfRun(r *github.CheckRun) delivery.CheckState {
	if r.GetStatus() != "completed" {
		return delivery.CheckPending
	}
	for state, conclusion := range conclusions {
		if r.GetConclusion() == conclusion {
			return state
		}
	}
	return delivery.CheckError // as stale
}

// externalID is what a run says of its content: the digest of its details, and that of its annotations. GitHub only
// adds annotations to a run, so other ones need a new run.
func externalID(d *delivery.CheckDetails) string {
	if d == nil {
		return ""
	}
	return string(d.Digest()) + " " + delivery.DigestOf("notes", notesOf(d)).Short()
}

func notesOf(d *delivery.CheckDetails) []delivery.Complaint {
	if d == nil {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(d.Notes), func(c delivery.Complaint) bool { return c.File == "" })
	return list[:min(len(list), maxNotes)]
}

// sameNotes reports whether two external ids are of the same annotations.
func sameNotes(a, b string) bool {
	_, a, _ = strings.Cut(a, " ")
	_, b, _ = strings.Cut(b, " ")
	return a == b
}

// setRun shows a check as a check run: it changes the newest run of its name, or makes one.
func (f *GitHub) setRun(ctx context.Context, commit string, check delivery.Check) error {
	run, known, err := f.runOf(ctx, commit, check.Context)
	if err != nil {
		return err
	}
	pending := check.State == delivery.CheckPending
	content := externalID(check.Details)
	// A run that has ended does not begin again.
	if known && (run.ended && pending || !sameNotes(run.details, content)) {
		known = false
	}
	output, status := f.outputOf(check), new("in_progress")
	var conclusion, link *string
	if !pending {
		status, conclusion = new("completed"), new(conclusions[check.State])
	}
	if check.URL != "" {
		link = &check.URL
	}
	var annotations []*github.CheckRunAnnotation
	if !known {
		annotations = annotationsOf(notesOf(check.Details))
	}
	buttons, err := f.buttonsOf(ctx, commit, check.Details)
	if err != nil {
		return err
	}
	// What is not complete yet has no external id, so that it is made again after a crash.
	id := func() *string {
		if len(annotations) > 0 {
			return new("")
		}
		return &content
	}
	take := func() {
		n := min(len(annotations), maxAnnotations)
		output.Annotations, annotations = annotations[:n], annotations[n:]
	}
	update := func() error {
		take()
		_, _, err := f.client.Checks.UpdateCheckRun(ctx, f.owner, f.repo, run.id, github.UpdateCheckRunOptions{
			Name: check.Context, DetailsURL: link, ExternalID: id(), Status: status, Conclusion: conclusion,
			Output: output, Actions: buttons})
		return err
	}
	if known {
		if err := update(); missing(err) {
			known = false
			annotations = annotationsOf(notesOf(check.Details))
		} else if err != nil {
			return err
		}
	}
	if !known {
		take()
		made, _, err := f.client.Checks.CreateCheckRun(ctx, f.owner, f.repo, github.CreateCheckRunOptions{
			Name: check.Context, HeadSHA: commit, DetailsURL: link, ExternalID: id(), Status: status,
			Conclusion: conclusion, Output: output, Actions: buttons})
		if err != nil {
			return err
		}
		run.id = made.GetID()
		for len(annotations) > 0 {
			if err := update(); err != nil {
				f.forgetRuns(commit)
				return err
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if of := f.runs[commit]; of != nil {
		of[strings.ToLower(check.Context)] = checkRun{run.id, check.Context, !pending, content}
	}
	return nil
}

// runOf returns AOB's newest check run of a context on a commit.
func (f *GitHub) runOf(ctx context.Context, commit, context string) (run checkRun, known bool, err error) {
	f.mu.Lock()
	_, read := f.runs[commit]
	f.mu.Unlock()
	if !read {
		if _, err := f.readRuns(ctx, commit); err != nil {
			return run, false, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	run, known = f.runs[commit][strings.ToLower(context)]
	return run, known, nil
}

func (f *GitHub) forgetRuns(commit string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.runs, commit)
}

// readRuns reads the check runs under aob/ of a commit, and returns the newest of each name: AOB's, or those of other
// Apps where AOB has none.
func (f *GitHub) readRuns(ctx context.Context, commit string) ([]delivery.Status, error) {
	newest := map[string]*github.CheckRun{}
	mine := func(r *github.CheckRun) bool { return r.GetApp().GetID() == f.app.ID }
	err := pages(func(page github.ListOptions) ([]*github.CheckRun, *github.Response, error) {
		list, resp, err := f.client.Checks.ListCheckRunsForRef(ctx, f.owner, f.repo, commit,
			&github.ListCheckRunsOptions{Filter: new("latest"), ListOptions: page})
		if err != nil {
			return nil, resp, err
		}
		return list.CheckRuns, resp, nil
	}, func(r *github.CheckRun) bool {
		name := strings.ToLower(r.GetName())
		old := newest[name]
		if strings.HasPrefix(name, "aob/") && (old == nil || mine(r) && !mine(old) ||
			mine(r) == mine(old) && r.GetID() > old.GetID()) {
			newest[name] = r
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	list, known := []delivery.Status{}, map[string]checkRun{}
	for name, r := range newest {
		digest, _, _ := strings.Cut(r.GetExternalID(), " ")
		status := delivery.Status{By: r.GetApp().GetSlug() + "[bot]", Mine: mine(r), Check: delivery.Check{
			Context: r.GetName(), State: stateOfRun(r), Description: r.GetOutput().GetTitle(), URL: r.GetDetailsURL()}}
		if status.Description == r.GetName() { // GitHub wants a title
			status.Description = ""
		}
		if status.Mine {
			status.Details = delivery.Digest(digest)
			known[name] = checkRun{r.GetID(), r.GetName(), r.GetStatus() == "completed", r.GetExternalID()}
		}
		list = append(list, status)
	}
	slices.SortFunc(list, func(a, b delivery.Status) int { return strings.Compare(a.Context, b.Context) })
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.runs == nil || len(f.runs) >= maxKnownRuns {
		f.runs = checkRuns{}
	}
	for name, run := range f.runs[commit] {
		if run.id > known[name].id { // it was made meanwhile
			known[name] = run
		}
	}
	f.runs[commit] = known
	return list, nil
}

// outputOf returns the text of a check run.
func (f *GitHub) outputOf(check delivery.Check) *github.CheckRunOutput {
	title := cmp.Or(Describe(check.Description), check.Context)
	summary := title
	if check.Details != nil {
		summary = cmp.Or(check.Details.Summary, title)
	}
	return &github.CheckRunOutput{Title: &title, Summary: new(cutSummary(CutComment(summary)))}
}

// cutSummary cuts a text to what a check run takes. Comments are shorter, unless characters have changed.
func cutSummary(text string) string {
	if utf8.RuneCountInString(text) <= maxSummary {
		return text
	}
	return delivery.Cut(text, maxSummary)
}

// annotationsOf shows complaints on the lines that they are about.
func annotationsOf(notes []delivery.Complaint) (list []*github.CheckRunAnnotation) {
	for _, n := range notes {
		line := max(n.Line, 1)
		a := &github.CheckRunAnnotation{Path: new(n.File), StartLine: &line, EndLine: &line,
			AnnotationLevel: new("failure"), Message: new(delivery.Cut(cmp.Or(delivery.PlainText(n.Text, maxNote),
				"see the comment"), maxNote))}
		if n.Line > 0 && n.Column > 0 {
			a.StartColumn, a.EndColumn = &n.Column, &n.Column
		}
		if n.Path != "" {
			a.Title = new(delivery.PlainText(n.Path, 200))
		}
		list = append(list, a)
	}
	return list
}
