// Demo runs AOB on one machine, from a first model to a rollback: a model is trained in a pull
// request, evaluated, gated and released to a fleet of three devices. A better model follows, a worse
// one is refused, and git revert rolls back.
//
//	make demo
//
// Everything is real: a git repository, Terraform that launches a PyTorch training, ONNX Runtime that
// evaluates the released file, and three agents with two slots each. The demo uses the commands that a
// user would type, and keeps its folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	bin := flag.String("bin", "bin", "the folder with aob, aob-agent and aob-detect")
	dir := flag.String("dir", ".demo", "the work folder; it is deleted first")
	keep := flag.Bool("keep-running", false, "keep the server and the agents running at the end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, *bin, *dir, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, dir string, keep bool) (err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	s := newStory(os.Stdout, bin, dir)
	defer func() {
		if keep && err == nil {
			return
		}
		err = errors.Join(err, s.end())
	}()
	return s.run(ctx)
}
