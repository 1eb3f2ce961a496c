package main

import (
	"bytes"
	"context"
	"errors"
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
	var r initRequest
	c := &cobra.Command{
		Use:   "init DIR",
		Short: "Write an intent repository and a server configuration, for a dataset of yours or a small one",
		Long: `Init writes a folder with all that aob serve needs to run on this machine alone:

  DIR/intent.git   the intent repository; every branch but main is a proposal
  DIR/intent       a clone of it to work in
  DIR/datasets     a small dataset of shapes, in COCO layout
  DIR/devices      the tokens of three devices of fleet demo: dock-1 to dock-3
  DIR/aob.yaml     the server's configuration

With --dataset it is for a dataset of yours, which stays where it is. It may be an export
of CVAT, Roboflow or Label Studio, or in the layout of COCO, Pascal VOC or YOLO. If it
has no train, valid and test split, splits.json is written into it, which divides it.
Main gets a gate that judges on its test split and that you own. The branch first-model, which is pull
request #1, has a model of its classes and a fleet.

With --rfdetr the first model is RF-DETR, in the size rf-detr-small or the one that is
named, with the resolution that it is made for. It trains from random weights until the
server's configuration has base weights; docs/train.md says how.

Without --dataset, Python needs NumPy and Pillow, which make the small dataset.`,
		Example: "  aob init world\n  aob init pallets --dataset /data/pallets\n" +
			"  aob init pallets --dataset /data/pallets --rfdetr=nano\n  aob serve --config world/aob.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			progress := c.OutOrStdout()
			if o.json() {
				progress = io.Discard
			}
			r.dir = args[0]
			w, err := initWorld(c.Context(), r, progress, c.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), w, func(t *terminal) { t.next(w) })
		},
	}
	o.register(c)
	c.Flags().StringVar(&r.python, "python", "/usr/bin/python3", "the Python that runs trainers")
	c.Flags().IntVar(&r.images, "images", 240, "training images in the small dataset; 0 writes none")
	c.Flags().StringVar(&r.dataset, "dataset", "", "the `folder` of a dataset of yours")
	c.Flags().StringVar(&r.rfdetr, "rfdetr", "", "with --dataset: let the first model be RF-DETR, of this `size`")
	c.Flags().Lookup("rfdetr").NoOptDefVal = "small"
	c.Flags().StringVar(&r.name, "name", "", "the model's `name`; by default that of the dataset's folder")
	return c
}

// An initRequest holds the argument and flags of aob init.
type initRequest struct {
	dir, python   string
	images        int
	dataset, name string // of the user's own data
	rfdetr        string // the size of RF-DETR; empty for the small detector
}

