package delivery

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// Samples say how far a figure may be off: in ascending order, so that the k-th
// of n is a lower bound at a confidence of 1 - k/(n+1).
type Samples []float64

// Bounds gives the one-sided bounds, each at a confidence of its own choosing,
// as for an adjustment over many classes. Samples are finite in number: beyond
// a confidence of n/(n+1), for n of them, the bounds are the outermost ones and
// claim too much; see [Samples.Resolves]. Without samples they are infinite.
func (s Samples) Bounds(confidence float64) (lower, upper float64) {
	n := len(s)
	if n == 0 {
		return math.Inf(-1), math.Inf(1)
	}
	k := int(float64((1-confidence)*float64(n+1)) + 1e-9)
	k = min(max(k, 1), (n+1)/2)
	return s[k-1], s[n-k]
}

// Resolves says whether there are enough samples for [Samples.Bounds] at a
// confidence.
func (s Samples) Resolves(confidence float64) bool {
	return float64((1-confidence)*float64(len(s)+1)) > 1-1e-9
}

// In JSON samples are a text: whole millionths, the first and then how much each is
// above the one before, as varints in base64. A thousand take about two thousand
// bytes, and a score of eighty classes fits a statement. A list of numbers is read too.
const (
	millionth  = 1e6
	maxSamples = 1 << 20
)

// MarshalJSON implements json.Marshaler. Samples are rounded to millionths.
func (s Samples) MarshalJSON() ([]byte, error) {
	plain := len(s) == 0 || !slices.IsSorted(s)
	for _, v := range s {
		plain = plain || !(math.Abs(v) < 1e9) // no number that this could hold
	}
	if plain {
		return json.Marshal([]float64(s))
	}
	var data []byte
	last := int64(math.Round(s[0] * millionth))
	data = binary.AppendVarint(data, last)
	for _, v := range s[1:] {
		at := int64(math.Round(v * millionth))
		data, last = binary.AppendUvarint(data, uint64(at-last)), at
	}
	return json.Marshal(base64.StdEncoding.EncodeToString(data))
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Samples) UnmarshalJSON(text []byte) error {
	if len(text) == 0 || text[0] != '"' {
		return json.Unmarshal(text, (*[]float64)(s))
	}
	var coded string
	if err := json.Unmarshal(text, &coded); err != nil {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(coded)
	if err != nil {
		return fmt.Errorf("samples: %w", err)
	}
	at, n := binary.Varint(data)
	list := Samples{}
	for n > 0 && len(list) < maxSamples {
		if at < -1e15 || at > 1e15 {
			break
		}
		list = append(list, float64(at)/millionth)
		if data = data[n:]; len(data) == 0 {
			*s = list
			return nil
		}
		var step uint64
		if step, n = binary.Uvarint(data); step > 1e15 {
			break
		}
		at += int64(step)
	}
	return fmt.Errorf("samples: not what is written")
}
