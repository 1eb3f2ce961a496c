package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/scheduler"
	"github.com/aws/smithy-go"
)

// A clients has AWS's services. Credentials and address come from the environment, and the region too, if it is "".
type clients struct {
	region    string
	ec2       *ec2.Client
	ecr       *ecr.Client
	iam       *iam.Client
	s3        *s3.Client
	scheduler *scheduler.Client
}

func newClients(ctx context.Context, region string) (*clients, error) {
	c, err := config.LoadDefaultConfig(ctx, config.WithRegion(region))
	if err != nil {
		return nil, err
	}
	if c.Region == "" {
		return nil, errors.New("no region: set AWS_REGION")
	}
	return &clients{
		region: c.Region, ec2: ec2.NewFromConfig(c), ecr: ecr.NewFromConfig(c), iam: iam.NewFromConfig(c),
		s3: s3.NewFromConfig(c, func(o *s3.Options) { o.UsePathStyle = true }), scheduler: scheduler.NewFromConfig(c),
	}, nil
}

// gone reports whether AWS answered that a thing does not exist.
func gone(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains([]string{
		"InvalidInstanceID.NotFound", "InvalidLaunchTemplateId.NotFound", "InvalidGroup.NotFound", "NoSuchEntity",
		"ResourceNotFoundException", "NotFound", "NoSuchBucket", "RepositoryNotFoundException",
		"LifecyclePolicyNotFoundException", "NoSuchPublicAccessBlockConfiguration", "OwnershipControlsNotFoundError",
		"ServerSideEncryptionConfigurationNotFoundError", "NoSuchLifecycleConfiguration", "NoSuchBucketPolicy",
	}, api.ErrorCode())
}

// ignoreGone is for deleting: what is gone already is as wanted.
func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// until repeats a check until it is done.
func until(ctx context.Context, what string, done func() (bool, error)) error {
	for end := time.Now().Add(5 * time.Minute); ; {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: nothing after five minutes", what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// document puts a JSON document that AWS returned. It keeps the text that the state has if both mean the same.
func document(out object, name string, returned *string, was object) {
	if returned == nil {
		out[name] = nil
		return
	}
	got := *returned
	if decoded, err := url.QueryUnescape(got); err == nil && len(got) > 0 && got[0] == '%' {
		got = decoded
	}
	var a, b any
	if json.Unmarshal([]byte(got), &a) == nil && json.Unmarshal([]byte(text(was, name)), &b) == nil &&
		reflect.DeepEqual(a, b) {
		got = text(was, name)
	}
	out[name] = got
}

// tagged puts tags that AWS returned.
func tagged[T any](out, was object, tags []T, pair func(T) (key, value *string)) {
	all := object{}
	for _, tag := range tags {
		if key, value := pair(tag); !strings.HasPrefix(*key, "aws:") { // those are Amazon's own
			all[*key] = *value
		}
	}
	out["tags"], out["tags_all"] = all, all
	if len(all) == 0 && was["tags"] == nil {
		out["tags"] = nil
	}
}

// tagList converts the tags of a resource.
func tagList[T any](o object, name string, tag func(key, value *string) T) []T {
	var out []T
	tags, _ := o[name].(object)
	for key, value := range tags {
		value, _ := value.(string)
		out = append(out, tag(&key, &value))
	}
	return out
}
