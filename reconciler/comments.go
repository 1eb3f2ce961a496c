package reconciler

// This file reads what people ask for in comments: a go, and the settling of an
// unsure verdict. Who may is the forge's word and main's gates', never the
// comment's; one that was edited is not among those that the forge returns.

import (
	"context"
	"errors"
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

// comments reads a pull request's comments, the newest of them. New gos of people with write permission are
// remembered, where one of asks asks for them. It is called by what reads the forge, beside the loop.
func (r *Reconciler) comments(ctx context.Context, pr int, asks []string) (asked, error) {
	var found asked
	list, err := call(ctx, r.forgeNow, "comments", askDeadline, func(ctx context.Context) ([]delivery.Comment, error) { return r.Forge.Commands(ctx, pr) })
	if err != nil {
		return found, err
	}
	var errs []error
	for _, c := range list[max(0, len(list)-maxComments):] {
		if c.At.IsZero() {
			c.At = r.Now()
		}
		gos, accepts := commands(c)
		gos = slices.DeleteFunc(gos, func(code string) bool {
			return slices.Contains(found.gos, code) || !slices.Contains(asks, "/aob run "+code)
		})
		gos = slices.DeleteFunc(gos, func(string) bool { return r.Now().Sub(c.At) >= goLasts })
		if len(gos)+len(accepts) == 0 {
			continue
		}
		p, err := r.forgeNow.may(ctx, c.Author)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if p != delivery.PermissionWrite {
			r.Log.Debug("an order from someone without write permission", "pr", pr, "user", c.Author)
			continue
		}
		found.gos = append(found.gos, gos...)
		for _, code := range gos {
			if err := r.Ledger.PutGo(ctx, ledger.Go{PR: pr, Code: code, Author: c.Author, At: c.At}); err != nil {
				r.Log.Error("a go cannot be kept", "pr", pr, "error", err.Error())
			}
		}
		if len(accepts) == 0 {
			continue
		}
		teams, err := r.forgeNow.teamsOf(ctx, c.Author)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, a := range accepts {
			a.Teams = teams
			found.accepts = append(found.accepts, a)
		}
	}
	return found, errors.Join(errs...)
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
