package main

import (
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/serve"
)

func runCommand(o *options) *cobra.Command {
	var bundle, source string
	var score float64
	var frames serve.SourceOptions
	cmd := &cobra.Command{
		Use:   "run --bundle DIR --source SOURCE [-- COMMAND ARGUMENTS]",
		Short: "Print the detections on the frames of a folder or a camera",
		Long: `Run reads frames and prints one line of JSON for each, with the boxes and the
time of each stage in milliseconds. The model runs in a process of its own, which
is started again when it ends.

A source is a folder of JPEG and PNG files; the address of a picture or of a
stream of pictures (http:// or https://, multipart/x-mixed-replace); or exec, with
a command after --, whose output is JPEG files one after the other. Of a camera
only the newest frame is taken: "lost" counts those that the model was too slow
for. A stream or a command that ends is started again after a second, and so is one
that brings no picture for as long as --stall says. A command ends with all
processes that it has started: with SIGTERM, and after a second with SIGKILL.`,
		Example: `  aob-detect run --bundle bundle --source images
  aob-detect run --bundle bundle --source images --follow --every 200ms

  # a camera, by GStreamer, V4L2 or FFmpeg
  aob-detect run --bundle bundle --source exec -- gst-launch-1.0 -q v4l2src ! jpegenc ! fdsink
  aob-detect run --bundle bundle --source exec -- v4l2-ctl --set-fmt-video=pixelformat=MJPG --stream-mmap --stream-to=-
  aob-detect run --bundle bundle --source exec -- ffmpeg -v error -i rtsp://camera/stream -f mjpeg -`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			b, err := bundleOf(bundle, "")
			if err != nil {
				return err
			}
			folder, err := os.MkdirTemp("", "aob-run-") // only this user can open it
			if err != nil {
				return err
			}
			defer os.RemoveAll(folder)
			log := slog.New(slog.NewTextHandler(delivery.LogWriter{W: cmd.ErrOrStderr()}, nil))
			detector, _, err := o.detector(log)
			if err != nil {
				return err
			}
			host := serve.NewHost("main", serve.HostOptions{
				Start: start(detector), Name: "detector", Sockets: folder, Log: log, Patience: time.Minute,
			})
			defer func() { err = errors.Join(err, host.Close()) }()
			if err := host.Load(ctx, b); err != nil {
				return err
			}
			frames, err := serve.OpenSource(source, args, frames, delivery.LogWriter{W: cmd.ErrOrStderr()})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, frames.Close()) }()
			return serve.Frames(ctx, frames, host, score, cmd.OutOrStdout(), log)
		},
	}
	cmd.Flags().StringVar(&bundle, "bundle", "", "the bundle's folder")
	cmd.Flags().StringVar(&source, "source", "", "a folder, an address, or exec")
	cmd.Flags().Float64Var(&score, "score", 0.4, "lowest score of a printed box, 0 to 1")
	cmd.Flags().DurationVar(&frames.Every, "every", time.Second,
		"between two pictures of an address, or looks into a folder")
	cmd.Flags().DurationVar(&frames.Stall, "stall", time.Minute,
		"of an address or a command: begin again when no picture came for so long")
	cmd.Flags().BoolVar(&frames.Follow, "follow", false, "of a folder: wait for new files")
	cmd.MarkFlagRequired("bundle")
	cmd.MarkFlagRequired("source")
	return cmd
}
