// Package versitytest runs versitygw, a server of the S3 protocol that people use in production, for tests. It checks
// signatures, checksums and conditions, which moto does not.
//
// ../install.sh builds the program once, in the user's cache folder. If it is missing, [Start] skips the test.
//
// Only tests import it.
package versitytest

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Version is the version that install.sh builds.
const Version = "1.8.0"

// The credentials of a server.
const (
	KeyID = "versity"
	Key   = "versity-secret"
)

// A Server is a running versitygw.
type Server struct {
	URL    string // for example http://127.0.0.1:40123
	client *s3.Client
}

// Start starts a server, waits until it answers, and stops it when the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartIn(t, "us-east-1")
}

// StartIn starts a server in a region.
func StartIn(t testing.TB, region string) *Server {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(cache, "aob", "versitygw-"+Version)
	if _, err := os.Stat(program); err != nil {
		t.Skip("versitygw is not installed: run tools/versitygw/install.sh, or make test-tools")
	}
	free, err := net.Listen("tcp", "127.0.0.1:0") // the program cannot be given a listener
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	command := exec.Command(program, "--access", KeyID, "--secret", Key, "--port", address, "--region", region,
		"--quiet", "posix", t.TempDir())
	command.Stderr = os.Stderr
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ended
	})
	s := &Server{URL: "http://" + address}
	s.client = s3.New(s3.Options{Region: region, BaseEndpoint: &s.URL, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(KeyID, Key, "")})
	for deadline := time.Now().Add(time.Minute); ; {
		if _, err = s.client.ListBuckets(context.Background(), &s3.ListBucketsInput{}); err == nil {
			return s
		}
		select {
		case why := <-ended:
			ended <- why
			t.Fatalf("versitygw does not start: %v", why)
		case <-time.After(20 * time.Millisecond):
			if time.Now().After(deadline) {
				t.Fatalf("versitygw does not answer: %v", err)
			}
		}
	}
}

// Bucket makes a bucket.
func (s *Server) Bucket(t testing.TB, bucket string) {
	t.Helper()
	if _, err := s.client.CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
}
