// Package mutate makes hostile models, pictures and HTTP requests out of good ones. What it makes depends on the source
// of random numbers alone, so that a seed names it.
package mutate

import "math/rand/v2"

// Made is what was made of something good.
type Made struct {
	Kind string // what was done to it
	Data []byte
}

// Source returns the source of the i-th thing of a seed.
func Source(seed uint64, i int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(i))) }

func pick[T any](draw *rand.Rand, list ...T) T { return list[draw.IntN(len(list))] }

// flip changes 1 to 20 bits.
func flip(data []byte, draw *rand.Rand) []byte {
	data = append([]byte(nil), data...)
	for range 1 + draw.IntN(20) {
		if len(data) > 0 {
			data[draw.IntN(len(data))] ^= 1 << draw.IntN(8)
		}
	}
	return data
}

// cut drops the end.
func cut(data []byte, draw *rand.Rand) []byte { return data[:draw.IntN(len(data)+1)] }

// splice copies a part to another place.
func splice(data []byte, draw *rand.Rand) []byte {
	if len(data) == 0 {
		return data
	}
	from, to := draw.IntN(len(data)), draw.IntN(len(data))
	size := draw.IntN(min(len(data)-from, 4096) + 1)
	out := append([]byte(nil), data[:to]...)
	out = append(out, data[from:from+size]...)
	return append(out, data[to:]...)
}

// noise returns random bytes.
func noise(n int, draw *rand.Rand) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(draw.Uint32())
	}
	return out
}
