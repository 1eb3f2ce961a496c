# What the server may do: the calls of train-aws-ec2, of sweeps, of prices and of aob doctor --aws. reconciler/cloud has
# each of them in needs.go, and tests compare the two.
locals {
  controller = [
    {
      Sid    = "Look"
      Effect = "Allow"
      Action = [
        "ec2:DescribeImages", "ec2:DescribeInstanceAttribute", "ec2:DescribeInstanceTypeOfferings",
        "ec2:DescribeInstanceTypes", "ec2:DescribeInstances", "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeLaunchTemplates", "ec2:DescribeNetworkInterfaces", "ec2:DescribeRouteTables",
        "ec2:DescribeSecurityGroups", "ec2:DescribeSpotInstanceRequests", "ec2:DescribeSpotPriceHistory",
        "ec2:DescribeSubnets", "ec2:DescribeTags", "ec2:DescribeVolumes", "pricing:GetProducts",
        "scheduler:ListScheduleGroups", "scheduler:ListSchedules", "servicequotas:GetServiceQuota",
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
        Null         = { "aws:RequestTag/aob:expires" = "false", "aws:RequestTag/aob:run" = "false" }
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
      Sid    = "Own"
      Effect = "Allow"
      Action = [
        "ec2:AuthorizeSecurityGroupEgress", "ec2:DeleteLaunchTemplate", "ec2:DeleteSecurityGroup",
        "ec2:RevokeSecurityGroupEgress",
      ]
      Resource  = ["${local.ec2}:*/*"]
      Condition = local.own
    },
    # Sweeps end what is this server's in every region.
    {
      Sid       = "End"
      Effect    = "Allow"
      Action    = ["ec2:CancelSpotInstanceRequests", "ec2:DeleteVolume", "ec2:TerminateInstances"]
      Resource  = ["${local.arn}:ec2:*:${var.account}:*/*"]
      Condition = local.own
    },
    # The first spot instance of an account needs AWS's own role for them.
    {
      Sid       = "Spot"
      Effect    = "Allow"
      Action    = ["iam:CreateServiceLinkedRole"]
      Resource  = ["${local.iam}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"]
      Condition = { StringEquals = { "iam:AWSServiceName" = "spot.amazonaws.com" } }
    },
    # Roles have the names of this server's runs, and are within the boundary.
    {
      Sid       = "MakeRoles"
      Effect    = "Allow"
      Action    = ["iam:CreateRole", "iam:PutRolePolicy"]
      Resource  = ["${local.iam}:role/aob/aob-${local.runs}-*"]
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
      Resource = ["${local.iam}:role/aob/aob-${local.runs}-*", "${local.iam}:instance-profile/aob/aob-${local.runs}-*"]
    },
    # AWS asks about a role that is gone without its path.
    {
      Sid      = "GoneRoles"
      Effect   = "Allow"
      Action   = ["iam:GetInstanceProfile", "iam:GetRole"]
      Resource = ["${local.iam}:role/aob-${local.runs}-*", "${local.iam}:instance-profile/aob-${local.runs}-*"]
    },
    {
      Sid      = "PassRoles"
      Effect   = "Allow"
      Action   = ["iam:PassRole"]
      Resource = ["${local.iam}:role/aob/aob-${local.runs}-*"]
      Condition = { StringEquals = {
        "iam:PassedToService" = ["ec2.amazonaws.com", "scheduler.amazonaws.com"]
      } }
    },
    {
      Sid      = "Schedules"
      Effect   = "Allow"
      Action   = ["scheduler:CreateSchedule", "scheduler:DeleteSchedule", "scheduler:GetSchedule"]
      Resource = ["${local.arn}:scheduler:*:${var.account}:schedule/*/${local.runs}"]
    },
    {
      Sid      = "ScheduleGroups"
      Effect   = "Allow"
      Action   = ["scheduler:ListTagsForResource"]
      Resource = ["${local.arn}:scheduler:*:${var.account}:schedule-group/aob-*"]
    },
    {
      Sid       = "EndScheduleGroups"
      Effect    = "Allow"
      Action    = ["scheduler:DeleteScheduleGroup"]
      Resource  = ["${local.arn}:scheduler:*:${var.account}:schedule-group/aob-*"]
      Condition = local.own
    },
    # aob doctor --aws asks what this role is allowed.
    {
      Sid      = "Itself"
      Effect   = "Allow"
      Action   = ["iam:GetRole", "iam:SimulatePrincipalPolicy"]
      Resource = ["${local.iam}:role/aob/${local.name}"]
    },
    # Names of buckets are unique in the world: one that is deleted, or not made yet, may be made by somebody else.
    {
      Sid    = "Files"
      Effect = "Allow"
      Action = [
        "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetBucketPublicAccessBlock", "s3:GetBucketVersioning",
        "s3:GetEncryptionConfiguration", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
      ]
      Resource = flatten([
        for b in [var.runs_bucket, var.states_bucket, var.bundles_bucket] :
        ["${local.arn}:s3:::${b}", "${local.arn}:s3:::${b}/*"]
      ])
      Condition = local.here
    },
  ]
}
