package coco

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
)

// This file has shorter forms of the package's functions, and writes results.

// Evaluate matches and scores.
func Evaluate(truth *Truth, detections []Detection, params Params) (*Result, error) {
	m, err := Match(truth, detections, params)
	if err != nil {
		return nil, err
	}
	return m.Result(), nil
}

func readTruth(r io.Reader) (*Truth, error) { return Loader{}.ReadTruth(r) }

func parseTruth(data []byte) (*Truth, error) { return readTruth(bytes.NewReader(data)) }

func parseTruthLenient(data []byte) (*Truth, []Problem, error) {
	return Loader{}.ReadTruthLenient(bytes.NewReader(data))
}

func readDetections(r io.Reader, truth *Truth) ([]Detection, error) {
	return Loader{}.ReadDetections(r, truth)
}

func parseDetections(data []byte, truth *Truth) ([]Detection, error) {
	return readDetections(bytes.NewReader(data), truth)
}

// writeDetections writes COCO results, one detection a line, such that reading
// them gives the same values. The same detections give the same bytes.
func writeDetections(w io.Writer, detections []Detection) error {
	out := bufio.NewWriter(w)
	var line []byte
	for i := range detections {
		d := &detections[i]
		if text := d.fault(); text != "" {
			return fmt.Errorf("coco: detections[%d]: %s", i, text)
		}
		line = append(line[:0], ",\n"...)
		if i == 0 {
			line = append(line[:0], '[')
		}
		line = append(line, `{"image_id":`...)
		line = strconv.AppendInt(line, d.Image, 10)
		line = append(line, `,"category_id":`...)
		line = strconv.AppendInt(line, d.Category, 10)
		line = append(line, `,"bbox":[`...)
		for k, v := range [4]float64{d.Box.X, d.Box.Y, d.Box.W, d.Box.H} {
			if k > 0 {
				line = append(line, ',')
			}
			line = strconv.AppendFloat(line, v, 'g', -1, 64)
		}
		line = append(line, `],"score":`...)
		line = strconv.AppendFloat(line, d.Score, 'g', -1, 64)
		line = append(line, '}')
		if _, err := out.Write(line); err != nil {
			return err
		}
	}
	tail := "]\n"
	if len(detections) == 0 {
		tail = "[]\n"
	}
	if _, err := out.WriteString(tail); err != nil {
		return err
	}
	return out.Flush()
}
