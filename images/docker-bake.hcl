# The images that components/images.py names. `make images` builds them, `make images-push` releases them:
# for every platform, with provenance and list of packages, and the same bytes for the same commit.

variable "REGISTRY" {
  default = "ghcr.io/sluiceway"
}

variable "VERSION" {
  default = "0.1.0"
}

# git rev-parse HEAD, and the time of that commit in seconds and as a date.
variable "COMMIT" {
  default = ""
}

variable "SOURCE_DATE_EPOCH" {
  default = "0"
}

variable "CREATED" {
  default = ""
}

# Push, for every platform, with provenance and list of packages.
variable "RELEASE" {
  default = false
}

# Repository that keeps layers between builds, such as "ghcr.io/sluiceway/cache"; releases fill it.
variable "CACHE" {
  default = ""
}

group "default" {
  targets = ["cpu", "cuda"]
}

group "cpu" {
  targets = ["python-data", "python-control", "python-serving", "python-spark", "python-train-sklearn", "python-train-torch", "python-train-tensorflow"]
}

group "cuda" {
  targets = ["python-train-torch-cuda", "python-train-tensorflow-cuda"]
}

# What the road needs on a local cluster.
group "cluster" {
  targets = ["python-data", "python-control", "python-serving", "python-train-sklearn"]
}

# On arm where every compiled library has a wheel: psutil 5.9.8, which constraints.txt pins for KServe, has none.
target "image" {
  name = "python-${image.group}"
  matrix = {
    image = [
      { group = "data", stage = "step", index = "", arm = true },
      { group = "control", stage = "step", index = "", arm = false },
      { group = "serving", stage = "serving", index = "", arm = true },
      { group = "spark", stage = "spark", index = "", arm = false },
      { group = "train-sklearn", stage = "step", index = "", arm = false },
      { group = "train-torch", stage = "step", index = "https://download.pytorch.org/whl/cpu", arm = false },
      { group = "train-torch-cuda", stage = "step", index = "", arm = false },
      { group = "train-tensorflow", stage = "step", index = "", arm = false },
      { group = "train-tensorflow-cuda", stage = "step", index = "", arm = false },
    ]
  }
  context    = "."
  dockerfile = "images/Dockerfile"
  target     = image.stage
  args = {
    GROUP             = image.group
    TORCH_INDEX       = image.index
    VERSION           = VERSION
    COMMIT            = COMMIT
    CREATED           = CREATED
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
  tags       = ["${REGISTRY}/python-${image.group}:${VERSION}"]
  platforms  = RELEASE ? (image.arm ? ["linux/amd64", "linux/arm64"] : ["linux/amd64"]) : []
  output     = RELEASE ? ["type=image,push=true,rewrite-timestamp=true"] : []
  attest     = RELEASE ? ["type=provenance,mode=max", "type=sbom"] : []
  cache-from = CACHE == "" ? [] : ["type=registry,ref=${CACHE}:python-${image.group}"]
  cache-to   = CACHE == "" || !RELEASE ? [] : ["type=registry,ref=${CACHE}:python-${image.group},mode=max"]
}
