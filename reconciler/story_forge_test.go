package reconciler

// Stories of a forge that refuses some requests, keeps old statuses, or has several pull requests of one commit.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/git"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/post"
	"github.com/autonomos/aob/reconciler/queue"
)

// openTo opens a pull request of a branch to another branch. Several may have the same branch.
func (s *sim) openTo(number int, branch, base string) *simPR {
	s.forge.ready[number] = true
	pr := &simPR{PullRequest: delivery.PullRequest{Number: number, Title: branch, Author: "dev", HeadRef: branch,
		Base:      base,
		ForkOwner: "dev", Ref: fmt.Sprintf("%s%d/head", git.Pull, number)}}
	s.forge.prs[number] = pr
	return pr
}

// One branch has two pull requests, to main and to another branch. Statuses belong to the common head, so they show the
// checks of the pull request to main, whichever was opened first.
func TestSharedHeadShowsChecksOfThePullRequestToMain(t *testing.T) {
	for name, bases := range map[string][]string{
		"the other one is older":          {"release-1", "main"},
		"the other one is younger":        {"main", "release-1"},
		"two others, one older":           {"release-1", "main", "release-2"},
		"two others, both older":          {"release-1", "release-2", "main"},
		"a branch with the name of a ref": {"refs/heads/main", "main"},
	} {
		t.Run(name, func(t *testing.T) {
			s, main := begun(t)
			s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
			for i, base := range bases {
				s.openTo(i+1, "first", base)
			}
			s.settle()
			s.want("first", delivery.CheckSuccess, "version 1")
			s.quiet()
		})
	}
}

// A draft to main speaks before a pull request to another branch. When nothing targets main any more, the status says
// so.
func TestSharedHeadIsJudgedWhileAnyPullRequestTargetsMain(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("first", main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8)})
	s.openTo(1, "first", "release-1")
	draft := s.openTo(2, "first", "main")
	draft.Draft, s.forge.ready[2] = true, false
	s.settle()
	s.want("first", delivery.CheckPending, "draft")
	draft.Draft, s.forge.ready[2] = false, true
	s.settle()
	s.want("first", delivery.CheckSuccess, "version 1")
	draft.closed = true
	s.settle()
	s.want("first", delivery.CheckPending, "AOB judges pull requests that target main")
	s.quiet()
}

// picky is a forge that answers some questions with an error.
type picky struct {
	*simForge
	fails func(question string) error // as "comments/7"
	tried map[string]int
}

func (f *picky) ask(format string, args ...any) error {
	question := fmt.Sprintf(format, args...)
	f.tried[question]++
	return f.fails(question)
}

func (f *picky) Commands(ctx context.Context, pr int) ([]delivery.Comment, error) {
	if err := f.ask("comments/%d", pr); err != nil {
		return nil, err
	}
	return f.simForge.Commands(ctx, pr)
}

func (f *picky) Ask(ctx context.Context, pr int, question string) ([]delivery.Consent, error) {
	if err := f.ask("ask/%d", pr); err != nil {
		return nil, err
	}
	return f.simForge.Ask(ctx, pr, question)
}

func (f *picky) Permission(ctx context.Context, user string) (delivery.Permission, error) {
	if err := f.ask("permission/%s", user); err != nil {
		return "", err
	}
	return f.simForge.Permission(ctx, user)
}

func (f *picky) Statuses(ctx context.Context, commit string) ([]delivery.Status, error) {
	if err := f.ask("statuses/%s", commit); err != nil {
		return nil, err
	}
	return f.simForge.Statuses(ctx, commit)
}

func (f *picky) CommentBody(ctx context.Context, pr int, marker string) (string, bool, error) {
	if err := f.ask("comment/%d", pr); err != nil {
		return "", false, err
	}
	return f.simForge.CommentBody(ctx, pr, marker)
}

func (f *picky) Owner(ctx context.Context, name string) (string, error) {
	if err := f.ask("owner/%s", name); err != nil {
		return "", err
	}
	return f.simForge.Owner(ctx, name)
}

