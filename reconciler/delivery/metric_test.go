package delivery

import (
	"slices"
	"strings"
	"testing"
)

// The table of metrics says of each what a check may ask.
func TestMetricsAreWhole(t *testing.T) {
	for _, m := range Metrics() {
		switch {
		case m.Name == "" || m.Doc == "" || m.Of == "" || m.Unit == "":
			t.Errorf("%+v lacks a name, a text, what it is of or a unit", m)
		case strings.ContainsAny(m.Name, "/ "):
			t.Errorf("%s: a name is a part of the name of a figure, as NAME/CLASS", m.Name)
		case !strings.HasPrefix(m.Example(), m.Bounds()[0]+": "):
			t.Errorf("%s is bounded by %v, and its example is %q", m.Name, m.Bounds(), m.Example())
		case m.Mean != "" && (m.Of != OfClass || MetricOfFigure(m.Mean).Of != OfClasses):
			t.Errorf("%s: its mean is %q", m.Name, m.Mean)
		}
		if got := MetricOfFigure(m.Name + "/a class"); got != m {
			t.Errorf("a class's figure of %s is taken for %q", m.Name, got.Name)
		}
	}
	if m := MetricOfFigure("looks"); m != (Metric{}) {
		t.Errorf("looks is no metric, got %+v", m)
	}
}

// People see headline metrics first.
func TestFiguresAreInOrder(t *testing.T) {
	got := []string{"recall", "AP/b", "AP75", "AP/a", "mAP", "AP50"}
	slices.SortFunc(got, CompareFigures)
	if want := []string{"mAP", "AP50", "AP75", "AP/a", "AP/b", "recall"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
