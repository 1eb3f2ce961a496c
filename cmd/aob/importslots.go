package main

// This file finds out which slot of an imported model is which class.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/durable"
)

// givenClasses is what --classes or --classes-file says.
type givenClasses struct {
	from       string            // the flag or the file; "" for none
	names      []string          // of slots, "" for a slot without a class
	categories []detect.Category // in place of names, of an annotation file
	version    string            // of RF-DETR, for categories; "" if it is not known
}

// maxClassesFile is the largest file for --classes-file.
const maxClassesFile = 1 << 30

// given reads --classes, --classes-file and --rfdetr.
func (r importRequest) given() (givenClasses, error) {
	g := givenClasses{from: "--classes", version: r.version}
	switch {
	case r.classes != "" && r.classesFile != "":
		return g, hinted{errors.New("--classes and --classes-file are both there"), "leave one of them out"}
	case r.classes != "":
		g.names = namesIn(r.classes)
	case r.classesFile != "":
		g.from = r.classesFile
		data, err := durable.ReadFile(r.classesFile, maxClassesFile)
		if err != nil {
			return g, fmt.Errorf("--classes-file: %w", err)
		}
		if err := g.read(data); err != nil {
			return g, hinted{fmt.Errorf("%s: %w", r.classesFile, err),
				"want a class in each line, a JSON list of classes, or a COCO annotation file"}
		}
	default:
		g.from = ""
	}
	if g.version != "" {
		if _, err := detect.Clips(g.version); err != nil {
			return g, fmt.Errorf("--rfdetr: %w", err)
		}
	}
	return g, g.check()
}

// read reads a file for --classes-file.
func (g *givenClasses) read(data []byte) error {
	switch text := bytes.TrimLeft(data, " \t\r\n"); {
	case bytes.HasPrefix(text, []byte("{")):
		return g.readCOCO(data)
	case bytes.HasPrefix(text, []byte("[")):
		return json.Unmarshal(data, &g.names)
	case len(data) > 1<<20:
		return fmt.Errorf("it has %s", delivery.Bytes(len(data)))
	}
	for line := range strings.Lines(string(data)) {
		g.names = append(g.names, strings.TrimSpace(line))
	}
	if len(g.names) == 0 {
		return errors.New("it is empty")
	}
	return nil
}

func (g *givenClasses) readCOCO(data []byte) error {
	var file struct {
		Categories []struct {
			ID    int64
			Name  string
			Group string `json:"supercategory"`
		}
		Annotations []struct {
			Category int64 `json:"category_id"`
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return err
	}
	if len(file.Categories) == 0 {
		return errors.New("it has no categories")
	}
	annotated := map[int64]bool{}
	for _, a := range file.Annotations {
		annotated[a.Category] = true
	}
	for _, c := range file.Categories {
		g.categories = append(g.categories, detect.Category{ID: c.ID, Name: c.Name, Group: c.Group,
			Annotated: annotated[c.ID]})
	}
	return nil
}

// check rejects names that no class may have.
func (g givenClasses) check() error {
	seen := map[string]bool{}
	for i, name := range g.names {
		if name == "" {
			continue
		}
		if err := delivery.CheckClass(name); err != nil {
			return fmt.Errorf("%s: slot %d: %w", g.from, i, err)
		}
		if seen[name] {
			return fmt.Errorf("%s: slots %d and %d are both %q", g.from, slices.Index(g.names, name), i, name)
		}
		seen[name] = true
	}
	return nil
}

func namesIn(classes string) []string {
	return delivery.Each(strings.Split(classes, ","), strings.TrimSpace)
}

func named(slots []string) []string {
	return slices.DeleteFunc(slices.Clone(slots), func(s string) bool { return s == "" })
}

// slots returns the class of each slot of a model without metadata. It does not guess which slots have no class:
// RF-DETR 1.4 and 1.11 give the same number of slots, with another class in each.
func (g givenClasses) slots(number int) ([]string, error) {
	if g.categories != nil {
		return g.slotsOfCategories(number)
	}
	coco := slices.Equal(g.names, []string{"coco"})
	switch {
	case coco && number == len(detect.COCOSlots()):
		return detect.COCOSlots(), nil
	case len(g.names) == number:
		return g.names, nil
	case coco:
		return nil, fmt.Errorf("--classes coco is for weights trained on COCO, with %d slots; the file has %d",
			len(detect.COCOSlots()), number)
	}
	err := fmt.Errorf("%s names %s, and the file has %s and no metadata", g.from, delivery.Count(len(g.names), "slot"),
		delivery.Count(number, "slot"))
	hint := "name each slot, in order, with nothing between two commas for a slot without a class"
	list := strings.Join(g.names, ",")
	switch len(g.names) {
	case number - 1:
		err = fmt.Errorf("%w: it does not say which slot has no class", err)
		hint = fmt.Sprintf("trained by RF-DETR 1.5 or later: --classes '%s,'; before 1.5, with category ids from 1: "+
			"--classes ',%[1]s'", list)
	case number - 2:
		hint = fmt.Sprintf("trained by RF-DETR 1.5 to 1.9.1 on an export of Roboflow: --classes ',%s,'", list)
	}
	return nil, hinted{err, hint}
}

func (g givenClasses) slotsOfCategories(number int) ([]string, error) {
	var found []string
	var err error
	hint := "--classes names the class of each slot, whatever trained the model"
	if g.version == "" {
		hint = "say which version trained it, as in --rfdetr 1.9.1, or name the class of each slot with --classes"
		found, err = detect.FitCategories(number, g.categories)
		if number == len(detect.COCOSlots()) {
			hint = "this is how many slots weights have that were trained on COCO: give --classes coco, or export " +
				"the fine-tuned checkpoint again, with as many classes as it has"
		}
	} else if found, err = detect.SlotsOfCategories(g.version, g.categories); err == nil && len(found) != number {
		err = fmt.Errorf("RF-DETR %s makes %s of these categories, %s, and the model has %d", g.version,
			delivery.Count(len(found), "slot"), delivery.FlowList(found), number)
	}
	if err != nil {
		return nil, hinted{fmt.Errorf("%s: %w", g.from, err), hint}
	}
	return found, givenClasses{from: g.from, names: found}.check()
}

// agree returns an error where what is given is not what the model's metadata says of its slots.
func (g givenClasses) agree(file string, slots []string) error {
	hint := "leave it out: the metadata is what the model's exporter knew"
	switch {
	case g.from == "" || slices.Equal(g.names, slots) || len(g.names) > 0 && slices.Equal(g.names, named(slots)):
		return nil
	case g.categories != nil:
		for i, name := range slots {
			same := func(c detect.Category) bool { return c.Name == name }
			if name != "" && !slices.ContainsFunc(g.categories, same) {
				return hinted{fmt.Errorf("slot %d is %q by the metadata of %s, and %s has no category of that name", i,
					name, filepath.Base(file), g.from), "name the annotation file that the model was trained with"}
			}
		}
		return nil
	case len(g.names) != len(slots):
		return hinted{fmt.Errorf("%s names %s, %s, and the metadata of %s %s, %s", g.from,
			delivery.Count(len(g.names), "slot"), delivery.FlowList(g.names), filepath.Base(file),
			delivery.Count(len(slots), "slot"), delivery.FlowList(slots)), hint}
	}
	for i, name := range slots {
		if name != g.names[i] {
			return hinted{fmt.Errorf("slot %d is %q by the metadata of %s, and %q by %s", i, name, filepath.Base(file),
				g.names[i], g.from), hint}
		}
	}
	return nil
}
