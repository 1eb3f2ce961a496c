package profile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/intent"
)

// A file is a file of profiles.
type file struct {
	APIVersion string             `json:"apiVersion" check:"oneof=aob/v1" doc:"The format: aob/v1."`
	Kind       string             `json:"kind" check:"oneof=Profiles" doc:"Profiles."`
	Profiles   map[string]changes `json:"profiles" check:"nonempty,keys=name" doc:"The profiles by their names."`
}

// changes are what a profile of a file sets. The rest is taken from another profile.
type changes struct {
	From      string          `json:"from" check:"name" doc:"The profile that this one starts with, as in cpu-fp32."`
	For       *string         `json:"for,omitempty" check:"optional,text"`
	Provider  *string         `json:"provider,omitempty" check:"optional,oneof=cpu|cuda|tensorrt"`
	Precision *string         `json:"precision,omitempty" check:"optional,oneof=fp32|fp16|int8"`
	Threads   *int            `json:"threads,omitempty" check:"optional,min=0,max=1024"`
	Memory    *delivery.Bytes `json:"memory,omitempty" check:"optional,min=0B,max=4096GiB"`
	Swap      *string         `json:"swap,omitempty" check:"optional,oneof=overlap|stop-first"`
	Load      *Timeout        `json:"load,omitempty" check:"optional,min=1s,max=24h"`
	Device    *int            `json:"device,omitempty" check:"optional,min=0,max=63"`
	GPUMemory *delivery.Bytes `json:"gpuMemory,omitempty" check:"optional,min=0B,max=4096GiB"`
	Compute   *string         `json:"compute,omitempty" check:"optional,capability"`
	TensorRT  *engineChanges  `json:"tensorrt,omitempty" check:"optional"`
}

type engineChanges struct {
	Workspace []delivery.Bytes `json:"workspace,omitempty" check:"optional,nonempty,min=1MiB,max=1024GiB"`
	Level     *int             `json:"level,omitempty" check:"optional,min=0,max=5"`
	Typing    *string          `json:"typing,omitempty" check:"optional,oneof=strong|weak"`
	Batch     *int             `json:"batch,omitempty" check:"optional,min=1,max=1024"`
	DLA       *int             `json:"dla,omitempty" check:"optional,min=0,max=1"`
	Timeout   *Timeout         `json:"timeout,omitempty" check:"optional,min=1s,max=24h"`
	Memory    *delivery.Bytes  `json:"memory,omitempty" check:"optional,min=0B,max=4096GiB"`
}

// Parse reads a file of profiles. It returns the built-in ones followed by those of the file, sorted by name.
//
//	apiVersion: aob/v1
//	kind: Profiles
//	profiles:
//	  line-camera:
//	    from: orin-nano-fp16
//	    tensorrt: {workspace: [512MiB, 256MiB], timeout: 20m}
func Parse(name string, data []byte) ([]Profile, []delivery.Complaint) {
	list := Builtin()
	var f file
	complaints := intent.Decode(name, data, &f, func(complain func(path, text string)) {
		done := map[string]bool{}
		var add func(name string, below []string) bool
		add = func(name string, below []string) bool {
			at := intent.Member("profiles", name)
			c, own := f.Profiles[name]
			switch {
			case slices.Contains(Names(Builtin()), name):
				if own && len(below) == 0 {
					complain(at, "is a profile of AOB, which a file cannot change; choose another name")
				}
				return !own || len(below) > 0
			case !own:
				return false
			case slices.Contains(below, name):
				complain(at+".from", "starts with itself: "+strings.Join(append(below, name), " -> "))
				return false
			case done[name]:
				return slices.Contains(Names(list), name)
			}
			if !add(c.From, append(slices.Clip(below), name)) {
				if _, known := f.Profiles[c.From]; !known {
					complain(at+".from", fmt.Sprintf("there is no profile %q; want one of %s", c.From,
						strings.Join(Names(Builtin()), ", ")))
				}
				done[name] = true
				return false
			}
			done[name] = true
			from, err := Find(list, c.From)
			if err != nil {
				return false
			}
			p := c.apply(name, from)
			if key, why := p.fault(); why != "" {
				complain(at+"."+key, why)
				return false
			}
			list = append(list, p)
			return true
		}
		for _, name := range slices.Sorted(maps.Keys(f.Profiles)) {
			if !done[name] {
				add(name, nil)
			}
		}
	})
	if len(complaints) > 0 {
		return nil, complaints
	}
	own := list[len(Builtin()):]
	slices.SortFunc(own, func(a, b Profile) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// apply returns a profile with the changes.
func (c changes) apply(name string, p Profile) Profile {
	p.Name = name
	set(&p.For, c.For)
	set(&p.Precision, c.Precision)
	set(&p.Threads, c.Threads)
	set(&p.Swap, c.Swap)
	set(&p.Load, c.Load)
	if c.Provider != nil && *c.Provider != p.Provider {
		// What belongs to the other provider does not carry over.
		p.Provider, p.Memory, p.GPUMemory, p.Engine = *c.Provider, 0, 0, nil
		if p.Provider == CPU {
			p.Memory, p.Device, p.Compute = Default().Memory, 0, ""
		}
	}
	set(&p.Memory, c.Memory)
	set(&p.GPUMemory, c.GPUMemory)
	set(&p.Device, c.Device)
	set(&p.Compute, c.Compute)
	if e := c.TensorRT; e != nil {
		b := Builder{Level: 3, Typing: Strong, Batch: 1, Timeout: builtinTimeout, Workspace: []delivery.Bytes{1 << 30}}
		if p.Engine != nil {
			b = *p.Engine
		}
		if e.Workspace != nil {
			b.Workspace = e.Workspace
		}
		set(&b.Level, e.Level)
		set(&b.Typing, e.Typing)
		set(&b.Batch, e.Batch)
		set(&b.Timeout, e.Timeout)
		set(&b.Memory, e.Memory)
		if e.DLA != nil {
			b.DLA = e.DLA
		}
		p.Engine = &b
	}
	return p
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}
