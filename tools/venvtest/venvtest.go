// Package venvtest finds the Python tools that tests use. Only tests import it.
package venvtest

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Python returns the Python that has a tool. It skips the test if the tool is not installed.
func Python(t testing.TB, tool string) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	out, err := exec.Command(filepath.Join(filepath.Dir(here), "..", "venv.sh"), "--there", tool).Output()
	if err != nil {
		t.Skipf("the Python tool %s is not installed: run tools/venv.sh %s, or make test-tools", tool, tool)
	}
	return strings.TrimSpace(string(out))
}

// Program returns one of a tool's programs, such as mlflow. It skips the test if the tool is not installed.
func Program(t testing.TB, tool, name string) string {
	t.Helper()
	return filepath.Join(filepath.Dir(Python(t, tool)), name)
}
