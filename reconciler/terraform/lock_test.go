package terraform

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/autonomos/aob/tools/versitygw/versitytest"
)

// locking is a module whose apply writes into a pipe and waits for another. Its state is in a bucket, with the lock
// beside it.
const locking = `terraform {
  backend "s3" {
    use_lockfile                = true
    skip_credentials_validation = true
    skip_requesting_account_id  = true
  }
}
variable "pipe" {}
resource "terraform_data" "x" {
  provisioner "local-exec" {
    command = "echo applying > ${var.pipe} && read end < ${var.pipe}.end"
  }
}
`

// The lock of a state in a bucket of a real server of the S3 protocol: a second process is refused, with who has it;
// that of a process which was killed here is removed, and that of another machine when it is old.
func TestStateLock(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	store := versitytest.Start(t)
	store.Bucket(t, "states")
	terraform, pipe := program(t), filepath.Join(t.TempDir(), "pipe")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), unix.Mkfifo(pipe+".end", 0o600)); err != nil {
		t.Fatal(err)
	}
	stack := func() *Stack {
		s, err := Module{Exec: terraform, Files: fstest.MapFS{"main.tf": {Data: []byte(locking)}},
			Backend: map[string]string{"bucket": "states", "key": "x.tfstate", "region": "us-east-1",
				"use_path_style": "true"}}.Create(filepath.Join(t.TempDir(), "stack"), map[string]string{"pipe": pipe},
			Policy{Resources: []Resource{{Address: "terraform_data.x", Provider: "terraform.io/builtin/terraform",
				Commands: []Command{{Command: "(local-exec with other settings)"}}}}}, map[string]string{
				"AWS_ACCESS_KEY_ID": versitytest.KeyID, "AWS_SECRET_ACCESS_KEY": versitytest.Key,
				"AWS_ENDPOINT_URL_S3": store.URL, "AWS_EC2_METADATA_DISABLED": "true"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	holder, other := stack(), stack()
	for _, s := range []*Stack{holder, other} {
		if err := s.Plan(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	applied := make(chan error, 1)
	go func() { applied <- holder.Apply(t.Context()) }()
	reader, err := os.Open(pipe) // returns when the command writes: the lock is held
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"plan": other.plan(t.Context()), "apply": other.Apply(t.Context())} {
		for _, want := range []string{"terraform " + what + ": the state states/x.tfstate is locked by ", "@" + host,
			" for apply since "} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s while another process has the lock: %v, want it to hold %q", what, err, want)
			}
		}
	}
	left, err := carrying("TF_DATA_DIR=" + holder.env["TF_DATA_DIR"])
	if err != nil || len(left) == 0 {
		t.Fatalf("the processes that hold the lock: %v, %v", left, err)
	}
	for _, p := range left {
		if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	}
	if err := <-applied; err == nil {
		t.Fatal("the process that held the lock was not killed")
	}
	client := s3.New(s3.Options{Region: "us-east-1", BaseEndpoint: &store.URL, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(versitytest.KeyID, versitytest.Key, "")})
	lock := func(text string) {
		t.Helper()
		if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("states"),
			Key: aws.String("x.tfstate.tflock"), Body: strings.NewReader(text)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("states"),
		Key: aws.String("x.tfstate.tflock")}); err != nil {
		t.Fatalf("the killed process has left no lock: %v", err)
	}
	if err := holder.Destroy(t.Context()); err != nil {
		t.Errorf("with the lock of a process that was killed here: %v", err)
	}
	elsewhere := func(created time.Time) string {
		return fmt.Sprintf(`{"ID":"0d3c5a4e-7f0e-4e7b-9a53-2f6a3b8c9d10","Operation":"OperationTypeApply","Info":"",`+
			`"Who":"aob@elsewhere","Version":"1.11.4","Created":%q,"Path":"states/x.tfstate"}`,
			created.UTC().Format(time.RFC3339Nano))
	}
	lock(elsewhere(time.Now().Add(-time.Hour)))
	if err := holder.Destroy(t.Context()); err == nil || !strings.Contains(err.Error(),
		"locked by aob@elsewhere for apply since ") {
		t.Errorf("with the lock of another machine: %v", err)
	}
	lock(elsewhere(time.Now().Add(-3 * time.Hour)))
	if err := holder.Destroy(t.Context()); err != nil {
		t.Errorf("with an old lock of another machine: %v", err)
	}
}

// A provider that outlives its terraform does not keep the attempt from being ended.
func TestOrphanedProvider(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: run it without -short")
	}
	t.Parallel()
	s := &Stack{dir: t.TempDir(), env: map[string]string{"TF_DATA_DIR": t.TempDir()}}
	env := []string{"PATH=" + path, "TF_PLUGIN_MAGIC_COOKIE=x", "TF_DATA_DIR=" + s.env["TF_DATA_DIR"]}
	provider := exec.Command("sleep", "1000")
	provider.Env = env
	if err := provider.Start(); err != nil {
		t.Fatal(err)
	}
	defer provider.Process.Kill()
	ended := make(chan struct{})
	go func() { _ = provider.Wait(); close(ended) }()
	if err := s.idle(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ended
}
