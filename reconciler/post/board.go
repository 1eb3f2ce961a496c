package post

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/plan"
	"github.com/autonomos/aob/reconciler/poll"
	"github.com/autonomos/aob/reconciler/queue"
	"github.com/autonomos/aob/reconciler/turn"
)

// An API is the part of the forge that takes posts.
type API interface {
	// Address identifies the forge and the repository on it. Each address has posts of its own.
	Address() string
	SetStatus(ctx context.Context, commit string, c delivery.Check) error
	Comment(ctx context.Context, pr int, marker, body string) error
}

// Deployments is the part of the forge that shows where releases run.
type Deployments interface {
	// Deploy shows a deployment as it is now. Doing so again changes nothing.
	Deploy(ctx context.Context, d delivery.Deployment) error
}

// Metrics counts calls. See package web for the names.
type Metrics interface {
	ForgeCall(what string, took time.Duration, err error)
}

// Deadline is how long one post may take.
const Deadline = 30 * time.Second

// Trouble is the name of the trouble that something cannot be posted.
const Trouble = "not everything can be posted on the forge"

// Forges accept about a thousand posts of one status on one commit. With growing pauses, a run of ten hours needs some
// fifty posts.
const (
	progressGrowth   = 1.2 // of the pause between two posts of progress
	maxProgressPosts = 100 // then only results are posted
)

// A Board posts statuses and comments. Only the loop's goroutine may use it.
type Board struct {
	API      API
	Ledger   ledger.RecordStore
	Metrics  Metrics
	Progress time.Duration // the shortest pause between two posts of progress
	// Deployments is nil for none. URL is the page that they link to; empty for none.
	Deployments Deployments
	URL         string
	// Spare returns when progress may be posted without using up what verdicts need: now, or later. So many posts wait
	// to be sent before it. nil: always.
	Spare func(now time.Time, waiting int) time.Time

	turn     *turn.Turn
	posts    *queue.Queue
	retry    queue.Backoff
	records  map[string]ledger.Record // what was posted, by key
	byCommit map[string][]string      // keys of records
	loaded   map[string]bool          // prefixes whose records were read from the ledger
	disputes map[string]dispute
	classes  map[string]queue.Class // of lanes

	addressOf, short string // see address
}

// New returns a board. wake is sent when a post has ended.
func New(api API, book ledger.RecordStore, metrics Metrics, progress time.Duration, t *turn.Turn,
	wake turn.Signal) *Board {
	return &Board{API: api, Ledger: book, Metrics: metrics, Progress: progress, turn: t,
		posts: queue.New(queue.Workers{First: 4, Again: 2, Limit: Deadline}, t.Now, wake),
		retry: queue.Backoff{}, records: map[string]ledger.Record{}, byCommit: map[string][]string{},
		loaded: map[string]bool{}, disputes: map[string]dispute{}}
}

// Run sends posts until ctx ends.
func (b *Board) Run(ctx context.Context) { b.posts.Run(ctx) }

// Drain sends all posts in the queue. Tests use it instead of Run.
func (b *Board) Drain(ctx context.Context) { b.posts.Drain(ctx) }

// Oldest returns how many posts wait, and when the oldest of them was added.
func (b *Board) Oldest() (n int, since time.Time) { return b.posts.Oldest() }

// RetryNow tries all failed posts again at once.
func (b *Board) RetryNow() { b.retry.RetryNow() }

// Status posts a status of a commit, unless it was posted already. Progress (pending after pending, or other text of a
// rollout) is posted with growing pauses; a result is posted at once.
func (b *Board) Status(ctx context.Context, commit string, c delivery.Check) error {
	// Forges show the description as plain text, and it is compared when it is read back.
	c.Description = delivery.Terminal(c.Description)
	key := b.statusKey(commit, c.Context)
	last, err := b.posted(ctx, key)
	if err != nil {
		return err
	}
	// A rollout's description quotes devices, whose reports may change each second.
	progress := c.State == delivery.CheckPending || strings.HasPrefix(c.Context, delivery.ContextRollout)
	state, content := string(c.State)+" ", statusContent(c)
	if progress && b.isEarly(key, state, content, last) {
		return nil
	}
	return b.post(ctx, key, statusLane(commit), content, func(ctx context.Context) error {
		b.turn.Log.Info("status", "commit", commit, "context", c.Context, "state", string(c.State), "description",
			c.Description)
		return b.API.SetStatus(ctx, commit, c)
	})
}

