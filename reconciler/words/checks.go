package words

import (
	"fmt"

	"github.com/autonomos/aob/reconciler/code"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/gate"
)

// Reason says what decided a check.
func Reason(c delivery.CheckVerdict) string {
	if len(c.Because) == 0 {
		return c.Reason // of an older version of AOB
	}
	return Join(c.Because)
}

// Loss says what got worse: AP of WBC 0.1244, was 0.2285: -0.1040, at best -0.0461.
func Loss(l delivery.Loss) string {
	text := fmt.Sprintf("%s %.4f, was %.4f: %+.4f, at best %+.4f", l.Subject(), l.Value, l.Baseline, l.Diff, l.AtBest)
	switch {
	case l.Error != "":
		text += "; " + sentences[code.ErrorShare](&delivery.Values{Error: l.Error, Class: l.ErrorClass,
			Diff: l.ErrorAP50, Count: l.Errors})
	case l.Why != "":
		text += "; " + l.Why
	}
	return text
}

// PowerTitle introduces the smallest drops that a gate can detect.
func PowerTitle(m gate.ModelPower) string {
	images := delivery.Count(m.Images, "image")
	if m.Groups > 0 {
		images += " in " + delivery.Count(m.Groups, "group")
	}
	return fmt.Sprintf("what gate %s can detect for %s, on %s", m.Gate, m.Model, images)
}

// Power says how small a drop a check can detect.
func Power(p gate.Power) string {
	name := p.Check
	if p.Class != "" {
		name += ", " + p.Class
	}
	about := ""
	if p.AtMost {
		about = "at most "
	}
	if p.StdErr == 0 {
		return name + ": nothing varies between images, so any drop shows"
	}
	text := fmt.Sprintf("%s: the smallest drop that %s can show is %s%.4f; a model as good as the release passes "+
		"%.0f%% of the time", name, delivery.Count(p.Images, "image"), about, p.Smallest, 100*p.EqualPasses)
	if p.Smallest > p.MaxDrop {
		text += fmt.Sprintf(" and is unsure else; for a drop of %s it takes about %d images", num(p.MaxDrop), p.Need)
	}
	return text
}
