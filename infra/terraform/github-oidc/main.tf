# The role of the AOB server, roles for GitHub Actions without long-lived keys, and the bounds of all roles that AOB makes.
#
# controller: the AOB server. It may run train-aws-ec2, and end what has its tag.
# images: a workflow that pushes the images of trainers.
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

locals {
  arn      = "arn:${var.partition}"
  name     = "aob-${var.controller}"
  tags     = { "aob:controller" = var.controller }
  ec2      = "${local.arn}:ec2:${var.region}:${var.account}"
  iam      = "${local.arn}:iam::${var.account}"
  images   = [for name in var.image_repositories : "${local.arn}:ecr:${var.region}:${var.account}:repository/${name}"]
  boundary = "${local.iam}:policy/aob/${local.name}-boundary"
  github   = "token.actions.githubusercontent.com"

  # The names of this server's runs, as train-aws-ec2 makes them. The roles of another server have other names.
  runs = "train-*-${substr(sha256(var.controller), 0, 8)}"

  # What has the tag of this server.
  own = { StringEquals = { "aws:ResourceTag/aob:controller" = var.controller } }

  # What is in this account.
  here = { StringEquals = { "aws:ResourceAccount" = var.account } }

  jobs = [for repository in compact([var.repository]) : {
    Effect    = "Allow"
    Action    = "sts:AssumeRoleWithWebIdentity"
    Principal = { Federated = "${local.iam}:oidc-provider/${local.github}" }
    Condition = { StringEquals = {
      "${local.github}:aud" = "sts.amazonaws.com"
      "${local.github}:sub" = "repo:${repository}:environment:${var.environment}"
    } }
  }]

  principals = [for list in [sort(var.principals)] : {
    Effect    = "Allow"
    Action    = "sts:AssumeRole"
    Principal = { AWS = list }
  } if length(list) > 0]

  trust = jsonencode({ Version = "2012-10-17", Statement = concat(local.jobs, local.principals) })
}

# AWS checks GitHub's certificate itself; the provider wants a thumbprint, which is not used.
resource "aws_iam_openid_connect_provider" "github" {
  url             = "https://${local.github}"
  client_id_list  = ["sts.amazonaws.com"]
  thumbprint_list = ["6938fd4d98bab03faadb97b34396831e3780aea1"]
  tags            = local.tags
}

# What a role of a run may do at the most. The server may make no role without it.
resource "aws_iam_policy" "boundary" {
  name        = "${local.name}-boundary"
  path        = "/aob/"
  description = "AOB: the bounds of the roles of trainings."
  tags        = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Runs"
        Effect    = "Allow"
        Action    = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]
        Resource  = ["${local.arn}:s3:::${var.runs_bucket}", "${local.arn}:s3:::${var.runs_bucket}/*"]
        Condition = local.here
      },
      {
        Sid      = "Images"
        Effect   = "Allow"
        Action   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = local.images
      },
      {
        Sid      = "Login"
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = ["*"]
      },
      {
        Sid       = "End"
        Effect    = "Allow"
        Action    = ["ec2:TerminateInstances"]
        Resource  = ["${local.ec2}:instance/*"]
        Condition = local.own
      },
    ]
  })
}

resource "aws_iam_role" "controller" {
  name                 = local.name
  path                 = "/aob/"
  description          = "AOB: the server."
  max_session_duration = 43200
  assume_role_policy   = local.trust
  tags                 = local.tags
  depends_on           = [aws_iam_openid_connect_provider.github]

  lifecycle {
    precondition {
      condition     = var.repository != "" || length(var.principals) > 0
      error_message = "Somebody must be able to take the role: give repository, principals or both."
    }
  }
}

resource "aws_iam_role_policy" "controller" {
  name   = "controller"
  role   = aws_iam_role.controller.name
  policy = jsonencode({ Version = "2012-10-17", Statement = local.controller })
}

resource "aws_iam_role" "images" {
  name                 = "${local.name}-images"
  path                 = "/aob/"
  description          = "AOB: pushes the images of trainers, from GitHub Actions."
  max_session_duration = 3600
  assume_role_policy   = local.trust
  tags                 = local.tags
  depends_on           = [aws_iam_openid_connect_provider.github]
}

resource "aws_iam_role_policy" "images" {
  name = "images"
  role = aws_iam_role.images.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Push"
        Effect = "Allow"
        Action = [
          "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages",
          "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
        ]
        Resource = local.images
      },
      {
        Sid      = "Login"
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = ["*"]
      },
    ]
  })
}

output "controller_role" {
  description = "The role of the server: role-to-assume of aws-actions/configure-aws-credentials."
  value       = aws_iam_role.controller.arn
}

output "images_role" {
  description = "The role that pushes images."
  value       = aws_iam_role.images.arn
}

output "permissions_boundary" {
  description = "The value permissions_boundary of train-aws-ec2."
  value       = aws_iam_policy.boundary.arn
}
