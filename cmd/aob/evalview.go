package main

import (
	"fmt"
	"strings"

	"github.com/autonomos/aob/reconciler/coco"
	"github.com/autonomos/aob/reconciler/delivery"
)

// A section is one table of an evaluation.
type section struct {
	title string
	rows  [][]cell // the first is the heading
	note  string
}

// most is the number of confusions in the tables; -o json has all.
const most = 20

// evaluation prints the twelve numbers in the form of pycocotools, then tables.
func (t *terminal) evaluation(v *evaluation) {
	t.whole = !t.tty // in a file, long names of classes are not cut
	for _, n := range v.numbers() {
		title := "Average Precision  (AP)"
		if n.recall {
			title = "Average Recall     (AR)"
		}
		t.printf(" %s @[ IoU=%-9s | area=%6s | maxDets=%3d ] = %0.3f\n", title, n.iou, n.area, n.maxDets, n.value)
	}
	for _, s := range v.sections() {
		t.printf("\n%s\n", t.styled(bold, s.title))
		t.table("", s.rows)
		t.paragraph("", s.note)
	}
	if p := v.Pictures; p != nil {
		t.printf("\n%s of %s drawn into %s\n", delivery.Count(len(p.Files), "picture"), delivery.Count(p.Worse,
			"worse image"), p.Dir)
		for _, f := range p.Files {
			t.paragraph("  ", f.File+": "+f.Why)
		}
		for line := range strings.Lines(p.Trouble) {
			t.paragraph("  ", "not drawn: "+strings.TrimSpace(line))
		}
	}
	t.printf("\n")
	for _, note := range v.Notes {
		t.paragraph("", "note: "+note)
	}
	for _, line := range v.protocol() {
		t.printf("%s\n", t.styled(faint, line))
	}
}

// markdown returns the evaluation as Markdown.
func (v *evaluation) markdown() string {
	var b strings.Builder
	numbers := section{title: "COCO", rows: [][]cell{heading("METRIC", "IOU", "AREA", "MAXDETS", "VALUE")}}
	for _, n := range v.numbers() {
		numbers.rows = append(numbers.rows, cells(n.name, n.iou, n.area, fmt.Sprint(n.maxDets), figure(n.value)))
	}
	for _, s := range append([]section{numbers}, v.sections()...) {
		fmt.Fprintf(&b, "### %s\n\n", delivery.Markdown(s.title))
		for i, row := range s.rows {
			for _, c := range row {
				fmt.Fprintf(&b, "| %s ", delivery.Markdown(c.text))
			}
			b.WriteString("|\n")
			if i == 0 {
				b.WriteString(strings.Repeat("| --- ", len(row)) + "|\n")
			}
		}
		if s.note != "" {
			fmt.Fprintf(&b, "\n%s\n", delivery.Markdown(s.note))
		}
		b.WriteString("\n")
	}
	for _, note := range v.Notes {
		fmt.Fprintf(&b, "Note: %s\n\n", delivery.Markdown(note))
	}
	b.WriteString(strings.Join(delivery.Each(v.protocol(), delivery.Markdown), "  \n") + "\n")
	return b.String()
}

// protocol describes how the numbers were computed.
func (v *evaluation) protocol() []string {
	mode := "fixed: a truth with annotation id 0 counts like any other"
	if v.Protocol.Mode == coco.Strict {
		mode = "strict: as pycocotools, which never finds the truth with annotation id 0"
	}
	return []string{
		fmt.Sprintf("%s, %s", delivery.Count(v.Images, "image"), delivery.Count(v.Detections, "detection")),
		"mode " + mode,
		"protocol " + v.Digest,
	}
}

// A number is one of COCO's twelve.
type number struct {
	name, iou, area string
	maxDets         int
	recall          bool
	value           float64
}

func (v *evaluation) numbers() []number {
	s, limits := v.Stats, v.Protocol.MaxDets
	last := limits[2]
	headline := last
	if v.Protocol.Mode == coco.Strict {
		headline = 100 // whatever the limits are
	}
	const all = "0.50:0.95"
	return []number{
		{"AP", all, "all", headline, false, s.AP},
		{"AP50", "0.50", "all", last, false, s.AP50},
		{"AP75", "0.75", "all", last, false, s.AP75},
		{"APs", all, "small", last, false, s.APs},
		{"APm", all, "medium", last, false, s.APm},
		{"APl", all, "large", last, false, s.APl},
		{"AR1", all, "all", limits[0], true, s.AR1},
		{"AR10", all, "all", limits[1], true, s.AR10},
		{"AR100", all, "all", last, true, s.AR100},
		{"ARs", all, "small", last, true, s.ARs},
		{"ARm", all, "medium", last, true, s.ARm},
		{"ARl", all, "large", last, true, s.ARl},
	}
}

// figure formats a number from 0 to 1. -1 stands for no value.
func figure(v float64) string {
	if v < 0 {
		return "-"
	}
	return fmt.Sprintf("%.4f", v)
}

func signed(v float64) string { return fmt.Sprintf("%+.4f", v) }

// sections returns the tables that the flags ask for.
func (v *evaluation) sections() []section {
	list := []section{v.classes()}
	if v.Against != nil {
		list = append(list, v.Against.section())
	}
	if v.TIDE != nil {
		list = append(list, v.TIDE.section())
	}
	if v.Confusions != nil {
		list = append(list, confusions(v.Confusions))
	}
	if v.Thresholds != nil {
		list = append(list, operatingPoints(v.Thresholds))
	}
	if v.Curves != nil {
		list = append(list, curves(v.Curves))
	}
	return list
}

