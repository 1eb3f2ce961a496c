package plan

import (
	"reflect"
	"testing"

	"github.com/autonomos/aob/tools/hostile"
)

// Reports that share all lists are the same, and a change of any field is seen.
func TestSameReports(t *testing.T) {
	var r ProposalReport
	hostile.Fill(&r, "x")
	if !r.Same(r) {
		t.Error("a report is not the same as itself")
	}
	var copied ProposalReport
	hostile.Fill(&copied, "x")
	if !r.Same(copied) || !copied.Same(r) {
		t.Error("a copy is not the same")
	}
	fields := reflect.TypeFor[ProposalReport]()
	for i := range fields.NumField() {
		other := r
		field := reflect.ValueOf(&other).Elem().Field(i)
		if field.Kind() == reflect.Bool {
			field.SetBool(!field.Bool())
		} else {
			field.SetZero()
		}
		if r.Same(other) || other.Same(r) {
			t.Errorf("a change of %s is not seen", fields.Field(i).Name)
		}
	}
}
