package onnx

// Placement is the method placement, on one thread.
func Placement(r Runtime, model []byte, input string, outputs []string) (map[string]int, error) {
	return r.placement(model, input, outputs, 1)
}
