package serve

import (
	"bytes"
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/autonomos/aob/reconciler/detect"
)

// ShadowOptions are the settings of a Shadow.
type ShadowOptions struct {
	Main   Models  // whose answers callers get
	Second Models  // that sees a share of the same images
	Share  float64 // of the images, 0 to 1
	Score  float64 // boxes below it are not compared; a caller's own limit counts if it is higher
	Log    *slog.Logger
	// Seen, if not nil, is told of each image that the second model saw, or should have seen.
	Seen func(ShadowResult)
}

// A ShadowResult is what came of one image of the share.
type ShadowResult struct {
	Outcome       string // compared; dropped: the second model was busy, or was ended; failed: it gave no answer
	First, Second *Facts // nil if dropped or failed
	Agreement     Agreement
	Took          time.Duration
}

// A Shadow lets a second model see a share of the images that the main model answers, and compares the boxes. It is a
// Models. An answer never waits for the second model: images wait for it in a short queue, and when that is full they
// are dropped and counted.
type Shadow struct {
	o     ShadowOptions
	queue chan frame
	ctx   context.Context
	end   context.CancelFunc
	ended sync.WaitGroup

	mu   sync.Mutex
	owed float64 // part of an image that the second model shall see
}

// A frame is an image with the main model's boxes.
type frame struct {
	facts *Facts
	image []byte
	score float64
	found detect.Detections
}

// shadowQueue is how many images wait for the second model. They are copies, so their number bounds the memory.
const shadowQueue = 4

// shadowTimeout limits the second model's work on one image.
const shadowTimeout = 30 * time.Second

// NewShadow starts to compare.
func NewShadow(o ShadowOptions) *Shadow {
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Seen == nil {
		o.Seen = func(ShadowResult) {}
	}
	ctx, end := context.WithCancel(context.Background())
	s := &Shadow{o: o, queue: make(chan frame, shadowQueue), ctx: ctx, end: end}
	s.ended.Go(s.compare)
	return s
}

// Close ends the comparison. Calls can still be answered.
func (s *Shadow) Close() {
	s.end()
	s.ended.Wait()
	for {
		select {
		case <-s.queue:
			s.o.Seen(ShadowResult{Outcome: "dropped"})
		default:
			return
		}
	}
}

// Lease implements Models.
func (s *Shadow) Lease(ctx context.Context) (*Facts, Model, func(), error) {
	facts, model, done, err := s.o.Main.Lease(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	return facts, shadowed{model, s, facts}, done, nil
}

// Serving implements Models.
func (s *Shadow) Serving() (Facts, error) { return s.o.Main.Serving() }

// shadowed is the main model.
type shadowed struct {
	Model
	shadow *Shadow
	facts  *Facts
}

// Detect implements Model.
func (m shadowed) Detect(ctx context.Context, image []byte, score float64) (detect.Detections, detect.Timing, error) {
	found, timing, err := m.Model.Detect(ctx, image, score)
	if err == nil {
		m.shadow.offer(m.facts, image, score, found)
	}
	return found, timing, err
}

// offer gives an image of the share to the second model.
func (s *Shadow) offer(facts *Facts, image []byte, score float64, found detect.Detections) {
	s.mu.Lock()
	s.owed += s.o.Share
	chosen := s.owed >= 1
	if chosen {
		s.owed--
	}
	s.mu.Unlock()
	if !chosen || s.ctx.Err() != nil {
		return
	}
	if len(s.queue) == cap(s.queue) { // before the image is copied
		s.o.Seen(ShadowResult{Outcome: "dropped"})
		return
	}
	score = max(score, s.o.Score)
	kept := detect.Detections{Width: found.Width, Height: found.Height, Boxes: slices.Clone(found.Above(score))}
	select {
	case s.queue <- frame{facts, bytes.Clone(image), score, kept}:
	default:
		s.o.Seen(ShadowResult{Outcome: "dropped"})
	}
}

// compare works on the queue, one image at a time.
func (s *Shadow) compare() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case f := <-s.queue:
			s.o.Seen(s.look(f))
		}
	}
}

func (s *Shadow) look(f frame) ShadowResult {
	ctx, cancel := context.WithTimeout(s.ctx, shadowTimeout)
	defer cancel()
	facts, model, done, err := s.o.Second.Lease(ctx)
	if err != nil {
		return s.without()
	}
	defer done()
	began := time.Now()
	found, _, err := model.Detect(ctx, f.image, f.score)
	if err != nil {
		if s.ctx.Err() == nil {
			s.o.Log.Warn("shadow gave no answer", "model", facts.Name, "version", facts.Version, "err", err)
		}
		return s.without()
	}
	return ShadowResult{
		"compared",
		f.facts,
		facts,
		Agree(f.found.Boxes, found.Above(f.score)),
		time.Since(began),
	}
}

// without is the result of an image that the second model gave no answer for. When it is ended, that is no failure.
func (s *Shadow) without() ShadowResult {
	if s.ctx.Err() != nil {
		return ShadowResult{Outcome: "dropped"}
	}
	return ShadowResult{Outcome: "failed"}
}
