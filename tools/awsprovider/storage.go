package main

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func s3Pair(t types.Tag) (*string, *string) { return t.Key, t.Value }

func createBucket(ctx context.Context, c *clients, o object) (string, error) {
	in := &s3.CreateBucketInput{Bucket: optional(o, "bucket"), ObjectLockEnabledForBucket: boolean(o,
		"object_lock_enabled")}
	if c.region != "us-east-1" {
		in.CreateBucketConfiguration = &types.CreateBucketConfiguration{
			LocationConstraint: types.BucketLocationConstraint(c.region)}
	}
	if _, err := c.s3.CreateBucket(ctx, in); err != nil {
		return "", err
	}
	tags := tagList(o, "tags", func(key, value *string) types.Tag { return types.Tag{Key: key, Value: value} })
	if len(tags) == 0 {
		return *in.Bucket, nil
	}
	_, err := c.s3.PutBucketTagging(ctx, &s3.PutBucketTaggingInput{Bucket: in.Bucket,
		Tagging: &types.Tagging{TagSet: tags}})
	return *in.Bucket, err
}

func readBucket(ctx context.Context, c *clients, was object) (object, error) {
	name := text(was, "id")
	if _, err := c.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &name}); err != nil {
		return nil, ignoreGone(err)
	}
	out := object{"id": name, "bucket": name, "arn": "arn:aws:s3:::" + name, "region": c.region}
	if was["tags"] != nil {
		got, err := c.s3.GetBucketTagging(ctx, &s3.GetBucketTaggingInput{Bucket: &name})
		if err != nil {
			return nil, err
		}
		tagged(out, was, got.TagSet, s3Pair)
	}
	return out, nil
}

func deleteBucket(ctx context.Context, c *clients, o object) error {
	_, err := c.s3.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: optional(o, "id")})
	return ignoreGone(err)
}

// setting is a part of a bucket's settings. Each is a resource of its own, and writing one twice is the same as once.
func setting(put func(context.Context, *clients, object) error,
	read func(context.Context, *clients, object) (object, error),
	remove func(context.Context, *clients, *string) error) kind {
	return kind{
		create: func(ctx context.Context, c *clients, o object) (string, error) {
			if err := put(ctx, c, o); err != nil {
				return "", err
			}
			return text(o, "bucket"), nil
		},
		read: func(ctx context.Context, c *clients, was object) (object, error) {
			out, err := read(ctx, c, was)
			return out, ignoreGone(err)
		},
		update: put,
		delete: func(ctx context.Context, c *clients, o object) error {
			return ignoreGone(remove(ctx, c, optional(o, "bucket")))
		},
	}
}

var bucketPublicAccess = setting(func(ctx context.Context, c *clients, o object) error {
	_, err := c.s3.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: optional(o, "bucket"),
		PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{BlockPublicAcls: boolean(o,
			"block_public_acls"),
			BlockPublicPolicy: boolean(o, "block_public_policy"), IgnorePublicAcls: boolean(o, "ignore_public_acls"),
			RestrictPublicBuckets: boolean(o, "restrict_public_buckets")}})
	return err
}, func(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.s3.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: optional(was, "bucket")})
	if err != nil {
		return nil, err
	}
	p := got.PublicAccessBlockConfiguration
	return object{"id": text(was, "bucket"), "block_public_acls": aws.ToBool(p.BlockPublicAcls),
		"block_public_policy": aws.ToBool(p.BlockPublicPolicy), "ignore_public_acls": aws.ToBool(p.IgnorePublicAcls),
		"restrict_public_buckets": aws.ToBool(p.RestrictPublicBuckets)}, nil
}, func(ctx context.Context, c *clients, bucket *string) error {
	_, err := c.s3.DeletePublicAccessBlock(ctx, &s3.DeletePublicAccessBlockInput{Bucket: bucket})
	return err
})

var bucketOwnership = setting(func(ctx context.Context, c *clients, o object) error {
	_, err := c.s3.PutBucketOwnershipControls(ctx, &s3.PutBucketOwnershipControlsInput{Bucket: optional(o, "bucket"),
		OwnershipControls: &types.OwnershipControls{Rules: []types.OwnershipControlsRule{{
			ObjectOwnership: types.ObjectOwnership(text(first(o, "rule"), "object_ownership"))}}}})
	return err
}, func(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.s3.GetBucketOwnershipControls(ctx, &s3.GetBucketOwnershipControlsInput{Bucket: optional(was,
		"bucket")})
	if err != nil {
		return nil, err
	}
	return object{"id": text(was, "bucket"), "rule": list(got.OwnershipControls.Rules,
		func(r types.OwnershipControlsRule) any { return object{"object_ownership": string(r.ObjectOwnership)} })}, nil
}, func(ctx context.Context, c *clients, bucket *string) error {
	_, err := c.s3.DeleteBucketOwnershipControls(ctx, &s3.DeleteBucketOwnershipControlsInput{Bucket: bucket})
	return err
})

