"""Access to the API server with only the standard library: calls, kubeconfig, discovery."""
