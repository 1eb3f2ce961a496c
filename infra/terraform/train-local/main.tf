# Trains on this machine. The resource stands for one process: creating it
# launches the trainer, destroying it ends the trainer, and neither waits for
# the training. What is trained, and how, stands in the folder's launch.json,
# never on a command line and never in this module.
#
# AOB is the path of the aob program; reconciler/terraform sets it.

terraform {
  required_version = ">= 1.5"
}

variable "folder" {
  description = "The attempt's folder, which holds launch.json."
  type        = string
  nullable    = false

  validation {
    condition     = startswith(var.folder, "/")
    error_message = "The folder must be an absolute path."
  }
}

resource "terraform_data" "trainer" {
  input = var.folder

  provisioner "local-exec" {
    interpreter = ["/bin/sh", "-c"]
    command     = "exec \"$AOB\" launch start"
    working_dir = self.input
  }

  provisioner "local-exec" {
    when        = destroy
    interpreter = ["/bin/sh", "-c"]
    command     = "exec \"$AOB\" launch stop"
    working_dir = self.output
  }
}

output "folder" {
  description = "Where the trainer was launched."
  value       = terraform_data.trainer.output
}
