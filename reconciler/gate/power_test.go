package gate

import (
	"math"
	"testing"

	"github.com/autonomos/aob/reconciler/delivery"
)

func TestPowers(t *testing.T) {
	release := scored(0.5, 0.1, map[string]float64{"a": 0.5, "b": 0.5}).Scores
	g := delivery.Gate{Classes: []string{"a", "b"}, Checks: []delivery.GateCheck{minimum("mAP", 0.4),
		maxDrop("mAP", 0.01), with(maxDrop("AP", 0.2), all),
		with(maxDrop("AP50", 0.5), func(c *delivery.GateCheck) { c.Confidence = 0.8 })}}
	list := Powers(g, release, nil)
	if len(list) != 4 {
		t.Fatalf("%+v", list)
	}
	se := math.Sqrt2 * 0.1 * math.Sqrt(1.0/3) // of an even spread to 0.1 on each side
	p := list[0]
	if math.Abs(p.StdErr-se) > 1e-3 || !p.AtMost || math.Abs(p.Smallest-(1.6449+0.8416)*se) > 1e-3 ||
		p.EqualPasses > 0.1 || p.Images != 72 {
		t.Errorf("from the release alone: %+v", p)
	}
	if list[1].Smallest <= p.Smallest {
		t.Error("two classes show no less than one mean")
	}
	if p.Check != "mAP drop <= 0.01" || math.Abs(p.Smallest-0.2033) > 1e-4 || math.Abs(p.EqualPasses-0.06) > 0.005 {
		t.Errorf("%+v", p)
	}
	if p := list[3]; p.EqualPasses < 0.995 || p.Smallest > p.MaxDrop {
		t.Errorf("%+v", p)
	}
	// What was compared there says it better: the same models on the same images.
	v := Judge("g", g, against(Input{Classes: g.Classes,
		Candidate: scored(0.5, 0.1, map[string]float64{"a": 0.5, "b": 0.5})},
		scored(0.5, 0.1, map[string]float64{"a": 0.5, "b": 0.5}), 0.02))
	p = Powers(g, release, []delivery.Verdict{v})[0]
	if p.AtMost || math.Abs(p.StdErr-0.018/1.6449) > 1e-3 {
		t.Errorf("from a comparison: %+v", p)
	}
	// Four times in five a drop that large fails the check: the bound lies below.
	if z := (p.Smallest - 0.018) / p.StdErr; math.Abs(normal(z)-0.8) > 0.01 {
		t.Errorf("it shows %.3f of the time", normal(z))
	}
}
