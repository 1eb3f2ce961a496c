// Package cloud reads objects of S3, and of stores with the same API.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

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
		o.DisableLogOutputChecksumValidationSkipped = true
		if at.Endpoint != "" {
			o.BaseEndpoint, o.UsePathStyle = aws.String(at.Endpoint), true
		}
	})
	return &Bucket{client: client, at: at}, nil
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
		return errors.New("an object was removed while it was read")
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return delivery.Blockedf("check the credentials, and that they may list the bucket and read its objects",
			"bucket %s refuses the server's credentials (%s)", b.at.Bucket, said)
	case status == http.StatusMovedPermanently || code == "PermanentRedirect" || code == "AuthorizationHeaderMalformed":
		return delivery.Blockedf("add region=NAME to its location", "bucket %s is in another region (%s)", b.at.Bucket,
			said)
	}
	return fmt.Errorf("bucket %s: status %d, %s", b.at.Bucket, status, said)
}
