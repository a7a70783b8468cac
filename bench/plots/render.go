// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"github.com/coterie-kv/coterie/bench/recording"
)

// The size of a plot.
const (
	width  = 16 * vg.Centimeter
	height = 10 * vg.Centimeter
)

// render draws a quantity of a curve, with logarithmic axes, to a file.
func render(file string, c recording.Curve, quantity, footer string) error {
	p := plot.New()
	p.Title.Text, p.Title.Padding = c.About, vg.Millimeter
	p.X.Label.Text = c.Axis + "\n" + footer
	p.X.Label.TextStyle.Font.Size = vg.Points(9) // a footer with a long name of a CPU fits
	p.Y.Label.Text = quantity
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Left = true, true
	for i, s := range c.Series {
		points := positive(s, quantity)
		if len(points) == 0 {
			continue
		}
		line, marks, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		line.Color, marks.Color, marks.Shape = plotutil.Color(i), plotutil.Color(i), plotutil.Shape(i)
		line.Width = vg.Points(1.5)
		p.Add(line, marks)
		p.Legend.Add(s.System, line, marks)
	}
	if p.Y.Min > p.Y.Max {
		return nil // no system has a point
	}
	p.X.Min, p.X.Max = decades(p.X.Min, p.X.Max)
	p.Y.Min, p.Y.Max = decades(p.Y.Min, p.Y.Max)
	return p.Save(width, height, file)
}

// decades returns the smallest range of whole powers of ten that has a given one. Only powers of ten have labels.
func decades(least, largest float64) (float64, float64) {
	from, to := math.Floor(math.Log10(least)), math.Ceil(math.Log10(largest))
	return math.Pow(10, from), math.Pow(10, max(to, from+1)) // an axis needs a length
}

// positive returns the points of a quantity that a logarithmic axis can show.
func positive(s recording.Series, quantity string) (points plotter.XYs) {
	for _, p := range s.Points {
		if y := p.Values[quantity]; p.Size > 0 && y > 0 {
			points = append(points, plotter.XY{X: float64(p.Size), Y: y})
		}
	}
	return points
}
