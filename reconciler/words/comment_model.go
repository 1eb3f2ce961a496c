package words

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/plan"
)

// model writes about one changed model. What decides stands first and fits a phone; the rest is folded.
func (c *comment) model(m plan.ModelReport) {
	c.printf("**%s**", m.Model)
	if m.RenamedFrom != "" {
		c.printf(", until now **%s**, whose gates and release judge it", m.RenamedFrom)
	}
	if m.Baseline != nil {
		c.printf(", compared with version %d", m.Baseline.Version)
	}
	if m.Bundle != "" {
		c.printf("; what would ship is bundle `%s`", m.Bundle.Short())
	}
	c.printf("\n\n")
	if !m.Moved.IsZero() {
		c.printf("**Another version of the trainer:** %s.\n\n", m.Moved)
	}
	if !m.DataChanged.IsZero() {
		c.printf("**Changed data:** %s.", m.DataChanged)
		if m.DataChanged.FromDataset != "" {
			c.printf(" `aob data diff` shows which images and boxes have changed.")
		}
		c.printf("\n\n")
	}
	for _, f := range m.Carried {
		c.printf("**Gates of the fleet:** %s.\n\n", f)
	}
	for _, d := range m.Unsure {
		if d.Accept != nil {
			c.printf("Gate %s was unsure, and its owner %s accepted that: %s\n\n", d.Gate, d.Accept.By,
				d.Accept.Because)
		}
	}
	for _, v := range m.Verdicts {
		c.verdict(v, baselineOf(m, v.Gate))
		for _, link := range m.Links {
			if link.Gate == v.Gate && link.URL != "" {
				c.printf("[The images that got worse](%s), the worst first: ground truth, release and this model "+
					"side by side.\n\n", markdown(link.URL))
			}
		}
	}
	if len(m.Verdicts) > 0 {
		c.printf("Each bound is one-sided, by a bootstrap over the test images, at its check's confidence. Where a " +
			"check has several classes, each has a wider bound, so that all of them hold together. Bounds do not " +
			"include the noise of training: another seed may differ by more")
		if len(m.Seeds) < 2 {
			c.printf(", and `seeds: [1, 2, 3]` shows by how much")
		}
		c.printf(".\n\n")
	}
	if m.Tried != nil {
		c.validation(m)
	}
	c.seeds(m)
	c.variants(m)
	for _, e := range delivery.OneInterval(m.Measured, m.Verdicts) {
		c.fold(fmt.Sprintf("all figures of gate %s", e.Gate), func() { c.measured(e) })
	}
	if len(m.Points) > 0 {
		c.fold("thresholds, found on the validation split", func() { c.thresholds(m.Points) })
	}
	if m.Data != nil && len(m.Data.Findings) > 0 {
		c.fold("findings in the dataset", func() {
			for _, f := range m.Data.Findings {
				for _, line := range f.Lines() {
					c.printf("- %s: %s\n", f.Level, line)
				}
			}
			c.printf("\n")
		})
	}
}

func (c *comment) thresholds(points map[string]delivery.OperatingPoint) {
	c.table("class", "score threshold", "precision", "recall")
	classes := slices.Sorted(maps.Keys(points))
	for _, class := range classes {
		p := points[class]
		c.printf("| %s | %.3g | %.3f | %.3f |\n", class, p.Score, p.Precision, p.Recall)
	}
	c.printf("\n")
	for _, class := range classes {
		if note := points[class].Note; note != "" {
			c.printf("- %s: %s\n", class, note)
		}
	}
	c.printf("\n")
}

// validation writes how a draft does on its validation split.
func (c *comment) validation(m plan.ModelReport) {
	c.printf("On %s, compared with version %d:\n\n", delivery.Count(m.Tried.Images, "validation image"),
		m.Baseline.Version)
	c.table("", "value", "was", "change", "at worst", "at best")
	row := func(name, metric string, classes []string) {
		if d, ok := m.Tried.Compared(metric, classes); ok {
			low, high := d.Samples.Bounds(delivery.FigureConfidence)
			c.printf("| %s | %.4f | %.4f | %+.4f | %+.4f | %+.4f |\n", name, d.Candidate, d.Baseline, d.Value, low,
				high)
		}
	}
	row(delivery.MetricMAP, delivery.MetricMAP, m.Tried.Classes)
	row(delivery.MetricAP50, delivery.MetricAP50, m.Tried.Classes)
	for _, class := range m.Tried.Classes {
		row(delivery.MetricAP+"/"+class, delivery.MetricAP, []string{class})
	}
	c.printf("\nEach bound is one-sided and 95 %% sure. No gate has judged it: an eval set is opened when the pull " +
		"request is ready for review.\n\n")
}

