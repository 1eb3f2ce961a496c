package picture

import (
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"slices"
	"strings"
	"unicode"

	"github.com/hajimehoshi/bitmapfont/v3"
	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

// The font is made of free ones: Ark Pixel, Cubic 11 and Arabic glyphs by Mansour Sorosoro (OFL 1.1), Baekmuk Gulim, M+
// and misc-fixed.

// A label has what is written for the names of classes that the font cannot write.
type label map[string]string

// add gives a name a number if the font cannot write it, and returns a line for the legend.
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

// face returns the font of a text. Text in ASCII has the larger one.
func face(s string) font.Face {
	if strings.IndexFunc(s, func(r rune) bool { return r > unicode.MaxASCII }) < 0 {
		return basicfont.Face7x13
	}
	return bitmapfont.Face
}

// shaped returns a text as the glyphs to draw from left to right: composed, with Arabic letters in their forms, and
// without marks and joiners, which have no glyph of their own. The font has no joined forms of the letters that only
// Persian has, so these stand alone.
func shaped(s string) string {
	s = bitmapfont.PresentationForms(norm.NFC.String(s), bitmapfont.DirectionLeftToRight, language.Und)
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r):
			return -1
		case r >= 0xfbfc && r <= 0xfbff: // the Persian yeh, which looks as the Arabic one does in these forms
			return []rune{0xfeef, 0xfef0, 0xfef3, 0xfef4}[r-0xfbfc]
		case r >= 0xfb50 && r <= 0xfdff && !hasGlyph(r):
			return []rune(norm.NFKC.String(string(r)))[0]
		}
		return r
	}, s)
}

// writable reports whether the font has all letters of a text.
func writable(s string) bool {
	for _, r := range norm.NFC.String(s) {
		if unicode.Is(unicode.Mc, r) || unicode.Is(unicode.Mn, r) && !unicode.In(r, unicode.Arabic, unicode.Hebrew,
			unicode.Thai, unicode.Inherited) {
			return false // the marks of Indian scripts change their letters
		}
	}
	for _, r := range shaped(s) {
		if !hasGlyph(r) {
			return false
		}
	}
	return true
}

// hasGlyph reports whether the font has a letter. It draws nothing for one that it lacks.
func hasGlyph(r rune) bool {
	if unicode.IsSpace(r) {
		return true
	}
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

// width is the width of a text in pixels.
func width(s string) int { return font.MeasureString(face(s), shaped(s)).Ceil() }

// fit cuts a text to a width in pixels.
func fit(s string, pixels int) string {
	if width(s) <= pixels {
		return s
	}
	for runes := []rune(s); len(runes) > 0; runes = runes[:len(runes)-1] {
		if cut := string(runes) + "..."; width(cut) <= pixels {
			return cut
		}
	}
	return ""
}

// text writes a line of text with its baseline at y. A letter that the font lacks is a question mark.
func text(out draw.Image, x, y int, c color.Color, s string) {
	s = strings.Map(func(r rune) rune {
		if !hasGlyph(r) {
			return '?'
		}
		return r
	}, shaped(s))
	d := font.Drawer{Dst: out, Src: image.NewUniform(c), Face: face(s), Dot: fixed.P(x, y)}
	d.DrawString(s)
}
