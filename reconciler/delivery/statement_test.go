package delivery

import "testing"

// Who settles a gate's doubt, and what does not.
func TestSettled(t *testing.T) {
	judged := func(o Outcome, a *Accept) GateJudged {
		return GateJudged{Verdict: Verdict{Key: "k", Outcome: o}, Accept: a}
	}
	by := func(owner string, key Digest) *Accept { return &Accept{Verdict: key, By: "ada", As: owner} }
	for _, c := range []struct {
		name string
		j    GateJudged
		want bool
	}{
		{"pass", judged(Pass, nil), true},
		{"not applicable", judged(NotApplicable, nil), true},
		{"unsure", judged(Unsure, nil), false},
		{"unsure, accepted", judged(Unsure, by("leads", "k")), true},
		{"by no owner", judged(Unsure, by("ada", "k")), false},
		{"of another verdict", judged(Unsure, by("leads", "other")), false},
		{"a fail is never settled", judged(Fail, by("leads", "k")), false},
		{"nor is what says nothing", judged("", by("leads", "k")), false},
	} {
		if got := c.j.Settled([]string{"lead", "leads"}); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