var bucketVersioning = setting(func(ctx context.Context, c *clients, o object) error {
	_, err := c.s3.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: optional(o, "bucket"),
		VersioningConfiguration: &types.VersioningConfiguration{
			Status: types.BucketVersioningStatus(text(first(o, "versioning_configuration"), "status"))}})
	return err
}, func(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.s3.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: optional(was, "bucket")})
	if err != nil || got.Status == "" {
		return nil, err
	}
	return object{"id": text(was, "bucket"), "versioning_configuration": []any{object{"status": string(got.Status)}}},
		nil
}, func(ctx context.Context, c *clients, bucket *string) error { // AWS cannot take versioning away
	_, err := c.s3.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: bucket,
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusSuspended}})
	return err
})

var bucketEncryption = setting(func(ctx context.Context, c *clients, o object) error {
	var rules []types.ServerSideEncryptionRule
	for _, r := range elements(o["rule"]) {
		by := first(r, "apply_server_side_encryption_by_default")
		rules = append(rules, types.ServerSideEncryptionRule{BucketKeyEnabled: boolean(r, "bucket_key_enabled"),
			ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{
				SSEAlgorithm:   types.ServerSideEncryption(text(by, "sse_algorithm")),
				KMSMasterKeyID: optional(by, "kms_master_key_id")}})
	}
	_, err := c.s3.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{Bucket: optional(o, "bucket"),
		ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: rules}})
	return err
}, func(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.s3.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: optional(was, "bucket")})
	if err != nil {
		return nil, err
	}
	return object{"id": text(was, "bucket"), "rule": list(got.ServerSideEncryptionConfiguration.Rules,
		func(r types.ServerSideEncryptionRule) any {
			by := object{"sse_algorithm": string(r.ApplyServerSideEncryptionByDefault.SSEAlgorithm)}
			set(by, "kms_master_key_id", r.ApplyServerSideEncryptionByDefault.KMSMasterKeyID)
			return object{"bucket_key_enabled": aws.ToBool(r.BucketKeyEnabled),
				"apply_server_side_encryption_by_default": []any{by}}
		})}, nil
}, func(ctx context.Context, c *clients, bucket *string) error {
	_, err := c.s3.DeleteBucketEncryption(ctx, &s3.DeleteBucketEncryptionInput{Bucket: bucket})
	return err
})

var bucketLifecycle = setting(func(ctx context.Context, c *clients, o object) error {
	var rules []types.LifecycleRule
	for _, r := range elements(o["rule"]) {
		rule := types.LifecycleRule{ID: optional(r, "id"), Status: types.ExpirationStatus(text(r, "status")),
			Filter: &types.LifecycleRuleFilter{Prefix: aws.String(text(first(r, "filter"), "prefix"))}}
		if e := first(r, "expiration"); e != nil {
			rule.Expiration = &types.LifecycleExpiration{Days: number(e, "days")}
		}
		if e := first(r, "noncurrent_version_expiration"); e != nil {
			rule.NoncurrentVersionExpiration = &types.NoncurrentVersionExpiration{
				NoncurrentDays: number(e, "noncurrent_days")}
		}
		if a := first(r, "abort_incomplete_multipart_upload"); a != nil {
			rule.AbortIncompleteMultipartUpload = &types.AbortIncompleteMultipartUpload{
				DaysAfterInitiation: number(a, "days_after_initiation")}
		}
		rules = append(rules, rule)
	}
	_, err := c.s3.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{
		Bucket: optional(o, "bucket"), LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: rules}})
	return err
}, func(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.s3.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{
		Bucket: optional(was, "bucket")})
	if err != nil {
		return nil, err
	}
	return object{"id": text(was, "bucket"), "rule": list(got.Rules, lifecycleRule)}, nil
}, func(ctx context.Context, c *clients, bucket *string) error {
	_, err := c.s3.DeleteBucketLifecycle(ctx, &s3.DeleteBucketLifecycleInput{Bucket: bucket})
	return err
})

func lifecycleRule(r types.LifecycleRule) any {
	out := object{"id": *r.ID, "status": string(r.Status), "filter": []any{object{"prefix": nil}}}
	if r.Filter != nil {
		out["filter"] = []any{object{"prefix": aws.ToString(r.Filter.Prefix)}}
	}
	if e := r.Expiration; e != nil {
		out["expiration"] = []any{object{"days": float64(aws.ToInt32(e.Days))}}
	}
	if e := r.NoncurrentVersionExpiration; e != nil {
		out["noncurrent_version_expiration"] = []any{object{"noncurrent_days": float64(aws.ToInt32(e.NoncurrentDays))}}
	}
	if a := r.AbortIncompleteMultipartUpload; a != nil {
		out["abort_incomplete_multipart_upload"] = []any{object{
			"days_after_initiation": float64(aws.ToInt32(a.DaysAfterInitiation))}}
	}
	return out
}

