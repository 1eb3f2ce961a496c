// Package picture draws a model's errors on an image as a PNG: the ground truth, the
// detections of the release and the detections of the new model, side by side.
//
//   - green: a ground-truth box, or a detection that matches one
//   - red, dashed: a ground-truth box that the model misses
//   - orange: a false positive, with its score
//
// [Write] creates a folder of pictures with an index, atomically. The same input gives the same pixels. Images come
// from datasets and are untrusted: their size is checked before they are decoded, and an image that cannot be decoded
// is skipped. File names contain only letters, digits and dashes of the image's name.
//
// Names are written in their own script, emoji included. Names in one of the few scripts that no embedded font has are
// numbered in the picture, and the index says which they are.
package picture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	_ "image/jpeg" // the two formats that detectors read
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	scaled "golang.org/x/image/draw"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/durable"
)

const (
	// MaxPictures is the maximum number of pictures in one folder.
	MaxPictures = 12

	maxBytes  = 64 << 20 // of an image file
	maxPixels = 64 << 20
	panel     = 480 // pixels, longer side of each panel
	gap       = 8   // pixels
	line      = 18  // pixels, height of a line of text
	maxText   = 120 // characters
)

// A Picture is one image and the boxes to draw on it.
type Picture struct {
	Path       string // of the image file
	Name       string // shown in the title
	Baseline   string // title of the second panel, for example release; empty: no second panel
	Regression coco.Regression
}

// An Entry is one picture in a folder's index.
type Entry struct {
	File string `json:"file"`
	Name string `json:"name"`
	Why  string `json:"why"`
}

// IndexFile is the file that lists a folder's pictures, in the order given to Write.
const IndexFile = "index.json"

// BestSpeed takes a quarter of the default level's time and makes files a quarter larger.
var encoder = png.Encoder{CompressionLevel: png.BestSpeed}

// Write draws the first [MaxPictures] pictures of list into dir, which must not exist. A picture
// that cannot be drawn is left out: the entries of the others are returned with an error
// that names it. If the folder cannot be written, entries is nil and dir does not exist.
func Write(dir string, list []Picture) ([]Entry, error) {
	partial := dir + ".part"
	if err := errors.Join(os.RemoveAll(partial), os.MkdirAll(partial, 0o755)); err != nil {
		return nil, err
	}
	entries := []Entry{}
	var failed []error
	for _, p := range list[:min(len(list), MaxPictures)] {
		drawn, legend, err := render(p)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.Name, err))
			continue
		}
		var b bytes.Buffer
		if err := encoder.Encode(&b, drawn); err != nil {
			return nil, err
		}
		file := fmt.Sprintf("%02d-%s.png", len(entries)+1, safe(p.Name))
		if err := os.WriteFile(filepath.Join(partial, file), b.Bytes(), 0o644); err != nil {
			return nil, err
		}
		why := clean(p.Regression.Why, 500)
		if len(legend) > 0 {
			why += ". In the picture " + clean(strings.Join(legend, ", "), 500)
		}
		entries = append(entries, Entry{File: file, Name: clean(p.Name, maxText), Why: why})
	}
	index, err := json.Marshal(entries)
	if err == nil {
		err = os.WriteFile(filepath.Join(partial, IndexFile), append(index, '\n'), 0o644)
	}
	if err == nil {
		err = durable.SyncTree(partial)
	}
	if err == nil {
		err = durable.Rename(partial, dir)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(partial))
	}
	return entries, errors.Join(failed...)
}

var unsafe = regexp.MustCompile(`[^A-Za-z0-9]+`)

// safe turns an image's name into a part of a file name, of 1 to 60 bytes.
func safe(name string) string {
	name = strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
	if name = strings.Trim(unsafe.ReplaceAllString(name, "-"), "-"); name == "" {
		return "image"
	}
	return name[:min(len(name), 60)]
}

// FileName matches the names of the picture files that Write creates.
var FileName = regexp.MustCompile(`^[0-9]{2}-[A-Za-z0-9-]{1,60}\.png$`)

// clean returns a text for people on one line, cut to n characters.
func clean(s string, n int) string {
	runes := []rune(delivery.Terminal(s))
	if len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return string(runes)
}

// load decodes a JPEG or PNG after it has checked the size. Its errors do not contain the path.
func load(path string) (image.Image, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.New("the file cannot be read")
	}
	if !info.Mode().IsRegular() || info.Size() > maxBytes {
		return nil, fmt.Errorf("want a regular file of at most %d bytes", maxBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.New("the file cannot be read")
	}
	config, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("not a JPEG or PNG: %w", err)
	}
	if config.Width < 1 || config.Height < 1 || int64(config.Width)*int64(config.Height) > maxPixels {
		return nil, fmt.Errorf("%d x %d pixels, want at most %d pixels", config.Width, config.Height, maxPixels)
	}
	decoded, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("the image is damaged: %w", err)
	}
	return decoded, nil
}

