"""InstaSlice with a real control plane: etcd, kube-apiserver and other programs, if present."""
