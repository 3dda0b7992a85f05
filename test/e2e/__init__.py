"""InstaSlice against a real control plane: etcd, kube-apiserver and what else is there."""
