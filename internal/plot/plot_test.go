package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestThePlotIsXMLWithEveryPointInIt(t *testing.T) {
	for _, all := range [][]Series{
		nil,
		{{Name: "none"}},
		{{Points: []Point{{100, 1}}}},
		{{"a&b<c>\x1b\xff", []Point{{10_000, 12}, {100, 0.05}, {1_000_000, 0}}}, {"two", []Point{{100, 7}, {1000, 700}}}},
	} {
		plot := Costs("costs", "local:/a&b<c>\x00", all...)
		want, circles, lines := 0, 0, 0
		for _, s := range all {
			want += len(s.Points)
		}
		for d := xml.NewDecoder(strings.NewReader(plot)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v: %s", err, plot)
			}
			switch e, _ := token.(xml.StartElement); e.Name.Local {
			case "circle":
				circles++
			case "polyline":
				lines++
			}
		}
		if circles != want || lines != len(all) || strings.Contains(plot, "NaN") || strings.Contains(plot, "Inf") {
			t.Errorf("%d points and %d lines for %v: %s", circles, lines, all, plot)
		}
	}
}

func TestAPointStandsWhereItsDecadesAre(t *testing.T) {
	s := newScale([]Point{{100, 0}, {10_000, 0}}, func(p Point) float64 { return p.Backlog }, 0, 200)
	for v, want := range map[float64]float64{100: 0, 1000: 100, 10_000: 200} {
		if got := s.at(v); got < want-0.01 || got > want+0.01 {
			t.Errorf("%.0f stands at %v, want %v", v, got, want)
		}
	}
}