func (f *picky) Ended(ctx context.Context, pr delivery.PullRequest) (delivery.PullRequest, bool, error) {
	if err := f.ask("pull/%d", pr.Number); err != nil {
		return pr, false, err
	}
	return f.simForge.Ended(ctx, pr)
}

func (f *picky) Check(ctx context.Context) (delivery.Setup, error) {
	if err := f.ask("settings"); err != nil {
		return delivery.Setup{}, err
	}
	return f.simForge.Check(ctx)
}

// refuse makes the forge answer some questions with an error.
func (s *sim) refuse(fails func(question string) error) *picky {
	f := &picky{s.forge, fails, map[string]int{}}
	s.loop.useForge(f)
	return f
}

// anyOf refuses the questions that begin with one of some words.
func anyOf(err error, begin ...string) func(string) error {
	return func(question string) error {
		if slices.ContainsFunc(begin, func(b string) bool { return strings.HasPrefix(question, b) }) {
			return err
		}
		return nil
	}
}

// strangers opens pull requests of strangers, each with another model, and returns what lets each of them run.
func (s *sim) strangers(branches ...string) (commands []string) {
	s.forge.permission["stranger"] = delivery.PermissionRead
	main := s.main()
	for i, b := range branches {
		s.repo.commit(b, main, s.now, map[string]string{"models/shapes.yaml": model("shapes", 8+i)})
		s.quality[8+i] = 0.6
		s.forge.open(b, "stranger")
	}
	s.settle()
	for _, b := range branches {
		_, code, ok := strings.Cut(s.check(s.head(b), delivery.ContextRelease).Description, "/aob run ")
		if !ok {
			s.fail("%s waits for nobody: %+v", b, s.check(s.head(b), delivery.ContextRelease))
		}
		commands = append(commands, "/aob run "+code)
	}
	return commands
}

// commented changes a comment of a model's file.
func commented(text string) map[string]string {
	return map[string]string{"models/shapes.yaml": "# " + text + "\n" + model("shapes", 1)}
}

// answers opens a pull request that changes no model, and says how many turns its first answer took. A webhook comes
// before each turn.
func (s *sim) answers(branch, author string) (turns int) {
	s.repo.commit(branch, s.main(), s.now, commented(branch))
	s.forge.open(branch, author)
	for turns = 1; turns <= 100; turns++ {
		s.wake()
		s.turn()
		if s.check(s.head(branch), delivery.ContextRelease).State == delivery.CheckSuccess {
			break
		}
	}
	return turns
}

// A question that the forge does not answer delays no other: a new pull request has its answer at once.
func TestUnansweredQuestionDelaysNoOther(t *testing.T) {
	silent := errors.New("no answer within 10s: context deadline exceeded")
	later := delivery.Wait{For: 10 * time.Minute,
		What: "aob has asked 20 questions on pull request 1, and asks the next one later"}
	for name, fails := range map[string]func(string) error{
		"a question that somebody edits": anyOf(later, "ask/1"),
		"a question that is not asked any more": anyOf(delivery.Blockedf("find out who", "it was removed 5 times"),
			"ask/1"),
		"what the author of another one may do":    anyOf(silent, "permission/stranger"),
		"the author, where the forge asks for 10m": anyOf(later, "permission/stranger"),
		"what a commenter may do":                  anyOf(silent, "permission/maintainer"),
		"comments":                                 anyOf(silent, "comments/"),
		"comments, where the forge asks for 10m":   anyOf(later, "comments/"),
		"statuses":                                 anyOf(silent, "statuses/"),
		"AOB's own comment":                        anyOf(silent, "comment/"),
		"an owner":                                 anyOf(silent, "owner/"),
		"the settings":                             anyOf(later, "settings"),
		"what became of closed ones":               anyOf(later, "pull/"),
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.forge.unvouched = true
			commands := s.strangers("a", "b", "c", "d")
			closed := s.forge.open("closed", "dev")
			s.repo.commit("closed", s.main(), s.now, commented("closed"))
			s.settle()
			s.forge.prs[closed].closed = true
			for i, command := range commands {
				s.forge.comment(i+1, "maintainer", command)
			}
			s.refuse(fails)
			s.now = s.now.Add(poll.SetupLasts)
			for range 20 {
				s.wake()
				s.turn()
			}
			for i := range 5 {
				if n := s.answers(fmt.Sprint("words", i), "dev"); n > 3 {
					t.Errorf("the answer to a new pull request took %d turns of a second", n)
				}
			}
			if !strings.Contains(s.notes(), poll.AskTrouble) {
				t.Errorf("the status does not say what the forge does not answer: %s", s.notes())
			}
			s.refuse(anyOf(nil))
			s.now = s.now.Add(11 * time.Minute)
			s.settle()
			if notes := s.notes(); notes != "" {
				t.Errorf("afterwards the status says %s", notes)
			}
		})
	}
}

