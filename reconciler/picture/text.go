package picture

import (
	"bytes"
	"embed"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/go-text/typesetting/bidi"
	"github.com/go-text/typesetting/di"
	outline "github.com/go-text/typesetting/font"
	"github.com/go-text/typesetting/font/opentype"
	"github.com/go-text/typesetting/language"
	"github.com/go-text/typesetting/segmenter"
	"github.com/go-text/typesetting/shaping"
	"github.com/hajimehoshi/bitmapfont/v3"
	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
	"golang.org/x/text/unicode/norm"
)

// Latin, Greek, Cyrillic, Chinese, Japanese and Korean are drawn with a bitmap font, which is made of free ones: Ark
// Pixel, Cubic 11 (OFL 1.1), Baekmuk Gulim, M+ and misc-fixed. Other scripts have a file of fonts: Noto.

//go:embed fonts/*.ttf
var fontFiles embed.FS

// fontSize is the size of outline fonts, in pixels.
const fontSize = 13

// A label has what is written for the names of classes that the fonts cannot write.
type label map[string]string

// add gives a name a number if the fonts cannot write it, and returns a line for the legend.
func (l label) add(name string) []string {
	if _, there := l[name]; there || writable(name) {
		return nil
	}
	l[name] = fmt.Sprintf("#%d", len(l)+1)
	return []string{l[name] + " is " + name}
}

// of returns what is written for a name.
func (l label) of(name string) string {
	if number, ok := l[name]; ok {
		return number
	}
	return clean(name, maxText)
}

// in replaces the names in a text that cannot be written by their numbers, longer names first.
func (l label) in(text string) string {
	names := make([]string, 0, len(l))
	for name := range l {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
	for _, name := range names {
		text = strings.ReplaceAll(text, name, l[name])
	}
	return text
}

// A piece is a part of a line that one font draws, in one direction.
type piece struct {
	text   []rune
	file   string    // of the font: the name of a file of fonts, or bitmaps
	face   font.Face // of the bitmaps
	script language.Script
	level  bidi.Level
	shaped shaping.Output // with an outline font
}

const (
	bitmaps = "bitmaps" // stands for the bitmap font
	none    = ""        // stands for no font
	emoji   = "Zsye"
	symbols = "Zsym"
)

// layout divides a line into pieces, from left to right. A letter that no font has becomes a question mark.
func layout(s string) []piece {
	text := []rune(norm.NFC.String(s))
	var paragraph bidi.Paragraph
	runs := paragraph.Segment(text, bidi.LeftToRight)
	var list []piece
	for i := range runs.NumRuns() {
		run := runs.Run(i)
		for _, cluster := range clusters(text[run.Start:run.End]) {
			list = add(list, cluster, run.Level)
		}
	}
	face := font.Face(bitmapfont.Face)
	if strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) < 0 {
		face = basicfont.Face7x13 // is larger
	}
	for i := range list {
		list[i].shape(face)
	}
	visual(list)
	return list
}

// clusters divides a text into what readers see as letters: Unicode's grapheme clusters.
func clusters(text []rune) (list [][]rune) {
	var s segmenter.Segmenter
	s.Init(text)
	for each := s.GraphemeIterator(); each.Next(); {
		list = append(list, each.Grapheme().Text)
	}
	return list
}

// add adds a cluster to the last piece, or begins a new one.
func add(list []piece, cluster []rune, level bidi.Level) []piece {
	last := piece{file: bitmaps}
	if len(list) > 0 && list[len(list)-1].level == level {
		last = list[len(list)-1]
	}
	next := piece{text: cluster, level: level, script: scriptOf(cluster, last.script)}
	if next.file = fontOf(cluster, next.script, last.file); next.file == none {
		next.text, next.file = []rune{'?'}, bitmaps
	}
	if last.text != nil && last.file == next.file && last.script == next.script {
		last.text = slices.Concat(last.text, next.text)
		list[len(list)-1] = last
		return list
	}
	return append(list, next)
}

