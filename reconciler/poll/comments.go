package poll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

// maxBecause bounds a reason, which is signed and shown.
const maxBecause = 300

// login is what a user's name looks like on a forge.
var login = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// maxRefused is how many accepts of another code, and how many people's runs without permission, are answered on a pull
// request.
const maxRefused = 5

// maxStrangers is how many people who accept another code are found to be no writers. Of more, nobody asks.
const maxStrangers = 20

// ApprovalLasts is how long the approval of a run is valid.
const ApprovalLasts = 7 * 24 * time.Hour

// Orders are what the comments of a pull request ask for.
type Orders struct {
	codes    []string // that they were read for
	Approved []string // codes of runs
	Refused  []string // who named a code of a run and may not write, at most maxRefused
	Accepts  []plan.Asked
	// by code: whose agreement to AOB's question is missing; "" is anybody's with write permission
	Waits map[string][]string
}

// waitFor notes that AOB has asked somebody to confirm, and that they have not yet.
func (o *Orders) waitFor(code, who string) {
	if o.Waits == nil {
		o.Waits = map[string][]string{}
	}
	if !slices.Contains(o.Waits[code], who) {
		o.Waits[code] = append(o.Waits[code], who)
	}
}

// A waiting is what a pull request waits for people to say. The keys are the codes
// that they must name.
type waiting struct {
	runs   map[string]string    // what an approval lets run
	doubts map[string]openDoubt // unsure verdicts whose accept is not signed
}

type openDoubt struct {
	model string
	plan.Doubt
}

// waits returns what a pull request waits for, by what a plan says of it.
func waits(p plan.ProposalReport) waiting {
	w := waiting{runs: map[string]string{}, doubts: map[string]openDoubt{}}
	for _, ask := range p.Asks {
		if code, ok := strings.CutPrefix(ask, "/aob run "); ok {
			w.runs[code] = words.Text(p.Costs[code])
		}
	}
	for _, m := range p.Models {
		for _, d := range m.Doubts {
			if !d.Signed {
				w.doubts[d.Code] = openDoubt{m.Model, d}
			}
		}
	}
	return w
}

// codes are those that people may name, sorted.
func (w waiting) codes() []string {
	codes := slices.AppendSeq(slices.Collect(maps.Keys(w.runs)), maps.Keys(w.doubts))
	slices.Sort(codes)
	return codes
}

// comments reads what the comments of a pull request ask for, of what it waits for. New approvals are kept in the
// ledger. incomplete says why something is not known yet: other questions failed, and each of them is asked again by
// itself.
func (f *Forge) comments(ctx context.Context, pr int, w waiting) (found Orders, incomplete, err error) {
	list, err := call(ctx, f, "comments", askDeadline, func(ctx context.Context) ([]delivery.Comment, error) {
		return f.API.Commands(ctx, pr)
	})
	if err != nil {
		return found, nil, err
	}
	for i := range list {
		if list[i].At.IsZero() {
			list[i].At = f.Turn.Now()
		}
	}
	incomplete = errors.Join(f.approvals(ctx, pr, w, list, &found), f.accepts(ctx, pr, w, list, &found))
	return found, incomplete, nil
}

