// SPDX-License-Identifier: Apache-2.0

// Package languages has tests of clients in other languages on a coteried: the npm package etcd3, and the package etcd3
// of Python. A test is skipped if its language or its package is not installed:
//
//	npm install                      # in this directory
//	apt-get install python3-etcd3    # Debian
package languages
