package dataset

// This file says each rule of a check as an expectation of Great Expectations, and judges the tables by it as that
// package does.

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An Expectation is a rule as Great Expectations has it: a condition on the rows of a table.
type Expectation struct {
	Rule     string         // the code of findings
	Severity string         // critical for an error, or warning
	Table    string         // of [Tables]
	Type     string         // of Great Expectations, as in expect_column_values_to_be_between
	Kwargs   map[string]any // its arguments
}

// The types of expectations that are used.
const (
	notNull   = "expect_column_values_to_not_be_null"
	between   = "expect_column_values_to_be_between"
	notInSet  = "expect_column_values_to_not_be_in_set"
	unique    = "expect_column_values_to_be_unique"
	uniqueRow = "expect_compound_columns_to_be_unique"
	equalPair = "expect_column_pair_values_to_be_equal"
)

// Expectations returns all rules, in the order of [Rules]. A rule whose findings are errors at some places and warnings
// at others has two. What only a reader can see, as a file that is no JSON, is a row of the table problems.
func Expectations() []Expectation {
	type args = map[string]any
	const errors, warnings = "critical", "warning"
	rows := func(table, kind string, kwargs args) []Expectation {
		return []Expectation{{Table: table, Type: kind, Kwargs: kwargs}}
	}
	least := func(table, column string, value float64) []Expectation {
		return rows(table, between, args{"column": column, "min_value": value})
	}
	most := func(table, column string, value float64) []Expectation {
		return rows(table, between, args{"column": column, "max_value": value})
	}
	never := func(table, column string, values ...any) []Expectation {
		return rows(table, notInSet, args{"column": column, "value_set": values})
	}
	both := func(critical, warning []Expectation) []Expectation {
		critical[0].Severity, warning[0].Severity = errors, warnings
		return append(critical, warning...)
	}
	above := func(column string) []Expectation {
		return rows(tableAnnotations, between, args{"column": column, "min_value": 0.0, "strict_min": true})
	}
	special := map[string][]Expectation{
		"too-large":        never(tableImages, "fault", "too-large"),
		"missing-file":     rows(tableImages, notNull, args{"column": "bytes"}),
		"unreadable-image": never(tableImages, "fault", "unreadable-image"),
		"truncated-image":  never(tableImages, "fault", "truncated-image"),
		"16-bit-image":     never(tableImages, "fault", "16-bit-image"),
		"size-mismatch": rows(tableImages, equalPair, args{"column_A": "size", "column_B": "file_size",
			"ignore_row_if": "either_value_is_missing"}),
		"negative-box": both(least(tableAnnotations, "side_judged", 0), least(tableAnnotations, "side_learnt", 0)),
		"off-image":    both(above("inside_judged"), above("inside_learnt")),
		"duplicate-file": both(never(tablePairs, "same_in_split", "duplicate-file, other boxes"),
			never(tablePairs, "same_in_split", "duplicate-file")),
		"duplicate-image": both(never(tablePairs, "same_in_split", "duplicate-image, other boxes"),
			never(tablePairs, "same_in_split", "duplicate-image")),
		"leak":           never(tablePairs, "same_across_splits", "leak"),
		"split-leak":     never(tablePairs, "same_across_splits", "split-leak"),
		"outside-image":  most(tableAnnotations, "over", 1),
		"empty-box":      never(tableAnnotations, "side", 0.0),
		"degenerate-box": least(tableAnnotations, "part", 1),
		"duplicate-name": rows(tableCategories, uniqueRow, args{"column_list": []any{"split", "category"},
			"ignore_row_if": "any_value_is_missing"}),
		"duplicate-truth": rows(tableAnnotations, uniqueRow, args{"column_list": []any{"split", "image_id",
			"category_id", "x", "y", "w", "h", "crowd"}, "ignore_row_if": "any_value_is_missing"}),
		"two-labels": most(tableAnnotations, "labels", 1),
		"implausible-area": rows(tableAnnotations, between, args{"column": "area_share", "min_value": 0.01,
			"max_value": 1.02}),
		"exif-orientation": most(tableImages, "orientation", upright),
		"split-size": rows(tableSplits, between, args{"column": "share_of_train", "min_value": leastShare,
			"max_value": 1.0}),
		"class-balance":   least(tableCategories, "share_of_most", leastObjects),
		"same-name":       never(tablePairs, "same_across_splits", "same-name"),
		"perceptual-twin": least(tablePairs, "bits_apart_from_eval_set", maxApart+1),
		"split-twin":      least(tablePairs, "bits_apart_across_splits", maxApart+1),
		"near-duplicate":  least(tablePairs, "bits_apart", maxApart+1),
		"site-leak":       rows(tableSites, unique, args{"column": "site"}),
		"time-leak":       least(tablePairs, "seconds_apart", tooClose.Seconds()),
		"label-drift":     most(tableDrift, "label_strength", 1),
		"box-drift":       most(tableDrift, "box_strength", 1),
		"image-drift":     most(tableDrift, "image_strength", 1),
		"unlisted-file":   rows(tableImages, notNull, args{"column": "image_id"}),
	}
	var out []Expectation
	for _, r := range Rules {
		list := special[r.Code]
		if list == nil {
			list = never(tableProblems, "rule", r.Code)
		}
		for _, e := range list {
			if e.Rule = r.Code; e.Severity == "" {
				e.Severity = map[string]string{delivery.LevelError: errors, delivery.LevelWarning: warnings}[r.Level]
			}
			out = append(out, e)
		}
	}
	return out
}

