package intent_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/intent"
)

var update = flag.Bool("update", false, "write the schemas and golden files as they come out now")

func TestSchemasAreUpToDate(t *testing.T) {
	for _, kind := range intent.Kinds() {
		path := filepath.Join("..", "..", "schemas", strings.ToLower(kind)+".json")
		if *update {
			if err := os.WriteFile(path, intent.Schema(kind), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, intent.Schema(kind)) {
			t.Errorf("%s is not what the types say; run go test ./reconciler/intent -update", path)
		}
	}
}
