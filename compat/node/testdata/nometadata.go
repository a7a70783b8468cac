// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/coterie-kv/coterie"
)

// describe and descriptions are for the versions without metadata of members.
func describe(*coterie.Config) {}

func descriptions(context.Context, *coterie.Node) (string, error) { return "", nil }
