package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
)

// A reel is a source of fixed frames and errors.
type reel []any

func (r *reel) Next(context.Context) (Frame, error) {
	if len(*r) == 0 {
		return Frame{}, io.EOF
	}
	first := (*r)[0]
	*r = (*r)[1:]
	if err, ok := first.(error); ok {
		return Frame{Name: "x.jpg"}, err
	}
	return Frame{Name: first.(string), Image: []byte("image"), Lost: 2}, nil
}

func (r *reel) Close() error { return nil }

func TestFrames(t *testing.T) {
	model := &still{boxes: []delivery.Box{box("a", 0.9, 0, 0, 9, 9), box("b", 0.2, 20, 0, 9, 9)}}
	source := &reel{"1.jpg", &detect.ImageError{Why: "permission denied"}, StreamError{errors.New("camera unplugged")},
		"\x1b[2J.jpg"}
	var out, logged bytes.Buffer
	if err := Frames(t.Context(), source, model, 0.5, &out, slog.New(slog.NewTextHandler(&logged, nil))); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || strings.Contains(out.String(), "\x1b") {
		t.Fatalf("%q", lines)
	}
	var first, second, third Seen
	if err := errors.Join(json.Unmarshal([]byte(lines[0]), &first), json.Unmarshal([]byte(lines[1]), &second),
		json.Unmarshal([]byte(lines[2]), &third)); err != nil {
		t.Fatal(err)
	}
	if first.Frame != 1 || first.Name != "1.jpg" || first.Lost != 2 || len(first.Boxes) != 1 ||
		first.Milliseconds == nil || first.Error != "" {
		t.Errorf("%s", lines[0])
	}
	if second.Frame != 2 || second.Error != "permission denied" || second.Detections != nil {
		t.Errorf("%s", lines[1])
	}
	if third.Frame != 3 || !strings.Contains(logged.String(), "camera unplugged") {
		t.Errorf("%s; %s", lines[2], logged.String())
	}

	model.err = errors.New("the detector has ended")
	out.Reset()
	if err := Frames(t.Context(), &reel{"1.jpg", "2.jpg"}, model, 0, &out, slog.New(slog.DiscardHandler)); err != nil ||
		strings.Count(out.String(), `"error":"the detector has ended"`) != 2 {
		t.Errorf("%v: %s", err, out.String())
	}
	broken := errors.New("the folder is gone")
	if err := Frames(t.Context(), &reel{broken}, model, 0, &out, slog.New(slog.DiscardHandler)); err != broken {
		t.Errorf("got %v", err)
	}
}

// A camera that stays away does not fill the log.
func TestFramesWithoutCamera(t *testing.T) {
	var source reel
	for range 200 {
		source = append(source, StreamError{errors.New("no such device")})
	}
	source = append(source, "1.jpg", StreamError{errors.New("unplugged")}, "2.jpg")
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	if err := Frames(t.Context(), &source, &still{}, 0, io.Discard, log); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(logged.String()) {
		_, text, _ := strings.Cut(line, "msg=")
		got = append(got, strings.TrimSpace(text))
	}
	var want []string
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64, 128, 192} {
		want = append(want, fmt.Sprintf(`"source interrupted" err="no such device" times=%d`, n))
	}
	want = append(want, `"source is back" interruptions=200`, `"source interrupted" err=unplugged times=1`,
		`"source is back" interruptions=1`)
	if !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
}
