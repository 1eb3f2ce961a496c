package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "write schema.json from the complete schema")

// schema.json has what the complete schema says about the types that this provider knows.
func TestSchema(t *testing.T) {
	shared := os.Getenv("AOB_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	data, err := os.ReadFile(filepath.Join(shared, "terraform", "aws-provider-5.32-schema.json"))
	if err != nil {
		t.Skipf("the complete schema is not here: %v", err)
	}
	var all struct {
		Providers map[string]struct {
			Provider    any            `json:"provider"`
			Resources   map[string]any `json:"resource_schemas"`
			DataSources map[string]any `json:"data_source_schemas"`
		} `json:"provider_schemas"`
	}
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	real := all.Providers["registry.terraform.io/hashicorp/aws"]
	resources, dataSources := map[string]any{}, map[string]any{}
	for name := range kinds {
		resources[name] = real.Resources[name]
	}
	for name := range sources {
		dataSources[name] = real.DataSources[name]
	}
	want := map[string]any{"provider": real.Provider, "resource_schemas": resources, "data_source_schemas": dataSources}
	if *update {
		out, err := lines(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("schema.json", out, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	var got map[string]any
	if err := json.Unmarshal(schemaJSON, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Error("schema.json differs from the complete schema: go test -run TestSchema -update, and read the diff")
	}
}

// lines prints the schema with a line for each type.
func lines(s map[string]any) ([]byte, error) {
	provider, err := json.Marshal(s["provider"])
	out := append([]byte("{\n\"provider\": "), provider...)
	for _, kind := range []string{"resource_schemas", "data_source_schemas"} {
		types, _ := s[kind].(map[string]any)
		out = append(out, (",\n\"" + kind + "\": {\n")...)
		for i, name := range slices.Sorted(maps.Keys(types)) {
			data, failed := json.Marshal(types[name])
			err = errors.Join(err, failed)
			if i > 0 {
				out = append(out, ",\n"...)
			}
			out = fmt.Appendf(out, "%q: %s", name, data)
		}
		out = append(out, "\n}"...)
	}
	return append(out, "\n}\n"...), err
}

// Every type of the schema has its calls, and the reverse.
func TestKinds(t *testing.T) {
	p, err := newProvider()
	if err != nil {
		t.Fatal(err)
	}
	for name := range p.resources {
		if kinds[name].create == nil || kinds[name].read == nil || kinds[name].delete == nil {
			t.Errorf("%s: no calls", name)
		}
	}
	for name := range kinds {
		if p.resources[name] == nil {
			t.Errorf("%s: no schema", name)
		}
	}
	for name := range p.dataSources {
		if sources[name] == nil {
			t.Errorf("data %s: no calls", name)
		}
	}
}
