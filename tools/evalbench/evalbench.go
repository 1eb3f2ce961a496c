// Command evalbench measures an evaluation of a bundle over many images, beside a bare loop over the same files in one
// process, on the same cores.
//
//	go run ./tools/evalbench -bundle DIR -images 'DIR/*.jpg'
//
// The bare loop reads a file, decodes it with libjpeg-turbo, resizes it and runs ONNX Runtime, and keeps nothing. There
// is one on each core. The evaluation starts aob-detect, replays the golden, and returns all boxes. Both take the same
// images in turns, and the middle one of each counts. With -limit, a ratio above it is an error.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/onnx"
	"github.com/autonomos/aob/reconciler/turbojpeg"
	"github.com/autonomos/aob/tools/stretch"
)

var (
	bundle = flag.String("bundle", "", "the bundle's folder")
	images = flag.String("images", "", "pattern of JPEG files, which are repeated")
	binary = flag.String("aob-detect", "bin/aob-detect", "the program")
	number = flag.Int("n", 5000, "images")
	rounds = flag.Int("rounds", 3, "measurements of each")
	limit  = flag.Float64("limit", 0, "the largest ratio of the times that is no error; 0: any")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	if err := run(context.Background()); err != nil {
		log.Fatal("evalbench: ", err)
	}
}

// A figure is one measurement, in seconds.
type figure struct{ wall, cpu float64 }

func run(ctx context.Context) error {
	files, err := filepath.Glob(*images)
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no picture is %s", *images)
	}
	list := make([]detect.ImageFile, *number)
	for i := range list {
		list[i] = detect.ImageFile{ID: int64(i + 1), Path: files[i%len(files)]}
	}
	var sig delivery.Signature
	data, err := os.ReadFile(filepath.Join(*bundle, delivery.SignatureFile))
	if err == nil {
		err = json.Unmarshal(data, &sig)
	}
	if err != nil {
		return err
	}
	model := filepath.Join(*bundle, delivery.ModelFile)
	weights, err := os.ReadFile(model)
	if err != nil {
		return err
	}
	library, err := detect.FindLibrary()
	if err != nil {
		return err
	}
	ort, err := onnx.Open(library)
	if err != nil {
		return err
	}
	session, err := ort.Load(weights, sig.Input, []string{sig.Boxes, sig.Logits}, 1)
	if err != nil {
		return err
	}
	defer session.Close()
	detector := detect.Detector{Binary: *binary}
	request := detect.Request{Model: model, Signature: sig, Bundle: *bundle, Images: list}
	var loops, evaluations []figure
	for round := range *rounds {
		f, err := measure(func() error { return bare(ctx, session, sig, list) })
		if err != nil {
			return err
		}
		loops = append(loops, f)
		g, err := measure(func() error {
			found, err := detector.Evaluate(ctx, request, nil)
			if err == nil && len(found) != len(list) {
				err = fmt.Errorf("%d images", len(found))
			}
			return err
		})
		if err != nil {
			return err
		}
		evaluations = append(evaluations, g)
		log.Printf("round %d of %d: bare loop %.1f s (CPU %.1f s), evaluation %.1f s (CPU %.1f s)", round+1, *rounds,
			f.wall, f.cpu, g.wall, g.cpu)
	}
	loop, evaluation := middle(loops), middle(evaluations)
	wall, cpu := evaluation.wall/loop.wall, evaluation.cpu/loop.cpu
	fmt.Printf("| %d images on %d cores | time (s) | CPU (s) |\n| --- | --- | --- |\n", len(list), runtime.NumCPU())
	fmt.Printf("| bare loop of decode and session.Run | %.1f | %.1f |\n", loop.wall, loop.cpu)
	fmt.Printf("| evaluation of a bundle | %.1f (%.2f times) | %.1f (%.2f times) |\n", evaluation.wall, wall,
		evaluation.cpu, cpu)
	if *limit > 0 && wall > *limit {
		return fmt.Errorf("the evaluation takes %.2f times as long as the bare loop, want at most %.2f", wall, *limit)
	}
	return nil
}

func middle(list []figure) figure {
	walls := delivery.Each(list, func(f figure) float64 { return f.wall })
	cpus := delivery.Each(list, func(f figure) float64 { return f.cpu })
	slices.Sort(walls)
	slices.Sort(cpus)
	return figure{walls[len(walls)/2], cpus[len(cpus)/2]}
}

// measure returns how long a function takes, and the processors' time of this process and of its children.
func measure(do func() error) (figure, error) {
	runtime.GC()
	before, err := used()
	if err != nil {
		return figure{}, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return figure{}, err
	}
	wall := time.Since(began).Seconds()
	after, err := used()
	return figure{wall, after - before}, err
}

func used() (seconds float64, err error) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			return 0, err
		}
		seconds += time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	}
	return seconds, nil
}

// bare runs a loop on each core.
func bare(ctx context.Context, model detect.Model, sig delivery.Signature, images []detect.ImageFile) error {
	shape := []int64{1, 3, int64(sig.Height), int64(sig.Width)}
	var next atomic.Int64
	failed := make([]error, runtime.NumCPU())
	var wait sync.WaitGroup
	for core := range failed {
		wait.Go(func() {
			var rgb []byte
			input := make([]float32, 3*sig.Height*sig.Width)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(images) {
					return
				}
				data, err := os.ReadFile(images[i].Path)
				if err != nil {
					failed[core] = err
					return
				}
				pixels, w, h, err := turbojpeg.Decoder{}.Decode(data, rgb)
				if err != nil {
					failed[core] = err
					return
				}
				rgb = pixels
				stretch.Image(rgb, w, h, sig, input)
				if _, err := model.Run(ctx, detect.Tensor{Shape: shape, Data: input}); err != nil {
					failed[core] = err
					return
				}
			}
		})
	}
	wait.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}
