package dataset

// This file has the list of all checks, and puts what they find into a stable order.

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A Rule is one check of a dataset.
type Rule struct {
	Code  string // of its findings
	Level string // of its findings; Some if it depends on the place
	Finds string // what it finds, and when it is an error if that depends
}

// Some is the level of a rule whose findings are errors at some places and warnings at others.
const Some = "error or warning"

// Rules lists all checks. Findings of one level have this order, so that a cause comes before what follows from it.
var Rules = []Rule{
	{"layout", delivery.LevelError, "a folder in no layout that can be read, or without splits"},
	{"no-file", delivery.LevelError, "a symbolic link, a pipe or a device among the files; nothing is read then"},
	{"annotations", delivery.LevelError, "an annotation file that cannot be read"},
	{codeNoSplit, delivery.LevelError, "an image that splits.json does not name"},
	{codeLabel, delivery.LevelError, "a line or element of labels that cannot be read; it is left out"},
	{"missing-split", delivery.LevelError, "no split train or valid"},
	{"empty-split", delivery.LevelError, "a split train or valid without images"},
	{"too-large", delivery.LevelError, "a file, or an image in pixels or in memory, above the limits"},
	{"missing-file", delivery.LevelError, "an image of the annotations whose file is not there"},
	{"unreadable-image", delivery.LevelError, "a file that is no JPEG or PNG, or of a kind that cannot be decoded"},
	{"truncated-image", delivery.LevelError, "an image whose pixels cannot be decoded"},
	{"16-bit-image", delivery.LevelError, "a greyscale PNG of 16 bits, which trainers read as white"},
	{"size-mismatch", delivery.LevelError, "an image of another size than its annotations say"},
	{string(coco.DuplicateID), delivery.LevelError, "two images, categories or annotations with one id"},
	{string(coco.MissingBox), delivery.LevelError, "an annotation without bbox"},
	{string(coco.MissingField), delivery.LevelError, "an item without a field that is needed"},
	{string(coco.WrongType), delivery.LevelError, "a text where a number is needed, and the like"},
	{string(coco.NotFinite), delivery.LevelError, "NaN or an infinite number"},
	{string(coco.OutOfRange), delivery.LevelError, "a number that is too small or too large"},
	{string(coco.UnknownImage), delivery.LevelError, "an annotation of an image that is not listed"},
	{string(coco.UnknownCategory), delivery.LevelError, "an annotation of a category that is not listed"},
	{string(coco.NegativeBox), Some, "a box of negative width or height; an error in an eval set and in test"},
	{string(coco.OffImage), Some, "a box that does not touch its image; an error in an eval set and in test"},
	{"corner-boxes", delivery.LevelError, "boxes that are two corners, and not a corner with width and height"},
	{"duplicate-file", Some, "two entries for one file; an error if their boxes differ"},
	{"duplicate-image", Some, "equal bytes under two names in a split; an error if their boxes differ"},
	{"eval-set", delivery.LevelError, "an eval set that cannot be used, or that is not the one that the gate froze"},
	{"leaks", delivery.LevelError, "more than 5 % of a split's images are in an eval set"},
	{"leak", delivery.LevelWarning, "an image that is also in an eval set; it is left out of training"},
	{"split-leak", delivery.LevelWarning, "an image of train that is also in valid; it is left out of training"},
	{"unknown-class", delivery.LevelError, "a class of the model whose labels are not among the categories"},
	{"empty-class", delivery.LevelError, "a class of the model with no object left to learn from"},
	{string(coco.OutsideImage), delivery.LevelWarning, "a box that is partly outside its image; it is cut at the edge"},
	{string(coco.EmptyBox), delivery.LevelWarning, "a box of width or height 0; it is left out"},
	{string(coco.DegenerateBox), delivery.LevelWarning, "a box of which less than a pixel across is in its " +
		"image; it is left out"},
	{string(coco.DuplicateName), delivery.LevelWarning, "two categories of one name"},
	{string(coco.DuplicateField), delivery.LevelWarning, "a field that an item has twice; the first counts"},
	{"duplicate-truth", delivery.LevelWarning, "the same box of the same category twice in an image"},
	{"two-labels", delivery.LevelWarning, "the same box of two categories in an image"},
	{"implausible-area", delivery.LevelWarning, "areas larger than the box, or less than a hundredth of it"},
	{"exif-orientation", delivery.LevelWarning, "images that viewers turn; training and detection do not"},
	{"no-truth", delivery.LevelWarning, "an eval set, valid or test without an object that counts, or without one " +
		"of a class"},
	{"split-size", delivery.LevelWarning, "valid or test with hardly an image beside train, or with more than train"},
	{"class-balance", delivery.LevelWarning, "a class with less than a hundredth of the objects of the most frequent " +
		"one in train"},
	{"few-images", delivery.LevelWarning, "an eval set with too few images, or groups, for any decision"},
	{"same-name", delivery.LevelWarning, "an image with the source name of another split's image, and other content"},
	{"perceptual-twin", delivery.LevelWarning, "an image that looks like one of an eval set"},
	{"split-twin", delivery.LevelWarning, "an image of train that looks like one of valid"},
	{"near-duplicate", delivery.LevelWarning, "two images of a split that look the same"},
	{"site-leak", delivery.LevelWarning, "a site with images in train and in valid or test"},
	{"time-leak", delivery.LevelWarning, "an image of train taken within a minute of one of valid or test, at one " +
		"site"},
	{"label-drift", delivery.LevelWarning, "another share of a label than in the version before, or other boxes an " +
		"image"},
	{"box-drift", delivery.LevelWarning, "boxes of another size than in the version before"},
	{"image-drift", delivery.LevelWarning, "images of another size than in the version before"},
	{"no-drift", delivery.LevelWarning, "main's version cannot be had, so drift is not known"},
	{"unlisted-file", delivery.LevelWarning, "an image that no annotation names, or labels that no image has"},
	{"two-layouts", delivery.LevelWarning, "a folder with labels of two kinds; those of one are used"},
	{codeShape, delivery.LevelWarning, "a shape that has no box, as points; it is left out"},
	{codeRotated, delivery.LevelWarning, "a box that is turned; the upright box around it is used"},
	{codeSeveral, delivery.LevelWarning, "an image that was labelled more than once; the last labels are used"},
	{"category-name", delivery.LevelWarning, "a category that no class can have as its name, as with a space at its " +
		"end"},
	{"similar-category", delivery.LevelWarning, "a rare category whose name is nearly that of another"},
	{"unused-category", delivery.LevelWarning, "a category with objects that no class of the model has"},
	{string(coco.MoreProblems), delivery.LevelError, "more problems in an annotation file than are listed"},
}

