package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/autonomos/aob/reconciler/delivery"
)

// wrap returns an ONNX model whose only node is the engine. ONNX Runtime's TensorRT provider loads the engine from it
// and builds nothing. It fails if the engine was built of another model: two models that differ only in their weights
// have equal graphs, inputs and outputs, so nothing later would notice.
func (e *Engine) wrap(model []byte, input string, outputs []string) ([]byte, error) {
	if got := delivery.Sum(model); got != e.Model {
		return nil, fmt.Errorf("the engine was built of model %s, and this is %s", e.Model.Short(), got.Short())
	}
	node := [][]byte{message(1, []byte(input))}
	for _, name := range outputs {
		node = append(node, message(2, []byte(name)))
	}
	attribute := func(name string, kind uint64, value []byte) []byte {
		return message(5, message(1, []byte(name)), value, varint(20, kind))
	}
	node = append(node, message(3, []byte("engine")), message(nodeOperator, []byte(engineOperator)),
		message(7, []byte("com.microsoft")),
		attribute("embed_mode", 2, varint(3, 1)), // the engine itself, and not its path
		attribute("ep_cache_context", 3, message(4, e.Plan)))
	// A float tensor. The engine knows its sizes.
	value := func(field uint64, name string) []byte {
		return message(field, message(1, []byte(name)), message(2, message(1, varint(1, 1))))
	}
	graph := [][]byte{message(1, node...), message(2, []byte("engine")), value(11, input)}
	for _, name := range outputs {
		graph = append(graph, value(12, name))
	}
	wrapped := join(varint(1, 8), message(7, graph...), // the version of the format, and the graph
		message(8, message(1), varint(2, 16)), message(8, message(1, []byte("com.microsoft")), varint(2, 1)))
	const most = 2<<30 - 1 // of protobuf
	if len(wrapped) > most {
		return nil, fmt.Errorf("the engine has %d bytes, more than ONNX Runtime can load", len(e.Plan))
	}
	return wrapped, nil
}

// message encodes a field that contains a message or bytes, of protobuf.
func message(field uint64, parts ...[]byte) []byte {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	out := make([]byte, 0, size+2*binary.MaxVarintLen64)
	out = binary.AppendUvarint(out, field<<3|2)
	out = binary.AppendUvarint(out, uint64(size))
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// varint encodes a field that contains a number, of protobuf.
func varint(field, value uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, field<<3), value)
}

func join(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// InputShape returns the sizes of a model's input as its file declares them; -1 is a size that it leaves open.
func InputShape(model []byte, input string) ([]int64, error) {
	found := false
	var shape []int64
	// The path of the messages: graph, its inputs, the type, its tensor, the shape, its sizes.
	err := fields(model, func(f uint64, graph []byte, _ uint64) error {
		if f != 7 {
			return nil
		}
		return fields(graph, func(f uint64, info []byte, _ uint64) error {
			if f != 11 || found {
				return nil
			}
			sizes := []int64{}
			name := ""
			err := fields(info, func(f uint64, body []byte, _ uint64) error {
				switch f {
				case 1:
					name = string(body)
				case 2:
					return sizesOf(body, &sizes)
				}
				return nil
			})
			if found = err == nil && name == input; found {
				shape = sizes
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if !found || len(shape) == 0 {
		return nil, fmt.Errorf("it does not say what sizes the input %.100q has", input)
	}
	return shape, nil
}

// sizesOf adds the sizes of a type.
func sizesOf(kind []byte, sizes *[]int64) error {
	const maxSizes = 16
	return fields(kind, func(f uint64, tensor []byte, _ uint64) error {
		if f != 1 {
			return nil
		}
		return fields(tensor, func(f uint64, shape []byte, _ uint64) error {
			if f != 2 {
				return nil
			}
			return fields(shape, func(f uint64, dim []byte, _ uint64) error {
				if f != 1 {
					return nil
				}
				if len(*sizes) == maxSizes {
					return errors.New("its input has too many sizes")
				}
				size := int64(-1)
				err := fields(dim, func(f uint64, _ []byte, value uint64) error {
					if f == 1 && value < 1<<31 {
						size = int64(value)
					}
					return nil
				})
				*sizes = append(*sizes, size)
				return err
			})
		})
	})
}
