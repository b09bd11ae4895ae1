output "connect" {
  description = "The command that lets kubectl, and sluiceway, reach the cluster."
  value       = "gcloud container clusters get-credentials ${google_container_cluster.this.name} --region ${var.region} --project ${var.project}"
}

output "registry" {
  description = "Where images are pushed to: REGISTRY of the image build."
  value       = "${google_artifact_registry_repository.images.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "store" {
  description = "SLUICEWAY_STORE of the settings."
  value       = "gs://${google_storage_bucket.this["data"].name}/sluiceway"
}

output "pipeline_root" {
  description = "Where KFP keeps what passes between steps: its default pipeline root."
  value       = "gs://${google_storage_bucket.this["data"].name}/pipelines"
}

output "models" {
  description = "Where MLflow keeps the bundles: its artifacts destination."
  value       = "gs://${google_storage_bucket.this["models"].name}/mlflow"
}
