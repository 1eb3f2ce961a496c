package detect

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// slotTable is the table of trainers/rfdetr, whose classes.py has the same rules.
type slotTable struct {
	Sets map[string][]struct {
		ID            int64
		Name          string
		Supercategory string
	}
	Cases []struct {
		Version, Set string
		Annotated    []int64
		Slots        []string
		Refused      *string
	}
}

func readSlotTable(t *testing.T) (table slotTable) {
	t.Helper()
	data, err := os.ReadFile("../../trainers/rfdetr/test_epochs/slots.json")
	if err == nil {
		err = json.Unmarshal(data, &table)
	}
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func (s slotTable) categories(set string, annotated []int64) (list []Category) {
	for _, c := range s.Sets[set] {
		list = append(list, Category{c.ID, c.Name, c.Supercategory, slices.Contains(annotated, c.ID)})
	}
	return list
}

func TestSlotsOfCategories(t *testing.T) {
	table := readSlotTable(t)
	if len(table.Cases) < 20 {
		t.Fatalf("%d cases", len(table.Cases))
	}
	for _, c := range table.Cases {
		t.Run(fmt.Sprintf("%s %s %d", c.Version, c.Set, c.Annotated), func(t *testing.T) {
			got, err := SlotsOfCategories(c.Version, table.categories(c.Set, c.Annotated))
			if c.Refused != nil {
				if err == nil || !strings.Contains(err.Error(), *c.Refused) {
					t.Errorf("got %q, %v; want %q", got, err, *c.Refused)
				}
				return
			}
			// The root category, which no box has, is no class.
			for i, name := range c.Slots {
				if name == "cells" && !slices.Contains(c.Annotated, 0) {
					c.Slots[i] = ""
				}
			}
			if err != nil || !slices.Equal(got, c.Slots) {
				t.Errorf("got %q, %v; want %q", got, err, c.Slots)
			}
		})
	}
	many := make([]Category, maxSlots)
	for i := range many {
		many[i] = Category{ID: int64(i), Name: fmt.Sprint("c", i)}
	}
	for name, list := range map[string][]Category{"many": many,
		"the same name": {{0, "a", "", true}, {1, "a", "", true}},
		"a huge id":     {{0, "a", "none", true}, {1 << 62, "b", "x", true}}} {
		if got, err := SlotsOfCategories("1.4", list); err == nil {
			t.Errorf("%s: %d slots", name, len(got))
		}
	}
}

func TestFitCategories(t *testing.T) {
	table := readSlotTable(t)
	for _, c := range []struct {
		set   string
		slots int
		want  string // of %q, or in the error
	}{
		{"root", 5, `["" "Platelets" "RBC" "WBC" ""]`}, // 1.5 to 1.9.1 alone
		{"root", 4, "with another class in each (before 1.5: [\"\" \"Platelets\" \"RBC\" \"WBC\"]; since 1.9.2: "},
		{"root", 91, "no version of RF-DETR makes 91 slots of these categories (before 1.5: 4 slots; 1.5 to 1.9.1: 5 " +
			"slots; since 1.9.2: 4 slots)"},
		{"flat", 4, `["Platelets" "RBC" "WBC" ""]`},
		{"grouped", 4, `["Platelets" "RBC" "WBC" ""]`}, // all versions say the same
		{"far", 4, `["" "Platelets" "WBC" ""]`},
		{"none", 1, "0 categories"},
		{"twice", 3, "category id 0"},
	} {
		got, err := FitCategories(c.slots, table.categories(c.set, []int64{1, 2, 3, 9}))
		if said := fmt.Sprintf("%q%v", got, err); !strings.Contains(said, c.want) {
			t.Errorf("%s with %d: got %s, want %s", c.set, c.slots, said, c.want)
		}
	}
}

func TestResizeOf(t *testing.T) {
	for version, want := range map[string]string{"1.4.3": "uint8-antialias", "1.4": "uint8-antialias", "1.5": "",
		"1.10.0": "", "2": ""} {
		if got, err := ResizeOf(version); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", version, got, err, want)
		}
	}
	if got, err := ResizeOf("newest"); err == nil {
		t.Errorf("newest: got %q", got)
	}
}

func TestSlotLayout(t *testing.T) {
	for _, c := range []struct {
		slots []string
		want  string
	}{
		{nil, "every slot"},
		{[]string{""}, "no slot has a class"},
		{[]string{"a"}, "every slot"},
		{[]string{"a", "b", ""}, "the last slot has no class, as RF-DETR makes them since 1.5"},
		{[]string{"", "a", "b"}, "the first slot has no class, as RF-DETR before 1.5"},
		{[]string{"", "a", "b", ""}, "1.5 to 1.9.1"},
		{[]string{"a", "", "b"}, "1 slot without a class"},
		{[]string{"a", "", "b", ""}, "2 slots without a class"},
		{COCOSlots(), "COCO's own category ids"},
	} {
		if got := SlotLayout(c.slots); !strings.Contains(got, c.want) {
			t.Errorf("%q: %s, want %s", c.slots, got, c.want)
		}
	}
	// COCO has 80 classes with ids from 1 to 90.
	coco := COCOSlots()
	coco[1] = "changed"
	again := COCOSlots()
	if len(again) != 91 || again[0] != "" || again[1] != "person" || again[90] != "toothbrush" ||
		len(slices.DeleteFunc(slices.Clone(again), func(s string) bool { return s == "" })) != 80 {
		t.Errorf("COCO's slots are %q", again)
	}
}

func FuzzSlotsOfCategories(f *testing.F) {
	f.Add("1.9.1", `[{"ID":0,"Name":"cells","Group":"none"},{"ID":1,"Name":"RBC","Group":"cells","Annotated":true}]`, 3)
	f.Add("1.4", `[{"ID":9223372036854775807,"Name":"\u0000"}]`, 1)
	f.Fuzz(func(t *testing.T, version, document string, slots int) {
		var list []Category
		if json.Unmarshal([]byte(document), &list) != nil {
			return
		}
		if got, err := SlotsOfCategories(version, list); err == nil && (len(got) < 1 || len(got) > len(list)+1) {
			t.Errorf("%d slots of %d categories", len(got), len(list))
		}
		if got, err := FitCategories(slots, list); err == nil && len(got) != slots {
			t.Errorf("%d slots, want %d", len(got), slots)
		}
	})
}

func TestClips(t *testing.T) {
	for version, want := range map[string]bool{"1.0": false, "1.4.0.post0": false, "1.8": false, "1.8.2": false,
		"1.8.3": true, "1.9.1": true, "1.11.2": true, "1.12.0rc1": true, "2": true} {
		if got, err := Clips(version); err != nil || got != want {
			t.Errorf("%s: %t, %v", version, got, err)
		}
	}
	if _, err := Clips("newest"); err == nil {
		t.Error("newest: no error")
	}
}
