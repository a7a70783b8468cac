// SPDX-License-Identifier: Apache-2.0

// Package difftest compares package etcdapi with etcd itself. Its tests send the same random requests to an etcd in
// this process and to a node, both over gRPC, and compare every field of every answer, and every error. It is a module
// of its own, because etcd's server has many dependencies.
//
// docs/etcd-parity.md lists the tests, and the differences that they leave out. In a long run, -requests sets the number
// of requests of TestSameAnswers and TestSameAnswersToUsers; the other tests send a fraction. The flag -seed makes other
// requests, and -differences lets a test go on after a difference.
package difftest
