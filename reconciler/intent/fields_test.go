package intent

import (
	"reflect"
	"testing"
)

// Every tag of every type is understood, and every default keeps its own rules.
func TestTags(t *testing.T) {
	walk(func(path string, f *field) {
		if f.doc == "" {
			t.Errorf("%s has no doc", path)
		}
		if f.def == nil {
			return
		}
		d := &document{spots: map[string]spot{}}
		d.decodeValue(f.def, reflect.New(f.typ).Elem(), &f.rules, path, nil)
		for _, c := range d.list {
			t.Errorf("default of %s: %s", path, c)
		}
	})
}

// walk visits every field of every kind.
func walk(visit func(path string, f *field)) {
	var in func(path string, typ reflect.Type)
	in = func(path string, typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || isText(typ) || custom(typ) != nil {
			return
		}
		for _, f := range fieldsOf(typ) {
			visit(path+"."+f.key, f)
			if custom(f.typ) == nil {
				in(path+"."+f.key, f.typ)
			}
		}
	}
	for kind, typ := range kindTypes {
		in(kind, typ)
	}
}
