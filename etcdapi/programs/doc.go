// SPDX-License-Identifier: Apache-2.0

// Package programs tests coterie with the programs of etcd v3.7.3: etcd, etcdctl and etcdutl, built from their modules.
package programs
