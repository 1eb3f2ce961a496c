package mutate

import (
	"math/rand/v2"

	"google.golang.org/protobuf/encoding/protowire"
)

// A kind is a message type of the ONNX schema.
type kind int

const (
	inModel kind = iota + 1
	inGraph
	inNode
	inAttribute
	inTensor
	inSparse
	inFunction
	inValue // ValueInfoProto
	inType
	inTensorType
	inShape
	inDim
	inOpset
	inEntry // of the metadata
)

// children maps each message type to its fields that hold messages.
var children = map[kind]map[protowire.Number]kind{
	inModel:      {7: inGraph, 8: inOpset, 14: inEntry, 25: inFunction},
	inGraph:      {1: inNode, 5: inTensor, 11: inValue, 12: inValue, 13: inValue, 15: inSparse},
	inNode:       {5: inAttribute},
	inAttribute:  {5: inTensor, 6: inGraph, 10: inTensor, 11: inGraph, 22: inSparse, 23: inSparse},
	inSparse:     {1: inTensor, 2: inTensor},
	inFunction:   {7: inNode, 9: inOpset},
	inValue:      {2: inType},
	inType:       {1: inTensorType},
	inTensorType: {2: inShape},
	inShape:      {1: inDim},
}

// A message is a message of protobuf that can be changed.
type message struct {
	kind   kind
	fields []*field
}

// A field has a number, bytes or a message.
type field struct {
	number protowire.Number
	form   protowire.Type
	value  uint64
	data   []byte
	sub    *message // in place of data
}

// parse reads a message; nil if it is malformed.
func parse(data []byte, in kind) *message {
	m := &message{kind: in}
	for len(data) > 0 {
		f := &field{}
		var n int
		if f.number, f.form, n = protowire.ConsumeTag(data); n < 0 {
			return nil
		}
		data = data[n:]
		switch f.form {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(data)
		case protowire.Fixed64Type:
			f.value, n = protowire.ConsumeFixed64(data)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(data)
			f.value = uint64(v)
		case protowire.BytesType:
			f.data, n = protowire.ConsumeBytes(data)
			if inner := children[in][f.number]; n >= 0 && inner != 0 {
				f.sub = parse(f.data, inner)
			}
		default:
			return nil
		}
		if n < 0 {
			return nil
		}
		data = data[n:]
		m.fields = append(m.fields, f)
	}
	return m
}

// encode writes a message.
func (m *message) encode() []byte {
	var out []byte
	for _, f := range m.fields {
		out = protowire.AppendTag(out, f.number, f.form)
		switch f.form {
		case protowire.VarintType:
			out = protowire.AppendVarint(out, f.value)
		case protowire.Fixed64Type:
			out = protowire.AppendFixed64(out, f.value)
		case protowire.Fixed32Type:
			out = protowire.AppendFixed32(out, uint32(f.value))
		default:
			data := f.data
			if f.sub != nil {
				data = f.sub.encode()
			}
			out = protowire.AppendBytes(out, data)
		}
	}
	return out
}

// all returns the messages of a type.
func (m *message) all(in kind) (list []*message) {
	if m.kind == in {
		list = append(list, m)
	}
	for _, f := range m.fields {
		if f.sub != nil {
			list = append(list, f.sub.all(in)...)
		}
	}
	return list
}

// any returns one message of a type, nil if there is none.
func (m *message) any(in kind, draw *rand.Rand) *message {
	list := m.all(in)
	if len(list) == 0 {
		return nil
	}
	return list[draw.IntN(len(list))]
}

// of returns the fields of a number.
func (m *message) of(number protowire.Number) (list []*field) {
	for _, f := range m.fields {
		if f.number == number {
			list = append(list, f)
		}
	}
	return list
}

// text is the first field of a number as text.
func (m *message) text(number protowire.Number) string {
	for _, f := range m.fields {
		if f.number == number {
			return string(f.data)
		}
	}
	return ""
}

// drop removes the fields of a number.
func (m *message) drop(number protowire.Number) {
	var kept []*field
	for _, f := range m.fields {
		if f.number != number {
			kept = append(kept, f)
		}
	}
	m.fields = kept
}

func (m *message) add(list ...*field) { m.fields = append(m.fields, list...) }

func number(n protowire.Number, v int64) *field {
	return &field{number: n, form: protowire.VarintType, value: uint64(v)}
}

func bytesOf(n protowire.Number, data string) *field {
	return &field{number: n, form: protowire.BytesType, data: []byte(data)}
}

func within(n protowire.Number, in kind, list ...*field) *field {
	return &field{number: n, form: protowire.BytesType, sub: &message{in, list}}
}
