package evidence

import (
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

func FuzzDecodeStatement(f *testing.F) {
	bundle := delivery.Sum([]byte("bundle"))
	good, err := encodeStatement(abort, bundle, delivery.Abort{Fleet: "north", Model: "pallets", Bundle: bundle})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(
		[]byte(
			`{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://aob.dev/abort/v1",` +
				`"subject":[{}],"predicate":null}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		value, _, err := decodeStatement(abort, bundle, payload)
		if err != nil {
			return
		}
		a := value.(*delivery.Abort)
		if a.Bundle != bundle || a.Fleet == "" {
			t.Errorf("accepted %+v", a)
		}
		(&growing{Snapshot: *newSnapshot(), fresh: true}).add(value)
	})
}

// A snapshot that grows handles every kind that Load reads.
func TestSnapshotAddsEveryKind(t *testing.T) {
	for _, k := range snapshotKinds {
		value, _, _ := k.decode([]byte("{}"))
		(&growing{Snapshot: *newSnapshot(), fresh: true}).add(value)
	}
}