// The comments of three pull requests cannot be read. A command on the fourth is seen, and one on the second as soon as
// its comments can be read.
func TestCommandsAreSeenWhileOtherCommentsCannotBeRead(t *testing.T) {
	s, _ := begun(t)
	commands := s.strangers("a", "b", "c", "d")
	f := s.refuse(anyOf(errors.New("no answer within 10s"), "comments/1", "comments/2", "comments/3"))
	for range 300 { // until the pauses are long
		s.wake()
		s.turn()
	}
	for i, command := range commands {
		s.forge.comment(i+1, "maintainer", command)
	}
	for range 3 {
		s.wake()
		s.turn()
	}
	if runs := len(s.runs.states); runs != 1 {
		t.Errorf("%d runs after the command on #4, want 1", runs)
	}
	for n := 1; n <= 3; n++ {
		if tried := f.tried[fmt.Sprint("comments/", n)]; tried < 5 || tried > 20 {
			t.Errorf("the comments of #%d were tried %d times in five minutes, want a pause that grows to a minute", n,
				tried)
		}
	}
	f.fails = anyOf(errors.New("no answer within 10s"), "comments/1", "comments/3")
	s.settle()
	s.want("b", delivery.CheckSuccess)
	s.want("c", delivery.CheckPending, "/aob run ")
}

// Of the owners of gates one cannot be asked about: the others are known all the same. So is the end of a merged pull
// request beside closed ones that cannot be asked about.
func TestFailedQuestionDoesNotStopOthers(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("main", main, s.now, map[string]string{"gates/strict.yaml": strings.Replace(gateFile("strict",
		"shapes", 0.2), "[lead]", "[aaa, bbb, ccc, nobody-at-all]", 1)})
	s.forge.nobodies = []string{"nobody-at-all"}
	for _, b := range []string{"a", "b", "c"} {
		s.repo.commit(b, s.main(), s.now, commented(b))
		s.forge.open(b, "dev")
	}
	s.propose("first", 8)
	s.settle()
	s.refuse(anyOf(errors.New("no answer"), "owner/aaa", "owner/bbb", "owner/ccc", "pull/1", "pull/2", "pull/3"))
	s.now = s.now.Add(poll.SetupLasts)
	for n := 1; n <= 3; n++ {
		s.forge.prs[n].closed = true
	}
	s.turn()
	s.merge("first")
	s.settle()
	if said := s.forge.comments[4]; !strings.Contains(said, "merged") {
		t.Errorf("the comment of the merged pull request says:\n%s", said)
	}
	if c := s.check(s.main(), delivery.ContextIntent); !strings.Contains(c.Description, "nobody-at-all") {
		t.Errorf("main's aob/intent does not name the owner who is nobody: %+v", c)
	}
}

// mute is a forge that never says what some author may do, and tells when an answer is on a commit.
type mute struct {
	*simForge
	author string
	mu     sync.Mutex
	gaveUp bool
	said   chan bool // whether the author had been given up by then
}

