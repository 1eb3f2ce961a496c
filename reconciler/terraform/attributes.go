package terraform

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// check returns where a planned resource differs from the policy. config is its expressions.
func (r Resource) check(change *tfjson.Change, config map[string]*tfjson.Expression,
	data map[string]map[string]any) (errs []error) {
	want, err := resolve(r.Values, data)
	if err != nil {
		return []error{fmt.Errorf("%s: %w", r.Address, err)}
	}
	wanted := want.(map[string]any)
	if tags, ok := wanted["tags"]; ok { // AWS: the tags, and the provider's own, which are none
		wanted["tags_all"] = tags
	}
	after, _ := change.After.(map[string]any)
	later, _ := change.AfterUnknown.(map[string]any)
	c := comparison{resource: r}
	c.object("", wanted, after, later, config)
	return c.errs
}

// A comparison collects where a planned resource differs from the policy.
type comparison struct {
	resource Resource
	errs     []error
}

func (c *comparison) refuse(name, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s: %s: %s", c.resource.Address, name, fmt.Sprintf(format, args...)))
}

// object compares the resource itself or a block. later marks what is known after apply.
func (c *comparison) object(prefix string, want, got, later map[string]any, config map[string]*tfjson.Expression) {
	names := map[string]bool{}
	for _, m := range []map[string]any{want, got, later} {
		for name := range m {
			names[name] = true
		}
	}
	for path := range c.resource.Refers {
		if name, ok := strings.CutPrefix(path, prefix); ok {
			name, _, _ = strings.Cut(name, ".")
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		path := prefix + name
		wanted, isWanted := want[name]
		refers, isReference := c.resource.Refers[path]
		unknown, isUnknown := later[name].(bool)
		blocks, isBlocks := wanted.([]any)
		switch {
		case isReference:
			c.reference(path, refers, config[name])
		case isUnknown && unknown && isWanted:
			c.refuse(path, "want %s, got a value that is known after apply", show(wanted))
		case isUnknown && unknown:
			if config[name] != nil {
				c.refuse(path, "the module must not set it")
			}
		case isBlocks && len(blocks) > 0 && isObjects(blocks):
			c.blocks(path, blocks, got[name], later[name], config[name])
		case isWanted && !same(wanted, got[name]):
			c.refuse(path, "want %s, got %s", show(wanted), show(got[name]))
		case !isWanted && !empty(got[name]):
			c.refuse(path, "the module must not set it, got %s", show(got[name]))
		}
	}
}

// blocks compares the blocks of a name, which must be as many, in the same order.
func (c *comparison) blocks(path string, want []any, got, later any, config *tfjson.Expression) {
	blocks, _ := got.([]any)
	marks, _ := later.([]any)
	if len(blocks) != len(want) {
		c.refuse(path, "want %d blocks, got %d", len(want), len(blocks))
		return
	}
	for i := range want {
		block, _ := blocks[i].(map[string]any)
		var unknown map[string]any
		if i < len(marks) {
			unknown, _ = marks[i].(map[string]any)
		}
		var expressions map[string]*tfjson.Expression
		if config != nil && config.ExpressionData != nil && i < len(config.NestedBlocks) {
			expressions = config.NestedBlocks[i]
		}
		c.object(path+".", want[i].(map[string]any), block, unknown, expressions)
	}
}

// reference compares what an expression refers to. Terraform lists a.b.c as a.b.c and a.b.
func (c *comparison) reference(path string, want []string, e *tfjson.Expression) {
	var got []string
	if e != nil && e.ExpressionData != nil {
		for _, r := range e.References {
			if !slices.ContainsFunc(e.References, func(other string) bool {
				return strings.HasPrefix(other, r+".")
			}) {
				got = append(got, r)
			}
		}
	}
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		c.refuse(path, "want a reference to %s, got one to %s", strings.Join(want, ", "), strings.Join(got, ", "))
	}
}

// configured returns the expressions of a resource.
func configured(plan *tfjson.Plan, address string) map[string]*tfjson.Expression {
	for _, r := range plan.Config.RootModule.Resources {
		if r.Address == address {
			return r.Expressions
		}
	}
	return nil
}

// resolve returns values as JSON has them, with the values of data sources in place.
func resolve(v any, data map[string]map[string]any) (any, error) {
	switch v := v.(type) {
	case FromData:
		value, ok := data[v.Address][v.Attribute]
		if !ok || value == nil {
			return nil, fmt.Errorf("the plan does not hold %s of %s", v.Attribute, v.Address)
		}
		return value, nil
	case map[string]any:
		out := map[string]any{}
		for name, inner := range v {
			value, err := resolve(inner, data)
			if err != nil {
				return nil, err
			}
			out[name] = value
		}
		return out, nil
	}
	return asJSON(v), nil
}

// asJSON returns a value with the types that encoding/json uses.
func asJSON(v any) any {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // a policy has only such values
	}
	var out any
	if err := json.Unmarshal(data, &out); err != nil {
		panic(err)
	}
	return out
}

// same reports whether two values are equal. Of texts that hold JSON objects, spaces and order do not matter.
func same(want, got any) bool {
	if reflect.DeepEqual(want, got) || empty(want) && empty(got) {
		return true
	}
	a, isText := want.(string)
	b, alsoText := got.(string)
	if !isText || !alsoText || !strings.HasPrefix(a, "{") || !strings.HasPrefix(b, "{") {
		return false
	}
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// empty reports whether a value is the same as none.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case bool:
		return !v
	case float64:
		return v == 0
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

func isObjects(list []any) bool {
	for _, v := range list {
		if _, ok := v.(map[string]any); !ok {
			return false
		}
	}
	return true
}

// show prints a value for a message, at most 200 bytes of it.
func show(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(data) > 200 {
		return fmt.Sprintf("%s… (%d bytes)", data[:200], len(data))
	}
	return string(data)
}

// sameProvider reports whether two full names are one provider. OpenTofu's registry has the same providers as
// Terraform's.
func sameProvider(got, want string) bool {
	return strings.Replace(got, "registry.opentofu.org/", "registry.terraform.io/", 1) == want
}
