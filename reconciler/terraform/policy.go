package terraform

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	tfjson "github.com/hashicorp/terraform-json"
)

// A Policy lists everything that a plan may contain. Any other resource, provider, module, data source, attribute or
// command is refused.
type Policy struct {
	Resources []Resource // the plan must create each exactly once
	Data      []Data     // the plan may read each
}

// A Resource is one that the plan must create.
type Resource struct {
	Address  string // with the index, if it has one
	Provider string // the full name, as terraform.io/builtin/terraform

	// Values has every attribute that may be set, as the plan's JSON has it. A block is a list of maps. Attributes
	// that are left out must be null or empty, unless the provider sets them while it applies. A [FromData] is the
	// value of a data source.
	Values map[string]any
	// Refers has attributes that are known after apply, and the only references of their expressions. "target.input" is
	// the attribute input of the block target.
	Refers map[string][]string

	Commands []Command // its local-exec provisioners, in the order of the file
}

// A Data is a data source that the plan may read.
type Data struct {
	Address  string // without an index
	Provider string
	Values   map[string]any // values that are checked where it is read
}

// A FromData is the value of an attribute of a data source.
type FromData struct{ Address, Attribute string } // the address has the index, if the data source has one

// A Command is a local-exec provisioner with constant arguments. A command with interpolated values is refused.
type Command struct {
	Interpreter []string
	Command     string
	Folder      string // what working_dir refers to, as self.input
}

// check returns all reasons to refuse the plan.
func (p Policy) check(plan *tfjson.Plan) error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if plan.Complete != nil && !*plan.Complete || len(plan.DeferredChanges) > 0 {
		refuse("the plan is not complete")
	}
	if len(plan.ResourceDrift) > 0 {
		refuse("the state differs from what was applied")
	}
	if len(plan.ActionInvocations) > 0 {
		refuse("the plan invokes actions")
	}
	if plan.Config == nil || plan.Config.RootModule == nil {
		return errors.Join(append(errs, errors.New("the plan does not hold its configuration"))...)
	}
	data, err := p.readData(plan)
	errs = append(errs, err)
	planned := map[string]bool{}
	for _, c := range plan.ResourceChanges {
		want, ok := p.resource(c.Address)
		if !ok || planned[c.Address] {
			refuse("%s: no such resource is allowed", c.Address)
			continue
		}
		planned[c.Address] = true
		if c.Mode != tfjson.ManagedResourceMode || !sameProvider(c.ProviderName, want.Provider) {
			refuse("%s: want a resource of %s, got %s of %s", c.Address, want.Provider, c.Mode, c.ProviderName)
		}
		if c.Change == nil || !c.Change.Actions.Create() || c.Change.Importing != nil {
			refuse("%s: want it created, and nothing else done to it", c.Address)
			continue
		}
		errs = append(errs, want.check(c.Change, configured(plan, base(c.Address)), data)...)
	}
	for _, want := range p.Resources {
		if !planned[want.Address] {
			refuse("%s: the plan does not create it", want.Address)
		}
	}
	return errors.Join(append(errs, p.checkConfiguration(plan.Config)...)...)
}

// checkConfiguration returns what the configuration has that the policy does not allow.
func (p Policy) checkConfiguration(config *tfjson.Config) (errs []error) {
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, provider := range config.ProviderConfigs {
		if !slices.ContainsFunc(p.Resources, func(r Resource) bool {
			return sameProvider(provider.FullName, r.Provider)
		}) {
			refuse("provider %s is not allowed", provider.FullName)
		}
		if len(provider.Expressions) > 0 {
			refuse("provider %s is configured in the module", provider.FullName)
		}
	}
	for name := range config.RootModule.ModuleCalls {
		refuse("module.%s: no modules are allowed", name)
	}
	for _, r := range config.RootModule.Resources {
		if r.Mode == tfjson.DataResourceMode {
			if !slices.ContainsFunc(p.Data, func(d Data) bool { return d.Address == r.Address }) {
				refuse("%s: no such data source is allowed", r.Address)
			}
			continue
		}
		i := slices.IndexFunc(p.Resources, func(want Resource) bool { return base(want.Address) == r.Address })
		if i < 0 || r.Mode != tfjson.ManagedResourceMode {
			refuse("%s: no such %s resource is allowed", r.Address, r.Mode)
			continue
		}
		if got, want := commands(r.Provisioners), p.Resources[i].Commands; !reflect.DeepEqual(got, want) {
			refuse("%s: provisioners: want %+v, got %+v", r.Address, want, got)
		}
	}
	return errs
}

// readData checks the data sources that were read for the plan, and returns their values by address.
func (p Policy) readData(plan *tfjson.Plan) (map[string]map[string]any, error) {
	values := map[string]map[string]any{}
	if plan.PriorState == nil || plan.PriorState.Values == nil || plan.PriorState.Values.RootModule == nil {
		return values, nil
	}
	var errs []error
	for _, r := range plan.PriorState.Values.RootModule.Resources {
		if r.Mode != tfjson.DataResourceMode {
			continue
		}
		i := slices.IndexFunc(p.Data, func(d Data) bool { return d.Address == base(r.Address) })
		if i < 0 || !sameProvider(r.ProviderName, p.Data[i].Provider) {
			errs = append(errs, fmt.Errorf("%s of %s: no such data source is allowed", r.Address, r.ProviderName))
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(p.Data[i].Values)) {
			if want := asJSON(p.Data[i].Values[name]); !same(want, r.AttributeValues[name]) {
				errs = append(errs, fmt.Errorf("%s: %s: want %s, got %s", r.Address, name, show(want),
					show(r.AttributeValues[name])))
			}
		}
		values[r.Address] = r.AttributeValues
	}
	return values, errors.Join(errs...)
}

// base returns an address without its index.
func base(address string) string {
	address, _, _ = strings.Cut(address, "[")
	return address
}

func (p Policy) resource(address string) (Resource, bool) {
	i := slices.IndexFunc(p.Resources, func(r Resource) bool { return r.Address == address })
	if i < 0 {
		return Resource{}, false
	}
	return p.Resources[i], true
}

// commands converts provisioners. A provisioner that a Command cannot represent becomes
// one that equals no allowed command.
func commands(provisioners []*tfjson.ConfigProvisioner) []Command {
	var list []Command
	for _, p := range provisioners {
		var c Command
		known := p.Type == "local-exec" && len(p.Expressions) == 3
		for name, e := range p.Expressions {
			switch {
			case e == nil || e.ExpressionData == nil:
				known = false
			case name == "command":
				c.Command, _ = e.ConstantValue.(string)
			case name == "interpreter":
				words, _ := e.ConstantValue.([]any)
				for _, w := range words {
					word, ok := w.(string)
					known = known && ok
					c.Interpreter = append(c.Interpreter, word)
				}
			case name == "working_dir" && len(e.References) > 0:
				c.Folder = e.References[0]
			default:
				known = false
			}
		}
		if !known {
			c = Command{Command: "(" + p.Type + " with other settings)"}
		}
		list = append(list, c)
	}
	return list
}
