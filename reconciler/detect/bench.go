package detect

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// BenchProgress says how far a bench is.
type BenchProgress struct {
	Done  int `json:"done"` // images
	Total int `json:"total"`
}

// MaxBenchPictures is the largest number of pictures of a bench.
const MaxBenchPictures = 100

// Bench measures how fast this machine runs the bundle in a folder: in aob-detect, by the code that serves. pictures
// are paths of JPEG and PNG files; none: built-in ones. The result names no bundle, since a folder has none. progress
// may be nil. While an engine is built, Progress is told, and the timeout begins again with each message.
func (d Detector) Bench(ctx context.Context, bundleDir string, s delivery.BenchSettings, pictures []string,
	progress func(BenchProgress)) (delivery.Bench, error) {
	none := delivery.Bench{}
	bundleDir, err := filepath.Abs(bundleDir)
	if err != nil {
		return none, err
	}
	args := []string{"--bundle", bundleDir, "--images", strconv.Itoa(s.Images), "--repeats", strconv.Itoa(s.Repeats),
		"--warmup", strconv.Itoa(s.WarmUp), "--"}
	for _, p := range pictures {
		if p, err = filepath.Abs(p); err != nil {
			return none, err
		}
		args = append(args, p)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c, err := d.start(ctx, "bench", args...)
	if err != nil {
		return none, err
	}
	defer c.cleanup()
	timer := time.AfterFunc(d.timeout(), func() { cancel(timeoutError{d.timeout()}) })
	defer timer.Stop()
	if err := c.readHello(); err != nil {
		return none, c.rootCause(ctx, err)
	}
	for {
		m, err := c.readMessage()
		timer.Reset(d.timeout())
		switch {
		case err != nil:
		case m.Building != nil:
			if d.Progress != nil {
				d.Progress(*m.Building)
			}
			continue
		case m.Benching != nil:
			if progress != nil {
				progress(*m.Benching)
			}
			continue
		case m.Benched != nil:
			b := *m.Benched
			if err := checkBenched(b, s); err != nil {
				return none, c.rootCause(ctx, invalidOutput{err})
			}
			return b, nil
		default:
			err = invalidOutput{errors.New("unexpected message")}
		}
		return none, c.rootCause(ctx, err)
	}
}

// checkBenched checks what a child says that it has measured.
func checkBenched(b delivery.Bench, asked delivery.BenchSettings) error {
	asked.Pictures = b.Settings.Pictures // the child reads them
	if b.Settings != asked {
		return fmt.Errorf("it measured %+v, want %+v", b.Settings, asked)
	}
	if b.Bundle != "" || b.Fleet != "" || b.Device != "" {
		return errors.New("it names a bundle or a device, which it cannot know")
	}
	b.Bundle = delivery.Sum(nil)
	return b.Check()
}
