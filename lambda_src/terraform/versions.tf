terraform {
  # Validations below compare two variables, which older releases refuse.
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # The release whose schema the tests hold these files against.
      version = "~> 6.62"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { project = var.name }
  }
}
