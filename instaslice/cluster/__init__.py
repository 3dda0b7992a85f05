"""The API server, by the standard library alone: one call, a kubeconfig, discovery."""
