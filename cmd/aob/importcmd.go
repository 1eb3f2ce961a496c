package main

// This file takes a model that was trained elsewhere into a repository.

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/intent"
)

// importTrainer is the trainer that takes ONNX files.
const importTrainer = "import@1"

func newImportCommand() *cobra.Command {
	var o output
	var r importRequest
	c := &cobra.Command{
		Use:   "import MODEL.onnx",
		Short: "Take an ONNX model that was trained elsewhere into a pull request",
		Long: `Import looks at an ONNX file with RF-DETR's inputs and outputs, in a process of its
own, and says what it is. It prints the lines of the server's configuration that
name the file, and the file models/NAME.yaml, which --dir writes.
It copies nothing: the server reads the model where it is.

A file with rfdetr_inference metadata says itself which slot is which class. Most
exports of RF-DETR have none. For these, name the annotation file of the training
split with --classes-file: versions of RF-DETR have different rules for slots, and
where several fit the model, --rfdetr says which version trained it.

Without that file, --classes names the class of each slot, in order, with nothing
between two commas for a slot without a class:

  'cat,dog,'    trained by RF-DETR 1.5 or later: the last slot has no class
  ',cat,dog'    trained before 1.5, with category ids from 1: the first has none
  ',cat,dog,'   trained by 1.5 to 1.9.1 on an export of Roboflow: neither has one
  coco          weights trained on COCO: 91 slots with COCO's own ids`,
		Example: `  aob import pallets.onnx --licence Apache-2.0 --dir .
  aob import old.onnx --classes-file train/_annotations.coco.json --rfdetr 1.4.3
  aob import old.onnx --classes ',pallet,person' --name pallets --licence Apache-2.0
  aob import pallets.onnx -o json | jq .slots`,
		RunE: func(c *cobra.Command, args []string) error {
			r.file = args[0]
			found, err := r.run(c.Context(), c.ErrOrStderr())
			if err != nil {
				return err
			}
			return o.print(c.OutOrStdout(), found, func(t *terminal) { t.imported(found) })
		},
	}
	o.register(c)
	c.Flags().StringVar(&r.classes, "classes", "",
		"the `names` of the slots of a model without metadata, with commas between them; or coco")
	c.Flags().StringVar(&r.classesFile, "classes-file", "", "a `file` with the class of each slot in a line, or a "+
		"JSON list of them; or the COCO annotation file that a model without metadata was trained with")
	c.Flags().StringVar(&r.version, "rfdetr", "",
		"the `version` of RF-DETR that trained the model, as 1.9.1; by default that of its metadata")
	c.Flags().StringVar(&r.name, "name", "", "the `name` of the model and of its weights; the file's by default")
	c.Flags().StringVar(&r.licence, "licence", "", "the `licence` of the model by its SPDX name, as Apache-2.0")
	c.Flags().StringVar(&r.dataset, "dataset", "",
		"the `dataset` that the model is judged on, as pallets or roboflow:acme/pallets/14")
	c.Flags().StringVar(&r.dir, "dir", "", "the `folder` of the repository to write models/NAME.yaml into")
	c.Flags().StringVar(&r.config, "config", "aob.yaml",
		"the server's configuration `file`, which names datasets and the detector; none if it is missing")
	return c
}

// An importRequest is what the flags of aob import say.
type importRequest struct {
	file, classes, classesFile, version, name, licence, dataset, dir, config string
}

// imported is the result of aob import.
type imported struct {
	File     string        `json:"file"` // absolute
	Bytes    int64         `json:"bytes"`
	SHA256   string        `json:"sha256"`
	Inputs   []detect.Port `json:"inputs"`
	Outputs  []detect.Port `json:"outputs"`
	Slots    []string      `json:"slots"`    // "" is a slot without a class
	Metadata bool          `json:"metadata"` // the file says which slot is which class
	Source   string        `json:"source"`   // what says which slot is which class
	Layout   string        `json:"layout"`   // which slots have no class, in words
	Name     string        `json:"name"`
	Licence  string        `json:"licence,omitempty"`
	Version  string        `json:"version,omitempty"` // of RF-DETR; "" if it is not known
	Clip     bool          `json:"clip"`              // boxes are cut to the image
	Weights  string        `json:"weights"`           // the lines of the server's configuration
	Known    bool          `json:"known"`             // the configuration has them already
	Config   string        `json:"config"`
	Model    string        `json:"model"`             // the text of models/NAME.yaml
	Written  string        `json:"written,omitempty"` // its path
	Notes    []string      `json:"notes,omitempty"`

	clipped bool   // the file itself says that boxes are cut
	clipBy  string // what says it; "" for an assumption, which is a note
}

