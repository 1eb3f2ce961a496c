package intent

import "testing"

func TestNearest(t *testing.T) {
	known := []string{"mAP", "AP", "AP50", "size", "pallets", "forklifts", "optimizer"}
	for word, want := range map[string]string{
		"map": "mAP", "AP57": "AP50", "sise": "size", "szie": "size", "palets": "pallets", "forklift": "forklifts",
		"optimiser": "optimizer", "OPTIMIZER": "optimizer", "": "", "latency": "", "x": "", "palletsandmore": "",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}