// isEarly reports whether progress must not be posted yet. state begins the content as long as nothing but progress
// changes.
func (b *Board) isEarly(key, state, content string, last ledger.Record) bool {
	if sending, begun, ok := b.posts.Waiting(key); ok && begun && strings.HasPrefix(sending, state) {
		if sending != content {
			b.turn.In(max(b.Progress, time.Second), "progress is to be posted")
		}
		return true
	}
	if !strings.HasPrefix(last.Content, state) {
		return false
	}
	if last.Count >= maxProgressPosts {
		return true
	}
	pause := time.Duration(float64(b.Progress) * math.Pow(progressGrowth, float64(last.Count-1)))
	next := last.At.Add(pause)
	if b.Spare != nil {
		waiting, _ := b.posts.Oldest()
		if spare := b.Spare(b.turn.Now(), waiting); spare.After(next) {
			next = spare
		}
	}
	early := b.turn.Now().Before(next)
	if early {
		b.turn.At(next, "progress is to be posted")
	}
	return early
}

// statusContent returns the content of a status that is stored and compared.
func statusContent(c delivery.Check) string {
	content := string(c.State) + " " + c.Description
	if c.Details != nil {
		content += detailsMark + string(c.Details.Digest())
	}
	return content
}

// detailsMark precedes the digest of a status's details in its content. A description has no line breaks.
const detailsMark = "\n"

// Comment posts AOB's comment on a pull request, unless it was posted already.
func (b *Board) Comment(ctx context.Context, pr delivery.PullRequest, body string) error {
	return b.post(ctx, b.commentKey(pr), commentLane(pr), body, func(ctx context.Context) error {
		return b.API.Comment(ctx, pr.Number, poll.Marker, body)
	})
}

// post sends content, unless the last post of the key had the same. The stored content is cleared before, and the new
// one is stored afterwards, so that after a crash in between the content is sent again.
func (b *Board) post(ctx context.Context, key, lane, content string, send func(context.Context) error) error {
	last, err := b.posted(ctx, key)
	if err != nil {
		return err
	}
	if sending, _, ok := b.posts.Waiting(key); ok {
		if sending == content {
			return nil
		}
	} else if sameContent(key, last.Content, content) || b.posts.Has(key) { // the next turn hears the result
		return nil
	}
	if b.retry.Due(key, b.turn.Now()) != nil {
		return nil // it is tried again later, and the trouble shows the error
	}
	if d := b.disputes[key]; b.turn.Now().Before(d.next) &&
		!(d.green && !strings.HasPrefix(content, string(delivery.CheckSuccess))) {
		b.turn.At(d.next, "a disputed status is set again")
		return nil
	}
	if last.Content != "" {
		last.Content = ""
		b.remember(key, last)
		err = b.Ledger.PutRecord(ctx, key, "", last.At) // it is posted nevertheless
	}
	failed, again := b.retry[key]
	b.posts.Put(queue.Job{Key: key, Lane: lane, Content: content, Again: again, Took: failed.Took,
		Class: b.classes[lane], Do: func(ctx context.Context) error {
			start := b.turn.Now()
			err := send(ctx)
			b.Metrics.ForgeCall("say", b.turn.Now().Sub(start), err)
			return err
		}})
	return err
}

// Hear handles the results of posts.
func (b *Board) Hear(ctx context.Context) {
	results := b.posts.Results()
	for _, res := range results {
		b.sent(ctx, res)
	}
	if len(results) > 0 {
		b.noteFailing()
	}
}

