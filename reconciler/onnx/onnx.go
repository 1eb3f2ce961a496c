package onnx

import (
	"context"
	"errors"
	"fmt"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/profile"
)

// A Runtime is the loaded library. It implements detect.Runtime. Its methods may be called from any goroutine.
// The zero session runs on the CPU.
type Runtime struct {
	library string
	session profile.Session
	engine  *Engine // nil without TensorRT
}

// Open loads ONNX Runtime's shared library. A process can load only one, so call Open
// once. It restores the process's signal handlers before it returns.
func Open(library string) (Runtime, error) {
	restore := keepSignals()
	defer restore()
	ort.SetSharedLibraryPath(library)
	if err := ort.InitializeEnvironment(ort.WithLogLevelError()); err != nil {
		return Runtime{}, fmt.Errorf("load ONNX Runtime from %s: %w", library, err)
	}
	return Runtime{library: library, session: profile.Default().Session(profile.Engine{}, "")}, nil
}

// Version returns the version of the loaded library.
func Version() string { return ort.GetVersion() }

// Describe returns a model's inputs and outputs.
func (Runtime) Describe(model []byte) (inputs, outputs []detect.Port, err error) {
	if err := selfContained(model); err != nil {
		return nil, nil, err
	}
	restore := keepSignals()
	defer restore()
	in, out, err := ort.GetInputOutputInfoWithONNXData(model)
	if err != nil {
		return nil, nil, err
	}
	return ports(in), ports(out), nil
}

// Metadata returns the metadata entry of a model with the given name; "" if there is none. It reads the file alone:
// ONNX Runtime would prepare the whole model for it.
func (Runtime) Metadata(model []byte, name string) (entry string, err error) {
	const metadataProps, key, value = 14, 1, 2
	err = fields(model, func(field uint64, body []byte, _ uint64) error {
		if field != metadataProps {
			return nil
		}
		var k, v string
		err := fields(body, func(field uint64, text []byte, _ uint64) error {
			switch field {
			case key:
				k = string(text)
			case value:
				v = string(text)
			}
			return nil
		})
		if k == name {
			entry = v // the last one counts, as in ONNX Runtime
		}
		return err
	})
	return entry, err
}

func ports(infos []ort.InputOutputInfo) []detect.Port {
	list := make([]detect.Port, len(infos))
	for i, info := range infos {
		list[i] = detect.Port{Name: info.Name, Shape: info.Dimensions}
		switch {
		case info.OrtValueType != ort.ONNXTypeTensor:
		case info.DataType == ort.TensorElementDataTypeFloat:
			list[i].Type = "float32"
		default:
			list[i].Type = info.DataType.String()
		}
	}
	return list
}

// A session is a loaded model.
type session struct {
	*ort.DynamicAdvancedSession
	outputs []string
}

// Load prepares a model to run with one input and the named outputs. Its operators use the
// given number of threads. Load does not check the names: Run fails if one is wrong.
func (r Runtime) Load(model []byte, input string, outputs []string, threads int) (detect.Model, error) {
	if err := selfContained(model); err != nil {
		return nil, err
	}
	restore := keepSignals()
	defer restore()
	if r.engine != nil {
		wrapped, err := r.engine.wrap(model, input, outputs)
		if err != nil {
			return nil, err
		}
		model = wrapped
	} else if err := r.checkPlacement(model, input, outputs, threads); err != nil {
		return nil, err
	}
	options, err := r.options(threads)
	if err != nil {
		return nil, err
	}
	defer options.Destroy()
	loaded, err := ort.NewDynamicAdvancedSessionWithONNXData(model, []string{input}, outputs, options)
	if err != nil {
		return nil, err
	}
	return &session{loaded, outputs}, nil
}

// Run runs the model on an input and returns the outputs in the order given to Load. It
// may be called from several goroutines at once. When ctx is done it stops at the next operator of the model.
func (s *session) Run(ctx context.Context, input detect.Tensor) ([]detect.Tensor, error) {
	in, err := ort.NewTensor(ort.NewShape(input.Shape...), input.Data)
	if err != nil {
		return nil, err
	}
	defer in.Destroy()
	values := make([]ort.Value, len(s.outputs))
	defer func() {
		for _, v := range values {
			if v != nil {
				v.Destroy()
			}
		}
	}()
	if err := s.run(ctx, []ort.Value{in}, values); err != nil {
		return nil, err
	}
	tensors := make([]detect.Tensor, len(values))
	for i, v := range values {
		t, ok := v.(*ort.Tensor[float32])
		if !ok {
			return nil, fmt.Errorf("output %s is not a float32 tensor", s.outputs[i])
		}
		tensors[i] = detect.Tensor{Shape: t.GetShape(), Data: t.GetData()}
	}
	return tensors, nil
}

func (s *session) run(ctx context.Context, in, out []ort.Value) error {
	if ctx.Done() == nil {
		return s.DynamicAdvancedSession.Run(in, out)
	}
	options, err := ort.NewRunOptions()
	if err != nil {
		return err
	}
	var mu sync.Mutex // Terminate must not be called after Destroy
	ended := false
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			_ = options.Terminate() // an error leaves the run as it is: it ends by itself
		}
	})
	err = s.RunWithOptions(in, out, options)
	stop()
	mu.Lock()
	defer mu.Unlock()
	ended = true
	err = errors.Join(err, options.Destroy())
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Close frees the model. It must not be called during Run.
func (s *session) Close() error { return s.Destroy() }
