// Package mototest runs moto, a stand-in for S3, for tests.
//
// tools/venv.sh installs it once, in the user's cache folder. If it is missing, [Start] skips the test.
//
// Only tests import it.
package mototest

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/autonomos/aob/tools/venvtest"
)

// A Server is a running moto. It accepts all credentials.
type Server struct {
	URL    string // for example http://127.0.0.1:40123
	client *s3.Client
}

const script = `import logging, sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
`

// Start starts a server, which ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	command := exec.Command(venvtest.Python(t, "moto"), "-c", script)
	command.Env = append(os.Environ(), "MOTO_S3_DEFAULT_MAX_KEYS=10", // a page of a list
		"MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION=1", "MOTO_ENABLE_AMI_VALIDATION=1") // else any name is good
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = command.Wait() // it has ended, whatever its status
	})
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("moto does not start: %v", err)
	}
	s := &Server{URL: strings.TrimSpace(address)}
	s.client = s3.New(s3.Options{Region: "us-east-1", BaseEndpoint: &s.URL, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider("id", "key", "")})
	return s
}

// Bucket makes a bucket.
func (s *Server) Bucket(t testing.TB, bucket string) {
	t.Helper()
	if _, err := s.client.CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		t.Fatal(err)
	}
}

// Put writes an object.
func (s *Server) Put(t testing.TB, bucket, key, data string) {
	t.Helper()
	_, err := s.client.PutObject(context.Background(), &s3.PutObjectInput{Bucket: &bucket, Key: &key,
		Body: strings.NewReader(data), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	if err != nil {
		t.Fatal(err)
	}
}

// Clear removes all objects whose keys begin with a prefix.
func (s *Server) Clear(t testing.TB, bucket, prefix string) {
	t.Helper()
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			_, err := s.client.DeleteObject(context.Background(), &s3.DeleteObjectInput{Bucket: &bucket, Key: o.Key})
			if err != nil {
				t.Fatalf("delete %s: %v", aws.ToString(o.Key), err)
			}
		}
	}
}
