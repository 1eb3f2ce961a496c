package forge

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

const (
	// maxAsks is how often one question is asked while a server runs.
	maxAsks = 5
	// maxQuestions is how many questions a pull request gets without a pause, and questionPause is the pause between
	// further ones. So nobody who writes commands into other people's comments can fill a pull request with questions,
	// or prevent an owner's question for good.
	maxQuestions  = 20
	questionPause = 10 * time.Minute
)

// questions counts what a forge has asked people in comments. Its methods may be called from any goroutine.
type questions struct {
	mu   sync.Mutex
	asks map[string]asks // by pull request, and by pull request and question
}

// may counts the questions of a pull request, and how often each was asked. It returns an error if the question must
// not be asked now. The pause before the same question is asked again grows.
func (q *questions) may(pr int, question string, now time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	of := strconv.Itoa(pr)
	question = of + " " + question
	a, all := q.asks[question], q.asks[of]
	if all.count >= maxQuestions && now.Before(all.next) {
		return delivery.Wait{For: all.next.Sub(now),
			What: fmt.Sprintf("aob has asked %d questions on pull request %d, and asks the next one later", all.count,
				pr)}
	}
	if a.count >= maxAsks {
		return delivery.Blockedf("find out who edits or deletes aob's comments there",
			"a question of aob's was changed or removed %d times, and is not asked again", a.count)
	}
	if now.Before(a.next) {
		return delivery.Wait{For: a.next.Sub(now),
			What: "a question of aob's was changed or removed, and is asked again later"}
	}
	if q.asks == nil || len(q.asks) > 10_000 {
		q.asks = map[string]asks{}
	}
	a.next = now.Add(time.Second << (3 * a.count)) // 1 s, 8 s, about a minute, and so on
	a.count++
	all.count, all.next = all.count+1, now.Add(questionPause)
	q.asks[question], q.asks[of] = a, all
	return nil
}

// asks counts how often a question was asked. next is when it may be asked again.
type asks struct {
	count int
	next  time.Time
}
