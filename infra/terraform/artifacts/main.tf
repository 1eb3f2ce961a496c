# Where runs, bundles and images are kept: buckets in S3, repositories in ECR.
#
# A person applies it once. Region and credentials come from the environment.

terraform {
  required_version = ">= 1.10"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.32, < 6"
    }
  }

  # Bucket, key and region are given to init. The lock is a file beside the state.
  backend "s3" {
    encrypt      = true
    use_lockfile = true
  }
}

variable "name" {
  description = "What the names of all buckets begin with; names of buckets are unique in the world."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{2,39}$", var.name))
    error_message = "The name must be 3 to 40 small letters, digits and hyphens."
  }
}

variable "controller" {
  description = "The AOB server that uses them."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{0,39}$", var.controller))
    error_message = "The controller must be 1 to 40 small letters, digits, dots and hyphens."
  }
}

variable "partition" {
  description = "aws, aws-cn or aws-us-gov."
  type        = string
  nullable    = false
  default     = "aws"
}

variable "run_days" {
  description = "How long the files of a run are kept. Bundles and evidence are not among them."
  type        = number
  nullable    = false
  default     = 30

  validation {
    condition     = var.run_days >= 1 && var.run_days <= 3650 && floor(var.run_days) == var.run_days
    error_message = "The days must be a whole number from 1 to 3650."
  }
}

variable "repositories" {
  description = "The ECR repositories of trainers' images."
  type        = set(string)
  nullable    = false
  default     = ["aob/trainers"]
}

locals {
  # After how many days the objects of a bucket end; 0 for never.
  buckets = {
    states  = 0
    runs    = var.run_days
    bundles = 0
  }

  # How many days old versions are kept. Those of runs are checkpoints that a trainer has written again, which are
  # large, and of no use.
  old = {
    states  = 30
    runs    = 1
    bundles = 30
  }

  tags = { "aob:controller" = var.controller }
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:a bucket of logs would need one of its own; CloudTrail has who read what, where an account wants it
  #checkov:skip=CKV_AWS_144:one region: versions keep what is lost, and the rest can be made again
  #checkov:skip=CKV_AWS_145:SSE-S3 encrypts; a key of one's own costs 1 dollar a month and a call for each object
  #checkov:skip=CKV2_AWS_62:nothing listens to the buckets
  for_each      = local.buckets
  bucket        = "${var.name}-${each.key}"
  force_destroy = false
  tags          = local.tags
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each                = local.buckets
  bucket                  = aws_s3_bucket.this[each.key].bucket
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].bucket

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].bucket

  rule {
    bucket_key_enabled = false

    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].bucket

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].bucket

  rule {
    id     = "old"
    status = "Enabled"

    filter {
      prefix = ""
    }

    dynamic "expiration" {
      for_each = each.value > 0 ? [each.value] : []

      content {
        days = expiration.value
      }
    }

    noncurrent_version_expiration {
      noncurrent_days = local.old[each.key]
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each = local.buckets
  bucket   = aws_s3_bucket.this[each.key].bucket

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyTLS"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource = [
        "arn:${var.partition}:s3:::${var.name}-${each.key}",
        "arn:${var.partition}:s3:::${var.name}-${each.key}/*",
      ]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_ecr_repository" "this" {
  #checkov:skip=CKV_AWS_136:AES256 encrypts; a key of one's own costs 1 dollar a month
  for_each             = var.repositories
  name                 = each.value
  image_tag_mutability = "IMMUTABLE"
  force_delete         = false
  tags                 = local.tags

  encryption_configuration {
    encryption_type = "AES256"
  }

  image_scanning_configuration {
    scan_on_push = true
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  for_each   = var.repositories
  repository = aws_ecr_repository.this[each.value].name

  policy = jsonencode({
    rules = [{
      rulePriority = 1
      description  = "Images without a tag end after two weeks."
      selection = {
        tagStatus   = "untagged"
        countType   = "sinceImagePushed"
        countUnit   = "days"
        countNumber = 14
      }
      action = { type = "expire" }
    }]
  })
}

output "runs_bucket" {
  description = "The bucket of the runs."
  value       = aws_s3_bucket.this["runs"].bucket
}

output "states_bucket" {
  description = "The bucket of Terraform's states."
  value       = aws_s3_bucket.this["states"].bucket
}

output "bundles_bucket" {
  description = "The bucket of bundles and evidence."
  value       = aws_s3_bucket.this["bundles"].bucket
}

output "repositories" {
  description = "The addresses of the ECR repositories, by name."
  value       = { for name, r in aws_ecr_repository.this : name => r.repository_url }
}