func (f *mute) Permission(ctx context.Context, user string) (delivery.Permission, error) {
	if user != f.author {
		return delivery.PermissionWrite, nil
	}
	_, err := hang[int](ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gaveUp = true
	return "", err
}

func (f *mute) SetStatus(_ context.Context, _ string, c delivery.Check) error {
	if c.State == delivery.CheckSuccess {
		f.mu.Lock()
		defer f.mu.Unlock()
		select {
		case f.said <- f.gaveUp:
		default:
		}
	}
	return nil
}

// The loop as it runs in the server: while the forge is silent about one author, another one's pull request is
// answered.
func TestPullRequestIsAnsweredWhileTheForgeIsSilentAboutAnother(t *testing.T) {
	s, main := begun(t)
	for _, b := range []string{"theirs", "words"} {
		s.repo.commit(b, main, s.now, commented(b))
	}
	s.forge.open("theirs", "ghost")
	s.forge.open("words", "dev")
	s.restart()
	f := &mute{simForge: s.forge, author: "ghost", said: make(chan bool, 1)}
	s.loop.useForge(f)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.loop.Run(ctx) }()
	gaveUp := <-f.said
	cancel()
	<-ended
	if gaveUp {
		t.Error("a pull request was answered only after the forge had been given up about another author")
	}
}

// A gate that main removes or renames is asked for no more: its status on the head of a pull request says so. One that
// main still has keeps its word.
func TestStatusOfARemovedGateIsSettled(t *testing.T) {
	for name, now := range map[string]map[string]string{
		"removed": {"gates/strict.yaml": ""},
		"renamed": {"gates/strict.yaml": "", "gates/tight.yaml": gateFile("tight", "shapes", 0.65)},
		"for another model now": {"gates/strict.yaml": gateFile("strict", "other", 0.65),
			"models/other.yaml": model("other", 1)},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				s, main := begun(t)
				s.propose("first", 2)
				s.settle()
				main = s.repo.commit("main", main, s.now, map[string]string{"gates/strict.yaml": gateFile("strict",
					"shapes", 0.65)})
				s.settle()
				strict := delivery.ContextGate + "strict"
				if c := s.check(s.head("first"), strict); c.State != delivery.CheckFailure {
					t.Fatalf("%s is %+v", strict, c)
				}
				if restart {
					s.restart()
				}
				s.repo.commit("main", main, s.now, now)
				s.settle()
				if c := s.check(s.head("first"), strict); c.State != delivery.CheckSuccess ||
					c.Description != "no longer asked for" {
					t.Errorf("%s is %+v", strict, c)
				}
				if c := s.check(s.head("first"), delivery.ContextGate+
					"production"); c.Description == "no longer asked for" {
					t.Errorf("the gate that is still there is %+v", c)
				}
				s.quiet()
			})
		}
	}
}

// While main cannot be judged, the failure of a gate stands.
func TestStatusOfAGateIsKeptWhileNothingIsKnown(t *testing.T) {
	s, main := begun(t)
	s.propose("first", 2)
	s.settle()
	main = s.repo.commit("main", main, s.now, map[string]string{"gates/strict.yaml": gateFile("strict", "shapes",
		0.65)})
	s.settle()
	s.repo.commit("main", main, s.now, map[string]string{"gates/strict.yaml": "kind: Gate\nnonsense: 1\n"})
	s.settle()
	if c := s.check(s.head("first"), delivery.ContextGate+"strict"); c.State != delivery.CheckFailure {
		t.Errorf("the status of a gate whose file cannot be read is %+v", c)
	}
}

