package main

import (
	"context"
	"errors"
	"os/exec"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// pythonPackages are Debian's packages of the modules that the built-in trainer imports.
var pythonPackages = map[string]string{"numpy": "python3-numpy", "PIL": "python3-pil", "torch": "python3-torch",
	"torchvision": "python3-torchvision", "onnx": "python3-onnx"}

// missingModules prints which of its arguments are no modules.
const missingModules = "import importlib.util, sys\n" +
	"print(*[m for m in sys.argv[1:] if importlib.util.find_spec(m) is None])"

// pythonHas says which modules a Python lacks, and how they are installed.
func pythonHas(ctx context.Context, python string, modules ...string) error {
	out, err := exec.CommandContext(ctx, python, append([]string{"-c", missingModules}, modules...)...).Output()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		why := err.Error()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(exit.Stderr) > 0 {
			why = strings.TrimSpace(string(exit.Stderr))
		}
		return delivery.Blockedf("install Python 3 (apt-get install python3), or name another one (--python, or "+
			"python: in the configuration)", "Python does not run: %s", why)
	}
	missing := strings.Fields(string(out))
	if len(missing) == 0 {
		return nil
	}
	packages := make([]string, len(missing))
	for i, m := range missing {
		packages[i] = pythonPackages[m]
	}
	return delivery.Blockedf("run make tools in the folder of AOB's source, which installs it; or apt-get install "+
		strings.Join(packages, " "), "%s has no module %s", python, strings.Join(missing, " and no module "))
}
