# Values of one run. AOB writes them all into terraform.tfvars.json and checks the plan against them.

variable "run" {
  description = "The run: the name of its folder."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,39}$", var.run))
    error_message = "The run must be 1 to 40 small letters, digits and hyphens."
  }
}

variable "name" {
  description = "What is in the names of all resources. Servers of one account may train the same: each needs its own."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,49}$", var.name))
    error_message = "The name must be 1 to 50 small letters, digits and hyphens."
  }
}

variable "attempt" {
  description = "The number of the attempt, from 1."
  type        = number
  nullable    = false

  validation {
    condition     = var.attempt >= 1 && var.attempt <= 999 && floor(var.attempt) == var.attempt
    error_message = "The attempt must be a whole number from 1 to 999."
  }
}

variable "home" {
  description = "AOB's folder on the instance. The paths in run.json are in it."
  type        = string
  nullable    = false
  default     = "/opt/aob"

  validation {
    condition     = can(regex("^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$", var.home))
    error_message = "The home must be an absolute path of letters, digits and . _ -"
  }
}

variable "controller" {
  description = "The AOB server that owns the run. Its sweeper ends only what has its name."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{0,62}$", var.controller))
    error_message = "The controller must be 1 to 63 small letters, digits, dots and hyphens."
  }
}

variable "owner" {
  description = "Who let the run start."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}$", var.owner))
    error_message = "The owner must be 1 to 128 letters, digits and . _ @ + -"
  }
}

variable "pull" {
  description = "The number of the pull request, or none."
  type        = string
  nullable    = false
  default     = "none"

  validation {
    condition     = can(regex("^(none|[1-9][0-9]{0,9})$", var.pull))
    error_message = "The pull request must be its number, or none."
  }
}

variable "expires" {
  description = "When the instance ends at the latest, as RFC 3339 in UTC, such as 2026-11-30T18:00:00Z."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$", var.expires))
    error_message = "The expiry must be a time as 2026-11-30T18:00:00Z."
  }
}

variable "minutes" {
  description = "How long the instance may run from its boot on."
  type        = number
  nullable    = false

  validation {
    condition     = var.minutes >= 5 && var.minutes <= 10080 && floor(var.minutes) == var.minutes
    error_message = "The minutes must be a whole number from 5 to 10080."
  }
}

variable "silence_minutes" {
  description = "How long the instance lives without a heartbeat of its boot script or its trainer."
  type        = number
  nullable    = false
  default     = 15

  validation {
    condition     = var.silence_minutes >= 5 && var.silence_minutes <= 120 && floor(var.silence_minutes) == var.silence_minutes
    error_message = "The minutes of silence must be a whole number from 5 to 120."
  }
}

variable "account" {
  description = "The number of the AWS account. Nothing is made in another."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account))
    error_message = "The account must be its 12 digits."
  }
}

variable "region" {
  description = "The region of the instance, which is AWS_REGION of the provider too."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region must be a name such as eu-central-1."
  }
}

variable "partition" {
  description = "aws, aws-cn or aws-us-gov."
  type        = string
  nullable    = false
  default     = "aws"

  validation {
    condition     = contains(["aws", "aws-cn", "aws-us-gov"], var.partition)
    error_message = "The partition must be aws, aws-cn or aws-us-gov."
  }
}

variable "vpc" {
  description = "The VPC of the subnet."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^vpc-[0-9a-f]+$", var.vpc))
    error_message = "The VPC must be its id, vpc-…"
  }
}

variable "subnet" {
  description = "The subnet of the instance. It needs a way to S3, and to ECR where image is used."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^subnet-[0-9a-f]+$", var.subnet))
    error_message = "The subnet must be its id, subnet-…"
  }
}

variable "public_address" {
  description = "Whether the instance has a public address, for a subnet without NAT. Nothing is let in either way."
  type        = bool
  nullable    = false
  default     = false
}

variable "instance_type" {
  description = "The type of the instance, such as g5.xlarge."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,11}\\.[a-z0-9-]{1,16}$", var.instance_type))
    error_message = "The instance type must be a name such as g5.xlarge."
  }
}

variable "spot" {
  description = "Whether it is a spot instance: a one-time request, which AWS may interrupt."
  type        = bool
  nullable    = false
}

