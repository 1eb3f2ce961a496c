// Command servesoak shows what aob-detect serve promises to those who leave it alone for long, change its models, or
// attack it:
//
//	go run ./tools/servesoak -bundle DIR -images 'DIR/*.jpg' swaps      # changes of the model lose no request
//	go run ./tools/servesoak -bundle DIR -images 'DIR/*.jpg' mutations  # hostile models, pictures and requests
//	go run ./tools/servesoak -bundle DIR -images 'DIR/*.jpg' -for 1h soak  # full load; metrics are right, nothing
//
// leaks
//
// It prints figures, and fails where something is not as promised. The tests of this package run a short form of each,
// which compares no times.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/autonomos/aob/reconciler/delivery"
)

// options are what all runs need.
type options struct {
	binary   string
	bundle   string
	pictures [][]byte
	shape    modelShape
	seed     uint64
}

// A modelShape is the part of a signature that requests need.
type modelShape struct {
	input, boxes, logits string
	height, width        int
}

func main() {
	log.SetFlags(0)
	var o options
	var images string
	flag.StringVar(&o.binary, "aob-detect", "bin/aob-detect", "the program")
	flag.StringVar(&o.bundle, "bundle", "", "the bundle's folder")
	flag.StringVar(&images, "images", "", "pattern of JPEG files")
	flag.Uint64Var(&o.seed, "seed", 1, "names the random models, pictures and requests")
	clients := flag.Int("clients", 8, "at the same time")
	duration := flag.Duration("for", time.Hour, "of soak")
	count := flag.Int("swaps", 100, "changes of the model; the first ten are timed")
	models := flag.Int("models", 1000, "hostile models")
	requests := flag.Int("requests", 10_000, "hostile pictures and requests together")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	err := o.read(images)
	if err == nil {
		fmt.Printf("%s, %d cores, load %s\n", processor(), runtime.NumCPU(), loadAverage())
		switch flag.Arg(0) {
		case "swaps":
			var f swapsFigures
			f, err = swaps(ctx, o, swapsPlan{timed: min(10, *count), all: *count, clients: *clients,
				quiet:   30 * time.Second,
				between: time.Second, settle: true})
			f.print(os.Stdout)
			err = errors.Join(err, f.check())
		case "mutations":
			err = mutations(ctx, o, mutationsPlan{models: *models, requests: *requests, neighbours: 8 * time.Second,
				load: hostileLoad,
				held: 20}, os.Stdout)
		case "soak":
			var f soakFigures
			f, err = soak(ctx, o, soakPlan{duration: *duration, clients: *clients, every: max(time.Second,
				*duration/60),
				settle: true}, os.Stdout)
			f.print(os.Stdout)
			err = errors.Join(err, f.check())
		default:
			err = errors.New("want one of swaps, mutations and soak")
		}
		fmt.Printf("load %s\n", loadAverage())
	}
	if err != nil {
		log.Fatal("servesoak: ", err)
	}
}

// read reads the pictures and the bundle's signature.
func (o *options) read(images string) error {
	files, err := filepath.Glob(images)
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no picture is %s", images)
	}
	for _, f := range files[:min(len(files), 40)] {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		o.pictures = append(o.pictures, data)
	}
	if o.bundle, err = filepath.Abs(o.bundle); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(o.bundle, delivery.SignatureFile))
	if err != nil {
		return err
	}
	var sig delivery.Signature
	err = json.Unmarshal(text, &sig)
	o.shape = modelShape{sig.Input, sig.Boxes, sig.Logits, sig.Height, sig.Width}
	return err
}

// processor names this machine's.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}

// loadAverage is that of the last minute: other work makes times longer.
func loadAverage() string {
	f, err := os.Open("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 100))
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
