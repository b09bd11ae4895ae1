"""The Kubernetes API as the steps use it."""
