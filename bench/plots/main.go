// SPDX-License-Identifier: Apache-2.0

// Plots renders the points of bench -growth as SVG files, one for each curve and quantity.
//
//	go run . -growth -json results/growth.json
//	go run ./plots -out ../docs/plots results/growth.json
//
// The commands run in the directory of bench. Points of one curve can be in several files: the plots have all systems.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gonum.org/v1/plot"
)

func main() {
	out := flag.String("out", ".", "the directory of the SVG files")
	flag.Parse()
	plot.DefaultFont.Variant = "Sans"
	if err := run(flag.Args(), *out); err != nil {
		fmt.Fprintln(os.Stderr, "plots:", err)
		os.Exit(1)
	}
}

// A recording is a file of bench -growth.
type recording struct {
	Measured time.Time `json:"measured"`
	Go       string    `json:"go"`
	System   string    `json:"system"`
	CPUs     int       `json:"cpus"`
	Curves   []curve   `json:"curves"`
}

// A curve is a workload that ran at several sizes of one parameter.
type curve struct {
	Name       string   `json:"name"`
	About      string   `json:"about"`
	Axis       string   `json:"axis"`
	Quantities []string `json:"quantities"`
	Series     []series `json:"series"`
}

// A series is the outcome of a curve on one system.
type series struct {
	System string  `json:"system"`
	Points []point `json:"points"`
}

// A point is the outcome at one size, by the names of the quantities.
type point struct {
	Size   int                `json:"size"`
	Values map[string]float64 `json:"values"`
}

// run renders the files as SVG files below out.
func run(files []string, out string) error {
	if len(files) == 0 {
		return fmt.Errorf("name the files of bench -growth -json")
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var r recording
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for _, c := range r.Curves {
			for _, quantity := range c.Quantities {
				svg := filepath.Join(out, fileName(c.Name, quantity))
				if err := render(svg, c, quantity, r.footer()); err != nil {
					return fmt.Errorf("%s: %w", svg, err)
				}
			}
		}
	}
	return nil
}

// footer names the machine of a recording.
func (r recording) footer() string {
	return fmt.Sprintf("%s, %s, %d CPUs, %s", r.Measured.Format(time.DateOnly), r.System, r.CPUs, r.Go)
}

// fileName returns the name of the file of a plot.
func fileName(curve, quantity string) string {
	quantity, _, _ = strings.Cut(quantity, " [")
	name := strings.NewReplacer("/", "-", " ", "-", ".", "").Replace(curve + "-" + quantity)
	return strings.ToLower(name) + ".svg"
}