var bucketPolicy = setting(func(ctx context.Context, c *clients, o object) error {
	_, err := c.s3.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: optional(o, "bucket"),
		Policy: optional(o, "policy")})
	return err
}, func(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.s3.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: optional(was, "bucket")})
	if err != nil {
		return nil, err
	}
	out := object{"id": text(was, "bucket")}
	document(out, "policy", got.Policy, was)
	return out, nil
}, func(ctx context.Context, c *clients, bucket *string) error {
	_, err := c.s3.DeleteBucketPolicy(ctx, &s3.DeleteBucketPolicyInput{Bucket: bucket})
	return err
})

func createRepository(ctx context.Context, c *clients, o object) (string, error) {
	in := &ecr.CreateRepositoryInput{RepositoryName: optional(o, "name"),
		ImageTagMutability: ecrtypes.ImageTagMutability(text(o, "image_tag_mutability")),
		Tags: tagList(o, "tags", func(key, value *string) ecrtypes.Tag {
			return ecrtypes.Tag{Key: key, Value: value}
		})}
	if s := first(o, "image_scanning_configuration"); s != nil {
		in.ImageScanningConfiguration = &ecrtypes.ImageScanningConfiguration{ScanOnPush: *boolean(s, "scan_on_push")}
	}
	if e := first(o, "encryption_configuration"); e != nil {
		in.EncryptionConfiguration = &ecrtypes.EncryptionConfiguration{
			EncryptionType: ecrtypes.EncryptionType(text(e, "encryption_type")), KmsKey: optional(e, "kms_key")}
	}
	out, err := c.ecr.CreateRepository(ctx, in)
	if err != nil {
		return "", err
	}
	return *out.Repository.RepositoryName, nil
}

func readRepository(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.ecr.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{text(was,
		"id")}})
	if err != nil {
		return nil, ignoreGone(err)
	}
	r := got.Repositories[0]
	out := object{"id": *r.RepositoryName, "image_tag_mutability": string(r.ImageTagMutability)}
	set(out, "arn", r.RepositoryArn)
	set(out, "name", r.RepositoryName)
	set(out, "registry_id", r.RegistryId)
	set(out, "repository_url", r.RepositoryUri)
	if s := r.ImageScanningConfiguration; s != nil {
		out["image_scanning_configuration"] = []any{object{"scan_on_push": s.ScanOnPush}}
	}
	if e := r.EncryptionConfiguration; e != nil {
		encryption := object{"encryption_type": string(e.EncryptionType)}
		set(encryption, "kms_key", e.KmsKey)
		out["encryption_configuration"] = []any{encryption}
	}
	tags, err := c.ecr.ListTagsForResource(ctx, &ecr.ListTagsForResourceInput{ResourceArn: r.RepositoryArn})
	if err != nil {
		return nil, ignoreGone(err)
	}
	tagged(out, was, tags.Tags, func(t ecrtypes.Tag) (*string, *string) { return t.Key, t.Value })
	return out, nil
}

func deleteRepository(ctx context.Context, c *clients, o object) error {
	_, err := c.ecr.DeleteRepository(ctx, &ecr.DeleteRepositoryInput{RepositoryName: optional(o, "id")})
	return ignoreGone(err)
}

func createRepositoryPolicy(ctx context.Context, c *clients, o object) (string, error) {
	_, err := c.ecr.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: optional(o, "repository"),
		LifecyclePolicyText: optional(o, "policy")})
	if err != nil {
		return "", err
	}
	return text(o, "repository"), nil
}

func readRepositoryPolicy(ctx context.Context, c *clients, was object) (object, error) {
	got, err := c.ecr.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: optional(was, "repository")})
	if err != nil {
		return nil, ignoreGone(err)
	}
	out := object{"id": text(was, "id")}
	set(out, "registry_id", got.RegistryId)
	document(out, "policy", got.LifecyclePolicyText, was)
	if strings.TrimSpace(text(out, "policy")) == "" {
		return nil, nil
	}
	return out, nil
}

func deleteRepositoryPolicy(ctx context.Context, c *clients, o object) error {
	_, err := c.ecr.DeleteLifecyclePolicy(ctx, &ecr.DeleteLifecyclePolicyInput{RepositoryName: optional(o,
		"repository")})
	return ignoreGone(err)
}
