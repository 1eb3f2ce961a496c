# One attempt of one training on one GPU instance in EC2. reconciler/terraform/ec2.go has all that may be in a plan of
# this module, value for value, and refuses any other plan; a change here needs its change there.
#
# Region and credentials come from the environment, so that neither is in a file or in the state.

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
  name = "aob-${var.name}-${var.attempt}"

  tags = {
    "Name"           = local.name
    "aob:controller" = var.controller
    "aob:run"        = var.run
    "aob:owner"      = var.owner
    "aob:pull"       = var.pull
    "aob:expires"    = var.expires
  }

  bucket = "arn:${var.partition}:s3:::${var.bucket}"

  # The checks of the variables let no quote in.
  values = {
    AOB_HOME     = var.home
    AOB_ATTEMPT  = var.attempt
    AOB_USER     = "nobody"
    AOB_MINUTES  = var.minutes
    AOB_EXPIRES  = var.expires
    AOB_SILENCE  = var.silence_minutes
    AOB_SECONDS  = 15
    AOB_BUCKET   = var.bucket
    AOB_INPUTS   = var.inputs
    AOB_OUTPUTS  = var.outputs
    AOB_MANIFEST = var.manifest
    AOB_IMAGE    = var.image
    AWS_REGION   = var.region
  }

  user_data = format("#!/bin/sh\n%s\n%s",
    join("\n", [for name, value in local.values : "export ${name}='${value}'"]),
    file("${path.module}/boot.sh"),
  )
}

data "aws_ami" "trainer" {
  count       = var.ami == "" ? 1 : 0
  most_recent = true
  owners      = [var.ami_owner]

  filter {
    name   = "name"
    values = [var.ami_name]
  }

  filter {
    name   = "architecture"
    values = ["x86_64"]
  }
}

# Nothing comes in. What goes out is HTTPS: S3, ECR, a registry.
resource "aws_security_group" "trainer" {
  name        = local.name
  description = "AOB: a training. Nothing comes in."
  vpc_id      = var.vpc
  tags        = local.tags
  ingress     = []

  egress = [{
    description      = "HTTPS to S3 and registries"
    protocol         = "tcp"
    from_port        = 443
    to_port          = 443
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = []
    prefix_list_ids  = []
    security_groups  = []
    self             = false
  }]

  lifecycle {
    postcondition {
      condition     = self.owner_id == var.account && split(":", self.arn)[3] == var.region
      error_message = "AWS answers from another account or region than the server's configuration names."
    }
  }
}

resource "aws_iam_role" "trainer" {
  name                 = local.name
  path                 = "/aob/"
  description          = "AOB: the instance of a training."
  max_session_duration = 3600
  permissions_boundary = var.permissions_boundary == "" ? null : var.permissions_boundary
  tags                 = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

# The instance reads its inputs, and reads and writes its own output.
resource "aws_iam_role_policy" "trainer" {
  name = "run"
  role = aws_iam_role.trainer.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat([
      {
        Sid       = "List"
        Effect    = "Allow"
        Action    = ["s3:ListBucket"]
        Resource  = [local.bucket]
        Condition = { StringLike = { "s3:prefix" = ["${var.inputs}*", "${var.outputs}*"] } }
      },
      {
        Sid      = "Read"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = ["${local.bucket}/${var.inputs}*", "${local.bucket}/${var.outputs}*"]
      },
      {
        Sid      = "Write"
        Effect   = "Allow"
        Action   = ["s3:PutObject", "s3:AbortMultipartUpload"]
        Resource = ["${local.bucket}/${var.outputs}*"]
      },
      ], var.image_repository == "" ? [] : [
      {
        Sid      = "Pull"
        Effect   = "Allow"
        Action   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = [var.image_repository]
      },
      {
        Sid      = "Login"
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = ["*"]
      },
    ])
  })
}

resource "aws_iam_instance_profile" "trainer" {
  name = local.name
  path = "/aob/"
  role = aws_iam_role.trainer.name
  tags = local.tags
}

