package reconciler

// This file reads what people ask for in comments: a go, and the settling of an
// unsure verdict. Who may is the forge's word and main's gates', never the
// comment's; one that was edited is not among those that the forge returns.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
)

// maxBecause bounds a reason, which is signed and shown.
const maxBecause = 300

// unsure reports whether a pull request waited for a gate's owner, by the last
// plan.
func (s *seen) unsure(pr int) bool {
	for _, p := range s.plan.Proposals {
		if p.PR.Number != pr {
			continue
		}
		for _, m := range p.Models {
			if slices.ContainsFunc(m.Verdicts, func(v delivery.Verdict) bool { return v.Outcome == delivery.Unsure }) {
				return true
			}
		}
	}
	return false
}

// comments reads a pull request's comments. New gos of people with write
// permission are remembered; have are those that are known.
func (r *Reconciler) comments(ctx context.Context, pr int, have []string) asked {
	var found asked
	list, err := r.Forge.Commands(ctx, pr)
	if err != nil {
		r.Log.Warn("comments not read", "pr", pr, "error", err.Error())
		return found
	}
	for _, c := range list {
		if c.At.IsZero() {
			c.At = r.Now()
		}
		gos, accepts := commands(c)
		gos = slices.DeleteFunc(gos, func(code string) bool { return slices.Contains(have, code) || slices.Contains(found.gos, code) })
		if len(gos) > 0 && r.Now().Sub(c.At) < goLasts && r.mayWrite(ctx, pr, c.Author) {
			found.gos = append(found.gos, gos...)
			for _, code := range gos {
				if err := r.Ledger.PutGo(ctx, ledger.Go{PR: pr, Code: code, Author: c.Author, At: c.At}); err != nil {
					r.Log.Error("a go cannot be kept", "pr", pr, "error", err.Error())
				}
			}
		}
		if len(accepts) == 0 {
			continue
		}
		// Both are asked for as long as the comment is read, so an answer lasts a
		// while.
		teams, err := r.teams(ctx, c.Author)
		if p, permErr := r.permission(ctx, c.Author); err != nil || permErr != nil || p != delivery.PermissionWrite {
			r.Log.Warn("an accept does not count", "pr", pr, "user", c.Author, "permission", string(p), "error", fmt.Sprint(errors.Join(err, permErr)))
			continue
		}
		for _, a := range accepts {
			a.Teams = teams
			found.accepts = append(found.accepts, a)
		}
	}
	return found
}

func (r *Reconciler) teams(ctx context.Context, user string) (map[string]bool, error) {
	now := r.Now()
	if t, ok := r.seen.teams[user]; ok && now.Sub(t.at) < permissionLasts {
		return t.in, nil
	}
	in, err := r.Forge.Teams(ctx, user)
	if err == nil {
		r.seen.teams[user] = teamsOf{in, now}
	}
	return in, err
}

// mayWrite asks the forge anew: a go costs money.
func (r *Reconciler) mayWrite(ctx context.Context, pr int, user string) bool {
	p, err := r.Forge.Permission(ctx, user)
	if err != nil || p != delivery.PermissionWrite {
		r.Log.Warn("a go from someone without write permission", "pr", pr, "user", user)
		return false
	}
	return true
}

// commands reads the lines of a comment that say /aob run CODE, or
// /aob accept CODE because REASON. People paste several into one.
func commands(c delivery.Comment) (gos []string, accepts []plan.Asked) {
	for line := range strings.Lines(c.Body) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "/aob" || len(words[2]) > 64 {
			continue
		}
		switch {
		case words[1] == "run" && len(words) == 3:
			gos = append(gos, words[2])
		case words[1] == "accept" && len(words) > 4 && words[3] == "because":
			because := strings.ToValidUTF8(strings.Join(words[4:], " "), "?")
			if !strings.ContainsFunc(because, unicode.IsLetter) { // the line as it was shown, without a reason
				continue
			}
			if runes := []rune(because); len(runes) > maxBecause {
				because = string(runes[:maxBecause]) + "…"
			}
			accepts = append(accepts, plan.Asked{Code: words[2], By: c.Author, Because: because, At: c.At.UTC()})
		}
	}
	return gos, accepts
}