// sent stores the result of a post.
func (b *Board) sent(ctx context.Context, res queue.Result) {
	now, key, content := b.turn.Now(), res.Key, res.Content
	if b.retry.Note(key, now, res.Took, res.Err); res.Err != nil {
		b.turn.Soon("a post has failed")
		return
	}
	count := b.records[key].Count + 1
	b.remember(key, ledger.Record{Content: content, At: now, Count: count})
	if _, _, more := b.posts.Waiting(key); more { // other content is in the queue
		b.remember(key, ledger.Record{At: now, Count: count})
		content = ""
	}
	b.turn.Note(turn.LedgerWrites, b.Ledger.PutRecord(ctx, key, content, now))
}

func (b *Board) noteFailing() {
	b.turn.Note(Trouble, turn.First(b.retry.Errors(), "statuses and comments"))
}

// Settle drops failed posts that are not needed any more, such as the status of a closed pull request, and asks for a
// turn when the next failed one is due. since is when the turn began.
func (b *Board) Settle(since time.Time) {
	before := len(b.retry)
	b.retry.Forget(since, b.posts.Has)
	b.turn.At(b.retry.Earliest(b.posts.Has), "a post that failed is tried again")
	if len(b.retry) < before {
		b.noteFailing()
	}
}

// remember caches a record.
func (b *Board) remember(key string, r ledger.Record) {
	if _, known := b.records[key]; !known {
		if of, ok := ofCommit(key); ok {
			b.byCommit[of] = append(b.byCommit[of], key)
		}
	}
	b.records[key] = r
}

// posted returns the record of a key.
func (b *Board) posted(ctx context.Context, key string) (ledger.Record, error) {
	if r, ok := b.records[key]; ok {
		return r, nil
	}
	prefix := prefixOf(key)
	if !b.loaded[prefix] {
		list, err := b.Ledger.Records(ctx, prefix)
		if err != nil {
			return ledger.Record{}, err
		}
		for k, r := range list {
			if _, ok := b.records[k]; !ok {
				b.remember(k, r)
			}
		}
		b.loaded[prefix] = true
	}
	return b.records[key], nil
}

// HasStatus reports whether a status was posted last, and no other one is in the queue.
func (b *Board) HasStatus(ctx context.Context, commit string, c delivery.Check) bool {
	return b.has(ctx, b.statusKey(commit, c.Context), statusContent(c))
}

// HasComment reports whether a comment was posted last, and no other one is in the queue.
func (b *Board) HasComment(ctx context.Context, pr delivery.PullRequest, body string) bool {
	return b.has(ctx, b.commentKey(pr), body)
}

func (b *Board) has(ctx context.Context, key, content string) bool {
	last, err := b.posted(ctx, key)
	_, _, waits := b.posts.Waiting(key)
	return err == nil && !waits && sameContent(key, last.Content, content)
}

// Answered reports whether aob/release and the comment were posted for the head of a pull request. A pending status is
// no answer: it may say that the pull request could not be read.
func (b *Board) Answered(ctx context.Context, pr delivery.PullRequest) (bool, error) {
	last, err := b.posted(ctx, b.statusKey(pr.Head, delivery.ContextRelease))
	if pending := string(delivery.CheckPending) + " "; err != nil || strings.HasPrefix(last.Content, pending) {
		return false, err
	}
	if last.Content != "" { // on main's commit it may be main's status
		last, err = b.posted(ctx, b.commentKey(pr))
	}
	return last.Content != "", err
}

// Rank sets the order of posts: the statuses of main's commit come first, and posts about pull requests that change no
// model come last, so that promotions do not wait for thousands of them. speaks contains the pull request whose checks
// are shown on a commit.
func (b *Board) Rank(p plan.Plan, speaks map[string]int) {
	b.classes = map[string]queue.Class{statusLane(p.Main.Commit): queue.Urgent}
	for _, pr := range p.Proposals {
		if len(pr.Models) > 0 {
			continue
		}
		b.classes[commentLane(pr.PR)] = queue.Later
		if speaks[pr.PR.Head] == pr.PR.Number {
			b.classes[statusLane(pr.PR.Head)] = queue.Later
		}
	}
}

// Posts about one pull request or commit are sent in order.
func commentLane(pr delivery.PullRequest) string { return fmt.Sprintf("comment/%d", pr.Number) }
func statusLane(commit string) string            { return "status/" + commit }
