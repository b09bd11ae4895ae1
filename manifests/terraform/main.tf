locals {
  labels = {
    app         = var.name
    environment = var.environment
    managed-by  = "terraform"
  }
  production = var.environment == "prod"

  services = toset([
    "artifactregistry.googleapis.com",
    "billingbudgets.googleapis.com",
    "cloudkms.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "iam.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "storage.googleapis.com",
  ])
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_project_service" "needed" {
  for_each = local.services

  service = each.value

  # Other people's work in the project may need it too.
  disable_on_destroy = false
}
