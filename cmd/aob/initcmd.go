package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
	"github.com/autonomos/aob/reconciler/fleet"
)

// newInitCommand returns the command that writes all that is needed to start.
func newInitCommand() *cobra.Command {
	var o output
	var python string
	var images int
	c := &cobra.Command{
		Use:   "init DIR",
		Short: "Write an intent repository, a small dataset and a server configuration",
		Long: `Init writes a folder with all that aob serve needs to run on this machine alone:

  DIR/intent.git   the intent repository; every branch but main is a proposal
  DIR/intent       a clone of it to work in
  DIR/datasets     a small dataset of shapes, in COCO layout
  DIR/devices      the tokens of three devices of fleet demo: dock-1 to dock-3
  DIR/aob.yaml     the server's configuration`,
		Example: "  aob init world\n  aob serve --config world/aob.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			progress := c.OutOrStdout()
			if o.json() {
				progress = io.Discard
			}
			w, err := initWorld(c.Context(), args[0], python, images, progress)
			if err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), w, func(t *terminal) {
				t.printf("\nnext: aob serve --config %s\n", w.Config)
			})
		},
	}
	o.register(c)
	c.Flags().StringVar(&python, "python", "/usr/bin/python3", "the Python that runs trainers")
	c.Flags().IntVar(&images, "images", 240, "training images in the dataset; 0 writes none")
	return c
}

const serverTemplate = `# The server's configuration: aob serve --config %s
# Every field: aob schema server

repository: intent.git
forge: {local: {}}
state: state
listen: {address: "127.0.0.1:8370", metrics: "127.0.0.1:8371"}
datasets:
  dir:
    shapes: %s
poll: {git: 500ms, forge: 1s}
fleets: {poll: 1s, deadline: 2m}
python: %s
`

// A world lists what aob init has written.
type world struct {
	Repository string `json:"repository"`
	Clone      string `json:"clone"`
	Dataset    string `json:"dataset,omitempty"`
	Config     string `json:"config"`
	// Tokens are the files of devices' tokens, by device.
	Tokens map[string]string `json:"tokens"`
}

func initWorld(ctx context.Context, dir, python string, images int, progress io.Writer) (w world, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return w, err
	}
	if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
		return w, delivery.Blockedf("name another folder, or empty it", "%s is not empty", dir)
	}
	bare, clone := filepath.Join(dir, "intent.git"), filepath.Join(dir, "intent")
	w.Repository, w.Clone, w.Config = bare, clone, filepath.Join(dir, "aob.yaml")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return w, err
	}
	if err := durable.PrivateFolder(filepath.Join(dir, "state")); err != nil {
		return w, err
	}
	git := func(args ...string) error {
		if out, err := exec.CommandContext(ctx, "git", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	steps := []func() error{
		func() error { return git("init", "--quiet", "--bare", "--initial-branch=main", bare) },
		func() error { return git("clone", "--quiet", bare, clone) },
		func() error { return os.CopyFS(clone, aob.Intent) },
		func() error { return ownGates(clone) },
		func() error { return git("-C", clone, "checkout", "--quiet", "-B", "main") },
		func() error { return git("-C", clone, "add", ".") },
		func() error {
			return git("-C", clone, "-c", "user.name=aob init", "-c", "user.email=init@localhost", "commit", "--quiet",
				"-m", "A model, a gate and a fleet")
		},
		func() error { return git("-C", clone, "push", "--quiet", "-u", "origin", "main") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return w, err
		}
	}
	fmt.Fprintf(progress, "%s: the intent repository; %s: a clone to work in\n", bare, clone)

	data := filepath.Join(dir, "datasets", "shapes")
	if images > 0 {
		if err := makeShapes(ctx, python, data, images); err != nil {
			return w, err
		}
		w.Dataset = data
		fmt.Fprintf(progress, "%s: %d images to train on\n", data, images)
	}
	if err := os.WriteFile(w.Config, fmt.Appendf(nil, serverTemplate, w.Config, data, python), 0o644); err != nil {
		return w, err
	}
	fmt.Fprintf(progress, "%s: the server's configuration\n", w.Config)
	if w.Tokens, err = initTokens(w.Config, filepath.Join(dir, "devices")); err != nil {
		return w, err
	}
	fmt.Fprintf(progress, "%s: a token for each of %d devices; aob device token makes more\n",
		filepath.Join(dir, "devices"), len(w.Tokens))
	return w, nil
}

// ownGates makes this user the owner of the gates that were written, so that somebody can accept an unsure check.
func ownGates(clone string) error {
	u, err := user.Current()
	if err != nil {
		return fmt.Errorf("the gates need an owner: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(clone, "gates", "*.yaml"))
	if err != nil {
		return err
	}
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data = bytes.ReplaceAll(data, []byte("owners: [vision-leads]  "), fmt.Appendf(nil, "owners: [%s]  ",
			strconv.Quote(u.Username)))
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// initTokens writes the tokens of three devices.
func initTokens(config, dir string) (map[string]string, error) {
	s, err := loadServer(config)
	if err != nil {
		return nil, err
	}
	key, err := fleetSecret(s, state(s.State))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, device := range []string{"dock-1", "dock-2", "dock-3"} {
		files[device] = filepath.Join(dir, device+".token")
		if err := os.WriteFile(files[device], []byte(fleet.DeviceToken(key, "demo", device)+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// makeShapes generates the dataset with the tiny trainer's own generator.
func makeShapes(ctx context.Context, python, to string, images int) error {
	tmp, err := os.MkdirTemp("", "aob-shapes-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	files, err := fs.Sub(aob.Trainers, "trainers")
	if err != nil {
		return err
	}
	if err := os.CopyFS(tmp, files); err != nil {
		return err
	}
	script := filepath.Join(tmp, "tiny", "shapes.py")
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, python, script, to, "--train", fmt.Sprint(images), "--valid",
		fmt.Sprint(max(8, images/4)), "--test", fmt.Sprint(max(8, images/2)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the dataset: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
