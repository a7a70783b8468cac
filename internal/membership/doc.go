// SPDX-License-Identifier: Apache-2.0

// Package membership has the decisions about members that need no node: which of raft's requests a node
// may answer, at which addresses a member may be found, how two nodes of different clusters differ, and
// why no leader was found. It knows neither the network nor raft.
package membership
