package front

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// StartTLS is Start with a second address, of https. certificate is a file with what clients of that must trust.
func (f *Front) StartTLS(t testing.TB, to string) (plain, secure, certificate string) {
	t.Helper()
	plain = f.Start(t, to)
	server := httptest.NewTLSServer(f)
	t.Cleanup(server.Close)
	certificate = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(certificate, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return plain, server.URL, certificate
}

// bucketPolicy keeps the policies of buckets, and refuses what they deny. moto takes every condition as met, so that a
// policy that denies something denies everything. It reports whether it has answered.
func (f *Front) bucketPolicy(w http.ResponseWriter, r *http.Request, body []byte) bool {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	f.mu.Lock()
	policy, has := f.policies[bucket]
	f.mu.Unlock()
	if has && denied(policy, r, bucket, key) {
		refuseS3(w, http.StatusForbidden, "AccessDenied", "Access Denied")
		return true
	}
	if !r.URL.Query().Has("policy") {
		return false
	}
	switch r.Method {
	case http.MethodPut:
		f.mu.Lock()
		f.policies[bucket] = string(body)
		f.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case http.MethodDelete:
		f.mu.Lock()
		delete(f.policies, bucket)
		f.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	default:
		if !has {
			refuseS3(w, http.StatusNotFound, "NoSuchBucketPolicy", "The bucket policy does not exist")
			return true
		}
		_, _ = io.WriteString(w, policy)
	}
	return true
}

func refuseS3(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code,
		message)
}

// denied reports whether the policy of a bucket denies a call, or cannot be told here.
func denied(policy string, r *http.Request, bucket, key string) bool {
	resource := "arn:aws:s3:::" + bucket
	action := map[string]string{http.MethodPut: "s3:PutObject", http.MethodDelete: "s3:DeleteObject"}[r.Method]
	if key != "" {
		resource += "/" + key
	}
	if action == "" {
		action = "s3:GetObject"
	}
	decision, err := decide(policy, action, resource, map[string]string{
		"aws:SecureTransport": strconv.FormatBool(r.TLS != nil)})
	return err != nil || decision == "explicitDeny"
}
