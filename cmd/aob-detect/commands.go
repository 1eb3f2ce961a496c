package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/profile"
)

func inspectCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect MODEL.onnx",
		Short: "Check a model against the contract and print its signature and golden",
		Long: `Inspect opens a model, checks the names, types and shapes of its inputs and
outputs, makes the signature from its rfdetr_inference metadata, runs the golden
input, and prints both as JSON lines.`,
		Example: `  # the signature of a model
  aob-detect inspect model.onnx | jq 'select(.inspected).inspected.signature'

  # a bundle's folder out of a model
  aob-detect inspect model.onnx | jq 'select(.inspected).inspected' >inspected.json
  mkdir bundle
  jq .signature inspected.json >bundle/signature.json
  jq '[.signature.slots[] | select(. != "")]' inspected.json >bundle/labels.json
  jq -r .golden inspected.json | base64 -d >bundle/golden.bin
  cp model.onnx bundle/`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.respond(cmd, "", func(w detect.Worker, out io.Writer) error {
				found, err := w.Inspect(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return detect.WriteInspection(out, found)
			})
		},
	}
}

func describeCommand(o *options) *cobra.Command {
	var withSlots bool
	cmd := &cobra.Command{
		Use:   "describe MODEL.onnx",
		Short: "Say what a model's file declares, also without metadata",
		Long: `Describe prints a model's inputs, outputs and number of slots as JSON lines. Where
it is known which slot is which class, by the file's rfdetr_inference metadata or
by --slots, it also runs the golden input and prints the signature.`,
		Example: `  aob-detect describe model.onnx | jq 'select(.described).described.outputs'
  echo '["cat", "dog", ""]' | aob-detect describe --slots model.onnx`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.respond(cmd, "", func(w detect.Worker, out io.Writer) error {
				var slots []string
				if withSlots {
					var err error
					if slots, err = detect.ReadSlots(cmd.InOrStdin()); err != nil {
						return fmt.Errorf("--slots: %w", err)
					}
				}
				found, err := w.Describe(cmd.Context(), args[0], slots)
				if err != nil {
					return err
				}
				return detect.WriteDeclaration(out, found)
			})
		},
	}
	cmd.Flags().BoolVar(&withSlots, "slots", false,
		"read the classes of the slots of a model without metadata from standard input, as a JSON list")
	return cmd
}

func evaluateCommand(o *options) *cobra.Command {
	var bundle string
	cmd := &cobra.Command{
		Use:   "evaluate",
		Short: "Run a model over the images listed on standard input",
		Long: `Evaluate reads a request from standard input: one line of JSON with the model's
path, its signature and the number of images, then one line per image. It prints
one line per image, in order, with slot, score, x, y, width and height of each
box, in pixels of the image. All paths are absolute. With --bundle it replays the
golden of the model's bundle first.`,
		Example: `  (jq -c '{model: "/models/model.onnx", signature: ., images: 1}' bundle/signature.json
   echo '{"id": 1, "path": "/images/1.jpg"}') | aob-detect evaluate`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.respond(cmd, bundle, func(w detect.Worker, out io.Writer) error {
				return w.Evaluate(cmd.Context(), bundle, cmd.InOrStdin(), out)
			})
		},
	}
	cmd.Flags().StringVar(&bundle, "bundle", "", "the folder of the model's bundle; a profile with TensorRT needs it")
	return cmd
}

