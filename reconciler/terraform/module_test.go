package terraform

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/autonomos/aob/reconciler/delivery"
)

// program returns the path of terraform, or of OpenTofu where AOB_TERRAFORM names it: make test-tofu.
func program(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath(cmp.Or(os.Getenv("AOB_TERRAFORM"), "terraform"))
	if err != nil {
		t.Skip("no terraform on PATH: install Terraform 1.10 or newer to run this test")
	}
	return path
}

// Whatever is changed about the module, the plan is refused, with the reason,
// before anything is applied.
func TestPolicyRefuses(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	terraform := program(t)
	main, err := os.ReadFile(filepath.Join(moduleDir, "main.tf"))
	if err != nil {
		t.Fatal(err)
	}
	const touch = `provisioner "local-exec" { command = "touch applied" }`
	tests := []struct {
		name     string
		old, new string // a replacement in main.tf
		file     string // or one more file
		want     string
	}{
		{name: "the module as it is"},
		{name: "another word in the command", old: "launch start", new: "launch start --force",
			want: "terraform_data.trainer: provisioners"},
		{name: "values in the command", old: `launch start"`, new: `launch start ${self.input}"`,
			want: "terraform_data.trainer: provisioners"},
		{name: "another shell", old: `["/bin/sh", "-c"]`, new: `["/bin/bash", "-c"]`,
			want: "terraform_data.trainer: provisioners"},
		{name: "an environment", old: `working_dir = self.input`,
			new: "working_dir = self.input\nenvironment = {AOB = \"/tmp/x\"}", want: "with other settings"},
		{name: "another folder", old: `working_dir = self.input`, new: `working_dir = "/"`,
			want: "terraform_data.trainer: provisioners"},
		{name: "one command more", old: `input = var.folder`, new: "input = var.folder\n" + touch,
			want: "terraform_data.trainer: provisioners"},
		// a plan does not tell when a command runs; its words are fixed
		{name: "one command fewer", old: `when        = destroy`, new: ``, want: ""},
		{name: "another value", old: `input = var.folder`, new: `input = "/tmp"`,
			want: "terraform_data.trainer: input: want"},
		{name: "another resource", file: `resource "terraform_data" "more" {` + "\n" + touch + "\n}",
			want: "terraform_data.more: no such resource is allowed"},
		{name: "several of it", old: `input = var.folder`, new: "count = 2\ninput = var.folder",
			want: "terraform_data.trainer[1]: no such resource is allowed"},
		{name: "none of it", old: `input = var.folder`, new: "count = 0\ninput = var.folder",
			want: "the plan does not create it"},
		{name: "a data source", file: `data "terraform_remote_state" "x" {` +
			"\nbackend = \"local\"\nconfig = {path = \"sub/state.json\"}\n}", want: "no such"},
		{name: "a module", file: `module "m" { source = "./sub" }`, want: "module.m: no modules are allowed"},
		{name: "another provider", file: `resource "null_resource" "x" {}`, want: "terraform init"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			text := string(main)
			if strings.Contains(test.new, "count") { // and an output that fits it
				text = strings.ReplaceAll(text, "= terraform_data.trainer.output", "= terraform_data.trainer[*].output")
			}
			if strings.Count(text, test.old) == 0 {
				t.Fatalf("main.tf does not hold %q", test.old)
			}
			files := fstest.MapFS{"main.tf": {Data: []byte(strings.ReplaceAll(text, test.old, test.new))}}
			if test.old == "" {
				files["main.tf"].Data = main
			}
			if test.file != "" {
				files["more.tf"] = &fstest.MapFile{Data: []byte(test.file)}
				files["sub/state.json"] = &fstest.MapFile{Data: []byte(
					`{"version":4,"terraform_version":"1.11.4","serial":1,"lineage":"x","outputs":{},"resources":[]}`)}
				files["sub/main.tf"] = &fstest.MapFile{Data: []byte(`output "x" { value = 1 }`)}
			}
			dir := t.TempDir()
			s, err := Module{Exec: terraform, Files: files}.Create(filepath.Join(dir, "stack"),
				map[string]string{"folder": dir}, trainLocal(dir), nil)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Plan(t.Context())
			switch {
			case test.want == "":
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
			case err == nil || !strings.Contains(err.Error(), test.want):
				t.Fatalf("error %v, want it to hold %q", err, test.want)
			case !strings.HasPrefix(test.want, "terraform "):
				if _, ok := errors.AsType[delivery.Blocked](err); !ok {
					t.Errorf("error %v, want a Blocked one", err)
				}
			}
			if exists(filepath.Join(dir, "stack", stateFile)) {
				t.Error("something was applied")
			}
		})
	}
}