var (
	paper   = color.RGBA{250, 250, 250, 255}
	ink     = color.RGBA{30, 30, 30, 255}
	colours = map[coco.Mark]color.RGBA{coco.Found: {40, 170, 70, 255}, coco.Missed: {215, 30, 40, 255},
		coco.False: {245, 140, 0, 255}}
)

// render draws one picture. Classes that no font can write are numbered, and legend says which they are. The error does
// not contain the path of the image.
func render(p Picture) (out *image.RGBA, legend []string, err error) {
	source, err := load(p.Path)
	if err != nil {
		return nil, nil, err
	}
	names := label{}
	for _, d := range p.drawn() {
		legend = append(legend, names.add(d.Class)...)
	}
	b := source.Bounds()
	scale := float64(panel) / float64(max(b.Dx(), b.Dy()))
	w, h := max(int(float64(b.Dx())*scale), 1), max(int(float64(b.Dy())*scale), 1)
	small := image.NewRGBA(image.Rect(0, 0, w, h))
	scaled.ApproxBiLinear.Scale(small, small.Bounds(), source, b, draw.Src, nil)

	r := p.Regression
	type side struct {
		title string
		boxes []coco.Drawn
	}
	truth := slices.Clone(r.Truth)
	for i := range truth {
		truth[i].Mark = coco.Found
	}
	sides := []side{{fmt.Sprintf("truth: %d", len(r.Truth)), truth}}
	if r.Baseline != nil {
		sides = append(sides, side{headline(p.Baseline, *r.Baseline), r.Baseline.Boxes})
	}
	sides = append(sides, side{headline("this model", r.Candidate), r.Candidate.Boxes})

	const top = 2*line + gap
	out = image.NewRGBA(image.Rect(0, 0, gap+len(sides)*(max(w, 200)+gap), top+h+line+2*gap))
	draw.Draw(out, out.Bounds(), image.NewUniform(paper), image.Point{}, draw.Src)
	text(out, gap, line-3, ink, fit(clean(p.Name+": "+names.in(r.Why), 500), out.Bounds().Dx()-2*gap))
	for i, s := range sides {
		x := gap + i*(max(w, 200)+gap)
		at := image.Rect(x, top, x+w, top+h)
		text(out, x, 2*line, ink, fit(clean(s.title, maxText), max(w, 200)))
		draw.Draw(out, at, small, image.Point{}, draw.Src)
		all := 0 // found boxes that have names
		if i == 0 {
			all = 12
		}
		boxes(out.SubImage(at).(*image.RGBA), s.boxes, names, scale, all)
	}
	x := gap
	for _, l := range []struct {
		mark  coco.Mark
		label string
	}{{coco.Found, "found"}, {coco.Missed, "missed (dashed)"}, {coco.False, "false, with its score"}} {
		draw.Draw(out, image.Rect(x, top+h+gap+5, x+12, top+h+gap+15), image.NewUniform(colours[l.mark]), image.Point{},
			draw.Src)
		text(out, x+17, top+h+gap+line-4, ink, l.label)
		x += 17 + 7*len(l.label) + 3*gap
	}
	return out, legend, nil
}

// drawn lists all boxes of a picture.
func (p Picture) drawn() []coco.Drawn {
	list := slices.Concat(p.Regression.Truth, p.Regression.Candidate.Boxes)
	if p.Regression.Baseline != nil {
		list = append(list, p.Regression.Baseline.Boxes...)
	}
	return list
}

func headline(name string, s coco.Side) string {
	return fmt.Sprintf("%s: %d found, %d missed, %d false", name, s.Found, s.Missed, s.False)
}

// boxes draws matched boxes first, so that errors lie on top. It labels errors, and all boxes if there are at most all.
// A label that would overlap another one is left out.
func boxes(out *image.RGBA, list []coco.Drawn, names label, scale float64, all int) {
	at := out.Bounds().Min
	place := func(d coco.Drawn) image.Rectangle {
		bound := func(v float64) int { return int(max(-10_000, min(v*scale, 10_000))) }
		return image.Rect(at.X+bound(d.Box.X), at.Y+bound(d.Box.Y), at.X+bound(d.Box.X+d.Box.W), at.Y+
			bound(d.Box.Y+d.Box.H))
	}
	for _, mark := range []coco.Mark{coco.Found, coco.False, coco.Missed} {
		for _, d := range list {
			if d.Mark == mark {
				frame(out, place(d), colours[mark], mark == coco.Missed)
			}
		}
	}
	taken := []image.Rectangle{}
	for _, d := range list {
		if d.Mark == coco.Found && len(list) > all {
			continue
		}
		name := fit(names.of(d.Class), 16*7)
		if d.Mark == coco.False {
			name += fmt.Sprintf(" %.2f", d.Score)
		}
		r := place(d)
		label := image.Rect(r.Min.X, r.Min.Y-14, r.Min.X+width(name)+4, r.Min.Y)
		if label.Min.Y < out.Bounds().Min.Y {
			label = label.Add(image.Pt(0, 14))
		}
		if over := label.Max.X - out.Bounds().Max.X; over > 0 {
			label = label.Sub(image.Pt(over, 0))
		}
		if slices.ContainsFunc(taken, label.Overlaps) || !label.In(out.Bounds()) {
			continue
		}
		taken = append(taken, label)
		draw.Draw(out, label, image.NewUniform(colours[d.Mark]), image.Point{}, draw.Src)
		text(out, label.Min.X+2, label.Max.Y-3, color.RGBA{255, 255, 255, 255}, name)
	}
}