// A fleet's gate that could not judge again has failed as before.
func TestStatusOfAFleetsGateIsKept(t *testing.T) {
	s := barred(t)
	s.releasedOther(2)
	s.proposes("swap", demoRuns("other", ""))
	context := delivery.ContextGate + "production.fleet-demo"
	s.want("swap", delivery.CheckFailure)
	if c := s.check(s.head("swap"), context); c.State != delivery.CheckFailure {
		t.Fatalf("%s is %+v", context, c)
	}
	pr := s.forge.list()[len(s.forge.list())-1]
	checks := []delivery.Check{{Context: delivery.ContextIntent, State: delivery.CheckSuccess},
		{Context: delivery.ContextRelease, State: delivery.CheckPending}}
	if err := s.loop.board.Retire(t.Context(), pr.Head, checks, s.loop.gatesOf(nil, checks)); err != nil {
		t.Fatal(err)
	}
	before := s.check(pr.Head, context)
	s.loop.board.Drain(t.Context())
	if now := s.check(pr.Head, context); now != before {
		t.Errorf("AOB posts %+v, and main has the gate", now)
	}
}

// refusing is a forge that takes nothing on one commit and one pull request.
type refusing struct {
	*simForge
	commit string
	pr     int
}

func (f refusing) SetStatus(ctx context.Context, commit string, c delivery.Check) error {
	if commit == f.commit {
		return delivery.Blockedf("check owner and name", "the forge knows no such thing (404)")
	}
	return f.simForge.SetStatus(ctx, commit, c)
}

func (f refusing) Comment(ctx context.Context, pr int, marker, body string) error {
	if pr == f.pr {
		return errors.New("no answer")
	}
	return f.simForge.Comment(ctx, pr, marker, body)
}

// What cannot be said about a pull request is shown while it is open, and no longer.
func TestTroubleOfAClosedPullRequestEnds(t *testing.T) {
	s, main := begun(t)
	at := s.repo.commit("words", main, s.now, commented("x"))
	n := s.forge.open("words", "dev")
	s.loop.useForge(refusing{s.forge, at, n})
	for range 30 {
		s.turn()
	}
	if !strings.Contains(s.notes(), post.Trouble) || !strings.Contains(s.notes(), "statuses and comments wait") {
		t.Errorf("while it is open the status says %q", s.notes())
	}
	s.forge.prs[n].closed = true
	for range 150 {
		s.turn()
	}
	if s.notes() != "" {
		t.Errorf("after it was closed the status says %s", s.notes())
	}
}

// Somebody's script sets a status each time that AOB has set it. AOB sets it again with growing pauses, and says who it
// is. When the script stops, AOB's word stands.
func TestDisputedStatusIsSetAgainWithPauses(t *testing.T) {
	s, main := begun(t)
	s.repo.commit("words", main, s.now, commented("x"))
	n := s.forge.open("words", "dev")
	s.settle()
	head, said := s.head("words"), s.forge.said
	theirs := delivery.Check{Context: delivery.ContextRelease, State: delivery.CheckFailure, Description: "no"}
	for range 600 {
		s.forge.forge(head, "mallory", theirs)
		s.loop.Refresh(head)
		s.turn()
	}
	if n := s.forge.said - said; n < 5 || n > 20 {
		t.Errorf("in ten minutes AOB has said %d things, want few", n)
	}
	if body := s.forge.comments[n]; !strings.Contains(body, "mallory") || !strings.Contains(body, "again and again") {
		t.Errorf("the comment does not say who sets it:\n%s", body)
	}
	if notes := s.notes(); !strings.Contains(notes, post.DisputeTrouble) || !strings.Contains(notes, "mallory") ||
		!strings.Contains(notes, delivery.ContextRelease) {
		t.Errorf("the status does not say who sets it: %s", notes)
	}
	s.now = s.now.Add(post.MaxDisputePause)
	for range 3 {
		s.turn()
	}
	s.want("words", delivery.CheckSuccess)
	s.now = s.now.Add(post.DisputeEnds)
	s.settle()
	if notes := s.notes(); notes != "" {
		t.Errorf("afterwards the status says %s", notes)
	}
	s.forge.forge(head, "mallory", theirs)
	s.loop.Refresh(head)
	s.turn()
	s.want("words", delivery.CheckSuccess) // a single one is answered at once
}