// A Verdict is an expectation with the rows of a table that are against it.
type Verdict struct {
	Expectation
	Rows       int   // of the table, that were looked at
	Missing    int   // rows without a value
	Unexpected []int // numbers of rows
}

// Success reports whether no row is against the expectation.
func (v Verdict) Success() bool { return len(v.Unexpected) == 0 }

// Judge applies all expectations to the tables.
func (t Tables) Judge() []Verdict {
	var out []Verdict
	for _, e := range Expectations() {
		for i := range t {
			if t[i].Name == e.Table {
				out = append(out, e.judge(&t[i]))
			}
		}
	}
	return out
}

// columns are those that the expectation is about.
func (e Expectation) columns() (names []string) {
	for _, key := range []string{"column", "column_A", "column_B"} {
		if name, ok := e.Kwargs[key].(string); ok {
			names = append(names, name)
		}
	}
	list, _ := e.Kwargs["column_list"].([]any)
	for _, name := range list {
		names = append(names, name.(string))
	}
	return names
}

func (e Expectation) judge(t *Table) Verdict {
	out := Verdict{Expectation: e, Rows: len(t.Rows)}
	at := delivery.Each(e.columns(), t.column)
	var seen map[string]int
	values := func(row []any) []any { return delivery.Each(at, func(i int) any { return row[i] }) }
	key := func(row []any) string { return fmt.Sprintf("%q", values(row)) }
	if e.Type == unique || e.Type == uniqueRow {
		seen = map[string]int{}
		for _, row := range t.Rows {
			seen[key(row)]++
		}
	}
	for i, row := range t.Rows {
		missing := slices.Contains(values(row), nil)
		if missing && e.Type != notNull {
			out.Missing++
			continue
		}
		bad := false
		switch value := row[at[0]]; e.Type {
		case notNull:
			bad = missing
		case between:
			least, bounded := e.Kwargs["min_value"].(float64)
			most, limited := e.Kwargs["max_value"].(float64)
			v := value.(float64)
			bad = bounded && (v < least || e.Kwargs["strict_min"] == true && v == least) || limited && v > most
		case notInSet:
			bad = slices.Contains(e.Kwargs["value_set"].([]any), value)
		case equalPair:
			bad = value != row[at[1]]
		default:
			bad = seen[key(row)] > 1
		}
		if bad {
			out.Unexpected = append(out.Unexpected, i)
		}
	}
	return out
}

// The forms of Great Expectations 1.x.
type (
	gxConfig struct {
		Type     string         `json:"type"`
		Kwargs   map[string]any `json:"kwargs"`
		Meta     map[string]any `json:"meta"`
		Severity string         `json:"severity"`
	}
	gxSuite struct {
		Name         string         `json:"name"`
		Expectations []gxConfig     `json:"expectations"`
		Meta         map[string]any `json:"meta"`
		Notes        string         `json:"notes"`
	}
	gxResult struct {
		Success   bool           `json:"success"`
		Config    gxConfig       `json:"expectation_config"`
		Result    map[string]any `json:"result"`
		Meta      map[string]any `json:"meta"`
		Exception map[string]any `json:"exception_info"`
	}
	gxValidation struct {
		Success    bool           `json:"success"`
		Results    []gxResult     `json:"results"`
		Suite      string         `json:"suite_name"`
		Parameters map[string]any `json:"suite_parameters"`
		Statistics map[string]any `json:"statistics"`
		Meta       map[string]any `json:"meta"`
	}
)