// scriptOf returns the script of a cluster. Digits, spaces and punctuation have the one of the cluster before.
func scriptOf(cluster []rune, before language.Script) language.Script {
	for _, r := range cluster {
		if script := language.LookupScript(r); script.Strong() {
			return script
		}
	}
	return before
}

// fontOf chooses a font that has the whole cluster; before is the one of the cluster before.
func fontOf(cluster []rune, script language.Script, before string) string {
	own := script.String()
	if before == emoji {
		before = bitmaps // its spaces are wide
	}
	for _, file := range []string{own, before, bitmaps, language.Latin.String(), emoji, symbols} {
		if file == language.Latin.String() && file == own && has(bitmaps, cluster) {
			return bitmaps // it has these letters as they are drawn beside Chinese ones
		}
		if has(file, cluster) {
			return file
		}
	}
	return none
}

// has reports whether a font has all letters of a cluster.
func has(file string, cluster []rune) bool {
	var in *outline.Font
	if file != bitmaps {
		if in = fontFile(file); in == nil {
			return false
		}
	}
	for _, r := range cluster {
		switch {
		case unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Variation_Selector, r):
		case in == nil:
			if unicode.IsMark(r) || !hasBitmap(r) {
				return false
			}
		default:
			if _, ok := in.NominalGlyph(r); !ok {
				return false
			}
		}
	}
	return true
}

// hasBitmap reports whether the bitmap font has a letter. It draws nothing for one that it lacks.
func hasBitmap(r rune) bool {
	at, mask, from, _, ok := bitmapfont.Face.Glyph(fixed.P(0, 16), r)
	if !ok || r > 0xffff {
		return false
	}
	for y := range at.Dy() {
		for x := range at.Dx() {
			if _, _, _, a := mask.At(from.X+x, from.Y+y).RGBA(); a > 0 {
				return true
			}
		}
	}
	return false
}

var (
	fontsLock sync.Mutex
	fonts     = map[string]*outline.Font{}
)

// fontFile returns an embedded font, or nil if there is none of this name.
func fontFile(name string) *outline.Font {
	fontsLock.Lock()
	defer fontsLock.Unlock()
	known, ok := fonts[name]
	if ok {
		return known
	}
	if data, err := fontFiles.ReadFile("fonts/" + name + ".ttf"); err == nil {
		face, err := outline.ParseTTF(bytes.NewReader(data))
		if err != nil {
			panic(fmt.Sprintf("the embedded font %s: %v", name, err)) // TestFonts reads all of them
		}
		known = face.Font
	}
	fonts[name] = known
	return known
}

// shape determines what is drawn for a piece: with an outline font, its glyphs and their places.
func (p *piece) shape(bitmap font.Face) {
	right := p.level%2 == 1
	if p.file == bitmaps {
		p.face = bitmap
		p.text = slices.DeleteFunc(slices.Clone(p.text), func(r rune) bool {
			return unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Variation_Selector, r)
		})
		if right {
			slices.Reverse(p.text)
		}
		return
	}
	in := shaping.Input{Text: p.text, RunEnd: len(p.text), Face: outline.NewFace(fontFile(p.file)),
		Size: fixed.I(fontSize), Script: p.script, Language: language.NewLanguage("en")}
	if right {
		in.Direction = di.DirectionRTL
	}
	var shaper shaping.HarfbuzzShaper
	p.shaped = shaper.Shape(in)
}

// visual brings pieces from the order of reading to the order from left to right: rule L2 of Unicode's bidirectional
// algorithm (UAX 9).
func visual(list []piece) {
	highest := bidi.Level(0)
	for _, p := range list {
		highest = max(highest, p.level)
	}
	for level := highest; level > 0; level-- {
		for from := 0; from < len(list); from++ {
			to := from
			for to < len(list) && list[to].level >= level {
				to++
			}
			slices.Reverse(list[from:to])
			from = max(from, to)
		}
	}
}