// approvals finds who has approved runs.
func (f *Forge) approvals(ctx context.Context, pr int, w waiting, list []delivery.Comment, found *Orders) error {
	var errs []error
	for _, c := range list {
		code := runCommand(c)
		what, waits := w.runs[code]
		if !waits || slices.Contains(found.Approved, code) || f.Turn.Now().Sub(c.At) >= ApprovalLasts {
			continue
		}
		may, err := f.may(ctx, c.Author)
		if err == nil && may != delivery.PermissionWrite && len(found.Refused) < maxRefused &&
			!slices.Contains(found.Refused, c.Author) {
			found.Refused = append(found.Refused, c.Author)
		}
		if err != nil || may != delivery.PermissionWrite {
			errs = append(errs, err)
			continue
		}
		consents := []delivery.Consent{{By: c.Author, At: c.At}}
		if c.VerifiedBy == "" {
			if consents, err = f.askBack(ctx, pr, runQuestion(pr, code, what)); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		for _, by := range consents {
			if slices.Contains(found.Approved, code) || f.Turn.Now().Sub(by.At) >= ApprovalLasts {
				continue
			}
			may, err := f.permissionNow(ctx, by.By) // asked again: a run costs money
			if err != nil || may != delivery.PermissionWrite {
				errs = append(errs, err)
				continue
			}
			found.Approved = append(found.Approved, code)
			errs = append(errs, f.try(fmt.Sprintf("go/%d/%s", pr, code), func() error {
				err := f.Ledger.PutApproval(ctx, ledger.Approval{PR: pr, Code: code, Author: by.By, At: by.At})
				if err != nil {
					err = fmt.Errorf("a go on pull request %d is not kept for the next start: %w", pr, err)
				}
				return err
			}))
		}
		if !slices.Contains(found.Approved, code) {
			found.waitFor(code, "")
		}
	}
	return errors.Join(errs...)
}

// accepts finds who accepts an unsure verdict. Of what a person writes about one
// verdict where comments can be edited, the newest comment counts.
func (f *Forge) accepts(ctx context.Context, pr int, w waiting, list []delivery.Comment, found *Orders) error {
	if len(w.doubts) == 0 {
		return nil
	}
	newest := map[string]int64{}
	key := func(a plan.Asked) string { return a.Code + " " + strings.ToLower(a.By) }
	for _, c := range list {
		if a, ok := acceptCommand(c); ok {
			newest[key(a)] = c.ID
		}
	}
	var errs []error
	refused, strangers := 0, map[string]bool{}
	for _, c := range list {
		a, ok := acceptCommand(c)
		if !ok || c.VerifiedBy == "" && newest[key(a)] != c.ID {
			continue
		}
		doubt, waits := w.doubts[a.Code]
		if !waits && (refused >= maxRefused || strangers[a.By] || len(strangers) >= maxStrangers) {
			continue
		}
		may, err := f.may(ctx, a.By)
		if a.Reader = may != delivery.PermissionWrite; err != nil || a.Reader && !waits {
			strangers[a.By] = true
			errs = append(errs, err)
			continue
		}
		if !waits {
			refused++
		}
		if a.Teams, err = f.teamsOf(ctx, a.By); err != nil {
			// Who is named as an owner needs no team.
			if errs = append(errs, err); a.Teams == nil || !a.Owns(doubt.Owners) {
				continue
			}
		}
		if a.Reader {
			if a.Owns(doubt.Owners) {
				found.Accepts = append(found.Accepts, a) // the comment says why that does not count
			}
			continue
		}
		a.How = c.VerifiedBy
		if c.VerifiedBy == "" && !login.MatchString(a.By) {
			continue // it would be written into a comment of AOB's, with an @ before it
		}
		if waits && a.Owns(doubt.Owners) && c.VerifiedBy == "" {
			consents, err := f.askBack(ctx, pr, acceptQuestion(doubt, a))
			i := slices.IndexFunc(consents, func(by delivery.Consent) bool { return strings.EqualFold(by.By, a.By) })
			if err != nil || i < 0 {
				if errs = append(errs, err); err == nil {
					found.waitFor(a.Code, a.By)
				}
				continue
			}
			a.At, a.How = consents[i].At, fmt.Sprintf("by a 👍 to AOB's comment %d", consents[i].Comment)
		}
		found.Accepts = append(found.Accepts, a)
	}
	return errors.Join(errs...)
}

// askBack asks in a comment of AOB's own and returns who has agreed.
func (f *Forge) askBack(ctx context.Context, pr int, question string) (consents []delivery.Consent, err error) {
	key := fmt.Sprintf("ask/%d/%s", pr, delivery.Sum([]byte(question)).Short())
	err = f.try(key, func() (err error) {
		consents, err = call(ctx, f, "ask", askDeadline, func(ctx context.Context) ([]delivery.Consent,
			error) {
			return f.API.Ask(ctx, pr, question)
		})
		if err != nil {
			err = fmt.Errorf("a question on pull request %d: %w", pr, err)
		}
		return err
	})
	return consents, err
}

// runQuestion asks whether something may run. Its text depends on nothing but what
// is asked, so that the same question is asked once.
func runQuestion(pr int, code, what string) string {
	if what == "" {
		what = "the runs of this pull request"
	}
	return fmt.Sprintf("### AOB: may this run?\n\nThe author of #%d has no write permission here. Code `%s` lets AOB "+
		"start:\n\n- %s\n\n"+
		"**To allow it, react to this comment with 👍.** That counts from people with write permission, if the "+
		"reaction comes "+
		"after the second in which this was posted. Once somebody has edited this comment, it counts for nothing, "+
		"and AOB asks again.",
		pr, code, delivery.Markdown(what))
}

// acceptQuestion asks an owner of a gate to confirm an accept.
func acceptQuestion(d openDoubt, a plan.Asked) string {
	return fmt.Sprintf("### AOB: @%s, is this your word?\n\nA comment of yours accepts what gate %s could not decide "+
		"about %s (verdict `%s`), because:\n\n> %s\n\n"+
		"**If it is, react to this comment with 👍.** Only the reaction of @%s counts, if it comes after the second "+
		"in which this "+
		"was posted. It is signed into the release, with the reason. Once somebody has edited this comment, it "+
		"counts for nothing.",
		a.By, delivery.Markdown(d.Gate), delivery.Markdown(d.model), a.Code, delivery.Markdown(a.Because), a.By)
}

// runCommand returns the code of a comment that says /aob run CODE, or "".
func runCommand(c delivery.Comment) string {
	words := strings.Fields(delivery.CommandLine(c.Body))
	if len(words) == 3 && words[1] == "run" && len(words[2]) <= 64 {
		return words[2]
	}
	return ""
}

// CheckOrder says why an order that somebody gave with aob pr ask cannot count.
func (f *Forge) CheckOrder(ctx context.Context, p plan.ProposalReport, user, text string) error {
	pr, w := p.PR.Number, waits(p)
	const orders = "write '/aob accept CODE because REASON' or '/aob run CODE'"
	show := fmt.Sprintf("aob pr show %d shows what may be asked", pr)
	words := strings.Fields(delivery.CommandLine(text))
	if len(words) < 2 {
		return delivery.Blockedf(orders, "the text is no order to AOB, and nobody else reads it")
	}
	codes := func(of []string, none string) string {
		if len(of) == 0 {
			return none
		}
		return "its codes are " + strings.Join(of, ", ")
	}
	switch words[1] {
	case "run":
		if len(words) != 3 {
			return delivery.Blockedf("write '/aob run CODE'", "the order wants one code")
		}
		if _, waits := w.runs[words[2]]; !waits {
			return delivery.Blockedf(show, "nothing of pull request %d waits for a go of code %s; %s", pr,
				delivery.Terminal(words[2]),
				codes(slices.Sorted(maps.Keys(w.runs)), "nothing there waits for one"))
		}
		return nil
	case "accept":
	default:
		return delivery.Blockedf(orders, "AOB knows no order %q", "/aob "+delivery.Terminal(words[1]))
	}
	if len(words) < 3 {
		return delivery.Blockedf("write '/aob accept CODE because REASON'", "the code of the verdict is missing")
	}
	doubt, waits := w.doubts[words[2]]
	if !waits {
		return delivery.Blockedf(show, "no verdict of pull request %d waits for an accept of code %s; %s", pr,
			delivery.Terminal(words[2]),
			codes(slices.Sorted(maps.Keys(w.doubts)), "no verdict there is unsure"))
	}
	a, ok := acceptCommand(delivery.Comment{Author: user, Body: text})
	if !ok {
		return delivery.Blockedf(fmt.Sprintf("write '/aob accept %s because REASON', with a reason in words", words[2]),
			"the reason is missing")
	}
	teams, err := f.teamsOf(ctx, user)
	if err != nil {
		return err
	}
	if a.Teams = teams; !a.Owns(doubt.Owners) {
		owners := strings.Join(doubt.Owners, ", ")
		if owners == "" {
			owners = "nobody"
		}
		return delivery.Blockedf("an owner asks it; gates/ on main names them",
			"%s is no owner of gate %s; its owners are %s", user, doubt.Gate, owners)
	}
	return nil
}

// acceptCommand reads a comment that says /aob accept CODE because REASON.
func acceptCommand(c delivery.Comment) (plan.Asked, bool) {
	words := strings.Fields(delivery.CommandLine(c.Body))
	if len(words) <= 4 || words[1] != "accept" || words[3] != "because" || len(words[2]) > 64 {
		return plan.Asked{}, false
	}
	because := strings.ToValidUTF8(strings.Join(words[4:], " "), "?")
	if !strings.ContainsFunc(because, unicode.IsLetter) { // the line as it was shown, without a reason
		return plan.Asked{}, false
	}
	if runes := []rune(because); len(runes) > maxBecause {
		because = string(runes[:maxBecause]) + "…"
	}
	return plan.Asked{Code: words[2], By: c.Author, Because: because, At: c.At.UTC()}, true
}
