package onnx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Check returns an error unless a model consists only of its own bytes, for programs other than ONNX Runtime that read
// it.
func Check(model []byte) error { return selfContained(model) }

// selfContained returns an error unless a model consists only of its own bytes.
//
// A tensor of an ONNX file may name a file that contains its values. ONNX Runtime reads any file that this process can
// read, so the model could output its content. A special name even stands for a memory address. The digest of the model
// would also not cover such a file. ONNX Runtime's own format (ORT) is refused too, because the library checks it less
// than ONNX.
//
// The walk follows the messages of the ONNX schema that can contain a tensor, and skips all others.
func selfContained(model []byte) error {
	if len(model) >= 8 && string(model[4:8]) == "ORTM" {
		return errors.New("it is in ONNX Runtime's own format (ORT), want ONNX")
	}
	return walk(model, inModel, 0)
}

// A kind is a message type of the ONNX schema.
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

// children maps each message type to its fields that contain messages: field number to message type.
var children = map[kind]map[uint64]kind{
	inModel:     {7: inGraph, 20: inTraining, 25: inFunction},
	inTraining:  {1: inGraph, 2: inGraph},
	inGraph:     {1: inNode, 5: inTensor, 15: inSparse},
	inNode:      {5: inAttribute},
	inAttribute: {5: inTensor, 6: inGraph, 10: inTensor, 11: inGraph, 22: inSparse, 23: inSparse},
	inFunction:  {7: inNode, 11: inAttribute},
	inSparse:    {1: inTensor, 2: inTensor},
}

// engineOperator is the operator whose node contains a compiled engine, or the path of one. An engine is code for the
// GPU, so only those that this machine has built are loaded.
const engineOperator = "EPContext"

const (
	nodeOperator   = 4   // NodeProto.op_type
	tensorExternal = 13  // TensorProto.external_data
	tensorLocation = 14  // TensorProto.data_location; 0 is in this file
	maxDepth       = 100 // of nested messages, as in protobuf's own parser
)

var errMalformed = errors.New("it is not an ONNX file")

func walk(b []byte, in kind, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("its messages are nested more than %d deep", maxDepth)
	}
	return fields(b, func(field uint64, body []byte, value uint64) error {
		if in == inTensor && (field == tensorExternal || field == tensorLocation && value != 0) {
			return errors.New("it keeps weights in other files; save it as one file")
		}
		if in == inNode && field == nodeOperator && string(body) == engineOperator {
			return errors.New("it contains a compiled engine (EPContext); want the model itself, because engines are " +
				"built on the machine that runs them")
		}
		if inner, ok := children[in][field]; ok && body != nil {
			return walk(body, inner, depth+1)
		}
		return nil
	})
}

// fields calls do with each field of a message. body is the content of a message, text or bytes, and nil for others;
// value is that of a varint.
func fields(b []byte, do func(field uint64, body []byte, value uint64) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || n > 5 || tag > math.MaxUint32 { // another parser might cut it to 32 bits and see another field
			return errMalformed
		}
		b = b[n:]
		var value uint64
		var body []byte
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
		default: // groups; ONNX has none
			return errMalformed
		}
		if n > len(b) {
			return errMalformed
		}
		b = b[n:]
		if err := do(tag>>3, body, value); err != nil {
			return err
		}
	}
	return nil
}
