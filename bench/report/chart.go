package report

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Charts are made by gonum.org/v1/plot, whose SVG is text of some kilobytes that stands in the page itself. go-echarts makes
// pages that fetch a script of a megabyte when they are looked at, or have to carry it, and nothing for a README.

// palette is distinguishable by those who do not see all colours (Okabe and Ito).
var palette = []color.RGBA{
	{0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x72, 0xb2, 0xff}, {0x00, 0x9e, 0x73, 0xff}, {0xcc, 0x79, 0xa7, 0xff},
	{0xe6, 0x9f, 0x00, 0xff}, {0x56, 0xb4, 0xe9, 0xff}, {0x55, 0x55, 0x55, 0xff},
}

// glyphs tell systems apart without colour.
var glyphs = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.SquareGlyph{}, draw.PyramidGlyph{}, draw.BoxGlyph{}, draw.RingGlyph{}, draw.TriangleGlyph{}, draw.CrossGlyph{},
}

// look is how a system is drawn, the same in all charts of a report.
func (r *Report) look(system string) (color.RGBA, draw.GlyphDrawer) {
	// Ours first, for the first colour.
	names := make([]string, 0, len(r.Systems))
	for _, s := range r.Systems {
		names = append(names, s.Name)
	}
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	i := max(0, slices.Index(names, system))
	return palette[i%len(palette)], glyphs[i%len(glyphs)]
}

func rank(system string) int {
	if Ours(system) {
		return 0
	}
	return 1
}

// Chart draws, as SVG, the ratios of the workloads that stand for the others: the one for a README. On a machine that was busy
// they are those of CPU time.
func (r *Report) Chart(w io.Writer) error {
	var list, rest []Workload
	for _, group := range r.groups() {
		for _, wl := range r.workloadsOf(group) {
			rest = append(rest, wl)
			if wl.Headline {
				list = append(list, wl)
			}
		}
	}
	if len(list) == 0 {
		list = rest
	}
	of, title := Wall, "Wall time, as a multiple of the base's: less is better"
	if r.others() > Quiet {
		of, title = CPU, "CPU time of client and server, as a multiple of the base's, on a busy machine: less is better"
	}
	if text := r.cut(); text != "" {
		title += " (" + text + ")"
	}
	return r.ratios(w, list, of, title)
}

// ratios writes ratioPlot.
func (r *Report) ratios(w io.Writer, workloads []Workload, of Of, title string) error {
	p, height, err := r.ratioPlot(workloads, of, title)
	if err != nil {
		return err
	}
	if p == nil {
		return noChart(w)
	}
	return svg(w, p, 8*vg.Inch, height)
}

// ratioPlot has a row for each workload, in it a mark for each system at its ratio to the base, with its interval. It is nil
// where nothing was measured beside its base.
func (r *Report) ratioPlot(workloads []Workload, of Of, title string) (p *plot.Plot, height vg.Length, err error) {
	p = newPlot(title)
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, ratioTicks{}
	p.X.Min, p.X.Max = 0.5, 2
	names := make([]string, len(workloads))
	var systems []string
	for i, wl := range workloads {
		names[len(workloads)-1-i] = wl.Name // the first at the top
		for _, sys := range r.systemsOf(wl.Group) {
			if !slices.Contains(systems, sys) {
				systems = append(systems, sys)
			}
		}
	}
	p.Add(grid())
	drawn := 0
	for i, sys := range systems {
		n, err := r.marks(p, workloads, sys, of, float64(i)-float64(len(systems)-1)/2)
		if err != nil {
			return nil, 0, err
		}
		drawn += n
	}
	if drawn == 0 {
		return nil, 0, nil
	}
	p.NominalY(names...)
	return p, rows(p, len(workloads), len(systems)), nil
}

// newPlot is an empty one, with a title.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.Title.TextStyle.Font.Size, p.Title.Padding = title, 11, 6
	for _, f := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		f.Variant = "Sans"
	}
	p.Legend.Top, p.Legend.Padding = true, 2
	p.Y.Tick.Length = 0
	return p
}

// rowHeight and legendHeight are those of a row and of a line of the legend.
const (
	rowHeight    = 26.0
	legendHeight = 13.0
)

// rows makes room for so many rows, and above them for the legend, and returns the height of it all.
func rows(p *plot.Plot, n, legend int) vg.Length {
	p.Y.Min, p.Y.Max = -0.6, float64(n)-0.4+legendHeight*float64(legend)/rowHeight
	return vg.Points(50 + rowHeight*(p.Y.Max-p.Y.Min))
}

// grid has a line for each ratio that is labelled.
func grid() plot.Plotter {
	g := plotter.NewGrid()
	g.Horizontal.Color = color.Transparent
	g.Vertical.Color = color.Gray{0xdd}
	g.Vertical.Width = vg.Points(0.5)
	return g
}

