package onnx

import (
	"errors"
	"fmt"
	"strings"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/profile"
)

// An Engine is a TensorRT engine that was built on this machine.
type Engine struct {
	Model delivery.Digest // of the ONNX file that it was built of
	Plan  []byte
}

// With returns the runtime with the options of a hardware profile. It fails if the library does not have a provider
// that they name: a model must not run on the CPU while its user believes that it runs on the GPU. engine is nil
// without TensorRT.
func (r Runtime) With(session profile.Session, engine *Engine) (Runtime, error) {
	restore := keepSignals()
	defer restore()
	r.session, r.engine = session, engine
	options, err := ort.NewSessionOptions()
	if err != nil {
		return Runtime{}, err
	}
	defer options.Destroy()
	if err := appendProviders(options, session.Providers); err != nil {
		return Runtime{}, delivery.Blockedf("name a library that has it in AOB_ONNXRUNTIME, with the providers' own "+
			"libraries beside it and CUDA, cuDNN and TensorRT on LD_LIBRARY_PATH, or take a profile with provider cpu",
			"the ONNX Runtime at %s cannot compute as the profile says: %s", r.library, plain(err))
	}
	return r, nil
}

// plain returns the reason of a provider's error without the places in ONNX Runtime's source.
func plain(err error) string {
	text := err.Error()
	provider, rest, _ := strings.Cut(text, ": ")
	for _, before := range []string{"with error: ", "FAIL : "} {
		if _, reason, ok := strings.Cut(rest, before); ok {
			return provider + ": " + reason
		}
	}
	return text
}

// options returns the options of a session.
func (r Runtime) options(threads int) (*ort.SessionOptions, error) {
	options, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	errs := []error{
		options.SetExecutionMode(ort.ExecutionModeSequential),
		options.SetIntraOpNumThreads(threads),
		options.SetInterOpNumThreads(1),
	}
	for key, value := range r.session.Config {
		errs = append(errs, options.AddSessionConfigEntry(key, value))
	}
	errs = append(errs, appendProviders(options, r.session.Providers))
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, options.Destroy())
	}
	return options, nil
}

func appendProviders(options *ort.SessionOptions, providers []profile.ProviderOptions) error {
	for _, p := range providers {
		var err error
		switch p.Name {
		case profile.CUDAName:
			err = appendCUDA(options, p.Values)
		case profile.TensorRTName:
			err = appendTensorRT(options, p.Values)
		default:
			err = errors.New("it is not supported")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}

func appendCUDA(options *ort.SessionOptions, values map[string]string) error {
	cuda, err := ort.NewCUDAProviderOptions()
	if err != nil {
		return err
	}
	defer cuda.Destroy()
	if err := cuda.Update(values); err != nil {
		return err
	}
	return options.AppendExecutionProviderCUDA(cuda)
}

func appendTensorRT(options *ort.SessionOptions, values map[string]string) error {
	trt, err := ort.NewTensorRTProviderOptions()
	if err != nil {
		return err
	}
	defer trt.Destroy()
	if err := trt.Update(values); err != nil {
		return err
	}
	return options.AppendExecutionProviderTensorRT(trt)
}
