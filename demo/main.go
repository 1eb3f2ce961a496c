// Demo tells AOB's story on one machine: a model is trained in a pull request,
// evaluated, gated and released to a fleet of three, a better one follows, a
// worse one is refused, and git revert rolls back.
//
//	make demo
//
// Everything is real: a git repository, Terraform launching a PyTorch training,
// ONNX Runtime evaluating the file that ships, three agents with two slots each.
// It drives the same commands that a user would type, and leaves the folder
// behind to look at.
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
	bin := flag.String("bin", "bin", "the folder of aob, aob-agent and aob-detect")
	dir := flag.String("dir", ".demo", "the folder to work in; an earlier demo's is replaced")
	keep := flag.Bool("keep-running", false, "leave the server and the agents running at the end")
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
	return s.tell(ctx)
}