// While AOB pauses, nobody can merge by a success that AOB did not say.
func TestForgedSuccessIsSetAgainAtOnce(t *testing.T) {
	s, _ := begun(t)
	s.quality[9] = 0.01
	s.propose("bad", 9)
	s.settle()
	s.want("bad", delivery.CheckFailure)
	head := s.head("bad")
	green := delivery.Check{Context: delivery.ContextRelease, State: delivery.CheckSuccess, Description: "fine"}
	for i := range 60 {
		s.forge.forge(head, "mallory", green)
		s.loop.Refresh(head)
		for range 2 { // AOB reads it, and sets it again
			s.turn()
		}
		if c := s.check(head, delivery.ContextRelease); c.State != delivery.CheckFailure {
			t.Fatalf("after %d times aob/release is %s: %s", i+1, c.State, c.Description)
		}
	}
}

// AOB's account is replaced. Identical posts of the former account are not forged; different ones are.
func TestPostsOfAOBsFormerAccountAreNotForged(t *testing.T) {
	s, _ := begun(t)
	s.propose("first", 2)
	s.settle()
	head := s.head("first")
	for _, c := range s.forge.statuses[head] {
		s.forge.forge(head, "aob-old", c)
	}
	delete(s.forge.comments, 1) // it is another account's
	posts := s.forge.posts
	s.restart()
	for range 150 {
		s.turn()
	}
	if body := s.forge.comments[1]; body == "" || strings.Contains(body, "aob-old") {
		t.Errorf("the comment accuses AOB's former account:\n%s", body)
	}
	if s.forge.posts != posts {
		t.Errorf("%d statuses were set again", s.forge.posts-posts)
	}
	s.forge.forge(head, "aob-old", delivery.Check{Context: delivery.ContextRelease, State: delivery.CheckFailure,
		Description: "no"})
	s.loop.Refresh(head)
	s.settle()
	s.want("first", delivery.CheckSuccess)
	if body := s.forge.comments[1]; !strings.Contains(body, delivery.Markdown("aob-old")) {
		t.Errorf("the comment does not name who set a status that AOB did not say:\n%s", body)
	}
}

// slow is a forge that hangs on the comments of some pull requests until the call is given up, and refuses the statuses
// of one commit.
type slow struct {
	*simForge
	hangs   map[int]bool
	refuses string
	tried   []string
}

func (f *slow) Comment(ctx context.Context, pr int, marker, body string) error {
	if f.hangs[pr] {
		f.tried = append(f.tried, fmt.Sprintf("comment on %d", pr))
		f.sim.now = f.sim.now.Add(post.Deadline)
		return context.DeadlineExceeded
	}
	return f.simForge.Comment(ctx, pr, marker, body)
}

func (f *slow) SetStatus(ctx context.Context, commit string, c delivery.Check) error {
	f.tried = append(f.tried, "status of "+commit)
	if commit == f.refuses {
		return errors.New("the forge has an error (500)")
	}
	return f.simForge.SetStatus(ctx, commit, c)
}

// The forge hangs on the comments of many pull requests, and refuses the statuses of another one. When all is due
// again, that status is tried first, though it has failed as often.
func TestStatusIsTriedAgainBeforeWhatHangs(t *testing.T) {
	s, main := begun(t)
	f := &slow{simForge: s.forge, hangs: map[int]bool{}}
	for i := range 20 {
		branch := fmt.Sprint("words", i)
		s.repo.commit(branch, main, s.now, commented(branch))
		f.hangs[s.forge.open(branch, "dev")] = true
	}
	f.refuses = s.repo.commit("last", main, s.now, commented("last"))
	s.forge.open("last", "dev")
	s.loop.useForge(f)
	for range 4 {
		s.turn() // hears what failed, and tries nothing yet
		s.now = s.now.Add(queue.MaxPause)
		f.tried = nil
		s.wake()
		s.turn()
	}
	if len(f.tried) < 20 || f.tried[0] != "status of "+f.refuses {
		t.Errorf("tried %q, want the status first", f.tried)
	}
}

// readsBack lets AOB read back what stands on the forge.
func (s *sim) readsBack() {
	for range 3 {
		s.now = s.now.Add(poll.BodyLasts)
		s.wake()
		s.settle()
	}
}

