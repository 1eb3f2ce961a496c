package delivery

import (
	"fmt"
	"math"
	"slices"
)

// A Table holds what a bootstrap measured: for each class, on the eval set itself and in each resample of it, the
// values and counts that figures are computed from. Resample i is the same draw of images in every row and column, so
// a mean, a share or a difference over any list of classes is computed resample by resample, and its bounds are exact.
type Table struct {
	Classes []string         // the rows, in the order in which means add them up
	Images  Row              // how many images were drawn; it has no Resamples where it is always the same
	Columns map[string][]Row // by the names below and in [Metric.Column]; each has a row for every class
	// Overall is, by column, the value over all rows as COCO computes it. It adds up in another order than Figure does.
	Overall map[string]float64
}

// A Row is one class in one column. NaN stands for nothing to measure, as in a resample without a truth of the class.
type Row struct {
	Value     float64   // on the eval set itself
	Resamples []float64 // nil where there is nothing to measure in any
}

// The columns of counts at the model's score thresholds. Columns of values are named by [Metric.Column].
const (
	ColumnTruths = "truths" // what there is to find
	ColumnFound  = "found"  // truths that are found
	ColumnFalse  = "false"  // detections that are wrong
)

// nothing stands for nothing to measure.
var nothing = math.NaN()

// row is one class's row of a column, which may be missing.
func (t Table) row(column string, class int) Row {
	if rows := t.Columns[column]; class < len(rows) {
		return rows[class]
	}
	return Row{Value: nothing}
}

// resamples is how many there are.
func (t Table) resamples() int {
	n := len(t.Images.Resamples)
	for _, rows := range t.Columns {
		for _, r := range rows {
			n = max(n, len(r.Resamples))
		}
	}
	return n
}

// Figure computes a metric over a list of classes: a mean over those that have a truth, or a share of all that is
// there or found. Its Resamples are in the order of the draws. Value is NaN where there is nothing to measure.
func (t Table) Figure(metric string, classes []string) Row {
	wanted := make(map[string]bool, len(classes))
	for _, class := range classes {
		wanted[class] = true
	}
	var rows []int
	for i, class := range t.Classes {
		if wanted[class] {
			rows = append(rows, i)
		}
	}
	return t.Over(metric, rows)
}

// Over is Figure for classes by their place.
func (t Table) Over(metric string, rows []int) Row {
	m := MetricOfFigure(metric)
	if m.AtThreshold {
		return t.rate(m.Name, rows)
	}
	return t.mean(m.Column, rows)
}

// mean averages a column over those rows that have a value, in each resample anew.
func (t Table) mean(column string, classes []int) Row {
	out := Row{Value: nothing}
	var sum float64
	var kept [][]float64
	values := 0
	for _, class := range classes {
		r := t.row(column, class)
		if !math.IsNaN(r.Value) {
			sum, values = sum+r.Value, values+1
		}
		if r.Resamples != nil {
			kept = append(kept, r.Resamples)
		}
	}
	if values > 0 {
		out.Value = sum / float64(values)
	}
	if overall, ok := t.Overall[column]; ok && values == t.measured(column) {
		out.Value = overall
	}
	switch len(kept) {
	case 0:
		return out
	case 1:
		out.Resamples = kept[0]
		return out
	}
	out.Resamples = make([]float64, len(kept[0]))
	for i := range out.Resamples {
		sum, values := 0.0, 0
		for _, r := range kept {
			if v := r[i]; v == v { // not NaN
				sum, values = sum+v, values+1
			}
		}
		out.Resamples[i] = nothing
		if values > 0 {
			out.Resamples[i] = sum / float64(values)
		}
	}
	return out
}

// measured counts the rows of a column that have a value.
func (t Table) measured(column string) (n int) {
	for _, r := range t.Columns[column] {
		if !math.IsNaN(r.Value) {
			n++
		}
	}
	return n
}

// rate computes a metric at thresholds from counts that are added up over classes.
func (t Table) rate(metric string, classes []int) Row {
	out := Row{Value: nothing}
	if len(classes) == 0 || len(t.Columns[ColumnFound]) == 0 {
		return out
	}
	n := t.resamples()
	sums := [3][]float64{make([]float64, n), make([]float64, n), make([]float64, n)}
	var whole [3]float64
	for i, column := range []string{ColumnTruths, ColumnFound, ColumnFalse} {
		for _, class := range classes {
			r := t.row(column, class)
			whole[i] += r.Value
			for j, v := range r.Resamples {
				sums[i][j] += v
			}
		}
	}
	out.Value = rate(metric, whole[0], whole[1], whole[2], t.Images.Value)
	out.Resamples = make([]float64, n)
	images := t.Images.Value
	for i := range out.Resamples {
		if t.Images.Resamples != nil {
			images = t.Images.Resamples[i]
		}
		out.Resamples[i] = rate(metric, sums[0][i], sums[1][i], sums[2][i], images)
	}
	return out
}

