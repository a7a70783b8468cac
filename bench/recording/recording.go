// SPDX-License-Identifier: Apache-2.0

// Package recording has the form of the files that bench writes.
package recording

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/coterie-kv/coterie/bench/harness"
)

// A Growth is the file of bench -growth -json.
type Growth struct {
	Machine
	Curves []Curve `json:"curves"`
}

// A Curve is the outcome of a workload at several sizes of one parameter, its axis.
type Curve struct {
	Name       string   `json:"name"`
	About      string   `json:"about"`
	Axis       string   `json:"axis"`
	Quantities []string `json:"quantities"`
	Series     []Series `json:"series"`
}

// A Series is the outcome of a curve on one system.
type Series struct {
	System string  `json:"system"`
	Points []Point `json:"points"`
}

// A Point is the outcome at one size.
type Point struct {
	Size   int                `json:"size"`
	Values map[string]float64 `json:"values"` // by the names of the quantities; durations are in microseconds
	Sample harness.Sample     `json:"sample"`
}

// Write writes a value as JSON to a file.
func Write(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// ReadGrowth reads a file of bench -growth -json.
func ReadGrowth(file string) (g Growth, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(text, &g); err != nil {
		return g, fmt.Errorf("%s: %w", file, err)
	}
	return g, nil
}