// What Terraform is told, word by word, and with which environment.
func TestCommandLines(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	t.Setenv("TF_CLI_ARGS", "-destroy")
	t.Setenv("TF_VAR_folder", "/tmp")
	dir := t.TempDir()
	record := filepath.Join(dir, "record")
	plan := `{"format_version":"1.2","complete":true,"configuration":{"root_module":{}}}`
	stub := filepath.Join(dir, "terraform")
	script := "#!/bin/sh\n{ echo \"argv: $*\"; env | sort; } >> " + record + "\n" +
		"case $1 in show) echo '" + plan + "';; output) echo '{\"folder\":{\"value\":\"/x\"}}';; version) echo " +
		"'{\"terraform_version\":\"1.11.4\"}';; esac\n"
	if err := os.WriteFile(stub, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	stack := filepath.Join(dir, "stack")
	s, err := Module{Exec: stub, Files: fstest.MapFS{"main.tf": {}}}.Create(stack, map[string]string{"folder": "/x"},
		Policy{}, map[string]string{"AOB": "/usr/bin/aob"})
	if err != nil {
		t.Fatal(err)
	}
	var folder string
	for _, step := range []func() error{
		func() error { return s.Plan(t.Context()) },
		func() error { return s.Apply(t.Context()) },
		func() error { return s.Output(t.Context(), "folder", &folder) },
		func() error { return os.WriteFile(filepath.Join(stack, stateFile), nil, 0o600) },
		func() error { return s.Destroy(t.Context()) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if folder != "/x" {
		t.Errorf("output %q", folder)
	}
	var argv []string
	env := map[string]bool{}
	data, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if words, ok := strings.CutPrefix(line, "argv: "); ok {
			if words != "version -json" {
				argv = append(argv, words)
			}
		} else {
			env[line] = true
		}
	}
	t.Run("arguments", func(t *testing.T) { wantArguments(t, argv) })
	t.Run("environment", func(t *testing.T) { wantEnvironment(t, env, stack) })
}

func wantArguments(t *testing.T, argv []string) {
	want := []string{
		"init -no-color -input=false -backend=true -get=true -upgrade=false",
		"plan -no-color -input=false -detailed-exitcode -lock-timeout=30s -out=plan.bin -lock=true -parallelism=10 " +
			"-refresh=true",
		"show -json -no-color plan.bin",
		"apply -no-color -auto-approve -input=false -lock-timeout=30s -lock=true -parallelism=10 " +
			"-refresh=true plan.bin",
		"output -no-color -json",
		"init -no-color -input=false -backend=true -get=true -upgrade=false",
		"destroy -no-color -auto-approve -input=false -lock-timeout=30s -lock=true -parallelism=10 -refresh=true",
	}
	if !slices.Equal(argv, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(argv, "\n"), strings.Join(want, "\n"))
	}
}

func wantEnvironment(t *testing.T, env map[string]bool, stack string) {
	for _, want := range []string{"PATH=" + path, "HOME=" + stack, "TF_DATA_DIR=" + stack + "/.terraform",
		"TF_CLI_CONFIG_FILE=" + stack + "/cli.tfrc",
		"CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "AOB=/usr/bin/aob"} {
		if !env[want] {
			t.Errorf("terraform's environment lacks %s", want)
		}
		delete(env, want)
	}
	for line := range env {
		name, value, _ := strings.Cut(line, "=")
		if slices.Contains([]string{"PWD", "OLDPWD", "SHLVL", "_", "TF_APPEND_USER_AGENT"}, name) ||
			strings.HasPrefix(name, "TF_LOG") && value == "" {
			continue // the shell's and the library's own
		}
		t.Errorf("terraform's environment holds %s", line)
	}
}

func TestModuleIsSelfContained(t *testing.T) {
	err := fs.WalkDir(os.DirFS(moduleDir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if name != "main.tf" && name != "module.go" {
			t.Errorf("%s is not compiled in: see module.go", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBoundedLog(t *testing.T) {
	l := &boundedLog{path: filepath.Join(t.TempDir(), "log"), limit: 100}
	for range 50 {
		if n, err := l.Write([]byte("12345678\n")); n != 9 || err != nil {
			t.Fatal(n, err)
		}
	}
	data, err := os.ReadFile(l.path)
	if err != nil || !bytes.HasSuffix(data, []byte("(the log ends here: it is full)\n")) || len(data) > 150 {
		t.Errorf("%d bytes, %v:\n%s", len(data), err, data)
	}
}

// Terraform's own words reach the error, in one line and cut to size.
func TestTerraformError(t *testing.T) {
	terraform := program(t)
	s, err := Module{Exec: terraform, Files: fstest.MapFS{"main.tf": {Data: []byte(`variable "folder" {` +
		"\n")}}}.Create(filepath.Join(t.TempDir(), "stack"), struct{}{}, Policy{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Plan(t.Context())
	if err == nil || !strings.Contains(err.Error(), "Unclosed configuration block") ||
		strings.ContainsAny(err.Error(), "\n│") || !strings.Contains(err.Error(), terraformLog) {
		t.Errorf("error %v", err)
	}
}
