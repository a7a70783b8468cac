// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/coterie-kv/coterie"

func addFounder(cfg *coterie.Config, name, addr string) {
	cfg.Founders = append(cfg.Founders, coterie.Founder{Name: name, Addr: addr})
}
