package poll

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/words"
)

const (
	// ApprovalLasts is how long the approval of a run is valid.
	ApprovalLasts = 7 * 24 * time.Hour

	maxReason    = 300 // characters of a reason, which is signed and shown
	maxRefused   = 5   // answered accepts with unknown codes, and answered approvals without write permission
	maxStrangers = 20  // people without write permission whose accepts have unknown codes; further ones are ignored
)

// login matches a user's name on a forge.
var login = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// Orders is what the comments of a pull request ask for.
type Orders struct {
	codes    []string // for which the comments were read
	Approved []string // codes of runs
	Refused  []string // who approved a run without write permission, at most maxRefused
	Accepts  []plan.AcceptComment
	Recheck  time.Time // when somebody last asked to try again what has failed; zero if nobody has
	// by code: who has not reacted to AOB's question yet; "" is anybody with write permission
	Waits map[string][]string
}

// digest identifies the content, without codes.
func (o *Orders) digest() delivery.Digest {
	return delivery.DigestOf("orders", []any{o.Approved, o.Refused, o.Accepts, o.Waits, o.Recheck})
}

// waitFor records that AOB has asked somebody to confirm and that they have not answered.
func (o *Orders) waitFor(code, who string) {
	if o.Waits == nil {
		o.Waits = map[string][]string{}
	}
	if !slices.Contains(o.Waits[code], who) {
		o.Waits[code] = append(o.Waits[code], who)
	}
}

// A waiting is what a pull request waits for. The keys are the codes that a comment must contain.
type waiting struct {
	runs     map[string]string      // descriptions of the runs to approve
	verdicts map[string]openVerdict // unsure verdicts without a signed accept
	failed   bool                   // something has failed that can be tried again
}

type openVerdict struct {
	model string
	plan.UnsureVerdict
}

// waits returns what a pull request waits for, according to a plan.
func waits(p plan.ProposalReport) waiting {
	w := waiting{runs: map[string]string{}, verdicts: map[string]openVerdict{}}
	for _, ask := range p.ApprovalCommands {
		if name, ok := strings.CutPrefix(ask, "/aob run "); ok {
			w.runs[name] = words.Text(allowed(p.Costs[name]))
		}
	}
	for _, m := range p.Models {
		for _, d := range m.Unsure {
			if !d.Signed {
				w.verdicts[d.Code] = openVerdict{m.Model, d}
			}
		}
	}
	w.failed = p.CanRecheck()
	return w
}

// allowed describes what an approval allows. It is the same as long as the code is: a quote is not.
func allowed(cost delivery.Fact) delivery.Fact {
	if cost.Code == code.CostQuote {
		cost.Code = code.CostGo
	}
	return cost
}

// codes returns all codes, in a fixed order.
func (w waiting) codes() []string {
	codes := slices.Concat(slices.Sorted(maps.Keys(w.runs)), slices.Sorted(maps.Keys(w.verdicts)))
	if w.failed {
		codes = append(codes, plan.RecheckOrder)
	}
	return codes
}

// comments reads the comments of a pull request and returns those orders that it waits for. It stores new approvals in
// the ledger. incomplete is the errors of questions about the authors; they are asked again later.
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
	incomplete = errors.Join(f.approvals(ctx, pr, w, list, &found), f.accepts(ctx, pr, w, list, &found),
		f.rechecks(ctx, w, list, &found))
	return found, incomplete, nil
}

