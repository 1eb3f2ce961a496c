package intent_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/autonomos/aob/reconciler/intent"
)

var update = flag.Bool("update", false, "write the schemas and golden files as they come out now")

func TestSchemasAreUpToDate(t *testing.T) {
	for _, kind := range intent.Kinds() {
		path := filepath.Join("..", "..", "schemas", strings.ToLower(kind)+".json")
		if *update {
			if err := os.WriteFile(path, intent.Schema(kind, builtIn(t).Trainers), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, intent.Schema(kind, builtIn(t).Trainers)) {
			t.Errorf("%s is not what the types say; run go test ./reconciler/intent -update", path)
		}
	}
}

// compiled returns the schemas as an independent library reads them.
func compiled(t testing.TB) map[string]*jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	schemas := make(map[string]*jsonschema.Schema)
	for _, kind := range intent.Kinds() {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(intent.Schema(kind, builtIn(t).Trainers)))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource(kind, doc); err != nil {
			t.Fatal(err)
		}
		// Compile checks the schema against the draft's own schema.
		if schemas[kind], err = c.Compile(kind); err != nil {
			t.Fatal(err)
		}
	}
	return schemas
}

// kindOf returns the kind of file that a path stands for, or "".
func kindOf(path string) string {
	folder, base := filepath.Split(path)
	switch {
	case filepath.Ext(base) != ".yaml":
		return ""
	case strings.HasSuffix(base, ".release.yaml") && folder == "models/":
		return "Release"
	case strings.HasSuffix(base, ".quarantine.yaml") && folder == "models/":
		return "Quarantine"
	}
	return map[string]string{"models/": "Model", "gates/": "Gate", "fleets/": "Fleet"}[folder]
}

// valid asks a schema what it thinks of a file. YAML that no JSON can be made of
// is left to Parse.
func valid(t testing.TB, s *jsonschema.Schema, data []byte) (err error, asked bool) {
	t.Helper()
	var v any
	if yaml.Unmarshal(data, &v) != nil {
		return nil, false
	}
	plain, err := json.Marshal(v)
	if err != nil {
		return nil, false
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(plain))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(instance), true
}

func TestSchemasAcceptTheExampleSet(t *testing.T) {
	schemas := compiled(t)
	for _, f := range embedded(t) {
		if err, _ := valid(t, schemas[kindOf(f.Path)], f.Data); err != nil {
			t.Errorf("%s: %v", f.Path, err)
		}
	}
}

// What a file says by itself, a schema judges as Parse does, but for the files
// that say "only Parse sees this": equal values in a list, sums, other files.
func TestSchemasAgreeWithParse(t *testing.T) {
	schemas := compiled(t)
	asked := 0
	for path, a := range golden(t) {
		if filepath.Base(path) == "yaml.txtar" || filepath.Base(path) == "args.txtar" {
			continue // about YAML itself, and about a trainer's schema
		}
		files, _ := split(a)
		for _, f := range files {
			kind := kindOf(f.Path)
			if kind == "" || strings.Contains(f.Path, "/.") {
				continue
			}
			_, complaints := intent.Parse([]intent.File{f}, options(t))
			wrong := false
			for _, c := range complaints {
				wrong = wrong || c.Line > 0 && !strings.Contains(c.Text, "unknown model") &&
					!strings.Contains(c.Text, "unknown fleet")
			}
			err, ok := valid(t, schemas[kind], f.Data)
			hidden := strings.HasPrefix(string(f.Data), "# only Parse sees this\n")
			switch {
			case !ok:
			case !wrong && err != nil:
				t.Errorf("%s: %s: Parse has no complaint, and the schema says: %v", path, f.Path, err)
			case wrong && err == nil && !hidden:
				t.Errorf("%s: %s: the schema accepts it, and Parse complains: %v", path, f.Path, complaints)
			case err != nil && hidden:
				t.Errorf("%s: %s: the schema sees it too; take the note out: %v", path, f.Path, err)
			}
			asked++
		}
	}
	if asked < 50 {
		t.Errorf("only %d files were compared", asked)
	}
}