// seeds writes how much the seeds of a spec differ.
func (c *comment) seeds(m plan.ModelReport) {
	if len(m.Seeds) < 2 {
		return
	}
	var list []string
	for _, s := range m.Seeds {
		result := "in training"
		switch {
		case s.Score != nil:
			result = fmt.Sprintf("%.4f", s.Score.Scores.Values[delivery.MetricMAP])
		case s.Bundle != "":
			result = "trained"
		}
		list = append(list, fmt.Sprintf("seed %d %s", s.Seed, result))
	}
	c.printf("mAP on validation, which is the noise of training: %s. The best one ships.\n\n", strings.Join(list, ", "))
}

// variants writes which variants of a model are released, how far they are from it, and how fast they are.
func (c *comment) variants(m plan.ModelReport) {
	if len(m.Variants) == 0 {
		return
	}
	c.printf("**Variants**, made of the trained model without training. FP32 alone decides about the release.\n\n")
	var made []plan.ModelVariant
	for _, v := range m.Variants {
		if v.Made != nil {
			made = append(made, v)
		}
		if v.State == delivery.CheckPending {
			c.printf("- %s: waiting\n", v.Variant)
		} else {
			c.printf("- %s: %s\n", v.Variant, v.Fact)
		}
	}
	c.printf("\n")
	if len(made) == 0 {
		return
	}
	c.table("", "MB", "ms (median)", "ms (95 %)", "boxes that agree", "change of scores", "cosine of outputs",
		"largest difference")
	ms := func(seconds float64) markdown { return markdown(fmt.Sprintf("%.2f", 1000*seconds)) }
	mb := func(bytes int64) markdown { return markdown(fmt.Sprintf("%.1f", float64(bytes)/1e6)) }
	r := made[0].Made.Result
	c.row(delivery.FP32, mb(r.OfSize), ms(r.Times.FP32.P50), ms(r.Times.FP32.P95), "", "", "", "")
	for _, v := range made {
		r := v.Made.Result
		c.row(v.Variant, mb(r.Size), ms(r.Times.Variant.P50), ms(r.Times.Variant.P95),
			markdown(fmt.Sprintf("%.1f %%", 100*r.Parity.F1())), number(r.Parity.ScoreShift), outputs(r.Parity.Cosine),
			outputs(r.Parity.Largest))
	}
	c.printf("\nTimes are for one image on this server (%s, %s, ONNX Runtime on %s), in %s with both models in turn. "+
		"A variant is faster if it is so in each, and by more than %g %% over all. A fleet gets the variant that its "+
		"file names, and FP32 if it names none. Boxes agree (F1) if class and place are the same, on %s, from a "+
		"score of %g on. Outputs are compared for one fixed input.\n\n", r.Times.Processor,
		delivery.Count(r.Times.Threads, "thread"), r.Times.Provider, delivery.Count(len(r.Times.Rounds), "round"),
		100*delivery.NoiseOfTimes, delivery.Count(r.Parity.Images, "validation image"), r.Parity.MinScore)
	c.reported(made)
}

// reported writes what trainers say of their variants' outputs.
func (c *comment) reported(made []plan.ModelVariant) {
	for _, v := range made {
		if p, ok := v.Made.Result.ReportedParity(); ok {
			c.printf("The trainer compared the outputs of %s on %s: cosine at least %s; largest difference %s.\n\n",
				v.Variant, delivery.Count(p.Images, "image"), outputs(p.Cosine), outputs(p.Largest))
		}
	}
}

// outputs lists a figure of each output tensor.
func outputs(figures map[string]float64) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		list = append(list, fmt.Sprintf("%s %.4g", name, figures[name]))
	}
	return strings.Join(list, ", ")
}

// measured writes one eval set's figures beside those of main's release.
func (c *comment) measured(e delivery.Measured) {
	heads := []any{delivery.Count(e.Images, "test image"), "value", "at least", "at most"}
	if e.Baseline != nil {
		heads = append(heads, fmt.Sprintf("version %d", e.Baseline.Version))
	}
	c.table(heads...)
	for _, name := range slices.SortedFunc(maps.Keys(e.Metrics), delivery.CompareFigures) {
		f := e.Metrics[name]
		cells := []any{name, number(f.Value), "", ""}
		if f.Low != nil && f.High != nil {
			cells[2], cells[3] = number(*f.Low), number(*f.High)
		}
		if e.Baseline != nil {
			cells = append(cells, "")
			if base, ok := e.Baseline.Metrics[name]; ok {
				cells[4] = number(base)
			}
		}
		c.row(cells...)
	}
	c.printf("\nEach bound is one-sided and 95 %% sure. The table of checks has the bounds of the other figures.\n\n")
}