// approvals finds the approved runs.
func (f *Forge) approvals(ctx context.Context, pr int, w waiting, list []delivery.Comment, found *Orders) error {
	var errs []error
	for _, c := range list {
		code := runCommand(c)
		what, waits := w.runs[code]
		if !waits || slices.Contains(found.Approved, code) || f.Turn.Now().Sub(c.At) >= ApprovalLasts {
			continue
		}
		permission, err := f.permission(ctx, c.Author)
		if err != nil || permission != delivery.PermissionWrite {
			errs = append(errs, err)
			if err == nil && len(found.Refused) < maxRefused && !slices.Contains(found.Refused, c.Author) {
				found.Refused = append(found.Refused, c.Author)
			}
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
			permission, err := f.mayNow(ctx, by.By)
			if err != nil || permission != delivery.PermissionWrite {
				errs = append(errs, err)
				continue
			}
			found.Approved = append(found.Approved, code)
			errs = append(errs, f.try(fmt.Sprintf("go/%d/%s", pr, code), func() error {
				err := f.Ledger.PutApproval(ctx, ledger.Approval{PR: pr, Code: code, Author: by.By, At: by.At})
				if err != nil {
					err = fmt.Errorf("an approval on pull request %d is lost when aob restarts: %w", pr, err)
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

// rechecks finds when somebody with write permission last asked to try again what has failed. Only orders count whose
// authors are certain.
func (f *Forge) rechecks(ctx context.Context, w waiting, list []delivery.Comment, found *Orders) error {
	var errs []error
	for _, c := range list {
		if !w.failed || c.VerifiedBy == "" || delivery.CommandLine(c.Body) != plan.RecheckOrder ||
			!c.At.After(found.Recheck) {
			continue
		}
		permission, err := f.permission(ctx, c.Author)
		if errs = append(errs, err); err == nil && permission == delivery.PermissionWrite {
			found.Recheck = c.At
		}
	}
	return errors.Join(errs...)
}

// accepts finds who accepts an unsure verdict. If comments can be edited by others, only the newest accept of each
// person and code counts.
func (f *Forge) accepts(ctx context.Context, pr int, w waiting, list []delivery.Comment, found *Orders) error {
	if len(w.verdicts) == 0 {
		return nil
	}
	newest := map[string]int64{}
	key := func(a plan.AcceptComment) string { return a.Code + " " + strings.ToLower(a.By) }
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
		verdict, waits := w.verdicts[a.Code]
		if !waits && (refused >= maxRefused || strangers[a.By] || len(strangers) >= maxStrangers) {
			continue
		}
		permission, err := f.permission(ctx, a.By)
		if a.Reader = permission != delivery.PermissionWrite; err != nil || a.Reader && !waits {
			strangers[a.By] = true
			errs = append(errs, err)
			continue
		}
		if !waits {
			refused++
		}
		if a.Teams, err = f.teamsOf(ctx, a.By); err != nil {
			// A user who is named as an owner needs no team.
			if errs = append(errs, err); a.Teams == nil || !a.Owns(verdict.Owners) {
				continue
			}
		}
		if a.Reader {
			if a.Owns(verdict.Owners) {
				found.Accepts = append(found.Accepts, a) // AOB's comment explains why it does not count
			}
			continue
		}
		a.How = c.VerifiedBy
		if c.VerifiedBy == "" && !login.MatchString(a.By) {
			continue // the name would be in a comment of AOB, with an @ before it
		}
		if waits && a.Owns(verdict.Owners) && c.VerifiedBy == "" {
			consents, err := f.askBack(ctx, pr, acceptQuestion(verdict, a))
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

// askBack asks a question in a comment of AOB and returns who has agreed.
func (f *Forge) askBack(ctx context.Context, pr int, question string) (consents []delivery.Consent, err error) {
	key := fmt.Sprintf("ask/%d/%s", pr, delivery.Sum([]byte(question)).Short())
	err = f.try(key, func() (err error) {
		return get(ctx, f, "ask", fmt.Sprintf("a question on pull request %d", pr),
			func(ctx context.Context) ([]delivery.Consent, error) { return f.API.Ask(ctx, pr, question) },
			func(a answer[[]delivery.Consent]) { consents = a.value })
	})
	return consents, err
}

// runQuestion asks whether something may run. The same run gives the same text, so it is asked once.
func runQuestion(pr int, code, what string) string {
	if what == "" {
		what = "the runs of this pull request"
	}
	return fmt.Sprintf("### AOB: may this run?\n\nIn #%d, code `%s` lets AOB start:\n\n- %s\n\n"+
		"**To allow it, react to this comment with 👍.** That counts from people with write permission, if the "+
		"reaction comes after the second in which this was posted. Once somebody has edited this comment, it counts "+
		"for nothing, and AOB asks again.", pr, code, delivery.Markdown(what))
}

// acceptQuestion asks an owner of a gate to confirm an accept.
func acceptQuestion(d openVerdict, a plan.AcceptComment) string {
	return fmt.Sprintf("### AOB: @%s, did you write this?\n\nA comment of yours accepts what gate %s could not decide "+
		"about %s (verdict `%s`), because:\n\n> %s\n\n"+
		"**If you wrote it, react to this comment with 👍.** Only the reaction of @%s counts, if it comes after the "+
		"second in which this was posted. It is signed into the release, with the reason. Once somebody has edited "+
		"this comment, it counts for nothing.",
		a.By, delivery.Markdown(d.Gate), delivery.Markdown(d.model), a.Code, delivery.Markdown(a.Because), a.By)
}

// runCommand returns the code of a comment "/aob run CODE", or "".
func runCommand(c delivery.Comment) string {
	words := strings.Fields(delivery.CommandLine(c.Body))
	if len(words) == 3 && words[1] == "run" && len(words[2]) <= 64 {
		return words[2]
	}
	return ""
}

// CheckOrder returns an error if an order that somebody gives with `aob pr ask` cannot have an effect.
func (f *Forge) CheckOrder(ctx context.Context, p plan.ProposalReport, user, text string) error {
	w := waits(p)
	const orders = "write '/aob accept CODE because REASON' or '/aob run CODE'"
	show := fmt.Sprintf("`aob pr show %d` shows the codes", p.PR.Number)
	codesOr := func(codes []string, none string) string {
		if len(codes) == 0 {
			return none
		}
		return "its codes are " + strings.Join(codes, ", ")
	}
	words := strings.Fields(delivery.CommandLine(text))
	switch {
	case len(words) < 2:
		return delivery.Blockedf(orders, "the text does not begin with a command to AOB")
	case words[1] == "run" && len(words) != 3:
		return delivery.Blockedf("write '/aob run CODE'", "the order needs one code")
	case words[1] == "run":
		if _, waits := w.runs[words[2]]; !waits {
			return delivery.Blockedf(show, "no run of pull request %d waits for approval with code %s; %s", p.PR.Number,
				delivery.Terminal(words[2]), codesOr(slices.Sorted(maps.Keys(w.runs)), "no run waits for approval"))
		}
		return nil
	case words[1] != "accept":
		return delivery.Blockedf(orders, "there is no command %q", "/aob "+delivery.Terminal(words[1]))
	case len(words) < 3:
		return delivery.Blockedf("write '/aob accept CODE because REASON'", "the code of the verdict is missing")
	}
	verdict, waits := w.verdicts[words[2]]
	if !waits {
		return delivery.Blockedf(show, "no verdict of pull request %d waits for an accept of code %s; %s", p.PR.Number,
			delivery.Terminal(words[2]), codesOr(slices.Sorted(maps.Keys(w.verdicts)), "no verdict there is unsure"))
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
	if a.Teams = teams; !a.Owns(verdict.Owners) {
		return delivery.Blockedf("an owner has to do it; owners: in the gate on main names them",
			"%s does not own gate %s; its owners are %s", user, verdict.Gate,
			cmp.Or(strings.Join(verdict.Owners, ", "), "nobody"))
	}
	return nil
}

// acceptCommand parses a comment "/aob accept CODE because REASON".
func acceptCommand(c delivery.Comment) (plan.AcceptComment, bool) {
	words := strings.Fields(delivery.CommandLine(c.Body))
	if len(words) <= 4 || words[1] != "accept" || words[3] != "because" || len(words[2]) > 64 {
		return plan.AcceptComment{}, false
	}
	reason := strings.Join(words[4:], " ")
	if !strings.ContainsFunc(reason, unicode.IsLetter) { // such as the "…" of the example in AOB's comment
		return plan.AcceptComment{}, false
	}
	return plan.AcceptComment{Code: words[2], By: c.Author, Because: delivery.Cut(reason, maxReason), At: c.At.UTC()},
		true
}
