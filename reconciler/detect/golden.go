package detect

import (
	"errors"

	"github.com/autonomos/aob/reconciler/delivery"
)

// Tolerance is how far a replayed output may be from the golden one, absolute.
// Sums are taken in another order on another processor; a wrong weight, output
// or engine is off by far more.
const Tolerance = 1e-3

// A Golden is one input and what the model made of it where it was inspected.
// Whoever loads the model replays it before the model serves: that catches
// another model's weights, swapped outputs and broken arithmetic.
type Golden struct {
	Seed   uint64         // of the input; see Input
	Width  int            // of the input
	Height int            //
	Boxes  []float32      // Queries x 4
	Logits []float32      // Queries x Slots
	Slots  int            //
	Best   []delivery.Box // the outputs decoded, for an image of Width x Height
}

// MarshalBinary writes the form of golden.bin.
func (g Golden) MarshalBinary() ([]byte, error) { return nil, errors.New("not there yet") }

// ParseGolden reads the form of golden.bin. The bytes may be anything.
func ParseGolden(data []byte) (Golden, error) { return Golden{}, errors.New("not there yet") }
