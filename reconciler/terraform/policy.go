package terraform

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	tfjson "github.com/hashicorp/terraform-json"
)

// A Policy lists everything that a plan may contain. Any other resource, provider,
// module, data source or command is refused.
type Policy struct {
	Resources []Resource // the plan must create each exactly once
}

// A Resource is one that the plan must create.
type Resource struct {
	Address  string
	Provider string         // the full name, as terraform.io/builtin/terraform
	Values   map[string]any // planned values that are checked
	Commands []Command      // its local-exec provisioners, in the order of the file
}

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
	planned := map[string]bool{}
	for _, c := range plan.ResourceChanges {
		want, ok := p.resource(c.Address)
		if !ok || planned[c.Address] {
			refuse("%s: no such resource is allowed", c.Address)
			continue
		}
		planned[c.Address] = true
		if c.Mode != tfjson.ManagedResourceMode || c.ProviderName != want.Provider {
			refuse("%s: want a resource of %s, got %s of %s", c.Address, want.Provider, c.Mode, c.ProviderName)
		}
		if c.Change == nil || !c.Change.Actions.Create() {
			refuse("%s: want it created, and nothing else done to it", c.Address)
			continue
		}
		after, _ := c.Change.After.(map[string]any)
		for name, value := range want.Values {
			if !reflect.DeepEqual(after[name], value) {
				refuse("%s: %s: want %v, got %v", c.Address, name, value, after[name])
			}
		}
	}
	for _, want := range p.Resources {
		if !planned[want.Address] {
			refuse("%s: the plan does not create it", want.Address)
		}
	}
	if plan.Config == nil || plan.Config.RootModule == nil {
		return errors.Join(append(errs, errors.New("the plan does not hold its configuration"))...)
	}
	for _, provider := range plan.Config.ProviderConfigs {
		if !slices.ContainsFunc(p.Resources, func(r Resource) bool { return r.Provider == provider.FullName }) {
			refuse("provider %s is not allowed", provider.FullName)
		}
		if len(provider.Expressions) > 0 {
			refuse("provider %s is configured in the module", provider.FullName)
		}
	}
	for name := range plan.Config.RootModule.ModuleCalls {
		refuse("module.%s: no modules are allowed", name)
	}
	for _, r := range plan.Config.RootModule.Resources {
		want, ok := p.resource(r.Address)
		if !ok || r.Mode != tfjson.ManagedResourceMode {
			refuse("%s: no such %s resource is allowed", r.Address, r.Mode)
			continue
		}
		if got := commands(r.Provisioners); !reflect.DeepEqual(got, want.Commands) {
			refuse("%s: provisioners: want %+v, got %+v", r.Address, want.Commands, got)
		}
	}
	return errors.Join(errs...)
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
