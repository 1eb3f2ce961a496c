package delivery

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
)

// A Table holds the results of a bootstrap: the values and counts of each class, on the eval set and in each resample.
// Resample i is the same draw of images in every row and column. A mean, a ratio or a difference over any list of
// classes is therefore computed resample by resample, and its bounds are exact.
type Table struct {
	Classes []string         // the rows, in the order of summation in means
	Images  Row              // number of images; without Resamples if it is the same in all of them
	Columns map[string][]Row // by Metric.Column or a name below; each has a row for every class
	// Overall holds, by column, the mean over all rows in the summation order of pycocotools, which differs in the last
	// bits from a mean of Columns.
	Overall map[string]float64
}

// A Row is one class in one column. NaN stands for no value, for example in a resample without annotations of the
// class.
type Row struct {
	Value     float64   // on the eval set itself
	Resamples []float64 // nil if none has a value
	// Units is how many of the images or groups that the bootstrap draws have annotations that count. 0 means unknown:
	// tables of older versions do not have it.
	Units int
}

// The columns of counts at the model's score thresholds.
const (
	ColumnTruths = "truths" // annotations
	ColumnFound  = "found"  // true positives
	ColumnFalse  = "false"  // false positives
)

func isCount(column string) bool {
	return column == ColumnTruths || column == ColumnFound || column == ColumnFalse
}

var nothing = math.NaN()

// row returns a class's row of a column, without a value if the column is missing.
func (t Table) row(column string, class int) Row {
	if rows := t.Columns[column]; class < len(rows) {
		return rows[class]
	}
	return Row{Value: nothing}
}

// resamples returns the number of resamples.
func (t Table) resamples() int {
	n := len(t.Images.Resamples)
	for _, rows := range t.Columns {
		for _, r := range rows {
			n = max(n, len(r.Resamples))
		}
	}
	return n
}

// Figure computes a metric over a list of classes: the mean over those that have a value, or a ratio of their summed
// counts. Its Resamples are in the order of the draws. Value is NaN if no class has a value.
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

// Over is Figure for classes given by their index.
func (t Table) Over(metric string, rows []int) Row {
	m := MetricOfFigure(metric)
	if m.AtThreshold {
		return t.rate(m.Name, rows)
	}
	return t.mean(m.Column, rows)
}

// Units returns how many images or groups have annotations of classes that count for a metric. One that has several of
// the classes is counted once for each. known is false if the table does not say.
func (t Table) Units(metric string, classes []string) (n int, known bool) {
	column := cmp.Or(MetricOfFigure(metric).Column, MetricAP) // counts at thresholds are of all sizes, as AP is
	for i, class := range t.Classes {
		if r := t.row(column, i); slices.Contains(classes, class) && !math.IsNaN(r.Value) {
			if r.Units == 0 {
				return 0, false
			}
			n += r.Units
		}
	}
	return n, true
}

// mean averages a column over the rows that have a value, in each resample separately.
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

// rate computes a metric at score thresholds from the summed counts of classes.
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

// rate computes a metric from counts; NaN if its denominator is 0.
func rate(metric string, truths, found, wrong, images float64) float64 {
	of, all := nothing, 0.0
	switch metric {
	case MetricRecall:
		of, all = found, truths
	case MetricPrecision:
		of, all = found, found+wrong
	case MetricFalsePositives:
		of, all = wrong, images
	case MetricF1: // the harmonic mean of recall and precision
		of, all = 2*found, found+wrong+truths
	}
	if all == 0 {
		return nothing
	}
	return of / all
}

// Minus returns t - o, resample by resample. Both must have the same draws. Columns of counts are left out, because the
// difference of a ratio cannot be computed from differences of counts.
func (t Table) Minus(o Table) Table {
	d := Table{Classes: t.Classes, Columns: map[string][]Row{}, Overall: map[string]float64{}}
	for column, rows := range t.Columns {
		if isCount(column) {
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

// Minus returns r - o. The result has resamples if both have the same number of them.
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

// Values returns the table without the resamples of values. Those of counts stay. A comparison stores this for each
// model, beside the resamples of their differences.
func (t Table) Values() Table {
	v := Table{Classes: t.Classes, Images: t.Images, Columns: map[string][]Row{}, Overall: t.Overall}
	for column, rows := range t.Columns {
		if !isCount(column) {
			rows = slices.Clone(rows)
			for i := range rows {
				rows[i].Resamples = nil
			}
		}
		v.Columns[column] = rows
	}
	return v
}

// Add returns t with the columns of o. Both must have the same draws; other classes are an error.
func (t Table) Add(o Table) (Table, error) {
	if !slices.Equal(t.Classes, o.Classes) {
		return t, fmt.Errorf("tables of different classes: %v and %v", t.Classes, o.Classes)
	}
	t.Columns, t.Images = maps.Clone(t.Columns), o.Images
	maps.Copy(t.Columns, o.Columns)
	return t, nil
}

// Samples returns the row's resamples, sorted, and shifted so that their mean is its value. Unshifted they are biased:
// a resample contains some images twice, which raises AP a little.
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

// Variance returns the variance of the resamples.
func (r Row) Variance() float64 {
	list, average := r.measured()
	squares := 0.0
	for _, v := range list {
		off := v - average
		squares += float64(off * off)
	}
	return squares / float64(len(list)-1)
}

// measured returns the resamples that have a value, and their average.
func (r Row) measured() (list []float64, average float64) {
	if list = r.Resamples; slices.ContainsFunc(list, math.IsNaN) {
		list = slices.DeleteFunc(slices.Clone(list), math.IsNaN)
	}
	return list, PairwiseSum(list) / float64(len(list))
}

// PairwiseSum adds numbers in the order of numpy's sum: buffers of 8192 one after the other, each of them pairwise.
func PairwiseSum(v []float64) float64 {
	sum := 0.0
	for part := range slices.Chunk(v, 8192) {
		sum += pairwiseSum(part)
	}
	return sum
}

// pairwiseSum is numpy's pairwise summation. Up to 128 numbers are added in eight interleaved sums. More are added as
// two halves, the first of which is a multiple of eight long.
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