func (r importRequest) run(ctx context.Context, messages io.Writer) (imported, error) {
	m := imported{Name: r.name, Licence: r.licence, Config: r.config}
	if m.Name == "" {
		m.Name = nameFrom(strings.TrimSuffix(filepath.Base(r.file), filepath.Ext(r.file)))
	}
	if m.Name == "" || m.Name != nameFrom(m.Name) {
		return m, hinted{fmt.Errorf("%q is no name for a model", m.Name),
			"name it with --name, in lower-case letters, digits and hyphens, as in --name pallets"}
	}
	var server *intent.Server
	if _, err := os.Stat(r.config); err == nil || r.config != "aob.yaml" {
		s, err := loadServer(r.config)
		if err != nil {
			return m, err
		}
		server = &s
	}
	var err error
	if m.File, err = filepath.Abs(r.file); err != nil {
		return m, err
	}
	if m.Bytes, m.SHA256, err = digestOfModel(r.file); err != nil {
		return m, err
	}
	var detector detect.Detector
	if server != nil {
		detector = detectorOf(*server)
	}
	if err := r.describe(ctx, detector, messages, &m); err != nil {
		return m, err
	}
	if err := r.lines(server, &m); err != nil {
		return m, err
	}
	if err := r.model(server, &m); err != nil {
		return m, err
	}
	if r.dir != "" {
		m.Written, err = r.write(m)
	}
	return m, err
}

// digestOfModel returns the size and the SHA-256 of an ONNX file.
func digestOfModel(path string) (int64, string, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, "", hinted{fmt.Errorf("%s: no such file", path), "name the ONNX file of the model"}
	case err != nil:
		return 0, "", err
	case !info.Mode().IsRegular():
		return 0, "", hinted{fmt.Errorf("%s is not a file", path), "name the ONNX file of the model"}
	case info.Size() > detect.MaxModelBytes:
		return 0, "", fmt.Errorf("%s is too large; want at most %s", path, delivery.Bytes(detect.MaxModelBytes))
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, detect.MaxModelBytes))
	return n, hex.EncodeToString(sum.Sum(nil)), err
}

// describe finds out which slot of the model is which class.
func (r importRequest) describe(
	ctx context.Context, detector detect.Detector, messages io.Writer, m *imported,
) error {
	given, err := r.given()
	if err != nil {
		return err
	}
	d, err := detector.Describe(ctx, r.file, nil)
	if bad, ok := errors.AsType[*detect.ModelError](err); ok {
		return hinted{bad, "aob import takes an ONNX export of RF-DETR, with input, dets and labels: docs/trainers.md"}
	}
	if err != nil {
		return err
	}
	m.Inputs, m.Outputs, m.Metadata = d.Inputs, d.Outputs, d.Metadata
	if m.Version = r.version; m.Version == "" {
		m.Version = d.Producer
	}
	switch {
	case d.Metadata:
		if err := given.agree(r.file, d.Signature.Slots); err != nil {
			return err
		}
		m.Source = "the file's metadata"
	case given.from == "":
		for _, line := range m.ports() {
			printMessage(messages, "%s", line)
		}
		return hinted{fmt.Errorf("%s has no %s metadata, so it does not say which of its %s is which class",
			r.file, detect.MetadataKey, delivery.Count(d.Slots, "slot")),
			"name the annotation file that it was trained with, as --classes-file train/_annotations.coco.json, or " +
				"the class of each slot with --classes; aob import --help says which slots an export has"}
	default:
		slots, err := given.slots(d.Slots)
		if err != nil {
			return err
		}
		if d, err = detector.Describe(ctx, r.file, slots); err != nil {
			return err
		}
		m.Source = given.from
	}
	m.Slots = slices.Clone(d.Signature.Slots)
	m.Layout = detect.SlotLayout(m.Slots)
	return m.clip(d)
}

