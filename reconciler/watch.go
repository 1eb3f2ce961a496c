package reconciler

// This file is for a server that only watches, because its state folder is a copy of another server's: for a rehearsal,
// or a restored backup while the original may still run. It observes and plans as usual, and shows its plans without
// acting.

import (
	"context"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Watch makes a reconciler that only watches. why says why, and what to do about it; it is shown in the status and
// returned for every request to act. Call it once, after all fields are set and before Init.
func (r *Reconciler) Watch(why delivery.Blocked) {
	r.watchOnly = &why
	// The loop calls none of these while it only watches. This is a second safeguard.
	r.Repo = watchedRepo{r.Repo, why}
	r.Forge = watchedForge{r.Forge, why}
	r.Runs = watchedRuns{r.Runs, why}
	r.Evidence = watchedEvidence{evidencePort: r.Evidence, why: why}
	r.Fleet = watchedFleet{r.Fleet, why}
}

type watchedRepo struct {
	Repo
	why error
}

func (w watchedRepo) Push(context.Context, string, string, string) error { return w.why }

type watchedForge struct {
	Forge
	why error
}

func (w watchedForge) SetStatus(context.Context, string, delivery.Check) error { return w.why }
func (w watchedForge) Comment(context.Context, int, string, string) error      { return w.why }
func (w watchedForge) OpenPR(context.Context, string, string, string, string) (int, error) {
	return 0, w.why
}

// Ask would write a comment, so it returns no consents.
func (w watchedForge) Ask(context.Context, int, string) ([]delivery.Consent, error) { return nil, nil }

type watchedRuns struct {
	Runs
	why error
}

func (w watchedRuns) Start(context.Context, delivery.RunSpec) error      { return w.why }
func (w watchedRuns) End(context.Context, delivery.Digest, string) error { return w.why }
func (w watchedRuns) Keep(delivery.Digest, delivery.RunNeed) error       { return w.why }
func (w watchedRuns) Retry(delivery.Digest) error                        { return w.why }
func (w watchedRuns) Remove(delivery.Digest) error                       { return w.why }
func (w watchedRuns) Detach(delivery.Digest) (string, error)             { return "", w.why }

type watchedEvidence struct {
	evidencePort
	why error
}

type evidencePort = Evidence // a field may not have the name of its method

func (w watchedEvidence) Sign(context.Context, delivery.Digest, string, any) error { return w.why }

type watchedFleet struct {
	Fleet
	why error
}

func (w watchedFleet) Publish(context.Context, delivery.Desired) error { return w.why }
func (w watchedFleet) Forget(context.Context, string, string) error    { return w.why }
