package post

import (
	"context"
	"fmt"
	"maps"
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

// An API is what is posted to.
type API interface {
	// Address names the forge and the repository on it. What was posted at one address was not posted at another.
	Address() string
	SetStatus(ctx context.Context, commit string, c delivery.Check) error
	Comment(ctx context.Context, pr int, marker, body string) error
}

// A Ledger keeps what was posted.
type Ledger interface {
	Records(ctx context.Context, prefix string) (map[string]ledger.Record, error)
	PutRecord(ctx context.Context, key, content string, at time.Time) error
}

// Metrics counts. See package web for the names.
type Metrics interface {
	ForgeCall(what string, took time.Duration, err error)
}

// Deadline is how long one post may take.
const Deadline = 30 * time.Second

// Trouble is the trouble that something cannot be posted.
const Trouble = "not everything can be said on the forge"

// Forges take about a thousand posts of one status on one commit. The pause between two posts of progress grows by
// this factor, so that a run of ten hours needs some fifty posts. After the most, only answers are posted.
const (
	progressGrowth   = 1.2
	maxProgressPosts = 100
)

// A Board is what AOB posts on a forge. It belongs to the loop's goroutine.
type Board struct {
	API      API
	Ledger   Ledger
	Metrics  Metrics
	Progress time.Duration // the shortest between two posts of mere progress

	turn     *turn.Turn
	posts    *queue.Queue
	retry    queue.Backoff
	records  map[string]ledger.Record // what was posted, by key
	byCommit map[string][]string      // keys of records
	loaded   map[string]bool          // prefixes whose records were read from the ledger
	failing  map[string]error         // what cannot be posted, by key
	disputes map[string]dispute
	classes  map[string]queue.Class // of lanes

	addressOf, short string // see address
}

// New returns a board. wake is sent when a post has ended.
func New(api API, book Ledger, metrics Metrics, progress time.Duration, t *turn.Turn, wake turn.Signal) *Board {
	return &Board{API: api, Ledger: book, Metrics: metrics, Progress: progress, turn: t,
		posts: queue.New(queue.Workers{First: 4, Again: 2, Limit: Deadline}, t.Now, wake),
		retry: queue.Backoff{}, records: map[string]ledger.Record{}, byCommit: map[string][]string{},
		loaded: map[string]bool{}, failing: map[string]error{}, disputes: map[string]dispute{}}
}

// Run sends posts until ctx ends.
func (b *Board) Run(ctx context.Context) { b.posts.Run(ctx) }

// Drain sends what waits to be sent, for those who drive the loop themselves.
func (b *Board) Drain(ctx context.Context) { b.posts.Drain(ctx) }

// Oldest returns how many posts wait, and since when the first of them waits.
func (b *Board) Oldest() (n int, since time.Time) { return b.posts.Oldest() }

// RetryNow has everything that failed posted again at once.
func (b *Board) RetryNow() { clear(b.retry) }

// Status posts a status of a commit, unless it stands there. Progress (pending after pending, or other text of a
// rollout) is posted with growing pauses; an answer is posted at once.
func (b *Board) Status(ctx context.Context, commit string, c delivery.Check) error {
	// forges show it as plain text, and it is compared when it is read back
	c.Description = delivery.Terminal(c.Description)
	key := b.statusKey(commit, c.Context)
	last, err := b.posted(ctx, key)
	if err != nil {
		return err
	}
	// A rollout's description quotes devices, which may say something else each second.
	progress := c.State == delivery.CheckPending || strings.HasPrefix(c.Context, delivery.ContextRollout)
	state, content := string(c.State)+" ", statusContent(c)
	if sending, begun, ok := b.posts.Waiting(key); ok && begun && progress && strings.HasPrefix(sending, state) {
		if sending != content {
			b.turn.In(max(b.Progress, time.Second), "progress is to be posted")
		}
		return nil
	}
	if progress && strings.HasPrefix(last.Content, state) {
		if last.Count >= maxProgressPosts {
			return nil
		}
		pause := time.Duration(float64(b.Progress) * math.Pow(progressGrowth, float64(last.Count-1)))
		if next := last.At.Add(pause); b.turn.Now().Before(next) {
			b.turn.At(next, "progress is to be posted")
			return nil
		}
	}
	return b.post(ctx, key, statusLane(commit), content, func(ctx context.Context) error {
		b.turn.Log.Info("status", "commit", commit, "context", c.Context, "state", string(c.State), "description",
			c.Description)
		return b.API.SetStatus(ctx, commit, c)
	})
}

// statusContent is what is compared of a status.
func statusContent(c delivery.Check) string { return string(c.State) + " " + c.Description }

// Comment posts AOB's comment on a pull request, unless it stands there.
func (b *Board) Comment(ctx context.Context, pr delivery.PullRequest, body string) error {
	return b.post(ctx, b.commentKey(pr), commentLane(pr), body, func(ctx context.Context) error {
		return b.API.Comment(ctx, pr.Number, poll.Marker, body)
	})
}

// post sends content under a key, unless it was posted last. The old record is forgotten before and the new one is
// remembered after: whatever happens in between, the content is sent again, and never taken for sent.
func (b *Board) post(ctx context.Context, key, lane, content string, send func(context.Context) error) error {
	last, err := b.posted(ctx, key)
	if err != nil {
		return err
	}
	if sending, _, ok := b.posts.Waiting(key); ok {
		if sending == content {
			return nil
		}
	} else if sameContent(key, last.Content, content) {
		return nil
	}
	if b.retry.Due(key, b.turn.Now()) != nil {
		return nil // it is tried again later, and the status says why
	}
	if d := b.disputes[key]; b.turn.Now().Before(d.next) &&
		!(d.green && !strings.HasPrefix(content, string(delivery.CheckSuccess))) {
		b.turn.At(d.next, "a disputed status is set again")
		return nil
	}
	var forgotten error // a ledger that cannot be written keeps nothing from being posted
	if last.Content != "" {
		last.Content = ""
		b.remember(key, last)
		forgotten = b.Ledger.PutRecord(ctx, key, "", last.At)
	}
	failed, again := b.retry[key]
	b.posts.Put(queue.Job{Key: key, Lane: lane, Content: content, Again: again, Took: failed.Took,
		Class: b.classes[lane], Do: func(ctx context.Context) error {
			start := b.turn.Now()
			err := send(ctx)
			b.Metrics.ForgeCall("say", b.turn.Now().Sub(start), err)
			return err
		}})
	return forgotten
}

// Hear takes the results of posts.
func (b *Board) Hear(ctx context.Context) {
	results := b.posts.Results()
	for _, res := range results {
		b.sent(ctx, res)
	}
	if len(results) > 0 {
		b.noteFailing()
	}
}

// sent remembers how a post ended.
func (b *Board) sent(ctx context.Context, res queue.Result) {
	now, key, content := b.turn.Now(), res.Key, res.Content
	if b.retry.Note(key, now, res.Took, res.Err); res.Err != nil {
		b.failing[key] = res.Err
		b.turn.Soon("a post has failed")
		return
	}
	delete(b.failing, key)
	count := b.records[key].Count + 1
	b.remember(key, ledger.Record{Content: content, At: now, Count: count})
	if _, _, more := b.posts.Waiting(key); more { // other content is on its way
		b.remember(key, ledger.Record{At: now, Count: count})
		content = ""
	}
	b.turn.Note(turn.LedgerWrites, b.Ledger.PutRecord(ctx, key, content, now))
}

func (b *Board) noteFailing() { b.turn.Note(Trouble, turn.First(b.failing, "statuses and comments")) }

// Settle drops failures that nobody tries again, such as the status of a pull request that is closed by now, and asks
// for a turn when the next one is tried. since is when the turn began.
func (b *Board) Settle(since time.Time) {
	b.retry.Forget(since, b.posts.Has)
	b.turn.At(b.retry.Earliest(b.posts.Has), "a post that failed is tried again")
	before := len(b.failing)
	maps.DeleteFunc(b.failing, func(key string, _ error) bool {
		_, again := b.retry[key]
		return !again && !b.posts.Has(key)
	})
	if len(b.failing) < before {
		b.noteFailing()
	}
}

// remember keeps a record.
func (b *Board) remember(key string, r ledger.Record) {
	if _, known := b.records[key]; !known {
		// All of a commit's contexts are found again by what stands before "aob/".
		if i := strings.Index(key, "/"+contextPrefix); i >= 0 {
			b.byCommit[key[:i+1]] = append(b.byCommit[key[:i+1]], key)
		}
	}
	b.records[key] = r
}

// posted returns the record of a key.
func (b *Board) posted(ctx context.Context, key string) (ledger.Record, error) {
	if r, ok := b.records[key]; ok {
		return r, nil
	}
	prefix := key[:strings.LastIndexByte(key, '/')+1]
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

// HasStatus reports whether a status stands on a commit, and no other one is on its way.
func (b *Board) HasStatus(ctx context.Context, commit string, c delivery.Check) bool {
	return b.has(ctx, b.statusKey(commit, c.Context), statusContent(c))
}

// HasComment reports whether a comment stands on a pull request, and no other one is on its way.
func (b *Board) HasComment(ctx context.Context, pr delivery.PullRequest, body string) bool {
	return b.has(ctx, b.commentKey(pr), body)
}

func (b *Board) has(ctx context.Context, key, content string) bool {
	last, err := b.posted(ctx, key)
	_, _, waits := b.posts.Waiting(key)
	return err == nil && !waits && sameContent(key, last.Content, content)
}

// Answered reports whether aob/release and the comment were posted for the head of a pull request.
func (b *Board) Answered(ctx context.Context, pr delivery.PullRequest) (bool, error) {
	last, err := b.posted(ctx, b.statusKey(pr.Head, delivery.ContextRelease))
	if err == nil && last.Content != "" { // on main's own commit it may be the status of main
		last, err = b.posted(ctx, b.commentKey(pr))
	}
	return last.Content != "", err
}

// Rank says which posts come first: the statuses of main's commit before all, and all about pull requests that change
// no model after the others, because thousands of them must keep no promotion waiting. speaks says whose checks stand
// on a commit.
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

// commentLane and statusLane are the lanes of posts: what is posted about one thing is posted in order.
func commentLane(pr delivery.PullRequest) string { return fmt.Sprintf("comment/%d", pr.Number) }
func statusLane(commit string) string            { return "status/" + commit }