// clip decides whether boxes are cut to the image, as predict() of the version does that trained the model.
func (m *imported) clip(d detect.Declaration) (err error) {
	before15 := m.Slots[0] == "" && m.Slots[len(m.Slots)-1] != "" && !slices.Equal(m.Slots, detect.COCOSlots())
	switch {
	case d.Own || d.Signature.Clip: // the file says it
		m.Clip, m.clipped, m.clipBy = d.Signature.Clip, d.Signature.Clip, "by the file's metadata"
	case m.Version != "":
		m.Clip, err = detect.Clips(m.Version)
		m.clipBy = "as predict() of RF-DETR " + m.Version + " does"
	case m.Metadata: // no export of RF-DETR, which names its version
	case before15:
		m.Notes = append(m.Notes, "boxes that leave the image stay as they are, as predict() of RF-DETR before 1.5 "+
			"leaves them; --rfdetr names another version")
	default:
		m.Clip = true
		m.Notes = append(m.Notes, "boxes are cut to the image, as predict() of RF-DETR does since "+
			detect.ClippedSince+"; if an older version trained the model, name it with --rfdetr")
	}
	return err
}

// lines makes the lines of the server's configuration.
func (r importRequest) lines(server *intent.Server, m *imported) error {
	path := m.File
	m.Weights = fmt.Sprintf("weights:\n  %s: {file: %s, sha256: %s, licence: %s}\n", delivery.YAMLScalar(m.Name),
		delivery.YAMLScalar(path), m.SHA256, delivery.YAMLScalar(m.Licence))
	if m.Licence == "" {
		m.Notes = append(m.Notes, "the server needs the licence of the model; --licence names it")
	}
	_, complaints := intent.ParseServer("", []byte(m.Weights), nil, nil)
	for _, c := range complaints {
		if strings.HasPrefix(c.Path, "weights.") && (m.Licence != "" || !strings.HasSuffix(c.Path, ".licence")) {
			return hinted{errors.New(c.Path + ": " + c.Text), "aob import --help shows the flags"}
		}
	}
	if server == nil {
		return nil
	}
	there, ok := server.Weights[m.Name]
	switch {
	case !ok:
	case there.SHA256 != m.SHA256:
		return hinted{fmt.Errorf("%s has weights %s already, of another file: %s", r.config, m.Name, there.File),
			"choose another name with --name; a release's statement names its weights"}
	default:
		m.Known = true
	}
	return nil
}

const importedModel = `# A model that was trained elsewhere. Merging a change to it ships the change.
apiVersion: aob/v1
kind: Model
name: %s
dataset: {%s: %s}
classes: %s
train:
  with: %s
  from: %[1]s
`

// model makes the text of the model's file, and checks it as a pull request would.
func (r importRequest) model(server *intent.Server, m *imported) error {
	source, ref, ok := strings.Cut(r.dataset, ":")
	if !ok {
		source, ref = "dir", r.dataset
	}
	options := intent.Options{Zone: knownZone}
	trainers := ""
	if server != nil {
		options.Datasets, trainers = datasetNames(*server), server.Trainers
		options.Weights = append(slices.Collect(maps.Keys(server.Weights)), m.Name)
		known := options.Datasets["dir"]
		switch {
		case ref != "":
		case slices.Contains(known, m.Name):
			ref = m.Name
		case len(known) == 1:
			ref = known[0]
		default:
			return hinted{errors.New("which dataset is the model judged on?"),
				"name one of the server's configuration, as in --dataset pallets"}
		}
	} else if ref == "" {
		ref = m.Name
		m.Notes = append(m.Notes, "the model is judged on the dataset dir:"+ref+"; --dataset names another")
	}
	m.Model = fmt.Sprintf(importedModel, delivery.YAMLScalar(m.Name), delivery.YAMLScalar(source),
		delivery.YAMLScalar(ref), delivery.FlowList(named(m.Slots)), importTrainer)
	args, err := r.args(m)
	if err != nil {
		return err
	}
	m.Model += args
	if options.Trainers, err = loadTrainers(trainers); err != nil {
		return err
	}
	_, complaints := intent.Parse([]intent.File{{Path: "models/" + m.Name + ".yaml", Size: int64(len(m.Model)),
		Data: []byte(m.Model)}}, options)
	if len(complaints) > 0 {
		return delivery.Complaints(complaints)
	}
	return nil
}