// rank is the place of a code in [Rules].
func rank(code string) int {
	return slices.IndexFunc(Rules, func(r Rule) bool { return r.Code == code })
}

// maxFinding is the largest length of the place and of the text of a finding.
const maxFinding = 1000

// A fault is one thing that a check found, before equal ones are joined.
type fault struct {
	level, code, where, text string
	image                    string // the image's file that it is about; "" if it is about none or that is not known
}

// finding adds a finding.
func (c *checker) finding(level, code, where, text string) {
	c.faults = append(c.faults, fault{level: level, code: code, where: delivery.Cut(where, maxFinding),
		text: delivery.Cut(text, maxFinding)})
}

// maxTexts is how many findings of one code there are at most for texts that several faults have.
const maxTexts = 3

// done returns the result with its findings: errors first, then in the order of [Rules] and of the files. Faults with
// the same code and text are one finding, and those with the same code and other texts are another. If there are many
// texts, as where each has its own numbers, all faults of the code are one finding.
func (c *checker) done() delivery.DataResult {
	type kind struct{ level, code, text string }
	many, texts, said := map[kind]int{}, map[kind]int{}, map[fault]bool{}
	c.faults = slices.DeleteFunc(c.faults, func(f fault) bool {
		again := said[f]
		said[f] = true
		return again
	})
	for _, f := range c.faults {
		key := kind{f.level, f.code, f.text}
		if many[key]++; many[key] == 2 {
			texts[kind{f.level, f.code, ""}]++
		}
	}
	slices.SortStableFunc(c.faults, func(a, b fault) int {
		return cmp.Or(strings.Compare(a.level, b.level), cmp.Compare(rank(a.code), rank(b.code)))
	})
	index := map[kind]int{}
	c.result.Findings = nil
	for _, f := range c.faults {
		key := kind{f.level, f.code, f.text}
		same := many[key] > 1 && texts[kind{f.level, f.code, ""}] <= maxTexts
		if !same {
			key.text = ""
		}
		i, ok := index[key]
		if !ok {
			index[key] = len(c.result.Findings)
			c.result.Findings = append(c.result.Findings, delivery.Finding{Level: f.level, Code: f.code, Where: f.where,
				Text: f.text, Count: 1})
			continue
		}
		found := &c.result.Findings[i]
		found.Count++
		switch {
		case same && len(found.Places) < delivery.MaxMore:
			found.Places = append(found.Places, f.where)
		case !same && len(found.More) < delivery.MaxMore:
			found.More = append(found.More, f.where+": "+f.text)
		}
	}
	return c.result
}

// level returns the level of a problem of an annotation file. judged is true for eval sets.
func level(k coco.Kind, judged bool) string {
	if r := Rules[rank(string(k))]; r.Level != Some {
		return r.Level
	}
	if judged {
		return delivery.LevelError
	}
	return delivery.LevelWarning
}

// prefix stands before the names of the split's images in findings.
func (s *split) prefix() string {
	if s.dir != "" {
		return s.dir
	}
	return s.name + ": "
}

// place returns where a problem of an annotation file is: the image and the number of the box, if they are known.
func (s *split) place(dataset string, p coco.Problem) string {
	prefix := dataset + s.prefix()
	switch {
	case p.File == "":
		return dataset + s.annotations + ": " + p.Path
	case p.Box > 0:
		return fmt.Sprintf("%s, box %d", shown(prefix+p.File), p.Box)
	}
	return shown(prefix + p.File)
}

// field returns the last part of a problem's path, as bbox.
func field(p coco.Problem) string { return p.Path[strings.LastIndexByte(p.Path, '.')+1:] }

// shown quotes a path if it could be misread: with spaces at an end, a comma before a space, invisible characters, or
// bytes that are no text.
func shown(path string) string {
	odd := func(r rune) bool { return r != ' ' && !unicode.IsGraphic(r) || unicode.IsSpace(r) && r != ' ' }
	if strings.TrimSpace(path) != path || strings.ContainsFunc(path, odd) || strings.Contains(path, ", ") ||
		!utf8.ValidString(path) {
		return strconv.Quote(path)
	}
	return path
}

// Shown quotes the path of an image if it could be misread.
func Shown(path string) string { return shown(path) }

// quoted lists names in quotes, at most 20 of them.
func quoted(names []string) string {
	const most = 20
	var out []string
	for _, n := range names[:min(len(names), most)] {
		out = append(out, strconv.Quote(n))
	}
	if more := len(names) - most; more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, ", ")
}
