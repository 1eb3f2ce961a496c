variable "repository" {
  description = "The repository on GitHub whose jobs may take the roles, OWNER/NAME; none by default."
  type        = string
  nullable    = false
  default     = ""

  validation {
    condition     = can(regex("^([A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100})?$", var.repository))
    error_message = "The repository must be OWNER/NAME."
  }
}

variable "principals" {
  description = "The ARNs of users and roles of the account that may take the roles, as that of the server's machine."
  type        = set(string)
  nullable    = false
  default     = []

  validation {
    condition     = alltrue([for p in var.principals : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:(user|role)/[A-Za-z0-9/_+=,.@-]+$", p))])
    error_message = "A principal must be the ARN of a user or a role, arn:aws:iam::ACCOUNT:user/NAME."
  }
}

variable "environment" {
  description = "The environment on GitHub whose jobs may take the roles; its rules say from which branches."
  type        = string
  nullable    = false
  default     = "aob"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,64}$", var.environment))
    error_message = "The environment must be letters, digits, _ and -."
  }
}

variable "controller" {
  description = "The AOB server: the value of the tag aob:controller."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{0,39}$", var.controller))
    error_message = "The controller must be 1 to 40 small letters, digits, dots and hyphens."
  }
}

variable "account" {
  description = "The number of the AWS account."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account))
    error_message = "The account must be its 12 digits."
  }
}

variable "partition" {
  description = "aws, aws-cn or aws-us-gov."
  type        = string
  nullable    = false
  default     = "aws"
}

variable "region" {
  description = "The region in which trainings run."
  type        = string
  nullable    = false
}

variable "instance_types" {
  description = "The types of instances that may be started."
  type        = list(string)
  nullable    = false
  default     = ["g4dn.xlarge", "g5.xlarge", "g6.xlarge"]

  validation {
    condition     = length(var.instance_types) > 0 && alltrue([for t in var.instance_types : can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", t))])
    error_message = "There must be at least one type, and each must be a name such as g5.xlarge."
  }
}

variable "runs_bucket" {
  description = "Output runs_bucket of the module artifacts."
  type        = string
  nullable    = false
}

variable "states_bucket" {
  description = "Output states_bucket of the module artifacts."
  type        = string
  nullable    = false
}

variable "bundles_bucket" {
  description = "Output bundles_bucket of the module artifacts."
  type        = string
  nullable    = false
}

variable "image_repositories" {
  description = "The names of the ECR repositories of trainers' images."
  type        = set(string)
  nullable    = false
  default     = ["aob/trainers"]
}
