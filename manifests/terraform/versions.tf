terraform {
  required_version = ">= 1.5"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.50"
    }
  }

  # State holds addresses and account names: keep it in a bucket that few people read. The values are given to
  # `terraform init -backend-config=bucket=… -backend-config=prefix=…`.
  backend "gcs" {}
}

provider "google" {
  project = var.project
  region  = var.region

  # Budgets are billed to the project that asks for them.
  user_project_override = true
  billing_project       = var.project

  default_labels = local.labels
}
