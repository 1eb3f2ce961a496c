package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// selfContained refuses a model that is more, or other, than its own bytes.
//
// A tensor of an ONNX file may name a file that holds its numbers, and ONNX
// Runtime reads it: any file that this process can read, whose content would
// then come out of the model as numbers. A special name even stands for an
// address in memory. What was digested would also not be what runs. ONNX
// Runtime's own format is refused too: it is checked less when it is read.
//
// The walk follows the messages of the ONNX schema that can hold a tensor and
// skips all others.
func selfContained(model []byte) error {
	if len(model) >= 8 && string(model[4:8]) == "ORTM" {
		return errors.New("it is in ONNX Runtime's own format, want ONNX")
	}
	return walk(model, inModel, 0)
}

// A kind is a message of the ONNX schema.
type kind int

const (
	inModel kind = iota
	inTraining
	inGraph
	inNode
	inAttribute
	inFunction
	inSparse
	inTensor
)

// children lists, by kind of message, which of its fields hold which messages.
var children = map[kind]map[uint64]kind{
	inModel:     {7: inGraph, 20: inTraining, 25: inFunction},
	inTraining:  {1: inGraph, 2: inGraph},
	inGraph:     {1: inNode, 5: inTensor, 15: inSparse},
	inNode:      {5: inAttribute},
	inAttribute: {5: inTensor, 6: inGraph, 10: inTensor, 11: inGraph, 22: inSparse, 23: inSparse},
	inFunction:  {7: inNode, 11: inAttribute},
	inSparse:    {1: inTensor, 2: inTensor},
}

const (
	tensorExternal = 13  // TensorProto.external_data
	tensorLocation = 14  // TensorProto.data_location; 0 is in the file
	deepest        = 100 // as protobuf's own parser
)

var errMalformed = errors.New("it is not an ONNX file")

func walk(b []byte, in kind, depth int) error {
	if depth > deepest {
		return fmt.Errorf("its messages are nested more than %d deep", deepest)
	}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || n > 5 || tag > math.MaxUint32 { // another parser may cut it to 32 bits, and read another field
			return errMalformed
		}
		b = b[n:]
		field := tag >> 3
		var value uint64 // of a varint
		var body []byte  // of a message, string or bytes
		switch tag & 7 {
		case 0:
			if value, n = binary.Uvarint(b); n <= 0 {
				return errMalformed
			}
		case 1:
			n = 8
		case 2:
			size, k := binary.Uvarint(b)
			if k <= 0 || size > uint64(len(b)-k) {
				return errMalformed
			}
			n = k + int(size)
			body = b[k:n]
		case 5:
			n = 4
		default: // groups, which ONNX has none of
			return errMalformed
		}
		if n > len(b) {
			return errMalformed
		}
		b = b[n:]
		if in == inTensor && (field == tensorExternal || field == tensorLocation && value != 0) {
			return errors.New("it keeps weights in other files; save it as one file")
		}
		if inner, ok := children[in][field]; ok && body != nil {
			if err := walk(body, inner, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