variable "max_price" {
  description = "The highest price of a spot instance an hour, in dollars."
  type        = string
  nullable    = false
  default     = ""

  validation {
    condition     = can(regex("^([0-9]{1,3}\\.[0-9]{1,5})?$", var.max_price)) && (var.max_price != "" || !var.spot)
    error_message = "A spot instance needs the highest price an hour, such as 1.006."
  }
}

variable "ami" {
  description = "An image of your own. If it is empty, the newest one that ami_owner and ami_name name."
  type        = string
  nullable    = false
  default     = ""

  validation {
    condition     = can(regex("^(ami-[0-9a-f]+)?$", var.ami))
    error_message = "The AMI must be its id, ami-…"
  }
}

variable "ami_owner" {
  description = "The owner of the image: an account, or amazon."
  type        = string
  nullable    = false
  default     = "amazon"

  validation {
    condition     = can(regex("^(amazon|self|[0-9]{12})$", var.ami_owner))
    error_message = "The owner of the AMI must be amazon, self or the 12 digits of an account."
  }
}

variable "ami_name" {
  description = "The name of the image; * stands for any text."
  type        = string
  nullable    = false
  default     = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) *"
}

variable "disk_gb" {
  description = "The size of the volume."
  type        = number
  nullable    = false
  default     = 150

  validation {
    condition     = var.disk_gb >= 30 && var.disk_gb <= 2000 && floor(var.disk_gb) == var.disk_gb
    error_message = "The size of the volume must be a whole number from 30 to 2000."
  }
}

variable "bucket" {
  description = "The bucket of the runs: output runs_bucket of the module artifacts."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "The bucket must be the name of a bucket."
  }
}

variable "inputs" {
  description = "The prefix that the instance reads."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^([A-Za-z0-9_-][A-Za-z0-9._-]*/)+$", var.inputs))
    error_message = "The prefix of the inputs must be names with a / after each."
  }
}

variable "outputs" {
  description = "The prefix that the instance writes."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^([A-Za-z0-9_-][A-Za-z0-9._-]*/)+$", var.outputs)) && !startswith(var.inputs, var.outputs) && !startswith(var.outputs, var.inputs)
    error_message = "The prefix of the outputs must be names with a / after each, and apart from the inputs."
  }
}

variable "manifest" {
  description = "The SHA-256 of the object SHA256SUMS below inputs, which lists all other inputs."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.manifest))
    error_message = "The manifest must be the 64 hexadecimal digits of a SHA-256."
  }
}

variable "image" {
  description = "The trainer's container image, by digest. If it is empty, the input environment.tar is its environment."
  type        = string
  nullable    = false
  default     = ""

  validation {
    condition     = can(regex("^([a-z0-9][a-z0-9./:_-]{0,200}@sha256:[0-9a-f]{64})?$", var.image))
    error_message = "The image must be named by its digest, NAME@sha256:…"
  }
}

variable "image_repository" {
  description = "The ARN of the image's ECR repository, if it has one; the instance may pull from it alone."
  type        = string
  nullable    = false
  default     = ""

  validation {
    condition     = can(regex("^(arn:[a-z-]+:ecr:[a-z0-9-]+:[0-9]{12}:repository/[a-z0-9./_-]+)?$", var.image_repository))
    error_message = "The repository must be its ARN."
  }
}

variable "schedule_group" {
  description = "The group of the schedule. The sweeper looks into groups whose tag aob:controller names its server."
  type        = string
  nullable    = false
  default     = "default"

  validation {
    condition     = can(regex("^(default|aob-[0-9a-zA-Z-_.]{1,60})$", var.schedule_group))
    error_message = "The group of the schedule must be default, or begin with aob-."
  }
}

variable "permissions_boundary" {
  description = "The ARN of the policy that bounds the run's roles: an output of the module github-oidc."
  type        = string
  nullable    = false
  default     = ""

  validation {
    condition     = can(regex("^(arn:[a-z-]+:iam::[0-9]{12}:policy/[A-Za-z0-9/_+=,.@-]+)?$", var.permissions_boundary))
    error_message = "The permissions boundary must be the ARN of a policy."
  }
}
