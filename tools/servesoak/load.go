package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"
)

// An answer is one request with its times.
type answer struct {
	began, ended time.Time
	version      string
	err          error // also where the boxes are not those of the picture
}

func (a answer) took() time.Duration { return a.ended.Sub(a.began) }

// Clients send pictures, each the next one when it has the answer, and check the boxes.
type clients struct {
	url      string
	http     *http.Client
	pictures [][]byte
	want     [][]box       // of each picture
	pause    time.Duration // of each client, between an answer and the next picture

	mu      sync.Mutex
	answers []answer
}

// newClients asks for the boxes of each picture once.
func newClients(url string, pictures [][]byte, most int) (*clients, error) {
	c := &clients{url: url, pictures: pictures, http: &http.Client{Timeout: 2 * time.Minute,
		Transport: &http.Transport{MaxIdleConnsPerHost: most}}}
	for i := range pictures {
		_, boxes, err := c.ask(i)
		if err != nil {
			return nil, err
		}
		c.want = append(c.want, boxes)
	}
	return c, nil
}

// A box is a detection of an answer.
type box struct {
	Class                    string
	Confidence               float64
	Left, Top, Width, Height float64
}

// alike compares boxes. Runs on one thread and on several round differently in the last digits.
func alike(a, b []box) bool {
	return slices.EqualFunc(a, b, func(a, b box) bool {
		return a.Class == b.Class && math.Abs(a.Confidence-b.Confidence) < 1e-4 && math.Abs(a.Left-b.Left) < 0.1 &&
			math.Abs(a.Top-b.Top) < 0.1 && math.Abs(a.Width-b.Width) < 0.1 && math.Abs(a.Height-b.Height) < 0.1
	})
}

func (c *clients) ask(i int) (version string, boxes []box, err error) {
	resp, err := c.http.Post(c.url+"/v1/detect?confidence=0.1", "image/jpeg", bytes.NewReader(c.pictures[i]))
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	var found struct {
		Version    string
		Detections []box
	}
	if err == nil {
		err = json.Unmarshal(body, &found)
	}
	return found.Version, found.Detections, err
}

// run sends until ctx is done, and waits for the answers.
func (c *clients) run(ctx context.Context, n int) {
	var all sync.WaitGroup
	for k := range n {
		all.Go(func() {
			for i := k; ctx.Err() == nil; i += n {
				a := answer{began: time.Now()}
				var boxes []box
				a.version, boxes, a.err = c.ask(i % len(c.pictures))
				a.ended = time.Now()
				if a.err == nil && !alike(boxes, c.want[i%len(c.pictures)]) {
					a.err = fmt.Errorf("picture %d has other boxes", i%len(c.pictures))
				}
				c.mu.Lock()
				c.answers = append(c.answers, a)
				c.mu.Unlock()
				if c.pause > 0 {
					select {
					case <-time.After(c.pause):
					case <-ctx.Done():
					}
				}
			}
		})
	}
	all.Wait()
	c.http.CloseIdleConnections()
}

// start is run in the background. The returned function ends it.
func (c *clients) start(n int) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { c.run(ctx, n) })
	return func() {
		cancel()
		all.Wait()
	}
}

// count is how many answers there are.
func (c *clients) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.answers)
}

// take returns the answers until now, and forgets them.
func (c *clients) take() []answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.answers
	c.answers = nil
	return all
}

// wait returns when there are n answers more, or never if the server gives none: the caller's deadline ends that.
func (c *clients) wait(ctx context.Context, n int) error {
	for want := c.count() + n; c.count() < want; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// quantile is of sorted times.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func sortedTimes(list []answer) []time.Duration {
	times := make([]time.Duration, len(list))
	for i, a := range list {
		times[i] = a.took()
	}
	slices.Sort(times)
	return times
}

// failures returns the errors among answers, at most five of them, and their number.
func failures(list []answer) (n int, err error) {
	var first []error
	for _, a := range list {
		if a.err != nil {
			if n++; n <= 5 {
				first = append(first, a.err)
			}
		}
	}
	if n > 0 {
		return n, fmt.Errorf("%d of %d requests failed: %v", n, len(list), first)
	}
	return 0, nil
}
