package detect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

// A BenchWatch is told when the images that energy is counted for are sent.
type BenchWatch interface {
	Begin()
	End()
}

// WriteBenchProgress writes how far a bench is.
func WriteBenchProgress(out io.Writer, p BenchProgress) error {
	return writeLine(out, message{Benching: &p})
}

// WriteBench writes the last line of bench's output.
func WriteBench(out io.Writer, b delivery.Bench) error { return writeLine(out, message{Benched: &b}) }

// BenchPictures reads the pictures of a bench, or makes the built-in ones if there are no paths. The digest is empty
// for those.
func (w Worker) BenchPictures(paths []string) (pictures [][]byte, digest delivery.Digest, err error) {
	if len(paths) == 0 {
		pictures, err = builtinPictures()
		return pictures, "", err
	}
	if len(paths) > MaxBenchPictures {
		return nil, "", fmt.Errorf("%d pictures, want at most %d", len(paths), MaxBenchPictures)
	}
	var all []delivery.Digest
	for _, path := range paths {
		data, err := durable.ReadFile(path, MaxImageBytes)
		if err != nil {
			return nil, "", &ImageError{path, fileReason(err)}
		}
		_, release, err := decodeImage(data, w.JPEG)
		if err != nil {
			return nil, "", &ImageError{path, err.Error()}
		}
		release()
		pictures, all = append(pictures, data), append(all, delivery.Sum(data))
	}
	return pictures, delivery.DigestOf("bench pictures", all), nil
}

// The built-in pictures have the size of a usual camera.
const (
	builtinWidth, builtinHeight = 1280, 720
	builtinCount                = 4
	builtinQuality              = 85
)

// builtinPictures makes JPEG files with smooth and with rough parts, each with other waves.
func builtinPictures() (list [][]byte, err error) {
	for n := range builtinCount {
		img := image.NewYCbCr(image.Rect(0, 0, builtinWidth, builtinHeight), image.YCbCrSubsampleRatio420)
		noise := uint32(n + 1)
		for y := range builtinHeight {
			for x := range builtinWidth {
				wave := math.Sin(float64(x*(n+2))/90) * math.Cos(float64(y*(n+3))/70)
				noise = noise*1664525 + 1013904223
				rough := float64(noise>>24) / 256 * float64(x) / builtinWidth // from the left to the right
				img.Y[img.YOffset(x, y)] = uint8(110 + 60*wave + 60*rough)
				c := img.COffset(x, y)
				img.Cb[c], img.Cr[c] = uint8(128+40*wave), uint8(128-30*wave)
			}
		}
		var file bytes.Buffer
		if err := jpeg.Encode(&file, img, &jpeg.Options{Quality: builtinQuality}); err != nil {
			return nil, err
		}
		list = append(list, file.Bytes())
	}
	return list, nil
}

// A Bencher measures a server inside its process.
type Bencher struct {
	Server   *Server
	Pictures [][]byte
	Clients  int        // that send at the same time, for the throughput
	Watch    BenchWatch // may be nil
	Progress func(BenchProgress)
}

// Run warms up and measures. Each repeat first sends images one after the other, which gives the times, and then as
// many again from all clients, which gives the throughput.
func (b Bencher) Run(ctx context.Context, s delivery.BenchSettings) ([]delivery.BenchRepeat, error) {
	if len(b.Pictures) == 0 || b.Clients < 1 {
		return nil, errors.New("a bench needs pictures and a client")
	}
	total := s.WarmUp + 2*s.Repeats*s.Images
	var done atomic.Int64
	var last time.Time
	var lock sync.Mutex
	step := func() {
		n := int(done.Add(1))
		if b.Progress == nil {
			return
		}
		lock.Lock()
		defer lock.Unlock()
		if time.Since(last) > time.Second || n == total {
			last = time.Now()
			b.Progress(BenchProgress{n, total})
		}
	}
	for i := range s.WarmUp {
		if _, err := b.once(ctx, i); err != nil {
			return nil, err
		}
		step()
	}
	repeats := make([]delivery.BenchRepeat, s.Repeats)
	for i := range repeats {
		var err error
		if repeats[i].Stages, err = b.alone(ctx, s.Images, step); err != nil {
			return nil, err
		}
		if repeats[i].Throughput, err = b.together(ctx, s.Images, step); err != nil {
			return nil, err
		}
	}
	return repeats, nil
}

// once sends one picture and returns the time of each stage, in the order of delivery.BenchStages.
func (b Bencher) once(ctx context.Context, i int) (times [5]time.Duration, err error) {
	began := time.Now()
	_, t, err := b.Server.Infer(ctx, b.Pictures[i%len(b.Pictures)], 0)
	took := time.Since(began)
	return [5]time.Duration{t.Decode, t.Pre - t.Decode, t.Infer, t.Post, took}, err
}

func (b Bencher) alone(ctx context.Context, n int, step func()) (map[string]delivery.BenchTimes, error) {
	if b.Watch != nil {
		b.Watch.Begin()
		defer b.Watch.End()
	}
	lists := map[string][]float64{}
	for i := range n {
		times, err := b.once(ctx, i)
		if err != nil {
			return nil, err
		}
		for k, stage := range delivery.BenchStages {
			lists[stage] = append(lists[stage], times[k].Seconds())
		}
		step()
	}
	stages := map[string]delivery.BenchTimes{}
	for stage, list := range lists {
		stages[stage] = delivery.BenchTimesOf(list)
	}
	return stages, nil
}

// together returns how many images a second are answered.
func (b Bencher) together(ctx context.Context, n int, step func()) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var clients sync.WaitGroup
	began := time.Now()
	for range b.Clients {
		clients.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				if _, err := b.once(ctx, i); err != nil {
					cancel(err)
					return
				}
				step()
			}
		})
	}
	clients.Wait()
	took := time.Since(began)
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	return float64(n) / took.Seconds(), nil
}
