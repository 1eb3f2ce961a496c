// Package cloud reads objects of S3, and of stores with the same API. It ends what runs have left in an account of AWS.
package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/autonomos/aob/reconciler/delivery"
)

// An Address says where a bucket is, and who reads it.
type Address struct {
	Bucket   string
	Endpoint string // of another store than Amazon's; "" for Amazon's
	Region   string // "" for that of the machine's configuration
	KeyID    string // "" for the credentials that the SDK finds: files, a role of the machine
	Key      string
}

// A Bucket is a bucket that is read.
type Bucket struct {
	client *s3.Client
	at     Address
}

// OpenBucket returns a bucket, once there are credentials. The bucket is not asked yet.
func OpenBucket(ctx context.Context, at Address) (*Bucket, error) {
	var options []func(*config.LoadOptions) error
	region := at.Region
	if region == "" && at.Endpoint != "" {
		region = "us-east-1" // other stores do not care, and signatures need one
	}
	if region != "" {
		options = append(options, config.WithRegion(region))
	}
	if at.KeyID != "" {
		options = append(options, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(at.KeyID, at.Key, "")))
	}
	c, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("the configuration of AWS on this machine: %w", err)
	}
	if c.Region == "" {
		return nil, delivery.Blockedf("add region=NAME to its location, as in s3://bucket?region=eu-central-1",
			"the region of bucket %s is not known", at.Bucket)
	}
	if _, err := c.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, delivery.Blockedf("name secrets in its location, as in s3://bucket?secrets=AWS, or give the "+
			"machine's user a credentials file or a role", "there are no credentials of AWS for bucket %s", at.Bucket)
	}
	client := s3.NewFromConfig(c, func(o *s3.Options) {
		o.HTTPClient = guarded(c.HTTPClient, at.Endpoint)
		o.DisableLogOutputChecksumValidationSkipped = true
		if at.Endpoint != "" {
			o.BaseEndpoint, o.UsePathStyle = aws.String(at.Endpoint), true
		}
	})
	return &Bucket{client: client, at: at}, nil
}

// Limits of an answer.
const (
	maxAnswer  = 32 << 20    // bytes, but of an object: a page of a list has a thousand keys
	answerTime = time.Minute // until it begins
)

// guarded returns a client that does not go where a store sends it: a store on another machine could make this one read
// addresses that only this one reaches. Amazon's own stores redirect among themselves.
func guarded(made aws.HTTPClient, endpoint string) aws.HTTPClient {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if own, ok := made.(interface{ GetTransport() *http.Transport }); ok { // it has the configured certificates
		transport = own.GetTransport()
	}
	transport.ResponseHeaderTimeout = answerTime
	follow := func(to *http.Request, via []*http.Request) error {
		code, from := to.Response.StatusCode, via[len(via)-1].URL
		again := code == http.StatusTemporaryRedirect || code == http.StatusPermanentRedirect
		same := to.URL.Scheme == from.Scheme && to.URL.Host == from.Host
		if !again || len(via) > 5 || !same && (endpoint != "" || !amazons(to.URL)) {
			return http.ErrUseLastResponse
		}
		if !same {
			to.Header.Del("X-Amz-Security-Token")
		}
		return nil
	}
	return &http.Client{Transport: limited{transport}, CheckRedirect: follow}
}

// amazons reports whether an address is one of Amazon's stores.
func amazons(u *url.URL) bool {
	host := "." + strings.ToLower(u.Hostname())
	amazon := slices.ContainsFunc([]string{".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu"},
		func(end string) bool { return strings.HasSuffix(host, end) })
	return u.Scheme == "https" && amazon && strings.Contains(host, ".s3")
}

// limited bounds the answers that are decoded whole: lists and errors.
type limited struct{ http.RoundTripper }

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.RoundTripper.RoundTrip(r)
	if err == nil && (response.StatusCode >= 300 || r.URL.Query().Has("list-type")) {
		response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	}
	return response, err
}

// List calls each for every object whose key begins with a prefix, in the order of their keys, until it returns an
// error. version changes if the content of an object does.
func (b *Bucket) List(ctx context.Context, prefix string, each func(key string, size int64,
	version string) error) error {
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{Bucket: &b.at.Bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return b.explain(err)
		}
		for _, o := range page.Contents {
			if err := each(aws.ToString(o.Key), aws.ToInt64(o.Size), aws.ToString(o.ETag)); err != nil {
				return err
			}
		}
	}
	return nil
}

// Read opens an object in one version, from an offset. A whole object is compared with its checksum, if it has one,
// when its end is read.
func (b *Bucket) Read(ctx context.Context, key, version string, offset int64) (io.ReadCloser, error) {
	input := &s3.GetObjectInput{Bucket: &b.at.Bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled}
	if version != "" {
		input.IfMatch = &version
	}
	if offset > 0 {
		input.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	out, err := b.client.GetObject(ctx, input)
	if err != nil {
		return nil, b.explain(err)
	}
	return out.Body, nil
}

// Write writes an object, whose bytes have a SHA-256, with which the store compares them. If fresh is set, an object
// that is there stays as it is, which is fs.ErrExist.
func (b *Bucket) Write(ctx context.Context, key string, body io.ReadSeeker, size int64, sum [sha256.Size]byte,
	fresh bool) error {
	input := &s3.PutObjectInput{Bucket: &b.at.Bucket, Key: &key, Body: body, ContentLength: &size,
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:]))}
	if fresh {
		input.IfNoneMatch = aws.String("*")
	}
	_, err := b.client.PutObject(ctx, input)
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok && fresh &&
		r.HTTPStatusCode() == http.StatusPreconditionFailed {
		return fs.ErrExist
	}
	return b.explain(err)
}

// Remove removes an object. A missing one is no error.
func (b *Bucket) Remove(ctx context.Context, key string) error {
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.at.Bucket, Key: &key})
	if err != nil {
		return b.explain(err)
	}
	return nil
}

// errMissing is the error of an object that is not there. It is fs.ErrNotExist.
type errMissing struct{}

func (errMissing) Error() string        { return "an object was removed while it was read" }
func (errMissing) Is(target error) bool { return target == fs.ErrNotExist }

// explain returns an error for people.
func (b *Bucket) explain(err error) error {
	status := 0
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		status = r.HTTPStatusCode()
	}
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return fmt.Errorf("bucket %s: %w", b.at.Bucket, err)
	}
	said := api.ErrorCode()
	if text := delivery.PlainText(api.ErrorMessage(), 200); text != "" {
		said += ": " + text
	}
	switch code := api.ErrorCode(); {
	case code == "NoSuchBucket":
		return delivery.Blockedf("check its location in the server's configuration", "there is no bucket %s",
			b.at.Bucket)
	case code == "PreconditionFailed" || status == http.StatusPreconditionFailed:
		return errors.New("an object was changed while it was read")
	case code == "NoSuchKey":
		return errMissing{}
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return delivery.Blockedf("check the credentials, and that they may list the bucket and read its objects",
			"bucket %s refuses the server's credentials (%s)", b.at.Bucket, said)
	case status == http.StatusMovedPermanently || code == "PermanentRedirect" || code == "AuthorizationHeaderMalformed":
		return delivery.Blockedf("add region=NAME to its location", "bucket %s is in another region (%s)", b.at.Bucket,
			said)
	}
	return fmt.Errorf("bucket %s: status %d, %s", b.at.Bucket, status, said)
}