func (p piece) advance() fixed.Int26_6 {
	if p.file == bitmaps {
		return font.MeasureString(p.face, string(p.text))
	}
	return p.shaped.Advance
}

// writable reports whether the fonts have all letters of a text.
func writable(s string) bool {
	script := language.Common
	for _, cluster := range clusters([]rune(norm.NFC.String(s))) {
		script = scriptOf(cluster, script)
		if fontOf(cluster, script, none) == none {
			return false
		}
	}
	return true
}

// width is the width of a text in pixels.
func width(s string) int {
	sum := fixed.Int26_6(0)
	for _, p := range layout(s) {
		sum += p.advance()
	}
	return sum.Ceil()
}

// fit cuts a text to a width in pixels.
func fit(s string, pixels int) string {
	if width(s) <= pixels {
		return s
	}
	for list := clusters([]rune(s)); len(list) > 0; list = list[:len(list)-1] {
		if cut := string(slices.Concat(list...)) + "..."; width(cut) <= pixels {
			return cut
		}
	}
	return ""
}

// text writes a line of text with its baseline at y. A letter that no font has is a question mark.
func text(out draw.Image, x, y int, c color.Color, s string) {
	at := fixed.P(x, y)
	for _, p := range layout(s) {
		if p.file == bitmaps {
			d := font.Drawer{Dst: out, Src: image.NewUniform(c), Face: p.face, Dot: at}
			d.DrawString(string(p.text))
		} else {
			p.draw(out, at, c)
		}
		at.X += p.advance()
	}
}

// draw draws the outlines of a piece.
func (p piece) draw(out draw.Image, at fixed.Point26_6, c color.Color) {
	const above, below = 3 * fontSize, 2 * fontSize // the baseline; marks may be high
	const beside = fontSize
	wide := p.advance().Ceil() + 2*beside
	if wide <= 0 || wide > 1<<14 {
		return
	}
	raster := vector.NewRasterizer(wide, above+below)
	pen := fixed.Point26_6{X: fixed.I(beside) + at.X&63, Y: fixed.I(above)}
	for _, glyph := range p.shaped.Glyphs {
		if data, ok := p.shaped.Face.GlyphDataOutline(glyph.GlyphID); ok {
			path(raster, data, pen.X+glyph.XOffset, pen.Y-glyph.YOffset, p.shaped.Face.Upem())
		}
		pen.X += glyph.Advance
	}
	mask := image.NewAlpha(raster.Bounds())
	raster.Draw(mask, mask.Bounds(), image.Opaque, image.Point{})
	from := image.Pt(at.X.Floor()-beside, at.Y.Floor()-above)
	draw.DrawMask(out, mask.Bounds().Add(from), image.NewUniform(c), image.Point{}, mask, image.Point{}, draw.Over)
}

// path adds the outline of a glyph at x and y.
func path(to *vector.Rasterizer, glyph outline.GlyphOutline, x, y fixed.Int26_6, upem uint16) {
	scale := fontSize / float32(upem)
	point := func(p opentype.SegmentPoint) (float32, float32) {
		return float32(x)/64 + p.X*scale, float32(y)/64 - p.Y*scale
	}
	for _, s := range glyph.Segments {
		ax, ay := point(s.Args[0])
		if math.Abs(float64(ax)) > 1<<20 || math.Abs(float64(ay)) > 1<<20 {
			return
		}
		switch s.Op {
		case opentype.SegmentOpMoveTo:
			to.MoveTo(ax, ay)
		case opentype.SegmentOpLineTo:
			to.LineTo(ax, ay)
		case opentype.SegmentOpQuadTo:
			bx, by := point(s.Args[1])
			to.QuadTo(ax, ay, bx, by)
		case opentype.SegmentOpCubeTo:
			bx, by := point(s.Args[1])
			cx, cy := point(s.Args[2])
			to.CubeTo(ax, ay, bx, by, cx, cy)
		}
	}
}