const serverTemplate = `# The server's configuration: aob serve --config %s
# Every field: aob schema server

repository: intent.git
forge: {local: {}}
state: state
listen: {address: "127.0.0.1:8370", metrics: "127.0.0.1:8371"}
datasets:
  dir:
    %s: %s
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

	Own *ownData `json:"own,omitempty"` // with --dataset
}

// A builder writes a world.
type builder struct {
	world
	initRequest
	ctx      context.Context
	progress io.Writer
	messages io.Writer // for what is no part of the result
	divided  string    // the file that divides the user's dataset, if it was written
	size     rfdetrSize
}

// initWorld writes a world. After an error it removes what it has written.
func initWorld(ctx context.Context, r initRequest, progress, messages io.Writer) (w world, err error) {
	b := builder{initRequest: r, ctx: ctx, progress: progress, messages: messages}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return w, err
	}
	list, err := os.ReadDir(b.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return w, err
	}
	if len(list) > 0 {
		return w, notEmpty(b.dir)
	}
	created := err != nil
	if _, err := exec.LookPath("git"); err != nil {
		return w, delivery.Blockedf("install it: apt-get install git", "git is not on PATH")
	}
	b.Repository, b.Clone = filepath.Join(b.dir, "intent.git"), filepath.Join(b.dir, "intent")
	b.Config = filepath.Join(b.dir, "aob.yaml")
	defer func() {
		if err != nil && b.divided != "" {
			err = errors.Join(err, os.Remove(b.divided))
		}
	}()
	write := b.example
	if b.rfdetr != "" && b.dataset == "" {
		return w, hinted{errors.New("--rfdetr needs a dataset"), "name its folder with --dataset"}
	}
	if b.dataset != "" {
		if b.size, err = sizeOfRFDETR(b.rfdetr); err != nil {
			return w, err
		}
		if err := b.readOwn(); err != nil {
			return w, err
		}
		write = b.own
	} else if err := b.needsPython(); err != nil {
		return w, err
	}
	defer func() {
		if err != nil {
			if ctx.Err() != nil { // not that a command was killed
				err = ctx.Err()
			}
			err = errors.Join(err, b.remove(created))
		}
	}()
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return w, err
	}
	if err := durable.PrivateFolder(filepath.Join(b.dir, "state")); err != nil {
		return w, err
	}
	if err := b.git("init", "--quiet", "--bare", "--initial-branch=main", b.Repository); err != nil {
		return w, err
	}
	if err := b.git("clone", "--quiet", b.Repository, b.Clone); err != nil {
		return w, err
	}
	if err := b.git("-C", b.Clone, "checkout", "--quiet", "-B", "main"); err != nil {
		return w, err
	}
	b.say("%s: the intent repository; %s: a clone to work in", b.Repository, b.Clone)
	if err := write(); err != nil {
		return w, err
	}
	if b.Tokens, err = initTokens(b.Config, filepath.Join(b.dir, "devices")); err != nil {
		return w, err
	}
	b.say("%s: a token for each of %d devices; aob device token makes more", filepath.Join(b.dir, "devices"),
		len(b.Tokens))
	return b.world, nil
}

// notEmpty says what to do about a folder that has something in it. The tokens of devices are written last.
func notEmpty(dir string) error {
	has := func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return err == nil
	}
	switch {
	case has("intent.git") && has("devices"):
		return delivery.Blockedf("name another folder; aob serve --config "+filepath.Join(dir, "aob.yaml")+" starts "+
			"what is there", "%s has what an earlier aob init wrote", dir)
	case has("intent.git") || has("state"):
		return delivery.Blockedf("remove the folder with rm -r, and try again; or name another folder",
			"%s has parts of an aob init that was ended before it was done", dir)
	}
	return delivery.Blockedf("name another folder, or empty it", "%s is not empty", dir)
}

func (b *builder) say(format string, args ...any) { fmt.Fprintf(b.progress, format+"\n", args...) }

// remove removes what was written into the folder, and the folder if it was created.
func (b *builder) remove(created bool) error {
	if created {
		return os.RemoveAll(b.dir)
	}
	list, err := os.ReadDir(b.dir)
	for _, e := range list {
		err = errors.Join(err, os.RemoveAll(filepath.Join(b.dir, e.Name())))
	}
	return err
}

func (b *builder) git(args ...string) error {
	if out, err := exec.CommandContext(b.ctx, "git", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// commit commits all files of the clone, and pushes the branch.
func (b *builder) commit(branch, message string) error {
	if err := b.git("-C", b.Clone, "add", "."); err != nil {
		return err
	}
	if err := b.git("-C", b.Clone, "-c", "user.name=aob init", "-c", "user.email=init@localhost", "commit", "--quiet",
		"-m", message); err != nil {
		return err
	}
	return b.git("-C", b.Clone, "push", "--quiet", "-u", "origin", branch)
}

// configure writes the server's configuration.
func (b *builder) configure(name, folder string) error {
	b.say("%s: the server's configuration", b.Config)
	return os.WriteFile(b.Config, fmt.Appendf(nil, serverTemplate, b.Config, name, delivery.YAMLScalar(folder),
		delivery.YAMLScalar(b.python)), 0o644)
}

// needsPython says what Python lacks to make the small dataset.
func (b *builder) needsPython() error {
	if b.images <= 0 {
		return nil
	}
	err := pythonHas(b.ctx, b.python, "numpy", "PIL")
	if blocked, ok := errors.AsType[delivery.Blocked](err); ok {
		blocked.Do += ". Or begin without the small dataset: --dataset FOLDER, or --images 0"
		return blocked
	}
	return err
}

// example writes the example set, and the small dataset.
func (b *builder) example() error {
	if err := os.CopyFS(b.Clone, aob.Intent); err != nil {
		return err
	}
	if err := ownGates(b.Clone); err != nil {
		return err
	}
	if err := b.commit("main", "A model, a gate and a fleet"); err != nil {
		return err
	}
	data := filepath.Join(b.dir, "datasets", "shapes")
	if b.images > 0 {
		b.say("making %d images …", b.images+max(8, b.images/4)+max(8, b.images/2))
		if err := makeShapes(b.ctx, b.python, data, b.images); err != nil {
			return err
		}
		b.Dataset = data
		b.say("%s: %d images to train on", data, b.images)
	}
	return b.configure("shapes", data)
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
