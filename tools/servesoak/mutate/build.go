package mutate

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// Data types of ONNX.
const (
	float32s = 1
	int64s   = 7
)

// node is a field of a graph.
func node(op string, in, out []string, attributes ...*field) *field {
	n := within(1, inNode)
	for _, name := range in {
		n.sub.add(bytesOf(1, name))
	}
	for _, name := range out {
		n.sub.add(bytesOf(2, name))
	}
	n.sub.add(bytesOf(4, op))
	n.sub.add(attributes...)
	return n
}

func attribute(name string, kind int64, value ...*field) *field {
	return within(5, inAttribute, append([]*field{bytesOf(1, name), number(20, kind)}, value...)...)
}

func attributeInt(name string, v int64) *field { return attribute(name, 2, number(3, v)) }

func attributeInts(name string, list ...int64) *field {
	a := attribute(name, 7)
	for _, v := range list {
		a.sub.add(number(8, v))
	}
	return a
}

func attributeGraph(name string, graph []*field) *field {
	return attribute(name, 5, within(6, inGraph, append(graph, bytesOf(2, name))...))
}

// tensor is the content of a tensor of a type.
func tensor(name string, kind int64, dims []int64, values ...float64) []*field {
	list := []*field{number(2, kind), bytesOf(8, name)}
	for _, d := range dims {
		list = append(list, number(1, d))
	}
	var raw []byte
	for _, v := range values {
		switch kind {
		case float32s:
			raw = protowire.AppendFixed32(raw, math.Float32bits(float32(v)))
		case int64s:
			raw = protowire.AppendFixed64(raw, uint64(int64(v)))
		default:
			raw = append(raw, byte(v))
		}
	}
	return append(list, bytesOf(9, string(raw)))
}

// constant is an initializer of a graph.
func constant(name string, kind int64, dims []int64, values ...float64) *field {
	return within(5, inTensor, tensor(name, kind, dims, values...)...)
}

// integers is an initializer with one dimension.
func integers(name string, values ...float64) *field {
	return constant(name, int64s, []int64{int64(len(values))}, values...)
}

// value describes an input (11) or output (12) of a graph. Nil dims leave the shape out.
func value(n protowire.Number, name string, kind int64, dims []int64) *field {
	kindOf := within(1, inTensorType, number(1, kind))
	if dims != nil {
		shape := within(2, inShape)
		for _, d := range dims {
			shape.sub.add(within(1, inDim, number(1, d)))
		}
		kindOf.sub.add(shape)
	}
	return within(n, inValue, bytesOf(1, name), within(2, inType, kindOf))
}
