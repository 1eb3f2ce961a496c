package onnx

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/autonomos/aob/reconciler/durable"
)

// checkPlacement runs a model once and returns an error if the profile's provider computes less than half of its
// nodes. ONNX Runtime gives each node that a provider does not take to the CPU, without an error. Some nodes belong
// there, such as those that compute sizes.
//
// The library says in a session's profile what has computed a node. An engine needs no such check: the CPU cannot
// compute it.
func (r Runtime) checkPlacement(model []byte, input string, outputs []string, threads int) error {
	if len(r.session.Providers) == 0 {
		return nil
	}
	nodes, err := r.placement(model, input, outputs, threads)
	if err != nil {
		return err
	}
	return judgePlacement(nodes, r.session.Providers[0].Name)
}

// judgePlacement checks the number of nodes that each provider has computed.
func judgePlacement(nodes map[string]int, want string) error {
	total := 0
	for _, n := range nodes {
		total += n
	}
	if 2*nodes[want] < total || nodes[want] == 0 {
		return fmt.Errorf("%s computes only %d of its %d nodes, and the CPU computes the rest; take a profile with "+
			"provider cpu, or a model whose operators %s has", want, nodes[want], total, want)
	}
	return nil
}

// placement returns how many nodes of a model each provider computes, by the providers' names.
func (r Runtime) placement(model []byte, input string, outputs []string, threads int) (_ map[string]int, err error) {
	shape, err := InputShape(model, input)
	if err != nil {
		return nil, err
	}
	size := int64(1)
	for i, n := range shape {
		shape[i] = max(n, 1)
		if size *= shape[i]; size > maxInput {
			return nil, fmt.Errorf("its input has more than %d numbers", maxInput)
		}
	}
	dir, err := os.MkdirTemp("", "aob-placement-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	options, err := r.options(threads)
	if err != nil {
		return nil, err
	}
	defer options.Destroy()
	if err := options.EnableProfiling(filepath.Join(dir, "profile")); err != nil {
		return nil, err
	}
	loaded, err := ort.NewDynamicAdvancedSessionWithONNXData(model, []string{input}, outputs, options)
	if err != nil {
		return nil, err
	}
	err = runOnce(loaded, shape, make([]float32, size), len(outputs))
	if err := errors.Join(err, loaded.Destroy()); err != nil { // the end of the session writes the file
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "profile*"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("ONNX Runtime has written %d profiles, want one: %v", len(files), err)
	}
	data, err := durable.ReadFile(files[0], maxProfile)
	if err != nil {
		return nil, err
	}
	return parsePlacement(data)
}

const (
	maxInput   = 1 << 28 // numbers
	maxProfile = 256 << 20
)

func runOnce(loaded *ort.DynamicAdvancedSession, shape []int64, zeros []float32, outputs int) error {
	in, err := ort.NewTensor(ort.NewShape(shape...), zeros)
	if err != nil {
		return err
	}
	defer in.Destroy()
	values := make([]ort.Value, outputs)
	err = loaded.Run([]ort.Value{in}, values)
	for _, v := range values {
		if v != nil {
			err = errors.Join(err, v.Destroy())
		}
	}
	return err
}

// parsePlacement counts the nodes in a profile that ONNX Runtime has written.
func parsePlacement(data []byte) (map[string]int, error) {
	var events []struct {
		Category string `json:"cat"`
		Name     string `json:"name"`
		Args     struct {
			Provider string `json:"provider"`
			Operator string `json:"op_name"`
		} `json:"args"`
	}
	if err := json.Unmarshal(data, &events); err != nil {
		return nil, fmt.Errorf("ONNX Runtime's profile: %w", err)
	}
	nodes := map[string]int{}
	for _, e := range events {
		if e.Category == "Node" && strings.HasSuffix(e.Name, "_kernel_time") && e.Args.Provider != "" &&
			!strings.HasPrefix(e.Args.Operator, "Memcpy") {
			nodes[e.Args.Provider]++
		}
	}
	return nodes, nil
}
