# What the server may do: the calls of train-aws-ec2 and of the sweeper.
locals {
  controller = [
    {
      Sid    = "Look"
      Effect = "Allow"
      Action = [
        "ec2:DescribeImages", "ec2:DescribeInstanceAttribute", "ec2:DescribeInstanceTypes", "ec2:DescribeInstances",
        "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeLaunchTemplates", "ec2:DescribeSecurityGroups",
        "ec2:DescribeSpotInstanceRequests", "ec2:DescribeSpotPriceHistory", "ec2:DescribeSubnets", "ec2:DescribeTags",
        "ec2:DescribeVolumes", "ec2:DescribeVpcs", "pricing:GetProducts", "scheduler:ListScheduleGroups",
      ]
      Resource = ["*"]
    },
    # An instance and its volume are made with this server's tag, or not at all.
    {
      Sid      = "Run"
      Effect   = "Allow"
      Action   = ["ec2:RunInstances"]
      Resource = ["${local.ec2}:instance/*"]
      Condition = {
        StringEquals = {
          "aws:RequestTag/aob:controller" = var.controller
          "ec2:InstanceType"              = var.instance_types
          "ec2:MetadataHttpTokens"        = "required"
        }
        Null = { "aws:RequestTag/aob:expires" = "false", "aws:RequestTag/aob:run" = "false" }
      }
    },
    {
      Sid      = "RunVolume"
      Effect   = "Allow"
      Action   = ["ec2:RunInstances"]
      Resource = ["${local.ec2}:volume/*"]
      Condition = {
        StringEquals = { "aws:RequestTag/aob:controller" = var.controller }
        Bool         = { "ec2:Encrypted" = "true" }
      }
    },
    {
      Sid    = "RunWith"
      Effect = "Allow"
      Action = ["ec2:RunInstances"]
      Resource = [
        "${local.arn}:ec2:${var.region}::image/*", "${local.ec2}:network-interface/*", "${local.ec2}:subnet/*",
        "${local.ec2}:spot-instances-request/*",
      ]
    },
    {
      Sid       = "RunWithOwn"
      Effect    = "Allow"
      Action    = ["ec2:RunInstances"]
      Resource  = ["${local.ec2}:launch-template/*", "${local.ec2}:security-group/*"]
      Condition = local.own
    },
    {
      Sid       = "Make"
      Effect    = "Allow"
      Action    = ["ec2:CreateLaunchTemplate", "ec2:CreateSecurityGroup"]
      Resource  = ["${local.ec2}:launch-template/*", "${local.ec2}:security-group/*"]
      Condition = { StringEquals = { "aws:RequestTag/aob:controller" = var.controller } }
    },
    {
      Sid      = "MakeIn"
      Effect   = "Allow"
      Action   = ["ec2:CreateSecurityGroup"]
      Resource = ["${local.ec2}:vpc/*"]
    },
    # Tags are set in the call that makes a thing, and never changed.
    {
      Sid      = "Tag"
      Effect   = "Allow"
      Action   = ["ec2:CreateTags"]
      Resource = ["${local.ec2}:*/*"]
      Condition = { StringEquals = {
        "ec2:CreateAction" = ["CreateLaunchTemplate", "CreateSecurityGroup", "RunInstances"]
      } }
    },
    {
      Sid    = "End"
      Effect = "Allow"
      Action = [
        "ec2:AuthorizeSecurityGroupEgress", "ec2:CancelSpotInstanceRequests", "ec2:DeleteLaunchTemplate",
        "ec2:DeleteSecurityGroup", "ec2:DeleteVolume", "ec2:RevokeSecurityGroupEgress", "ec2:TerminateInstances",
      ]
      Resource  = ["${local.ec2}:*/*"]
      Condition = local.own
    },
    # Roles of runs have the names of runs, and are within the boundary.
    {
      Sid       = "MakeRoles"
      Effect    = "Allow"
      Action    = ["iam:CreateRole", "iam:PutRolePolicy"]
      Resource  = ["${local.iam}:role/aob/aob-train-*"]
      Condition = { StringEquals = { "iam:PermissionsBoundary" = local.boundary } }
    },
    {
      Sid    = "Roles"
      Effect = "Allow"
      Action = [
        "iam:AddRoleToInstanceProfile", "iam:CreateInstanceProfile", "iam:DeleteInstanceProfile", "iam:DeleteRole",
        "iam:DeleteRolePolicy", "iam:GetInstanceProfile", "iam:GetRole", "iam:GetRolePolicy",
        "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole", "iam:ListRolePolicies",
        "iam:RemoveRoleFromInstanceProfile", "iam:TagInstanceProfile", "iam:TagRole",
      ]
      Resource = ["${local.iam}:role/aob/aob-train-*", "${local.iam}:instance-profile/aob/aob-train-*"]
    },
    {
      Sid      = "PassRoles"
      Effect   = "Allow"
      Action   = ["iam:PassRole"]
      Resource = ["${local.iam}:role/aob/aob-train-*"]
      Condition = { StringEquals = {
        "iam:PassedToService" = ["ec2.amazonaws.com", "scheduler.amazonaws.com"]
      } }
    },
    {
      Sid    = "Schedules"
      Effect = "Allow"
      Action = [
        "scheduler:CreateSchedule", "scheduler:DeleteSchedule", "scheduler:GetSchedule", "scheduler:ListSchedules",
        "scheduler:ListTagsForResource",
      ]
      Resource = [
        "${local.arn}:scheduler:${var.region}:${var.account}:schedule/*/train-*",
        "${local.arn}:scheduler:${var.region}:${var.account}:schedule-group/aob-*",
      ]
    },
    {
      Sid    = "Files"
      Effect = "Allow"
      Action = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]
      Resource = flatten([
        for b in [var.runs_bucket, var.states_bucket, var.bundles_bucket] :
        ["${local.arn}:s3:::${b}", "${local.arn}:s3:::${b}/*"]
      ])
    },
  ]
}