// rate is a metric of counts; NaN where there is nothing to measure.
func rate(metric string, truths, found, wrong, images float64) float64 {
	of, all := nothing, 0.0
	switch metric {
	case MetricRecall:
		of, all = found, truths
	case MetricPrecision:
		of, all = found, found+wrong
	case MetricFalsePositives:
		of, all = wrong, images
	case MetricF1: // the harmonic mean of the first two, and 0 where nothing is right
		of, all = 2*found, found+wrong+truths
	}
	if all == 0 {
		return nothing
	}
	return of / all
}

// Minus subtracts another table of the same draws from this one, resample by resample. Counts are left out: what is
// computed from them is subtracted afterwards.
func (t Table) Minus(o Table) Table {
	d := Table{Classes: t.Classes, Columns: map[string][]Row{}, Overall: map[string]float64{}}
	for column, rows := range t.Columns {
		if column == ColumnTruths || column == ColumnFound || column == ColumnFalse {
			continue
		}
		list := make([]Row, len(rows))
		for i, r := range rows {
			list[i] = r.Minus(o.row(column, i))
		}
		d.Columns[column] = list
	}
	return d
}

// Minus subtracts a row of the same draws. Without resamples of both the result has none.
func (r Row) Minus(o Row) Row {
	d := Row{Value: r.Value - o.Value}
	if r.Resamples == nil || len(r.Resamples) != len(o.Resamples) {
		return d
	}
	d.Resamples = make([]float64, len(r.Resamples))
	for i, v := range r.Resamples {
		d.Resamples[i] = v - o.Resamples[i]
	}
	return d
}

// Values is the table without resamples of the columns of values: what a comparison keeps of each of its models beside
// their differences.
func (t Table) Values() Table {
	v := Table{Classes: t.Classes, Images: t.Images, Columns: map[string][]Row{}, Overall: t.Overall}
	for column, rows := range t.Columns {
		if column != ColumnTruths && column != ColumnFound && column != ColumnFalse {
			rows = slices.Clone(rows)
			for i := range rows {
				rows[i].Resamples = nil
			}
		}
		v.Columns[column] = rows
	}
	return v
}

// Add returns the table with the columns of another one of the same draws and classes.
func (t Table) Add(o Table) (Table, error) {
	if !slices.Equal(t.Classes, o.Classes) {
		return t, fmt.Errorf("tables of different classes: %v and %v", t.Classes, o.Classes)
	}
	columns := map[string][]Row{}
	for _, from := range []Table{t, o} {
		for column, rows := range from.Columns {
			columns[column] = rows
		}
	}
	t.Columns, t.Images = columns, o.Images
	return t, nil
}

// Samples centres a row's resamples on its value, and sorts them: a resample has images twice, which lifts every AP a
// little.
func (r Row) Samples() Samples {
	list, average := r.measured()
	if len(list) == 0 || math.IsNaN(r.Value) {
		return nil
	}
	s := make(Samples, len(list))
	shift := r.Value - average
	for i, v := range list {
		s[i] = v + shift
	}
	slices.Sort(s)
	return s
}

// Variance is that of the resamples.
func (r Row) Variance() float64 {
	list, average := r.measured()
	squares := 0.0
	for _, v := range list {
		off := v - average
		squares += float64(off * off)
	}
	return squares / float64(len(list)-1)
}

// measured lists the resamples that have a value, and their average.
func (r Row) measured() (list []float64, average float64) {
	if list = r.Resamples; slices.ContainsFunc(list, math.IsNaN) {
		list = slices.DeleteFunc(slices.Clone(list), math.IsNaN)
	}
	return list, PairwiseSum(list) / float64(len(list))
}

// PairwiseSum adds in numpy's order: one buffer of 8192 after the other, each of them pairwise.
func PairwiseSum(v []float64) float64 {
	sum := 0.0
	for part := range slices.Chunk(v, 8192) {
		sum += pairwiseSum(part)
	}
	return sum
}

// pairwiseSum keeps eight interleaved sums within blocks of up to 128, and adds longer ones as two halves of whole
// eights.
func pairwiseSum(v []float64) float64 {
	n := len(v)
	switch {
	case n < 8:
		sum := 0.0
		for _, x := range v {
			sum += x
		}
		return sum
	case n <= 128:
		r := [8]float64(v[:8])
		i := 8
		for ; i < n-n%8; i += 8 {
			for j := range r {
				r[j] += v[i+j]
			}
		}
		sum := ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]))
		for ; i < n; i++ {
			sum += v[i]
		}
		return sum
	}
	half := n / 2
	half -= half % 8
	return pairwiseSum(v[:half]) + pairwiseSum(v[half:])
}