func (v *evaluation) classes() section {
	s := section{title: "Classes", rows: [][]cell{heading("CLASS", "AP", "AP50", "AP75",
		fmt.Sprintf("AR%d", v.Protocol.MaxDets[2]), "TRUTHS")}}
	for _, c := range v.PerClass {
		s.rows = append(s.rows, cells(c.Name, figure(c.AP), figure(c.AP50), figure(c.AP75), figure(c.AR100),
			fmt.Sprint(c.Truths)))
	}
	return s
}

func (a *against) section() section {
	s := section{title: "Against " + a.File, rows: [][]cell{heading("FIGURE", "THIS", "BASE", "DIFF", "AT LEAST",
		"AT MOST", "VERDICT")}}
	styles := map[coco.Answer]style{coco.Better: green, coco.Worse: red, coco.Unsure: yellow, coco.TooFew: faint}
	for _, f := range append([]coco.Finding{a.MAP, a.AP50}, a.Classes...) {
		name := f.Metric
		if f.Metric == "AP" {
			name = f.Class
		}
		verdict := string(f.Answer)
		switch {
		case f.Answer == coco.TooFew:
			verdict = f.Reason
		case f.Reason != "":
			verdict += ": " + f.Reason
		}
		row := cells(name, figure(f.A), figure(f.B), signed(f.Diff), signed(f.Lower), signed(f.Upper), verdict)
		if f.A < 0 {
			row = cells(name, "-", "-", "-", "-", "-", verdict)
		}
		row[len(row)-1].style = styles[f.Answer]
		s.rows = append(s.rows, row)
	}
	what := "image"
	if a.Sampling.ByGroup {
		what = "group"
	}
	s.note = fmt.Sprintf("%s of %s, seed %d; each bound is one-sided at %g %%, over classes by Holm's method. It "+
		"covers the choice of test images, not the noise of training.",
		delivery.Count(a.Sampling.Resamples, "resample"), delivery.Count(a.Sampling.Units, what), a.Sampling.Seed,
		a.Sampling.Confidence*100)
	if a.MaxDets != 100 {
		s.note += fmt.Sprintf(" All of it at %d detections an image and class.", a.MaxDets)
	}
	return s
}

func (e *errorCosts) section() section {
	s := section{title: "TIDE", rows: [][]cell{heading("ERROR", "COUNT", "AP50 COST", "MOST IN")}}
	for i, v := range e.Errors {
		where, worst := "", 0.0
		for _, c := range e.PerClass {
			if d := c.Errors[i].DAP; d > worst {
				where, worst = fmt.Sprintf("%s (%s of its AP50)", c.Name, signed(d)), d
			}
		}
		s.rows = append(s.rows, cells(v.Type.String(), fmt.Sprint(v.Count), signed(v.DAP), where))
	}
	s.note = fmt.Sprintf("What AP50, now %s, would gain if errors of one type were corrected: wrong class, wrong "+
		"place, both, duplicate, on background, missed.", figure(e.AP50))
	return s
}

func confusions(list []coco.Confusion) section {
	s := section{title: "Confusions", rows: [][]cell{heading("TRUTH", "TAKEN FOR", "COUNT", "TRUTHS")}}
	for _, c := range list[:min(len(list), most)] {
		s.rows = append(s.rows, cells(c.Truth, c.Detected, fmt.Sprint(c.Count), fmt.Sprint(c.Truths)))
	}
	s.note = "Detections from each class's score of best F1 up."
	if more := len(list) - most; more > 0 {
		s.note += fmt.Sprintf(" And %s; -o json has all.", delivery.Count(more, "rarer pair"))
	}
	return s
}

func operatingPoints(list []coco.OperatingPoint) section {
	s := section{title: "Best F1 at IoU 0.50", rows: [][]cell{heading("CLASS", "SCORE", "F1", "PRECISION", "RECALL",
		"TRUTHS")}}
	for _, p := range list {
		score, precision, recall := "-", "-", "-"
		if p.F1 > 0 {
			score, precision, recall = fmt.Sprintf("%.4f", p.Score), figure(p.Precision), figure(p.Recall)
		}
		s.rows = append(s.rows, cells(p.Name, score, figure(p.F1), precision, recall, fmt.Sprint(p.Truths)))
	}
	return s
}

// curves shows the precision at recalls 0, .1, … 1.
func curves(list []coco.ClassCurves) section {
	s := section{title: "Precision at recall, IoU 0.50", rows: [][]cell{heading("CLASS")},
		note: "-o json has all recalls, IoU thresholds and scores."}
	for r := 0; r <= 100; r += 10 {
		s.rows[0] = append(s.rows[0], heading(fmt.Sprintf(".%02d", r))...)
	}
	s.rows[0][11].text = "1"
	for _, c := range list {
		row := cells(c.Name)
		for r := 0; r <= 100; r += 10 {
			text := "-"
			if len(c.Curves) > 0 {
				text = fmt.Sprintf("%.2f", c.Curves[0].Precision[r])
			}
			row = append(row, cells(text)...)
		}
		s.rows = append(s.rows, row)
	}
	return s
}