// frame draws the outline of a box, two pixels wide, clipped to the picture.
func frame(out *image.RGBA, r image.Rectangle, c color.RGBA, dashed bool) {
	inner := out.Bounds()
	set := func(x, y, along int) {
		if dashed && along/5%2 == 1 {
			return
		}
		if (image.Point{x, y}).In(inner) {
			out.SetRGBA(x, y, c)
		}
	}
	for width := range 2 {
		for x := max(r.Min.X, inner.Min.X); x < min(r.Max.X, inner.Max.X); x++ {
			set(x, r.Min.Y+width, x-r.Min.X)
			set(x, r.Max.Y-1-width, x-r.Min.X)
		}
		for y := max(r.Min.Y, inner.Min.Y); y < min(r.Max.Y, inner.Max.Y); y++ {
			set(r.Min.X+width, y, y-r.Min.Y)
			set(r.Max.X-1-width, y, y-r.Min.Y)
		}
	}
}

// Boxes draws an image with boxes and their names, or numbers if no font can write a name, at most 1600 pixels on
// the longer side. The error does not contain the path of the image.
func Boxes(path string, list []coco.Drawn) (*image.RGBA, error) {
	source, err := load(path)
	if err != nil {
		return nil, err
	}
	const largest, least = 1600, 320 // names are readable in a small image too
	b := source.Bounds()
	longer := max(b.Dx(), b.Dy())
	scale := float64(min(max(longer, least), largest)) / float64(longer)
	out := image.NewRGBA(image.Rect(0, 0, max(int(float64(b.Dx())*scale), 1), max(int(float64(b.Dy())*scale), 1)))
	scaled.ApproxBiLinear.Scale(out, out.Bounds(), source, b, draw.Src, nil)
	names := label{}
	for i, d := range list {
		if !writable(d.Class) {
			names[d.Class] = fmt.Sprintf("box %d", i+1)
		}
	}
	boxes(out, list, names, scale, len(list))
	return out, nil
}

// A Change is an image in two versions of a dataset.
type Change struct {
	Title       string
	Before, Now *Side // nil where the image is not there
}

// A Side is an image in one version: its file, which may be missing, and its boxes. Those with the mark Missed are
// drawn as changed.
type Side struct {
	Path  string
	Boxes []coco.Drawn
}

// MaxChanges is the most changes of one contact sheet.
const MaxChanges = 24

// Contacts draws the first [MaxChanges] changes as one sheet: each image as it was and as it is now.
func Contacts(list []Change) *image.RGBA {
	list = list[:min(len(list), MaxChanges)]
	const side, across = 320, 2 // pixels of an image, and changes beside each other
	const wide, high = 2*(side+gap) + gap, side + 2*line + gap
	out := image.NewRGBA(image.Rect(0, 0, gap+min(max(len(list), 1), across)*wide,
		gap+max((len(list)+across-1)/across, 1)*high))
	draw.Draw(out, out.Bounds(), image.NewUniform(paper), image.Point{}, draw.Src)
	for i, c := range list {
		x, y := gap+i%across*wide, gap+i/across*high
		text(out, x, y+line-4, ink, fit(clean(c.Title, 500), wide-2*gap))
		for k, v := range []*Side{c.Before, c.Now} {
			at := image.Rect(x+k*(side+gap), y+2*line, x+k*(side+gap)+side, y+2*line+side)
			name := []string{"before", "now"}[k]
			switch {
			case v == nil:
				name += ": not there"
			case !contact(out, at, *v):
				name += ": cannot be shown"
			}
			text(out, at.Min.X, y+2*line-4, ink, name)
		}
	}
	return out
}

// contact draws an image with its boxes into a part of a sheet. It reports false if the image cannot be read.
func contact(out *image.RGBA, at image.Rectangle, s Side) bool {
	source, err := load(s.Path)
	if err != nil {
		return false
	}
	b := source.Bounds()
	scale := float64(at.Dx()) / float64(max(b.Dx(), b.Dy()))
	at.Max = at.Min.Add(image.Pt(max(int(float64(b.Dx())*scale), 1), max(int(float64(b.Dy())*scale), 1)))
	scaled.ApproxBiLinear.Scale(out, at, source, b, draw.Src, nil)
	names := label{}
	for _, d := range s.Boxes {
		names.add(d.Class)
	}
	boxes(out.SubImage(at).(*image.RGBA), s.Boxes, names, scale, 0)
	return true
}
