package detect

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// A Category is a category of a COCO annotation file, in the layout of Roboflow.
type Category struct {
	ID        int64
	Name      string
	Group     string // its supercategory
	Annotated bool   // a box has it
}

// SlotsOfCategories returns the class of each slot of a model that a version of RF-DETR trained on these categories; ""
// is a slot without a class. A category that is only the group of others, and has no box, is no class. The package has
// changed three times how a category becomes a slot: see trainers/rfdetr/classes.py, whose rules these are.
func SlotsOfCategories(version string, categories []Category) ([]string, error) {
	number, err := versionNumber(version)
	if err != nil {
		return nil, err
	}
	ordered := slices.SortedFunc(slices.Values(categories), func(a, b Category) int { return cmp.Compare(a.ID, b.ID) })
	for i, c := range ordered {
		if c.ID < 0 || i > 0 && c.ID == ordered[i-1].ID {
			return nil, fmt.Errorf("category id %d: want different whole numbers from 0", c.ID)
		}
	}
	if len(ordered) == 0 || len(ordered) >= maxSlots {
		return nil, fmt.Errorf("%d categories, want 1 to %d", len(ordered), maxSlots-1)
	}
	names := map[string]bool{}
	groups := map[string]bool{}
	for _, c := range ordered {
		names[c.Name] = true
		if !slices.Contains([]string{"", "none", "null", c.Name}, c.Group) {
			groups[c.Group] = true
		}
	}
	unused := func(c Category) bool { return groups[c.Name] && !c.Annotated }
	if len(names) < len(ordered) {
		return nil, fmt.Errorf("a name occurs twice among the categories")
	}

	if slices.Compare(number, []int{1, 5}) < 0 {
		// The slot is the category's id. There is one slot more than there are categories in a group.
		width := 1
		for _, c := range ordered {
			if c.Group != "none" {
				width++
			}
		}
		slots := make([]string, width)
		for _, c := range ordered {
			switch {
			case c.ID >= int64(width):
				return nil, fmt.Errorf("category %d (%.100q) has no slot: RF-DETR %s makes %s of these categories",
					c.ID, c.Name, version, delivery.Count(width, "slot"))
			case !unused(c):
				slots[c.ID] = c.Name
			}
		}
		return slots, nil
	}
	// Slots are numbered from 0 in the order of ids, and one follows that is never trained.
	if left := slices.DeleteFunc(slices.Clone(ordered), unused); slices.Compare(number, []int{1, 9, 2}) >= 0 &&
		len(left) > 0 {
		ordered = left
	}
	slots := make([]string, len(ordered)+1)
	for i, c := range ordered {
		if !unused(c) {
			slots[i] = c.Name
		}
	}
	return slots, nil
}

// ResizeOf returns the resize of trainers/import that a version of RF-DETR was trained with, where it is not that of
// predict(): before 1.5, Pillow resized the pictures. An error means that there is no such version.
func ResizeOf(version string) (string, error) {
	number, err := versionNumber(version)
	if err == nil && slices.Compare(number, []int{1, 5}) < 0 {
		return "uint8-antialias", nil
	}
	return "", err
}

// ClippedSince is the first version of RF-DETR whose predict() cuts boxes to the image.
const ClippedSince = "1.8.3"

// Clips says whether predict() of a version of RF-DETR cuts boxes to the image. An error means that there is no such
// version.
func Clips(version string) (bool, error) {
	number, err := versionNumber(version)
	return err == nil && slices.Compare(number, []int{1, 8, 3}) >= 0, err
}

// producerOf returns the version of RF-DETR that a model's metadata names; "" for none.
func producerOf(e entries) string {
	m, err := parseMetadata(e)
	if err != nil || len(m.Producer) > maxVersion {
		return ""
	}
	return leadingNumber.FindString(m.Producer)
}

const maxVersion = 40

// slotRules are versions with each rule of SlotsOfCategories, and what a person calls them.
var slotRules = []struct{ version, name string }{
	{"1.4", "before 1.5"}, {"1.5", "1.5 to 1.9.1"}, {"1.9.2", "since 1.9.2"},
}

// FitCategories returns what SlotsOfCategories gives for the versions of RF-DETR whose models have this many slots. It
// is an error where there are none, or where they differ in which slot is which class.
func FitCategories(slots int, categories []Category) ([]string, error) {
	var found []string
	var fit, all []string
	for _, rule := range slotRules {
		list, err := SlotsOfCategories(rule.version, categories)
		if err != nil {
			all = append(all, rule.name+": "+err.Error())
			continue
		}
		all = append(all, fmt.Sprintf("%s: %s", rule.name, delivery.Count(len(list), "slot")))
		if len(list) != slots || fit != nil && slices.Equal(list, found) {
			continue
		}
		fit = append(fit, fmt.Sprintf("%s: %.400q", rule.name, list))
		found = list
	}
	switch len(fit) {
	case 0:
		return nil, fmt.Errorf("no version of RF-DETR makes %s of these categories (%s)", delivery.Count(slots, "slot"),
			strings.Join(all, "; "))
	case 1:
		return found, nil
	}
	return nil, fmt.Errorf("versions of RF-DETR make %s of these categories, with another class in each (%s)",
		delivery.Count(slots, "slot"), strings.Join(fit, "; "))
}

var leadingNumber = regexp.MustCompile(`^[0-9]{1,6}(\.[0-9]{1,6}){0,5}`)

func versionNumber(version string) (number []int, err error) {
	text := leadingNumber.FindString(version)
	if text == "" {
		return nil, fmt.Errorf("%.40q is not a version of RF-DETR; want one such as 1.9.1", version)
	}
	for part := range strings.SplitSeq(text, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, err
		}
		number = append(number, n)
	}
	return number, nil
}

// SlotLayout says in words which slots have no class.
func SlotLayout(slots []string) string {
	gaps := 0
	for _, name := range slots {
		if name == "" {
			gaps++
		}
	}
	first, last := len(slots) > 0 && slots[0] == "", len(slots) > 0 && slots[len(slots)-1] == ""
	switch {
	case gaps == 0:
		return "every slot has a class"
	case gaps == len(slots):
		return "no slot has a class"
	case gaps == 1 && last:
		return "the last slot has no class, as RF-DETR makes them since 1.5"
	case gaps == 1 && first:
		return "the first slot has no class, as RF-DETR before 1.5 makes them of an export of Roboflow"
	case gaps == 2 && first && last:
		return "the first and the last slot have no class, as RF-DETR 1.5 to 1.9.1 makes them of an export of Roboflow"
	case slices.Equal(slots, cocoSlots[:]):
		return "the slots are COCO's own category ids"
	}
	return delivery.Count(gaps, "slot") + " without a class"
}

// COCOSlots returns the classes of the slots of weights trained on COCO: the slot is COCO's own category id.
func COCOSlots() []string { return slices.Clone(cocoSlots[:]) }

var cocoSlots = [91]string{
	"", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
	"fire hydrant", "", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
	"elephant", "bear", "zebra", "giraffe", "", "backpack", "umbrella", "", "", "handbag", "tie", "suitcase",
	"frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
	"surfboard", "tennis racket", "bottle", "", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana",
	"apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
	"potted plant", "bed", "", "dining table", "", "", "toilet", "", "tv", "laptop", "mouse", "remote", "keyboard",
	"cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "", "book", "clock", "vase", "scissors",
	"teddy bear", "hair drier", "toothbrush",
}