// Somebody sets statuses of names that AOB does not set on a commit. AOB answers each, so that none blocks a merge or
// passes for AOB's word, and the comment says so.
func TestForgedStatusOfAnyNameIsAnswered(t *testing.T) {
	const none = "AOB asks for no status of this name here"
	names := []string{"aob/evil", "aob/gate/nothere", "aob/gate/nothere.fleet-demo", "aob/rollout/demo",
		"aob/rollout/nothere", "aob/`<b>x", "aob/"}
	for name, tt := range map[string]struct {
		epochs int // of the pull request's model
		state  delivery.CheckState
		also   []string // names of AOB's that it does not ask for here
	}{
		"green, forged failure": {14, delivery.CheckFailure, nil},
		"green, forged success": {14, delivery.CheckSuccess, nil},
		"red, forged success":   {2, delivery.CheckSuccess, nil},
		"no model":              {0, delivery.CheckFailure, []string{"aob/gate/production", "aob/train"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := begun(t)
			s.released("first", 8)
			if tt.epochs > 0 {
				s.propose("second", tt.epochs)
			} else {
				s.proposes("second", s.note("docs"))
			}
			s.settle()
			head, n := s.head("second"), s.forge.open("second", "dev")
			all := append(slices.Clone(names), tt.also...)
			for _, at := range []string{head, s.main()} {
				for _, context := range all {
					if context == "aob/rollout/demo" && at == s.main() {
						continue // AOB sets it there
					}
					s.forge.forge(at, "mal", delivery.Check{Context: context, State: tt.state, Description: "no"})
				}
			}
			s.readsBack()
			for _, at := range []string{head, s.main()} {
				for _, context := range all {
					c := s.check(at, context)
					if c.Description != none && !(context == "aob/rollout/demo" && at == s.main()) ||
						c.State != delivery.CheckSuccess {
						t.Errorf("%s stands as %s: %s", context, c.State, c.Description)
					}
				}
			}
			body := s.forge.comments[n]
			if said := "AOB asks for no such status here now, and set one that says so"; strings.Count(body,
				said) != len(all) || strings.Contains(body, "AOB set it again") {
				t.Errorf("the comment does not say what AOB did:\n%s", body)
			}
			s.quiet()
		})
	}
}

// A status of a gate that somebody sets before AOB has judged does not stand meanwhile. AOB's own word comes later.
func TestForgedStatusBeforeTheVerdictWaits(t *testing.T) {
	s, main := begun(t)
	s.forge.permission["eve"] = delivery.PermissionRead
	s.quality[2] = 0.1
	n := s.fork("theirs", "eve", main, map[string]string{"models/shapes.yaml": model("shapes", 2)})
	s.settle()
	head, gate := s.forge.head(s.forge.prs[n]), "aob/gate/production"
	s.forge.forge(head, "mal", delivery.Check{Context: gate, State: delivery.CheckSuccess, Description: "all is well"})
	s.readsBack()
	if c := s.check(head, gate); c.State != delivery.CheckPending {
		t.Errorf("before the verdict it is %s: %s", c.State, c.Description)
	}
}

// A rollout's status that somebody sets on a commit that moves no fleet becomes the fleet's real one.
func TestForgedRolloutOnMainIsSetRight(t *testing.T) {
	s, _ := begun(t)
	s.released("first", 8)
	s.pushMain(map[string]string{"models/README.md": "words"})
	s.settle()
	context := delivery.ContextRollout + "demo"
	if _, told := s.forge.statuses[s.main()][context]; told {
		t.Fatal("a commit that moves no fleet has its rollout on it")
	}
	s.forge.forge(s.main(), "mal", delivery.Check{Context: context, State: delivery.CheckFailure, Description: "no"})
	s.readsBack()
	if c := s.check(s.main(), context); c.State != delivery.CheckSuccess {
		t.Errorf("it stands as %s: %s", c.State, c.Description)
	}
	s.quiet()
}
