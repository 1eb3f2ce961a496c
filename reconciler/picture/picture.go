// Package picture draws what a model got wrong on an image: the truth, what the
// release found and what the new model found, side by side, as a PNG.
//
//   - green: a truth, or a detection that found one
//   - red, dashed: a truth that the model misses
//   - orange: a detection of nothing, with its score
//
// [Write] makes a folder of them with an index, all at once or not at all. The same
// input gives the same pixels. Images come from datasets and are hostile: their size
// is looked at before they are decoded, and one that cannot be used costs its own
// picture only. Names from outside become names of files only as letters, digits and
// dashes.
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
	"unicode"

	scaled "golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/durable"
)

const (
	// Most is how many pictures one folder gets.
	Most = 12

	maxBytes  = 64 << 20 // of an image's file
	maxPixels = 64 << 20
	panel     = 480 // pixels, of the longer side of each panel
	gap       = 8
	line      = 18 // of text
	maxText   = 120
)

// A Picture is one image with what is to be drawn on it.
type Picture struct {
	Path       string // of the image's file
	Name       string // by which people know it
	Baseline   string // what the second panel is called, as release; empty where there is none
	Regression coco.Regression
}

// An Entry is one picture in a folder's index.
type Entry struct {
	File string `json:"file"`
	Name string `json:"name"`
	Why  string `json:"why"`
}

// IndexFile lists a folder's pictures, the worst first.
const IndexFile = "index.json"

// encoder takes a quarter of the time of the default level, and a quarter more bytes.
var encoder = png.Encoder{CompressionLevel: png.BestSpeed}

// Write draws pictures, at most [Most], into dir, which must not be there. It returns
// what it drew, and what it could not.
func Write(dir string, list []Picture) ([]Entry, error) {
	partial := dir + ".part"
	if err := errors.Join(os.RemoveAll(partial), os.MkdirAll(partial, 0o755)); err != nil {
		return nil, err
	}
	entries := []Entry{}
	var failed []error
	for _, p := range list[:min(len(list), Most)] {
		drawn, err := Draw(p)
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
		entries = append(entries, Entry{File: file, Name: clean(p.Name, maxText), Why: clean(p.Regression.Why, 500)})
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

// safe makes a part of a file's name of an image's.
func safe(name string) string {
	name = strings.TrimSuffix(filepath.Base(name), filepath.Ext(name))
	if name = strings.Trim(unsafe.ReplaceAllString(name, "-"), "-"); name == "" {
		return "image"
	}
	return name[:min(len(name), 60)]
}

// FileName matches the names of pictures that Write makes.
var FileName = regexp.MustCompile(`^[0-9]{2}-[A-Za-z0-9-]{1,60}\.png$`)

// clean keeps printable ASCII, which is all that the font has.
func clean(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > n {
		return s[:n-3] + "..."
	}
	return s
}

// load decodes a JPEG or PNG after its size was looked at.
func load(path string) (image.Image, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.New("the file cannot be read")
	}
	if !info.Mode().IsRegular() || info.Size() > maxBytes {
		return nil, fmt.Errorf("want a file of at most %d bytes", maxBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.New("the file cannot be read")
	}
	config, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("no JPEG or PNG: %w", err)
	}
	if config.Width < 1 || config.Height < 1 || int64(config.Width)*int64(config.Height) > maxPixels {
		return nil, fmt.Errorf("%d x %d pixels, want at most %d in all", config.Width, config.Height, maxPixels)
	}
	decoded, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	return decoded, nil
}

var (
	paper   = color.RGBA{250, 250, 250, 255}
	ink     = color.RGBA{30, 30, 30, 255}
	colours = map[coco.Mark]color.RGBA{coco.Found: {40, 170, 70, 255}, coco.Missed: {215, 30, 40, 255},
		coco.False: {245, 140, 0, 255}}
)

// Draw draws one picture.
func Draw(p Picture) (*image.RGBA, error) {
	source, err := load(p.Path)
	if err != nil {
		return nil, err
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
	out := image.NewRGBA(image.Rect(0, 0, gap+len(sides)*(max(w, 200)+gap), top+h+line+2*gap))
	draw.Draw(out, out.Bounds(), image.NewUniform(paper), image.Point{}, draw.Src)
	columns := (out.Bounds().Dx() - 2*gap) / 7
	text(out, gap, line-3, ink, clean(p.Name+": "+r.Why, columns))
	for i, s := range sides {
		x := gap + i*(max(w, 200)+gap)
		at := image.Rect(x, top, x+w, top+h)
		text(out, x, 2*line, ink, clean(s.title, max(w, 200)/7))
		draw.Draw(out, at, small, image.Point{}, draw.Src)
		boxes(out.SubImage(at).(*image.RGBA), s.boxes, scale, i == 0)
	}
	x := gap
	for _, l := range []struct {
		mark coco.Mark
		what string
	}{{coco.Found, "found"}, {coco.Missed, "missed (dashed)"}, {coco.False, "false, with its score"}} {
		draw.Draw(out, image.Rect(x, top+h+gap+5, x+12, top+h+gap+15), image.NewUniform(colours[l.mark]), image.Point{},
			draw.Src)
		text(out, x+17, top+h+gap+line-4, ink, l.what)
		x += 17 + 7*len(l.what) + 3*gap
	}
	return out, nil
}

func headline(name string, s coco.Side) string {
	return fmt.Sprintf("%s: %d found, %d missed, %d false", name, s.Found, s.Missed, s.False)
}

// boxes draws what is found first, so that what is wrong lies above it. Only what is
// wrong is labelled, and every truth where there is room.
func boxes(out *image.RGBA, list []coco.Drawn, scale float64, truth bool) {
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
		if d.Mark == coco.Found && (!truth || len(list) > 12) {
			continue
		}
		name := clean(d.Class, 16)
		if d.Mark == coco.False {
			name += fmt.Sprintf(" %.2f", d.Score)
		}
		r := place(d)
		label := image.Rect(r.Min.X, r.Min.Y-14, r.Min.X+7*len(name)+4, r.Min.Y)
		if label.Min.Y < out.Bounds().Min.Y {
			label = label.Add(image.Pt(0, 14))
		}
		if over := label.Max.X - out.Bounds().Max.X; over > 0 {
			label = label.Sub(image.Pt(over, 0))
		}
		if slices.ContainsFunc(taken, label.Overlaps) || !label.In(out.Bounds()) {
			continue // two labels on one place say less than one
		}
		taken = append(taken, label)
		draw.Draw(out, label, image.NewUniform(colours[d.Mark]), image.Point{}, draw.Src)
		text(out, label.Min.X+2, label.Max.Y-3, color.RGBA{255, 255, 255, 255}, name)
	}
}

// frame draws the four sides of a box, two pixels wide, within the picture.
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

// text writes a line whose letters stand on y.
func text(out draw.Image, x, y int, c color.Color, s string) {
	d := font.Drawer{Dst: out, Src: image.NewUniform(c), Face: basicfont.Face7x13, Dot: fixed.P(x, y)}
	d.DrawString(s)
}