// gxVersion is the version of Great Expectations whose form is written. Its tests run that version.
const gxVersion = "1.24.1"

func (e Expectation) config(batch string) gxConfig {
	kwargs := map[string]any{}
	for k, v := range e.Kwargs {
		kwargs[k] = v
	}
	if batch != "" {
		kwargs["batch_id"] = batch
	}
	rule := Rules[rank(e.Rule)]
	return gxConfig{e.Type, kwargs, map[string]any{"aob": map[string]any{"rule": e.Rule, "finds": rule.Finds,
		"table": e.Table}}, e.Severity}
}

// Suite returns the expectations of the table as a suite of Great Expectations, in JSON.
func (t Table) Suite() ([]byte, error) {
	out := gxSuite{Name: "aob " + t.Name, Expectations: []gxConfig{}, Meta: map[string]any{
		"great_expectations_version": gxVersion, "aob": map[string]any{"table": t.Name, "index": t.Index,
			"texts": t.Texts}}, Notes: "The rules of aob data check for the table " + t.Name + "."}
	for _, e := range Expectations() {
		if e.Table == t.Name {
			out.Expectations = append(out.Expectations, e.config(""))
		}
	}
	return json.MarshalIndent(out, "", "  ")
}

// Validation returns the verdicts of all expectations as one ExpectationSuiteValidationResult of Great Expectations, in
// JSON. Each result names its table as its batch.
func (t Tables) Validation(dataset string, content delivery.Digest) ([]byte, error) {
	out := gxValidation{Success: true, Results: []gxResult{}, Suite: "aob data check", Parameters: map[string]any{},
		Meta: map[string]any{"great_expectations_version": gxVersion, "aob": map[string]any{"dataset": dataset,
			"content": content}}}
	good := 0
	for _, v := range t.Judge() {
		table := t[slices.IndexFunc(t, func(t Table) bool { return t.Name == v.Table })]
		if v.Success() {
			good++
		} else {
			out.Success = false
		}
		out.Results = append(out.Results, gxResult{v.Success(), v.config("aob-" + v.Table), v.result(&table),
			map[string]any{}, map[string]any{"raised_exception": false, "exception_traceback": nil,
				"exception_message": nil}})
	}
	out.Statistics = map[string]any{"evaluated_expectations": len(out.Results), "successful_expectations": good,
		"unsuccessful_expectations": len(out.Results) - good,
		"success_percent":           float64(good) / float64(max(1, len(out.Results))) * 100}
	return json.MarshalIndent(out, "", "  ")
}

// maxPartial is how many values partial lists have.
const maxPartial = 20

// result returns the figures and rows of a verdict.
func (v Verdict) result(t *Table) map[string]any {
	columns := v.columns()
	value := func(row []any) any {
		if len(columns) == 1 {
			return row[t.column(columns[0])]
		}
		all := delivery.Each(columns, func(name string) any { return row[t.column(name)] })
		if v.Type == equalPair {
			return all
		}
		named := map[string]any{}
		for i, name := range columns {
			named[name] = all[i]
		}
		return named
	}
	list, index := []any{}, []any{}
	for _, i := range v.Unexpected {
		row := t.Rows[i]
		list = append(list, value(row))
		at := map[string]any{}
		for _, name := range slices.Concat(columns, t.Index) {
			at[name] = row[t.column(name)]
			if text, ok := at[name].(string); ok {
				at[name] = strings.ToValidUTF8(text, "\uFFFD")
			}
		}
		index = append(index, at)
	}
	percent := func(n, of int) any {
		if of == 0 {
			return nil
		}
		return float64(n) / float64(of) * 100
	}
	n := len(v.Unexpected)
	out := map[string]any{"element_count": v.Rows, "unexpected_count": n,
		"unexpected_percent": percent(n, v.Rows-v.Missing), "partial_unexpected_list": list[:min(n, maxPartial)],
		"unexpected_list": list, "unexpected_index_column_names": t.Index, "unexpected_index_list": index,
		"partial_unexpected_index_list": index[:min(n, maxPartial)]}
	if v.Type != notNull {
		out["missing_count"], out["missing_percent"] = v.Missing, percent(v.Missing, v.Rows)
		out["unexpected_percent_total"] = percent(n, v.Rows)
		out["unexpected_percent_nonmissing"] = percent(n, v.Rows-v.Missing)
	}
	return out
}
