package post

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/ledger"
	"github.com/autonomos/aob/reconciler/turn"
	"github.com/autonomos/aob/tools/hostile"
)

// A fakeForge takes posts when its test lets it.
type fakeForge struct{ begun, end chan struct{} }

func (f fakeForge) Address() string { return "here" }
func (f fakeForge) SetStatus(context.Context, string, delivery.Check) error {
	close(f.begun)
	<-f.end
	return nil
}
func (f fakeForge) Comment(context.Context, int, string, string) error { return nil }

// An emptyLedger has kept nothing.
type emptyLedger struct{}

func (emptyLedger) Records(context.Context, string) (map[string]ledger.Record, error) {
	return nil, nil
}
func (emptyLedger) PutRecord(context.Context, string, string, time.Time) error { return nil }
func (emptyLedger) ForgeCall(string, time.Duration, error)                     {}

func newBoard(api API) (*Board, *turn.Turn) {
	now := func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
	t := turn.New(now, slog.New(slog.DiscardHandler))
	return New(api, emptyLedger{}, emptyLedger{}, 5*time.Second, t, turn.NewSignal()), t
}

// Progress that comes while other progress is being sent is posted afterwards, also where nothing else happens.
func TestProgressBehindProgressIsPosted(t *testing.T) {
	api := fakeForge{make(chan struct{}), make(chan struct{})}
	b, next := newBoard(api)
	post := func(text string) {
		if err := b.Status(t.Context(), "c0ffee", delivery.Check{Context: delivery.ContextTrain,
			State: delivery.CheckPending, Description: text}); err != nil {
			t.Fatal(err)
		}
	}
	post("waits")
	go b.Drain(context.Background())
	<-api.begun
	defer close(api.end)
	for text, asks := range map[string]bool{"waits": false, "waits for a go": true} {
		next.Begin()
		post(text)
		if asked := !next.Due().IsZero(); asked != asks {
			t.Errorf("%q: a turn is asked for: %v, want %v", text, asked, asks)
		}
	}
}

// A post that has ended and whose result was not heard yet is not sent again.
func TestPostsAreNotSentTwice(t *testing.T) {
	posts := 0
	b, _ := newBoard(countingForge{&posts})
	post := func() {
		t.Helper()
		if err := b.Status(t.Context(), "c0ffee", delivery.Check{Context: delivery.ContextIntent,
			State: delivery.CheckSuccess, Description: "1 model"}); err != nil {
			t.Fatal(err)
		}
		b.Drain(t.Context())
	}
	post()
	post() // before Hear
	b.Hear(t.Context())
	post()
	if posts != 1 {
		t.Errorf("one status was sent %d times", posts)
	}
}

// The name of whoever forged a status changes words in the note, and nothing else.
func TestOutsideTextIsTextInForgedNotes(t *testing.T) {
	write := func(text string) string {
		b, _ := newBoard(fakeForge{})
		b.remember(b.forgedKey("c0ffee", delivery.ContextRelease), ledger.Record{Content: text, Count: 1})
		note, err := b.ForgedNote(t.Context(), "c0ffee", nil)
		if err != nil || note == "" {
			t.Errorf("no note: %v", err)
		}
		return note
	}
	harmless := write(hostile.Harmless)
	for _, text := range hostile.Lots(10) {
		got := write(text)
		if err := hostile.Markdown(harmless, got); err != nil {
			t.Errorf("%.40q: %v", text, err)
		}
		if delivery.CommandLine(got) != "" {
			t.Errorf("%.40q: it is an order: %s", text, got)
		}
	}
}
