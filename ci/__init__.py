"""What GitHub Actions, GitLab CI and Jenkins have in common beyond the make targets."""
