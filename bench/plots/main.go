// SPDX-License-Identifier: Apache-2.0

// Plots renders the points of bench -growth as SVG files, one for each curve and quantity.
//
//	go run . -quick -growth -json results/growth.json
//	go run ./plots -out ../docs/plots results/growth.json
//
// The commands run in the directory of bench. Of a curve that several files have, the last one counts.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gonum.org/v1/plot"

	"github.com/coterie-kv/coterie/bench/recording"
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

// run renders the files as SVG files below out.
func run(files []string, out string) error {
	if len(files) == 0 {
		return fmt.Errorf("name the files of bench -growth -json")
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		g, err := recording.ReadGrowth(file)
		if err != nil {
			return err
		}
		for _, c := range g.Curves {
			for _, quantity := range c.Quantities {
				svg := filepath.Join(out, fileName(c.Name, quantity))
				if err := render(svg, c, quantity, footer(g.Machine)); err != nil {
					return fmt.Errorf("%s: %w", svg, err)
				}
			}
		}
	}
	return nil
}

// footer names what a recording measured, and on a second line its machine, as far as they are known.
func footer(m recording.Machine) string {
	text := m.Measured.Format(time.DateOnly)
	if m.Commit != "" {
		text += ", coterie " + m.Commit
	}
	if v := m.Versions[recording.Etcd]; v != "" {
		text += ", etcd " + v
	}
	text += fmt.Sprintf(", %s\n%s, %d CPUs", m.Go, m.System, m.CPUs)
	if m.CPU != "" {
		text += " (" + m.CPU + ")"
	}
	return text
}

// fileName returns the name of the file of a plot.
func fileName(curve, quantity string) string {
	quantity, _, _ = strings.Cut(quantity, " [")
	name := strings.NewReplacer("/", "-", " ", "-", ".", "").Replace(curve + "-" + quantity)
	return strings.ToLower(name) + ".svg"
}
