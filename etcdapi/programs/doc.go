// SPDX-License-Identifier: Apache-2.0

// Package programs tests coterie with the programs of etcd v3.7.3, which are etcd, etcdctl and etcdutl, and with the
// benchmark of etcd v3.7.0. The tests build all of them from their modules.
package programs
