"""The InferenceService on one machine: a supervisor, one model server per revision, Envoy in front."""
