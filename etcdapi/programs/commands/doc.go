// SPDX-License-Identifier: Apache-2.0

// Package commands runs the commands of etcdctl on nodes. Its tests run the same command on an etcd and on package
// etcdapi, in each output format, and compare output, errors and exit codes.
//
// docs/etcd-parity.md lists the differences that it leaves out.
package commands
