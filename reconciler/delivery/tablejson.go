package delivery

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// In JSON the resamples of a column are one base64 string, row after row. A row is one byte with the number of bits of
// a code (0: the row has no resamples), the least value as a varint, and a code for each resample, lowest bit first.
// Code 0 stands for no value, and code 1+k for the least value plus k. Counts are exact. Other values are rounded to
// 1/100000, a tenth of the last digit that is displayed. Eighty classes with 3,200 resamples take two megabytes.
//
// Each resample takes at least one bit, so the memory needed to decode a string is bounded by its length.

const (
	valueScale   = 100_000
	maxResamples = 1 << 20
	maxCode      = 1 << 48
)

type tableJSON struct {
	Classes   []string              `json:"classes"`
	Resamples int                   `json:"resamples,omitempty"`
	Images    *columnJSON           `json:"images,omitempty"`
	Columns   map[string]columnJSON `json:"columns"`
}

type columnJSON struct {
	Overall *float64   `json:"overall,omitempty"`
	Values  []*float64 `json:"values"`          // by class; null is no value
	Units   []int      `json:"units,omitempty"` // by class
	Per     int        `json:"per,omitempty"`
	Data    []byte     `json:"data,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (t Table) MarshalJSON() ([]byte, error) {
	out := tableJSON{Classes: t.Classes, Resamples: t.resamples(), Columns: map[string]columnJSON{}}
	if out.Classes == nil {
		out.Classes = []string{}
	}
	if out.Resamples > maxResamples {
		return nil, fmt.Errorf("table: %d resamples, want at most %d", out.Resamples, maxResamples)
	}
	encode := func(rows []Row) (columnJSON, error) {
		c := columnJSON{Values: make([]*float64, len(rows))}
		for i := range rows {
			if v := rows[i].Value; v == v { // not NaN
				c.Values[i] = &v
			}
		}
		if slices.ContainsFunc(rows, func(r Row) bool { return r.Units != 0 }) {
			for _, r := range rows {
				c.Units = append(c.Units, r.Units)
			}
		}
		return c, c.pack(rows, out.Resamples)
	}
	if t.Images.Value != 0 {
		images, err := encode([]Row{t.Images})
		if err != nil {
			return nil, err
		}
		out.Images = &images
	}
	for name, rows := range t.Columns {
		c, err := encode(rows)
		if err != nil {
			return nil, err
		}
		if v, ok := t.Overall[name]; ok {
			c.Overall = &v
		}
		out.Columns[name] = c
	}
	return json.Marshal(out)
}

// pack encodes the resamples of rows into Per and Data.
func (c *columnJSON) pack(rows []Row, n int) error {
	c.Per = 1
	any := false
	for _, r := range rows {
		any = any || r.Resamples != nil
		if r.Resamples != nil && len(r.Resamples) != n {
			return fmt.Errorf("table: a row of %d resamples among rows of %d", len(r.Resamples), n)
		}
		for _, v := range r.Resamples {
			if v == v && v != math.Trunc(v) {
				c.Per = valueScale
			}
		}
	}
	if !any {
		c.Per = 0
		return nil
	}
	whole := make([]int64, n)
	for _, r := range rows {
		if r.Resamples == nil {
			c.Data = append(c.Data, 0)
			continue
		}
		least, most := int64(math.MaxInt64), int64(math.MinInt64)
		for i, v := range r.Resamples {
			if v != v { // NaN
				continue
			}
			if math.Abs(v) > 1e9 {
				return fmt.Errorf("table: %v is out of range", v)
			}
			whole[i] = int64(math.Round(v * float64(c.Per)))
			least, most = min(least, whole[i]), max(most, whole[i])
		}
		if most < least {
			least, most = 0, 0
		}
		width := bits.Len64(uint64(most-least) + 1)
		c.Data = append(c.Data, byte(width))
		c.Data = binary.AppendVarint(c.Data, least)
		var word uint64
		filled := 0
		for i, v := range r.Resamples {
			code := uint64(0)
			if v == v { // not NaN
				code = uint64(whole[i]-least) + 1
			}
			word |= code << filled
			for filled += width; filled >= 8; filled -= 8 {
				c.Data, word = append(c.Data, byte(word)), word>>8
			}
		}
		if filled > 0 {
			c.Data = append(c.Data, byte(word))
		}
	}
	return nil
}

// UnmarshalJSON implements json.Unmarshaler. Columns of different lengths are an error.
func (t *Table) UnmarshalJSON(text []byte) error {
	var in tableJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	if in.Resamples < 0 || in.Resamples > maxResamples {
		return fmt.Errorf("table: %d resamples, want at most %d", in.Resamples, maxResamples)
	}
	out := Table{Classes: in.Classes, Columns: map[string][]Row{}}
	decode := func(name string, c columnJSON, want int) ([]Row, error) {
		if len(c.Values) != want {
			return nil, fmt.Errorf("table: column %s has %d rows, want %d", name, len(c.Values), want)
		}
		rows := make([]Row, want)
		for i, v := range c.Values {
			rows[i].Value = nothing
			if v != nil {
				rows[i].Value = *v
			}
		}
		if n := len(c.Units); n != 0 && n != want {
			return nil, fmt.Errorf("table: column %s has the units of %d rows, want %d", name, n, want)
		}
		for i, n := range c.Units {
			if n < 0 {
				return nil, fmt.Errorf("table: column %s has %d units in row %d, want at least 0", name, n, i)
			}
			rows[i].Units = n
		}
		if err := c.unpack(rows, in.Resamples); err != nil {
			return nil, fmt.Errorf("table: column %s: %w", name, err)
		}
		return rows, nil
	}
	if in.Images != nil {
		rows, err := decode("images", *in.Images, 1)
		if err != nil {
			return err
		}
		out.Images = rows[0]
	}
	for name, c := range in.Columns {
		rows, err := decode(name, c, len(in.Classes))
		if err != nil {
			return err
		}
		if out.Columns[name] = rows; c.Overall != nil {
			if out.Overall == nil {
				out.Overall = map[string]float64{}
			}
			out.Overall[name] = *c.Overall
		}
	}
	*t = out
	return nil
}

// unpack decodes the resamples of rows.
func (c columnJSON) unpack(rows []Row, n int) error {
	if c.Per == 0 && len(c.Data) == 0 {
		return nil
	}
	if c.Per != 1 && c.Per != valueScale {
		return fmt.Errorf("values are per %d, want 1 or %d", c.Per, valueScale)
	}
	data := c.Data
	for i := range rows {
		if len(data) == 0 {
			return fmt.Errorf("row %d is missing", i)
		}
		width := int(data[0])
		if data = data[1:]; width == 0 {
			continue
		}
		least, size := binary.Varint(data)
		if size <= 0 || width > 48 || least < -maxCode || least > maxCode {
			return fmt.Errorf("row %d has a malformed head", i)
		}
		packed := (n*width + 7) / 8
		if data = data[size:]; len(data) < packed {
			return fmt.Errorf("row %d is cut off", i)
		}
		list := make([]float64, n)
		var word uint64
		filled, at := 0, 0
		for j := range list {
			for ; filled < width; filled += 8 {
				word |= uint64(data[at]) << filled
				at++
			}
			code := word & (1<<width - 1)
			word, filled = word>>width, filled-width
			list[j] = nothing
			if code > 0 {
				list[j] = float64(least+int64(code-1)) / float64(c.Per)
			}
		}
		rows[i].Resamples, data = list, data[packed:]
	}
	if len(data) > 0 {
		return fmt.Errorf("%d bytes too many", len(data))
	}
	return nil
}
