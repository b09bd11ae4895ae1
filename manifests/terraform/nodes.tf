# The nodes' own account: logs, metrics, pulling images. What a pod may do comes from the pod's account.
resource "google_service_account" "nodes" {
  account_id   = "${var.name}-nodes"
  display_name = "Nodes of ${var.name}"
}

resource "google_project_iam_member" "nodes" {
  project = var.project
  role    = "roles/container.defaultNodeServiceAccount"
  member  = google_service_account.nodes.member
}

resource "google_container_node_pool" "cpu" {
  name    = "cpu"
  cluster = google_container_cluster.this.id

  autoscaling {
    total_min_node_count = var.nodes.min
    total_max_node_count = var.nodes.max
    location_policy      = "BALANCED"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  upgrade_settings {
    max_surge       = 1
    max_unavailable = 0
  }

  node_config {
    machine_type    = var.machine_type
    image_type      = "COS_CONTAINERD"
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    disk_type       = "pd-balanced"
    disk_size_gb    = 100

    # Pods get their own account's rights, never the node's.
    workload_metadata_config {
      mode = "GKE_METADATA"
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    # Images start before they have arrived whole.
    gcfs_config {
      enabled = true
    }

    metadata = {
      disable-legacy-endpoints = "true"
    }
  }
}

# Trainings with accelerator_count above 0 come here; none is kept while nobody trains. A reclaimed node ends an attempt,
# and the pipeline's retry goes on from its checkpoint: run with spot=gke.
resource "google_container_node_pool" "gpu" {
  name           = "gpu"
  cluster        = google_container_cluster.this.id
  node_locations = var.gpu.zones

  autoscaling {
    total_min_node_count = 0
    total_max_node_count = var.gpu.max_nodes
    location_policy      = "ANY" # wherever there are any just now
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  node_config {
    machine_type    = var.gpu.machine_type
    image_type      = "COS_CONTAINERD"
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    disk_type       = "pd-balanced"
    disk_size_gb    = 200 # images with CUDA
    spot            = var.gpu.spot

    guest_accelerator {
      type  = var.gpu.accelerator
      count = var.gpu.per_node
      gpu_driver_installation_config {
        gpu_driver_version = "DEFAULT"
      }
    }

    # GKE adds the taint nvidia.com/gpu itself, and the toleration to pods that ask for a GPU. This one keeps what cannot
    # go on after a reclaim away; spot=gke makes the pipeline tolerate it.
    dynamic "taint" {
      for_each = var.gpu.spot ? ["true"] : []
      content {
        key    = "cloud.google.com/gke-spot"
        value  = taint.value
        effect = "NO_SCHEDULE"
      }
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    gcfs_config {
      enabled = true
    }

    metadata = {
      disable-legacy-endpoints = "true"
    }
  }
}