func serveCommand(o *options) *cobra.Command {
	var bundle, socket string
	var background bool
	var batch int
	var wait time.Duration
	var f front
	cmd := &cobra.Command{
		Use:   "serve --bundle DIR (--listen ADDRESS | --socket PATH)",
		Short: "Serve a bundle over HTTP",
		Long: `Serve loads the bundle in a folder (model.onnx, signature.json, golden.bin,
labels.json) and replays its golden.

With --listen it serves images and tensors over HTTP: POST /v1/detect, the Open
Inference Protocol under /v2, and the requests of Roboflow's inference server.
GET /openapi.json describes all of it. The model runs in a process of its own.
An address without a host is on this machine only. See docs/serving.md.
With --control, aob-detect load, shadow and status change and show what serves,
and GET /metrics is there; SIGHUP loads the bundle's folder again.

With --socket it is that process: it serves POST /infer, POST /run, GET
/describe, GET /health, GET /live and GET /metrics on a Unix socket.

On SIGTERM it finishes its requests and ends.`,
		Example: `  aob-detect serve --bundle bundle --listen :8380
  curl --data-binary @image.jpg 'http://127.0.0.1:8380/v1/detect?confidence=0.5'

  # for others, with a token and TLS
  aob-detect serve --bundle bundle --listen 0.0.0.0:8380 --token-file token --tls-cert cert.pem --tls-key key.pem

  aob-detect serve --bundle bundle --socket /run/aob/detect.sock
  curl --unix-socket /run/aob/detect.sock --data-binary @image.jpg http://aob-detect/infer`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if batch < 1 || batch > detect.MaxBatch || wait < 0 {
				return fmt.Errorf("--batch: want 1 to %d, and --batch-wait of at least 0", detect.MaxBatch)
			}
			if f.listen != "" {
				f.batch, f.batchWait = batch, wait
				return f.serve(cmd.Context(), cmd.ErrOrStderr(), *o, bundle)
			}
			if background {
				if err := detect.Background(); err != nil {
					return err
				}
			}
			return o.respond(cmd, bundle, func(w detect.Worker, out io.Writer) error {
				w.Batch, w.BatchWait = batch, wait
				return serveSocket(cmd.Context(), w, bundle, socket, func() error { return detect.Ready(out) })
			})
		},
	}
	cmd.Flags().StringVar(&bundle, "bundle", "", "the bundle's folder")
	cmd.Flags().StringVar(&socket, "socket", "", "the Unix socket to listen on")
	cmd.Flags().BoolVar(&background, "background", false,
		"with --socket: use only the processor time that other processes leave")
	cmd.Flags().IntVar(&batch, "batch", 1, "the largest number of images of a run, where the model takes batches")
	cmd.Flags().DurationVar(&wait, "batch-wait", 2*time.Millisecond,
		"how long an image waits for others while the model runs")
	f.flags(cmd.Flags())
	cmd.MarkFlagRequired("bundle")
	cmd.MarkFlagsOneRequired("listen", "socket")
	cmd.MarkFlagsMutuallyExclusive("listen", "socket")
	return cmd
}

// respond writes a hello, then the output of do, and after an error a failure. The error is also returned. bundle is
// the folder of the bundle that do opens, or empty.
func (o options) respond(cmd *cobra.Command, bundle string, do func(detect.Worker, io.Writer) error) error {
	out := &lockedWriter{w: cmd.OutOrStdout()}
	if err := detect.Hello(out); err != nil {
		return err
	}
	w, err := o.worker(cmd.Context(), bundle, func(p profile.Progress) {
		_ = detect.WriteProgress(out, p) // who does not read it can still read the result
	})
	if err == nil {
		err = do(w, out)
	}
	if err != nil {
		return errors.Join(err, detect.Fail(out, err))
	}
	return nil
}

// A lockedWriter takes lines from several goroutines.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func inferCommand(o *options) *cobra.Command {
	var bundle string
	var score float64
	cmd := &cobra.Command{
		Use:   "infer --bundle DIR IMAGE...",
		Short: "Print the detections on images as JSON",
		Long: `Infer loads the bundle in a folder, replays its golden, and prints one JSON
object per image: its path, its size and the detections, highest score first. x
and y are the upper left corner. All numbers are pixels of the image.`,
		Example: `  aob-detect infer --bundle bundle image.jpg
  aob-detect infer --bundle bundle --score 0.5 images/*.jpg | jq '.boxes | length'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := o.worker(cmd.Context(), bundle, func(p profile.Progress) {
				_ = detect.WriteProgress(cmd.ErrOrStderr(), p)
			})
			if err != nil {
				return err
			}
			return infer(cmd.Context(), w, cmd.OutOrStdout(), bundle, score, args)
		},
	}
	cmd.Flags().StringVar(&bundle, "bundle", "", "the bundle's folder")
	cmd.Flags().Float64Var(&score, "score", 0, "lowest score of a printed box, 0 to 1")
	cmd.MarkFlagRequired("bundle")
	return cmd
}

func infer(ctx context.Context, w detect.Worker, out io.Writer, bundle string, score float64, images []string) error {
	server, err := w.Open(ctx, bundle)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(delivery.LogWriter{W: out}) // paths and class names are untrusted
	for _, path := range images {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found, _, err := server.Infer(ctx, data, score)
		if bad, ok := errors.AsType[*detect.ImageError](err); ok {
			bad.Path = path
		}
		if err != nil {
			return err
		}
		err = enc.Encode(map[string]any{"image": path, "width": found.Width, "height": found.Height,
			"boxes": found.Boxes})
		if err != nil {
			return err
		}
	}
	return server.Close()
}
