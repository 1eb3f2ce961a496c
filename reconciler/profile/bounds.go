package profile

// Bounds say how far answers may be from those of the CPU. A model's golden input was answered by ONNX Runtime on a CPU
// when the model was packed.
//
// The tensors are compared first. Where a number differs by more than Tensor, the boxes count: a detector chooses some
// hundred of its candidates, and two of nearly equal score may swap places, which moves whole rows of the tensors. So
// each of the best boxes of the CPU must be found again.
type Bounds struct {
	Tensor float64 `json:"tensor"` // largest difference of a number of the outputs
	IoU    float64 `json:"iou"`    // least overlap of a box with its partner; 0: only the tensors count
	Found  float64 `json:"found"`  // least share of boxes with a partner of their class
	Score  float64 `json:"score"`  // largest mean difference of the scores of partners
}

// Bounds returns how far a profile's answers may be from those of the CPU.
func (p Profile) Bounds() Bounds {
	switch {
	case p.Provider == CPU: // processors differ in the order in which they add
		return Bounds{Tensor: 1e-3}
	case p.Precision == "fp32":
		return Bounds{Tensor: 1e-2, IoU: 0.98, Found: 0.98, Score: 0.005}
	case p.Precision == "fp16":
		return Bounds{Tensor: 3e-2, IoU: 0.9, Found: 0.95, Score: 0.02}
	}
	return Bounds{Tensor: 5e-2, IoU: 0.8, Found: 0.9, Score: 0.05}
}
