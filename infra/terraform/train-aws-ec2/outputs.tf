output "instance" {
  description = "The id of the instance."
  value       = aws_instance.trainer.id
}

output "ami" {
  description = "The image that the instance runs."
  value       = aws_instance.trainer.ami
}