# It has tags and nothing else: settings that matter stand in the instance. AWS lets a call to run an instance tag the
# request of a spot instance, but the provider's aws_instance cannot pass such tags.
resource "aws_launch_template" "tags" {
  #checkov:skip=CKV_AWS_79:the instance itself requires IMDSv2, where an allow-list of the plan sees it
  name        = local.name
  description = "AOB: tags of a training."
  tags        = local.tags

  dynamic "tag_specifications" {
    for_each = concat(["instance", "network-interface"], var.spot ? ["spot-instances-request"] : [], ["volume"])

    content {
      resource_type = tag_specifications.value
      tags          = local.tags
    }
  }
}

resource "aws_instance" "trainer" {
  #checkov:skip=CKV_AWS_126:the heartbeat says more than detailed monitoring, which costs 2 dollars a month
  #checkov:skip=CKV_AWS_88:a public address is off unless the server's configuration asks for it, for a subnet without NAT
  ami                                  = var.ami == "" ? data.aws_ami.trainer[0].id : var.ami
  instance_type                        = var.instance_type
  subnet_id                            = var.subnet
  vpc_security_group_ids               = [aws_security_group.trainer.id]
  associate_public_ip_address          = var.public_address
  iam_instance_profile                 = aws_iam_instance_profile.trainer.name
  instance_initiated_shutdown_behavior = "terminate"
  disable_api_termination              = false
  ebs_optimized                        = true
  source_dest_check                    = true
  user_data_base64                     = base64encode(local.user_data)
  tags                                 = local.tags
  volume_tags                          = local.tags

  launch_template {
    id      = aws_launch_template.tags.id
    version = "$Latest"
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    instance_metadata_tags      = "disabled"
  }

  root_block_device {
    encrypted             = true
    delete_on_termination = true
    volume_type           = "gp3"
    volume_size           = var.disk_gb
  }

  dynamic "instance_market_options" {
    for_each = var.spot ? [var.max_price] : []

    content {
      market_type = "spot"

      spot_options {
        spot_instance_type             = "one-time"
        instance_interruption_behavior = "terminate"
        max_price                      = instance_market_options.value
      }
    }
  }

  # The instance must be able to read from its first second, and be able to be ended.
  depends_on = [aws_iam_role_policy.trainer, aws_iam_role_policy.end]

  lifecycle {
    precondition {
      condition     = length(local.user_data) <= 16384
      error_message = "The user data is larger than the 16 KB that EC2 takes."
    }
  }
}

# The scheduler of the account ends the instance at its expiry, whatever has become of AOB.
resource "aws_iam_role" "end" {
  name                 = "${local.name}-end"
  path                 = "/aob/"
  description          = "AOB: ends the instance of a training at its expiry."
  max_session_duration = 3600
  permissions_boundary = var.permissions_boundary == "" ? null : var.permissions_boundary
  tags                 = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "scheduler.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = var.account } }
    }]
  })
}

resource "aws_iam_role_policy" "end" {
  name = "end"
  role = aws_iam_role.end.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "End"
      Effect   = "Allow"
      Action   = ["ec2:TerminateInstances"]
      Resource = ["arn:${var.partition}:ec2:${var.region}:${var.account}:instance/*"]
      Condition = { StringEquals = {
        "aws:ResourceTag/aob:controller" = var.controller
        "aws:ResourceTag/aob:run"        = var.run
      } }
    }]
  })
}

resource "aws_scheduler_schedule" "end" {
  #checkov:skip=CKV_AWS_297:the schedule holds the id of an instance, which is no secret, and a key of one's own costs 1 dollar a month
  name                         = var.name
  group_name                   = var.schedule_group
  description                  = "AOB: ends the instance of a training at its expiry."
  state                        = "ENABLED"
  schedule_expression          = "at(${trimsuffix(var.expires, "Z")})"
  schedule_expression_timezone = "UTC"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "arn:${var.partition}:scheduler:::aws-sdk:ec2:terminateInstances"
    role_arn = aws_iam_role.end.arn
    input    = jsonencode({ InstanceIds = [aws_instance.trainer.id] })

    retry_policy {
      maximum_retry_attempts       = 185
      maximum_event_age_in_seconds = 86400
    }
  }
}
