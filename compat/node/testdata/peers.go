// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/coterie-kv/coterie"

// addFounder is for the versions in which Config.Founders was called Peers.
func addFounder(cfg *coterie.Config, name, addr string) {
	cfg.Peers = append(cfg.Peers, coterie.Peer{Name: name, Addr: addr})
}
