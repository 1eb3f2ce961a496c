package serve

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// A Seen is a line of Frames' output: what the model sees on a frame, or why it sees nothing.
type Seen struct {
	Frame int       `json:"frame"` // from 1
	Name  string    `json:"name,omitempty"`
	At    time.Time `json:"at"`
	Lost  int       `json:"lost,omitempty"` // frames of a camera before this one that the model was too slow for
	*detect.Detections
	Milliseconds *stageTimes `json:"ms,omitempty"`
	Error        string      `json:"error,omitempty"` // of the frame or of the model, in place of detections
}

// stageTimes are a Timing in milliseconds.
type stageTimes struct {
	Pre   float64 `json:"pre"`
	Queue float64 `json:"queue"`
	Infer float64 `json:"infer"`
	Post  float64 `json:"post"`
}

// Frames writes a line of JSON for each frame of a source, until the source or ctx ends. A frame that is no image, or
// that the model fails on, has a line with an error. A camera's interruptions are logged: those of a camera that stays
// away ever more seldom, at last every 64th.
func Frames(ctx context.Context, source Source, models Models, score float64, out io.Writer, log *slog.Logger) error {
	encoder := json.NewEncoder(delivery.LogWriter{W: out}) // names of files and classes are untrusted
	interruptions := 0                                     // since the last frame
	for n := 1; ; n++ {
		frame, err := source.Next(ctx)
		var stream StreamError
		bad, isImage := errors.AsType[*detect.ImageError](err)
		switch {
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil
		case errors.As(err, &stream):
			interruptions++
			if n := interruptions; n&(n-1) == 0 || n%64 == 0 {
				log.Warn("source interrupted", "err", delivery.PlainText(stream.Error(), 500), "times", interruptions)
			}
			n--
			continue
		case isImage:
			line := Seen{Frame: n, Name: frame.Name, At: time.Now().UTC(), Error: bad.Why}
			if err := encoder.Encode(line); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		if interruptions > 0 {
			log.Info("source is back", "interruptions", interruptions)
			interruptions = 0
		}
		line := Seen{Frame: n, Name: frame.Name, At: frame.At.UTC(), Lost: frame.Lost}
		found, timing, err := look(ctx, models, frame.Image, score)
		switch bad, isImage := errors.AsType[*detect.ImageError](err); {
		case ctx.Err() != nil:
			return nil
		case isImage:
			line.Error = bad.Why
		case err != nil:
			line.Error = delivery.PlainText(err.Error(), 500)
		default:
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
			line.Detections = &found
			line.Milliseconds = &stageTimes{ms(timing.Pre), ms(timing.Queue), ms(timing.Infer), ms(timing.Post)}
		}
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
}

func look(ctx context.Context, models Models, image []byte, score float64) (detect.Detections, detect.Timing, error) {
	_, model, done, err := models.Lease(ctx)
	if err != nil {
		return detect.Detections{}, detect.Timing{}, err
	}
	defer done()
	return model.Detect(ctx, image, score)
}