// marks adds one system, shifted down by so many steps in each row, and returns how many marks it has.
func (r *Report) marks(p *plot.Plot, workloads []Workload, sys string, of Of, shift float64) (int, error) {
	var pts plotter.XYs
	var errs plotter.XErrors
	for i, wl := range workloads {
		f, ok := r.figure(wl.Name, sys, of)
		base, have := r.figure(wl.Name, wl.Base, of)
		if !ok || !have || f.ratio(base) <= 0 {
			continue
		}
		x := f.ratio(base)
		pts = append(pts, plotter.XY{X: x, Y: float64(len(workloads)-1-i) - shift/8})
		low := min(x-f.Lo/base.Center, 0.9*x) // a logarithm has no place for 0
		errs = append(errs, struct{ Low, High float64 }{low, f.Hi/base.Center - x})
	}
	if len(pts) == 0 {
		return 0, nil
	}
	data := struct {
		plotter.XYs
		plotter.XErrors
	}{pts, errs}
	bars, err := plotter.NewXErrorBars(data)
	if err != nil {
		return 0, err
	}
	scatter, err := plotter.NewScatter(pts)
	if err != nil {
		return 0, err
	}
	c, glyph := r.look(sys)
	bars.Color, bars.CapWidth = c, vg.Points(3)
	scatter.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(3), Shape: glyph}
	p.Add(bars, scatter)
	p.Legend.Add(sys, scatter)
	return len(pts), nil
}

// ratioTicks labels 1, 2, 5 and their decades.
type ratioTicks struct{}

func (ratioTicks) Ticks(lo, hi float64) (list []plot.Tick) {
	for decade := math.Pow(10, math.Floor(math.Log10(lo))); decade <= hi; decade *= 10 {
		for _, m := range []float64{1, 2, 5} {
			if v := m * decade; v >= lo && v <= hi {
				list = append(list, plot.Tick{Value: v, Label: fmt.Sprintf("%g", math.Round(v*1e9)/1e9)})
			}
		}
	}
	return list
}

// cpuBars draws CPU time per workload and system: the client's, and the server's on top of it.
func (r *Report) cpuBars(w io.Writer, workloads []Workload, systems []string) error {
	p := newPlot("CPU seconds: client, and in a paler colour server")
	p.X.Min = 0
	names := make([]string, len(workloads))
	width := vg.Points(18 / float64(max(1, len(systems))))
	for i, wl := range workloads {
		names[len(workloads)-1-i] = wl.Name
	}
	for i, sys := range systems {
		client, server := make(plotter.Values, len(workloads)), make(plotter.Values, len(workloads))
		for j, wl := range workloads {
			if all, ok := r.figure(wl.Name, sys, CPU); ok {
				s, _ := r.figure(wl.Name, sys, Serve)
				server[len(workloads)-1-j] = min(s.Center, all.Center)
				client[len(workloads)-1-j] = all.Center - server[len(workloads)-1-j]
			}
		}
		c, _ := r.look(sys)
		lower, err := plotter.NewBarChart(client, width)
		if err != nil {
			return err
		}
		upper, err := plotter.NewBarChart(server, width)
		if err != nil {
			return err
		}
		pale := color.RGBA{c.R/2 + 0x7f, c.G/2 + 0x7f, c.B/2 + 0x7f, 0xff}
		shift := width * vg.Length(float64(len(systems)-1)/2-float64(i))
		lower.Horizontal, lower.Color, lower.LineStyle.Width, lower.Offset = true, c, 0, shift
		upper.Horizontal, upper.Color, upper.LineStyle.Width, upper.Offset = true, pale, 0, shift
		upper.StackOn(lower)
		p.Add(lower, upper)
		p.Legend.Add(sys, lower)
	}
	p.NominalY(names...)
	return svg(w, p, 8*vg.Inch, rows(p, len(workloads), len(systems)))
}

// svg draws p. The fonts are whatever the reader has for Liberation Sans or any other without serifs.
func svg(w io.Writer, p *plot.Plot, width, height vg.Length) error {
	p.BackgroundColor = color.White
	c := vgsvg.New(width, height)
	p.Draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return err
	}
	_, err := io.WriteString(w, strings.ReplaceAll(b.String(), "font-family:Liberation Sans", "font-family:Liberation Sans,Arial,Helvetica,sans-serif"))
	return err
}

// noChart is an empty picture: nothing was measured beside its base.
func noChart(w io.Writer) error {
	_, err := io.WriteString(w, `<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"></svg>`+"\n")
	return err
}

// inline is an SVG document without what only a file needs: declaration, comments, namespaces.
func inline(document string) (string, error) {
	_, rest, ok := strings.Cut(document, "<svg")
	if !ok {
		return "", errors.New("chart: no <svg> in it")
	}
	for _, ns := range []string{`xmlns="http://www.w3.org/2000/svg"`, `xmlns:xlink="http://www.w3.org/1999/xlink"`} {
		rest = strings.Replace(rest, ns, "", 1)
	}
	return "<svg" + rest, nil
}

func init() {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
}
