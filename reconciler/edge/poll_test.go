package edge

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/trust"
)

// Even a signed document may say anything: what is taken keeps its bounds.
func FuzzDocument(f *testing.F) {
	key, err := trust.Create(filepath.Join(f.TempDir(), "desired.pem"))
	if err != nil {
		f.Fatal(err)
	}
	a := &Agent{Config: Config{Ring: "north", Device: "d1", Keys: []trust.PublicKey{key.Public()}}}
	good, err := json.Marshal(doc(1, one, &two, 0.5))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"ring":"north","version":1,"release":{"bundle":"` + string(one.Bundle) + `"},"match":null,"soak":"1d","expires":"0001-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		envelope, err := trust.Sign(key, delivery.DesiredPayload, payload)
		if err != nil {
			return
		}
		taken, err := a.verify(envelope)
		if err != nil {
			return
		}
		d := taken.desired
		if d.Ring != "north" || d.Version < 1 || !(d.Share >= 0 && d.Share <= 1) || d.Soak < 0 {
			t.Errorf("taken: %+v", d)
		}
		p := Make(World{At: noon, Device: "d1", Desired: &d, Slots: map[string]Slot{}})
		if p.Do == Fetch {
			if _, err := delivery.ParseDigest(string(p.Target.Bundle)); err != nil {
				t.Errorf("would fetch: %v", err)
			}
		}
	})
}
