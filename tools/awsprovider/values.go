package main

import (
	"fmt"
	"math/big"

	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// An object has the attributes and blocks of a resource as JSON's types, and unknown{} for what is known after apply.
type object = map[string]any

type unknown struct{}

// fromValue converts a value of Terraform.
func fromValue(v tftypes.Value) (any, error) {
	if !v.IsKnown() {
		return unknown{}, nil
	}
	if v.IsNull() {
		return nil, nil
	}
	switch {
	case v.Type().Is(tftypes.String):
		var s string
		return s, v.As(&s)
	case v.Type().Is(tftypes.Bool):
		var b bool
		err := v.As(&b)
		return b, err
	case v.Type().Is(tftypes.Number):
		var f big.Float
		err := v.As(&f)
		n, _ := f.Float64()
		return n, err
	case v.Type().Is(tftypes.List{}), v.Type().Is(tftypes.Set{}), v.Type().Is(tftypes.Tuple{}):
		var values []tftypes.Value
		if err := v.As(&values); err != nil {
			return nil, err
		}
		list := make([]any, len(values))
		for i, value := range values {
			var err error
			if list[i], err = fromValue(value); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	var values map[string]tftypes.Value
	if err := v.As(&values); err != nil {
		return nil, fmt.Errorf("%s: %w", v.Type(), err)
	}
	out := object{}
	for name, value := range values {
		var err error
		if out[name], err = fromValue(value); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

// toValue converts to a value of Terraform of a type. Attributes that an object lacks are null.
func toValue(t tftypes.Type, v any) (tftypes.Value, error) {
	switch v := v.(type) {
	case unknown:
		return tftypes.NewValue(t, tftypes.UnknownValue), nil
	case nil:
		return tftypes.NewValue(t, nil), nil
	case string, bool:
		if err := tftypes.ValidateValue(t, v); err != nil {
			return tftypes.Value{}, err
		}
		return tftypes.NewValue(t, v), nil
	case float64:
		if t.Is(tftypes.String) {
			return tftypes.NewValue(t, fmt.Sprint(v)), nil
		}
		return tftypes.NewValue(t, big.NewFloat(v)), nil
	case []any:
		return listValue(t, v)
	case object:
		return objectValue(t, v)
	}
	return tftypes.Value{}, fmt.Errorf("%T is none of Terraform's values", v)
}

func listValue(t tftypes.Type, list []any) (tftypes.Value, error) {
	var element tftypes.Type
	switch t := t.(type) {
	case tftypes.List:
		element = t.ElementType
	case tftypes.Set:
		element = t.ElementType
	default:
		return tftypes.Value{}, fmt.Errorf("a list for a %s", t)
	}
	values := make([]tftypes.Value, len(list))
	for i, v := range list {
		var err error
		if values[i], err = toValue(element, v); err != nil {
			return tftypes.Value{}, err
		}
	}
	return tftypes.NewValue(t, values), nil
}

func objectValue(t tftypes.Type, o object) (tftypes.Value, error) {
	values := map[string]tftypes.Value{}
	switch t := t.(type) {
	case tftypes.Map:
		for name, v := range o {
			value, err := toValue(t.ElementType, v)
			if err != nil {
				return tftypes.Value{}, fmt.Errorf("%s: %w", name, err)
			}
			values[name] = value
		}
	case tftypes.Object:
		for name := range o {
			if _, ok := t.AttributeTypes[name]; !ok {
				return tftypes.Value{}, fmt.Errorf("the schema has no %s", name)
			}
		}
		for name, inner := range t.AttributeTypes {
			value, err := toValue(inner, o[name])
			if err != nil {
				return tftypes.Value{}, fmt.Errorf("%s: %w", name, err)
			}
			values[name] = value
		}
	default:
		return tftypes.Value{}, fmt.Errorf("an object for a %s", t)
	}
	return tftypes.NewValue(t, values), nil
}

// planned marks the computed attributes that nobody has set: they are known after apply.
func (b block) planned(o object) {
	for name, a := range b.Attributes {
		if a.Computed && o[name] == nil {
			o[name] = unknown{}
		}
	}
	for name, n := range b.Blocks {
		for _, element := range elements(o[name]) {
			n.Block.planned(element)
		}
	}
}

// settable returns an error for a value that the configuration must not set.
func (b block) settable(config object) error {
	for name, a := range b.Attributes {
		if !a.Required && !a.Optional && config[name] != nil {
			return fmt.Errorf("can't configure a value for %q: its value will be decided automatically based on the "+
				"result of applying this configuration", name)
		}
	}
	for name, n := range b.Blocks {
		for _, element := range elements(config[name]) {
			if err := n.Block.settable(element); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// merged returns what is in the world, where it was read, and else what was planned or in the state.
func (b block) merged(was, world object) object {
	out := object{}
	for name := range b.Attributes {
		if v, ok := world[name]; ok {
			out[name] = v
		} else if _, later := was[name].(unknown); !later {
			out[name] = was[name]
		}
	}
	for name, n := range b.Blocks {
		out[name] = was[name]
		list, isList := was[name].([]any)
		if !isList || len(list) == 0 {
			continue // a block that the configuration leaves out is not compared
		}
		found, read := world[name].([]any)
		if !read {
			found = make([]any, len(list))
		}
		merged := make([]any, len(found))
		for i := range found {
			var before object
			if i < len(list) {
				before, _ = list[i].(object)
			}
			now, _ := found[i].(object)
			merged[i] = n.Block.merged(before, now)
		}
		out[name] = merged
	}
	return out
}

// elements returns the blocks of a name.
func elements(v any) []object {
	var out []object
	switch v := v.(type) {
	case object:
		out = append(out, v)
	case []any:
		for _, e := range v {
			if o, ok := e.(object); ok {
				out = append(out, o)
			}
		}
	}
	return out
}

// text returns an attribute, or "" if it is not set.
func text(o object, name string) string {
	s, _ := o[name].(string)
	return s
}

// optional returns an attribute, or nil if it is not set.
func optional(o object, name string) *string {
	if s, ok := o[name].(string); ok && s != "" {
		return &s
	}
	return nil
}

func number(o object, name string) *int32 {
	f, ok := o[name].(float64)
	if !ok {
		return nil
	}
	n := int32(f)
	return &n
}

func boolean(o object, name string) *bool {
	b, ok := o[name].(bool)
	if !ok {
		return nil
	}
	return &b
}

func texts(o object, name string) []string {
	var out []string
	list, _ := o[name].([]any)
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// first returns the only block of a name, or nil.
func first(o object, name string) object {
	if list := elements(o[name]); len(list) > 0 {
		return list[0]
	}
	return nil
}

func list[T any](values []T, convert func(T) any) []any {
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = convert(v)
	}
	return out
}

// set puts an attribute that the world has; a null one stands for "".
func set(o object, name string, value *string) {
	if value != nil && *value != "" {
		o[name] = *value
	} else {
		o[name] = nil
	}
}
