variable "project" {
  description = "Id of the Google Cloud project that everything is made in."
  type        = string
}

variable "region" {
  description = "Region of the cluster, the buckets and the registry."
  type        = string
  default     = "europe-west4"
}

variable "name" {
  description = "What everything is named after: a DNS label, at most 20 characters."
  type        = string
  default     = "sluiceway"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.name))
    error_message = "The name must be a DNS label of 2 to 20 characters: small letters, digits and dashes, a letter first."
  }
}

variable "environment" {
  description = "Which overlay of manifests/overlays runs on it: dev, staging or prod. Only prod is protected from deletion."
  type        = string
  default     = "dev"

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "The environment is dev, staging or prod."
  }
}

variable "administrators" {
  description = "Networks that may reach the cluster's API server, by name, such as { office = \"203.0.113.0/24\" }."
  type        = map(string)

  validation {
    condition     = length(var.administrators) > 0 && alltrue([for block in values(var.administrators) : can(cidrhost(block, 0))])
    error_message = "Name at least one network as a CIDR block, or nobody can reach the cluster."
  }

  validation {
    condition     = !contains(values(var.administrators), "0.0.0.0/0")
    error_message = "0.0.0.0/0 opens the API server to everybody: name the networks that need it."
  }
}

variable "machine_type" {
  description = "Machine type of the nodes that run the pipelines' steps and the model servers."
  type        = string
  default     = "n2-standard-4"
}

variable "nodes" {
  description = "Least and most nodes of that type, over all zones."
  type        = object({ min = number, max = number })
  default     = { min = 1, max = 6 }

  validation {
    condition     = var.nodes.min >= 0 && var.nodes.max >= var.nodes.min
    error_message = "nodes.max must be at least nodes.min, which must not be negative."
  }
}

variable "gpu" {
  description = "The GPU nodes for training: machine type, accelerator, how many a node holds, how many nodes at most, and in which zones they exist."
  type = object({
    machine_type = string
    accelerator  = string
    per_node     = number
    max_nodes    = number
    zones        = list(string)
    spot         = optional(bool, true)
  })
  default = {
    machine_type = "g2-standard-8"
    accelerator  = "nvidia-l4"
    per_node     = 1
    max_nodes    = 4
    zones        = ["europe-west4-a", "europe-west4-b"]
  }

  validation {
    condition     = var.gpu.per_node >= 1 && var.gpu.max_nodes >= 0 && length(var.gpu.zones) > 0
    error_message = "gpu.per_node must be at least 1, gpu.max_nodes not negative, and gpu.zones must name a zone."
  }
}

variable "pipelines_namespaces" {
  description = "Namespaces that pipelines run in. The steps' accounts there get their rights on the buckets."
  type        = list(string)
  default     = ["kubeflow"]
}

variable "serving_namespaces" {
  description = "Namespaces that models are served in. The model servers' account there may read the models."
  type        = list(string)
  default     = ["models", "models-staging"]
}

variable "keep_snapshots_days" {
  description = "Days after which what a newer object has replaced in the data bucket is deleted."
  type        = number
  default     = 90
}

variable "budget" {
  description = "Monthly budget: billing account, amount in the account's currency, and who is told. Null makes none."
  type = object({
    billing_account = string
    amount          = number
    emails          = list(string)
  })
  default = null

  validation {
    condition     = var.budget == null || try(var.budget.amount > 0 && length(var.budget.emails) > 0, false)
    error_message = "A budget needs an amount above 0 and at least one address that is told."
  }
}
