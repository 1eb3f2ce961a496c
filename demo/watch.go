package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/web"
)

// waitForPR waits until AOB has opened a pull request for a branch, and returns its number.
func (s *story) waitForPR(ctx context.Context, branch string) (int, error) {
	number := 0
	err := s.until(ctx, 30*time.Second, "AOB opens a pull request for branch "+branch, func() (bool, error) {
		var prs []web.PR
		if err := s.query(ctx, &prs, "pr", "list"); err != nil {
			return false, nil // the server is starting, or has not read the branch yet
		}
		for _, p := range prs {
			if p.HeadRef == branch {
				number = p.Number
			}
		}
		return number > 0, nil
	})
	return number, err
}

// watch waits until aob/release of a pull request has a result, and prints each check once when it has one.
func (s *story) watch(ctx context.Context, p proposal, want delivery.CheckState) error {
	last := time.Now()
	shown := map[string]bool{}
	var pr web.PR
	err := s.until(ctx, 10*time.Minute, fmt.Sprintf("PR #%d has a result", p.number), func() (bool, error) {
		if err := s.query(ctx, &pr, "pr", "show", fmt.Sprint(p.number)); err != nil {
			return false, nil
		}
		for _, c := range pr.Checks {
			if c.State == delivery.CheckPending || shown[c.Context] || c.Context == delivery.ContextRelease {
				continue
			}
			shown[c.Context] = true
			s.printStep(s.mark(c.State)+" "+c.Context, delivery.Cut(c.Description, 150), time.Since(last))
			last = time.Now()
		}
		s.progress("…", progress(pr))
		return pr.State == delivery.CheckSuccess || pr.State == delivery.CheckFailure ||
			pr.State == delivery.CheckError, nil
	})
	if err != nil {
		return err
	}
	s.printStep(s.mark(pr.State)+" "+delivery.ContextRelease, delivery.Cut(pr.Text, 220), 0)
	if pr.State != want {
		return fmt.Errorf("PR #%d: %s is %s, want %s: %s", p.number, delivery.ContextRelease, pr.State, want, pr.Text)
	}
	s.rows = append(s.rows, row{fmt.Sprintf("PR #%d %s", p.number, pr.Title), string(pr.State) + ": " +
		delivery.Cut(pr.Text, 90)})
	return nil
}

func (s *story) mark(state delivery.CheckState) string {
	if state == delivery.CheckSuccess {
		return s.color("32", "✓")
	}
	return s.color("31", "✗")
}

// progress describes the running run of a pull request.
func progress(pr web.PR) string {
	for _, r := range pr.Runs {
		if r.Phase != delivery.RunRunning {
			continue
		}
		if r.Epochs > 0 {
			const width = 24
			done := width * r.Epoch / r.Epochs
			left := ""
			if r.SecondsLeft != nil && *r.SecondsLeft >= 1 {
				left = fmt.Sprintf(", about %.0fs left", *r.SecondsLeft)
			}
			return fmt.Sprintf("%s [%s%s] epoch %d/%d%s", r.Kind, strings.Repeat("=", done),
				strings.Repeat(" ", width-done), r.Epoch, r.Epochs, left)
		}
		return fmt.Sprintf("%s: %s", r.Kind, r.Stage)
	}
	return ""
}

// fleet waits until all devices serve a version healthily, and prints each device when it does.
func (s *story) fleet(ctx context.Context, version int) error {
	start := time.Now()
	var order []string
	err := s.until(ctx, 2*time.Minute, fmt.Sprintf("the fleet runs version %d", version), func() (bool, error) {
		var status web.Status
		if err := s.query(ctx, &status, "status"); err != nil {
			return false, nil
		}
		if len(status.Fleets) != 1 {
			return false, nil
		}
		f := status.Fleets[0]
		s.progress("fleet "+f.Name, f.Text)
		for _, d := range f.Devices {
			if d.Version == version && d.Phase == delivery.DeviceHealthy && !slices.Contains(order, d.ID) {
				order = append(order, d.ID)
				s.printStep("fleet "+f.Name, fmt.Sprintf("%s serves version %d, slot %s", d.ID, d.Version, d.Slot),
					time.Since(start))
			}
		}
		return len(order) == 3 && f.Done, nil
	})
	if err == nil {
		s.rows = append(s.rows, row{fmt.Sprintf("fleet demo on version %d", version), fmt.Sprintf("%s, %.1fs",
			strings.Join(order, ", "), time.Since(start).Seconds())})
	}
	return err
}

// cost is what a rollback must not increase.
type cost struct {
	trainings  string
	downloaded int64
}

func (s *story) costs(ctx context.Context) (cost, error) {
	var status web.Status
	if err := s.query(ctx, &status, "status"); err != nil {
		return cost{}, err
	}
	var c cost
	for _, f := range status.Fleets {
		for _, d := range f.Devices {
			c.downloaded += d.Downloaded
		}
	}
	metrics, err := s.metrics(ctx)
	if err != nil {
		return c, err
	}
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(line, "aob_trainings_total "); ok {
			c.trainings = strings.TrimSpace(value)
		}
	}
	return c, nil
}

// ending prints a summary and commands to continue with.
func (s *story) ending(ctx context.Context) error {
	s.chapter("Summary")
	for _, r := range s.rows {
		fmt.Fprintf(s.out, "  %-44s %s\n", r.what, r.result)
	}
	fmt.Fprintf(s.out, "\n  %.0fs in total. To continue:\n\n", time.Since(s.began).Seconds())
	fmt.Fprintf(s.out, "    git -C %s log --oneline --graph --all\n", short(s.cloneDir()))
	fmt.Fprintf(s.out, "    bin/aob serve --config %s &      # start the server again, then:\n", short(s.config()))
	fmt.Fprintf(s.out, "    export AOB_SOCKET=%s\n    bin/aob status\n    bin/aob explain model shapes\n    bin/aob "+
		"explain device robot-1\n", short(s.socket()))
	return nil
}