// args is the line of the model's file for what a file without metadata does not say.
func (r importRequest) args(m *imported) (string, error) {
	if m.Metadata {
		if m.Clip && !m.clipped {
			return "  args: {clip: true} # boxes are cut to the image\n", nil
		}
		return "", nil
	}
	args := "slots: " + delivery.FlowList(m.Slots)
	if r.version != "" {
		resize, err := detect.ResizeOf(r.version)
		if err != nil {
			return "", err
		}
		if resize != "" {
			args += ", resize: " + resize
		}
	} else if m.Slots[0] == "" && m.Slots[len(m.Slots)-1] != "" {
		m.Notes = append(m.Notes, "if RF-DETR before 1.5 trained the model, add resize: uint8-antialias to args: its "+
			"training resized pictures as Pillow does")
	}
	if m.Clip {
		args += ", clip: true"
	}
	return "  args: {" + args + "} # the class of each slot\n", nil
}

// write writes the model's file, unless there is another one.
func (r importRequest) write(m imported) (string, error) {
	root, err := os.OpenRoot(r.dir)
	if err != nil {
		return "", hinted{fmt.Errorf("--dir: %w", err), "name the folder of your clone of the repository"}
	}
	defer root.Close()
	if err := root.Mkdir("models", 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	name := filepath.Join("models", m.Name+".yaml")
	path := filepath.Join(r.dir, name)
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		there, err := intentFile(root, filepath.ToSlash(name))
		if err == nil && string(there.Data) == m.Model {
			return path, nil
		}
		return "", hinted{fmt.Errorf("%s is there already, and is another one", path),
			"choose another --name, or edit that file: aob import without --dir prints what to write"}
	}
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(m.Model)
	return path, errors.Join(err, f.Close())
}

// ports describes the inputs and outputs, a line each.
func (m imported) ports() (lines []string) {
	add := func(what string, list []detect.Port) {
		for _, p := range list {
			sizes := delivery.Each(p.Shape, func(n int64) string {
				if n < 0 {
					return "?"
				}
				return fmt.Sprint(n)
			})
			lines = append(lines, fmt.Sprintf("%-8s%s: %s [%s]", what, p.Name, p.Type, strings.Join(sizes, ",")))
		}
	}
	add("input", m.Inputs)
	add("output", m.Outputs)
	return lines
}

// imported writes what the model is, and what to do next.
func (t *terminal) imported(m imported) {
	t.printf("%s: %.1f MB, sha256 %s\n", m.File, float64(m.Bytes)/1e6, m.SHA256)
	for _, line := range m.ports() {
		t.printf("%s\n", line)
	}
	t.printf("slots   by %s: %s\n", m.Source, m.Layout)
	for i, name := range m.Slots {
		if name != "" {
			t.printf("%7d %s\n", i, name)
		}
	}
	if m.clipBy != "" {
		what := map[bool]string{true: "cut to the image", false: "not cut to the image"}[m.Clip]
		t.printf("boxes   %s, %s\n", what, m.clipBy)
	}
	for _, note := range m.Notes {
		t.paragraph("", "note: "+note)
	}
	step := 1
	if m.Known {
		t.printf("\n%s names the file already, as weights %s.\n", m.Config, m.Name)
	} else {
		t.printf("\n%d. Add to the server's configuration, and start the server again. It reads the file where it "+
			"is:\n\n", step)
		t.printf("%s\n", safeText(indented(m.Weights)))
		step++
	}
	if m.Written != "" {
		t.printf("%d. Open a pull request with %s, which is written. A gate under gates/ must have %s in its "+
			"covers:.\n", step, m.Written, m.Name)
		return
	}
	t.printf("%d. Open a pull request with models/%s.yaml; --dir writes it:\n\n", step, m.Name)
	t.printf("%s", safeText(indented(m.Model)))
	t.printf("\n   A gate under gates/ must have %s in its covers:.\n", m.Name)
}

// indented makes text of several lines safe for a terminal, and indents it.
func indented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + printable(strings.TrimSuffix(line, "\n")) + "\n")
	}
	return b.String()
}
