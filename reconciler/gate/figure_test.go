package gate

import (
	"fmt"
	"strings"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Checks of several classes have wider bounds than checks of one. A page shows one interval of a figure.
func TestFigureHasOneInterval(t *testing.T) {
	four := map[string]float64{"a": 0.4, "b": 0.8, "c": 0.8, "d": 0.8}
	candidate := func(width float64) Input { return Input{Model: "m", Candidate: scored(0.7, width, four)} }
	compared := against(candidate(0.02), scored(0.7, 0.02, map[string]float64{"a": 0.45, "b": 0.8, "c": 0.8, "d": 0.8}),
		0.02)
	only := func(class string, confidence ...delivery.Share) func(*delivery.GateCheck) {
		return func(c *delivery.GateCheck) {
			c.Classes.Names = []string{class}
			for _, c.Confidence = range confidence {
			}
		}
	}
	for name, c := range map[string]struct {
		in     Input
		checks []delivery.GateCheck
		want   string // of class a: the code, the confidence of its bounds, and which check has them
	}{
		"two floors that pass": {candidate(0.1), []delivery.GateCheck{with(minimum("AP", 0.3), all),
			with(minimum("AP", 0.35), only("a"))}, "check.reached 0.9875\ncheck.reached by AP >= 0.3"},
		"the one that fails": {candidate(0.1), []delivery.GateCheck{with(minimum("AP", 0.3), all),
			with(minimum("AP", 0.6), only("a"))}, "check.reached by AP >= 0.6\ncheck.below 0.95"},
		"two that fail": {candidate(0.1), []delivery.GateCheck{with(minimum("AP", 0.55), all),
			with(minimum("AP", 0.6), only("a"))}, "check.below 0.9875\ncheck.below by AP >= 0.55"},
		"two are unsure": {candidate(0.1), []delivery.GateCheck{with(minimum("AP", 0.42), only("a")),
			with(minimum("AP", 0.43), all), with(minimum("AP", 0.3), all)},
			"check.maybeReached 0.95\ncheck.maybeReached by AP >= 0.42\ncheck.reached by AP >= 0.42"},
		"the same bounds": {candidate(0.1), []delivery.GateCheck{with(minimum("AP", 0.3), only("a")),
			with(minimum("AP", 0.35), only("a"))}, "check.reached 0.95\ncheck.reached 0.95"},
		"other confidences": {candidate(0.1), []delivery.GateCheck{with(minimum("AP", 0.3), only("a")),
			with(minimum("AP", 0.35), only("a", 0.9))}, "check.reached 0.95\ncheck.reached by AP >= 0.3"},
		"mAP of one class is its AP": {candidate(0.1), []delivery.GateCheck{with(minimum("AP", 0.3), all),
			with(minimum("mAP", 0.35), only("a"))}, "check.reached 0.9875\ncheck.reached by AP >= 0.3"},
		"a drop is another figure than a value": {compared, []delivery.GateCheck{with(minimum("AP", 0.3), all),
			with(maxDrop("AP", 0.1), only("a"))}, "check.reached 0.9875\ndrop.allowed 0.95"},
		"two drops that pass": {compared, []delivery.GateCheck{with(maxDrop("AP", 0.1), all),
			with(maxDrop("AP", 0.08), only("a"))}, "drop.allowed 0.9875\ndrop.allowed by AP drop <= 0.1"},
		"two drops, one found": {compared, []delivery.GateCheck{with(maxDrop("AP", 0.1), all),
			with(maxDrop("AP", 0.02), only("a"))}, "drop.allowed by AP drop <= 0.02\ndrop.found 0.95"},
		"two drops that are unsure": {compared, []delivery.GateCheck{with(maxDrop("AP", 0.05), all),
			with(maxDrop("AP", 0.04), only("a"))}, "drop.unsure 0.95\ndrop.unsure by AP drop <= 0.05"},
		"an ignored one": {candidate(0.1), []delivery.GateCheck{with(minimum("AP", 0.42), func(c *delivery.GateCheck) {
			all(c)
			c.Unsure = "ignore"
		}), with(minimum("AP", 0.3), only("a"))}, "check.maybeReached by AP >= 0.3\ncheck.reached 0.95"},
		"means of other classes": {candidate(0.1), []delivery.GateCheck{minimum("mAP", 0.3), with(minimum("mAP", 0.35),
			func(c *delivery.GateCheck) { c.Except, c.Confidence = []string{"b"}, 0.9 })},
			"check.reached 0.95\ncheck.reached 0.9"},
		"means of the same": {candidate(0.1), []delivery.GateCheck{minimum("mAP", 0.3), with(minimum("mAP", 0.35),
			func(c *delivery.GateCheck) { c.Confidence = 0.9 })}, "check.reached 0.95\ncheck.reached by mAP >= 0.3"},
	} {
		t.Run(name, func(t *testing.T) {
			v := judge(c.in, c.checks...)
			var got []string
			for _, c := range v.Checks {
				if c.Class != "a" && c.Class != "" {
					continue
				}
				because := c.Because[0]
				line := fmt.Sprintf("%s %g", because.Code, because.Confidence)
				if c.Low == nil {
					line = fmt.Sprintf("%s by %s", because.Code, because.Text)
				}
				if (c.Low == nil) != (c.High == nil && because.Low == 0 && because.High == 0 && because.Facts == nil) {
					t.Errorf("the bounds of %s are in the check, and not in its reason, or the reverse", line)
				}
				got = append(got, line)
			}
			if got := strings.Join(got, "\n"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if v.Because[0].Text != "" { // what a status says of the gate is on the page too
				t.Errorf("the reason of the gate has no bounds: %v", v.Because)
			}
		})
	}
}
